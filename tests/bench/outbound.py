#!/usr/bin/env python3
"""Outbound beside the other product: mail from inside to hosts outside, which answer at once or 50 ms late.

outbound.py PRODUCT COUNT: one line of JSON per number of domains and delay into results/PRODUCT.jsonl. 20 senders, 4 KiB
each. What sends differs, for Sallypost has no SMTP port inside: for Postfix it is a client of its submission port, for
Sallypost one of big's control socket, as a desk is. What counts is what has arrived at the hosts outside.
"""

import json
import os
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
MLOAD = f"{HERE}/mload.bin"
STATS = f"{HERE}/run/sink.stats"
PLACES = ("pfedge", "pfbig")
ROUNDS = ((1, 0), (100, 0), (1, 50), (100, 50))


def inside(place, command):
    """Starts a command in a namespace, accounted to the generator."""

    def join():
        for group in ("cpuacct/pfgen", "memory/pfgen", "cpu/pf"):
            with open(f"/sys/fs/cgroup/{group}/cgroup.procs", "w") as procs:
                procs.write(str(os.getpid()))

    command = ["ip", "netns", "exec", place, *map(str, command)]
    return subprocess.Popen(command, preexec_fn=join, stdout=subprocess.PIPE, text=True)


def said(process):
    output, _ = process.communicate()
    if process.returncode:
        sys.exit(f"{process.args} ended with {process.returncode}")
    return json.loads(output)


def send(product, domains, count):
    if product == "postfix":
        submission = ["--host", "198.18.2.2", "--port", 587, "--from", "user000@perf.test", "--rcpt", "x@d%03d.test"]
        return said(inside("pfbig", [MLOAD, "smtp", *submission, "--rcpts", domains, "--count", count, "--conns", 20]))
    control = ["--control", f"{HERE}/run/sallypost/big/control", "--person", "user000"]
    return said(inside("pfbig", [f"{os.environ['BIN']}/bench", "send", *control, "--domains", domains, "--count", count]))


def arrived(count):
    """When so many have arrived outside."""
    wait = [MLOAD, "wait", "--probe", f"sink:{STATS}", "--target", count, "--timeout", 300, "--poll-ms", 10]
    return said(inside("pfgen", wait))


def cpu():
    def used(place):
        with open(f"/sys/fs/cgroup/cpuacct/{place}/cpuacct.usage") as usage:
            return int(usage.read()) / 1e9

    return {place: used(place) for place in PLACES}


def measure(product, domains, delay, count):
    if os.path.exists(STATS):
        os.unlink(STATS)
    sink = inside("pfgen", [MLOAD, "sink", "--listen", "0.0.0.0:25", "--stats", STATS, "--delay-ms", delay])
    try:
        time.sleep(0.5)
        # What is found out once about each host is found out before.
        warm = domains * 2
        send(product, domains, warm)
        arrived(warm)
        time.sleep(1)
        before = cpu()
        sent = send(product, domains, count)
        last = arrived(warm + count)
        after = cpu()
        with open(STATS) as stats:
            sink_says = json.load(stats)
    finally:
        sink.terminate()
        sink.wait()
    return {
        "target": product,
        "scenario": "outbound",
        "label": f"{domains} {delay}",
        "rate": count / (last["epoch"] - sent["t0"]),
        "submit_rate": sent["rate"],
        "reached": last["reached"],
        "connections": sink_says["conns"],
        "cpu_per_k": {place: (after[place] - before[place]) / count * 1000 for place in PLACES},
    }


def main(product, count):
    with open(f"{HERE}/results/{product}.jsonl", "a") as results:
        for domains, delay in ROUNDS:
            result = measure(product, domains, delay, int(count))
            results.write(json.dumps(result) + "\n")
            print(domains, "domains,", delay, "ms late:", result, flush=True)


main(*sys.argv[1:])
