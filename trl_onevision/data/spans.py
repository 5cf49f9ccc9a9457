"""Spans of time in golds: any of the raw forms, in seconds of the clip that they are about."""

from __future__ import annotations

import itertools
import json
from typing import Any, Literal

from trl_onevision.answers.spans import SPANS
from trl_onevision.data.schema import RowError, read_json, require

SpanFrame = Literal["second", "norm1000", "norm1"]

LONGEST = 10**9  # seconds; no clip is thirty years long


def in_seconds(solution: str, duration: float, frame: SpanFrame = "second") -> str:
    """The gold of a `span` row in seconds, as `[{"start": …, "end": …}, …]`.

    >>> in_seconds("[0.25, 0.5]", duration=8.0, frame="norm1")
    '[{"start": 2.0, "end": 4.0}]'
    >>> in_seconds('{"start": 30, "end": 34}', duration=8.0)
    Traceback (most recent call last):
    trl_onevision.data.schema.RowError: column 'solution': span outside the video; found 30.0 to 34.0 s of 8.0 s, ...

    A raw gold is one span or a list of them, in any form that `span_reward` reads. `frame` is its own: seconds,
    thousandths of the clip, or shares of it. A span may end after the clip, as annotations do, but not begin there.
    `[]` says that there is nothing to find.
    """
    scale = {"second": 1.0, "norm1000": duration / 1000, "norm1": duration}[frame]
    gold, spans = read_json(solution), []
    items = gold if isinstance(gold, list) and not SPANS.of(gold) else [gold]
    for start, end in itertools.chain(*map(_spans, items)):
        start, end = round(start * scale, 3), round(end * scale, 3)
        if not 0 <= start < min(end, duration):
            problem = "span outside the video" if start < end else "empty span"
            expected = "start < end, and a start within the video (is it in another frame? --span-frame)"
            raise RowError("solution", problem, found=f"{start} to {end} s of {duration:.1f} s", expected=expected)
        spans.append({"start": start, "end": end})
    return json.dumps(spans)


def _spans(item: Any) -> list[tuple[float, ...]]:
    found = [span.numbers for span in SPANS.of(item)]
    fine = found and all(abs(end) < LONGEST for ends in found for end in ends)
    require(fine, "solution", "not a span", item, '[start, end], {"start": …, "end": …}, or a list of such')
    return found
