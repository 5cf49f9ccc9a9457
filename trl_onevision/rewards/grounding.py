"""What the rewards for boxes, points, spans, masks and actions share: whose row it is, its gold, its frame."""

import json
from collections.abc import Callable
from typing import Any, ClassVar, Generic, TypeVar, get_args

from trl_onevision.rewards.frames import FloatArray, Frame, frame_scale, row_size
from trl_onevision.rewards.json_text import Item, last_fence, read_json
from trl_onevision.rewards.rows import Unscorable, score_rows
from trl_onevision.rewards.text import answer_block

Gold = TypeVar("Gold")
Answer = TypeVar("Answer")


class GroundingReward(Generic[Answer, Gold]):
    """A reward that reads coordinates: which rows are its own, what a broken gold gets, and whose frame is whose.

    A subclass says which `task_name` it scores and gives three functions: `read_gold`, which raises `Unscorable` on a
    gold that cannot be scored, `read_answer`, and `score`, which is asked where both hold something. It is handed the
    factors that turn the answer's frame into the gold's. See `IoUReward` for one in use.
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

    def read_gold(self, gold: Any, row: dict[str, Any]) -> list[Gold]:
        raise NotImplementedError

    def read_answer(self, text: str) -> list[Answer]:
        raise NotImplementedError

    def score(self, answer: list[Answer], gold: list[Gold], scale: FloatArray) -> float:
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
        unread: list[bool] = []

        def score(row: dict[str, Any]) -> float | None:
            reference = self._reference(row)
            if reference is None:
                return None
            text = answer_block(row["completion"], opened=self.opened)
            answer = self.read_answer(text)
            unread.append(not answer)
            gold, scale = reference
            if not gold:
                return float(not answer and says_none(text))
            return self.score(answer, gold, scale) if answer else 0.0

        rewards = score_rows(self.__name__, score, completion=completions, solution=solution, **columns)
        if log_metric is not None and unread:
            log_metric(f"{self.__name__}/unread", sum(unread) / len(unread))
        return rewards

    def _reference(self, row: dict[str, Any]) -> tuple[list[Gold], FloatArray] | None:
        """What a row's answer is compared with, or `None` where the row is not this reward's."""
        task = row.get("task")
        if task not in (None, self.task_name):
            return None
        try:
            value = gold_value(row["solution"])
            gold = self.read_gold(value, row)
        except Unscorable:
            if task is not None:
                raise
            return None  # without a task, a gold that does not read is another reward's
        if task is None and not self.claims(value):
            return None
        return gold, self.row_scale(row)


def gold_value(gold: Any) -> Any:
    """The JSON value of a gold: text as the row contract has it, in answer tags as some datasets do, or decoded.

    >>> gold_value("<answer>[1, 2, 3, 4]</answer>")
    [1, 2, 3, 4]

    Raises `Unscorable` on text that is not JSON.
    """
    if not isinstance(gold, str):
        return gold
    try:
        return json.loads(answer_block(gold))
    except (ValueError, RecursionError) as error:
        raise Unscorable(f"the gold is not JSON ({error}): {gold[:80]!r}") from None


def gold_items(gold: Any, read_item: Callable[[Any], Item | None], expected: str) -> list[Item]:
    """Every item of a gold, each of which must read: one that is skipped would be a wrong gold.

    >>> from trl_onevision.rewards.json_text import numbers
    >>> gold_items([[1, 2], [3, 4]], lambda value: numbers(value, 2), "points")
    [(1.0, 2.0), (3.0, 4.0)]
    """
    single = read_item(gold)
    if single is not None:
        return [single]
    if not isinstance(gold, list):
        raise Unscorable(f"the gold is not {expected}: {str(gold)[:80]!r}")
    items = [read_item(value) for value in gold]
    if None in items:
        raise Unscorable(f"the gold is not {expected}: {str(gold[items.index(None)])[:80]!r}")
    return items  # type: ignore[return-value]


def says_none(text: str) -> bool:
    """Whether an answer says that there is nothing to find: an empty JSON list, or one under a key, or the word.

    >>> says_none('{"objects": []}'), says_none("None."), says_none(""), says_none("[1, 2]")
    (True, True, False, False)
    """
    value = read_json(text)
    if value is not None:
        return value in ([], [[]]) or (isinstance(value, dict) and all(item == [] for item in value.values()))
    word = last_fence(text).strip().removeprefix("json").strip()
    return word.casefold().rstrip(".") in ("none", "null", "nothing", "no objects")


def check_option(name: str, value: Any, known: tuple[Any, ...]) -> None:
    """Raise `ValueError` on an unknown option, with the known ones.

    >>> check_option("frame", "norm999", ("pixel", "norm1000"))
    Traceback (most recent call last):
    ValueError: frame='norm999' is unknown; known: 'pixel', 'norm1000'
    """
    if value not in known:
        raise ValueError(f"{name}={value!r} is unknown; known: {', '.join(map(repr, known))}")


def check_threshold(threshold: float | None) -> None:
    """Raise `ValueError` on what is no threshold of an overlap."""
    if threshold is not None and not 0 < threshold <= 1:
        raise ValueError(f"threshold={threshold} is not in (0, 1]")
