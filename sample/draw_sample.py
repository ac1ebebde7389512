"""Draw a small stand-in for Flickr8k: 200 cartoon scenes with five captions each, laid out as Flickr8k is.

    python sample/draw_sample.py            # remakes the files next to this script
    python sample/draw_sample.py some/dir   # writes them somewhere else

A scene is first composed (who does what, where) and then both drawn and described, so the captions are true of the
pictures. Everything is drawn from one seed: the same Pillow gives the same bytes each time.
"""

import argparse
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFilter, ImageOps

Point = tuple[float, float]
Colour = tuple[int, int, int]

SEED = 0
SPLITS = {"train": 150, "dev": 25, "test": 25}
SIZES = 3 * ((224, 168),) + 2 * ((224, 149),) + ((224, 160), (224, 179), (168, 224), (160, 224))
DETAIL = 3  # pictures are drawn this many times larger and scaled down, which smooths the edges
UNIT = 5  # pixels per unit of a figure; a grown person is about 100 units tall
INK = (52, 44, 50)

COLOURS = {
    "black": (58, 54, 62),
    "white": (247, 245, 240),
    "brown": (146, 90, 48),
    "black-and-white": (247, 245, 240),
    "orange": (236, 146, 56),
    "gray": (142, 146, 154),
    "red": (214, 48, 44),
    "blue": (44, 92, 204),
    "yellow": (248, 206, 44),
    "pink": (242, 128, 176),
}
LOOKS = (  # skin and hair
    ((250, 214, 182), (222, 178, 92)),
    ((250, 214, 182), (112, 68, 36)),
    ((244, 204, 168), (176, 84, 40)),
    ((232, 184, 144), (58, 42, 36)),
    ((178, 122, 82), (58, 42, 36)),
    ((122, 82, 58), (44, 34, 32)),
)

# Figures -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Kind:
    """How captions name a figure: by a noun alone or with its colour; and what part of the picture it fills."""

    nouns: tuple[str, ...]
    described: tuple[str, ...]
    colours: tuple[str, ...]
    height: float
    his: str = "its"


COLOURED = ("{colour} {noun}",)
SHIRT = ("{noun} in a {colour} shirt", "{noun} wearing a {colour} t-shirt", "{noun} in {colour}")
DRESS = ("{noun} in a {colour} dress", "{noun} wearing a {colour} dress", "{noun} in {colour}")
KINDS = {
    "dog": Kind(
        ("dog", "dog", "dog", "puppy", "animal"), COLOURED, ("black", "brown", "white", "black-and-white"), 0.5
    ),
    "cat": Kind(("cat", "cat", "kitten"), COLOURED, ("orange", "gray", "black"), 0.5),
    "horse": Kind(("horse", "horse", "horse", "animal"), COLOURED, ("brown", "black", "white"), 0.66),
    "bird": Kind(("bird", "bird", "seagull"), COLOURED, ("white", "gray"), 0.4),
    "boy": Kind(("boy", "little boy", "young boy", "child", "kid"), SHIRT, ("red", "blue", "yellow"), 0.64, "his"),
    "girl": Kind(("girl", "little girl", "young girl", "child", "kid"), DRESS, ("pink", "red", "yellow"), 0.64, "her"),
    "man": Kind(("man", "man", "guy", "person"), SHIRT, ("red", "blue", "yellow"), 0.72, "his"),
    "woman": Kind(("woman", "woman", "lady", "person"), SHIRT, ("red", "blue", "pink"), 0.72, "her"),
    "boat": Kind(
        ("boat", "sailboat"),
        ("{noun} with {colour} sails", "{noun} with big {colour} sails"),
        ("red", "white", "yellow"),
        0.7,
    ),
    "car": Kind(("car", "car", "vehicle"), COLOURED, ("red", "blue", "yellow"), 0.44),
}
CHILDREN = ("boy", "girl")
PLURALS = {"child": "children", "puppy": "puppies"}

# Who does what where, and in how many pictures -----------------------------------------------------------------------

CASTS = (
    (24, "dog", "run grass beach snow forest, jump grass beach snow, swim sea pool"),
    (18, "dog", "play grass beach snow, sit grass street forest snow, stand rocks beach"),
    (18, "dog dog", "run grass beach snow, play grass beach snow, stand grass rocks, sit grass"),
    (14, "cat", "sit grass street, stand street grass snow, run grass, play grass"),
    (10, "horse", "run grass beach snow, stand grass"),
    (12, "boy", "run grass beach, jump grass beach, kick grass beach, cycle street forest"),
    (10, "boy", "dive sea pool, swim sea pool, sit grass beach rocks, climb cliff"),
    (12, "girl", "run grass beach, jump grass snow, kick grass, cycle street forest"),
    (8, "girl", "dive pool, swim pool, sit grass beach rocks, climb cliff"),
    (22, "man", "run street beach, stand snow rocks, cycle street forest, ride beach grass, climb cliff, swim sea"),
    (14, "woman", "run street beach forest, stand snow beach, cycle street, ride grass beach, climb cliff, sit beach"),
    (6, "boy girl", "run grass snow, jump beach, kick grass, stand street snow"),
    (4, "boy boy", "run beach, jump grass, kick beach, stand snow"),
    (4, "girl girl", "run grass, jump beach, kick grass, stand street"),
    (8, "boat", "sail sea"),
    (8, "car", "drive street"),
    (8, "bird", "fly sea beach, stand beach"),
)
IN_THE_AIR = {"jump": 0.1, "dive": 0.3, "fly": 0.45, "climb": 0.2}  # by how much of the picture's height
SHARES = {"swim": 0.55, "ride": 1.15, "cycle": 1.1, "climb": 0.9}  # how much larger or smaller than its kind

# Captions ------------------------------------------------------------------------------------------------------------

