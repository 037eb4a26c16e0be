#!/usr/bin/env python3
"""Watches an outage of the side-by-side bench: caught_up.py TARGET.json RESULTS RATE SECONDS.

While RATE messages a second are accepted and the link is cut for SECONDS: how long after it is whole again
the first message arrives, and how long until all are there that should be (but for the last fifth of a
second)."""

import json
import os
import subprocess
import sys
import time

# Looked at so often, in seconds; given up so long after the cut.
PAUSE, GIVEN_UP = 0.05, 180


def main(target, results, rate, seconds):
    here = os.getcwd()
    with open(target) as file:
        target = json.loads(file.read().replace("@BENCH@", here))

    def filed():
        return int(subprocess.check_output([here + "/mload.bin", "count", "--probe", target["probe"]]))

    def is_cut():
        with open("run/link.ctl") as file:
            return file.read().strip() == "down"

    while not is_cut():
        time.sleep(PAUSE)
    cut = time.time()
    time.sleep(1)  # what was under way has arrived
    before = filed()
    while is_cut():
        time.sleep(PAUSE / 5)
    healed, first, caught_up = time.time(), None, None
    # Of the first second of the cut nothing was filed.
    due = lambda now: before + rate * (min(now - cut, seconds + 20) - 0.2)
    while not caught_up and time.time() < cut + GIVEN_UP:
        count, now = filed(), time.time()
        if not first and count > before:
            first = now - healed
        if count >= due(now):
            caught_up = now - healed
        time.sleep(PAUSE)
    with open(results, "a") as file:
        result = {"target": target["name"], "scenario": "caught_up", "first": first, "caught_up": caught_up}
        print(json.dumps(result), file=file)
        print(result)


main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
