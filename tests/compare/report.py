"""Tables and figure of a comparison.

usage: report.py OUT_DIR [FIGURE.svg]    OUT_DIR as policies.py left it

Intervals are those of a paired bootstrap: the same arrivals in every way, in blocks of ten seconds that are drawn anew.
"""

import json
import random
import statistics
import sys
from pathlib import Path

import load

BLOCK_S = 10
DRAWS = 10_000
COLOURS = {"oversubscribed": "#888888", "fixed": "#1f77b4", "feedback": "#d62728", "predictive": "#2ca02c", "aggregated": "#9467bd"}


def main(out, figure=None):
    runs = {}
    for path in sorted(Path(out).glob("*.json")):
        run = json.loads(path.read_text())
        runs[run["way"], run["seed"]] = run
    choice = {way: [attainment(runs[way, seed]) for seed in load.SEEDS_OF_CHOICE] for way in ways_of(runs, load.SEEDS_OF_CHOICE)}
    print("fixed shares, on the seeds of choice:", ", ".join(f"{way} {statistics.mean(got):.3f}" for way, got in choice.items()))
    best = max(choice, key=lambda way: statistics.mean(choice[way]))
    print(f"best: {best}\n")
    table(runs, best)
    if figure:
        Path(figure).write_text(drawn(runs, best))


def ways_of(runs, seeds):
    return [way for way, seed in runs if seed == seeds[0] and all((way, other) in runs for other in seeds)]


def table(runs, best):
    seeds = load.SEEDS
    seeds_head = " | ".join(f"seed {seed}" for seed in seeds)
    classes = list(load.CLASSES)
    print(f"| | {seeds_head} | all | to oversubscribed | minus {best}, points | {' | '.join(f'{name}: attained, TTFT p50, p90, TPOT p50, p90' for name in classes)} |")
    print("|---" * (5 + len(seeds) + len(classes) - 1) + "|")
    mean = lambda way: statistics.mean(attainment(runs[way, seed]) for seed in seeds)
    for way in sorted(ways_of(runs, seeds), key=mean, reverse=True):
        each = " | ".join(f"{attainment(runs[way, seed]):.3f}" for seed in seeds)
        low, high = interval(runs, way, best)
        difference = "" if way == best else f"{100 * (mean(way) - mean(best)):+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"
        kinds = " | ".join(of_class([runs[way, seed] for seed in seeds], name) for name in classes)
        print(f"| {way} | {each} | {mean(way):.3f} | {mean(way) / mean('oversubscribed'):.2f} | {difference} | {kinds} |")
    moved = [abs(run["moved"]) for run in runs.values()]
    slowness = [run["slowness"] for run in runs.values()]
    print(f"\nslowness {min(slowness):.2f} to {max(slowness):.2f}; speed moved by {max(moved):.0%} at most; requests of a run {min(len(run['requests']) for run in runs.values())} or more")
    failed = sum(request["failure"] is not None for run in runs.values() for request in run["requests"])
    print(f"failed requests: {failed}")


def attainment(run):
    return statistics.mean(request["met"] for request in run["requests"])


def of_class(runs, name):
    """Latencies in the units of the load: those of a machine of slowness 1."""
    requests = [{**request, "slowness": run["slowness"]} for run in runs for request in run["requests"] if request["class"] == name]
    met = statistics.mean(request["met"] for request in requests)
    parts = [f"{met:.3f}"]
    for key in ("ttft_ms", "tpot_ms"):
        values = sorted(request[key] / request["slowness"] for request in requests if request[key] is not None)
        parts += [f"{values[int(quantile * (len(values) - 1))]:.0f}" for quantile in (0.5, 0.9)]
    return ", ".join(parts)


