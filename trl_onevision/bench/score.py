"""The deterministic scorer: the rules of the rewards, read as the paper's judge was told to read.

The paper lets a model extract the answer and another compare it. Here `answer_text` extracts and `AccuracyReward`
compares, so that a benchmark and a reward never disagree about the same answer, with two rules more:

- A completion that states no answer ("B", or reasoning that just ends) is read by its last line.
- A free-form gold that is a number is compared without its unit too, as the paper's judge was told.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from trl_onevision.answers import compare, parse
from trl_onevision.answers.extract import answer_text, split
from trl_onevision.answers.parse import Quantity
from trl_onevision.answers.task import task_of
from trl_onevision.bench.answer import Answer
from trl_onevision.bench.tsv import BenchRow
from trl_onevision.rewards import AccuracyReward


@dataclass(frozen=True)
class Scored:
    """One row's verdict, and what led to it.

    `how` says where the answer was found: "stated", "last line" or "none". `literal` is what comparing the answer
    with the gold character by character would have said.
    """

    index: str
    level: str
    category: str
    task: str
    gold: str
    answer: str | None
    how: str
    correct: bool
    literal: bool
    finished: bool


def final_answer(completion: str, *, finished: bool = True) -> tuple[str | None, str]:
    r"""The answer of a completion and where it was found.

    >>> final_answer("<think>A or B?</think><answer>B</answer>"), final_answer("They are equal.\n\n**5 cm**")
    (('B', 'stated'), ('**5 cm**', 'last line'))
    >>> final_answer("<think>It is 5"), final_answer("First, 2 + 3", finished=False)
    ((None, 'none'), (None, 'none'))

    What is cut off has no last line; what never leaves its thinking has no answer.
    """
    stated = answer_text(completion)
    if stated is not None:
        return stated, "stated"
    lines = split(completion).content.strip().splitlines()
    return (lines[-1].strip(), "last line") if lines and finished else (None, "none")


def score(rows: Sequence[BenchRow], answers: Sequence[Answer]) -> list[Scored]:
    """Score the answers to `rows`, one to each, in their order.

    >>> row = BenchRow("1", "How long?", None, "5 cm", "College", "Math", "")
    >>> score([row], [Answer("1", "<think>…</think><answer>5</answer>", True)])[0].correct
    True
    """
    found = [final_answer(answer.completion, finished=answer.finished) for answer in answers]
    # A gold that is none of the row's options is compared as free-form
    tasks = [task_of(row.answer, choices=row.choices) for row in rows]
    paid = AccuracyReward(seconds=5.0, budget=600.0)(
        [f"<answer>{answer}</answer>" if answer else "" for answer, _ in found],
        solution=[row.answer for row in rows],
        task=tasks,
        choices=[row.choices for row in rows],
        id=[row.index for row in rows],
    )
    return [
        Scored(
            index=row.index,
            level=row.level,
            category=row.category,
            task=task,
            gold=row.answer,
            answer=answer,
            how=how,
            correct=value == 1 or (task != "choice" and same_number(row.answer, answer)),
            literal=answer is not None and answer.strip() == row.answer,
            finished=said.finished,
        )
        for row, said, task, (answer, how), value in zip(rows, answers, tasks, found, paid, strict=True)
    ]


def same_number(gold: str, answer: str | None) -> bool:
    """Whether both state one number, and the same one, whatever stands behind it.

    >>> same_number("5 cm", "5"), same_number("5", "5 m/s"), same_number("50%", "50 m"), same_number("5 cm", "6 cm")
    (True, True, True, False)
    """
    wanted, given = (parse.read(text, number=True) for text in (gold, answer or ""))
    if not isinstance(wanted, Quantity) or not isinstance(given, Quantity):
        return False
    if not wanted.is_numeral or not given.is_numeral:
        return False
    return bool(compare.same(wanted._replace(units=(), word=""), given._replace(units=(), word="")))
