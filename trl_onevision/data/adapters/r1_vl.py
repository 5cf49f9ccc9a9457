"""R1-VL-10K: questions with the key steps of a solution, for StepGRPO.

Raw rows: `image_path`, `problem`, `solution`, `key_steps` (`{"Steps": [wording or list of equivalent wordings]}`).
The schema is the one that the released training code reads; it was not checked against the dataset itself.
"""

from collections.abc import Mapping
from typing import Any

from trl_onevision.data.prompts import Prompt
from trl_onevision.data.rows import Asked, row_id
from trl_onevision.data.schema import Purpose, RowError, read, shown

NAME = "r1-vl"
SOURCE = "jingyiZ00/R1-VL-10K"
LICENSE = None
COLUMNS = frozenset({"image_path", "problem", "solution", "key_steps"})
PROMPT: dict[Purpose, str] = {"grpo": "r1-vl"}


def to_row(example: Mapping[str, Any], purpose: Purpose, prompt: Prompt) -> dict[str, Any]:
    """A raw row as a row of the contract.

    >>> from trl_onevision.data.prompts import PROMPTS
    >>> example = {"image_path": "a.png", "problem": "How many?", "solution": "2",
    ...     "key_steps": {"Steps": ["two rows", ["6/3 = 2", "6 divided by 3 equals 2"]]}}
    >>> to_row(example, "grpo", PROMPTS["r1-vl"])["key_steps"]
    [['two rows'], ['6/3 = 2', '6 divided by 3 equals 2']]
    """
    question = read(example, "problem", str, "the question as text")
    gold = read(example, "solution", (str, int, float), "the gold answer as text")
    row = Asked(row_id(example), prompt, NAME, question, [example.get("image_path")]).gold(gold)
    return row | {"key_steps": _key_steps(read(example, "key_steps", Mapping, "{'Steps': [wordings]}").get("Steps"))}


def _key_steps(steps: Any) -> list[list[str]]:
    wordings = [[step] if isinstance(step, str) else step for step in steps] if isinstance(steps, list) else None
    if not wordings or not all(isinstance(step, list) and step for step in wordings):
        raise RowError(
            "key_steps", "no key steps", found=shown(steps), expected="{'Steps': [wording or list of wordings, …]}"
        )
    return wordings
