"""Worked solutions: the answer that one closes with, and the solution as thinking and answer."""

from __future__ import annotations

import re
from typing import NamedTuple

from trl_onevision.answers.extract import boxes, split, statements, tagged_span
from trl_onevision.answers.sentence import without_reason
from trl_onevision.data.schema import RowError, shown

LONGEST_ANSWER = 120  # a longer "answer" is an explanation, and no rule can compare it
LONGEST_STATEMENT = 500  # an answer with what wraps it; also what keeps hostile text from costing more than a glance
CLOSING_REACH = 200  # "the answer is …" further from the end than this is a thought on the way
LONGEST_STUMP = 100

_TAGS = re.compile(r"</?(?:think|answer)>", re.IGNORECASE)
_WRAPPED = re.compile(
    r"^(?:\\\((.+)\\\)|\\\[(.+)\\\]|\$\$(.+)\$\$|\$(.+)\$|\\text\{([^{}]*)\}|[\"“'](.+)[\"”'])$", re.DOTALL
)
# What is left of a sentence when the answer is taken out of it
_STUMP = re.compile(
    r"(?:(?:\b(?:so|thus|hence|therefore|then|and|the|my|our|is|final|correct|right|answer|option|choice)\b|^\#+|\*\*"
    r"|\\[\[(]|\$+)[\s,:：]*)+\Z",
    re.IGNORECASE | re.MULTILINE,
)


class Closing(NamedTuple):
    """An answer, and where the statement of it starts and ends in the text."""

    answer: str
    start: int
    end: int


def closing_answer(text: str) -> Closing | None:
    r"""The answer that a worked solution closes with, or `None`.

    >>> [closing_answer(text).answer for text in (
    ...     "So it is 5.\n\n**Answer:** B. 5 cm", "Thus the final answer is $\\frac{1}{2}$.",
    ...     "… = \\boxed{\\frac{1}{2}}", "**Final Answer**\n\n42",
    ...     "<think>no, 7</think><answer> 8 </answer>", "so 6 x 7 = 42\n#### 42", "Yes",
    ... )]
    ['B. 5 cm', '\\frac{1}{2}', '\\frac{1}{2}', '42', '8', '42', 'Yes']
    >>> closing_answer("The picture shows a cat on a mat, and it looks to the left for some reason.") is None
    True

    The last `<answer>` wins. Without one, the last statement after the thinking counts, as `answers.extract`
    finds them; a sentence ("the answer is …") only at the end of the last paragraph. Without any, a text of a few
    words is itself the answer. Two boxes side by side are two answers, and no gold.
    """
    block = tagged_span(text)
    if block is not None:
        return _closing(text, *block)
    start = len(text) - len(split(text).content)
    found = boxes(text[start:])
    if len(found) > 1 and len(text[start + found[-2][2] + 1 : start + found[-1][0]].strip(" $\\()[]")) < 8:
        return None
    ends = len(text.rstrip())
    last = max(start, ends - CLOSING_REACH, text.rfind("\n\n", 0, ends))
    for statement in statements(text[start:]):
        head, begin = text[start + statement.start : start + statement.begin], start + statement.begin
        if begin >= last or re.search(r"[:：]\W*\Z|^\#|\n|\\(?:boxed|fbox)", head):
            return _closing(text, start + statement.start, begin, start + statement.end)
    rest = text[start:].strip()
    if not rest or len(rest.split()) > 5 or "\n" in rest:
        return None
    at = text.find(rest, start)
    return _closing(text, at, at, at + len(rest), reasoned=False)


def _closing(text: str, start: int, begin: int, end: int, reasoned: bool = True) -> Closing | None:
    """The answer in `text[begin:end]`, without the reason behind it."""
    stated = text[begin:end]
    if len(stated) > LONGEST_STATEMENT:
        return None
    if reasoned:
        stated = without_reason(stated)
    answer = cleaned(stated)
    return Closing(answer, start, begin + len(stated)) if answer and len(answer) <= LONGEST_ANSWER else None


def cleaned(answer: str) -> str:
    r"""An answer without what only wraps it: a box, dollars, quotes, a final full stop.

    >>> cleaned(r"**$\boxed{5}$**."), cleaned('"Paris".')
    ('5', 'Paris')
    """
    previous = None
    while answer != previous:
        previous = answer
        answer = _TAGS.sub("", answer).strip().strip("*").strip()
        if found := boxes(answer):
            answer = answer[found[-1][1] : found[-1][2]]
        elif wrapped := _WRAPPED.match(answer):
            inner = next(group for group in wrapped.groups() if group is not None)
            answer = answer if "$" in inner and answer.startswith("$") else inner
        answer = answer.removesuffix(".").removesuffix("。")
        answer = re.sub(r"^(?:option|choice)\s+(?=\(?[A-Z]\b)", "", answer, flags=re.IGNORECASE)
    return answer


def tagged_completion(text: str) -> str:
    """A worked solution as one think block and one answer block, however the raw text was tagged.

    >>> print(tagged_completion("There are two rows of three.\\n\\nAnswer: 6"))
    <think>
    There are two rows of three.
    </think>
    <answer>
    6
    </answer>

    Nothing of the reasoning is lost: what stands around the closing answer joins the thinking.
    Where no answer can be read, the last paragraph is the answer. Raises `RowError` where no reasoning is left.
    """
    closing = closing_answer(text)
    if closing is None:
        thinking, _, answer = _TAGS.sub("", text).strip().rpartition("\n\n")
    else:
        around = _without_stump(text[: closing.start]), _without_rest(text[closing.end :])
        thinking, answer = "\n\n".join(filter(None, around)), closing.answer
    if not thinking or not answer.strip():
        raise RowError(
            "completion", "no reasoning before the answer", found=shown(text), expected="a solution and its answer"
        )
    return f"<think>\n{thinking}\n</think>\n<answer>\n{answer.strip()}\n</answer>"


def _without_stump(head: str) -> str:
    """What stands before an answer, without the words that led to it."""
    head = _TAGS.sub("", head).strip()
    cut = max(len(head) - LONGEST_STUMP, 0)
    return (head[:cut] + _STUMP.sub("", head[cut:])).strip()


def _without_rest(tail: str) -> str:
    """What stands behind an answer, without the rest of its punctuation."""
    line, newline, more = _TAGS.sub("", tail).partition("\n")
    line = line.lstrip(" .,;:*)。") if any(map(str.isalnum, line)) else ""
    tail = (line + newline + more).strip()
    return tail if any(map(str.isalnum, tail)) else ""
