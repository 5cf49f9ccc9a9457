"""What boxes, points, spans, masks and actions share: JSON in an answer, coordinate frames, and the rows of a call.

Text is untrusted. Reading is linear in its length: one pass looks for JSON, one for numbers in brackets, the regular
expressions use possessive quantifiers, and at most `MAX_ITEMS` items of an answer are taken. A longer list scores as
if it held that many, which already divides its reward by as much.
"""

import io
import itertools
import json
import logging
import re
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, Generic, Literal, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from trl_onevision.rewards.text import answer_block

logger = logging.getLogger(__name__)

Frame = Literal["pixel", "norm1000", "norm1"]
FloatArray = NDArray[np.float64]
Item = TypeVar("Item")

MAX_ITEMS = 1000
LABEL_KEYS = ("label", "category", "class", "name")

_warned: set[str] = set()
_RELATIVE = {"norm1000": 1000.0, "norm1": 1.0}

# Twenty digits hold every coordinate; without the bound, a million digits would go through `float`.
NUMBER = r"[-+]?(?:[0-9]{1,20}+(?:\.[0-9]{0,20}+)?|\.[0-9]{1,20}+)(?:[eE][-+]?[0-9]{1,4}+)?"
SEPARATOR = r"(?:\s*+[,;]\s*+|\s++)"

_FLAT_OBJECT = re.compile(r"\{[^{}]*+\}")


def read_json(text: str) -> Any | None:
    """The JSON value that an answer holds: in its last code fence, else between its first and last bracket.

    >>> read_json('Here it is: ```json\\n{"bbox_2d": [1, 2, 3, 4]}\\n```')
    {'bbox_2d': [1, 2, 3, 4]}

    Of JSON that does not parse (cut off, one object a line, single quotes, a trailing comma) the innermost complete
    objects are kept:

    >>> read_json("[{'bbox_2d': [1, 2, 3, 4]}, {'bbox_2d': [5, 6")
    [{'bbox_2d': [1, 2, 3, 4]}]

    Returns `None` where there is neither.
    """
    text = _last_fence(text)
    start = min((at for at in (text.find("["), text.find("{")) if at >= 0), default=len(text))
    end = max(text.rfind("]"), text.rfind("}")) + 1
    if start >= end:
        return None
    value = _loads(text[start:end])
    if value is not None:
        return value
    complete = itertools.islice(_FLAT_OBJECT.finditer(text), MAX_ITEMS)
    objects = (_loads(found[0]) or _loads(found[0].replace("'", '"')) for found in complete)
    return [item for item in objects if item] or None


def _last_fence(text: str) -> str:
    parts = text.split("```")
    if len(parts) == 1:
        return text
    closed = len(parts) % 2 == 1
    return parts[-2] if closed else parts[-1]


def _loads(text: str) -> Any | None:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def collect(value: Any, read_item: Callable[[Any], Item | None]) -> list[Item]:
    """Every item that `read_item` recognises in a JSON value, in the order written, at most `MAX_ITEMS`.

    >>> collect({"a": [3, 1.5], "b": 2}, lambda value: value if isinstance(value, int) else None)
    [3, 2]
    """
    found: list[Item] = []
    # A stack and not recursion: the C parser accepts nesting deeper than Python's own stack.
    pending = [value]
    while pending and len(found) < MAX_ITEMS:
        node = pending.pop()
        item = read_item(node)
        if item is not None:
            found.append(item)
        elif isinstance(node, list):
            pending.extend(reversed(node))
        elif isinstance(node, dict):
            pending.extend(reversed(node.values()))
    return found


