"""Questions and answers about the facts and explanations. Knows nothing about conversations.

Every function returns the ways in which one thing is asked and answered: turns of (user, assistant).
"""

import random
from pathlib import Path

import facts
from phrases import expand, joined, plural, sentence, with_article

Turns = list[tuple[str, str]]
_HERE = Path(__file__).parent
_COUNTRIES, _ANIMALS = facts.countries(), facts.animals()


def read_explanations(name: str) -> list[tuple[list[str], str, str]]:
    """The blocks of a text file: ways to ask, the short answer, the long answer."""
    blocks = []
    for block in (_HERE / name).read_text(encoding="utf-8").split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.splitlines() if line[:3] in ("Q: ", "S: ", "L: "))
        if lines:
            blocks.append((lines["Q"].split("|"), lines["S"], lines["L"]))
    return blocks


_EVERYDAY, _BATON = read_explanations("explanations.txt"), read_explanations("about_baton.txt")


def _explained(rng: random.Random, blocks: list[tuple[list[str], str, str]]) -> Turns:
    ways, short, long = rng.choice(blocks)
    ask = rng.choice(ways)
    roll = rng.random()
    if roll < 0.72:
        return [(ask, expand(rng, long))]
    if roll < 0.86:
        return [
            (
                ask + rng.choice([" Answer briefly.", " Answer in one sentence.", " In one sentence, please.", " Keep it short."]),
                expand(rng, short),
            )
        ]
    return [
        (ask, expand(rng, short)),
        (
            rng.choice(["Tell me more.", "Can you explain more?", "More, please.", "Please explain in more detail.", "Go on."]),
            expand(rng, long),
        ),
    ]


def everyday(rng: random.Random) -> Turns:
    """Why, what and how."""
    return _explained(rng, _EVERYDAY)


def about_baton(rng: random.Random) -> Turns:
    """Baton, its parts, and the serving of language models."""
    return _explained(rng, _BATON)


def country(rng: random.Random) -> Turns:
    """One country: its capital, continent, language, or all of them."""
    name, capital, continent, language, known = rng.choice(_COUNTRIES)
    roll = rng.random()
    if roll < 0.5:
        ask = rng.choice(
            [
                f"What is the capital of {name}?",
                f"What is the capital of {name}?",
                f"What's the capital of {name}?",
                f"Which city is the capital of {name}?",
                f"Tell me the capital of {name}.",
                f"Name the capital of {name}.",
                f"{sentence(name)}'s capital?",
                f"Do you know the capital of {name}?",
                f"capital of {name}",
            ]
        )
        turns = [
            (
                ask,
                rng.choice(
                    [
                        f"The capital of {name} is {capital}.",
                        f"The capital of {name} is {capital}.",
                        f"The capital of {name} is {capital}.",
                        f"{capital} is the capital of {name}.",
                    ]
                ),
            )
        ]
        if rng.random() < 0.4:
            other, its_capital = rng.choice(_COUNTRIES)[:2]
            turns.append(
                (
                    rng.choice([f"And of {other}?", f"And {other}?", f"What about {other}?", f"And what is the capital of {other}?"]),
                    f"The capital of {other} is {its_capital}.",
                )
            )
        return turns
    if roll < 0.6:
        return [
            (
                rng.choice([f"Which country is {capital} in?", f"Where is {capital}?", f"{capital} is the capital of which country?"]),
                f"{capital} is the capital of {name}.",
            )
        ]
    if roll < 0.7:
        return [(rng.choice([f"Where is {name}?", f"On which continent is {name}?"]), f"{sentence(name)} is in {continent}.")]
    if roll < 0.8:
        return [
            (
                rng.choice([f"What language do people speak in {name}?", f"Which language is spoken in {name}?"]),
                f"In {name} people speak {language}.",
            )
        ]
    text = expand(
        rng,
        f"{sentence(name)} is a country in {continent}. [Its capital is {capital}, and people there speak {language}.|The capital is {capital}. The language is {language}.] "
        f"{sentence(name)} is [known|famous] for {known}. [Many people go there on holiday.|It is a fine place to visit.|]",
    )
    return [
        (rng.choice([f"Tell me about {name}.", f"What do you know about {name}?", f"What is {name} known for?", f"Describe {name}."]), text)
    ]