# For each action: which phrases of PLACES fit, then the verb's plural, singular and -ing form, and what follows it.
VERBS = {
    "run": (
        "at run runs running",
        "along run runs running",
        "along race races racing",
        "along sprint sprints sprinting",
    ),
    "jump": (
        "at jump jumps jumping",
        "at leap leaps leaping",
        "at jump jumps jumping in the air",
        "at jump jumps jumping high",
    ),
    "sit": ("at sit sits sitting", "at sit sits sitting down", "at rest rests resting"),
    "stand": ("at stand stands standing", "at stand stands standing still", "at wait waits waiting"),
    "swim": ("at swim swims swimming", "along swim swims swimming", "at paddle paddles paddling"),
    "play": (
        "at play plays playing with a {ball} ball",
        "along chase chases chasing a {ball} ball",
        "at play plays playing with a ball",
        "at run runs running after a {ball} ball",
    ),
    "kick": (
        "at kick kicks kicking a {ball} ball",
        "at play plays playing with a {ball} ball",
        "along kick kicks kicking a ball",
        "at play plays playing ball",
    ),
    "dive": ("into jump jumps jumping", "into leap leaps leaping"),
    "cycle": (
        "along ride rides riding a bicycle",
        "along ride rides riding a bike",
        "at ride rides riding {his} bike",
        "along cycle cycles cycling",
    ),
    "ride": (
        "at ride rides riding a {mount} horse",
        "along ride rides riding a {mount} horse",
        "along ride rides riding a horse",
        "at sit sits sitting on a {mount} horse",
    ),
    "climb": ("up climb climbs climbing", "up climb climbs climbing", "up scramble scrambles scrambling"),
    "sail": ("on sail sails sailing", "on float floats floating", "on move moves moving"),
    "drive": ("along drive drives driving", "at drive drives driving", "along move moves moving"),
    "fly": ("over fly flies flying", "over fly flies flying", "over soar soars soaring"),
}
PLACES = {
    "grass": {
        "at": ("on the grass", "in the grass", "in a grassy field", "in a green field", "in a meadow"),
        "along": ("through the grass", "across a green field", "across the grass-covered field"),
        "with": ("with trees in the background", "near yellow flowers"),
    },
    "beach": {
        "at": ("on the beach", "on a sandy beach", "on the sand", "at the beach"),
        "along": ("along the beach", "across the sand", "along the shore"),
        "over": ("over the beach", "above the sand", "over the sandy shore"),
        "with": ("by the sea", "near the water", "by the ocean"),
    },
    "snow": {
        "at": ("in the snow", "in the snow", "in a snowy field", "in deep snow"),
        "along": ("through the snow", "across the snow", "across a snow-covered field"),
        "with": ("with snow-covered trees in the background", "while it's snowing", "on a winter day"),
    },
    "street": {
        "at": ("on the street", "on the road", "in the street"),
        "along": ("down the street", "along the road", "down the road"),
        "with": ("in front of houses", "in front of some houses", "near some colorful houses"),
    },
    "forest": {
        "at": ("in the forest", "in the woods", "on a dirt path", "on a path in the forest"),
        "along": ("through the forest", "through the woods", "along a dirt path"),
        "with": ("surrounded by tall trees", "among the trees"),
    },
    "rocks": {
        "at": ("on the rocks", "on a rocky hill", "on rocky ground"),
        "with": ("with a mountain in the background", "in front of a snow-capped mountain", "near the mountains"),
    },
    "cliff": {
        "up": ("up a cliff", "up a steep cliff", "up a rock wall", "up the side of a rock"),
        "with": ("high above the ground", "with mountains in the background"),
    },
    "sea": {
        "at": ("in the water", "in the sea", "in the ocean"),
        "along": ("through the water", "through the waves"),
        "on": ("on the water", "on the sea", "across the blue water", "on the ocean"),
        "into": ("into the water", "into the sea", "into the ocean"),
        "over": ("over the water", "over the sea", "above the waves", "over the ocean"),
        "with": ("with green hills in the background", "with an island in the background"),
    },
    "pool": {
        "at": ("in a pool", "in a swimming pool", "in the pool"),
        "along": ("through the water", "across the pool"),
        "into": ("into a pool", "into a swimming pool", "into the water"),
        "with": ("on a summer day", "with a fence in the background"),
    },
}
WEATHERS = {
    "sunny": ("on a sunny day", "in the sunshine", "while the sun is shining"),
    "cloudy": ("under a cloudy sky", "on a cloudy day", "under white clouds"),
}
SIGN_PHRASES = ("near a STOP sign", 'by a sign that says " STOP "', "with a stop sign in the background")
NUMBER_PHRASES = ("with the number {number} on {his} shirt", 'with a " {number} " on {his} shirt')
TEMPLATES = (
    "{subject} {is_} {doing} {where} .",
    "{subject} {is_} {doing} {where} .",
    "{subject} {does} {where} .",
    "{subject} {does} {where} .",
    "{subject} {doing} {where} .",
    "{bare} {doing} {where}",
    "there {is_} {subject} {doing} {where} .",
    "{where} , {subject} {is_} {doing} .",
    "{subject} {is_} {doing} {where} {detail} .",
    "{subject} {does} {where} {detail} .",
    "{subject} {doing} {where} {detail} .",
    "{subject} {is_} {doing} {detail} .",
    "{the} {does} {where}",
)

# Composing -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Figure:
    """One person, animal or thing; `coat` is its colour as drawn, a slight variation of the colour's name."""

    kind: str
    colour: str
    coat: Colour
    skin: Colour
    hair: Colour


@dataclass(frozen=True)
class Scene:
    """All that the drawing shows and that the captions may tell."""

    figures: tuple[Figure, ...]
    action: str
    place: str
    weather: str
    ball: str
    mount: Figure
    number: str
    sign: bool


def varied(rng: random.Random, colour: Colour, by: int = 10) -> Colour:
    """Return the colour brighter or darker by at most `by`, and very slightly tinted."""
    shift = rng.randint(-by, by)
    return tuple(min(255, max(0, channel + shift + rng.randint(-3, 3))) for channel in colour)


def shaded(colour: Colour, factor: float = 0.8) -> Colour:
    """Return the colour darker, or with a factor above 1 lighter."""
    return tuple(min(255, round(channel * factor)) for channel in colour)


def compose_figure(rng: random.Random, kind: str) -> Figure:
    """Choose the looks of one figure."""
    colour = rng.choice(KINDS[kind].colours)
    return Figure(kind, colour, varied(rng, COLOURS[colour]), *rng.choice(LOOKS))


def compose_scenes(rng: random.Random) -> list[Scene]:
    """Compose all scenes of CASTS in random order, the actions and places of each cast equally often."""
    scenes = []
    for count, who, actions in CASTS:
        kinds = who.split()
        settings = [(what, where) for what, *places in map(str.split, actions.split(",")) for where in places]
        rng.shuffle(settings)
        for turn in range(count):
            action, place = settings[turn % len(settings)]
            # only where no arm is in front of the number
            numbered = who == "boy" and action in ("jump", "dive", "kick") and rng.random() < 0.7
            scenes.append(
                Scene(
                    figures=tuple(compose_figure(rng, kind) for kind in kinds),
                    action=action,
                    place=place,
                    weather="" if place in ("forest", "snow") else rng.choice(tuple(WEATHERS)),
                    ball=rng.choice(("red", "yellow")),
                    mount=compose_figure(rng, "horse"),
                    number=rng.choice("47") if numbered else "",
                    sign=place == "street" and rng.random() < 0.4,
                )
            )
    rng.shuffle(scenes)
    return scenes


# Describing ----------------------------------------------------------------------------------------------------------


def with_article(words: str) -> str:
    """Put "a" or "an" before the words."""
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def name_one(rng: random.Random, figure: Figure) -> str:
    """Name a figure without an article, mostly with its colour."""
    kind = KINDS[figure.kind]
    if figure.colour == "black-and-white" and rng.random() < 0.15:
        return "Dalmatian"
    phrase = rng.choice(kind.described) if rng.random() < 0.75 else "{noun}"
    return phrase.format(noun=rng.choice(kind.nouns), colour=figure.colour)


