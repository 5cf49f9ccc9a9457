"""R1-VL-10K: questions with the key steps of a solution, for StepGRPO.

Raw rows: `image_path`, `problem`, `solution`, `key_steps` (`{"Steps": [wording or list of equivalent wordings]}`).
The schema is the one that the released training code reads; it was not checked against the dataset itself.
"""

from trl_onevision.data.rows import Raw, Row
from trl_onevision.data.schema import require

NAME = "r1-vl"
SOURCE = "jingyiZ00/R1-VL-10K"
LICENSE = None
COLUMNS = frozenset({"image_path", "problem", "solution", "key_steps"})
PROMPT = {"grpo": "r1-vl"}


def to_row(raw: Raw) -> Row:
    """A raw row as a row of the contract.

    >>> example = {"image_path": "a.png", "problem": "How many?", "solution": "2",
    ...     "key_steps": {"Steps": ["two rows", ["6/3 = 2", "6 divided by 3 equals 2"]]}}
    >>> to_row(Raw(example))["key_steps"]
    [['two rows'], ['6/3 = 2', '6 divided by 3 equals 2']]
    """
    question = raw.read("problem", str, "the question as text")
    gold = raw.read("solution", (str, int, float), "the gold answer as text")
    row = raw.asked(question, [raw.get("image_path")]).gold(gold)
    return row | {"key_steps": _key_steps(raw.read("key_steps", dict, "{'Steps': [wordings]}").get("Steps"))}


def _key_steps(steps: object) -> list[list[str]]:
    wordings = [[step] if isinstance(step, str) else step for step in steps] if isinstance(steps, list) else None
    fine = wordings and all(isinstance(step, list) and step for step in wordings)
    require(fine, "key_steps", "no key steps", steps, "{'Steps': [wording or list of wordings, …]}")
    return wordings or []
