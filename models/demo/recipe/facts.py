"""Tables of everyday facts, one line per thing. Knows nothing about how a question is asked."""

# country | capital | continent | language | known for
_COUNTRIES = """
France|Paris|Europe|French|bread, cheese and the Eiffel Tower
Germany|Berlin|Europe|German|castles, cars and old music
Italy|Rome|Europe|Italian|pasta, pizza and ancient ruins
Spain|Madrid|Europe|Spanish|sunny beaches and dancing
Portugal|Lisbon|Europe|Portuguese|tiles, fish and brave sailors
England|London|Europe|English|tea, rain and red buses
Ireland|Dublin|Europe|English and Irish|green hills and songs
Scotland|Edinburgh|Europe|English|lakes, castles and bagpipes
Norway|Oslo|Europe|Norwegian|deep fjords and snow
Sweden|Stockholm|Europe|Swedish|forests and lakes
Finland|Helsinki|Europe|Finnish|saunas and a thousand lakes
Denmark|Copenhagen|Europe|Danish|bicycles and toy bricks
Iceland|Reykjavik|Europe|Icelandic|volcanoes and hot springs
Poland|Warsaw|Europe|Polish|dumplings and old cities
Austria|Vienna|Europe|German|mountains and waltzes
Switzerland|Bern|Europe|German, French and Italian|mountains, watches and chocolate
Belgium|Brussels|Europe|Dutch and French|waffles and chocolate
the Netherlands|Amsterdam|Europe|Dutch|tulips, canals and bicycles
Greece|Athens|Europe|Greek|islands, olives and old temples
Hungary|Budapest|Europe|Hungarian|hot baths and spicy soup
Russia|Moscow|Europe and Asia|Russian|long winters and great novels
Turkey|Ankara|Europe and Asia|Turkish|bazaars and sweet tea
Egypt|Cairo|Africa|Arabic|pyramids and the river Nile
Morocco|Rabat|Africa|Arabic|markets and deserts
Kenya|Nairobi|Africa|Swahili and English|lions and wide plains
Nigeria|Abuja|Africa|English|music and films
Ghana|Accra|Africa|English|cocoa and bright cloth
Ethiopia|Addis Ababa|Africa|Amharic|coffee and high mountains
China|Beijing|Asia|Chinese|the Great Wall and tea
Japan|Tokyo|Asia|Japanese|fast trains, cherry trees and sushi
India|New Delhi|Asia|Hindi and English|spices and the Taj Mahal
South Korea|Seoul|Asia|Korean|phones, songs and spicy cabbage
Thailand|Bangkok|Asia|Thai|temples and warm beaches
Vietnam|Hanoi|Asia|Vietnamese|noodle soup and rice fields
Indonesia|Jakarta|Asia|Indonesian|islands and volcanoes
Nepal|Kathmandu|Asia|Nepali|the highest mountain in the world
Iran|Tehran|Asia|Persian|carpets and poetry
Israel|Jerusalem|Asia|Hebrew|old cities and the Dead Sea
Canada|Ottawa|North America|English and French|maple trees and cold winters
the United States|Washington|North America|English|big cities and wide roads
Mexico|Mexico City|North America|Spanish|corn, chocolate and old pyramids
Cuba|Havana|North America|Spanish|music and old cars
Brazil|Brasilia|South America|Portuguese|football and the Amazon forest
Argentina|Buenos Aires|South America|Spanish|tango and wide grassland
Chile|Santiago|South America|Spanish|a long coast and high mountains
Peru|Lima|South America|Spanish|llamas and Machu Picchu
Colombia|Bogota|South America|Spanish|coffee and flowers
Australia|Canberra|Oceania|English|kangaroos and coral reefs
New Zealand|Wellington|Oceania|English|sheep and green mountains
"""

