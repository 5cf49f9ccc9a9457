"""VLM-R1's JSONL, which R1-Onevision's RL code reads too: short gold answers in a conversation.

Raw rows: `id`, `image` (a path, or a list of paths), `conversations`, `accu_reward_method` (`mcq`, `default`, …;
optional). A file without the last column looks like R1-Onevision's and has to be named. A gold that holds `bbox_2d`
(its method is `map`) is boxes, in pixels of the raw image unless `--box-frame` says otherwise.
"""

import json
from collections.abc import Mapping
from typing import Any

from trl_onevision.data.prompts import Prompt
from trl_onevision.data.rows import Asked, conversation_turns, labelled_boxes, row_id
from trl_onevision.data.schema import Purpose, read

NAME = "vlm-r1"
SOURCE = None
LICENSE = None
COLUMNS = frozenset({"id", "image", "conversations", "accu_reward_method"})
PROMPT: dict[Purpose, str] = {"grpo": "think-answer"}


def to_row(example: Mapping[str, Any], purpose: Purpose, prompt: Prompt) -> dict[str, Any]:
    """A raw row as a row of the contract.

    >>> from trl_onevision.data.prompts import PROMPTS
    >>> example = {"image": "a.png", "accu_reward_method": "mcq", "conversations": [
    ...     {"from": "human", "value": "<image>Which?\\nA. red\\nB. blue"}, {"from": "gpt", "value": "B"}]}
    >>> row = to_row(example, "grpo", PROMPTS["plain"])
    >>> row["solution"], row["task"], row["choices"]
    ('B', 'choice', ['red', 'blue'])
    """
    question, gold = conversation_turns(example)
    image = read(example, "image", (str, list, bytes, dict), "a path or a list of paths")
    asked = Asked(row_id(example), prompt, NAME, question, image if isinstance(image, list) else [image])
    if '"bbox_2d"' in gold:
        return asked.grpo(json.dumps(labelled_boxes(gold, "object")), "boxes")
    return asked.gold(gold, "choice" if example.get("accu_reward_method") == "mcq" else None)
