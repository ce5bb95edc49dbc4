"""Things the model is asked to do rather than to know: sums, counting, lists, copying, remembering, small talk.

Knows nothing about how exchanges are put together into conversations. Every function returns turns of (user, assistant).
"""

import random
from pathlib import Path

from facts import CATEGORIES, FOREIGN, LANGUAGES, RHYMES, SEQUENCES, SPELLED
from phrases import expand, joined, sentence
from stories import NAMES, invented_name

Turns = list[tuple[str, str]]
_WORDS = "zero one two three four five six seven eight nine ten eleven twelve".split()


def _sum_of(rng: random.Random) -> tuple[str, str, str, int]:
    """Two numbers with an operation: its sign, its word, both sides and the result."""
    roll = rng.random()
    top = 12 if rng.random() < 0.5 else 30 if rng.random() < 0.6 else 99
    a, b = rng.randint(0, top), rng.randint(0, top)
    if roll < 0.55:
        return f"{a} + {b}", f"{a} plus {b}", "sum", a + b
    if roll < 0.8:
        a, b = max(a, b), min(a, b)
        return f"{a} - {b}", f"{a} minus {b}", "difference", a - b
    a, b = rng.randint(0, 12), rng.randint(0, 12)
    return f"{a} x {b}", f"{a} times {b}", "product", a * b


def sums(rng: random.Random) -> Turns:
    """One to three small sums."""
    turns = []
    for _ in range(rng.choice([1, 1, 2, 3])):
        signs, words, _, result = _sum_of(rng)
        signs = signs.replace("x", rng.choice(["x", "*"]))
        form = rng.choice([signs, words])
        ask = rng.choice(
            [
                f"What is {form}?",
                f"What is {form}?",
                f"What's {form}?",
                f"How much is {form}?",
                f"Calculate {form}.",
                f"{signs} = ?",
                f"{sentence(form)}?",
                f"Can you work out {form}?",
                f"{signs}",
                f"And {form}?",
                f"Solve {form}.",
            ]
        )
        answer = rng.choice(
            [
                f"{sentence(words)} is {result}.",
                f"{sentence(words)} is {result}.",
                f"{signs} = {result}",
                f"{sentence(words)} equals {result}.",
                f"The answer is {result}.",
            ]
        )
        turns.append((ask, answer))
    return turns


def word_problems(rng: random.Random) -> Turns:
    """A sum that is told as a little story."""
    name, thing = rng.choice(NAMES), rng.choice("apples coins books marbles cookies stamps pencils shells flowers eggs".split())
    a, b = rng.randint(2, 20), rng.randint(1, 15)
    if rng.random() < 0.5:
        ask = f"{name} has {a} {thing} and gets {b} more. How many {thing} does {name} have now?"
        return [(ask, f"{name} has {a} plus {b} {thing}. That is {a + b} {thing}.")]
    a, b = max(a, b) + 1, min(a, b)
    verb = rng.choice(["gives away", "loses", "sells"])
    left = a - b
    noun = thing if left != 1 else thing[:-1]
    return [
        (
            f"{name} has {a} {thing} and {verb} {b}. How many are left?",
            f"{name} had {a} {thing} and {verb} {b}. {a} minus {b} is {left}, so {left} {noun} {'is' if left == 1 else 'are'} left.",
        )
    ]


def counting(rng: random.Random) -> Turns:
    """Counting up, down, and in steps."""
    low, step = rng.choice([1, 1, 1, 1, 2, 5, 10, rng.randint(0, 40)]), rng.choice([1, 1, 1, 1, 2, 5, 10])
    if step == 1:
        low, high = (low if low < 20 else 1), 0
        high = low + rng.choice([2, 4, 7, 9, 9, 9, 11, 14, 19, 29])
        up = [str(n) for n in range(low, high + 1)]
        if rng.random() < 0.3:
            return [
                (expand(rng, f"[Count|Please count|Can you count] [down|backwards] from {high} to {low}."), ", ".join(reversed(up)) + ".")
            ]
        ask = (
            f"[Count to {high}.|Please count to {high}.|Count from 1 to {high}.|Can you count to {high}?]"
            if low == 1
            else f"[Count from {low} to {high}.|List the numbers from {low} to {high}.]"
        )
        return [(expand(rng, ask), ", ".join(up) + ".")]
    many = rng.choice([5, 8, 10])
    ask = {
        2: "[Count by twos|Count in steps of two]",
        5: "[Count by fives|Count in steps of five]",
        10: "[Count by tens|Count in steps of ten]",
    }[step]
    return [(expand(rng, ask + f" up to {step * many}."), ", ".join(str(step * n) for n in range(1, many + 1)) + ".")]


