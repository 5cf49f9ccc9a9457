"""What is read and found in an image without asking a language model: text with its places, objects with their boxes.

Both are in pixels of the image, `[x1, y1, x2, y2]`. Any function of the same signature can take their place, by its
dotted path.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any, cast

import numpy as np
from PIL import Image

from trl_onevision import dotted

TextReader = Callable[[Image.Image], list[dict[str, Any]]]
ObjectFinder = Callable[[Image.Image, list[str]], list[dict[str, Any]]]

LONGEST_SIDE = 1280  # pixels that the detector of text works on; it enlarges nothing
_lock = threading.Lock()  # one image at a time: the engines use all cores by themselves


def read_text(image: Image.Image) -> list[dict[str, Any]]:
    """The lines of text in an image, from top to bottom, by rapidocr (PP-OCR, on the CPU, its weights in the wheel).

    Each is `{"text": …, "bbox_2d": [x1, y1, x2, y2], "score": …}`. The detector's boxes have a margin; where a line
    stands on an even ground they are drawn in to its ink.
    """
    pixels = np.asarray(image.convert("RGB"))
    with _lock:
        found = _reader()(pixels[:, :, ::-1])
    if found.boxes is None:
        return []
    lines = []
    for corners, text, score in zip(found.boxes, found.txts, found.scores, strict=True):
        (x1, y1), (x2, y2) = np.min(corners, axis=0), np.max(corners, axis=0)
        box = _drawn_in([float(x1), float(y1), float(x2), float(y2)], pixels)
        lines.append({"text": text, "bbox_2d": box, "score": round(float(score), 3)})
    return sorted(lines, key=lambda line: (line["bbox_2d"][1], line["bbox_2d"][0]))


@cache
def _reader() -> Any:
    try:
        from rapidocr import RapidOCR
    except ImportError as error:
        raise ImportError('reading text needs rapidocr: pip install "trl-onevision[formalize]"') from error
    return RapidOCR(
        params={
            "Global.log_level": "error",
            "Global.use_cls": False,  # turns lines that stand upside down
            "Det.limit_type": "max",
            "Det.limit_side_len": LONGEST_SIDE,
        }
    )


def _drawn_in(box: list[float], pixels: np.ndarray) -> list[float]:
    """The smallest box of what differs from the ground in a box, or the box where it has no one ground."""
    x1, y1 = max(0, int(box[0])), max(0, int(box[1]))
    cut = pixels[y1 : int(np.ceil(box[3])) + 1, x1 : int(np.ceil(box[2])) + 1].astype(int)
    rim = np.concatenate([cut[0], cut[-1], cut[:, 0], cut[:, -1]])
    ground = np.median(rim, axis=0)
    if np.mean(np.abs(rim - ground).max(axis=1) > 48) > 0.1:
        return box
    ink = np.abs(cut - ground).max(axis=2) > 96
    rows, columns = np.flatnonzero(ink.any(axis=1)), np.flatnonzero(ink.any(axis=0))
    if not len(rows):
        return box
    return [float(x1 + columns[0]), float(y1 + rows[0]), float(x1 + columns[-1] + 1), float(y1 + rows[-1] + 1)]


def find_objects(image: Image.Image, labels: list[str], *, model: str, threshold: float = 0.3) -> list[dict[str, Any]]:
    """The boxes of named things, by a checkpoint of transformers' zero-shot detection (Grounding DINO, OWLv2, …).

    Each is `{"bbox_2d": [x1, y1, x2, y2], "label": …}`, kept inside the image.
    """
    # Grounding DINO wants each name to end with a full stop.
    names = {f"{label.rstrip('.').lower()}.": label for label in labels}
    with _lock:
        found = _detector(model)(image.convert("RGB"), candidate_labels=list(names), threshold=threshold)
    boxes = []
    for one in found:
        x1, y1, x2, y2 = (float(one["box"][key]) for key in ("xmin", "ymin", "xmax", "ymax"))
        box = [max(0.0, x1), max(0.0, y1), min(float(image.width), x2), min(float(image.height), y2)]
        if box[0] < box[2] and box[1] < box[3]:
            boxes.append({"bbox_2d": box, "label": names.get(one["label"], one["label"].rstrip("."))})
    return boxes


@cache
def _detector(model: str) -> Any:
    from transformers import pipeline

    return pipeline("zero-shot-object-detection", model=model)


def text_reader(name: str) -> TextReader | None:
    """`rapidocr`, `none`, or the dotted path of a function from an image to lines.

    >>> text_reader("none") is None, text_reader("rapidocr") is read_text
    (True, True)
    >>> text_reader("tesseract")
    Traceback (most recent call last):
    ValueError: --ocr tesseract: expected rapidocr, none, or the dotted path of a function
    """
    if name in ("none", "rapidocr"):
        return None if name == "none" else read_text
    if "." not in name:
        raise ValueError(f"--ocr {name}: expected rapidocr, none, or the dotted path of a function")
    return cast(TextReader, dotted.find("--ocr", name))


def object_finder(name: str) -> ObjectFinder | None:
    """A checkpoint (a folder or `owner/name`), or the dotted path of a function from an image and labels to boxes.

    `None` for `server`, whose boxes the vision model gives, and for `none`.
    """
    if name in ("server", "none"):
        return None
    if "/" in name or Path(name).is_dir():
        return partial(find_objects, model=name)
    if "." not in name:
        raise ValueError(f"--boxes {name}: expected server, none, a checkpoint, or the dotted path of a function")
    return cast(ObjectFinder, dotted.find("--boxes", name))
