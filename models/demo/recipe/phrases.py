"""The small grammar every text of the corpus is written in. Knows nothing about subjects or conversations.

`[one|two|three]` is a choice (it may nest and a branch may be empty), `{slot}` is filled in by the caller.
"""

import random
import re

_CHOICE = re.compile(r"\[([^\[\]]*)\]")
_SLOT = re.compile(r"\{(\w+)\}")


def expand(rng: random.Random, text: str, **slots: object) -> str:
    """Resolves every choice from the inside out, then every slot, then tidies the spaces an empty branch leaves."""
    while True:
        text, found = _CHOICE.subn(lambda m: rng.choice(m[1].split("|")), text)
        if not found:
            break
    text = _SLOT.sub(lambda m: str(slots[m[1]]), text)
    text = re.sub(r" +", " ", text)
    return re.sub(r" ([.,!?;:])", r"\1", text).strip()


def with_article(noun: str) -> str:
    """`a fox`, `an owl`."""
    silent = noun.startswith(("hour", "honest"))
    yoo = noun.startswith(("uni", "use", "eu", "one"))
    return ("an " if (noun[0] in "aeiou" and not yoo) or silent else "a ") + noun


def plural(noun: str) -> str:
    """The English plural of the nouns that the corpus uses."""
    irregular = {
        "mouse": "mice",
        "goose": "geese",
        "man": "men",
        "woman": "women",
        "child": "children",
        "foot": "feet",
        "tooth": "teeth",
        "sheep": "sheep",
        "fish": "fish",
        "deer": "deer",
        "leaf": "leaves",
        "knife": "knives",
        "wolf": "wolves",
        "loaf": "loaves",
        "shelf": "shelves",
        "octopus": "octopuses",
        "person": "people",
    }
    if noun in irregular:
        return irregular[noun]
    if noun.endswith(("s", "x", "ch", "sh")) or noun in ("potato", "tomato", "hero"):
        return noun + "es"
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return noun[:-1] + "ies"
    return noun + "s"


def joined(items: list[str], word: str = "and") -> str:
    """`a, b and c`."""
    return items[0] if len(items) == 1 else ", ".join(items[:-1]) + f" {word} " + items[-1]


def sentence(text: str) -> str:
    """The text with a capital first letter."""
    return text[0].upper() + text[1:]


# Openings to which nobody adds "please".
_STATEMENTS = ("I ", "I'm", "My ", "You ", "That ", "Nice", "Good", "What a ", "Hello", "Hi", "Thank", "Bye")


def as_people_type(rng: random.Random, question: str) -> str:
    """One of the ways in which people type the same question: polite, hurried, without capitals or marks."""
    text = question
    roll = rng.random()
    if roll < 0.06 and text.endswith("?"):
        text = (
            rng.choice(["Please tell me: ", "Tell me, ", "I have a question. ", "Quick question: ", "Hey, ", "So, ", "Okay, "])
            + text[0].lower()
            + text[1:]
        )
    elif roll < 0.12 and not text.startswith(_STATEMENTS):
        text = text[:-1] + rng.choice([", please", " please"]) + text[-1] if text[-1] in "?." else text + " please"
    elif roll < 0.16 and text[-1] == ".":
        text = rng.choice(["Can you ", "Could you ", "Could you please ", "Would you "]) + text[0].lower() + text[1:-1] + "?"
    if rng.random() < 0.14:
        text = text[0].lower() + text[1:]
    if rng.random() < 0.16 and text[-1] in "?.":
        text = text[:-1]
    return text