# animal | what it is | size 1-9 | where it lives | what it eats | legs | baby | sound | one more fact | flies | swims
_ANIMALS = """
fox|a clever wild mammal|4|in forests and fields|mice, berries and insects|4|cub|barks|It has a thick red tail that keeps it warm in winter.|no|a little
cat|a small furry pet|3|in houses and on farms|meat and fish|4|kitten|meows|It can see very well in the dark and sleeps for much of the day.|no|a little
dog|a loyal pet|4|with people|meat and dry food|4|puppy|barks|It has an excellent nose and likes to play fetch.|no|yes
horse|a large and fast farm animal|7|on farms and in meadows|grass and hay|4|foal|neighs|It can sleep while standing up.|no|yes
cow|a large farm animal|7|on farms|grass|4|calf|moos|It gives milk, which we use for cheese and butter.|no|a little
sheep|a woolly farm animal|5|on hills and farms|grass|4|lamb|bleats|Its wool is used to make warm clothes.|no|a little
pig|a smart farm animal|5|on farms|almost anything|4|piglet|oinks|It rolls in mud to stay cool.|no|yes
goat|a curious farm animal|5|on farms and in mountains|grass and leaves|4|kid|bleats|It can climb very steep rocks.|no|a little
chicken|a farm bird|2|on farms|seeds and worms|2|chick|clucks|It lays eggs that we eat for breakfast.|only a little|no
duck|a water bird|2|on ponds and rivers|plants and insects|2|duckling|quacks|Its feathers are covered with oil, so water runs off them.|yes|yes
owl|a night bird|2|in forests and barns|mice and insects|2|owlet|hoots|It can turn its head almost all the way around.|yes|no
eagle|a large bird of prey|3|in mountains|fish and small animals|2|eaglet|screeches|It can see a rabbit from far away.|yes|no
penguin|a bird of the cold south|3|on icy coasts|fish|2|chick|squawks|It cannot fly, but it swims like a torpedo.|no|yes
parrot|a colourful bird|2|in warm forests|seeds and fruit|2|chick|squawks|It can copy the words that people say.|yes|no
lion|a big wild cat|6|on the plains of Africa|meat|4|cub|roars|It lives in a group that is called a pride.|no|a little
tiger|a big wild cat with stripes|6|in the forests of Asia|meat|4|cub|roars|No two tigers have the same stripes.|no|yes
bear|a large and strong mammal|7|in forests and mountains|fish, berries and honey|4|cub|growls|It sleeps through most of the winter.|no|yes
wolf|a wild relative of the dog|5|in forests|meat|4|pup|howls|It lives and hunts in a family that is called a pack.|no|yes
elephant|the largest animal on land|8|in Africa and Asia|grass, leaves and fruit|4|calf|trumpets|It uses its long trunk to drink, to smell and to lift things.|no|yes
giraffe|the tallest animal in the world|8|on the plains of Africa|leaves|4|calf|hums|Its long neck helps it to reach the leaves of high trees.|no|no
monkey|a lively climber|3|in warm forests|fruit and leaves|2|baby|chatters|It uses its long tail to hold on to branches.|no|a little
rabbit|a small mammal with long ears|2|in meadows and burrows|grass and carrots|4|kit|squeaks|It can hop away very quickly when it is afraid.|no|a little
mouse|a tiny mammal|1|in fields and houses|seeds and cheese|4|pup|squeaks|It can slip through a hole as small as a coin.|no|a little
squirrel|a small climber with a bushy tail|2|in trees|nuts and seeds|4|kit|chatters|It hides nuts in autumn and forgets some of them.|no|a little
hedgehog|a small mammal with spines|2|in gardens|insects and worms|4|hoglet|snuffles|It rolls into a ball when there is danger.|no|a little
frog|a small jumping animal|1|in ponds|insects|4|tadpole|croaks|It begins its life in the water with a tail and no legs.|no|yes
turtle|a slow animal with a shell|3|in water and on land|plants and small animals|4|hatchling|hisses|It can live for more than a hundred years.|no|yes
snake|a long animal without legs|3|in deserts, forests and fields|mice and eggs|0|hatchling|hisses|It smells with its tongue.|no|yes
whale|the largest animal in the sea|9|in the ocean|tiny sea animals|0|calf|sings|It is not a fish: it breathes air and feeds its young with milk.|no|yes
dolphin|a friendly sea mammal|5|in the ocean|fish|0|calf|clicks|It sleeps with only half of its brain at a time.|no|yes
shark|a large fish with many teeth|6|in the ocean|fish|0|pup|makes no sound|It grows new teeth all its life.|no|yes
octopus|a clever sea animal|3|on the sea floor|crabs and shells|8|hatchling|makes no sound|It has eight arms, three hearts and blue blood.|no|yes
bee|a small striped insect|1|in a hive|nectar and pollen|6|larva|buzzes|It makes honey and helps flowers to grow seeds.|yes|no
butterfly|an insect with bright wings|1|in gardens and meadows|nectar|6|caterpillar|makes no sound|It was once a caterpillar that slept in a cocoon.|yes|no
spider|a small animal that spins webs|1|in corners and gardens|insects|8|spiderling|makes no sound|Its silk is stronger than steel of the same weight.|no|no
ant|a tiny and strong insect|1|in large nests|seeds and sweet things|6|larva|makes no sound|It can carry many times its own weight.|no|no
camel|a tall desert animal|7|in deserts|dry plants|4|calf|grunts|It stores fat in its hump and can go for days without water.|no|a little
kangaroo|a jumping animal|6|in Australia|grass|2|joey|grunts|It carries its baby in a pouch.|no|yes
"""

