"""The step-wise rewards of R1-VL (StepGRPO, arXiv 2503.12937): key steps found, and steps in a logical order.

Alone among the rewards these two read the reasoning: that is what they are for.
"""

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from trl_onevision.answers.extract import answer_text, full_text
from trl_onevision.rewards.accuracy import AccuracyReward
from trl_onevision.rewards.rows import NamedReward, Reward, Unscorable, score_rows

Mode = Literal["paper", "code"]

_SECTION = re.compile(
    r"^[ \t]{0,3}#{2,4}[ \t]{0,3}"
    r"(?:(image description)|(rationales?)|step[ \t]{1,3}(\d{1,4})|(the final answer is))[ \t]{0,3}:",
    re.IGNORECASE | re.MULTILINE,
)
MAX_SECTIONS = 10_003  # more than any text in order has: steps 1 to 9999 and three others
_ANY_HEADER = re.compile(r"^[ \t]{0,3}#{2,4}[^#\n]", re.MULTILINE)
_THINK_TAG = re.compile(r"</?think>", re.IGNORECASE)
_OPERATORS = "=+*/^<>×÷-"
_PART = re.compile(rf"[{re.escape(_OPERATORS)}]|[^\s{re.escape(_OPERATORS)}]+")
_CODE_STEP = re.compile(r"### Step (\d{1,9}):")


@dataclass(eq=False, kw_only=True)
class StepAccuracyReward(NamedReward):
    r"""Pay for the right answer, and a little for each key step of the reference that the reasoning shows (StepRAR).

    >>> reward = StepAccuracyReward()
    >>> steps = [["radius is 3", "r = 3"], ["9 pi", r"9\pi"]]
    >>> right = "### Step 1: The radius is 3.\n### Step 2: so the area is 9 pi\n### The final answer is: 28.27"
    >>> half = "### Step 1: r = 3\n### The final answer is: 18.85"
    >>> reward([right, half, "### Step 1: r = 3"], solution=["28.27"] * 3, key_steps=[steps] * 3)
    [1.1, 0.05, 0.0]

    The reward is `1 + alpha * k` for a right answer, `alpha * k` for a wrong one, 0 for none (Eq. 2), where k is the
    fraction of `key_steps` of which one wording occurs in the reasoning: in any case and spacing, on word boundaries.
    Right is what `accuracy` pays in full.

    `mode="code"` does as the released code: a wording may be part of a word, is looked for in the bodies of
    "### Step n:" alone, and counts without any answer too.

    Returns 0 to 1 + alpha. `None` where the row has no key steps, or where `accuracy` gives `None`; steps that are no
    texts get `None` and one warning with the row's id.
    """

    mode: Mode = "paper"
    alpha: float = 0.1
    accuracy: Reward = field(default_factory=AccuracyReward)
    name: str = "step_accuracy_reward"

    def __call__(
        self,
        completions: Sequence[Any],
        solution: Sequence[Any],
        key_steps: Sequence[Sequence[Sequence[str] | str] | None],
        log_extra: Any = None,  # the table's columns are for `accuracy` to fill where it is a reward itself
        **kwargs: Any,
    ) -> list[float | None]:
        correct = self.accuracy(completions=completions, solution=solution, **kwargs)
        rows = {"completion": completions, "correct": correct, "key_steps": key_steps, "id": kwargs.get("id")}
        return score_rows(self.__name__, self._score, **rows)

    def _score(self, row: dict[str, Any]) -> float | None:
        if row["correct"] is None or not row["key_steps"]:
            return None
        wordings = wordings_of(row["key_steps"])
        if self.mode == "paper" and answer_text(row["completion"]) is None:
            return 0.0
        found = step_share(full_text(row["completion"]), wordings, self.mode)
        return (row["correct"] == 1) + self.alpha * found


@dataclass(eq=False, kw_only=True)
class StepValidityReward(NamedReward):
    r"""Pay 1 for reasoning that is complete and in a logical order (StepRVR), 0 for any other.

    >>> reward = StepValidityReward()
    >>> sections = ["Image Description: a disc", "Rationales: area", "Step 1: r = 3", "The final answer is: 9"]
    >>> lines = [f"### {section}" for section in sections]
    >>> reward(["\n".join(lines), "\n".join(lines[1:]), "\n".join(lines[::-1])])
    [1.0, 0.0, 0.0]

    Complete and logical (Eq. 3): an image description, the rationales, steps numbered 1 to n and the final answer,
    each once, none empty, in this order.

    `mode="code"` does as the released code: the description may come late, and sections and answer may be empty.

    Returns 0 or 1 for every completion, never `None`.
    """

    mode: Mode = "paper"
    name: str = "step_validity_reward"

    def __call__(self, completions: Sequence[Any], **kwargs: Any) -> list[float]:
        return [float(all(structure(full_text(completion), self.mode).values())) for completion in completions]


def structure(text: str, mode: Mode = "paper") -> dict[str, bool]:
    """Tell which requirements of R1-VL's sections a text meets.

    >>> structure("### Image Description: a disc" + chr(10) + "### Step 1: r = 3")
    {'description': True, 'rationales': False, 'steps': True, 'answer': False, 'order': False}
    """
    return _structure_of_code(text) if mode == "code" else _structure_of_paper(text)