def numbers(rng: random.Random) -> Turns:
    """Even and odd, larger and smaller, sorting, what comes next."""
    a, b = rng.sample(range(1, 100), 2)
    roll = rng.random()
    if roll < 0.25:
        kind = "even" if a % 2 == 0 else "odd"
        return [
            (expand(rng, f"Is {a} [even or odd|an even or an odd number]?"), f"{a} is {'an even' if kind == 'even' else 'an odd'} number.")
        ]
    if roll < 0.5:
        word, best = rng.choice([("larger", max(a, b)), ("smaller", min(a, b)), ("bigger", max(a, b))])
        return [(f"Which number is {word}, {a} or {b}?", f"{best} is {word} than {a + b - best}.")]
    if roll < 0.75:
        some = rng.sample(range(1, 60), rng.randint(3, 5))
        return [
            (
                expand(rng, f"[Sort these numbers|Put these numbers in order]: {', '.join(map(str, some))}."),
                ", ".join(map(str, sorted(some))) + ".",
            )
        ]
    return [(expand(rng, f"What [number comes|comes] after {a}?"), f"After {a} comes {a + 1}.")]


def lists(rng: random.Random) -> Turns:
    """Some members of a category, as a sentence, with dashes or with numbers."""
    category = rng.choice(list(CATEGORIES))
    many = rng.choice([3, 3, 3, 4, 5, 5])
    items = rng.sample(CATEGORIES[category].split(), min(many, len(CATEGORIES[category].split())))
    many = len(items)
    ask = expand(rng, f"[Name|List|Give me|Tell me|Write down|Can you name] [{_WORDS[many]}|{_WORDS[many]}|{many}] {category}.").replace(
        "Can you name", "Name"
    )
    style = rng.random()
    if style < 0.5:
        answer = expand(rng, f"[Here are {_WORDS[many]} {category}: |{sentence(_WORDS[many])} {category} are |]") + " "
        listed = joined(items)
        answer = (answer + listed).strip()
        answer = sentence(answer) + "."
    elif style < 0.75:
        answer = "\n".join(f"{n}. {sentence(item)}" for n, item in enumerate(items, 1))
    else:
        answer = f"Here are {_WORDS[many]} {category}:\n" + "\n".join(f"- {sentence(item)}" for item in items)
    return [(ask, answer)]


def sequences(rng: random.Random) -> Turns:
    """Days, months, seasons: all of them, or the one before or after another."""
    title = rng.choice(list(SEQUENCES))
    items = SEQUENCES[title].split()
    if rng.random() < 0.5:
        return [
            (
                expand(rng, f"[What are|List|Name|Tell me] the {title}").rstrip("?") + rng.choice(["?", "."]),
                expand(rng, f"[The {title} are {joined(items)}.|{sentence(joined(items))}.]"),
            )
        ]
    at = rng.randrange(len(items) - 1)
    if rng.random() < 0.6:
        return [(f"What comes after {items[at]}?", f"After {items[at]} comes {items[at + 1]}.")]
    return [(f"What comes before {items[at + 1]}?", f"Before {items[at + 1]} comes {items[at]}.")]


def words(rng: random.Random) -> Turns:
    """Spelling, rhymes, first letters and a few words of other languages."""
    roll = rng.random()
    if roll < 0.35:
        row, column = rng.choice(FOREIGN), rng.randrange(4)
        ask = expand(
            rng,
            f"[How do you say {row[0]} in {LANGUAGES[column]}?|What is the {LANGUAGES[column]} word for {row[0]}?|Translate {row[0]} into {LANGUAGES[column]}.]",
        )
        return [(ask, f'{sentence(row[0])} in {LANGUAGES[column]} is "{row[column + 1]}".')]
    if roll < 0.6:
        group = list(rng.choice(RHYMES))
        rng.shuffle(group)
        return [
            (
                expand(rng, f"[What rhymes with {group[0]}?|Give me a word that rhymes with {group[0]}.|Find a rhyme for {group[0]}.]"),
                f"{sentence(group[1])} rhymes with {group[0]}.",
            )
        ]
    word = rng.choice(SPELLED)
    if roll < 0.8:
        return [
            (
                expand(rng, f"[How do you spell {word}?|Spell the word {word}.]"),
                f"{sentence(word)} is spelled " + "-".join(word.upper()) + ".",
            )
        ]
    return [(f"How many letters are in the word {word}?", f"The word {word} has {len(word)} letters: " + "-".join(word.upper()) + ".")]