def _described(rng: random.Random, a: dict[str, str]) -> str:
    name = a["name"]
    legs = {"0": "no legs", "2": "two legs", "4": "four legs", "6": "six legs", "8": "eight arms" if name == "octopus" else "eight legs"}[
        a["legs"]
    ]
    noisy = a["sound"] != "makes no sound"
    middle = [
        f"{sentence(plural(name))} eat {a['food']}.",
        f"It has {legs}" + (f" and it {a['sound']}." if noisy else "."),
        f"A young {name} is called {with_article(a['baby'])}.",
    ]
    rng.shuffle(middle)
    return f"{sentence(with_article(name))} is {a['kind']}. {sentence(plural(name))} live {a['home']}. {' '.join(middle)} {a['fact']}"


def animal(rng: random.Random) -> Turns:
    """One animal: a single property, a description, or a comparison with another."""
    a = rng.choice(_ANIMALS)
    name, many = a["name"], plural(a["name"])
    roll = rng.random()
    if roll < 0.34:
        return [
            (
                rng.choice(
                    [
                        f"Tell me about {many}.",
                        f"What is {with_article(name)}?",
                        f"Describe {with_article(name)}.",
                        f"What do you know about {many}?",
                        f"Tell me something about the {name}.",
                        f"Explain what {with_article(name)} is.",
                    ]
                ),
                _described(rng, a),
            )
        ]
    if roll < 0.48:
        return [
            (
                rng.choice([f"What do {many} eat?", f"What does {with_article(name)} eat?"]),
                rng.choice([f"{sentence(many)} eat {a['food']}.", f"{sentence(with_article(name))} eats {a['food']}."]),
            )
        ]
    if roll < 0.58:
        return [(rng.choice([f"Where do {many} live?", f"Where does {with_article(name)} live?"]), f"{sentence(many)} live {a['home']}.")]
    if roll < 0.66:
        return [
            (
                rng.choice([f"What is a baby {name} called?", f"What do you call a young {name}?"]),
                f"A baby {name} is called {with_article(a['baby'])}.",
            )
        ]
    if roll < 0.73:
        return [
            (
                rng.choice([f"What sound does {with_article(name)} make?", f"What does the {name} say?"]),
                f"{sentence(with_article(name))} {a['sound']}.",
            )
        ]
    if roll < 0.83:
        verb, key = rng.choice([("fly", "flies"), ("swim", "swims")])
        answer = {
            "yes": f"Yes, {with_article(name)} can {verb}.",
            "no": f"No, {with_article(name)} cannot {verb}.",
            "a little": f"Yes, {with_article(name)} can {verb} a little.",
            "only a little": f"{sentence(with_article(name))} can {verb} only a little.",
        }[a[key]]
        return [(rng.choice([f"Can {with_article(name)} {verb}?", f"Can {many} {verb}?"]), answer)]
    b = rng.choice([other for other in _ANIMALS if other["size"] != a["size"]])
    big, small = (a, b) if int(a["size"]) > int(b["size"]) else (b, a)
    if roll < 0.93:
        return [
            (
                f"Which is bigger, {with_article(name)} or {with_article(b['name'])}?",
                f"{sentence(with_article(big['name']))} is bigger than {with_article(small['name'])}.",
            )
        ]
    text = (
        f"{sentence(with_article(name))} is {a['kind']}, and {with_article(b['name'])} is {b['kind']}. {sentence(plural(big['name']))} are bigger than {plural(small['name'])}. "
        f"{sentence(many)} live {a['home']} and eat {a['food']}. {sentence(plural(b['name']))} live {b['home']} and eat {b['food']}."
    )
    return [(f"What is the difference between {with_article(name)} and {with_article(b['name'])}?", text)]


def colour(rng: random.Random) -> Turns:
    """The colours of things, and colours that are mixed."""
    if rng.random() < 0.7:
        thing, its_colour = rng.choice(facts.COLOURS)
        word = rng.choice(["colour", "colour", "color"])
        return [
            (
                rng.choice([f"What {word} is {thing}?", f"Which {word} is {thing}?", f"What is the {word} of {thing}?"]),
                rng.choice([f"{sentence(thing)} is {its_colour}.", f"{sentence(thing)} is {its_colour}.", f"{sentence(its_colour)}."]),
            )
        ]
    one, two, mixed = rng.choice(facts.MIXED_COLOURS)
    return [
        (
            rng.choice([f"What do you get when you mix {one} and {two}?", f"Which colour do {one} and {two} make?"]),
            f"{sentence(one)} and {two} make {mixed}.",
        )
    ]


def opposite(rng: random.Random) -> Turns:
    """Opposites, often several in a row."""
    turns = []
    for _ in range(rng.choice([1, 1, 2, 3])):
        one, two = rng.choice(facts.OPPOSITES)[:: rng.choice([1, -1])]
        ask = (
            [f"What is the opposite of {one}?"] * 3
            + [f"What's the opposite of {one}?", f"Opposite of {one}?", f"Tell me the opposite of {one}."]
            + ([f"And of {one}?"] if turns else [])
        )
        turns.append((rng.choice(ask), f"The opposite of {one} is {two}."))
    return turns


