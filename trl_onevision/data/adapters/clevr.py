"""CLEVR counting in the form of R1-V: the data of R1-Onevision's own RL stage, by its published stand-in.

Raw rows: `image`, `problem`, `solution` (`<answer> 3 </answer>`). Any set in this form can be read so.
"""

from collections.abc import Mapping
from typing import Any

from trl_onevision.data.prompts import Prompt
from trl_onevision.data.rows import Asked, row_id
from trl_onevision.data.schema import Purpose, read

NAME = "clevr"
SOURCE = "leonardPKU/clevr_cogen_a_train"
LICENSE = None
COLUMNS = frozenset({"image", "problem", "solution"})
PROMPT: dict[Purpose, str] = {"grpo": "r1-onevision"}


def to_row(example: Mapping[str, Any], purpose: Purpose, prompt: Prompt) -> dict[str, Any]:
    """A raw row as a row of the contract.

    >>> from trl_onevision.data.prompts import PROMPTS
    >>> example = {"image": b"", "problem": "How many?", "solution": "<answer> 3 </answer>"}
    >>> row = to_row(example, "grpo", PROMPTS["plain"])
    >>> row["solution"], row["task"]
    ('3', 'number')
    """
    question = read(example, "problem", str, "the question as text")
    gold = read(example, "solution", (str, int, float), "the gold answer, as in '<answer> 3 </answer>'")
    return Asked(row_id(example), prompt, NAME, question, [example.get("image")]).gold(gold)