_REMEMBERED = [
    (
        "name",
        "[My name is {x}.|I am {x}.|Hi, I am {x}.|Hello, my name is {x}.|I'm {x}.]",
        "[Nice to meet you, {x}!|Hello, {x}! How can I help you?|Hello {x}, it is good to meet you.]",
        "[What is my name?|Do you remember my name?|What's my name?|Who am I?]",
        "Your name is {x}.",
        None,
    ),
    (
        "favourite colour",
        "[My favourite colour is {x}.|I like the colour {x} best.|I love {x}.]",
        "[{X} is a lovely colour.|Good choice! {X} is beautiful.]",
        "[What is my favourite colour?|Which colour do I like best?]",
        "Your favourite colour is {x}.",
        "red blue green yellow purple orange pink white black silver",
    ),
    (
        "pet",
        "[I have a {x}.|My pet is a {x}.|I live with a {x}.]",
        "[How nice! A {x} is a good friend.|That is lovely. I hope your {x} is well.]",
        "[What pet do I have?|Which animal do I have?|What is my pet?]",
        "You have a {x}.",
        "cat dog rabbit parrot hamster horse turtle goat mouse",
    ),
    (
        "city",
        "[I live in {x}.|I am from {x}.|My home is in {x}.]",
        "[{x} sounds like a nice place to live.|How is life in {x}?]",
        "[Where do I live?|Which city do I live in?|Where am I from?]",
        "You live in {x}.",
        "Paris London Rome Berlin Madrid Tokyo Cairo Oslo Vienna Lisbon Athens Dublin",
    ),
    (
        "favourite food",
        "[My favourite food is {x}.|I love to eat {x}.]",
        "[{X} is delicious.|I cannot eat, but {x} sounds very good.]",
        "[What is my favourite food?|What do I like to eat?]",
        "Your favourite food is {x}.",
        "pizza pasta soup cheese chocolate bread rice apples pancakes honey",
    ),
    (
        "number",
        "[My lucky number is {x}.|Remember the number {x}.|Please remember the number {x}.]",
        "[I will remember the number {x}.|All right: {x}.]",
        "[What was my number?|Which number did I tell you?|What number did I ask you to remember?]",
        "The number was {x}.",
        None,
    ),
    (
        "job",
        "[I am a {x}.|I work as a {x}.|My job is {x}.]",
        "[That is an important job.|Being a {x} must be interesting.]",
        "[What is my job?|What do I do for work?]",
        "You are a {x}.",
        "teacher doctor baker farmer pilot nurse painter writer sailor gardener programmer",
    ),
]


_NOT_TOLD = {
    "name": "You have not told me your name yet.",
    "favourite colour": "You have not told me your favourite colour yet.",
    "pet": "You have not told me about your pet yet.",
    "city": "You have not told me where you live yet.",
    "favourite food": "You have not told me what you like to eat yet.",
    "job": "You have not told me what your job is yet.",
}


def remembering(rng: random.Random) -> Turns:
    """Facts that the user tells, something else in between, and then questions about them."""
    chosen = rng.sample(_REMEMBERED, rng.choice([1, 1, 2, 2, 3]))
    told, asked = [], []
    for key, tell, reply, ask, answer, values in chosen:
        if key == "name":
            x = rng.choice(NAMES) if rng.random() < 0.6 else invented_name(rng)
        elif key == "number":
            x = str(rng.randint(1, 99))
        else:
            x = rng.choice(values.split())
        told.append((expand(rng, tell, x=x), expand(rng, reply, x=x, X=sentence(x))))
        asked.append((expand(rng, ask), answer.replace("{x}", x)))
    between = rng.choice([[], sums(rng)[:1], lists(rng), small_talk(rng)])
    rng.shuffle(asked)
    if len(told) > 1 and rng.random() < 0.4:
        told = [(" ".join(t[0] for t in told), "[Thank you for telling me.|Good to know!|I will remember that.]")]
        told = [(told[0][0], expand(rng, told[0][1]))]
    if rng.random() < 0.12:
        missing = rng.choice([k for k in _REMEMBERED if k not in chosen and k[0] != "number"])
        asked.append((expand(rng, missing[3]), _NOT_TOLD[missing[0]]))
    return told + between + asked


def not_told(rng: random.Random) -> Turns:
    """A question about something that the user has not said."""
    row = rng.choice([k for k in _REMEMBERED if k[0] != "number"])
    return [(expand(rng, row[3]), _NOT_TOLD[row[0]])]


def copying(rng: random.Random) -> Turns:
    """Repeating words exactly, at once or a turn later."""
    some = rng.sample(
        SPELLED + NAMES + "red blue seven stone paper cloud silver quick brown lazy jumps over under".split(), rng.randint(1, 6)
    )
    text = " ".join(some)
    if rng.random() < 0.7:
        return [(expand(rng, f"[Repeat after me: {text}|Say: {text}|Repeat these words: {text}|Say {text}|Copy this: {text}]"), text)]
    turn = rng.choice([sums, lists, counting])(rng)[0]
    if rng.random() < 0.5:
        return [turn, (expand(rng, "[What did I just ask?|What was my question?|What did I say?]"), f'You said: "{turn[0]}"')]
    return [turn, (expand(rng, "[Please repeat that.|Say that again.|Can you repeat that?|Again, please.]"), turn[1])]


