"""The accuracy reward: is the stated answer the gold answer? One rule for each kind of answer."""

import json
import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any, Literal

from trl_onevision.rewards.choice import gold_choices, read_choices
from trl_onevision.rewards.dates import same_date, same_time
from trl_onevision.rewards.golds import infer_task, read_golds, read_list_golds
from trl_onevision.rewards.literal import anls, exact, same_items, same_yes_or_no, word_accuracy
from trl_onevision.rewards.number import Number, in_unit_of, quantity, read_number, same_quantity, split_unit
from trl_onevision.rewards.rows import Unscorable, score_rows
from trl_onevision.rewards.text import answer_text
from trl_onevision.rewards.verify import Pair, equal

TextMeasure = Literal["exact", "anls", "wer"]
NumberMeasure = Literal["tolerance", "mra", "decay"]
Judgement = float | Pair | None  # a score, a pair that takes algebra to compare, or "this gold cannot be scored"

_TEXT_MEASURES = {"exact": exact, "anls": anls, "wer": word_accuracy}
_NUMBER_MEASURES = ("tolerance", "mra", "decay")
LONGEST_ANSWER = 10_000  # characters; what is longer, and over four times the gold, states no answer
MRA_THRESHOLDS = [Fraction(percent, 100) for percent in range(50, 100, 5)]
DECAY_ERRORS = (0.05, 0.20)