def name_two(rng: random.Random, figures: Sequence[Figure]) -> str:
    """Name two figures, together ("2 brown dogs") or one by one ("a boy and a girl")."""
    first, second = figures
    if rng.random() < 0.4 and (first.kind, first.colour) != (second.kind, second.colour):
        names = [KINDS[figure.kind].described[0].format(noun=figure.kind, colour=figure.colour) for figure in figures]
        if first.kind != second.kind and rng.random() < 0.5:
            names = [figure.kind for figure in figures]
        return " and ".join(map(with_article, names))
    noun = first.kind
    if noun in CHILDREN and (first.kind != second.kind or rng.random() < 0.4):
        noun = rng.choice(("child", "child", "kid"))
    colour = f"{first.colour} " if noun == "dog" and first.colour == second.colour else ""
    return f"{rng.choice(('two', 'two', 'two', '2'))} {colour}{PLURALS.get(noun, noun + 's')}"


def describe(rng: random.Random, scene: Scene, template: str) -> str:
    """Fill in one template; every gap is drawn anew, as another annotator would choose other words."""
    two = len(scene.figures) == 2
    bare = name_two(rng, scene.figures) if two else name_one(rng, scene.figures[0])
    relation, plural, singular, doing, *rest = rng.choice(VERBS[scene.action]).split(" ", 4)
    if relation == "along" and (relation not in PLACES[scene.place] or template.startswith("{where}")):
        relation = "at"
    his = "their" if two else KINDS[scene.figures[0].kind].his
    details = [*PLACES[scene.place]["with"], *WEATHERS.get(scene.weather, ())]
    details += NUMBER_PHRASES * 2 if scene.number else ()
    details += SIGN_PHRASES * 2 if scene.sign else ()
    after = "".join(f" {words}" for words in rest)
    text = template.format(
        subject=bare if two else with_article(bare),
        bare=bare,
        the=bare if bare.startswith("a ") else f"the {bare}",
        is_="are" if two else "is",
        does=(plural if two else singular) + after,
        doing=doing + after,
        where=rng.choice(PLACES[scene.place][relation]),
        detail=rng.choice(details),
    ).format(ball=scene.ball, mount=scene.mount.colour, his=his, number=scene.number)
    return text[0].upper() + text[1:]


def write_captions(rng: random.Random, scene: Scene, count: int = 5) -> list[str]:
    """Write differing captions of one scene."""
    starts_oddly = scene.action in ("dive", "climb")  # "into a pool , a boy is jumping"
    templates = [text for text in TEMPLATES if not (starts_oddly and text.startswith("{where}"))]
    captions: list[str] = []
    for template in rng.sample(templates, len(templates)):
        caption = describe(rng, scene, template)
        if caption not in captions:
            captions.append(caption)
    return captions[:count]


# Drawing: shapes -----------------------------------------------------------------------------------------------------


class Pen:
    """Draws in its own coordinates, x to the right and y up, wherever they lie in the picture."""

    def __init__(self, image: Image.Image, x: float, y: float, size: float, mirror: bool = False, turn: float = 0):
        self.image, self.draw = image, ImageDraw.Draw(image)
        self.x, self.y, self.size, self.mirror, self.turn = x, y, size, mirror, turn

    def at(self, x: float, y: float, turn: float = 0, size: float = 1) -> "Pen":
        """Return a pen with its origin at (x, y), turned counter-clockwise by degrees."""
        return Pen(self.image, *self.pixel((x, y)), self.size * size, self.mirror, self.turn + turn)

    def pixel(self, point: Point) -> Point:
        """Return where a point lies in the picture."""
        angle = math.radians(self.turn)
        right = point[0] * math.cos(angle) - point[1] * math.sin(angle)
        up = point[0] * math.sin(angle) + point[1] * math.cos(angle)
        return self.x + self.size * (-right if self.mirror else right), self.y - self.size * up

    def polygon(self, points: Sequence[Point], colour: Colour) -> None:
        """Fill a polygon."""
        self.draw.polygon([self.pixel(point) for point in points], colour)

    def oval(self, x: float, y: float, wide: float, high: float, colour: Colour, turn: float = 0) -> None:
        """Fill an ellipse with the radii `wide` and `high`."""
        angles = [math.tau * step / 40 for step in range(40)]
        self.at(x, y, turn).polygon([(wide * math.cos(angle), high * math.sin(angle)) for angle in angles], colour)

    def limb(self, points: Sequence[Point], width: float, colour: Colour) -> None:
        """Draw a thick line through the points, with round joints and ends."""
        self.draw.line([self.pixel(point) for point in points], colour, round(width * self.size))
        for x, y in points:
            self.oval(x, y, width / 2, width / 2, colour)

    def ring(self, x: float, y: float, radius: float, width: float, colour: Colour) -> None:
        """Draw a circle's line."""
        angles = [math.tau * step / 40 for step in range(41)]
        self.limb([(x + radius * math.cos(a), y + radius * math.sin(a)) for a in angles], width, colour)


GLYPHS = {  # strokes in a box of 1 by 1
    "4": ((0.8, 0), (0.8, 1), (0.1, 0.3), (1, 0.3)),
    "7": ((0, 1), (0.9, 1), (0.3, 0)),
    "S": ((0.9, 0.9), (0.4, 1), (0.1, 0.75), (0.8, 0.35), (0.5, 0), (0, 0.1)),
    "T": ((0, 1), (1, 1), (0.5, 1), (0.5, 0)),
    "O": ((0.5, 0), (0.1, 0.3), (0.1, 0.7), (0.5, 1), (0.9, 0.7), (0.9, 0.3), (0.5, 0)),
    "P": ((0.15, 0), (0.15, 1), (0.7, 1), (0.9, 0.75), (0.7, 0.5), (0.15, 0.5)),
}


def write(pen: Pen, text: str, height: float, colour: Colour) -> None:
    """Write text centred on the pen's origin, in strokes, so that no font is needed."""
    wide, step = 0.6 * height, 0.85 * height
    for place, glyph in enumerate(text):
        left = step * (place - (len(text) - 1) / 2) - wide / 2
        pen.limb([(left + x * wide, (y - 0.5) * height) for x, y in GLYPHS[glyph]], 0.17 * height, colour)


# Drawing: people -----------------------------------------------------------------------------------------------------


# A limb is two angles, of its upper and its lower half: 0 hangs down, 90 points forward. Near limb first, then far.
@dataclass(frozen=True)
class Pose:
    """How far a body leans forward and how its limbs are held."""

    lean: float
    arms: tuple[Point, Point]
    legs: tuple[Point, Point]


