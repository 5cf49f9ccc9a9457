"""Referring expressions as JSONL (RefCOCO and its kin, in VLM-R1's files): find what a sentence describes.

Raw rows: `image` (a path), then either `conversations` whose answer is a box, or `problem` and `solution`. A box is
`[x1, y1, x2, y2]`, a list of boxes, or `[{"bbox_2d": …, "label": …}]`; in pixels of the raw image unless
`--box-frame` says otherwise. The columns are those of other datasets too: this one has to be named.
"""

import json
import re

from trl_onevision.data.rows import Raw, Row, conversation_turns, labelled_boxes

NAME = "refcoco"
SOURCE = None
LICENSE = None
COLUMNS: frozenset[str] = frozenset()
PROMPT = {"grpo": "grounding"}

_DESCRIBED = re.compile(r"this sentence describes:\s*(?:<ref>)?(.+?)(?:</ref>)?[.\s]*$", re.DOTALL)


def to_row(raw: Raw) -> Row:
    """A raw row as a row of the contract.

    >>> example = {"image": "coco/1.jpg", "solution": [8, 8, 60, 40],
    ...     "problem": "Please provide the bounding box coordinate of the region this sentence describes: the cat"}
    >>> to_row(Raw(example))["solution"]
    '[{"bbox_2d": [8, 8, 60, 40], "label": "the cat"}]'
    """
    if "conversations" in raw.columns:
        question, boxes = conversation_turns(raw)
    else:
        question = raw.read("problem", str, "the question as text")
        boxes = raw.read("solution", (str, list), "a box [x1, y1, x2, y2] or a list of boxes")
    described = _DESCRIBED.search(question)
    label = " ".join(described.group(1).split()) if described else "object"
    return raw.asked(question, [raw.get("image")]).grpo(json.dumps(labelled_boxes(boxes, label)), "boxes")