class AccuracyReward:
    r"""Pay 1 for the gold answer and 0 for any other: mathematics, multiple choice, numbers and text.

    >>> reward = AccuracyReward()
    >>> reward(["<think>1/2?</think><answer>$\\frac12$</answer>", r"\boxed{0.6}"], solution=["0.5", "0.5"])
    [1.0, 0.0]
    >>> reward(["Answer: B) red", "A, because B is wrong"], solution=["B", "B"], task=["choice", "choice"])
    [1.0, 0.0]
    >>> reward(["<answer>1,250 m</answer>", "Answer: 5"], solution=["1.25 km", "5"], task=["number", "span"])
    [1.0, None]

    Args:
        task: the task of every row, where the dataset has no `task` column.
        text: how `text` answers are scored: "exact" after normalisation, "anls" (OCR), "wer" (1 - word error rate).
        number: "tolerance", or "mra", the mean relative accuracy: the share of θ in 0.50, 0.55, …, 0.95 with a
            relative error below 1 - θ ("Thinking in Space", arXiv 2412.14171; OneThinker), or "decay": 1 up to a
            relative error of 5 %, 0 from 20 %, half a cosine between (Reason-RFT, arXiv 2503.20752).
        tolerance: relative tolerance of `number`. `None` asks for every digit that the gold states: an integer
            exactly, a decimal to half a unit of its last place.
        opened: the chat template opens the thinking: a completion without `</think>` never got to an answer.
        seconds: processor time that one pair's algebra may take; `budget`: wall clock for the algebra of one call.
        name: how TRL logs the reward.

    What each `task` compares, always the answer that `text.answer_text` reads:

    - `math`: through `verify.equal`: expressions, equations, intervals, sets, matrices, percent, known units.
    - `choice`: the set of letters picked, by letter or by the option's words (`choice.read_choices`): all, no others.
    - `number`: `number.read_number` and the tolerance; units of one kind are converted; expressions are computed.
    - `text`: the `text` measure. With "exact", a gold that is a yes/no, a date or a time of day is compared as such.
    - `yes_no`, `count`, `list` (in order), `set` (in any order), `date`, `time`: the same rules, asked for by name.

    A JSON list of strings, or a list, as the gold holds several accepted answers (`choice`: all right letters; `list`
    and `set`: the items, and a list of lists several accepted answers).
    A gold wrapped in `<answer>` or `\boxed{}` is unwrapped. Without a `task` it is inferred by `golds.infer_task`.

    Returns one value a completion: 0 or 1; between them with anls, wer, mra and decay. `None` where the task is
    another reward's (`boxes`, `points`, `span`, any unknown one) or the gold is empty or not of its task, which is
    logged once with the row's `id`. No answer is 0, and so is one of over 10,000 characters and four times the
    gold. A time-out is 0, and counted as the metric
    `accuracy_reward/timeouts`. TRL's table of completions gets the answers
    as the column `accuracy_reward/answer`, after `name`.
    """

    def __init__(
        self,
        *,
        task: str | None = None,
        text: TextMeasure = "exact",
        number: NumberMeasure = "tolerance",
        tolerance: float | None = None,
        opened: bool = False,
        seconds: float = 1.0,
        budget: float = 30.0,
        name: str = "accuracy_reward",
    ) -> None:
        if text not in _TEXT_MEASURES:
            raise ValueError(f"text={text!r}: expected one of {', '.join(_TEXT_MEASURES)}")
        if number not in _NUMBER_MEASURES:
            raise ValueError(f"number={number!r}: expected one of {', '.join(_NUMBER_MEASURES)}")
        if tolerance is not None and tolerance < 0:
            raise ValueError(f"tolerance={tolerance}: expected a relative tolerance of at least 0, or None")
        self.__name__ = name
        self.task = task
        self.text: TextMeasure = text
        self.number: NumberMeasure = number
        self.tolerance = tolerance
        self.opened = opened
        self.seconds = seconds
        self.budget = budget

    def __call__(
        self,
        completions: Sequence[Any],
        solution: Sequence[Any],
        task: Sequence[str | None] | None = None,
        choices: Sequence[Sequence[str] | None] | None = None,
        id: Sequence[Any] | None = None,
        log_extra: Callable[[str, list[Any]], None] | None = None,
        log_metric: Callable[[str, float], None] | None = None,
        **kwargs: Any,
    ) -> list[float | None]:
        answers = [answer_text(completion, opened=self.opened) for completion in completions]
        columns = {"answer": answers, "solution": solution, "task": task, "choices": choices, "id": id}
        judgements = score_rows(self.__name__, self._judge_row, **columns)
        scores, timeouts = self._settle(judgements)
        if log_extra is not None:
            log_extra(f"{self.__name__}/answer", [answer or "" for answer in answers])
        if log_metric is not None:
            log_metric(f"{self.__name__}/timeouts", float(timeouts))
        return scores

    def _judge_row(self, row: dict[str, Any]) -> list[float | Pair] | None:
        """Judge an answer against each accepted gold; `None` where the row is another reward's."""
        answer, solution, choices = row["answer"], row["solution"], row.get("choices")
        task = row.get("task") or self.task
        golds = read_list_golds(solution) if task in ("list", "set") else read_golds(solution)
        task = task or (infer_task(golds[0], choices) if golds else "text")
        if task not in _JUDGES:
            return None
        if task == "choice" and len(golds) > 1:
            golds = [json.dumps(golds)]
        judge = _JUDGES[task]
        if answer and len(answer) > max([LONGEST_ANSWER, *(4 * len(gold) for gold in golds)]):
            answer = None
        # The empty answer is judged too: whether a gold can be scored must not depend on the completion.
        judgements = [judge(self, gold, answer or "", choices) for gold in golds]
        usable = [judgement for judgement in judgements if judgement is not None]
        if not usable:
            raise Unscorable(f"the gold {repr(solution)[:200]} is no {task!r}")
        return [judgement if answer else 0.0 for judgement in usable]

    def _settle(self, rows: list[list[float | Pair] | None]) -> tuple[list[float | None], int]:
        """Compare all pairs of a call at once, and take the best of each row."""
        pairs = list(dict.fromkeys(one for row in rows for one in row or () if isinstance(one, tuple)))
        verdicts = dict(zip(pairs, equal(pairs, seconds=self.seconds, budget=self.budget), strict=True))
        scores: list[float | None] = []
        for row in rows:
            settled = [float(verdicts[one] or 0) if isinstance(one, tuple) else one for one in row or ()]
            scores.append(max(settled, default=None))
        return scores, sum(verdict is None for verdict in verdicts.values())

    def _judge_math(self, gold: str, answer: str, choices: Sequence[str] | None) -> Judgement:
        with_unit = quantity(gold)
        if with_unit and not with_unit.is_percent:
            return self._judge_number(gold, answer, choices)
        return _without_units(*split_unit(gold), answer)

    def _judge_choice(self, gold: str, answer: str, choices: Sequence[str] | None) -> Judgement:
        wanted = gold_choices(gold, choices)
        if not wanted:  # an option's text without the options: the text is all there is to compare
            return None if choices else exact(gold, answer)
        return float(read_choices(answer, choices) == wanted)

    def _judge_number(self, gold: str, answer: str, choices: Sequence[str] | None) -> Judgement:
        wanted, given = read_number(gold), read_number(answer)
        if wanted is None:
            return _without_units(*split_unit(gold), answer)
        if given is None:
            return _without_units(str(wanted.value), wanted.unit, answer)
        if self.number == "tolerance":
            return float(same_quantity(wanted, given, self.tolerance))
        pay = _mean_relative_accuracy if self.number == "mra" else _tolerance_decay
        errors = [_relative_error(wanted.value, value) for value in in_unit_of(wanted, given)]
        return max(map(pay, errors), default=0.0)

    def _judge_text(self, gold: str, answer: str, choices: Sequence[str] | None) -> Judgement:
        if self.text == "exact" and exact(gold, answer) == 0:
            for judge in (same_yes_or_no, same_date, same_time):
                score = judge(gold, answer)
                if score is not None:
                    return score
        return _TEXT_MEASURES[self.text](gold, answer)