PERSON_POSES = {
    "stand": Pose(0, ((-12, 8), (22, 8)), ((-7, -3), (9, 3))),
    "run": Pose(14, ((-55, 30), (60, 130)), ((62, -15), (-28, -85))),
    "jump": Pose(4, ((118, 152), (-122, -150)), ((58, -40), (-30, -80))),
    "dive": Pose(4, ((118, 152), (-122, -150)), ((75, -30), (40, -60))),
    "sit": Pose(-10, ((18, 55), (-25, -5)), ((112, 22), (102, 45))),
    "swim": Pose(66, ((-155, 150), (98, 84)), ((-70, -60), (-60, -70))),
    "kick": Pose(-8, ((-60, -30), (70, 100)), ((58, 42), (-12, -22))),
    "cycle": Pose(30, ((58, 74), (54, 70)), ((48, -18), (78, 8))),
    "ride": Pose(4, ((38, 78), (34, 70)), ((42, -12), (42, -12))),
    "climb": Pose(6, ((114, 152), (100, 140)), ((85, -12), (12, -14))),
}


def reach(start: Point, angle: float, length: float) -> Point:
    """Return the point at `length` from `start` in the direction `angle`, as a Pose has it."""
    return start[0] + length * math.sin(math.radians(angle)), start[1] - length * math.cos(math.radians(angle))


def bend(start: Point, angles: Point, length: float) -> list[Point]:
    """Return the three joints of a limb whose halves are `length` long."""
    middle = reach(start, angles[0], length)
    return [start, middle, reach(middle, angles[1], length)]


def draw_person(pen: Pen, figure: Figure, pose: Pose, number: str = "", hip: Point | None = None) -> None:
    """Draw a person with the feet (or what is lowest) on the ground, or with the hips at `hip`."""
    child, dressed = figure.kind in CHILDREN, figure.kind == "girl"
    torso, leg, arm = (25, 17, 12.5) if child else (33, 24, 16)
    if hip is None:
        drop = max(leg * sum(math.cos(math.radians(angle)) for angle in angles) for angles in pose.legs)
        hip = 0, max(drop + 3, 8)
    neck = reach(hip, 180 - pose.lean, torso)
    shoulder = reach(hip, 180 - pose.lean, torso - 4)
    trousers = figure.skin if dressed else (64, 74, 112) if child else (74, 66, 60)
    coat = figure.coat

    def draw_arm(angles: Point, sleeve: Colour, skin: Colour) -> None:
        joints = bend(shoulder, angles, arm)
        pen.limb(joints, 6, skin)
        pen.limb([joints[0], reach(shoulder, angles[0], 0.8 * arm)], 8, sleeve)
        pen.oval(*joints[2], 4, 4, skin)

    def draw_leg(angles: Point, colour: Colour) -> None:
        joints = bend(hip, angles, leg)
        pen.limb(joints, 7 if dressed else 9, colour)
        pen.at(*joints[2], turn=min(40, max(-70, angles[1]))).oval(3, -1, 7, 4, INK)

    draw_arm(pose.arms[1], shaded(coat), shaded(figure.skin, 0.88))
    draw_leg(pose.legs[1], shaded(trousers, 0.82))
    draw_leg(pose.legs[0], trousers)
    pen.limb([hip, shoulder], 15 if child else 18, coat)
    if dressed:
        hems = [reach(hip, angles[0] + side, 0.85 * leg) for angles in pose.legs for side in (-16, 16)]
        for hem in hems:
            pen.polygon([reach(hip, 180 - pose.lean - 90, 8), reach(hip, 180 - pose.lean + 90, 8), hem], coat)
        pen.polygon([hip, *sorted(hems)], coat)
        pen.limb([hip, neck], 10, coat)
    chest = Pen(pen.image, *pen.pixel(reach(hip, 180 - pose.lean, 0.42 * torso)), pen.size)  # never mirrored
    write(chest, number, 12, INK if figure.colour == "yellow" else COLOURS["white"])
    draw_head(pen.at(*reach(neck, 180 - pose.lean / 2, 11), turn=-pose.lean / 3), figure)
    draw_arm(pose.arms[0], shaded(coat, 0.92), figure.skin)


def draw_head(pen: Pen, figure: Figure) -> None:
    """Draw a head looking to the right."""
    if figure.kind == "woman":
        pen.limb([(-5, 3), (-9, -8), (-8, -18)], 11, figure.hair)
    if figure.kind == "girl":
        pen.oval(-15, -2, 5, 9, figure.hair, turn=-25)
        pen.oval(-10, 3, 3, 3, figure.coat)
    pen.limb([(0, -6), (-1, -12)], 7, shaded(figure.skin, 0.92))
    pen.oval(-2, 3, 10.5, 10, figure.hair)
    pen.oval(1.5, -1.5, 9.5, 10, figure.skin)
    pen.oval(11, -2, 2.2, 2, figure.skin)
    if figure.kind == "man":
        pen.oval(3.5, -8, 7, 4.5, figure.hair)
    pen.oval(-4, -1, 2.4, 3, shaded(figure.skin, 0.9))
    pen.oval(6, 1.5, 1.5, 2, INK)
    pen.limb([(4, -6.2), (6, -6.7), (8, -6)], 1.2, shaded(figure.skin, 0.6))


# Drawing: animals ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Build:
    """The measures of a four-legged animal; `back` is half its length, `depth` half its thickness."""

    back: float
    depth: float
    leg: float
    thick: float
    neck: float
    rise: float
    head: float
    snout: float


BUILDS = {
    "dog": Build(back=23, depth=11, leg=24, thick=7.5, neck=15, rise=50, head=11, snout=12),
    "cat": Build(back=18, depth=10, leg=17, thick=6.5, neck=10, rise=45, head=12, snout=4),
    "horse": Build(back=32, depth=15, leg=44, thick=8.5, neck=36, rise=58, head=9, snout=24),
}
# Lean is the body's turn upward; arms are the front legs.
ANIMAL_POSES = {
    "stand": Pose(0, ((0, 0), (10, 6)), ((-4, 4), (6, -8))),
    "walk": Pose(0, ((20, -8), (-12, -30)), ((14, -2), (-14, -28))),
    "run": Pose(4, ((66, 52), (40, 84)), ((-60, -40), (-34, -72))),
    "play": Pose(-10, ((62, 70), (40, 55)), ((-4, 4), (10, -10))),
    "jump": Pose(26, ((78, 12), (62, 0)), ((-38, -58), (-22, -46))),
    "sit": Pose(42, ((0, 0), (6, 6)), ((60, 80), (60, 80))),
    "swim": Pose(14, ((60, 60), (40, 40)), ((-40, -40), (-40, -40))),
}