# thing | colour
COLOURS = [line.split("|") for line in """
the sky|blue
grass|green
the sun|yellow
snow|white
coal|black
a banana|yellow
a ripe strawberry|red
an orange|orange
a carrot|orange
a lemon|yellow
milk|white
chocolate|brown
blood|red
the sea|blue
a frog|green
a fire engine|red
an elephant|grey
a flamingo|pink
a raven|black
a polar bear|white
gold|yellow
a pumpkin|orange
a plum|purple
lavender|purple
a tree trunk|brown
a ripe tomato|red
the night sky|black
a cucumber|green
""".strip().splitlines()]

MIXED_COLOURS = [
    ("red", "yellow", "orange"),
    ("blue", "yellow", "green"),
    ("red", "blue", "purple"),
    ("red", "white", "pink"),
    ("black", "white", "grey"),
    ("blue", "white", "light blue"),
    ("red", "green", "brown"),
]

OPPOSITES = [
    tuple(pair.split("-"))
    for pair in (
        "hot-cold big-small fast-slow up-down day-night happy-sad old-young light-dark early-late open-closed full-empty hard-soft "
        "wet-dry high-low long-short near-far rich-poor strong-weak thick-thin clean-dirty loud-quiet left-right in-out first-last "
        "good-bad true-false easy-difficult heavy-light black-white start-finish push-pull win-lose buy-sell love-hate "
        "remember-forget inside-outside above-below brave-afraid sweet-bitter wide-narrow deep-shallow smooth-rough safe-dangerous "
        "north-south east-west summer-winter morning-evening give-take always-never"
    ).split()
]

# job | what the person does
JOBS = [line.split("|") for line in """
baker|bakes bread and cakes early in the morning
farmer|grows food and looks after animals
doctor|helps people who are ill
nurse|cares for patients in a hospital
teacher|helps children to learn new things
pilot|flies planes from city to city
sailor|works on a ship at sea
gardener|plants flowers and takes care of gardens
carpenter|builds tables, doors and houses out of wood
cook|prepares meals in a kitchen
firefighter|puts out fires and saves people
police officer|keeps people safe and helps them
painter|paints pictures or walls
musician|plays songs on an instrument
writer|writes books and stories
librarian|looks after books and helps readers to find them
engineer|designs machines, bridges and programs
scientist|asks questions about the world and tests the answers
astronaut|travels into space in a rocket
postman|brings letters and parcels to every house
tailor|sews and mends clothes
fisherman|catches fish in rivers and in the sea
dentist|takes care of teeth
mechanic|repairs cars and other machines
shepherd|guards the sheep on the hills
programmer|writes instructions for computers
""".strip().splitlines()]

# thing | what it is used for
USES = [line.split("|") for line in """
hammer|to drive nails into wood
knife|to cut food
spoon|to eat soup
umbrella|to stay dry in the rain
clock|to tell the time
key|to open a lock
pen|to write on paper
map|to find the way
lamp|to light a dark room
ladder|to climb to high places
boat|to travel on water
bicycle|to ride from place to place
telescope|to look at the stars
microscope|to see very small things
needle|to sew clothes
bucket|to carry water
oven|to bake bread and cakes
fridge|to keep food cold
broom|to sweep the floor
compass|to find north
mirror|to see your own face
bridge|to cross a river
thermometer|to measure how warm it is
scissors|to cut paper
blanket|to keep warm in bed
phone|to talk to people who are far away
computer|to work with numbers, words and pictures
""".strip().splitlines()]

PLANETS = [line.split("|") for line in """
Mercury|closest to the Sun|small, grey and full of craters
Venus|second from the Sun|the hottest planet, covered in thick clouds
Earth|third from the Sun|our home, with oceans, air and life
Mars|fourth from the Sun|cold, dry and red with rusty dust
Jupiter|fifth from the Sun|the largest planet, with a great red storm
Saturn|sixth from the Sun|famous for its bright rings of ice
Uranus|seventh from the Sun|an icy planet that rolls on its side
Neptune|farthest from the Sun|dark, cold and very windy
""".strip().splitlines()]

SHAPES = [("triangle", 3), ("square", 4), ("rectangle", 4), ("pentagon", 5), ("hexagon", 6), ("octagon", 8)]

