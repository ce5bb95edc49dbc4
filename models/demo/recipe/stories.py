"""Short stories from plots, each with follow-up questions. Knows nothing about chat roles or other subjects."""

import random

from phrases import expand, sentence, with_article

HEROES = (
    "fox bear rabbit mouse owl cat dog dragon robot knight princess sailor baker farmer wizard astronaut pirate king queen girl boy "
    "snail turtle hedgehog penguin elephant lion wolf frog duck squirrel bee butterfly whale dolphin horse goat sheep crow monkey "
    "tiger giraffe kitten puppy fisherman gardener teacher doctor painter giant snowman unicorn parrot clockmaker shepherd"
).split()
HER_NAMES = "Ruby Mia Anna Clara Emma Lily Nora Ella Lucy Rosa Ivy Alice Maya Zoe Greta Hazel Luna Daisy Stella Wanda Nina Olive Tilda Holly Sara".split()
HIS_NAMES = (
    "Tom Leo Ben Felix Max Oscar Finn Hugo Sam Jack Theo Noah Otto Paul Milo Pip Bruno Rufus Toby Yuri Karl Simon Victor Arlo Jonas".split()
)
NAMES = HER_NAMES + HIS_NAMES
PLACES = (
    "a small village by the sea|a quiet forest|a green valley|an old lighthouse|a snowy mountain|a little house on a hill|a busy city|"
    "a garden full of flowers|a cave behind a waterfall|a farm at the edge of the woods|a castle with a hundred windows|"
    "a cottage near the river|an island in a blue lake|a windmill between wide fields|a narrow street with red roofs"
).split("|")
TRAITS = "brave clever kind shy curious lonely cheerful young old quiet proud tiny gentle careful funny patient".split()
SHE = {"princess", "queen", "girl"}
HE = {"king", "boy", "wizard", "fisherman", "knight", "sailor", "pirate", "clockmaker", "giant", "shepherd"}

_OPENINGS = [
    "Once upon a time, {a_trait_hero} named {name} lived in {place}.",
    "Long ago, in {place}, there lived {a_trait_hero} whose name was {name}.",
    "In {place} there lived {a_trait_hero} called {name}.",
    "There was once {a_trait_hero} named {name} who lived in {place}.",
    "{name} was {a_trait_hero} who lived in {place}.",
]

