"""Spans of time as an answer or a gold writes them: numbers, units, clock times, in JSON or in words."""

import re
from typing import Any

from trl_onevision.answers.json_text import number
from trl_onevision.answers.places import Kind, Numbers

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
