"""Geometry3K: plane geometry with a diagram and an exact answer.

Raw rows: `images` (a list of images), `problem` (with `<image>`), `answer`.
"""

from collections.abc import Mapping
from typing import Any

from trl_onevision.data.prompts import Prompt
from trl_onevision.data.rows import Asked, row_id
from trl_onevision.data.schema import Purpose, read

NAME = "geometry3k"
SOURCE = "hiyouga/geometry3k"
LICENSE = "mit"
COLUMNS = frozenset({"images", "problem", "answer"})
PROMPT: dict[Purpose, str] = {"grpo": "think-answer"}


def to_row(example: Mapping[str, Any], purpose: Purpose, prompt: Prompt) -> dict[str, Any]:
    """A raw row as a row of the contract.

    >>> from trl_onevision.data.prompts import PROMPTS
    >>> example = {"images": [b""], "problem": "<image>Find $x$.", "answer": "2 \\\\sqrt { 3 }"}
    >>> row = to_row(example, "grpo", PROMPTS["plain"])
    >>> row["solution"], row["task"]
    ('2 \\\\sqrt { 3 }', 'math')
    """
    question = read(example, "problem", str, "the question as text")
    gold = read(example, "answer", (str, int, float), "the gold answer as text")
    images = read(example, "images", list, "a list of images")
    return Asked(row_id(example), prompt, NAME, question, images).gold(gold)
