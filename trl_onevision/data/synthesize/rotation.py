"""A picture was turned: say by how much. Beside the upright one, or alone, where "upright" has to be seen."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from trl_onevision.answers.choice import LETTERS
from trl_onevision.data.synthesize import scene
from trl_onevision.data.synthesize.puzzle import TRIES, NoPuzzle, Pictures, Puzzle, all_differ

LEVELS = {
    "two pictures, upside down or not": 1 / 2,
    "two pictures, quarter turns": 1 / 4,
    "two round pictures, eighth turns": 1 / 8,
    "one upright photograph, quarter turns (needs --images)": 1 / 4,
}
ANGLES = ((0, 180), (0, 90, 180, 270), tuple(range(0, 360, 45)), (0, 90, 180, 270))  # upright first
ALONE = 4
ROUND = 3
SIDE = 224


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
    subject = "This photograph was" if level == ALONE else "The second image is the first,"
    return Puzzle(
        f"{subject} turned clockwise. By how many degrees?",
        [turned[index]] if level == ALONE else [turned[0], turned[index]],
        LETTERS[index],
        "choice",
        [f"{angle} degrees" for angle in angles],
        facts={"angle": angles[index]},
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