def draw_animal(pen: Pen, figure: Figure, action: str) -> None:
    """Draw a dog, cat or horse looking to the right."""
    build, pose = BUILDS[figure.kind], ANIMAL_POSES[action]
    coat, far = figure.coat, shaded(figure.coat, 0.82)
    patch = COLOURS["black"] if figure.colour == "black-and-white" else coat
    turn = math.radians(pose.lean)
    centre = build.leg + 0.5 * build.depth
    if action == "sit":
        centre = build.back * math.sin(turn) + 0.8 * build.depth
    elif action == "swim":
        centre = 0
    body = pen.at(0, centre, pose.lean)
    ahead = build.back * math.cos(turn), build.back * math.sin(turn)
    shoulder, rump = (0.85 * ahead[0], centre + 0.85 * ahead[1] - 3), (-0.85 * ahead[0], centre - 0.85 * ahead[1] - 3)
    neck = 0.9 * ahead[0], centre + 0.9 * ahead[1] + 0.2 * build.depth
    head = reach(neck, 90 + build.rise + 0.4 * pose.lean, build.neck)

    def draw_leg(start: Point, angles: Point, colour: Colour) -> None:
        joints = bend(start, angles, shoulder[1] / 2 - 2 if action == "sit" else build.leg / 2)
        pen.limb(joints, build.thick, colour)
        pen.oval(
            joints[2][0] + 2,
            joints[2][1],
            0.7 * build.thick,
            0.5 * build.thick,
            INK if figure.kind == "horse" else colour,
        )

    draw_tail(body.at(-build.back, 0.4 * build.depth, turn=-0.6 * pose.lean), figure, patch)
    draw_leg(shoulder, pose.arms[1], far)
    if action == "sit":
        pen.oval(rump[0] + 9, 3.5, 13, 4, far)
    else:
        draw_leg(rump, pose.legs[1], far)
    body.limb([(-build.back * 0.7, 0), (build.back * 0.7, 1)], 2 * build.depth, coat)
    body.oval(0.7 * build.back, 0, 1.15 * build.depth, 1.15 * build.depth, coat)
    if action == "sit":
        pen.oval(rump[0] + 4, 0.95 * build.depth + 3, 1.2 * build.depth, 1.25 * build.depth, coat)
        pen.oval(rump[0] + 15, 3.5, 9, 4, coat)
    else:
        draw_leg(rump, pose.legs[0], coat)
    draw_leg(shoulder, pose.arms[0], coat)
    pen.limb([neck, head], 1.3 * build.depth, coat)
    if patch != coat:
        for x, y, size in ((-0.7, 0.3, 6), (-0.1, 0.5, 7), (0.35, -0.4, 4.5), (-0.4, -0.5, 4)):
            body.oval(x * build.back, y * build.depth, size, 0.8 * size, patch)
    draw_muzzle(pen.at(*head, turn=0.3 * pose.lean), figure, build, patch)


def draw_tail(pen: Pen, figure: Figure, colour: Colour) -> None:
    """Draw a tail from the pen's origin to the left."""
    if figure.kind == "horse":
        pen.limb([(2, 4), (-8, 0), (-13, -16), (-12, -26)], 7, shaded(colour, 0.55))
    elif figure.kind == "cat":
        pen.limb([(2, -2), (-8, 2), (-13, 12), (-11, 24), (-6, 31)], 5, colour)
    else:
        pen.limb([(2, 0), (-8, 9), (-11, 18)], 5, colour)


def draw_muzzle(pen: Pen, figure: Figure, build: Build, patch: Colour) -> None:
    """Draw an animal's head."""
    coat, snout = figure.coat, build.snout
    dark = shaded(patch, 0.68)
    if figure.kind == "horse":
        pen.limb([(-26, -38), (-14, -14), (-7, 4), (2, 12)], 9, shaded(coat, 0.55))
        pen.polygon([(-6, 5), (-3, 20), (4, 7)], coat)
        pen.limb([(0, 2), (15, -12)], 14, coat)
        pen.oval(17, -13, 7, 6, shaded(coat, 0.85))
        pen.oval(20, -12, 1.3, 1.6, INK)
        pen.oval(4, 4, 1.9, 2.3, INK)
        return
    pen.oval(0, 0, build.head, build.head, coat)
    if figure.kind == "cat":
        for left in (-10, 2):
            pen.polygon([(left, 5), (left + 2, 20), (left + 9, 9)], coat)
            pen.polygon([(left + 2, 8), (left + 3, 15), (left + 6, 10)], (240, 170, 170))
        for x in (-3, 6):
            pen.oval(x, 2, 2.6, 3, (214, 226, 96))
            pen.oval(x + 0.5, 2, 1.1, 2.8, INK)
        pen.oval(2, -4.5, 5.5, 4, shaded(coat, 1.25))
        pen.oval(2, -3, 1.8, 1.3, (220, 110, 120))
        return
    pen.limb([(2, -2), (snout, -4)], 10.5, coat)
    pen.limb([(snout - 3, -8), (snout, -13)], 4.5, (232, 104, 118))
    pen.limb([(4, -6), (snout, -7)], 4, shaded(coat, 0.9))
    pen.oval(snout + 4, -1, 3.2, 2.8, INK)
    pen.oval(5, 3.5, 2.4, 2.6, COLOURS["white"])
    pen.oval(5.5, 3.5, 1.7, 2, INK)
    pen.oval(-6, -2, 5, 10.5, dark, turn=-12)


def draw_bird(pen: Pen, figure: Figure, action: str) -> None:
    """Draw a bird in flight, or on its feet with its wings folded."""
    coat, wing = figure.coat, shaded(figure.coat, 0.8)
    if action == "fly":
        pen.polygon([(6, 4), (-8, 5), (-26, 44), (-6, 34)], wing)
    else:
        for x in (-3, 4):
            pen.limb([(x, -8), (x, -24), (x + 5, -24)], 2.2, COLOURS["orange"])
    pen.polygon([(-16, 5), (-44, 6), (-40, -6), (-14, -5)], wing)
    pen.oval(0, 0, 23, 11, coat, turn=6)
    pen.oval(21, 9, 9.5, 9, coat)
    pen.polygon([(28, 12), (43, 7), (29, 4)], COLOURS["orange"])
    pen.oval(24, 11, 1.8, 2, INK)
    if action == "fly":
        pen.polygon([(12, 4), (-8, 3), (-4, 38), (14, 56), (10, 30)], shaded(coat, 0.92))
    else:
        pen.oval(-8, 2, 18, 7, wing, turn=8)


# Drawing: things -----------------------------------------------------------------------------------------------------


def draw_boat(pen: Pen, figure: Figure) -> None:
    """Draw a sailing boat, its waterline at the pen's origin."""
    pen.limb([(0, 10), (0, 100)], 3, (112, 68, 36))
    pen.polygon([(4, 22), (4, 98), (46, 22)], figure.coat)
    pen.polygon([(-4, 22), (-4, 86), (-36, 22)], shaded(figure.coat, 0.9))
    pen.polygon([(-50, 16), (54, 16), (38, -6), (-36, -6)], COLOURS["brown"])
    pen.polygon([(-50, 16), (54, 16), (51, 11), (-46, 11)], COLOURS["white"])


