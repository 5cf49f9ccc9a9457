"""VLM-R1's JSONL, which R1-Onevision's RL code reads too: short gold answers in a conversation.

Raw rows: `id`, `image` (a path, or a list of paths), `conversations`, `accu_reward_method` (`mcq`, `default`, …;
optional). A file without the last column looks like R1-Onevision's and has to be named. A gold that holds `bbox_2d`
(its method is `map`) is boxes, in pixels of the raw image unless `--box-frame` says otherwise.
"""

import json

from trl_onevision.data.rows import Raw, Row, conversation_turns, labelled_boxes

NAME = "vlm-r1"
SOURCE = None
LICENSE = None
COLUMNS = frozenset({"id", "image", "conversations", "accu_reward_method"})
PROMPT = {"grpo": "think-answer"}


def to_row(raw: Raw) -> Row:
    """A raw row as a row of the contract.

    >>> example = {"image": "a.png", "accu_reward_method": "mcq", "conversations": [
    ...     {"from": "human", "value": "<image>Which?\\nA. red\\nB. blue"}, {"from": "gpt", "value": "B"}]}
    >>> row = to_row(Raw(example))
    >>> row["solution"], row["task"], row["choices"]
    ('B', 'choice', ['red', 'blue'])
    """
    question, gold = conversation_turns(raw)
    image = raw.read("image", (str, list, bytes, dict), "a path or a list of paths")
    asked = raw.asked(question, image if isinstance(image, list) else [image])
    if '"bbox_2d"' in gold:
        return asked.grpo(json.dumps(labelled_boxes(gold, "object")), "boxes")
    return asked.gold(gold, "choice" if raw.get("accu_reward_method") == "mcq" else None)
