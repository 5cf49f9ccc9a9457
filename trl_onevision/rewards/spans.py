"""Spans of time in an answer: reading them, temporal IoU, several by one-to-one matching."""

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from trl_onevision.rewards.boxes import box_iou
from trl_onevision.rewards.frames import FloatArray, TimeFrame, frame_scale
from trl_onevision.rewards.grounding import GroundingReward, gold_items, matched_share
from trl_onevision.rewards.json_text import number
from trl_onevision.rewards.places import Kind, Numbers, Place
from trl_onevision.rewards.rows import Share, Unscorable

# 12.5, 12.5s, 1:05, 01:02:03.5, 1 minute 20 seconds, 1分20秒
_UNITS = (r"h(?:ours?|rs?)?|小时", r"m(?:in(?:ute)?s?)?|分钟?", r"s(?:ec(?:ond)?s?)?|秒钟?")
_NUMBER = r"[0-9]{1,20}+(?:\.[0-9]{1,20}+)?"
_HOURS, _MINUTES, _SECONDS = (rf"{_NUMBER}\s?(?:{unit})(?![a-z])" for unit in _UNITS)
_TIME = (
    rf"(?:(?:[0-9]{{1,3}}+:){{1,2}}{_NUMBER}(?:\s?s)?|{_HOURS}(?:\s?{_MINUTES})?(?:\s?{_SECONDS})?"
    rf"|{_MINUTES}(?:\s?{_SECONDS})?|{_SECONDS}|{_NUMBER})"
)
_ENDS = r"(?:(?:and|then|it)\s){0,2}(?:end(?:s|ing|ed)?|stop(?:s|ping)?|finish(?:es|ing)?|until)(?:[ _]time)?"
_TO = (
    r"[-–—~～,;]|->|→|to|(?(between)and|(?!))|until|till|through|(?:开始)?[，,]?(?:一直)?(?:至|到|持续到|结束于)第?"
    rf"|[,;，]?\s{{0,4}}{_ENDS}"
)
_BEFORE_END = r"\s{0,4}(?:(?:at|is|in|by|about|around)\s|[:=：<]){0,2}\s{0,4}"
_OTHER_UNIT = r"\s?(?:%|％|ms\b|milli|frames?\b|帧)"  # what no span is measured in
_TEXT_SPAN = re.compile(
    rf"(?:\b(?P<between>between)\s{{1,4}})?(?<!frame\s)(?<!frames\s)(?<![0-9.:])(?P<start>{_TIME})"
    rf"[>\s]{{0,4}}(?P<to>{_TO}){_BEFORE_END}(?P<end>{_TIME})"
    rf"(?P<more>(?:[>\s]{{0,4}}(?P=to){_BEFORE_END}{_TIME})*+)(?P<other>{_OTHER_UNIT})?+",
    re.IGNORECASE,
)
_CLOCK = re.compile(_TIME, re.IGNORECASE)
_PART = re.compile(rf"({_NUMBER})\s?(?:({_UNITS[0]})|({_UNITS[1]}))?", re.IGNORECASE)


def _matched(match: re.Match[str]) -> list[Numbers]:
    """The spans of a text; of "10 - 20 - 30" none."""
    times = [match["start"], match["end"], *_CLOCK.findall(match["more"])]
    if match["other"] or len(times) % 2:
        return []
    return [_between(*pair) for pair in zip(times[::2], times[1::2], strict=True)]


def _between(start: str, end: str) -> Numbers:
    unit = end.lstrip("0123456789. ")
    if unit.isalpha() and not start.strip("0123456789."):  # "10 to 20 minutes"
        start += unit
    return _seconds(start), _seconds(end)


def _span(value: Any) -> Numbers | None:
    """A pair of times, or a text such as "3s - 7s"."""
    if isinstance(value, str):
        whole = _TEXT_SPAN.fullmatch(value.strip())
        spans = _matched(whole) if whole else []
        return spans[0] if len(spans) == 1 else None
    if not isinstance(value, list) or len(value) != 2:
        return None
    start, end = map(_time, value)
    return None if start is None or end is None else (start, end)


def _time(value: Any) -> float | None:
    if isinstance(value, str):
        return _seconds(value) if _CLOCK.fullmatch(value.strip()) else None
    return number(value)


def _seconds(time: str) -> float:
    if ":" in time:
        parts = [float(part) for part in time.rstrip("sS ").split(":")]
        return sum(part * 60**power for power, part in enumerate(reversed(parts)))
    read = _PART.findall(time)
    return sum(float(amount) * (3600 if hours else 60 if minutes else 1) for amount, hours, minutes in read)


SPANS = Kind(
    one=_span,
    keys=("span", "segment", "timestamp", "timestamps", "time"),
    sides=(("start", "end"), ("start_time", "end_time"), ("begin", "end"), ("from", "to")),
    pattern=_TEXT_SPAN,
    matched=_matched,
)


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
