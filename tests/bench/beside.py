#!/usr/bin/env python3
"""Prints two products' results of the side-by-side bench beside each other: median (min-max) and ratio."""

import json
import statistics
import sys


def results(path):
    with open(path) as lines:
        return [json.loads(line) for line in lines]


# What is compared: a name, the scenario with its label, the figure in a result, and whether more is better.
FIGURES = [
    ("end to end, messages/s", "e2e", lambda r: r["e2e_rate"], True),
    ("CPU s per 1,000, edge", "e2e", lambda r: r["cpu_per_k"]["pfedge"], False),
    ("CPU s per 1,000, inside", "e2e", lambda r: r["cpu_per_k"]["pfbig"], False),
    ("CPU s per 1,000, both", "e2e", lambda r: sum(r["cpu_per_k"].values()), False),
    ("CPU s per 1,000, generator", "e2e", lambda r: r["cpu"]["pfgen"] / r["ok"] * 1000, False),
    ("memory (PSS) MiB, both", "e2e", lambda r: sum(r["pss"].values()) / 2**20, False),
    ("bytes on the link per message, out", "e2e", lambda r: r["bytes_per_msg"][0], False),
    ("accept with the link down, messages/s", "accept", lambda r: r["rate"], True),
    ("one message alone, accept p50 ms", "lat", lambda r: r["accept_ms"]["p50"], False),
    ("one message alone, end to end p50 ms", "lat", lambda r: r["e2e_ms"]["p50"], False),
    ("one message alone, end to end p99 ms", "lat", lambda r: r["e2e_ms"]["p99"], False),
    ("bad line: 4 KiB text, messages/s", "e2e shaped", lambda r: r["e2e_rate"], True),
    ("bad line: 4 KiB text, bytes out per message", "e2e shaped", lambda r: r["bytes_per_msg"][0], False),
    ("bad line: 4 KiB text, bytes back per message", "e2e shaped", lambda r: r["bytes_per_msg"][1], False),
    ("bad line: 64 KiB base64, messages/s", "e2e shaped-b64", lambda r: r["e2e_rate"], True),
    ("bad line: 64 KiB base64, bytes out per message", "e2e shaped-b64", lambda r: r["bytes_per_msg"][0], False),
    ("bad line: one message alone, end to end p50 ms", "lat shaped", lambda r: r["e2e_ms"]["p50"], False),
    ("bad line: one message alone, end to end p99 ms", "lat shaped", lambda r: r["e2e_ms"]["p99"], False),
    ("bad line, beside 200 MB: one message, p50 ms", "lat large", lambda r: r["e2e_ms"]["p50"], False),
    ("bad line, beside 200 MB: one message, p90 ms", "lat large", lambda r: r["e2e_ms"]["p90"], False),
    ("30 s cut: first message after it, s", "caught_up", lambda r: r["first"], False),
    ("30 s cut: caught up after it, s", "caught_up", lambda r: r["caught_up"], False),
    ("30 s cut: accepted, not in a mailbox at the end", "outage", lambda r: r["ok"] - r["final"], None),
]


for domains in (1, 100):
    for delay, answers in ((0, "answers at once"), (50, "each answer 50 ms late")):
        name = f"out to {domains} domain{'s' if domains > 1 else ''}, {answers}"
        FIGURES += [
            (f"{name}, messages/s", f"outbound {domains} {delay}", lambda r: r["rate"], True),
            (f"{name}, CPU s per 1,000", f"outbound {domains} {delay}", lambda r: sum(r["cpu_per_k"].values()), False),
            (f"{name}, connections", f"outbound {domains} {delay}", lambda r: r["connections"], None),
        ]


def scenario(result):
    return f"{result['scenario']} {result.get('label', '')}".strip()


def cell(values):
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:.3g} ({low:.3g}-{high:.3g})" if middle < 100 else f"{middle:.0f} ({low:.0f}-{high:.0f})"


def main(other_path, ours_path):
    other, ours = results(other_path), results(ours_path)
    incomplete = [r for r in other + ours if not r.get("reached", True) or r.get("fail") or r.get("lost")]
    print("| 50 connections, 4 KiB, a connection per message | Postfix + Dovecot | Sallypost | better by |")
    print("|---|---|---|---|")
    for name, what, figure, more_is_better in FIGURES:
        a, b = ([figure(r) for r in side if scenario(r) == what] for side in (other, ours))
        # What never came about has no figure.
        a, b = ([value for value in side if value is not None] for side in (a, b))
        if a and b and more_is_better is None:
            print(f"| {name} | {cell(a)} | {cell(b)} | |")
        elif a and b:
            ratio = statistics.median(b) / statistics.median(a)
            print(f"| {name} | {cell(a)} | {cell(b)} | {ratio if more_is_better else 1 / ratio:.1f} x |")
    print()
    for product, side in ("Postfix + Dovecot", other), ("Sallypost", ours):
        shares = [r["foreign_cpu"] / r["e2e_secs"] for r in side if scenario(r) == "e2e"]
        if shares:
            print(f"CPUs that other work on this machine took from {product}, end to end: {cell(shares)}")
    for result in incomplete:
        print("incomplete:", result["target"], scenario(result), result.get("fail"), "failed")
    return 1 if incomplete else 0


sys.exit(main(*sys.argv[1:]))