# theme: (sentences, the lesson). `{he}`, `{him}`, `{his}` follow the hero; `{friend}` is named `{other}`.
PLOTS = {
    "friendship": (
        [
            "[Every day|Each morning] {name} [looked out at the world|watched the clouds] and wished for a friend.",
            "One [morning|afternoon], {he} heard [a soft knock|a small voice|somebody crying] [outside|behind a bush|near the path].",
            "It was {a_friend} named {other}, who had lost the way home.",
            '["Do not worry," said {name}. "I will help you."|"Come with me," said {name}. "I know every path here."]',
            "Together they walked [past the old mill|through the tall grass|along the river], and they talked about [the stars|their favourite food|everything they loved].",
            "[When the sun went down|When the first star came out], they found the home of {other}.",
            '"Thank you," said {other}. "[Will you come again tomorrow?|You are the best friend I could wish for.]"',
            "[{name} smiled all the way home.|From that day on, they met every day.]",
        ],
        "a friend is often found by helping somebody",
    ),
    "courage": (
        [
            "{name} was afraid of [the dark|deep water|thunder|high places], and {he} [never told anyone|was ashamed of it].",
            "One [stormy|cold|windy] night, [a loud cry came from outside|there was a call for help].",
            "{a_friend_cap} named {other} was [caught under a fallen branch|stuck on a rock in the river|trapped in a deep hole].",
            '{name}\'s heart beat fast. ["I am afraid," {he} thought, "but I am needed."|"If I do not go, who will?" {he} thought.]',
            "So {he} took [a lamp|a long rope|a deep breath] and went out into the [rain|wind|night].",
            "Step by step, {he} came closer, until {he} could [reach out a hand|pull {other} free|hear {other} breathe].",
            '["You are so brave," said {other}.|"You saved me," said {other}.]',
            '"[No|Not at all]," said {name}, "I was afraid the whole time, but I came [anyway|all the same]."',
        ],
        "being brave means to act although you are afraid",
    ),
    "sharing": (
        [
            "In autumn {name} had gathered [a large basket of apples|a whole sack of nuts|ten loaves of bread|many jars of honey] for the winter.",
            "[Then the snow came|Soon the cold wind came], and nobody could find anything to eat.",
            "One evening {other}, {a_friend} from [next door|the other side of the hill], knocked at the door.",
            '"I have nothing left," said {other}. "[Could you give me a little?|May I have something small to eat?]"',
            "{name} looked at {his} food and [thought for a while|was silent for a moment].",
            'Then {he} [opened the door wide|set the table for two] and said, "[Come in|Sit down]. There is enough for both of us."',
            "They ate together [by the fire|under a warm blanket], told stories and laughed.",
            "In spring {other} came back with [a basket of fresh berries|a bunch of flowers|seeds for a new garden] to say thank you.",
        ],
        "what we share comes back to us",
    ),
    "patience": (
        [
            "One day {he} [found|was given] a tiny [seed|brown seed] and planted it [behind the house|in a pot by the window].",
            "The next morning {he} ran to look, but nothing had grown.",
            '"[Grow, little seed!|Please hurry!]" said {name}. But the seed [took its time|did not listen].',
            "{name} asked {other}, {a_friend} [who knew a lot about plants|from the neighbourhood], what to do.",
            '"Give it water and light," said {other}, "and then wait."',
            "So {name} watered it every day and [sang to it|told it stories]. [Days passed, and then weeks.|A week went by, and then another.]",
            "At last a small green leaf came out of the ground, and in summer there was [a flower as tall as the door|a golden sunflower|a little tree].",
            "[{name} and {other} sat in its shade and were happy.|Everyone came to see it.]",
        ],
        "good things take time",
    ),
    "honesty": (
        [
            "One day, while {he} was playing, {name} broke [the blue vase|the window|the best cup] of {other}, {a_friend} [who lived nearby|from next door].",
            'Nobody had seen it. ["I could just run away," thought {name}.|{name} hid the pieces under a bush.]',
            "But that night {he} could not sleep, and [{his} stomach felt heavy|the moon seemed to look at {him}].",
            'In the morning {he} went to {other} and said, "[It was me. I am very sorry.|I broke it, and I am sorry.]"',
            "{other} was quiet for a moment, and then [smiled|nodded].",
            '"[Thank you for telling me the truth|It takes courage to say that]," said {other}. "[Let us mend it together.|Things can be mended.]"',
            "They [glued|put] the pieces together, and when they had finished, it looked [almost new|even more beautiful than before].",
            "That night {name} slept [very well|like a stone].",
        ],
        "the truth makes the heart light",
    ),
    "home": (
        [
            "{name} had always dreamed of seeing the [wide world|sea|big city|highest mountain].",
            "So one [spring morning|sunny day] {he} packed [some bread and a blanket|a small bag] and set out.",
            "{he_cap} crossed [three rivers|a dark wood|the golden fields], slept under the stars, and met {other}, {a_friend} who [sang all day|knew many songs|was travelling too].",
            "They saw [ships as large as houses|towers that touched the clouds|markets full of colours].",
            "[It was wonderful|Everything was new], but in the evenings {name} thought of [the smell of the kitchen|the small bed by the window|the sound of the rain at home].",
            '"What do you miss?" asked {other}. "[Just a small place,|A quiet place,] where everybody knows my name," said {name}.',
            "So they went back together, and [a warm light was burning in the window|everyone came out to greet them].",
            "{name} [made tea and told the whole story|had never been so happy to be home].",
        ],
        "the best part of a journey can be coming home",
    ),
    "teamwork": (
        [
            "One [summer|spring], [the bridge over the river broke|a great tree fell across the road|the well ran dry], and nobody could [pass|fix it].",
            "{name} tried to [repair it|solve it] alone. {he_cap} pushed and pulled all day, but [nothing moved|it was too much for one].",
            'Then {other}, {a_friend}, came by and asked, "[Do you need help?|What are you doing?]"',
            '"[I can do it by myself|No, thank you]," said {name}, but [in the evening|after an hour] {he} was so tired that {he} sat down [on a stone|in the grass].',
            "{other} called the others: [a strong horse, a clever crow and a busy mouse|the baker, the farmer and the children].",
            "One held the rope, one [counted to three|gave the signal], and all of them pulled.",
            "[Before it was dark|By the next morning] the work was done, and they [danced|ate soup together] until late.",
            '["Alone I was strong," said {name}, "but together we are stronger."|"Next time I will ask at once," said {name}.]',
        ],
        "together we can do what nobody can do alone",
    ),
    "a lost treasure": (
        [
            "One day {name} found an old map [under the floor|in a bottle on the beach|inside a dusty book].",
            "A red cross marked a place [behind the hills|deep in the forest|on a far island].",
            "{he_cap} showed it to {other}, {a_friend} who [was never afraid|loved adventures], and they left at once.",
            "They climbed over rocks, [crossed a shaking bridge|followed a stream] and [solved the riddle of an old gate|hid from the rain in a cave].",
            "At the red cross they dug and dug, until they hit [something hard|a wooden box].",
            'Inside there was no gold, but [a bundle of letters|a small music box|a book full of drawings] and a note: "[The way was the treasure.|You have found it together.]"',
            "At first {name} was [disappointed|puzzled]. Then {he} looked at {other}, and they both began to laugh.",
            "[It had been the best week of their lives.|They kept the map and planned the next journey.]",
        ],
        "the way can be worth more than the gold",
    ),
    "a surprise": (
        [
            "It was {name}'s birthday, but nobody [seemed to remember it|said a word].",
            '{he_cap} went to {other}, {a_friend}, but {other} only said, "[I have no time today|I am very busy], sorry!"',
            "{name} walked [through the streets|along the path] alone and [kicked a small stone|felt very sad].",
            "In the evening {he} came home. The house was dark and [strangely quiet|still].",
            "{he_cap} opened the door, and suddenly [a hundred lights|many candles] went on.",
            '"Surprise!" they all shouted. There was [a cake with strawberries|a tall chocolate cake|a table full of food], and there was music.',
            '"We had to keep it secret," said {other}. "[That was the hardest part.|Did you really think we forgot?]"',
            "{name} [laughed and cried at the same time|blew out the candles and made a wish].",
        ],
        "friends may think of you even when they are quiet",
    ),
    "the night sky": (
        [
            "Each night {name} counted the stars, and one night [one of them was missing|the smallest star was gone].",
            "{he_cap} found it [in the grass behind the house|in a puddle|on top of a tree]. It was [pale|cold] and no larger than an apple.",
            '"I fell down," said the star, "and I do not know how to get back."',
            "{name} asked {other}, {a_friend} [who was very wise|who knew the winds], and together they made a plan.",
            "They built a [kite of paper and silver thread|long ladder|great balloon] and waited for the wind.",
            "[At midnight|When the wind came], they let it rise, higher and higher, until the little star [jumped back into its place|was only a spark].",
            "Since then it [shines a little brighter than the others|twinkles whenever {name} looks up].",
            "And {name} [waves back every night|never feels alone in the dark].",
        ],
        "even the smallest light is missed",
    ),
    "a contest": (
        [
            "Once a year there was a great race [around the lake|up the hill|through the forest], and {name} wanted to win it.",
            '{other}, {a_friend}, was [the fastest of all|very sure of winning] and laughed. "You? [You will be last!|Never!]"',
            "{name} said nothing and [practised every morning|trained a little each day].",
            "On the day of the race, {other} ran ahead [at once|like the wind], and {name} followed at a steady pace.",
            "Halfway there, {other} [slipped and hurt a foot|fell into the mud].",
            '{name} could have run past. But {he} stopped, [held out a hand|helped {other} up] and said, "Let us go together."',
            "They reached the end last, side by side, and [everyone cheered for them|the crowd cheered louder than ever].",
            '"[You are the real winner,|I was wrong about you,]" said {other}.',
        ],
        "kindness is worth more than winning",
    ),
    "a bad storm": (
        [
            "One evening [dark clouds|black clouds] rolled in, and a storm began [to shake the trees|to howl].",
            "{name} closed the windows and [lit a candle|made a fire]. Then {he} heard a knock.",
            'Outside stood {other}, {a_friend}, wet and cold. "The wind took my roof," {other} said.',
            '"Come in quickly," said {name}, and gave {other} [a dry blanket|hot soup] and a place by the fire.',
            "All night the rain [beat against the walls|drummed on the roof], but inside it was warm, and they [told each other stories|sang old songs].",
            "In the morning the sky was [clear and blue|washed clean], and a rainbow stood over the hills.",
            "They took [wood, nails and a hammer|tools] and built a new roof, stronger than the old one.",
            "[And whenever it storms now, they sit together by the fire.|Since then neither of them has feared a storm.]",
        ],
        "a warm heart is the best shelter",
    ),
}