def draw_car(pen: Pen, figure: Figure) -> None:
    """Draw a car from its side."""
    pen.polygon([(-34, 28), (-22, 50), (16, 50), (32, 28)], figure.coat)
    pen.limb([(-48, 20), (48, 20)], 22, figure.coat)
    for window in ([(-27, 30), (-19, 45), (-5, 45), (-5, 30)], [(0, 30), (0, 45), (13, 45), (24, 30)]):
        pen.polygon(window, (190, 224, 240))
    pen.limb([(-56, 14), (56, 14)], 3, shaded(figure.coat, 0.75))
    pen.oval(56, 23, 3, 4, (255, 240, 170))
    for x in (-30, 30):
        pen.oval(x, 9, 12.5, 12.5, INK)
        pen.oval(x, 9, 6, 6, (200, 204, 210))


def draw_bicycle(pen: Pen) -> None:
    """Draw a bicycle; its saddle is at (-10, 46)."""
    for x in (-27, 29):
        pen.ring(x, 19, 18, 3.6, INK)
        pen.oval(x, 19, 3, 3, INK)
    frame = (36, 140, 120)
    pen.limb([(-27, 19), (-11, 40), (20, 40), (2, 17), (-27, 19)], 3.2, frame)
    pen.limb([(2, 17), (-12, 44)], 3.2, frame)
    pen.limb([(29, 19), (18, 50), (24, 52)], 3.2, frame)
    pen.limb([(-16, 45), (-6, 45)], 4.5, INK)


def draw_ball(pen: Pen, x: float, colour: str) -> None:
    """Draw a ball with a white stripe lying on the ground."""
    pen.oval(x, 10, 10, 10, COLOURS[colour])
    pen.oval(x, 10, 10, 3, COLOURS["white"], turn=30)


def draw_figure(pen: Pen, scene: Scene, figure: Figure) -> None:
    """Draw one figure of a scene, with what it rides."""
    action = scene.action
    if figure.kind in BUILDS:
        draw_animal(pen, figure, action)
    elif figure.kind == "bird":
        draw_bird(pen.at(0, 26), figure, action)
    elif figure.kind == "boat":
        draw_boat(pen, figure)
    elif figure.kind == "car":
        draw_car(pen, figure)
    elif action == "cycle":
        draw_bicycle(pen)
        draw_person(pen, figure, PERSON_POSES[action], hip=(-10, 49))
    elif action == "ride":
        draw_animal(pen, scene.mount, "walk")
        draw_person(pen, figure, PERSON_POSES[action], hip=(-4, 68))
    else:
        hip = (0, -3) if action == "swim" else None
        draw_person(pen, figure, PERSON_POSES[action], scene.number, hip)


def draw_figures(scene: Scene) -> Image.Image:
    """Draw the figures of a scene, large, outlined and cropped, on a transparent ground."""
    image = Image.new("RGBA", (280 * UNIT, 190 * UNIT))
    ground = 150 * UNIT  # leaves room below for what hides under water
    animal = scene.figures[0].kind in BUILDS
    two, apart = len(scene.figures) == 2, 56 if animal else 34
    for number, figure in enumerate(scene.figures):
        middle = 140 + (apart * (2 * number - 1) if two else 0)
        facing = number == 1 and scene.action in ("play", "kick", "stand", "sit")
        draw_figure(Pen(image, middle * UNIT, ground, UNIT, mirror=facing), scene, figure)
    if scene.action in ("play", "kick"):
        draw_ball(Pen(image, 140 * UNIT, ground, UNIT), 0 if two else 48 if animal else 36, scene.ball)
    if scene.action in ("swim", "sail"):
        image = image.crop((0, 0, image.width, ground))
    spread = image.getchannel("A").filter(ImageFilter.GaussianBlur(0.8 * UNIT))
    outline = Image.new("RGBA", image.size, INK)
    outline.putalpha(spread.point(lambda alpha: 255 if alpha > 40 else 0))
    outline.alpha_composite(image)
    return outline.crop(outline.getbbox())


# Drawing: places -----------------------------------------------------------------------------------------------------


def fade(pen: Pen, bottom: float, top: float, low: Colour, high: Colour) -> None:
    """Fill the picture's width from one height to another with a run of colours."""
    steps = 24
    for step in range(steps):
        part = step / (steps - 1)
        colour = tuple(round(a + (b - a) * part) for a, b in zip(low, high, strict=True))
        height = (top - bottom) / steps
        pen.polygon([(x, bottom + height * (step + up)) for x, up in ((0, 0), (300, 0), (300, 1.2), (0, 1.2))], colour)


def draw_sky(pen: Pen, rng: random.Random, scene: Scene, width: float, top: float) -> None:
    """Draw the sky with a sun or clouds."""
    low, high = ((226, 234, 240), (186, 204, 220)) if scene.place == "snow" else ((206, 234, 250), (104, 178, 236))
    fade(pen, 0, top, low, varied(rng, high))
    if scene.weather == "sunny":
        x, y = rng.uniform(0.08, 0.34) * width, rng.uniform(0.78, 0.86) * top
        for ray in range(12):
            pen.limb([(x, y), reach((x, y), 30 * ray, 20)], 1.6, (255, 226, 110))
        pen.oval(x, y, 13, 13, (255, 214, 64))
    for third in range(3 if scene.weather == "cloudy" else 0):
        cloud = pen.at((third + rng.random()) / 3 * width, rng.uniform(0.7, 0.92) * top, size=rng.uniform(0.8, 1.2))
        for x, y, size in ((-15, 0, 8), (-4, 5, 11), (9, 2, 10), (19, -1, 6)):
            cloud.oval(x, y, size * 1.3, size, COLOURS["white"])


def draw_tree(pen: Pen, rng: random.Random, leaves: Colour) -> None:
    """Draw a round tree."""
    pen.limb([(0, 0), (0, 24)], 5, (116, 78, 46))
    for x, y, size in ((-8, 24, 10), (9, 25, 10), (0, 33, 13)):
        pen.oval(x, y, size, size, varied(rng, leaves))


def draw_fir(pen: Pen, snowy: bool) -> None:
    """Draw a fir, with or without snow on it."""
    pen.limb([(0, 0), (0, 8)], 5, (96, 68, 48))
    for y, size in ((6, 17), (18, 14), (30, 10)):
        pen.polygon([(-size, y), (size, y), (0, y + 20)], (44, 104, 84))
        if snowy:
            edge = [(-0.5 * size, y + 10), (-0.2 * size, y + 8), (0.2 * size, y + 11), (0.5 * size, y + 10)]
            pen.polygon([*edge, (0, y + 20)], COLOURS["white"])


