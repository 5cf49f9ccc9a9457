"""Questions: the options that one lists, and the gold and task of its answer."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import cast

from trl_onevision.answers.choice import LETTERS, gold_choices, without_label
from trl_onevision.answers.markup import plain
from trl_onevision.answers.task import task_of
from trl_onevision.data.schema import Task, require

_LABELS = (  # where a line begins with one, then "(A)", then "A." or "A、" in one line
    re.compile(r"^[ \t]*(?:[-*•][ \t]+)?(?:\*\*)?[(（]?([A-Z])[)）.．:：、](?:\*\*)?", re.MULTILINE),
    re.compile(r"[(（]([A-Z])[)）]"),
    re.compile(r"(?<![^\s。：；？])([A-Z])(?:[.:)](?=\s)|[．、：])"),
)


def read_choices(question: str) -> list[str] | None:
    """The options that a question lists, in order, or `None`.

    >>> read_choices("Which colour?\\nChoices:\\nA. red\\nB. blue")
    ['red', 'blue']
    >>> read_choices("Find x. (A) 3 (B) 5 (C) 7"), read_choices("Is C on line AB?"), read_choices("求x。A．3　B．4")
    (['3', '5', '7'], None, ['3', '4'])

    Known styles: `A. …`, `(A) …`, `A: …`, `A) …`, `A、…`, `**A.** …`, `- A) …`, on lines of their own or in one
    line; the letters must run from A without a gap, and the last such run counts. Two labels within a sentence
    are names, as in "from (A) to (B)".
    """
    for label in _LABELS:
        labels = list(label.finditer(question))
        ends = [following.start() for following in labels[1:]] + [len(question)]
        runs: list[list[str]] = []
        begins_list = False
        for match, end in zip(labels, ends, strict=False):
            option = question[match.end() : end].strip(" \t\u3000").partition("\n")[0].strip(" \t\r\u3000,;")
            if match.group(1) == "A":
                runs.append([])
                before = question[: match.start()].rstrip(" \t\u3000")
                begins_list = not before or before[-1] in "\n.:;?!：。；？！" or "\n" in match.group()
            if runs and option and match.group(1) == chr(ord("A") + len(runs[-1])):
                runs[-1].append(option)
        if runs and len(runs[-1]) >= (2 if begins_list else 3):
            return runs[-1]
    return None


def bare_choices(choices: Sequence[str]) -> list[str]:
    """Options without the labels that they all carry themselves.

    >>> bare_choices(["A) red", "B) blue"]), bare_choices(["A. Smith", "Jones"])
    (['red', 'blue'], ['A. Smith', 'Jones'])
    """
    bare = [without_label(choice, label) for choice, label in zip(choices, LETTERS, strict=False)]
    changed = len(choices) <= len(LETTERS) and all(one != choice for one, choice in zip(bare, choices, strict=True))
    return bare if changed else list(choices)


def classify(answer: str, question: str, choices: list[str] | None = None) -> tuple[str, Task]:
    """The gold as a reward reads it, and the task that scores it, as `answers.task` guesses it.

    >>> classify("B. 5 cm", "How long?\\nA. 3 cm\\nB. 5 cm", ["3 cm", "5 cm"]), classify("1,200 kg", "How heavy?")
    (('B', 'choice'), ('1,200 kg', 'number'))
    >>> classify("\\\\frac{1}{2}", "What share?"), classify("AC", "Which?", ["3", "5", "7"])
    (('\\\\frac{1}{2}', 'math'), ('["A", "C"]', 'choice'))

    Raises `RowError` when the question has options and the answer is none of them.
    """
    if not choices:
        task = task_of(answer, question)
        letter = re.fullmatch(r"\W?([A-Z])\W{0,2}", plain(answer)) if task == "choice" else None
        return letter[1] if letter else answer, cast(Task, task)
    picks = gold_choices(answer, choices)
    letters = sorted(picks[0]) if picks else []
    known = LETTERS[: len(choices)]
    fine = letters and set(letters) <= set(known)
    require(fine, "solution", "gold is no option", answer, f"a letter of {known} or an option's text")
    return letters[0] if len(letters) == 1 else json.dumps(letters), "choice"
