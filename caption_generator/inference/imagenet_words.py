"""What people call some of ImageNet's thousand classes when they tell of a photo: nobody writes "tabby".

There are a few kinds of things, of which a photo seldom shows two. A line of a kind has the words for a thing, first
the one to call it by, then its plural, then what else names it, and after the colon the classes that are such a thing,
by their numbers from 0; a giraffe is in none. A class may be in several lines: a drake is a duck and a bird.
"""

from collections.abc import Mapping
from dataclasses import dataclass

KINDS: Mapping[str, str] = {
    "animals": """
        bird birds chicken chickens rooster hen duck ducks goose geese swan swans stork crane heron eagle hawk owl
            parrot parrots peacock pelican pelicans penguin penguins seagull seagulls turkey pigeon pigeons flamingo
            flamingos ostrich: 7-24 80-100 127-146
        rooster roosters chicken chickens hen: 7
        hen hens chicken chickens rooster: 8
        ostrich ostriches: 9
        eagle eagles hawk: 21 22
        owl owls: 24
        peacock peacocks: 84
        parrot parrots: 87-90
        duck ducks: 97 98
        goose geese: 99
        swan swans: 100
        flamingo flamingos: 130
        pelican pelicans: 144
        penguin penguins: 145
        fish fish: 0-6 389-397
        shark sharks: 2-4
        frog frogs: 30-32
        turtle turtles tortoise: 33-37
        lizard lizards iguana gecko: 38-48
        alligator alligators crocodile: 49 50
        snake snakes: 52-68
        spider spiders: 72-77
        scorpion scorpions: 71
        kangaroo kangaroos: 104
        koala koalas bear: 105
        snail snails: 113
        crab crabs: 118-121 125
        lobster lobsters: 122-124
        whale whales dolphin: 147 148
        seal seals: 149 150
        dog dogs puppy puppies poodle dalmatian greyhound greyhounds terrier collie retriever labrador husky: 151-268
        wolf wolves: 269-271
        fox foxes: 277-280
        cat cats kitten kittens: 281-285
        leopard leopards: 286-290
        lion lions: 291
        tiger tigers: 292
        cheetah cheetahs: 293
        bear bears: 294-297
        beetle beetles bug insect: 300-307
        bee bees: 309
        grasshopper grasshoppers: 311 312
        dragonfly dragonflies: 319 320
        butterfly butterflies: 321-326
        starfish starfish: 327
        rabbit rabbits bunny: 330-332
        hamster hamsters: 333
        guinea_pig guinea_pigs: 338
        squirrel squirrels: 335
        horse horses pony donkey: 339
        zebra zebras: 340
        pig pigs hog boar: 341-343
        hippo hippos hippopotamus: 344
        cow cows bull bulls ox oxen cattle calf buffalo: 345 346
        bison bison buffalo: 347
        sheep sheep lamb lambs ram rams goat goats: 348 349
        goat goats: 350
        antelope antelopes gazelle deer: 351-353
        camel camels: 354
        llama llamas alpaca: 355
        skunk skunks: 361
        gorilla gorillas monkey: 366
        monkey monkeys ape gorilla chimpanzee: 365-384
        elephant elephants: 101 385 386
        panda pandas bear: 388
        giraffe giraffes:
    """,
    "vehicles": """
        airplane airplanes plane planes jet airliner aircraft: 404 895
        boat boats ship ships canoe canoes kayak kayaks sailboat sailboats yacht raft gondola ferry: 403 472 484 510 554
            576 625 628 780 814 871 914
        bus buses van: 654 779 874
        train trains locomotive: 466 547 565 705 820
        trolley trolleys streetcar tram train bus: 829
        bicycle bicycles bike bikes: 444 671
        motorcycle motorcycles motorbike motorbikes scooter scooters moped bike bikes: 665 670
        car cars jeep taxi limousine convertible vehicle van: 407 436 468 511 609 627 656 661 817
        truck trucks vehicle: 555 569 675 717 864 867
        tractor tractors: 595 866
        balloon balloons: 417
    """,
    "instruments": """
        guitar guitars bass: 402 546
        piano pianos: 579 881
        violin violins: 889
        cello cellos: 486
        accordion accordions: 401
        saxophone saxophones: 776
        trumpet trumpets: 513
        trombone trombones: 875
        harp harps: 594
        flute flutes: 558
        drum drums: 541
    """,
    "food": """
        pizza pizzas: 963
        hot_dog hot_dogs hotdog: 934
        burger burgers hamburger sandwich: 933
        bagel bagels donut donuts bread: 931
        pretzel pretzels: 932
        burrito burritos: 965
        soup soup: 925
        pasta pasta spaghetti: 959
        banana bananas fruit: 954
        oranges oranges fruit: 950
        lemon lemons fruit: 951
        apple apples fruit: 948
        strawberry strawberries fruit: 949
        pineapple pineapples fruit: 953
        pomegranate pomegranates fruit: 957
        broccoli broccoli vegetable vegetables: 937
        cauliflower cauliflower vegetable vegetables: 938
        mushroom mushrooms: 947 991-997
    """,
}


@dataclass(frozen=True)
class Thing:
    """What ImageNet's classes and captions both have.

    Attributes:
        kind: a key of `KINDS`.
        name: what to call one of it.
        plural: what to call several.
        words: all that names it, these two included.
        classes: their numbers.
    """

    kind: str
    name: str
    plural: str
    words: frozenset[str]
    classes: tuple[int, ...]

    @property
    def plurals(self) -> frozenset[str]:
        """Those words that name several."""
        return frozenset({self.plural, *(f"{word}s" for word in self.words)} & self.words)


def _read(kind: str, line: str) -> Thing:
    named, _, classes = line.partition(":")
    words = [word.replace("_", " ") for word in named.split()]
    parts = [part.partition("-") for part in classes.split()]
    numbers = (number for first, _, last in parts for number in range(int(first), int(last or first) + 1))
    return Thing(kind, words[0], words[1], frozenset(words), tuple(numbers))


def _lines(text: str) -> list[str]:
    return text.replace("\n" + " " * 12, " ").strip().splitlines()  # a line's second row begins further in


THINGS: tuple[Thing, ...] = tuple(_read(kind, line) for kind, text in KINDS.items() for line in _lines(text))