def _without_units(gold: str, unit: str, answer: str) -> Judgement:
    """Pair a gold with an answer that is an expression, in the answer's unit: to algebra a unit is nothing."""
    expression, other = split_unit(answer)
    if not unit or not other:
        return gold, answer
    factors = in_unit_of(Number(Fraction(1), unit=other), Number(Fraction(1), unit=unit))
    if not factors:
        return 0.0
    (factor,) = factors
    return (gold if factor == 1 else rf"({gold}) \cdot {factor.numerator} / {factor.denominator}"), expression


def _relative_error(gold: Fraction, answer: Fraction) -> Fraction:
    """Return the relative error, at most 1: beyond that no measure pays."""
    return min(abs(answer - gold) / abs(gold), Fraction(1)) if gold else Fraction(answer != 0)


def _mean_relative_accuracy(error: Fraction) -> float:
    return sum(error < 1 - threshold for threshold in MRA_THRESHOLDS) / len(MRA_THRESHOLDS)


def _tolerance_decay(error: Fraction) -> float:
    full, zero = DECAY_ERRORS
    return (1 + math.cos(math.pi * min(max(float(error) - full, 0.0) / (zero - full), 1.0))) / 2


_JUDGES: dict[str, Callable[[AccuracyReward, str, str, Sequence[str] | None], Judgement]] = {
    "math": AccuracyReward._judge_math,
    "choice": AccuracyReward._judge_choice,
    "number": AccuracyReward._judge_number,
    "count": AccuracyReward._judge_number,
    "text": AccuracyReward._judge_text,
    "yes_no": lambda _, gold, answer, choices: same_yes_or_no(gold, answer),
    "date": lambda _, gold, answer, choices: same_date(gold, answer),
    "time": lambda _, gold, answer, choices: same_time(gold, answer),
    "list": lambda _, gold, answer, choices: same_items(gold, answer, ordered=True),
    "set": lambda _, gold, answer, choices: same_items(gold, answer, ordered=False),
}


accuracy_reward = AccuracyReward()
