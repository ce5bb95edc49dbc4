"""Compares modes and share policies on one load: chooses the best fixed share, then runs every way with the same arrivals.

usage: policies.py BATON MODEL_DIR OUT_DIR    about an hour; nothing else should run on the machine

Leaves one file per run in OUT_DIR; `report.py OUT_DIR` makes the tables and the figure. Runs that are there already are
kept, so a comparison that was broken off goes on.
"""

import json
import statistics
import sys
from pathlib import Path

import load
import run

WAYS = ("aggregated-constant", "aggregated-auto", "disaggregated", "oversubscribed", "feedback", "predictive")
MOVED_MAX = 0.15
"""Change of the machine's speed during a run after which the run counts no more."""
TRIES = 3


def main(baton, model, out):
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    shares = [f"fixed-{percent}" for percent in load.FIXED_SHARES]
    for seed in load.SEEDS_OF_CHOICE:
        compare(baton, model, out, seed, shares)
    best = max(shares, key=lambda way: statistics.mean(attainment(out, way, seed) for seed in load.SEEDS_OF_CHOICE))
    for number, seed in enumerate(load.SEEDS):
        ways = [best, *WAYS]
        turned = 2 * number % len(ways)
        compare(baton, model, out, seed, ways[turned:] + ways[:turned])


def compare(baton, model, out, seed, ways):
    """Runs all ways with the same arrivals, each stretched by what the machine is slower when it begins."""
    for way in ways:
        if not path_of(out, way, seed).exists():
            steady(baton, model, out, way, seed)
            print(f"seed {seed}, {way}: {attainment(out, way, seed):.3f}", flush=True)


def steady(baton, model, out, way, seed):
    """Repeats a run during which the machine's speed changed; the last try counts in any case, and says so."""
    slowness = run.slowness(baton, model)
    for left in reversed(range(TRIES)):
        done = run.run(baton, model, way, seed, slowness)
        after = run.slowness(baton, model)
        done["moved"], slowness = after / slowness - 1.0, after
        if abs(done["moved"]) <= MOVED_MAX or left == 0:
            path_of(out, way, seed).write_text(json.dumps(done))
            return
        print(f"seed {seed}, {way}: the machine's speed moved by {done['moved']:+.0%}", flush=True)


def path_of(out, way, seed):
    return out / f"{way}-{seed}.json"


def attainment(out, way, seed):
    requests = json.loads(path_of(out, way, seed).read_text())["requests"]
    return statistics.mean(request["met"] for request in requests)


if __name__ == "__main__":
    if len(sys.argv) != 4:
        raise SystemExit(__doc__)
    main(*sys.argv[1:])