_ENDINGS = [
    "[And so {name} learned that {lesson}.|{name} never forgot that {lesson}.|That day {name} understood that {lesson}.]",
    "",
    "The end.",
]


def invented_name(rng: random.Random) -> str:
    """A name that is in no list, so that copying a name from the conversation is learned as such."""
    starts, middles, ends = "B D F G K L M N P R S T V Z Br Tr Sh".split(), "a e i o u".split(), "l m n r x ra lo na mi to ky do".split()
    return rng.choice(starts) + rng.choice(middles) + rng.choice(ends)


def names_for(hero: str) -> list[str]:
    """The names that suit a hero: a queen is not called Tom."""
    return HER_NAMES if hero in SHE else HIS_NAMES if hero in HE else NAMES


def story(rng: random.Random, hero: str, name: str, theme: str, trait: str = "") -> tuple[str, list[tuple[str, str]]]:
    """A story of about 100 to 180 tokens and the questions it can answer afterwards."""
    sentences, lesson = PLOTS[theme]
    friend = rng.choice([h for h in HEROES if h != hero])
    other = rng.choice([n for n in names_for(friend) if n != name])
    trait = trait or rng.choice(TRAITS)
    place = rng.choice(PLACES)
    female = name in HER_NAMES or hero in SHE or (name not in HIS_NAMES and hero not in HE and rng.random() < 0.5)
    he, him, his = ("she", "her", "her") if female else ("he", "him", "his")
    slots = dict(
        name=name,
        other=other,
        place=place,
        lesson=lesson,
        he=he,
        him=him,
        his=his,
        he_cap=sentence(he),
        a_trait_hero=with_article(f"{trait} {hero}"),
        a_friend=with_article(friend),
        a_friend_cap=sentence(with_article(friend)),
    )
    parts = [rng.choice(_OPENINGS), *sentences, rng.choice(_ENDINGS)]
    breaks = "\n\n" if rng.random() < 0.3 else " "
    body = [expand(rng, part, **slots) for part in parts if part]
    text = " ".join(body[:4]) + breaks + " ".join(body[4:])
    follow_ups = [
        (f"What was the name of the {hero}?", expand(rng, f"[The {hero} was called {name}.|The name of the {hero} was {name}.|{name}.]")),
        (f"Where did {name} live?", expand(rng, f"{name} lived in {place}.")),
        (
            rng.choice(["What is the lesson of the story?", "What did the story teach?", f"What did {name} learn?", "What is the moral?"]),
            expand(rng, f"[The lesson is|{name} learned|It teaches us] that {lesson}."),
        ),
        (rng.choice([f"Who was {other}?", f"Who is {other}?"]), f"{other} was {with_article(friend)}."),
        ("Who was the story about?", f"It was about {with_article(f'{trait} {hero}')} named {name}."),
        (
            rng.choice(["I liked that story.", "That was nice.", "Nice story!", "What a lovely story!"]),
            expand(
                rng,
                "[Thank you!|I am glad that you liked it.|Thank you, that is kind.] [Would you like to hear another one?|Shall I tell you another one?|]",
            ),
        ),
    ]
    return text, follow_ups


