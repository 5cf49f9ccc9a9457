"""R1-Onevision: 155k worked solutions, for SFT and, by their closing answers, for GRPO.

Raw rows: `id`, `image` (base64), `conversations` (`[{"from": "human", "value": …}, {"from": "gpt", "value": …}]`).
`<image>` is missing from some questions and `<think>` from some solutions.
"""

from collections.abc import Mapping
from typing import Any

from trl_onevision.data.prompts import Prompt
from trl_onevision.data.rows import Asked, conversation_turns, row_id
from trl_onevision.data.schema import Purpose, read

NAME = "r1-onevision"
SOURCE = "Fancy-MLLM/R1-Onevision"
LICENSE = "apache-2.0"
COLUMNS = frozenset({"id", "image", "conversations"})
PROMPT: dict[Purpose, str] = {"sft": "plain", "grpo": "r1-onevision"}


def to_row(example: Mapping[str, Any], purpose: Purpose, prompt: Prompt) -> dict[str, Any]:
    """A raw row as a row of the contract.

    >>> from trl_onevision.data.prompts import PROMPTS
    >>> example = {"id": "7", "image": "iVBORw0KGgo=", "conversations": [
    ...     {"from": "human", "value": "How many cubes?"}, {"from": "gpt", "value": "Two and one.\\n\\nAnswer: 3"}]}
    >>> row = to_row(example, "grpo", PROMPTS["plain"])
    >>> row["solution"], row["task"], row["prompt"][0]["content"][0]
    ('3', 'number', {'type': 'image'})
    """
    question, solution = conversation_turns(example)
    image = read(example, "image", (str, bytes, dict), "an image in base64")
    return Asked(row_id(example), prompt, NAME, question, [image]).solved(solution, purpose)
