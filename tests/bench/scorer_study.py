"""Where rule scorer and literal reading disagree, and where the rules err: `python tests/bench/scorer_study.py`.

Literal is what the released reward does for most golds: the stated answer, compared with the gold character by
character. `docs/bench.md` holds the table that this prints.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from trl_onevision.bench.answer import Answer
from trl_onevision.bench.score import Scored, score
from trl_onevision.bench.tsv import BenchRow


@dataclass(frozen=True)
class Case:
    """A prediction, whether a careful reader finds it right, and what it shows."""

    gold: str
    completion: str
    right: bool
    why: str
    choices: tuple[str, ...] = ()
    finished: bool = True


COLOURS = ("red", "blue", "green")
CASES = (
    Case("B", "<think>A?</think><answer>B</answer>", True, "the letter and nothing else", COLOURS),
    Case("B", "<answer>(B) blue</answer>", True, "letter with its text", COLOURS),
    Case("B", "<answer>The squares are blue.</answer>", True, "the option's text, no letter", COLOURS),
    Case("B", "<answer>B, because A is red</answer>", True, "a reason that names another letter", COLOURS),
    Case("B", "<answer>A or B</answer>", False, "two options are not one", COLOURS),
    Case("B", "<think>It is B.</think><answer>C</answer>", False, "the thinking is not the answer", COLOURS),
    Case("B", "<think>The answer is B. But wait,", False, "cut off while thinking", COLOURS, finished=False),
    Case("B", "Both are filled.\n\nB", True, "no tags: the last line", COLOURS),
    Case("B", "All three are filled.\n\nSo I would choose the second option.", True, "no letter, no text", COLOURS),
    Case("4.5 cm", "<answer>4.5</answer>", True, "the unit is left out"),
    Case("4.5 cm", "<answer>45 mm</answer>", True, "another unit, converted"),
    Case("4.5", r"<answer>$4.50\,\text{cm}$</answer>", True, "LaTeX and a unit that the gold leaves out"),
    Case("4.5 cm", "<answer>4.5 m</answer>", False, "units are ignored, as the paper's judge was told"),
    Case("1200", "<answer>1,200</answer>", True, "separators"),
    Case("1200", "<answer>about 1,190</answer>", False, "close is not equal"),
    Case(r"\frac{3}{4}", "<answer>0.75</answer>", True, "a fraction as a decimal"),
    Case(r"2\sqrt{3}", r"The answer is \(\sqrt{12}\).", True, "equal by algebra"),
    Case(r"x^2+2x+1", r"\boxed{(x+1)^2}", True, "equal by algebra"),
    Case("Newton", "<answer>newton.</answer>", True, "case and full stop"),
    Case("a square", "<answer>The square</answer>", True, "an article"),
    Case("square", "<answer>an equilateral rectangle</answer>", True, "another wording: a judge would see it"),
    Case("yes", "<answer>Yes, it is.</answer>", True, "a yes with words"),
)


def verdicts() -> list[tuple[Case, Scored]]:
    """Each case with its score."""
    rows = [
        BenchRow(str(n), "Which?", list(case.choices) or None, case.gold, "", "", "") for n, case in enumerate(CASES)
    ]
    answers = [Answer(str(n), case.completion, case.finished) for n, case in enumerate(CASES)]
    return list(zip(CASES, score(rows, answers), strict=True))


def table() -> Iterator[str]:
    """Yield the lines of both tables: where rule and literal reading differ, and where the rule is wrong."""
    found = verdicts()
    disagree = [(case, one) for case, one in found if one.correct != one.literal]
    wrong = [(case, one) for case, one in found if one.correct != case.right]
    yield f"Of {len(found)} predictions, rule and literal reading disagree on {len(disagree)}; a careful reader sides"
    yield f"with the literal reading on {sum(case.right == one.literal for case, one in disagree)} of these."
    yield from _lines(disagree)
    yield ""
    yield f"The rule is wrong, by the reader, on {len(wrong)} of {len(found)}:"
    yield from _lines(wrong)


def _lines(cases: Iterable[tuple[Case, Scored]]) -> Iterator[str]:
    yield from ("", "| gold | prediction | literal | rule | reader | what it shows |", "| --- " * 6 + "|")
    for case, one in cases:
        shown = case.completion.replace("\n", "⏎").replace("|", "\\|")
        marks = ["right" if verdict else "wrong" for verdict in (one.literal, one.correct, case.right)]
        yield f"| `{case.gold}` | `{shown}` | {' | '.join(marks)} | {case.why} |"


if __name__ == "__main__":
    sys.stdout.write("\n".join(table()) + "\n")
