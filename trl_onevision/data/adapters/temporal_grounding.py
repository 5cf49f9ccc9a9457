"""Temporal grounding as JSON lines (Charades-STA, QVHighlights and TACoS as Moment-DETR publishes them): when is it?

Raw rows: `qid`, `query`, `vid` (the name of a video, with or without suffix: give its folder as `--images`),
`relevant_windows` (`[[start, end], …]`) in seconds. Read as well: `sentence` for the query, `video` for the name, and
`timestamps` or `timestamp`, one pair or several, for the windows. The rows are of the task `span`.
"""

import json

from trl_onevision.data.rows import Raw, Row
from trl_onevision.data.schema import require
from trl_onevision.data.videos import Video

NAME = "temporal-grounding"
SOURCE = None
LICENSE = None
COLUMNS = frozenset({"qid", "query", "vid", "relevant_windows"})
PROMPT = {"grpo": "time-r1"}


def to_row(raw: Raw) -> Row:
    """A raw row as a row of the contract.

    >>> example = {"qid": 3, "query": "person turn a light on.", "vid": "3MSZA", "duration": 30.96,
    ...     "relevant_windows": [[24.3, 30.4]]}
    >>> row = to_row(Raw(example))
    >>> row["solution"], row["task"], row["images"]
    ('[[24.3, 30.4]]', 'span', [Video(value='3MSZA')])
    """
    query = raw.read(_given(raw, "query", "sentence"), str, "what happens, as a sentence")
    video = raw.read(_given(raw, "vid", "video"), (str, bytes, dict), "the name of a video")
    column = _given(raw, "relevant_windows", "timestamps", "timestamp")
    expected = "[[start, end], …] in seconds"
    windows = raw.read(column, list, expected)
    require(windows, column, "no gold answer", windows, expected)
    asked = raw.asked(query.strip().removesuffix("."), [Video(video)], id=raw.get("qid"))
    return asked.grpo(json.dumps(windows, default=str), "span")


def _given(raw: Raw, *columns: str) -> str:
    """The first of these columns that a row has; where it has none, the one that the schema names."""
    return next((column for column in columns if raw.get(column) is not None), columns[0])
