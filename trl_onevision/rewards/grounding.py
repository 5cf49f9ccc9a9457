"""What the rewards for boxes, points, spans, masks and actions share: whose row it is, gold, frame and pairing."""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from trl_onevision.answers.extract import answer_block
from trl_onevision.answers.json_text import Item, collect, fenced, normalized, read_json
from trl_onevision.answers.places import Place
from trl_onevision.rewards.frames import FloatArray, Frame, frame_scale, row_size
from trl_onevision.rewards.rows import LogMetric, NamedReward, Unscorable, score_rows

_NOTHING = re.compile(
    r"none|null|nothing|empty|(?:there (?:is|are) )?(?:no|zero)[ _](?:such )?(?:[a-z]{1,20}[ _])?"
    r"(?:objects?|targets?|box(?:es)?|points?|instances?|match(?:es)?|detections?|segments?|spans?)"
    r"(?: (?:(?:was|were|is|are) )?(?:found|detected|present|visible))?"
    r"|not (?:found|present|visible)|无|没有(?:目标|物体|对象)?|未(?:找到|检测到)(?:目标|物体|对象)?",
    re.IGNORECASE,
)
Gold = TypeVar("Gold")
Answer = TypeVar("Answer")


@dataclass(eq=False, kw_only=True)
class GroundingReward(NamedReward, Generic[Answer, Gold]):
    """A reward that reads coordinates: which rows are its own, what a broken gold gets, and whose frame is whose.

    A subclass says which `task_name` it scores and gives three functions: `read_answer`, `read_gold`, which raises
    `Unscorable` on a gold that cannot be scored, and `score`, which is asked where both hold something. It is handed
    the factors that turn the answer's frame into the gold's. See `IoUReward` for one in use.
    """

    task_name: ClassVar[str]
    columns: ClassVar[tuple[str, ...]] = ("task", "id", "images")  # read besides `solution`, where they are there

    frame: Frame = "pixel"
    gold_frame: Frame = "pixel"
    opened: bool = False

    @staticmethod
    def read_answer(text: str) -> list[Any]:
        raise NotImplementedError

    def read_gold(self, gold: Any, row: dict[str, Any]) -> list[Gold]:
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
        self, completions: list[Any], solution: list[Any], log_metric: LogMetric | None = None, **columns: Any
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
            with np.errstate(over="ignore", invalid="ignore"):  # an answer may hold any number
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


def gold_items(gold: Any, read: Callable[[Any, str | None], list[Item]], expected: str) -> list[Item]:
    """Every item of a gold, each of which must read: one that is skipped would be a wrong gold.

    >>> from trl_onevision.answers.spans import SPANS
    >>> [span.numbers for span in gold_items([[1, 2], {"start": 3, "end": 4}], SPANS.of, "spans")]
    [(1.0, 2.0), (3.0, 4.0)]
    """
    whole = read(gold, None)
    if whole:
        return whole
    parts = [(value, read(value, None)) for value in gold] if isinstance(gold, list) else [(gold, [])]
    broken = [value for value, items in parts if not items]
    if broken:
        raise Unscorable(f"the gold is not {expected}: {str(broken[0])[:80]!r}")
    return [item for _, items in parts for item in items]


def says_none(text: str) -> bool:
    """Whether an answer says that there is nothing to find: JSON that holds nothing but such words, or the word.

    >>> says_none('{"objects": []}'), says_none("None."), says_none("['No Objects']"), says_none("[1, 2]")
    (True, True, True, False)
    """
    value = read_json(text)
    if value is not None:
        leaves = collect(value, lambda node, _: [] if isinstance(node, list | dict | None) else [node])
        return all(isinstance(leaf, str) and _NOTHING.fullmatch(leaf.strip(" .。!")) for leaf in leaves)
    return bool(_NOTHING.fullmatch(text[slice(*fenced(text))].strip(" \n.。!")))


def as_array(places: Sequence[Place]) -> FloatArray:
    """The numbers of each place as a row of an array; a point among boxes is a box without an extent: (n, 4).

    >>> as_array([Place((1, 2, 3, 4)), Place((5, 6))])
    array([[1., 2., 3., 4.],
           [5., 6., 5., 6.]])
    """
    return np.array([(place.numbers * 2)[:4] for place in places], dtype=np.float64).reshape(-1, 4)


def match(similarity: FloatArray) -> FloatArray:
    """The similarities of the best one-to-one pairing (Hungarian) of answers, the rows, with golds, the columns.

    >>> match(np.array([[0.9, 0.8], [0.7, 0.1]]))
    array([0.8, 0.7])
    """
    matched: FloatArray = similarity[linear_sum_assignment(similarity, maximize=True)]
    return matched


def matched_share(similarity: FloatArray, threshold: float | None = None) -> float:
    """The sum of the best pairing over the larger count, so that copies cost; with a threshold, of hits.

    >>> matched_share(np.array([[0.9, 0.8], [0.7, 0.1]])), matched_share(np.array([[0.9], [0.9]]), threshold=0.5)
    (0.75, 0.5)
    """
    if threshold is not None:
        similarity = (similarity >= threshold).astype(np.float64)
    return float(match(similarity).sum() / max(similarity.shape))


def label_mask(answers: list[Place], golds: list[Place]) -> NDArray[np.bool_]:
    """Which answers may stand for which golds by their label; a gold without a label takes any.

    >>> label_mask([Place((), "Cat"), Place(())], [Place((), "cat"), Place((), "dog"), Place(())])
    array([[ True, False,  True],
           [False, False,  True]])
    """
    given, wanted = ([normalized(place.label) for place in places] for places in (answers, golds))
    allowed = [[gold is None or gold == label for gold in wanted] for label in given]
    return np.array(allowed, dtype=bool).reshape(len(answers), len(golds))