def story_exchange(rng: random.Random) -> list[tuple[str, str]]:
    """A request for a story, the story, and perhaps a question about it."""
    hero, theme, trait = rng.choice(HEROES), rng.choice(list(PLOTS)), rng.choice(TRAITS)
    name = invented_name(rng) if rng.random() < 0.15 else rng.choice(names_for(hero))
    ask = "[Tell me|Write|Write me|Tell|I want to hear|Make up|Please tell me] "
    kind = "a [|short|little|nice|new|funny|bedtime|good|simple] story"
    roll = rng.random()
    if roll < 0.45:
        request = ask + kind + f" about {with_article(hero)}."
    elif roll < 0.55:
        request = ask + kind + f" about {with_article(trait + ' ' + hero)}."
    elif roll < 0.68:
        request = ask + kind + f" about {with_article(hero)} [named|called] {name}."
    elif roll < 0.78:
        request = ask + kind + f" about {theme}."
    elif roll < 0.86:
        request = f"[Once upon a time|Can you tell stories?|Do you know a story?|Tell me something nice.|Once upon a time there was {with_article(hero)}]"
    else:
        request = ask + kind + "."
    text, follow_ups = story(rng, hero, name, theme, trait)
    lead = rng.choice(["", "", "", "", "Here is a story. ", "Of course! ", f"Here is a story about {with_article(hero)}. ", "Gladly. "])
    turns = [(expand(rng, request), lead + text)]
    if rng.random() < 0.4:
        turns += rng.sample(follow_ups, rng.randint(1, 3))
    return turns


def plain_story(rng: random.Random) -> str:
    """A story without a conversation around it, for plain text completion."""
    hero = rng.choice(HEROES)
    return story(rng, hero, rng.choice(names_for(hero)), rng.choice(list(PLOTS)))[0]
