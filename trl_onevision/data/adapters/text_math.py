"""Mathematics without images: `problem` and `solution`, as in MATH, GSM8K-style and OpenR1-style sets.

Raw rows: `problem`, `solution` (worked, closing with `\\boxed{…}` or `#### …`, or just the answer), `answer`
(optional: the gold). For mixing text into multimodal training: rows have `images: []`.
"""

from collections.abc import Mapping
from typing import Any

from trl_onevision.data.prompts import Prompt
from trl_onevision.data.rows import Asked, row_id
from trl_onevision.data.schema import Purpose, read

NAME = "text-math"
SOURCE = None
LICENSE = None
COLUMNS = frozenset({"problem", "solution"})
PROMPT: dict[Purpose, str] = {"sft": "plain", "grpo": "think-answer"}


def to_row(example: Mapping[str, Any], purpose: Purpose, prompt: Prompt) -> dict[str, Any]:
    """A raw row as a row of the contract.

    >>> from trl_onevision.data.prompts import PROMPTS
    >>> example = {"problem": "What is half of one?", "solution": "It is $\\\\boxed{\\\\frac12}$."}
    >>> row = to_row(example, "grpo", PROMPTS["plain"])
    >>> row["solution"], row["task"], row["images"]
    ('\\\\frac12', 'math', [])
    """
    question = read(example, "problem", str, "the problem as text")
    solution = read(example, "solution", str, "the solution as text")
    asked = Asked(row_id(example), prompt, NAME, question, images=[])
    if purpose == "grpo" and example.get("answer") is not None:
        return asked.gold(example["answer"])
    return asked.solved(solution, purpose)
