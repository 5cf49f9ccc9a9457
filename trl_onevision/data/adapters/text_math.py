"""Mathematics without images: `problem` and `solution`, as in MATH, GSM8K-style and OpenR1-style sets.

Raw rows: `problem`, `solution` (worked, closing with `\\boxed{…}` or `#### …`, or just the answer), `answer`
(optional: the gold). For mixing text into multimodal training: rows have `images: []`.
"""

from trl_onevision.data.rows import Raw, Row

NAME = "text-math"
SOURCE = None
LICENSE = None
COLUMNS = frozenset({"problem", "solution"})
PROMPT = {"sft": "plain", "grpo": "think-answer"}


def to_row(raw: Raw) -> Row:
    """A raw row as a row of the contract.

    >>> example = {"problem": "What is half of one?", "solution": "It is $\\\\boxed{\\\\frac12}$."}
    >>> row = to_row(Raw(example))
    >>> row["solution"], row["task"], row["images"]
    ('\\\\frac12', 'math', [])
    """
    question = raw.read("problem", str, "the problem as text")
    solution = raw.read("solution", str, "the solution as text")
    asked = raw.asked(question, images=[])
    if raw.purpose == "grpo" and (answer := raw.get("answer")) is not None:
        return asked.gold(answer)
    return asked.solved(solution, raw.purpose)
