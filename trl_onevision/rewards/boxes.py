"""Boxes in an answer: IoU, one-to-one matching, and the two rewards built on it."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trl_onevision.answers.places import BOXES, Place
from trl_onevision.rewards.frames import FloatArray
from trl_onevision.rewards.grounding import GroundingReward, as_array, gold_items, label_mask, match, matched_share
from trl_onevision.rewards.rows import Positive, Share, Unscorable

BoxFormat = Literal["xyxy", "xywh", "cxcywh", "yxyx"]


def to_xyxy(boxes: ArrayLike, box_format: BoxFormat = "xyxy") -> FloatArray:
    """Turn boxes of any format into corners.

    >>> to_xyxy([[10, 20, 30, 40]], "xywh")
    array([[10., 20., 40., 60.]])

    `boxes` is (n, 4). `xywh` is the top left corner with width and height, `cxcywh` the centre with width and height,
    `yxyx` the corners with y first.
    """
    values = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    first, second = values[:, :2], values[:, 2:]
    if box_format == "xywh":
        return np.hstack([first, first + second])
    if box_format == "cxcywh":
        return np.hstack([first - second / 2, first + second / 2])
    return values[:, [1, 0, 3, 2]] if box_format == "yxyx" else values


def box_iou(a: ArrayLike, b: ArrayLike) -> FloatArray:
    """Intersection over union of every box of `a` with every box of `b`.

    >>> box_iou([[0, 0, 10, 10]], [[0, 0, 10, 10], [5, 0, 15, 10], [20, 0, 30, 10]]).round(3)
    array([[1.   , 0.333, 0.   ]])

    `a` is (n, 4), `b` is (m, 4), both corners; the result is (n, m), in [0, 1]. Coordinates are continuous: a box from
    0 to 10 is 10 wide. A box that is inverted, empty, infinite or NaN overlaps nothing.
    """
    return _iou_and_cover(a, b)[0]


def box_giou(a: ArrayLike, b: ArrayLike) -> FloatArray:
    """Generalised IoU (Rezatofighi et al., 2019) of every box of `a` with every box of `b`.

    >>> box_giou([[0, 0, 10, 10]], [[0, 0, 10, 10], [10, 0, 20, 10], [90, 0, 100, 10]]).round(3)
    array([[ 1. ,  0. , -0.8]])

    Shapes as in `box_iou`; the result is in [-1, 1]: IoU less the share of the common hull that neither box covers.
    A box that is inverted, empty, infinite or NaN gets -1.
    """
    iou, covered = _iou_and_cover(a, b)
    return iou + covered - 1


def _iou_and_cover(a: ArrayLike, b: ArrayLike) -> tuple[FloatArray, FloatArray]:
    """IoU, and the share of the common hull that two boxes cover: both 0 where one of them has no inside."""
    a, b = to_xyxy(a), to_xyxy(b)
    proper = is_proper(a)[:, None] & is_proper(b)
    with np.errstate(all="ignore"):
        low, high = a[:, None, :2], a[:, None, 2:]
        overlap = np.clip(np.minimum(high, b[:, 2:]) - np.maximum(low, b[:, :2]), 0, None).prod(-1)
        hull = (np.maximum(high, b[:, 2:]) - np.minimum(low, b[:, :2])).prod(-1)
        union = _areas(a)[:, None] + _areas(b) - overlap
        return np.where(proper, overlap / union, 0.0), np.where(proper, union / hull, 0.0)


def is_proper(boxes: FloatArray) -> NDArray[np.bool_]:
    """Which boxes (n, 4) are finite and have an inside.

    >>> is_proper(np.array([[0, 0, 1, 1], [1, 1, 0, 0], [0, 0, 0, 1], [0, 0, np.inf, 1]]))
    array([ True, False, False, False])
    """
    with np.errstate(all="ignore"):
        areas = _areas(boxes)  # 0 of a box as thin as no float can be
        return np.isfinite(areas) & (areas > 0) & (boxes[:, 2:] > boxes[:, :2]).all(-1)


def _areas(boxes: FloatArray) -> FloatArray:
    areas: FloatArray = (boxes[:, 2:] - boxes[:, :2]).prod(-1)
    return areas


@dataclass(eq=False, kw_only=True)
class _BoxReward(GroundingReward[Place, Place]):
    """What the two box rewards share: reading, and how alike each answer is to each gold."""

    task_name = "boxes"
    read_answer = staticmethod(BOXES.read)
    box_format: BoxFormat = "xyxy"
    labels: bool = False

    def read_gold(self, gold: Any, row: dict[str, Any]) -> list[Place]:
        boxes = gold_items(gold, BOXES.of, 'boxes like [{"bbox_2d": [x1, y1, x2, y2], "label": "..."}]')
        if not is_proper(as_array(boxes)).all():
            raise Unscorable(f"the gold holds a box without an inside: {boxes}")
        return boxes

    def corners(self, answer: list[Place], scale: FloatArray) -> FloatArray:
        return to_xyxy(as_array(answer), self.box_format) * np.tile(scale, 2)

    def allowed(self, answer: list[Place], gold: list[Place]) -> NDArray[np.bool_] | bool:
        return not self.labels or label_mask(answer, gold)


@dataclass(eq=False, kw_only=True)
class IoUReward(_BoxReward):
    """Pay the overlap of an answer's boxes with the gold's, paired one to one.

    >>> reward = IoUReward()
    >>> reward(["<answer>[0, 0, 10, 10]</answer>", "[5, 0, 15, 10]", "no box"], solution=["[[0, 0, 10, 10]]"] * 3)
    [1.0, 0.3333333333333333, 0.0]

    The score is `sum of the matched IoU / max(boxes answered, boxes in the gold)`, in [0, 1]: ten copies of one box
    earn a tenth of what one earns, and a box that is missing costs its share. The pairing is the one that earns most.

    - `threshold=None` pays the IoU itself (R1-Onevision's paper); a number pays 1 for each pair whose IoU is at least
      that (the paper's released code, at 0.5).
    - `giou=True` pays `(1 + GIoU) / 2`, which still tells near from far where boxes do not overlap. Half of it is no
      merit: a giant box around the gold, wherever that is, earns 0.5, more than one beside it.
    - `labels=True` pairs only boxes of one label, compared without case; a gold without a label takes any.
    - `box_format` and `frame` are how the *answer* writes boxes: `xyxy`, `xywh`, `cxcywh` or `yxyx`; `pixel` of the
      stored image, `norm1000` (0 to 1000) or `norm1` (0 to 1). They are never guessed. The gold is `xyxy`, in
      `gold_frame`. Between pixels and a relative frame the size of the row's first image is used.
    - A gold of `[]` pays 1 to an answer that says there is nothing (`[]`, `none`), 0 to any other.
    - `opened=True` says that the chat template opens the thinking: without a `</think>` there is no answer yet.

    Scores rows whose `task` is `boxes`; without a task, those whose gold reads as boxes. A gold that cannot be read,
    or an image size that is needed and missing, gets `None` and one warning with the row's id. A box that is inverted,
    empty or infinite counts as answered and overlaps nothing.
    """

    threshold: Share | None = None
    giou: bool = False
    name: str = "iou_reward"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.threshold is not None and self.giou:
            raise ValueError("giou=True is a graded reward: leave threshold=None")

    def score(self, answer: list[Place], gold: list[Place], scale: FloatArray) -> float:
        boxes = self.corners(answer, scale)
        similarity = (1 + box_giou(boxes, as_array(gold))) / 2 if self.giou else box_iou(boxes, as_array(gold))
        return matched_share(similarity * self.allowed(answer, gold), self.threshold)


@dataclass(eq=False, kw_only=True)
class DetectionReward(_BoxReward):
    """Pay a detection answer as a detector is scored: F-beta or average precision at an IoU threshold.

    >>> gold = '[{"bbox_2d": [0, 0, 10, 10], "label": "cat"}, {"bbox_2d": [20, 0, 30, 10], "label": "dog"}]'
    >>> one_of_two = '[{"bbox_2d": [0, 0, 10, 10], "label": "cat"}]'
    >>> DetectionReward()([gold, one_of_two], solution=[gold, gold])
    [1.0, 0.6666666666666666]
    >>> DetectionReward(metric="ap")([gold, one_of_two], solution=[gold, gold])
    [1.0, 0.5]

    An answer is right when its IoU with a gold of its label is at least the threshold, each gold counting once. All
    labels are scored in one pool, so that an invented label is an error like any other. With several `thresholds` the
    score is their mean. In [0, 1].

    - `f_beta`: `(1 + b^2) TP / ((1 + b^2) TP + b^2 FN + FP)`, with the pairing that has most TP.
    - `ap`: the area under the interpolated precision-recall curve, times `min(1, golds / answers)`. Answers are ranked
      by the `score` or `confidence` they state, those without one last, ties as written. The factor is there because
      precision after the last hit is free in AP: without it, ten copies of every box would cost nothing.

    Duplicates are false positives in both. No answer earns 0; a gold of `[]` pays 1 to an answer that says there is
    nothing (`[]`, `none`) and 0 to any other. `labels=False` leaves labels out; a gold without a label takes any.
    Everything else is as in `IoUReward`.
    """

    metric: Literal["f_beta", "ap"] = "f_beta"
    beta: Positive = 1.0
    thresholds: tuple[Share, ...] = (0.5,)
    labels: bool = True
    name: str = "detection_reward"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.thresholds:
            raise ValueError("thresholds=() leaves nothing to score by")

    def score(self, answer: list[Place], gold: list[Place], scale: FloatArray) -> float:
        overlap = box_iou(self.corners(answer, scale), as_array(gold)) * self.allowed(answer, gold)
        if self.metric == "f_beta":
            return float(np.mean([f_beta(overlap >= threshold, self.beta) for threshold in self.thresholds]))
        stated = [box.score if box.score is not None and np.isfinite(box.score) else -np.inf for box in answer]
        ranked = overlap[np.argsort(-np.array(stated), kind="stable")]  # ties stay as written
        precision = np.mean([average_precision(ranked, threshold) for threshold in self.thresholds])
        return float(precision * min(1.0, len(gold) / len(answer)))


def f_beta(hits: NDArray[np.bool_], beta: float = 1.0) -> float:
    """F-beta of answers, the rows, against golds, the columns, where each may be used once.

    >>> f_beta(np.array([[True], [True]]))  # a duplicate is a false positive
    0.6666666666666666
    """
    answers, golds = hits.shape
    right = match(hits.astype(np.float64)).sum()
    return float((1 + beta**2) * right / (beta**2 * golds + answers))


def average_precision(overlap: FloatArray, threshold: float) -> float:
    """Area under the interpolated precision-recall curve of answers, the rows in rank order, against golds.

    >>> average_precision(np.array([[0.0, 0.0], [0.9, 0.0]]), threshold=0.5)  # the second of two answers hits
    0.25

    As in COCO, each answer takes the free gold that it overlaps most.
    """
    free = np.ones(overlap.shape[1], dtype=bool)
    hit = np.zeros(len(overlap), dtype=bool)
    for rank, row in enumerate(overlap):
        best = int(np.argmax(row * free))
        hit[rank] = free[best] and row[best] >= threshold
        free[best] &= not hit[rank]
    precision = np.cumsum(hit) / np.arange(1, len(hit) + 1)
    interpolated = np.maximum.accumulate(precision[::-1])[::-1]
    return float(interpolated[hit].sum() / len(free))


iou_reward = IoUReward()
detection_reward = DetectionReward()
