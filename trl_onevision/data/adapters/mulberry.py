"""Mulberry-SFT: 260k solutions in R1-VL's `###` sections, its warm-up data.

Raw rows: `messages` (`[{"role": "user", …}, {"role": "assistant", …}]`, contents are text), `images` (paths into the
unpacked archive: give its folder as `--images`). Completions are kept in their sections.
"""

from collections.abc import Mapping
from typing import Any

from trl_onevision.data.prompts import Prompt
from trl_onevision.data.rows import Asked, row_id
from trl_onevision.data.schema import Purpose, RowError, read, shown
from trl_onevision.data.solutions import closing_answer

NAME = "mulberry"
SOURCE = "HuanjinYao/Mulberry-SFT"
LICENSE = None
COLUMNS: frozenset[str] = frozenset()  # `messages` and `images` are TRL's own columns: named, never recognised
PROMPT: dict[Purpose, str] = {"sft": "plain", "grpo": "plain"}  # the questions carry the prompt already


def to_row(example: Mapping[str, Any], purpose: Purpose, prompt: Prompt) -> dict[str, Any]:
    """A raw row as a row of the contract.

    >>> from trl_onevision.data.prompts import PROMPTS
    >>> example = {"images": ["a.png"], "messages": [{"role": "user", "content": "<image>How many?"},
    ...     {"role": "assistant", "content": "### Step 1:\\nTwo rows.\\n\\n### The final answer is: 2"}]}
    >>> to_row(example, "grpo", PROMPTS["plain"])["solution"]
    '2'
    """
    messages = read(example, "messages", list, "two messages")
    images = read(example, "images", list, "a list of paths")
    turns = [turn for turn in messages if isinstance(turn, Mapping) and isinstance(turn.get("content"), str)]
    if [turn.get("role") for turn in turns] != ["user", "assistant"]:
        raise RowError(
            "messages", "not one question and one solution", found=shown(messages), expected="user, assistant"
        )
    question, solution = (turn["content"] for turn in turns)
    asked = Asked(row_id(example), prompt, NAME, question, images)
    if purpose == "sft":
        return asked.sft(solution)
    gold = closing_answer(solution)
    return asked.gold(gold.answer if gold else None)
