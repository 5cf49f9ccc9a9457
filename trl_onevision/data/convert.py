"""One raw row to one row of the contract: adapter, images onto the grid, boxes along with them, validation."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any, Literal, get_args

from trl_onevision.answers.places import BOXES, POINTS
from trl_onevision.data.adapters import Adapter
from trl_onevision.data.images import PixelGrid, StoredImage, store_image
from trl_onevision.data.prompts import find_prompt
from trl_onevision.data.rows import Raw, Row, row_id
from trl_onevision.data.schema import (
    PLACE_TASKS,
    Purpose,
    RowError,
    check_boxes,
    is_number,
    naming,
    read_json,
    require,
    shown,
    validate_row,
)
from trl_onevision.data.spans import SpanFrame, in_seconds
from trl_onevision.data.videos import Sampling, StoredVideo, Video, store_video, with_frames

BoxFrame = Literal["pixel", "norm1000", "norm1"]
BoxFormat = Literal["xyxy", "xywh"]

_PLACE_KEYS = (*BOXES.keys, *POINTS.keys, "coordinate2", "polygon", "segmentation", "mask")
_AXIS_OF_KEY = {key: at % 2 for sides in (*BOXES.sides, *POINTS.sides) for at, key in enumerate(sides)}


@dataclass(frozen=True)
class Conversion:
    """How raw rows become rows: for which stage, with which prompt, on which grid, from which frames.

    `prompt=None` takes the adapter's own. `box_frame` and `box_format` say how the *raw* boxes are written; stored
    boxes are always `x1, y1, x2, y2` in pixels of the stored image. `span_frame` says so of the raw spans of videos,
    which are stored in seconds, and `sampling` how many frames of a video a row holds. `originals` keeps the images of
    a row as they came too, where the grid reduces one.
    """

    purpose: Purpose = "grpo"
    prompt: str | None = None
    grid: PixelGrid = field(default_factory=PixelGrid)
    image_root: str | Path | None = None
    box_frame: BoxFrame = "pixel"
    box_format: BoxFormat = "xyxy"
    span_frame: SpanFrame = "second"
    sampling: Sampling = field(default_factory=Sampling)
    originals: bool = False

    def __post_init__(self) -> None:
        known = {"purpose": Purpose, "box_frame": BoxFrame, "box_format": BoxFormat, "span_frame": SpanFrame}
        for name, kind in known.items():
            if getattr(self, name) not in get_args(kind):
                expected = ", ".join(get_args(kind))
                raise ValueError(f"{name}: found {getattr(self, name)!r}, expected one of {expected}")
        if self.prompt is not None:
            find_prompt(self.prompt)

    def prompt_name(self, adapter: Adapter) -> str:
        """The prompt in force, or `ValueError` where the dataset does not serve the purpose.

        >>> from trl_onevision.data.adapters import find
        >>> Conversion(purpose="sft").prompt_name(find("clevr"))
        Traceback (most recent call last):
        ValueError: dataset 'clevr' holds nothing to learn by sft; expected --for grpo
        """
        if self.purpose not in adapter.prompts:
            served = " or ".join(f"--for {purpose}" for purpose in adapter.prompts) or "columns for a solution"
            raise ValueError(f"dataset {adapter.name!r} holds nothing to learn by {self.purpose}; expected {served}")
        return self.prompt or adapter.prompts[self.purpose]


def convert_row(example: Mapping[str, Any], adapter: Adapter, conversion: Conversion | None = None) -> dict[str, Any]:
    """A raw row as a validated row whose images are file bytes on the grid.

    >>> from PIL import Image
    >>> from trl_onevision.data.adapters import find
    >>> raw = {"id": "1", "image": Image.new("RGB", (100, 60)), "problem": "How many?", "solution": "3"}
    >>> row = convert_row(raw, find("clevr"))
    >>> row["solution"], sorted(row["images"][0])
    ('3', ['bytes', 'path'])

    Raises `RowError`, with the row's `id`, for whatever makes the row unusable, and `ImportError` where what decodes
    its videos is missing.
    """
    conversion = Conversion() if conversion is None else conversion
    prompt = find_prompt(conversion.prompt_name(adapter))
    with naming(row_id(example.get("id"))):
        try:
            return _converted(Raw(example, conversion.purpose, prompt, adapter.name), adapter, conversion)
        except (RowError, ImportError):
            raise
        except Exception as error:  # raw rows hold anything: one that no check foresaw must not end the run
            found = f"{type(error).__name__}: {shown(str(error))}"
            expected = "a row in the dataset's own form"
            raise RowError("row", "cannot be converted", found=found, expected=expected) from error


def _converted(raw: Raw, adapter: Adapter, conversion: Conversion) -> Row:
    row = adapter.to_row(raw)
    with naming(row["id"]):
        stored = _stored(row, conversion)
        if row.get("task") in PLACE_TASKS:
            row["solution"] = _on_stored_image(row["solution"], row["task"], stored, conversion)
        if any(image.original and prod(image.size) < prod(image.original_size) for image in stored):
            row["originals"] = [{"bytes": image.original, "path": None} for image in stored]
        row["images"] = [{"bytes": image.data, "path": None} for image in stored]
        validate_row(row, conversion.purpose)
    return row


def _stored(row: dict[str, Any], conversion: Conversion) -> list[StoredImage]:
    """The images of a row on the grid; a video is its frames, and what the row says of it follows."""
    grid, root, sampling = conversion.grid, conversion.image_root, conversion.sampling
    keep = conversion.originals and not any(isinstance(value, Video) for value in row["images"])  # a video has none
    visuals = [
        store_video(value.value, grid, root, sampling)
        if isinstance(value, Video)
        else store_image(value, grid, root, keep)
        for value in row["images"]
    ]
    videos = [visual for visual in visuals if isinstance(visual, StoredVideo)]
    if videos:
        row["prompt"] = with_frames(row["prompt"], visuals)
    if len(videos) == 1 and conversion.purpose == "grpo":
        (video,) = videos
        if row.get("duration") is None:
            row["duration"] = round(video.duration, 3)
        if row["task"] == "span":
            known = isinstance(row["duration"], int | float)  # what is none is named with the row's other columns
            seconds = row["duration"] if known else video.duration
            row["solution"] = in_seconds(row["solution"], seconds, conversion.span_frame)
    return [image for v in visuals for image in (v.frames if isinstance(v, StoredVideo) else [v])]


def _on_stored_image(solution: str, task: str, stored: list[StoredImage], conversion: Conversion) -> str:
    if len(stored) != 1:
        raise RowError("images", "places without their image", found=f"{len(stored)} images", expected="exactly one")
    (image,) = stored
    gold = read_json(solution)
    if conversion.box_format == "xywh":
        gold = _with_corners(gold)
    if task == "boxes":
        check_boxes(gold, size=image.original_size if conversion.box_frame == "pixel" else None)
    frames = {"pixel": image.original_size, "norm1000": (1000, 1000), "norm1": (1, 1)}
    width, height = frames[conversion.box_frame]
    return json.dumps(scaled(gold, image.size[0] / width, image.size[1] / height), ensure_ascii=False)


def scaled(gold: Any, x: float, y: float) -> Any:
    """A gold with its coordinates moved from one frame to another.

    >>> scaled([{"bbox_2d": [10, 10, 20, 20], "label": "cat"}, {"point_2d": [3, 4]}], 0.5, 2.0)
    [{'bbox_2d': [5.0, 20.0, 10.0, 40.0], 'label': 'cat'}, {'point_2d': [1.5, 8.0]}]

    Coordinates are bare lists, those under `bbox_2d`, `point_2d`, `polygon` and the like, whose numbers alternate
    between x and y, and the values of `x`, `y`, `x1`, …. Other lists stay. Run-length codes count pixels: they stay
    valid where nothing moves, and are a `RowError` elsewhere. So is an odd number of coordinates, moved or not.
    """
    if isinstance(gold, list):
        return [scaled(item, x, y) for item in gold] if _holds_objects(gold) else _moved(gold, x, y)
    if not isinstance(gold, dict):
        return gold
    expected, fine = "polygons, or an image that is on the grid already", "counts" not in gold or (x, y) == (1, 1)
    require(fine, "solution", "run-length code of a resized image", gold.get("size"), expected)
    moved = {}
    for key, value in gold.items():
        if key in _AXIS_OF_KEY and is_number(value):
            moved[key] = _times(value, (x, y)[_AXIS_OF_KEY[key]])
        elif isinstance(value, dict) or key in _PLACE_KEYS or _holds_objects(value):
            moved[key] = scaled(value, x, y)
        else:
            moved[key] = value
    return moved


def _moved(numbers: Any, x: float, y: float) -> Any:
    """Lists of lists of numbers with each list moved; what is no list stays."""
    if not isinstance(numbers, list):
        return numbers
    if not any(map(is_number, numbers)):
        return [_moved(item, x, y) for item in numbers]
    fine = len(numbers) % 2 == 0 and all(map(is_number, numbers))
    require(fine, "solution", "not coordinates", numbers, "pairs of x and y")
    return [_times(value, (x, y)[index % 2]) for index, value in enumerate(numbers)]


def _times(value: float, scale: float) -> float:
    return value if scale == 1 else round(value * scale, 2)


def _with_corners(gold: Any) -> Any:
    """A gold whose boxes, `[x, y, width, height]`, have two corners."""
    if isinstance(gold, dict):
        return {
            key: _xyxy(value) if key in BOXES.keys else _with_corners(value) if _holds_objects(value) else value
            for key, value in gold.items()
        }
    if not isinstance(gold, list):
        return gold
    if len(gold) == 4 and all(map(is_number, gold)):
        return _xyxy(gold)
    return [_with_corners(item) for item in gold]


def _holds_objects(value: Any) -> bool:
    return isinstance(value, dict) or (isinstance(value, list) and any(isinstance(item, dict) for item in value))


def _xyxy(box: Any) -> list[float]:
    fine = isinstance(box, list) and len(box) == 4 and all(map(is_number, box))
    require(fine, "solution", "not a box", box, "[x, y, width, height]")
    x, y, width, height = box
    return [x, y, x + width, y + height]