def number(value: Any) -> float | None:
    """A JSON number as a float; `None` for anything else, `true` included.

    >>> number(3), number(-0.5), number(True), number("3")
    (3.0, -0.5, None, None)
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:  # an integer beyond the range of a float
        return float("inf")


def numbers(value: Any, count: int) -> tuple[float, ...] | None:
    """Exactly `count` numbers out of a JSON list.

    >>> numbers([1, 2.5], 2), numbers([1, "a"], 2), numbers([1, 2, 3], 2)
    ((1.0, 2.5), None, None)
    """
    if not isinstance(value, list | tuple) or len(value) != count:
        return None
    read = [number(item) for item in value]
    return None if None in read else tuple(read)  # type: ignore[arg-type]


def first_text(value: dict, keys: tuple[str, ...]) -> str | None:
    """The first of `keys` that holds a string.

    >>> first_text({"label": 3, "category": "cat"}, ("label", "category"))
    'cat'
    """
    return next((value[key] for key in keys if isinstance(value.get(key), str)), None)


def normalized(text: str | None) -> str | None:
    """A label or a typed text without case and repeated white space.

    >>> normalized("Traffic  Light ")
    'traffic light'
    """
    return None if text is None else " ".join(text.casefold().split())


def frame_scale(frame: str, gold_frame: str, size: tuple[float, float] | None) -> FloatArray:
    """What turns (x, y) of one frame into (x, y) of another: a factor for each axis.

    >>> frame_scale("norm1000", "pixel", size=(640, 480))
    array([0.64, 0.48])
    >>> frame_scale("pixel", "pixel", size=None)
    array([1., 1.])

    `size` is the width and height of the stored image. It is needed only between an absolute and a relative frame; a
    `ValueError` says so where it is missing.
    """
    if frame == gold_frame:
        return np.ones(2)
    if {frame, gold_frame} <= _RELATIVE.keys():
        return np.full(2, _RELATIVE[gold_frame] / _RELATIVE[frame])
    if size is None or not min(size) > 0:
        raise ValueError(f"{frame} to {gold_frame} needs the size of the row's image, or the duration of its video")
    extent = np.array(size, dtype=np.float64)
    return extent / _RELATIVE[frame] if frame in _RELATIVE else _RELATIVE[gold_frame] / extent


def image_size(images: Any) -> tuple[int, int] | None:
    """Width and height of the first image of a row, as TRL hands it over: PIL, or a dict with `bytes` or `path`.

    >>> image_size([Image.new("RGB", (640, 480))])
    (640, 480)
    >>> image_size([]) is None
    True

    Only the header is decoded. An image that cannot be read has no size.
    """
    if isinstance(images, list | tuple):
        images = images[0] if images else None
    if isinstance(images, Image.Image):
        return images.size
    if not isinstance(images, dict):
        return None
    try:
        with Image.open(io.BytesIO(images["bytes"]) if images.get("bytes") else images["path"]) as image:
            return image.size
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return None


def row_size(row: dict[str, Any]) -> tuple[int, int] | None:
    """Width and height of a row's stored image, from its column `images` or `image`."""
    images = row.get("images")
    return image_size(row.get("image") if images is None else images)


def warn_once(message: str, detail: str = "") -> None:
    """Log a warning the first time that its text, less the detail, is seen: a broken gold comes back every epoch."""
    if message not in _warned:
        _warned.add(message)
        logger.warning("%s%s", message, detail)


Gold = TypeVar("Gold")
Answer = TypeVar("Answer")


class GroundingReward(Generic[Answer, Gold]):
    """A reward that reads coordinates: which rows are its own, what a broken gold gets, and whose frame is whose.

    A subclass says which `task_name` it scores and gives three functions: `read_gold`, which raises `ValueError` on a
    gold that cannot be scored, `read_answer`, and `score`. It is handed the factors that turn the answer's frame into
    the gold's. See `IoUReward` for one in use.
    """

    task_name: ClassVar[str]
    columns: ClassVar[tuple[str, ...]] = ("task", "id", "images")  # read besides `solution`, where they are there
    frames: ClassVar[tuple[str, ...]] = get_args(Frame)

    def __init__(self, name: str, frame: str, gold_frame: str, opened: bool) -> None:
        for value in (frame, gold_frame):
            check_option("frame", value, self.frames)
        self.__name__ = name
        self.frame = frame
        self.gold_frame = gold_frame
        self.opened = opened

    def read_gold(self, gold: Any, row: dict[str, Any]) -> Gold:
        raise NotImplementedError

    def read_answer(self, text: str) -> list[Answer]:
        raise NotImplementedError

    def score(self, text: str, answer: list[Answer], gold: Gold, scale: FloatArray) -> float:
        raise NotImplementedError

    def claims(self, gold: Any) -> bool:
        """Whether a gold that reads says by itself that its row, which has no task, is this reward's."""
        return bool(gold)  # an empty list may be anyone's

    def row_scale(self, row: dict[str, Any]) -> FloatArray:
        size = None if self.frame == self.gold_frame else row_size(row)
        return frame_scale(self.frame, self.gold_frame, size)

    def __call__(
        self,
        completions: list[Any],
        solution: list[Any],
        log_extra: Callable[[str, list], None] | None = None,
        log_metric: Callable[[str, float], None] | None = None,
        **columns: Any,
    ) -> list[float | None]:
        rewards: list[float | None] = []
        answers: list[list[Answer]] = []
        for completion, gold, row in zip(completions, solution, _rows(columns, len(completions)), strict=True):
            reference = self._reference(gold, row)
            if reference is None:
                rewards.append(None)
                continue
            text = answer_block(completion, opened=self.opened)
            answers.append(self.read_answer(text))
            rewards.append(self.score(text, answers[-1], *reference))
        if log_metric is not None and answers:
            log_metric(f"{self.__name__}/unread", sum(not answer for answer in answers) / len(answers))
        return rewards

    def _reference(self, gold: Any, row: dict[str, Any]) -> tuple[Gold, FloatArray] | None:
        """What a row's answer is compared with, or `None` where the row is not this reward's or cannot be scored."""
        task = row.get("task")
        if task not in (None, self.task_name):
            return None
        try:
            value = gold_value(gold)
            read = self.read_gold(value, row)
        except ValueError as error:
            if task is not None:  # without a task, a gold that does not read is another reward's
                self._report(row, error)
            return None
        if task is None and not self.claims(value):
            return None
        try:
            return read, self.row_scale(row)
        except ValueError as error:
            self._report(row, error)
            return None

    def _report(self, row: dict[str, Any], error: ValueError) -> None:
        named = f"row {row['id']!r}" if row.get("id") is not None else "a row without an id"
        warn_once(f"{self.__name__} cannot score {named}: {error}")


