"""Readers that know nothing of how a puzzle was made: they look at its pixels, as the one who answers it does."""

from __future__ import annotations

import numpy as np
from PIL import Image
from scipy import ndimage

from trl_onevision.data.synthesize.scene import COLOURS

BLUE = (31, 119, 180)  # matplotlib's first colour
FRAME = {"left": 0.1, "right": 0.96, "top": 0.04, "bottom": 0.9}  # of a chart's axes, as shares of the image


def objects(image: Image.Image) -> list[tuple[str, list[int]]]:
    """The name and box of every object of a scene, by connected pixels of one colour and how they fill their box."""
    pixels, found = np.asarray(image), []
    for colour, rgb in COLOURS.items():
        labels, _ = ndimage.label((pixels == rgb).all(-1))
        for number, (ys, xs) in enumerate(ndimage.find_objects(labels), start=1):
            found.append((f"{colour} {_shape(labels[ys, xs] == number)}", [xs.start, ys.start, xs.stop, ys.stop]))
    return found


def _shape(filled: np.ndarray) -> str:
    rows = filled.sum(1)
    if filled.mean() > 0.95:
        return "square"
    if filled.mean() > 0.68:
        return "circle"
    return "triangle" if rows[-1] > 0.8 * filled.shape[1] else "diamond"


def bars(image: Image.Image, most: int) -> list[float]:
    """The values of a bar chart, by the heights of its bars."""
    is_blue = (np.asarray(image) == BLUE).all(-1)
    labels, _ = ndimage.label(is_blue)
    pieces = sorted(ndimage.find_objects(labels), key=lambda piece: piece[1].start)
    return [_value(ys.start, image.height, most) for ys, _ in pieces]


def line(image: Image.Image, most: int, count: int) -> list[float]:
    """The values of a line chart, by the middles of its marks: the places where it is thick."""
    is_blue = (np.asarray(image).astype(int) - BLUE).__abs__().sum(-1) < 60
    thick = ndimage.binary_opening(is_blue, np.ones((4, 4)))
    labels, _ = ndimage.label(ndimage.binary_dilation(thick, iterations=2))
    middles = sorted(ndimage.center_of_mass(thick, labels, range(1, labels.max() + 1)), key=lambda yx: yx[1])
    assert len(middles) == count
    return [_value(y + 0.5, image.height, most) for y, _ in middles]


def _value(y: float, height: int, most: int) -> float:
    top, bottom = FRAME["top"] * height, FRAME["bottom"] * height
    return float((bottom - y) / (bottom - top) * (most + 1))


def shares(image: Image.Image, count: int) -> list[float]:
    """The shares of a pie, by its pixels of each colour, in matplotlib's order of colours."""
    palette = [(31, 119, 180), (255, 127, 14), (44, 160, 44), (214, 39, 40)][:count]
    areas = np.array([(np.asarray(image) == rgb).all(-1).sum() for rgb in palette])
    return (areas / areas.sum()).tolist()