def job_or_tool(rng: random.Random) -> Turns:
    """What people do and what things are for."""
    if rng.random() < 0.5:
        job, does = rng.choice(facts.JOBS)
        return [
            (
                rng.choice(
                    [f"What does {with_article(job)} do?", f"What is the job of {with_article(job)}?", f"What is {with_article(job)}?"]
                ),
                f"{sentence(with_article(job))} {does}.",
            )
        ]
    thing, use = rng.choice(facts.USES)
    is_used, an = ("are used", thing) if thing == "scissors" else ("is used", with_article(thing))
    return [
        (
            rng.choice([f"What {is_used.split()[0]} {an} used for?", f"What {is_used.split()[0]} {an}?", f"What do you use {an} for?"]),
            f"{sentence(an)} {is_used} {use}.",
        )
    ]


def planet_or_shape(rng: random.Random) -> Turns:
    """Planets, shapes and quantities."""
    roll = rng.random()
    if roll < 0.4:
        name, where, what = rng.choice(facts.PLANETS)
        return [
            (
                rng.choice([f"Tell me about {name}.", f"What is {name}?", f"What do you know about the planet {name}?"]),
                f"{name} is a planet of our solar system. It is {where}. It is {what}.",
            )
        ]
    if roll < 0.5:
        ask, answer = rng.choice(
            [
                ("What is the largest planet?", "Jupiter is the largest planet."),
                ("Which planet is closest to the Sun?", "Mercury is closest to the Sun."),
                ("Which planet has rings?", "Saturn is famous for its rings."),
                ("What is the red planet?", "Mars is called the red planet."),
                ("On which planet do we live?", "We live on Earth."),
                ("What is the largest ocean?", "The Pacific is the largest ocean."),
                ("What is the longest river?", "The Nile is the longest river."),
                ("What is the largest country?", "Russia is the largest country."),
                ("What is the largest animal?", "The blue whale is the largest animal."),
                ("What is the fastest animal?", "The cheetah is the fastest animal on land."),
                ("What is the tallest animal?", "The giraffe is the tallest animal."),
                ("At what temperature does water boil?", "Water boils at one hundred degrees Celsius."),
                ("At what temperature does water freeze?", "Water freezes at zero degrees Celsius."),
                ("Who wrote Romeo and Juliet?", "William Shakespeare wrote Romeo and Juliet."),
                ("Who painted the Mona Lisa?", "Leonardo da Vinci painted the Mona Lisa."),
                ("Who was the first person on the Moon?", "Neil Armstrong was the first person on the Moon."),
                ("Who was Albert Einstein?", "Albert Einstein was a scientist who changed the way we think about space and time."),
            ]
        )
        return [(ask, answer)]
    if roll < 0.65:
        shape, sides = rng.choice(facts.SHAPES)
        return [
            (
                f"How many sides does {with_article(shape)} have?",
                f"{sentence(with_article(shape))} has {['', '', '', 'three', 'four', 'five', 'six', '', 'eight'][sides]} sides.",
            )
        ]
    ask, word = rng.choice(facts.QUANTITIES)
    if ask.endswith("have"):
        subject = ask.split(" does ")[1].removesuffix(" have")
        answer = f"{sentence(subject)} has {word} {ask.split()[0]}."
    elif ask == "continents are there":
        answer = "There are seven continents."
    else:
        answer = f"There are {word} {ask.replace(' are ', ' ', 1)}." if "," not in word else "A year has 365 days, and a leap year has 366."
    return [(f"How many {ask}?", answer)]


def grammar(rng: random.Random) -> Turns:
    """Plurals and past tenses."""
    if rng.random() < 0.5:
        noun = rng.choice("cat mouse child house leaf tooth foot baby box city wolf fish man woman bus apple tree story".split())
        return [
            (rng.choice([f"What is the plural of {noun}?", f"What's the plural of {noun}?"]), f"The plural of {noun} is {plural(noun)}.")
        ]
    now, past = rng.choice(facts.PAST_TENSE)
    return [(f"What is the past tense of {now}?", f"The past tense of {now} is {past}.")]