def _rows(columns: dict[str, Any], count: int) -> Iterator[dict[str, Any]]:
    """The columns of a call, turned to rows; what is no column (the trainer's state) is left out."""
    per_row = {key: value for key, value in columns.items() if _is_column(value) and len(value) == count}
    for index in range(count):
        yield {key: value[index] for key, value in per_row.items()}


def _is_column(value: Any) -> bool:
    """Whether a value is a list, a tuple, an array or a column of datasets."""
    return hasattr(value, "__len__") and hasattr(value, "__getitem__") and not isinstance(value, str | bytes | dict)


def gold_value(gold: Any) -> Any:
    """The JSON value of a gold: text as the row contract has it, in answer tags as some datasets do, or decoded.

    >>> gold_value("<answer>[1, 2, 3, 4]</answer>")
    [1, 2, 3, 4]

    Raises `ValueError` on text that is not JSON.
    """
    if not isinstance(gold, str):
        return gold
    try:
        return json.loads(answer_block(gold))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the gold is not JSON ({error}): {gold[:80]!r}") from None


def gold_items(gold: Any, read_item: Callable[[Any], Item | None], expected: str) -> list[Item]:
    """Every item of a gold, each of which must read: one that is skipped would be a wrong gold.

    >>> gold_items([[1, 2], [3, 4]], lambda value: numbers(value, 2), "points")
    [(1.0, 2.0), (3.0, 4.0)]
    """
    single = read_item(gold)
    if single is not None:
        return [single]
    if not isinstance(gold, list):
        raise ValueError(f"the gold is not {expected}: {str(gold)[:80]!r}")
    items = [read_item(value) for value in gold]
    if None in items:
        raise ValueError(f"the gold is not {expected}: {str(gold[items.index(None)])[:80]!r}")
    return items  # type: ignore[return-value]


def says_none(text: str) -> bool:
    """Whether an answer says that there is nothing to find: an empty JSON list, or one under a key, or the word.

    >>> says_none('{"objects": []}'), says_none("None."), says_none(""), says_none("[1, 2]")
    (True, True, False, False)
    """
    value = read_json(text)
    if value is not None:
        return value in ([], [[]]) or (isinstance(value, dict) and all(item == [] for item in value.values()))
    word = _last_fence(text).strip().removeprefix("json").strip()
    return word.casefold().rstrip(".") in ("none", "null", "nothing", "no objects")


def check_option(name: str, value: Any, known: tuple[Any, ...]) -> None:
    """Raise `ValueError` on an unknown option, with the known ones.

    >>> check_option("frame", "norm999", ("pixel", "norm1000"))
    Traceback (most recent call last):
    ValueError: frame='norm999' is unknown; known: 'pixel', 'norm1000'
    """
    if value not in known:
        raise ValueError(f"{name}={value!r} is unknown; known: {', '.join(map(repr, known))}")
