"""Polygons in an answer against masks: IoU of the pixels they cover, through `pycocotools`.

Needs `pip install "trl-onevision[masks]"`; the import is made with the first reward, so that the module loads without.
"""

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np

from trl_onevision.answers.json_text import collect, held, numbers, read_json
from trl_onevision.rewards.frames import FloatArray, frame_scale, row_size
from trl_onevision.rewards.grounding import GroundingReward, gold_items, matched_share
from trl_onevision.rewards.rows import Share, Unscorable

# Rasterising costs the length of the outline, so an answer gets this many corners for all its polygons, each clamped
# to the image; what lies beyond counts as answered and covers nothing.
MAX_CORNERS = 500
MAX_PIXELS = 100_000_000

_MASK_KEYS = ("polygon", "segmentation", "mask", "points")

Polygon = tuple[float, ...]  # x1, y1, x2, y2, ... as in COCO
Mask = list[Polygon]  # the polygons that make one
Code = dict[str, Any]  # a mask in COCO's run-length code, with its size, [height, width]


def read_masks(text: str) -> list[Mask]:
    """Read the polygons of an answer's JSON, in the order written; at most 1000.

    >>> read_masks('[{"polygon": [[0, 0], [9, 0], [9, 9]], "label": "leaf"}]')
    [[(0.0, 0.0, 9.0, 0.0, 9.0, 9.0)]]

    A mask is three or more points as pairs, or six or more numbers in turn (x, y), bare or under `polygon`,
    `segmentation`, `mask` or `points`, where it may also be a list of several polygons that make one mask. Run-length
    codes are read in golds only.
    """
    return collect(read_json(text), _masks_of)


def _masks_of(value: Any, label: str | None = None) -> list[Mask]:
    bare = _polygon(value)
    polygons = held(value, _MASK_KEYS, _polygon) if isinstance(value, dict) else [bare] if bare else []
    return [polygons] if polygons else []


def _polygon(value: Any) -> Polygon | None:
    if not isinstance(value, list):
        return None
    pairs = [numbers(pair, 2) for pair in value]
    flat = numbers(value, len(value)) if None in pairs else tuple(itertools.chain(*filter(None, pairs)))
    return flat if flat and len(flat) >= 6 and len(flat) % 2 == 0 else None


def _gold_masks_of(value: Any, label: str | None) -> list[Mask | Code]:
    holders = [value, *(value.get(key) for key in _MASK_KEYS)] if isinstance(value, dict) else []
    code = next((holder for holder in holders if isinstance(holder, dict) and "counts" in holder), None)
    return [*_masks_of(value)] if code is None else [code]