def blocks(run):
    """Requests that were due in each ten seconds of the load, and how many of them met their targets."""
    counts, rows = {}, load.rows(run["seed"], 1.0)
    for request in run["requests"]:
        block = counts.setdefault(rows[request["row"]]["timestamp"] // (1_000 * BLOCK_S), [0, 0])
        block[0] += 1
        block[1] += request["met"]
    return counts


def interval(runs, way, other):
    """95 % interval of the difference in attainment."""
    pairs = []
    for seed in load.SEEDS:
        own, others = blocks(runs[way, seed]), blocks(runs[other, seed])
        pairs += [(own[at][0], own[at][1] - others[at][1]) for at in own]
    dice, seen = random.Random(1), []
    for _ in range(DRAWS):
        drawn_now = dice.choices(pairs, k=len(pairs))
        seen.append(sum(met for _, met in drawn_now) / sum(due for due, _ in drawn_now))
    seen.sort()
    return seen[int(0.025 * DRAWS)], seen[int(0.975 * DRAWS)]


def drawn(runs, best):
    """Attainment in windows of ten seconds, and the share of prefill, over the time of the first seed."""
    seed = load.SEEDS[0]
    ways = ["aggregated-auto", "oversubscribed", best, "feedback", "predictive"]
    length = load.PHASE_S * len(load.PHASES)
    left, width, height, gap = 60, 820, 200, 50
    x = lambda at_s: left + width * min(at_s, length) / length
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {left + width + 20} {2 * height + gap + 80}" font-family="sans-serif" font-size="12">', f'<rect width="{left + width + 20}" height="{2 * height + gap + 80}" fill="white"/>']
    for number, phase in enumerate(load.PHASES):
        begin, end = x(number * load.PHASE_S), x((number + 1) * load.PHASE_S)
        shade = "#f4f4f4" if number % 2 else "#e8eef6"
        parts.append(f'<rect x="{begin:.0f}" y="20" width="{end - begin:.0f}" height="{2 * height + gap}" fill="{shade}"/>')
        parts.append(f'<text x="{(begin + end) / 2:.0f}" y="14" text-anchor="middle">{phase}</text>')
    panels = [("attainment", 20, [0, 0.25, 0.5, 0.75, 1.0], 1.0), ("share of prefill, %", 20 + height + gap, [0, 25, 50, 75, 100], 100.0)]
    for title, top, ticks, most in panels:
        for tick in ticks:
            y = top + height * (1 - tick / most)
            parts.append(f'<line x1="{left}" x2="{left + width}" y1="{y:.0f}" y2="{y:.0f}" stroke="#ccc"/><text x="{left - 6}" y="{y + 4:.0f}" text-anchor="end">{tick}</text>')
        parts.append(f'<text x="14" y="{top + height / 2:.0f}" transform="rotate(-90 14 {top + height / 2:.0f})" text-anchor="middle">{title}</text>')
    for way in ways:
        colour = COLOURS[way.partition("-")[0]]
        run = runs[way, seed]
        met = [((at + 0.5) * BLOCK_S, got / due) for at, (due, got) in sorted(blocks(run).items())]
        parts.append(line([(x(at_s), 20 + height * (1 - part)) for at_s, part in met], colour))
        shares = [(seen["at_s"] / run["slowness"], seen["prefill_percent"]) for seen in run["shares"] if seen["prefill_percent"] is not None]
        parts.append(line([(x(at_s), 20 + 2 * height + gap - height * share / 100) for at_s, share in shares], colour))
    for number, way in enumerate(ways):
        at = left + number * 160
        parts.append(f'<rect x="{at}" y="{2 * height + gap + 52}" width="14" height="4" fill="{COLOURS[way.partition("-")[0]]}"/><text x="{at + 20}" y="{2 * height + gap + 58}">{way}</text>')
    parts.append(f'<text x="{left + width}" y="{2 * height + gap + 36}" text-anchor="end">seconds: 0 to {length:.0f}</text></svg>')
    return "\n".join(parts) + "\n"


def line(points, colour):
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>'


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        raise SystemExit(__doc__)
    main(*sys.argv[1:])
