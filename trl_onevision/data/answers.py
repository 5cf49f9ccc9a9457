"""Reading raw text: the closing answer of a solution, the options of a question, the kind of a gold answer."""

from __future__ import annotations

import re
from typing import NamedTuple

from trl_onevision.data.schema import LETTERS, RowError, Task, shown

LONGEST_ANSWER = 120  # a longer "answer" is an explanation, and no rule can compare it
LONGEST_STATEMENT = 500  # an answer with what wraps it; also what keeps hostile text from costing more than a glance
CLOSING_REACH = 200  # "the answer is …" further from the end than this is a thought on the way

_TAGS = re.compile(r"</?(?:think|answer)>", re.IGNORECASE)
_ANSWER_TAG = re.compile(r"<(/?)answer>", re.IGNORECASE)
_END_OF_THINKING = re.compile(r"</think>", re.IGNORECASE)
_NAMED = r"\b(?:(?:final|correct|right)\s+)*(?:answer|option|choice)(?:\s+to\s+th(?:e|is)\s+question)?"
_STATED = re.compile(  # "Answer: …", "The final answer is: …", a heading with the answer below, "#### …"
    rf"{_NAMED}(?:\s+is)?\s*[:：]\s*|^[ \t#]*(?:the\s+)?{_NAMED}[ \t]*\n\s*|^\#{{4}}[ \t]+",
    re.IGNORECASE | re.MULTILINE,
)
_SAID = re.compile(rf"{_NAMED}\s+(?:is|would\s+be|should\s+be|must\s+be)\b\s*", re.IGNORECASE)
_WRAPPED = re.compile(
    r"^(?:\\\((.+)\\\)|\\\[(.+)\\\]|\$\$(.+)\$\$|\$(.+)\$|\\text\{([^{}]*)\}|[\"“'](.+)[\"”'])$", re.DOTALL
)
_BRACES = re.compile(r"\\boxed\s*\{|[{}]")
_LETTER = re.compile(r"^\(?([A-Z])(?:[).,:;]+(?:\s+(.*))?|\s+(.*))?$", re.DOTALL)
_ARTICLE = re.compile(r"^(?:an?|the)\s+", re.IGNORECASE)
# Where an answer ends and the reason for it begins; not behind `St.` or `p.m.`
_REASON = re.compile(
    r"(?<=[a-z0-9)%])(?<!\bSt)(?<!\bMt)(?<!\bMr)(?<!\bMs)(?<!\bDr)(?<!\bNo)(?<!\bMrs)(?<!\bVol)(?<!\.m)\.\s+(?=[A-Z])"
    r"|,?\s+because\b|,\s+(?:since|which|where|so that)\b"
)
_SINCE = re.compile(r"\s+(?:since|which|where|so that)\b")  # `B since …`, but `closed since 1990`
# What is left of a sentence when the answer is taken out of it
_STUMP = re.compile(
    rf"(?:(?:\b(?:so|thus|hence|therefore|then|and|the|my|our|is)\b|{_NAMED}|^\#+|\*\*|\\[\[(]|\$+)[\s,:：]*)+\Z",
    re.IGNORECASE | re.MULTILINE,
)
LONGEST_STUMP = 100
_BULLET = re.compile(r"[-*•][ \t]+")
_LONE_LETTER = re.compile(r"^\(?([A-Z])\)?[.:]?$")
_UNIT = (
    r"(?:[kcmµn]?(?:m|g|s|A|V|W|J|N|K|L|l|Hz|Pa|mol|Ω)|°\s?[CF]|min|hrs?|h|days?|kcal|cal|ft|in|mi|yd|lbs?|oz|deg)"
    r"(?:[²³]|\^\{?[23]\}?)?"
)
_NUMBER = re.compile(
    r"^[-+−]?\s*[$€£¥]?\s*(?=[\d.])(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+)?(?:[eE][-+]?\d+)?"
    # A word is a unit only behind a space: `3 apples`, but `3xy` is algebra.
    rf"(?:\s*(?:%|\\%|°|{_UNIT}(?:\s*/\s*{_UNIT})?)|\s+[A-Za-z]{{3,15}})?$"
)
_CLOCK = re.compile(r"^\d{1,2}:\d{2}(?!\d)")
_MATHS = re.compile(
    r"""
    [\\^=_√π∞±≤≥<>½¼¾∠] | \bsqrt\b
    | \d\s*[/*+:]\s*\d               # 3/4, 3:4
    | ^[-+]?[a-z]$ | \d\s*[a-z]\b | ^[-+]?\d+(?!st|nd|rd|th)[a-z]{2}$  # x, 2x, 3ab
    | \b[a-z]\s*[-+*/]\s*[a-z\d]\b | \d\s*[-+*/]\s*[a-z]\b  # x + 1
    | ^[\[({].*\d.*[\])}]$           # (2, 3), [0, 1), {1, 2}
    """,
    re.VERBOSE,
)
_ASKS_FOR_LETTER = re.compile(r"option.{0,3}s? letter|letter of the|choices|options\s*:|correct option", re.IGNORECASE)
_OPTION_LABELS = (
    re.compile(r"^[ \t]*\(?([A-Z])[).:、]", re.MULTILINE),
    re.compile(r"\(([A-Z])\)"),
    re.compile(r"(?<!\S)([A-Z])[.:)](?=\s)"),
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

    The last `<answer>` wins. Without one, what stands after the thinking is read: the last `\boxed{…}`, "Answer: …",
    "Final Answer" heading or `#### …`; without these, "the answer is …" at the end of the last paragraph; without any,
    a text of a few words is itself the answer. Two boxes side by side are two answers, and no gold.
    """
    if block := _last_answer_block(text):
        return _closing(text, *block)
    start = max((match.end() for match in _END_OF_THINKING.finditer(text)), default=0)
    boxes = [(at, at, end) for at, end in _boxed(text) if at >= start]
    if len(boxes) > 1 and len(text[boxes[-2][2] : boxes[-1][0]].strip(" $\\()[]")) < 8:
        return None
    plain = text.replace("**", "  ")  # Markdown's bold; the same length keeps positions true
    stated = [_statement(plain, match) for match in _STATED.finditer(plain, start)]
    if explicit := [*stated, *boxes]:
        return _closing(text, *max(explicit))
    ends = len(text.rstrip())
    last = max(start, ends - CLOSING_REACH, text.rfind("\n\n", 0, ends))
    if said := [_statement(plain, match) for match in _SAID.finditer(plain, start) if match.end() >= last]:
        return _closing(text, *said[-1])
    rest = text[start:].strip()
    if not rest or len(rest.split()) > 5 or "\n" in rest:
        return None
    at = text.find(rest, start)
    return _closing(text, at, at, at + len(rest), reasoned=False)


def _statement(text: str, match: re.Match[str]) -> tuple[int, int, int]:
    """Start of a statement, start and end of the answer in it: the rest of the line, as far as an answer can reach."""
    begin = match.end()
    if "\n" in match.group() and (bullet := _BULLET.match(text, begin)):
        begin = bullet.end()
    line = text[begin : begin + LONGEST_STATEMENT].partition("\n")[0]
    return match.start(), begin, begin + len(line)


def _last_answer_block(text: str) -> tuple[int, int, int] | None:
    """Where the last `<answer>…</answer>` starts, and its content from start to end."""
    opening, block = None, None
    for tag in _ANSWER_TAG.finditer(text):
        if not tag.group(1):
            opening = tag
        elif opening:
            block, opening = (opening.start(), opening.end(), tag.start()), None
    return block


def _closing(text: str, start: int, begin: int, end: int, reasoned: bool = True) -> Closing | None:
    """The answer in `text[begin:end]`, without the reason behind it."""
    stated = text[begin:end]
    if len(stated) > LONGEST_STATEMENT:
        return None
    if reasoned:
        stated = _without_reason(stated)
    answer = _cleaned(stated)
    return Closing(answer, start, begin + len(stated)) if answer and len(answer) <= LONGEST_ANSWER else None


def _without_reason(stated: str) -> str:
    answer = _REASON.split(stated, maxsplit=1)[0]
    short = _SINCE.split(answer, maxsplit=1)[0]
    bare = _cleaned(short)
    return short if _LONE_LETTER.match(bare) or _NUMBER.match(bare) or "$" in short or "\\" in short else answer


def _boxed(text: str) -> list[tuple[int, int]]:
    """Start and end of each `\\boxed{…}` with balanced braces, in order."""
    spans, opened = [], []
    for match in _BRACES.finditer(text):
        if match.group() != "}":
            opened.append(match)
        elif opened and (opening := opened.pop()).group() != "{":
            spans.append((opening.start(), match.end()))
    return sorted(spans)


def _cleaned(answer: str) -> str:
    """An answer without what only wraps it: a box, dollars, quotes, a final full stop."""
    previous = None
    while answer != previous:
        previous = answer
        answer = _TAGS.sub("", answer).strip().strip("*").strip()
        if boxes := _boxed(answer):
            start, end = boxes[-1]
            answer = answer[answer.index("{", start) + 1 : end - 1]
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


def read_choices(question: str) -> list[str] | None:
    """The options that a question lists, in order, or `None`.

    >>> read_choices("Which colour?\\nChoices:\\nA. red\\nB. blue")
    ['red', 'blue']
    >>> read_choices("Find x. (A) 3 (B) 5 (C) 7"), read_choices("Is C on line AB?")
    (['3', '5', '7'], None)

    Known styles: `A. …`, `(A) …`, `A: …`, `A) …`, on lines of their own or in one line; the letters must run from A
    without a gap, and the last such run counts. Two labels within a sentence are names, as in "from (A) to (B)".
    """
    for label in _OPTION_LABELS:
        labels = list(label.finditer(question))
        ends = [following.start() for following in labels[1:]] + [len(question)]
        runs: list[list[str]] = []
        begins_list = False
        for match, end in zip(labels, ends, strict=False):
            option = question[match.end() : end].strip(" \t").partition("\n")[0].strip(" \t\r,;")
            if match.group(1) == "A":
                runs.append([])
                before = question[: match.start()].rstrip(" \t")
                begins_list = not before or before[-1] in "\n.:;?!：。；？！" or "\n" in match.group()
            if runs and option and match.group(1) == chr(ord("A") + len(runs[-1])):
                runs[-1].append(option)
        if runs and len(runs[-1]) >= (2 if begins_list else 3):
            return runs[-1]
    return None


def classify(answer: str, question: str, choices: list[str] | None = None) -> tuple[str, Task]:
    """The gold as a reward reads it, and the task that scores it.

    >>> classify("B. 5 cm", "How long?\\nA. 3 cm\\nB. 5 cm", ["3 cm", "5 cm"]), classify("1,200 kg", "How heavy?")
    (('B', 'choice'), ('1,200 kg', 'number'))
    >>> classify("\\\\frac{1}{2}", "What share?"), classify("Yes", "Is it red?")
    (('\\\\frac{1}{2}', 'math'), ('Yes', 'text'))

    Raises `RowError` when the question has options and the answer is none of them.
    """
    if choices:
        return _option(answer, choices), "choice"
    if (letter := _LONE_LETTER.match(answer)) and _ASKS_FOR_LETTER.search(question):
        return letter.group(1), "choice"
    if _NUMBER.match(answer):
        return answer, "number"
    if _MATHS.search(answer) and not _CLOCK.match(answer):
        return answer, "math"
    return answer, "text"


def _option(answer: str, choices: list[str]) -> str:
    folded = [_cleaned(choice).casefold() for choice in choices]
    for text in (answer.casefold(), _ARTICLE.sub("", answer).casefold()):
        if folded.count(text) == 1:
            return chr(ord("A") + folded.index(text))
    letters = LETTERS[: len(choices)]
    match = _LETTER.match(_without_reason(answer))
    several = re.match(r"^\(?[A-Z]\)?\s*(?:,|and|or|&|/)\s*\(?[A-Z]\b", answer)
    if match and match.group(1) in letters and not several:
        letter, behind_space = match.group(1), match.group(3)
        # `B 5 cm` is option B where that is its text; `A cat` is none
        if not behind_space or _cleaned(behind_space).casefold() == folded[letters.index(letter)]:
            return letter
    raise RowError(
        "solution", "gold is no option", found=shown(answer), expected=f"a letter of {letters} or an option's text"
    )
