"""Geometry3K: plane geometry with a diagram and an exact answer.

Raw rows: `images` (a list of images), `problem` (with `<image>`), `answer`.
"""

from trl_onevision.data.rows import Raw, Row

NAME = "geometry3k"
SOURCE = "hiyouga/geometry3k"
LICENSE = "mit"
COLUMNS = frozenset({"images", "problem", "answer"})
PROMPT = {"grpo": "think-answer"}


def to_row(raw: Raw) -> Row:
    """A raw row as a row of the contract.

    >>> example = {"images": [b""], "problem": "<image>Find $x$.", "answer": "2 \\\\sqrt { 3 }"}
    >>> row = to_row(Raw(example))
    >>> row["solution"], row["task"]
    ('2 \\\\sqrt { 3 }', 'math')
    """
    question = raw.read("problem", str, "the question as text")
    gold = raw.read("answer", (str, int, float), "the gold answer as text")
    images = raw.read("images", list, "a list of images")
    return raw.asked(question, images).gold(gold)