def _blocks(name: str) -> list[list[str]]:
    """The blocks of a text file as lines, without comments."""
    text = (Path(__file__).parent / name).read_text(encoding="utf-8")
    lines = [[line for line in block.splitlines() if not line.startswith("#")] for block in text.split("\n\n")]
    return [block for block in lines if block]


_SMALL_TALK = [(user.removeprefix("U: "), assistant.removeprefix("A: ")) for user, assistant in _blocks("small_talk.txt")]


def small_talk(rng: random.Random) -> Turns:
    """Greetings, thanks, questions about the model itself, jokes, and what it cannot know."""
    user, assistant = rng.choice(_SMALL_TALK)
    return [(expand(rng, user), expand(rng, assistant))]


_POEM_LINES = {subject: ["\n".join(lines[at : at + 2]) for at in (0, 2)] for subject, *lines in _blocks("poems.txt")}


def poems(rng: random.Random) -> Turns:
    """A short rhymed poem: the couplets of its subject, then one or two of others."""
    subject = rng.choice(list(_POEM_LINES))
    couplets = list(_POEM_LINES[subject])
    rng.shuffle(couplets)
    others = [c for key, value in _POEM_LINES.items() if key != subject for c in value]
    couplets += rng.sample(others, rng.choice([0, 1, 2]))
    lines = [sentence(c) for c in couplets]
    topic = (
        subject
        if subject in ("spring", "winter", "autumn", "love", "friends", "rain")
        else f"the {subject}" if subject != "cat" else "a cat"
    )
    ask = expand(rng, f"[Write|Write me|Make|Tell me|Recite] a [|short|little] poem [about {topic}|about {topic}|about {topic}|].")
    if rng.random() < 0.5 and len(lines) > 2:
        return [(ask, "\n".join(lines[:2]) + "\n\n" + "\n".join(lines[2:]))]
    return [(ask, "\n".join(lines))]


_UNKNOWN = {kind: subjects for kind, *subjects in _blocks("unknown.txt")}
_SORRY = "[I am sorry, but I|Sorry, I|I am afraid that I] do not know [enough|much] about {x}. "
_INSTEAD = "[I am only a very small model.|I am too small for that.] [Shall I tell you a story instead?|You can ask me about animals, countries or nature.|Please ask somebody who knows.|]"


def unknown(rng: random.Random) -> Turns:
    """Questions beyond this model, with an answer that says so and repeats the subject."""
    kind = rng.choice(["thing", "thing", "activity", "event"])
    x = invented_name(rng) + rng.choice(["", "", " " + invented_name(rng)]) if rng.random() < 0.25 else rng.choice(_UNKNOWN[kind])
    year = rng.randint(1400, 2030)
    if kind == "thing":
        ask = (
            "[What is {x}?|Tell me about {x}.|Explain {x}.|What do you think about {x}?|Write an essay about {x}.|What do you know about {x}?|Who was {x}?|"
            "Summarize {x}.|Give me a lesson on {x}.|What is the history of {x}?|Why is {x} important?|What happened in {x}?]"
        )
        return [(expand(rng, ask, x=x), expand(rng, _SORRY + _INSTEAD, x=x))]
    if kind == "activity":
        x = rng.choice(_UNKNOWN[kind])
        ask = "[How do I {x}?|How can I {x}?|Give me a plan to {x}.|I want to {x}.|Can you help me to {x}?|What is the best way to {x}?|Teach me to {x}.]"
        return [(expand(rng, ask, x=x), expand(rng, "[I am sorry, but I|Sorry, I] do not know how to {x}. " + _INSTEAD, x=x))]
    ask = "[Who won {x} in {year}?|What happened in {year}?|Who won {x} of {year}?|When was {x}?|Where was {x} in {year}?|Tell me about {x} of {year}.]"
    return [(expand(rng, ask, x=x, year=year), expand(rng, "[I am sorry, but I do not know that.|I do not know that, sorry.] " + _INSTEAD))]


_DRILL_WORDS = sorted(
    {word for row in CATEGORIES.values() for word in row.split()} | set(SPELLED) | set(NAMES) | {word for group in RHYMES for word in group}
)


def drill(rng: random.Random) -> Turns:
    """Many words to repeat. Nothing else teaches so quickly to look back and copy."""
    text = " ".join(rng.choice(_DRILL_WORDS) if rng.random() < 0.9 else str(rng.randint(0, 99)) for _ in range(rng.randint(3, 24)))
    return [(rng.choice(["Repeat after me: ", "Say: ", "Repeat these words: ", "Copy this: ", "Repeat: "]) + text, text)]
