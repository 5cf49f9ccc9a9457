"""Referring expressions as JSONL (RefCOCO and its kin, in VLM-R1's files): find what a sentence describes.

Raw rows: `image` (a path), then either `conversations` whose answer is a box, or `problem` and `solution`. A box is
`[x1, y1, x2, y2]`, a list of boxes, or `[{"bbox_2d": …, "label": …}]`; in pixels of the raw image unless
`--box-frame` says otherwise. The columns are those of other datasets too: this one has to be named.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from trl_onevision.data.prompts import Prompt
from trl_onevision.data.rows import Asked, conversation_turns, labelled_boxes, row_id
from trl_onevision.data.schema import Purpose, read

NAME = "refcoco"
SOURCE = None
LICENSE = None
COLUMNS: frozenset[str] = frozenset()
PROMPT: dict[Purpose, str] = {"grpo": "grounding"}

_DESCRIBED = re.compile(r"this sentence describes:\s*(?:<ref>)?(.+?)(?:</ref>)?[.\s]*$", re.DOTALL)


def to_row(example: Mapping[str, Any], purpose: Purpose, prompt: Prompt) -> dict[str, Any]:
    """A raw row as a row of the contract.

    >>> from trl_onevision.data.prompts import PROMPTS
    >>> example = {"image": "coco/1.jpg", "solution": [8, 8, 60, 40],
    ...     "problem": "Please provide the bounding box coordinate of the region this sentence describes: the cat"}
    >>> to_row(example, "grpo", PROMPTS["grounding"])["solution"]
    '[{"bbox_2d": [8, 8, 60, 40], "label": "the cat"}]'
    """
    if "conversations" in example:
        question, boxes = conversation_turns(example)
    else:
        question = read(example, "problem", str, "the question as text")
        boxes = read(example, "solution", (str, list), "a box [x1, y1, x2, y2] or a list of boxes")
    described = _DESCRIBED.search(question)
    label = " ".join(described.group(1).split()) if described else "object"
    asked = Asked(row_id(example), prompt, NAME, question, [example.get("image")])
    return asked.grpo(json.dumps(labelled_boxes(boxes, label)), "boxes")
