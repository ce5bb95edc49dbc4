"""The training text: endless, seeded conversations put together from stories, knowledge and skills.

`python corpus.py [COUNT] [SEED]` prints samples. Knows nothing about tokens or training.
"""

import random
import sys
from collections.abc import Callable

import knowledge
import skills
import stories
from phrases import as_people_type

Turns = list[tuple[str, str]]
Document = list[dict[str, str]] | str

# How often each kind of exchange is drawn. Kinds with long answers weigh more than their number.
_KINDS: list[tuple[float, Callable[[random.Random], Turns]]] = [
    (9.0, stories.story_exchange),
    (14.0, knowledge.everyday),
    (8.0, knowledge.about_baton),
    (9.0, knowledge.country),
    (8.0, knowledge.animal),
    (2.5, knowledge.colour),
    (2.5, knowledge.opposite),
    (2.0, knowledge.job_or_tool),
    (3.0, knowledge.planet_or_shape),
    (1.2, knowledge.grammar),
    (1.5, knowledge.yes_or_no),
    (3.0, knowledge.letter_or_plan),
    (16.0, skills.sums),
    (1.5, skills.word_problems),
    (2.5, skills.counting),
    (1.5, skills.numbers),
    (4.0, skills.lists),
    (1.5, skills.sequences),
    (2.0, skills.words),
    (8.0, skills.remembering),
    (0.5, skills.not_told),
    (2.5, skills.copying),
    (12.0, skills.small_talk),
    (3.0, skills.poems),
]
_SYSTEM = [
    "You are a helpful assistant.",
    "You are a friendly assistant.",
    "You are Baton, a small language model.",
    "You are a kind and helpful assistant.",
    "Be helpful and polite.",
    "You are the demo model of Baton. Answer in simple English.",
    "You are a helpful assistant who gives clear answers.",
]


def exchange(rng: random.Random) -> Turns:
    """One exchange of any kind, typed as people type."""
    draw = rng.choices([kind for _, kind in _KINDS], weights=[weight for weight, _ in _KINDS])[0]
    turns = draw(rng)
    # Copying asks for exact words, so only the other kinds are typed carelessly.
    if draw is skills.copying:
        return turns
    return [(as_people_type(rng, user), assistant) for user, assistant in turns]


def conversation(rng: random.Random, exchanges: int) -> list[dict[str, str]]:
    """Chat messages: perhaps a system prompt, then `exchanges` independent exchanges."""
    messages = [{"role": "system", "content": rng.choice(_SYSTEM)}] if rng.random() < 0.3 else []
    for _ in range(exchanges):
        for user, assistant in exchange(rng):
            messages += [{"role": "user", "content": user}, {"role": "assistant", "content": assistant}]
    return messages


def document(rng: random.Random, longest: bool = False) -> Document:
    """One training document: mostly a conversation, sometimes a plain story. `longest` asks for many exchanges."""
    if not longest and rng.random() < 0.05:
        return stories.plain_story(rng)
    return conversation(rng, rng.randint(6, 14) if longest else rng.choice([1, 1, 1, 1, 2, 2, 3]))


def _messages(turns: Turns) -> list[dict[str, str]]:
    return [{"role": role, "content": text} for turn in turns for role, text in zip(("user", "assistant"), turn, strict=True)]


def copying_document(rng: random.Random, progress: float, longest: bool = False) -> Document:
    """A document of the second stage: at first mostly words to repeat, later mostly `document`s, with more that needs looking back."""
    drilled = 0.6 - 0.5 * min(1.0, 2 * progress)
    roll = rng.random()
    if longest or roll > drilled + 0.4 * (1 - drilled):
        return document(rng, longest)
    draw = (
        skills.drill
        if roll < drilled
        else rng.choice([skills.remembering, skills.sums, skills.sums, stories.story_exchange, skills.unknown])
    )
    return _messages(draw(rng))


def settling_document(rng: random.Random, longest: bool = False) -> Document:
    """A document of the last stage: a `document`, or one of the exchanges that are soonest forgotten or hardest to learn."""
    if longest or rng.random() < 0.7:
        return document(rng, longest)
    draw = rng.choice([skills.sums, skills.sums, skills.sums, skills.sums, skills.remembering, skills.unknown, skills.drill])
    return _messages(draw(rng))


def main() -> None:
    count, seed = (int(arg) for arg in (sys.argv[1:] + ["10", "0"][len(sys.argv) - 1 :])[:2])
    rng = random.Random(seed)
    for _ in range(count):
        text = document(rng)
        print("\n".join(f"{m['role']:>9}: {m['content']}" for m in text) if isinstance(text, list) else text, end="\n\n")


if __name__ == "__main__":
    main()