def draw_grass(pen: Pen, rng: random.Random, width: float, depth: float, top: float) -> None:
    """Draw a meadow with trees behind it, tufts and yellow flowers."""
    for x in (0.2, 0.75):
        pen.oval(x * width, -6, 0.5 * width, rng.uniform(18, 28), (150, 200, 120))
    for x in range(0, int(width), 24):
        if rng.random() < 0.7:
            draw_tree(pen.at(x + rng.uniform(0, 14), -2, size=rng.uniform(0.6, 1)), rng, (62, 136, 66))
    fade(pen, -depth, 0, varied(rng, (84, 168, 62)), (140, 200, 84))
    for _ in range(70):
        x, y = rng.uniform(0, width), -rng.uniform(0.05, 1) * depth
        for lean in (-2, 0, 2):
            pen.limb([(x, y), (x + lean, y + 5)], 0.9, (66, 144, 54))
    for _ in range(12):
        x, y = rng.uniform(0, width), -rng.uniform(0.2, 1) * depth
        pen.oval(x, y, 2.2, 1.8, COLOURS["yellow"])
        pen.oval(x, y, 0.8, 0.7, COLOURS["orange"])


def draw_waves(pen: Pen, rng: random.Random, width: float, top: float, bottom: float, count: int) -> None:
    """Draw white crests on water."""
    for _ in range(count):
        x, y = rng.uniform(0, width), rng.uniform(bottom, top)
        pen.limb([(x - 9, y), (x - 4, y + 2), (x, y), (x + 4, y + 2), (x + 9, y)], 1.1, (222, 242, 250))


def draw_beach(pen: Pen, rng: random.Random, width: float, depth: float, top: float) -> None:
    """Draw sand with the sea behind it."""
    fade(pen, -depth, 0, varied(rng, (238, 206, 144)), (250, 228, 178))
    fade(pen, -0.34 * depth, 0, (72, 178, 206), (32, 112, 182))
    draw_waves(pen, rng, width, -4, -0.28 * depth, 14)
    for x in range(-10, int(width) + 20, 16):
        pen.oval(x, -0.35 * depth, 12, rng.uniform(2.5, 4.5), COLOURS["white"])
    for _ in range(50):
        pen.oval(rng.uniform(0, width), -rng.uniform(0.45, 1) * depth, 1, 0.7, (214, 178, 116))


def draw_snow(pen: Pen, rng: random.Random, width: float, depth: float, top: float) -> None:
    """Draw a white field with snowy firs, and snow falling."""
    for x in range(0, int(width) + 20, 26):
        draw_fir(pen.at(x + rng.uniform(-8, 8), -4, size=rng.uniform(0.7, 1.25)), snowy=True)
    fade(pen, -depth, 0, (236, 242, 250), (214, 226, 240))
    for _ in range(6):
        pen.oval(rng.uniform(0, width), -rng.uniform(0.3, 1) * depth, 40, 4, (222, 232, 244))
    for _ in range(70):
        pen.oval(rng.uniform(0, width), rng.uniform(-depth, top), 1.5, 1.5, COLOURS["white"])


def draw_street(pen: Pen, rng: random.Random, width: float, depth: float, top: float) -> None:
    """Draw a road in front of a row of houses."""
    walls = [(226, 120, 100), (244, 206, 130), (150, 190, 214), (236, 224, 206), (176, 204, 150)]
    rng.shuffle(walls)
    for number, wall in enumerate(walls):
        house = pen.at(56 * number - 10, 0)
        high = rng.uniform(0.36, 0.48) * top
        house.polygon([(0, -4), (50, -4), (50, high), (0, high)], wall)
        house.polygon([(-4, high), (54, high), (25, high + 20)], (150, 74, 60))
        house.polygon([(20, -4), (31, -4), (31, 17), (20, 17)], (104, 72, 52))
        for x in (6, 36):
            house.polygon([(x, high - 20), (x + 9, high - 20), (x + 9, high - 8), (x, high - 8)], (232, 246, 252))
    fade(pen, -depth, 0, (112, 114, 122), (136, 138, 144))
    fade(pen, -0.2 * depth, -2, (206, 202, 194), (190, 186, 178))
    for x in range(-10, int(width), 44):
        pen.polygon(
            [(x, -0.8 * depth), (x + 24, -0.8 * depth), (x + 28, -0.75 * depth), (x + 4, -0.75 * depth)],
            COLOURS["white"],
        )


def draw_sign(pen: Pen) -> None:
    """Draw a stop sign."""
    pen.limb([(0, 0), (0, 44)], 2.6, (130, 132, 138))
    for radius, colour in ((15, COLOURS["white"]), (13.5, COLOURS["red"])):
        pen.polygon([reach((0, 52), 22.5 + 45 * corner, radius) for corner in range(8)], colour)
    write(pen.at(0, 52), "STOP", 7, COLOURS["white"])


def draw_forest(pen: Pen, rng: random.Random, width: float, depth: float, top: float) -> None:
    """Draw a dirt path among tall trees."""
    fade(pen, 0, top, (134, 178, 112), (52, 108, 66))
    for near, colour in ((0, (92, 82, 62)), (1, (96, 64, 42))):
        for x in range(-8 + 12 * near, int(width) + 20, 26):
            x += rng.uniform(-5, 5)
            pen.limb([(x, -6 * near), (x, top + 9)], 5 + 5 * near, colour)
    for x in range(0, int(width) + 20, 16):
        pen.oval(x, top, 15, rng.uniform(14, 24), varied(rng, (44, 110, 56), 14))
        pen.oval(x, 0, 11, rng.uniform(5, 10), varied(rng, (70, 134, 62), 14))
    fade(pen, -depth, 0, (82, 128, 62), (98, 146, 72))
    middle = 0.5 * width
    pen.polygon([(middle - 16, 0), (middle + 16, 0), (1.05 * width, -depth), (-0.05 * width, -depth)], (186, 146, 100))


def draw_mountains(pen: Pen, width: float, top: float) -> None:
    """Draw mountains capped with snow."""
    for x, high, colour in ((0.2, 0.62, (134, 146, 170)), (0.8, 0.55, (146, 156, 178)), (0.5, 0.8, (116, 128, 154))):
        peak, half = high * top, 0.42 * width
        pen.polygon([(x * width - half, 0), (x * width + half, 0), (x * width, peak)], colour)
        pen.polygon(
            [
                (x * width + part * half, peak * (1 - abs(part) - dip))
                for part, dip in ((-0.3, 0), (-0.12, 0.1), (0, 0), (0.12, 0.12), (0.3, 0), (0, 0))
            ],
            COLOURS["white"],
        )


def draw_boulder(pen: Pen, rng: random.Random, wide: float) -> None:
    """Draw a rock that is darker below."""
    stone = varied(rng, (150, 138, 126))
    corners = ((-1, 0), (-0.8, 0.45), (-0.3, 0.75), (0.35, 0.65), (0.85, 0.35), (1, 0))
    pen.polygon([(wide * x, wide * y) for x, y in corners], shaded(stone, 0.78))
    pen.polygon([(0.8 * wide * x, 0.12 * wide + 0.8 * wide * y) for x, y in corners], stone)


