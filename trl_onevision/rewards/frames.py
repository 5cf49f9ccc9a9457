"""Frames: what the numbers of an answer and of a gold mean, and the factors between them."""

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from trl_onevision.image_size import image_size
from trl_onevision.rewards.rows import Unscorable

FloatArray = NDArray[np.float64]
Frame = Literal["pixel", "norm1000", "norm1024", "norm100", "norm1"]
TimeFrame = Literal["second", "norm1000", "norm1"]

_RELATIVE = {"norm1000": 1000.0, "norm1024": 1024.0, "norm100": 100.0, "norm1": 1.0}


def frame_scale(frame: str, gold_frame: str, size: tuple[float, float] | None) -> FloatArray:
    """What turns (x, y) of one frame into (x, y) of another: a factor for each axis.

    >>> frame_scale("norm1000", "pixel", size=(640, 480))
    array([0.64, 0.48])
    >>> frame_scale("pixel", "pixel", size=None)
    array([1., 1.])

    `size` is the width and height of the stored image. It is needed only between an absolute and a relative frame; an
    `Unscorable` says so where it is missing.
    """
    if frame == gold_frame:
        return np.ones(2)
    if {frame, gold_frame} <= _RELATIVE.keys():
        return np.full(2, _RELATIVE[gold_frame] / _RELATIVE[frame])
    if size is None or not 0 < min(size) <= max(size) < np.inf:
        raise Unscorable(f"{frame} to {gold_frame} needs the size of the row's image, or the duration of its video")
    extent = np.array(size, dtype=np.float64)
    return extent / _RELATIVE[frame] if frame in _RELATIVE else _RELATIVE[gold_frame] / extent


def row_size(row: dict[str, Any]) -> tuple[int, int] | None:
    """Width and height of a row's first image, from its column `images` or `image`; `None` where there is none.

    >>> from PIL import Image
    >>> row_size({"images": [Image.new("RGB", (640, 480))]}), row_size({"images": []})
    ((640, 480), None)
    """
    image = row.get("image") if row.get("images") is None else row["images"]
    if isinstance(image, list | tuple):
        image = image[0] if image else None
    return image_size(image)
