"""The load of the comparison of modes and share policies: phases, targets and seeds. Knows no server.

Fixed before any policy was tuned on it. Two phases take turns that ask for opposite shares. In one, many prompts of middle
length come, whose answers are a few words: only prefill can be late. In the other, questions are asked beside longer
prompts, and their answers are late if prompts take too much of the device.
"""

import random

PROMPT_MS, STEP_MS = 60.0, 9.0
"""The machine that rates, targets and times are written for: its time for a prompt of 400 tokens and for a step of four
decodes, each alone. On one that is slower by a factor, also for an hour, everything is stretched by that factor."""

CLASSES = {"prompt": {"ttft_ms": 600, "tpot_ms": 60}, "question": {"ttft_ms": 600, "tpot_ms": 18}}
"""Latency classes: targets that a request must meet, both of them."""

SEEDS = (1, 2, 3)
"""Seeds that the policies are compared on."""
SEEDS_OF_CHOICE = (11, 12)
"""Seeds that the best fixed share is chosen on."""
FIXED_SHARES = (50, 60, 70)

PHASE_S = 28
PHASES = ("prompts", "questions", "prompts", "questions")

SHAPES = {
    # class, requests per second, prompt tokens, answer tokens
    "prompts": [("prompt", 10.5, (300, 500), (4, 8))],
    "questions": [("prompt", 2.0, (600, 800), (4, 8)), ("question", 8.0, (20, 40), (12, 24))],
}


def rows(seed, slowness):
    """Rows of a trace, in the form `jsonl` of `baton bench`."""
    dice = random.Random(seed)
    made = []
    for number, phase in enumerate(PHASES):
        for name, per_second, prompt, answer in SHAPES[phase]:
            at = number * PHASE_S + dice.expovariate(per_second)
            while at < (number + 1) * PHASE_S:
                lengths = {"input_length": dice.randint(*prompt), "output_length": dice.randint(*answer)}
                made.append({"timestamp": round(at * 1_000 * slowness), **lengths, "class": name})
                at += dice.expovariate(per_second)
    return sorted(made, key=lambda row: row["timestamp"])


def classes(slowness):
    """Targets of the classes on a machine of this slowness, in whole milliseconds."""
    return {name: {key: round(ms * slowness) for key, ms in slo.items()} for name, slo in CLASSES.items()}