def _structure_of_paper(text: str) -> dict[str, bool]:
    text = _THINK_TAG.sub("", text)
    found = list(itertools.islice(_SECTION.finditer(text), MAX_SECTIONS))
    kinds = [_KINDS[section.lastindex or 0] for section in found]
    filled = [kind for kind, section in zip(kinds, found, strict=True) if shows(_body(text, section.end()))]
    numbers = [int(section[3]) for section in found if section[3]]
    parts = {kind: kinds.count(kind) == filled.count(kind) == 1 for kind in ("description", "rationales", "answer")}
    parts["steps"] = filled.count("steps") == len(numbers) > 0 and numbers == list(range(1, len(numbers) + 1))
    ordered = all(parts.values()) and kinds == ["description", "rationales", *["steps"] * len(numbers), "answer"]
    return {kind: parts[kind] for kind in ("description", "rationales", "steps", "answer")} | {"order": ordered}


_KINDS = ("", "description", "rationales", "steps", "answer")


def _body(text: str, start: int) -> str:
    """Return the text of a section: up to the next header."""
    header = _ANY_HEADER.search(text, start)
    return text[start : header.start() if header else None]


def shows(text: str) -> bool:
    """Whether a text has anything that can be seen: white space and zero-width characters are nothing.

    >>> shows(" \u200b"), shows(" ?")
    (False, True)
    """
    return any(character.isprintable() and not character.isspace() for character in text)


def _structure_of_code(text: str) -> dict[str, bool]:
    numbers = [int(number) for number in _CODE_STEP.findall(text)]
    answer, last_step = text.find("### The final answer is:"), text.rfind("### Step ")
    return {
        "description": "### Image Description:" in text,
        "rationales": "### Rationales:" in text,
        "steps": bool(numbers) and numbers == list(range(1, len(numbers) + 1)),
        "answer": answer >= 0,
        "order": answer > last_step,
    }


def wordings_of(key_steps: Any) -> list[list[str]]:
    """The wordings of each key step; `Unscorable` where one is no text, or says nothing.

    >>> wordings_of(["r = 3", ["9 pi", "28.27"]])
    [['r = 3'], ['9 pi', '28.27']]
    """
    many = (list, tuple)
    steps = [[step] if isinstance(step, str) else step for step in key_steps] if isinstance(key_steps, many) else []
    texts = [isinstance(step, many) and [isinstance(one, str) and one.strip() for one in step] for step in steps]
    if not texts or not all(found and all(found) for found in texts):
        raise Unscorable(f"expected key_steps that are texts or lists of texts, not {str(key_steps)[:80]}")
    return [list(step) for step in steps]


def step_share(text: str, key_steps: Sequence[Sequence[str]], mode: Mode = "paper") -> float:
    """Return the fraction of key steps of which one wording occurs in a text.

    >>> step_share("The radius is 3, so 2*r=6.", [["radius is 3"], ["2 * r = 6", "twice 3"], ["area"], ["adius"]])
    0.5
    >>> step_share("### Step 1: The radius is 3." + chr(10) + "### Area: 9", [["adius"], ["9"]], mode="code")
    0.5
    """
    if mode == "code":
        body = "\n".join(_code_bodies(text)).lower()
        found = [any(wording.lower() in body for wording in wordings) for wordings in key_steps]
    else:
        patterns = [filter(None, map(_pattern, wordings)) for wordings in key_steps]
        found = [any(pattern.search(text) for pattern in of_step) for of_step in patterns]
    return sum(found) / len(found) if found else 0.0


def _code_bodies(text: str) -> list[str]:
    """Return what follows each "### Step n:" up to the next line that begins with ###."""
    return [part.partition("\n###")[0] for part in _CODE_STEP.split(text)[2::2]]


def key_step_spans(text: str, key_steps: Sequence[Sequence[str] | str]) -> list[tuple[int, int]]:
    """Return where a text states a key step, in any of its wordings: the characters, from and to.

    >>> key_step_spans("So 2 * R=6.", [["2*r = 6"], "12"])
    [(3, 10)]
    """
    wordings = [wording for step in key_steps for wording in ([step] if isinstance(step, str) else step)]
    patterns = filter(None, map(_pattern, wordings))
    return sorted({match.span() for pattern in patterns for match in pattern.finditer(text)})


def _pattern(wording: str) -> re.Pattern[str] | None:
    """A wording as words and numbers of its own, in any case and spacing: "2" is not in "12", "2.5", "x2" or "2/3"."""
    parts = _PART.findall(wording)
    if not parts:
        return None
    wanted = re.escape(parts[0])
    for before, part in itertools.pairwise(parts):
        # White space divides words, and means nothing around an operator
        between = r"\s*" if before in _OPERATORS or part in _OPERATORS else r"\s+"
        wanted += between + re.escape(part)
    left = r"(?<!\w)(?<!\d[.,])" if parts[0][0].isalnum() else ""
    right = r"(?!\w|[.,]\d|\s?[/^]\s?\w)" if parts[-1][-1].isalnum() else ""
    return re.compile(left + wanted + right, re.IGNORECASE)


step_accuracy_reward = StepAccuracyReward()
step_validity_reward = StepValidityReward()
