"""CLEVR counting in the form of R1-V: the data of R1-Onevision's own RL stage, by its published stand-in.

Raw rows: `image`, `problem`, `solution` (`<answer> 3 </answer>`). Any set in this form can be read so.
"""

from trl_onevision.data.rows import Raw, Row

NAME = "clevr"
SOURCE = "leonardPKU/clevr_cogen_a_train"
LICENSE = None
COLUMNS = frozenset({"image", "problem", "solution"})
PROMPT = {"grpo": "r1-onevision"}


def to_row(raw: Raw) -> Row:
    """A raw row as a row of the contract.

    >>> example = {"image": b"", "problem": "How many?", "solution": "<answer> 3 </answer>"}
    >>> row = to_row(Raw(example))
    >>> row["solution"], row["task"]
    ('3', 'number')
    """
    question = raw.read("problem", str, "the question as text")
    gold = raw.read("solution", (str, int, float), "the gold answer, as in '<answer> 3 </answer>'")
    return raw.asked(question, [raw.get("image")]).gold(gold)
