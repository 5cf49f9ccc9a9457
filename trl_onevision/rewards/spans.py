"""Spans of time in an answer: temporal IoU, several by one-to-one matching."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from trl_onevision.answers.json_text import number
from trl_onevision.answers.places import Place
from trl_onevision.answers.spans import SPANS
from trl_onevision.rewards.boxes import box_iou
from trl_onevision.rewards.frames import FloatArray, TimeFrame, frame_scale
from trl_onevision.rewards.grounding import GroundingReward, gold_items, matched_share
from trl_onevision.rewards.rows import Share, Unscorable


def span_iou(a: ArrayLike, b: ArrayLike) -> FloatArray:
    """Temporal IoU of every span of `a`, (n, 2), with every span of `b`, (m, 2): (n, m), in [0, 1].

    >>> span_iou([[0, 10]], [[0, 10], [5, 15], [20, 30]]).round(3)
    array([[1.   , 0.333, 0.   ]])

    The union is what the two cover, not the hull of both. A span that is inverted, empty, infinite or NaN overlaps
    nothing: this is the IoU of boxes of one height.
    """
    return box_iou(*(np.insert(np.reshape(spans, (-1, 2)), [1, 2], [0, 1], axis=1) for spans in (a, b)))


@dataclass(eq=False, kw_only=True)
class SpanReward(GroundingReward[Place, Place]):
    """Pay the temporal IoU of an answer's spans with the gold's, paired one to one (Temporal-R1, OneThinker).

    >>> reward = SpanReward()
    >>> reward(["<answer>5 to 15</answer>", "0:00 - 0:10"], solution=['{"start": 0, "end": 10}'] * 2)
    [0.3333333333333333, 1.0]

    The score is `sum of the matched tIoU / max(spans answered, spans in the gold)`, in [0, 1]; with a `threshold`, 1
    for each pair whose tIoU is at least that. `frame` is the answer's: `second`, `norm1000` or `norm1` of the length
    of the video, which is then read from the column `duration`, in seconds.

    Scores rows whose `task` is `span`; without a task, those whose gold is an object with a start and an end, or a
    list of them (a bare pair of numbers may be anything). A gold that cannot be read, or a duration that is needed
    and missing, gets `None` and one warning with the row's id. A gold of `[]` and `opened` are as in `IoUReward`.
    """

    task_name = "span"
    read_answer = staticmethod(SPANS.read)
    columns = ("task", "id", "duration")
    frame: TimeFrame = "second"  # type: ignore[assignment]
    gold_frame: TimeFrame = "second"  # type: ignore[assignment]
    threshold: Share | None = None
    name: str = "span_reward"

    def read_gold(self, gold: Any, row: dict[str, Any]) -> list[Place]:
        spans = gold_items(gold, SPANS.of, 'spans like [{"start": 3.5, "end": 7}]')
        if not all(np.isfinite((start, end)).all() and start < end for (start, end), *_ in spans):
            raise Unscorable(f"the gold holds a span that is empty or not finite: {spans}")
        return spans

    def claims(self, gold: Any) -> bool:
        items = gold if isinstance(gold, list) else [gold]
        return bool(items) and all(isinstance(item, dict) for item in items)

    def row_scale(self, row: dict[str, Any]) -> FloatArray:
        duration = number(row.get("duration"))
        return frame_scale(self.frame, self.gold_frame, None if duration is None else (duration, duration))

    def score(self, answer: list[Place], gold: list[Place], scale: FloatArray) -> float:
        times = np.array([span.numbers for span in answer]) * scale
        return matched_share(span_iou(times, [span.numbers for span in gold]), self.threshold)


span_reward = SpanReward()