QUANTITIES = [line.split("|") for line in """
days are in a week|seven
months are in a year|twelve
hours are in a day|twenty-four
minutes are in an hour|sixty
seconds are in a minute|sixty
days are in a year|365, and 366 in a leap year
fingers does a hand have|five
wheels does a bicycle have|two
wheels does a car have|four
planets are in the solar system|eight
letters are in the English alphabet|twenty-six
colours are in a rainbow|seven
seasons are in a year|four
continents are there|seven
strings does a violin have|four
players are in a football team|eleven
years are in a century|one hundred
weeks are in a year|fifty-two
""".strip().splitlines()]

CATEGORIES = {
    "fruits": "apples bananas pears cherries grapes oranges plums peaches lemons strawberries",
    "vegetables": "carrots potatoes onions peas beans cabbage spinach tomatoes pumpkins leeks",
    "animals": "cats dogs horses lions owls whales foxes bears rabbits elephants",
    "colours": "red blue green yellow orange purple black white pink brown",
    "birds": "owls eagles ducks parrots penguins robins swans crows",
    "farm animals": "cows sheep pigs goats chickens horses ducks",
    "sports": "football tennis swimming running cycling rowing basketball chess",
    "musical instruments": "piano violin guitar drum flute trumpet harp cello",
    "tools": "hammer saw ladder screwdriver spade rake wrench",
    "planets": "Mercury Venus Earth Mars Jupiter Saturn Uranus Neptune",
    "capital cities": "Paris London Rome Madrid Berlin Tokyo Cairo Ottawa",
    "countries": "France Japan Brazil Kenya India Canada Italy Norway Egypt Peru",
    "drinks": "water tea coffee milk juice lemonade",
    "flowers": "roses tulips daisies lilies sunflowers violets",
    "trees": "oak pine birch maple willow beech",
    "things in a kitchen": "spoon knife pan oven kettle cup plate bowl",
    "vehicles": "car train bus boat bicycle plane tram lorry",
    "clothes": "shirt coat hat scarf socks shoes gloves trousers",
    "jobs": "baker farmer teacher nurse pilot gardener carpenter cook",
    "feelings": "joy sadness anger fear surprise pride hope",
    "body parts": "head arm leg hand foot nose ear knee",
}

SEQUENCES = {
    "days of the week": "Monday Tuesday Wednesday Thursday Friday Saturday Sunday",
    "months of the year": "January February March April May June July August September October November December",
    "seasons": "spring summer autumn winter",
    "planets in order": "Mercury Venus Earth Mars Jupiter Saturn Uranus Neptune",
    "colours of the rainbow": "red orange yellow green blue indigo violet",
    "letters of the alphabet": "A B C D E F G H I J K L M N O P Q R S T U V W X Y Z",
}

FOREIGN = [line.split("|") for line in """
hello|bonjour|hola|hallo|ciao
goodbye|au revoir|adios|tschuess|arrivederci
thank you|merci|gracias|danke|grazie
yes|oui|si|ja|si
no|non|no|nein|no
water|eau|agua|Wasser|acqua
bread|pain|pan|Brot|pane
cat|chat|gato|Katze|gatto
dog|chien|perro|Hund|cane
house|maison|casa|Haus|casa
friend|ami|amigo|Freund|amico
sun|soleil|sol|Sonne|sole
""".strip().splitlines()]
LANGUAGES = ["French", "Spanish", "German", "Italian"]

SPELLED = (
    "cat dog house tree water bread apple friend school green river night happy music garden yellow window summer winter "
    "orange baton flower planet bridge moon star fox"
).split()

RHYMES = [
    tuple(g.split())
    for g in (
        "cat hat mat bat|tree sea bee free|light night bright kite|moon spoon soon tune|star far car jar|day play way say|"
        "sky fly high by|rain train lane plane|house mouse|blue true new shoe|gold cold old told|snow go slow grow|"
        "ring sing king wing|hill still will mill|boat coat goat note|bed red head bread"
    ).split("|")
]

PAST_TENSE = [
    tuple(p.split("-"))
    for p in (
        "go-went eat-ate see-saw run-ran swim-swam sing-sang write-wrote read-read take-took give-gave come-came find-found think-thought "
        "buy-bought bring-brought make-made say-said walk-walked play-played jump-jumped help-helped look-looked fly-flew drink-drank "
        "sleep-slept speak-spoke know-knew build-built teach-taught"
    ).split()
]


def countries() -> list[list[str]]:
    """Rows of country, capital, continent, language, known for."""
    return [line.split("|") for line in _COUNTRIES.strip().splitlines()]


def animals() -> list[dict[str, str]]:
    """One dictionary per animal."""
    keys = ["name", "kind", "size", "home", "food", "legs", "baby", "sound", "fact", "flies", "swims"]
    return [dict(zip(keys, line.split("|"), strict=True)) for line in _ANIMALS.strip().splitlines()]
