"""A picture was turned: say by how much. Beside the upright one, or alone, where "upright" has to be seen."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from trl_onevision.data.synthesize import scene
from trl_onevision.data.synthesize.puzzle import TRIES, NoPuzzle, Pictures, Puzzle, all_differ

ANGLES = ((0, 180), (0, 90, 180, 270), tuple(range(0, 360, 45)), (0, 90, 180, 270))
LEVELS = (
    "two pictures, upside down or not",
    "two pictures, quarter turns",
    "two round pictures, eighth turns",
    "one upright photograph, quarter turns (needs --images)",
)
ALONE = 4
ROUND = 3
SIDE = 224


def chance(level: int) -> float:
    """What a guess earns."""
    return 1 / len(ANGLES[level - 1])


def make(rng: np.random.Generator, pictures: Pictures, level: int) -> Puzzle:
    """A picture turned clockwise by one of the level's angles, each equally likely.

    >>> puzzle = make(np.random.default_rng(0), scene.picture, level=2)
    >>> puzzle.choices, puzzle.solution in "ABCD", len(puzzle.images)
    (['0 degrees', '90 degrees', '180 degrees', '270 degrees'], True, 2)
    """
    if level == ALONE and pictures is scene.picture:
        raise NoPuzzle(f"rotation: level {ALONE} asks which way is up, which drawn scenes do not tell; give --images.")
    angles = ANGLES[level - 1]
    for _ in range(TRIES):
        upright = _middle(pictures(rng))
        turned = [_turn(upright, angle, level) for angle in angles]
        if all_differ(turned):
            break
    else:
        raise NoPuzzle(f"rotation: {TRIES} pictures in a row look alike when turned; give other --images.")
    index = int(rng.integers(len(angles)))
    first = [] if level == ALONE else [_turn(upright, 0, level)]
    question = (
        "This photograph was turned clockwise. By how many degrees?"
        if level == ALONE
        else "The second image is the first, turned clockwise. By how many degrees?"
    )
    choices = [f"{angle} degrees" for angle in angles]
    return Puzzle(
        question, [*first, turned[index]], "ABCDEFGH"[index], "choice", choices, facts={"angle": angles[index]}
    )


def _middle(picture: Image.Image) -> Image.Image:
    side = min(picture.size)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    return picture.crop((left, top, left + side, top + side)).resize((SIDE, SIDE), Image.Resampling.BICUBIC)


def _turn(upright: Image.Image, angle: int, level: int) -> Image.Image:
    turned = upright.rotate(-angle, Image.Resampling.BICUBIC)
    if level == ROUND:  # a square would show its angle by its corners
        mask = Image.new("L", upright.size, 0)
        ImageDraw.Draw(mask).ellipse((0, 0, SIDE - 1, SIDE - 1), fill=255)
        turned = Image.composite(turned, Image.new("RGB", upright.size, "white"), mask)
    return turned
