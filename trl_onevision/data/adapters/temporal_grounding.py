"""Temporal grounding as JSON lines (Charades-STA, QVHighlights and TACoS as Moment-DETR publishes them): when is it?

Raw rows: `qid`, `query`, `vid` (the name of a video, with or without suffix: give its folder as `--images`),
`relevant_windows` (`[[start, end], …]`) in seconds. Read as well: `sentence` for the query, `video` for the name, and
`timestamps` or `timestamp`, one pair or several, for the windows. The rows are of the task `span`.
"""

import json
from collections.abc import Mapping
from typing import Any

from trl_onevision.data.prompts import Prompt
from trl_onevision.data.rows import Asked, row_id
from trl_onevision.data.schema import Purpose, RowError, read, shown
from trl_onevision.data.videos import Video

NAME = "temporal-grounding"
SOURCE = None
LICENSE = None
COLUMNS = frozenset({"qid", "query", "vid", "relevant_windows"})
PROMPT: dict[Purpose, str] = {"grpo": "time-r1"}


def to_row(example: Mapping[str, Any], purpose: Purpose, prompt: Prompt) -> dict[str, Any]:
    """A raw row as a row of the contract.

    >>> from trl_onevision.data.prompts import PROMPTS
    >>> example = {"qid": 3, "query": "person turn a light on.", "vid": "3MSZA", "duration": 30.96,
    ...     "relevant_windows": [[24.3, 30.4]]}
    >>> row = to_row(example, "grpo", PROMPTS["plain"])
    >>> row["solution"], row["task"], row["images"]
    ('[[24.3, 30.4]]', 'span', [Video(value='3MSZA')])
    """
    query = read(example, _given(example, "query", "sentence"), str, "what happens, as a sentence")
    video = read(example, _given(example, "vid", "video"), (str, bytes, Mapping), "the name of a video")
    column = _given(example, "relevant_windows", "timestamps", "timestamp")
    windows = read(example, column, list, "[[start, end], …] in seconds")
    if not windows:
        raise RowError(column, "no gold answer", found=shown(windows), expected="[[start, end], …] in seconds")
    qid = example.get("qid")
    name = row_id(example) if qid is None else str(qid)
    asked = Asked(name, prompt, NAME, query.strip().removesuffix("."), [Video(video)])
    return asked.grpo(json.dumps(windows, default=str), "span")


def _given(example: Mapping[str, Any], *columns: str) -> str:
    """The first of these columns that a row has; where it has none, the one that the schema names."""
    return next((column for column in columns if example.get(column) is not None), columns[0])
