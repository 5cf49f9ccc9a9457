"""Photographs to make tasks from: the images of a folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from trl_onevision.data.images import decode_image, image_suffixes
from trl_onevision.data.schema import naming
from trl_onevision.data.sources import image_files
from trl_onevision.data.synthesize.puzzle import NoPuzzle, Pictures

LONGEST = 448  # of a picture's sides: a task cuts and copies, and needs no more


def from_folder(folder: str | Path) -> Pictures:
    """Pictures chosen at random from a folder and the folders in it, each decoded when it is chosen.

    Raises `NoPuzzle` where the folder holds none, `RowError` with the file's name on one that cannot be decoded.
    """
    files = image_files(Path(folder))
    if not files:
        expected = ", ".join(sorted(image_suffixes())[:6])
        raise NoPuzzle(f"--images {folder}: found no image, expected files such as {expected}.")

    def picture(rng: np.random.Generator) -> Image.Image:
        file = files[int(rng.integers(len(files)))]
        with naming(str(file)):
            image = decode_image(file)
        image.thumbnail((LONGEST, LONGEST), Image.Resampling.BICUBIC)
        return image

    return picture