def yes_or_no(rng: random.Random) -> Turns:
    """Statements that are true or false."""
    roll = rng.random()
    if roll < 0.35:
        name, capital = rng.choice(_COUNTRIES)[:2]
        said = capital if rng.random() < 0.5 else rng.choice(_COUNTRIES)[1]
        return [
            (
                f"Is {said} the capital of {name}?",
                f"Yes, {capital} is the capital of {name}." if said == capital else f"No, the capital of {name} is {capital}.",
            )
        ]
    if roll < 0.7:
        thing, its_colour = rng.choice(facts.COLOURS)
        said = its_colour if rng.random() < 0.5 else rng.choice("red blue green yellow black white".split())
        return [(f"Is {thing} {said}?", f"Yes, {thing} is {its_colour}." if said == its_colour else f"No, {thing} is {its_colour}.")]
    category = rng.choice(["fruits", "vegetables", "colours", "birds", "sports", "planets", "jobs", "feelings"])
    other = rng.choice([c for c in ("fruits", "vegetables", "colours", "birds", "sports", "planets", "jobs", "feelings") if c != category])
    item = rng.choice(facts.CATEGORIES[category].split())
    kind = {
        "colours": "a colour",
        "fruits": "fruit",
        "vegetables": "vegetables",
        "birds": "birds",
        "sports": "a sport",
        "planets": "a planet",
        "jobs": "a job",
        "feelings": "a feeling",
    }
    verb = "are" if category in ("fruits", "vegetables", "birds") else "is"
    subject = with_article(item) if category == "jobs" else item
    asked = category if rng.random() < 0.5 else other
    if (asked in ("fruits", "vegetables", "birds")) != (verb == "are") or item in ("orange", "chess", "tomatoes", "pumpkins"):
        asked = category
    answer = f"Yes, {subject} {verb} {kind[category]}." if asked == category else f"No, {subject} {verb} {kind[category]}."
    return [(f"{sentence(verb)} {subject} {kind[asked]}?", answer)]


def letter_or_plan(rng: random.Random) -> Turns:
    """Longer texts that are built from parts: a letter, a plan for a day, a packing list."""
    from stories import NAMES

    roll = rng.random()
    if roll < 0.35:
        name, occasion = rng.choice(NAMES), rng.choice(["birthday", "thank-you", "friendly"])
        body = {
            "birthday": "[I wish you all the best for your birthday!|Happy birthday!] I hope that your day is full of [sunshine, cake and good friends|laughter and music]. [May the new year of your life bring you many small joys.|You deserve a wonderful day.]",
            "thank-you": "Thank you so much for [your help|the lovely present|the nice evening]. [It meant a lot to me.|I was very happy about it.] I hope that I can [return the favour|do something for you] soon.",
            "friendly": "How are you? I am well. [Yesterday I went for a long walk by the river and thought of you.|The garden is full of flowers now, and the evenings are long.] Please write to me soon and tell me [how you have been|what is new].",
        }[occasion]
        text = f"Dear {name},\n\n{expand(rng, body)}\n\n{rng.choice(['With best wishes', 'Yours', 'With love'])},\nyour friend"
        return [(expand(rng, f"[Write|Write me] a [short|] {occasion} letter to [my friend|my friend] {name}."), text)]
    if roll < 0.7:
        parts = [
            "In the morning, [get up early and take a walk|have a good breakfast with fresh bread|open the window and stretch].",
            "Then [do the most important task first|write down three things that you want to do|tidy the kitchen].",
            "At noon, [eat something light, such as a salad|cook some soup|have lunch with a friend].",
            "In the afternoon, [read a book in the garden|visit a museum|learn ten words of a new language|go for a ride on your bicycle].",
            "In the evening, [watch the sunset|cook something warm|play a game with your family], and go to bed [early|before eleven].",
        ]
        return [
            (
                rng.choice(
                    [
                        "Plan my day.",
                        "Make a plan for my day.",
                        "What is a good plan for a day?",
                        "Help me plan a day off.",
                        "Describe a perfect day.",
                    ]
                ),
                "Here is a plan. " + " ".join(expand(rng, p) for p in parts),
            )
        ]
    place, things = rng.choice(
        [
            ("the beach", ["a towel", "sun cream", "a hat", "water", "a book", "a swimsuit"]),
            ("the mountains", ["good boots", "a map", "water", "warm clothes", "some bread and cheese", "a small lamp"]),
            ("a picnic", ["a blanket", "sandwiches", "apples", "lemonade", "a ball", "napkins"]),
            ("school", ["a pencil", "a notebook", "a ruler", "a sandwich", "a bottle of water"]),
        ]
    )
    some = rng.sample(things, rng.randint(4, 5))
    listed = "\n".join(f"{n}. {sentence(t)}" for n, t in enumerate(some, 1)) if rng.random() < 0.5 else joined(some)
    return [
        (
            f"What should I take to {place}?",
            f"For {place} you should take:\n{listed}" if "\n" in listed else f"For {place} you should take {listed}.",
        )
    ]
