"""The words that people use for what a photo shows, and which of them stand for the same."""

from collections.abc import Iterable
from functools import cache

from caption_generator.imagenet_words import plurals, things

_PEOPLE = """
    man men woman women boy boys girl girls child children kid kids people person baby toddler lady ladies guy guys
    adult adults male males female females mother father someone friend friends teenager teenagers crowd audience
    spectators onlookers couple team player players rider riders skateboarder skateboarders skater skaters surfer
    snowboarder skier biker bikers bicyclist cyclist cyclists motorcyclist racer climber hiker hikers swimmer dancer
    dancers
"""
PEOPLE = frozenset(_PEOPLE.split())
# What the table of ImageNet's things lacks. The words of a line may stand for the same.
_THINGS = """
    frisbee disc
    kite
    bat
    skateboard board
    snowboard board
    surfboard board wakeboard
    wetsuit
    ramp halfpipe
    rail railing
    hurdle obstacle
    goal net
    bush plant leaf leaves branch
    log branch stick
    counter
    food meal
    seat chair
    giraffe
    herd cattle
    hydrant
    graffiti
    luggage suitcase
    leash collar harness
    jacket coat
    uniform outfit costume clothing clothes gear
    mouth tongue teeth
    smoke fire
"""
_PLACES = """
    court
    stadium arena
    playground park garden yard
    grass lawn field pasture meadow
    snow ice
    forest woods tree
    mountain hill hillside slope cliff
    water lake river ocean sea pond pool creek stream wave surf puddle
    beach sand shore
    desert dirt mud sand
    sky cloud
    street road sidewalk pavement highway curb intersection
    path trail track walkway
    railroad track rail
    station platform
    airport runway tarmac
    city town
    kitchen
    bathroom restroom
    bedroom
    office
"""


def _groups(table: str) -> list[set[str]]:
    """The words of each line, with plurals."""
    lines = [line.split() for line in table.strip().splitlines()]
    return [{form for word in line for form in (word, *plurals(word))} for line in lines]


@cache
def synonyms() -> dict[str, frozenset[str]]:
    """Each word for a person, an animal, a thing or a place, and all words that may stand for the same."""
    found: dict[str, frozenset[str]] = {}
    for group in (PEOPLE, *_groups(_THINGS + _PLACES), *(thing.words for thing in things())):
        found |= {word: found.get(word, frozenset()) | group for word in group}
    return found


@cache
def nouns() -> frozenset[str]:
    """The words for people, animals and things, without those for places."""
    return PEOPLE.union(*_groups(_THINGS), *(thing.words for thing in things())).difference(*_groups(_PLACES))


def named_objects(references: Iterable[str]) -> frozenset[str]:
    """All words of clean captions of one photo, with the synonyms of the objects that they name."""
    words = {word for reference in references for word in reference.split()}
    return frozenset(words.union(*(synonyms().get(word, ()) for word in words)))


def hallucinated(candidate: Iterable[str], named: frozenset[str]) -> list[str]:
    """The objects among the words of a caption that its references do not name, each once.

    Args:
        candidate: the words of a clean caption.
        named: from `named_objects` of its references.
    """
    return [word for word in dict.fromkeys(candidate) if word in synonyms() and word not in named]