@dataclass(eq=False, kw_only=True)
class MaskReward(GroundingReward[Mask, Code]):
    """Pay the IoU of the pixels under an answer's polygons with the gold's masks, paired one to one.

    >>> from PIL import Image
    >>> reward = MaskReward()
    >>> gold = '[{"polygon": [[0, 0], [10, 0], [10, 10], [0, 10]]}]'
    >>> half = '[{"polygon": [[0, 0], [10, 0], [10, 5], [0, 5]]}]'
    >>> reward([gold, half], solution=[gold] * 2, images=[[Image.new("RGB", (20, 20))]] * 2)
    [1.0, 0.5]

    The score is `sum of the matched IoU / max(masks answered, masks in the gold)`, in [0, 1]; with a `threshold`, 1
    for each pair whose IoU is at least that. Polygons are drawn as COCO's tools draw them, on the row's first image.

    A gold is a list of `{"polygon": [[x, y], ...]}` or of COCO's `{"segmentation": ...}`, polygons or run-length code,
    plain or compressed. An answer is polygons: a model writes no run-length code, and text never reaches the decoder.
    Corners outside the image are clamped to its edge, a mask with one that is not finite covers nothing; an answer's
    first 500 corners are drawn.

    `frame`, `gold_frame`, `opened` and a gold of `[]` are as in `IoUReward`; a run-length code is in pixels. Scores
    rows whose `task` is `masks`; without a task, those whose gold reads as masks. A gold that cannot be read, covers
    nothing, or is a polygon in a row without an image, gets `None` and one warning with the row's id.
    """

    task_name = "masks"
    read_answer = staticmethod(read_masks)
    threshold: Share | None = None
    name: str = "mask_reward"

    def read_gold(self, gold: Any, row: dict[str, Any]) -> list[Code]:
        masks = gold_items(gold, _gold_masks_of, 'masks like [{"polygon": [[x, y], ...]}]')
        if not masks:
            return []
        sizes = {_rle_size(mask) for mask in masks if isinstance(mask, dict)} | ({row_size(row)} - {None})
        size = next(iter(sizes), None)
        if size is None:
            raise Unscorable("a polygon is drawn on its image, and the row has none")
        if len(sizes) > 1:
            raise Unscorable(f"the gold's run-length codes and the row's image are of several sizes: {sizes}")
        if not all(np.isfinite(polygon).all() for mask in masks if isinstance(mask, list) for polygon in mask):
            raise Unscorable("the gold holds a corner that is not finite")
        scale = frame_scale(self.gold_frame, "pixel", size)
        codes = [_checked(mask) if isinstance(mask, dict) else _encode(mask, scale, size) for mask in masks]
        if not all(_coco().area(code) for code in codes):
            raise Unscorable("the gold holds a mask that covers no pixel")
        return codes

    def row_scale(self, row: dict[str, Any]) -> FloatArray:
        return frame_scale(self.frame, "pixel", row_size(row))

    def score(self, answer: list[Mask], gold: list[Code], scale: FloatArray) -> float:
        height, width = gold[0]["size"]
        overlap = np.zeros((len(answer), len(gold)))
        left = MAX_CORNERS
        for row, mask in zip(overlap, answer, strict=True):
            left -= sum(len(polygon) // 2 for polygon in mask)
            if left < 0:
                break
            if np.isfinite(np.hstack(mask)).all():
                drawn = _encode(mask, scale, (width, height))
                row[:] = _coco().iou([drawn], gold, [False] * len(gold))
        return matched_share(overlap, self.threshold)


def _encode(polygons: Mask, scale: FloatArray, size: tuple[int, int]) -> Code:
    """Draw polygons on an image of a size (width, height) and return COCO's run-length code."""
    width, height = size
    # The rasteriser walks the outline pixel by pixel: a corner at 1e300 would take all memory.
    flat = [np.clip(np.reshape(polygon, (-1, 2)) * scale, 0, size).ravel().tolist() for polygon in polygons]
    coco = _coco()
    code: Code = coco.merge(coco.frPyObjects(flat, height, width))
    return code


def _rle_size(rle: Code) -> tuple[int, int]:
    size = rle.get("size")
    if not isinstance(size, list) or len(size) != 2 or not all(isinstance(side, int) and side > 0 for side in size):
        raise Unscorable(f"a run-length code needs its size, [height, width], and has {str(size)[:80]}")
    if size[0] * size[1] > MAX_PIXELS:
        raise Unscorable(f"a run-length code of {size[0]} x {size[1]} is beyond {MAX_PIXELS} pixels")
    return size[1], size[0]


def _checked(rle: Code) -> Code:
    """A gold's run-length code, compressed. The C library trusts what it is given, so this looks first."""
    (width, height), counts = _rle_size(rle), rle["counts"]
    if isinstance(counts, str):
        if not all("0" <= character <= "o" for character in counts):
            raise Unscorable("the gold's run-length code holds characters that COCO's does not")
        compressed: Code = {"size": [height, width], "counts": counts.encode()}
        try:
            _coco().decode(compressed)
        except ValueError as error:  # runs beyond the size
            raise Unscorable(f"the gold's run-length code does not fill its size: {error}") from None
        return compressed
    runs = [run if isinstance(run, int) and run >= 0 else -1 for run in counts] if isinstance(counts, list) else [-1]
    if -1 in runs or sum(runs) != width * height:
        raise Unscorable("the gold's run-length code does not fill its size")
    encoded: Code = _coco().frPyObjects({"size": [height, width], "counts": runs}, height, width)
    return encoded


def _coco() -> Any:
    try:
        from pycocotools import mask
    except ImportError as error:
        raise ImportError('mask rewards need pycocotools: pip install "trl-onevision[masks]"') from error
    return mask


mask_reward = MaskReward()