def draw_rocks(pen: Pen, rng: random.Random, width: float, depth: float, top: float) -> None:
    """Draw rocky ground below mountains."""
    draw_mountains(pen, width, top)
    fade(pen, -depth, 0, (136, 122, 108), (164, 150, 134))
    for row in range(4):
        for _ in range(6 - row):
            draw_boulder(pen.at(rng.uniform(0, width), -(0.1 + 0.26 * row) * depth), rng, rng.uniform(9, 14) + 6 * row)


def draw_cliff(pen: Pen, rng: random.Random, width: float, depth: float, top: float) -> None:
    """Draw a steep wall of rock on the right, from two thirds of the width on."""
    draw_mountains(pen, width, top)
    fade(pen, -depth, 0, (104, 146, 88), (132, 172, 110))
    edge, stone = 0.62 * width, varied(rng, (158, 122, 94))
    ledges = [(edge + rng.uniform(-4, 4), y) for y in range(int(-depth), int(top) + 20, 14)]
    pen.polygon([*ledges, (width, top + 20), (width, -depth)], stone)
    for _ in range(16):
        x, y = rng.uniform(edge + 8, width), rng.uniform(-depth, top)
        pen.limb([(x, y), (x + 8, y + 5), (x + 12, y - 6)], 1.4, shaded(stone, 0.72))


def draw_sea(pen: Pen, rng: random.Random, width: float, depth: float, top: float) -> None:
    """Draw water with a green island behind it."""
    pen.oval(rng.uniform(0.2, 0.8) * width, -3, 0.3 * width, 24, (96, 158, 98))
    fade(pen, -depth, 0, varied(rng, (30, 104, 180)), (84, 178, 220))
    draw_waves(pen, rng, width, -8, -depth, 30)


def draw_pool(pen: Pen, rng: random.Random, width: float, depth: float, top: float) -> None:
    """Draw a swimming pool with a tiled edge and a fence."""
    for x in range(0, int(width) + 10, 10):
        pen.limb([(x, 0), (x, 20)], 7, (240, 232, 214))
    fade(pen, -depth, 0, (70, 206, 216), (150, 234, 232))
    fade(pen, -0.16 * depth, 0, (232, 206, 176), (240, 220, 194))
    for x in range(0, int(width), 18):
        pen.limb([(x, -0.16 * depth), (x + 17, -0.16 * depth)], 3, (86, 140, 190))
    for line in (0.42, 0.8):
        for x in range(0, int(width), 12):
            pen.oval(x, -line * depth, 4, 2, COLOURS["red"] if x % 24 else COLOURS["white"])


PAINTERS = {
    "grass": draw_grass,
    "beach": draw_beach,
    "snow": draw_snow,
    "street": draw_street,
    "forest": draw_forest,
    "rocks": draw_rocks,
    "cliff": draw_cliff,
    "sea": draw_sea,
    "pool": draw_pool,
}


def draw_scene(rng: random.Random, scene: Scene) -> Image.Image:
    """Draw the whole picture: the place, then a shadow or foam, then the figures."""
    width, height = rng.choice(SIZES)
    wet = scene.place in ("sea", "pool")
    horizon = height * rng.uniform(0.42, 0.5)
    base = height * (rng.uniform(0.72, 0.84) if wet else rng.uniform(0.86, 0.95))
    lift = height * IN_THE_AIR.get(scene.action, 0)
    figures = draw_figures(scene)
    share = KINDS[scene.figures[0].kind].height * SHARES.get(scene.action, 1) * rng.uniform(0.88, 1.06)
    scale = min(share * height / figures.height, 0.84 * width / figures.width)
    wide, high = round(figures.width * scale), round(figures.height * scale)
    centre = width * (0.5 + rng.uniform(-1, 1) * (0.45 - wide / width / 2))
    if scene.action == "climb":
        centre = 0.63 * width - 0.5 * wide  # at the edge of the cliff

    image = Image.new("RGB", (width * DETAIL, height * DETAIL))
    pen = Pen(image, 0, horizon * DETAIL, DETAIL)  # in pixels of the final picture, from the horizon's left end
    draw_sky(pen, rng, scene, width, horizon)
    PAINTERS[scene.place](pen, rng, width, height - horizon, horizon)
    if scene.sign:
        draw_sign(pen.at((0.1 if centre > width / 2 else 0.9) * width, -0.18 * (height - horizon)))
    below = pen.at(centre, horizon - base)
    if wet and scene.action != "fly":
        for size, colour in ((0.62, (206, 238, 248)), (0.52, (112, 196, 226))):
            below.oval(0, 0, size * wide, 0.07 * wide + 4, colour)
    elif scene.action not in ("climb", "fly"):
        bright = image.copy()
        below.oval(0, 1, 0.48 * wide, 0.05 * wide, INK)
        image = Image.blend(bright, image, 0.35)

    image = image.resize((width, height), Image.Resampling.LANCZOS)
    figures = figures.resize((wide, high), Image.Resampling.LANCZOS)
    image.paste(figures, (round(centre - wide / 2), max(3, round(base - lift - high))), figures)
    legible = scene.number or scene.sign
    return image if legible or rng.random() < 0.5 else ImageOps.mirror(image)


# Writing -------------------------------------------------------------------------------------------------------------


def write_sample(folder: Path) -> None:
    """Write pictures, captions and splits into `folder`."""
    rng = random.Random(SEED)
    pictures, texts = folder / "Flickr8k_Dataset", folder / "Flickr8k_text"
    pictures.mkdir(parents=True, exist_ok=True)
    texts.mkdir(parents=True, exist_ok=True)
    names, lines = [], []
    number = 1000
    for scene in compose_scenes(rng):
        number += rng.randint(1, 40)
        name = f"{number}_{rng.getrandbits(40):010x}.jpg"
        draw_scene(rng, scene).save(pictures / name, quality=84, optimize=True)
        names.append(name)
        lines += [f"{name}#{turn}\t{caption}\n" for turn, caption in enumerate(write_captions(rng, scene))]
    write_text(texts / "Flickr8k.token.txt", lines)
    rng.shuffle(names)
    for split, count in SPLITS.items():
        write_text(texts / f"Flickr_8k.{split}Images.txt", [f"{name}\n" for name in names[:count]])
        names = names[count:]


def write_text(path: Path, lines: Sequence[str]) -> None:
    """Write lines with the same line ends on every system."""
    path.write_bytes("".join(lines).encode())


def main() -> None:
    """Read the command line and write the sample."""
    parser = argparse.ArgumentParser(description="Draw a small dataset with captions, laid out as Flickr8k is.")
    parser.add_argument(
        "folder",
        nargs="?",
        type=Path,
        default=Path(__file__).resolve().parent,
        help="where to write it (default: next to this script)",
    )
    write_sample(parser.parse_args().folder)


if __name__ == "__main__":
    main()
