"""The accuracy reward: is the stated answer the gold answer? One rule for each kind of answer."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from typing import Any, Literal

from trl_onevision.answers import compare, parse, words
from trl_onevision.answers.choice import gold_choices, read_choices
from trl_onevision.answers.expression import symbols
from trl_onevision.answers.extract import answers
from trl_onevision.answers.markup import plain
from trl_onevision.answers.parse import Algebra, Quantity
from trl_onevision.answers.sentence import takes_back
from trl_onevision.answers.task import read_golds, read_list_golds, task_of
from trl_onevision.rewards.rows import NamedReward, NotNegative, Unscorable, score_rows
from trl_onevision.rewards.verify import Pair, equal

TextMeasure = Literal["exact", "anls", "wer"]
NumberMeasure = Literal["tolerance", "mra", "decay"]
Choices = Sequence[str] | None
Judgement = float | Pair | None  # a score, a pair that takes algebra to compare, or "this gold cannot be scored"

_TEXT_MEASURES: dict[str, Callable[[str, str], float]] = {
    "exact": words.exact,
    "anls": words.anls,
    "wer": words.word_accuracy,
}
LONGEST_ANSWER = 10_000  # characters; what is longer, and over four times the gold, states no answer
MRA_THRESHOLDS = [Decimal(percent) / 100 for percent in range(50, 100, 5)]
DECAY_ERRORS = (0.05, 0.20)


@dataclass(eq=False, kw_only=True)
class AccuracyReward(NamedReward):
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

    What each `task` compares, always the last statement that can be read as an answer of its kind (docs/answers.md):

    - `math`, `number`, `count`: values and units (`answers.compare`), by numbers where these decide, else by algebra.
    - `choice`: the set of labels picked, by label or by what an option says (`answers.choice`): all, no others.
    - `text`: the `text` measure. With "exact", a gold that is a yes/no, a date or a time of day is compared as such.
    - `yes_no`, `list` (in order), `set` (in any order), `date`, `time`: the same rules, asked for by name.

    A JSON list of strings, or a list, as the gold holds several accepted answers (`choice`: all right letters; `list`
    and `set`: the items, and a list of lists several accepted answers).
    A gold wrapped in `<answer>` or `\boxed{}` is unwrapped. Without a `task` it is inferred by
    `answers.task.task_of`, and `number`, `tolerance` and `text` hold as well.

    Returns one value a completion: 0 or 1; between them with anls, wer, mra and decay. `None` where the task is
    another reward's (`boxes`, `points`, `span`, any unknown one) or the gold is empty or not of its task, which is
    logged once with the row's `id`. No answer is 0, and so is one of over 10,000 characters and four times the
    gold. A time-out is 0, and counted as the metric `accuracy_reward/timeouts`. TRL's table of completions gets the
    answers as the column `accuracy_reward/answer`. Both are called after `name`.
    """

    task: str | None = None
    text: TextMeasure = "exact"
    number: NumberMeasure = "tolerance"
    tolerance: NotNegative | None = None
    opened: bool = False
    seconds: float = 1.0
    budget: float = 30.0
    name: str = "accuracy_reward"

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
        said = [answers(completion, opened=self.opened) for completion in completions]
        chosen = [one[0] if one else "" for one in said]

        def judge(row: dict[str, Any]) -> list[float | Pair] | None:
            judgements, chosen[row["index"]] = self._judge_row(row)
            return judgements

        columns = {"solution": solution, "task": task, "choices": choices, "id": id}
        rows = score_rows(self.__name__, judge, said=said, index=range(len(said)), **columns)
        scores, timeouts = self._settle(rows)
        if log_extra is not None:
            log_extra(f"{self.__name__}/answer", chosen)
        if log_metric is not None:
            log_metric(f"{self.__name__}/timeouts", float(timeouts))
        return scores

    def _judge_row(self, row: dict[str, Any]) -> tuple[list[float | Pair] | None, str]:
        """Judge the answer against each accepted gold, and say which; `None` where the row is another reward's."""
        said, solution, choices = row["said"], row["solution"], row.get("choices")
        task = row.get("task") or self.task
        golds = read_list_golds(solution) if task in ("list", "set") else read_golds(solution)
        task = task or self._inferred(golds, choices)
        longest = max([LONGEST_ANSWER, *(4 * len(gold) for gold in golds)])
        said = [one for one in said if len(one) <= longest] or [""]
        if task not in _TASKS:
            return None, said[0]
        if task == "choice" and len(golds) > 1:
            golds = [json.dumps(golds)]
        reads, judge = _TASKS[task]
        answer = next((one for one in said if one and (reads(one, golds, choices) or takes_back(one))), said[0])
        # The empty answer is judged too: whether a gold can be scored must not depend on the completion.
        judgements = [judge(self, gold, answer, choices) for gold in golds]
        usable = [judgement for judgement in judgements if judgement is not None]
        if not usable:
            raise Unscorable(f"the gold {repr(solution)[:200]} is no {task!r}")
        return [judgement if answer else 0.0 for judgement in usable], answer

    def _inferred(self, golds: list[str], choices: Choices) -> str:
        task = task_of(golds[0], choices=choices) if golds else "text"
        if choices and task not in ("choice", "boxes"):
            return "choice"
        return "text" if task == "math" and self.text != "exact" else task

    def _settle(self, rows: list[list[float | Pair] | None]) -> tuple[list[float | None], int]:
        """Compare all pairs of a call at once, and take the best of each row."""
        pairs = [one for row in rows for one in row or () if isinstance(one, tuple)]
        verdicts = dict(zip(pairs, equal(pairs, seconds=self.seconds, budget=self.budget), strict=True))
        scores: list[float | None] = []
        for row in rows:
            settled = [float(verdicts[one] or 0) if isinstance(one, tuple) else one for one in row or ()]
            scores.append(max(settled, default=None))
        return scores, sum(verdict is None for verdict in verdicts.values())

    def _judge_choice(self, gold: str, answer: str, choices: Choices) -> Judgement:
        wanted = gold_choices(gold, choices)
        if not wanted:  # an option's text without the options: the text is all there is to compare
            return None if choices else words.exact(gold, answer)
        return float(read_choices(answer, choices) in wanted)

    def _judge_value(self, gold: str, answer: str, choices: Choices, number: bool) -> Judgement:
        bare, said = plain(gold).removesuffix("."), plain(answer).removesuffix(".")
        if bare == said:
            return 1.0
        if words.formula(gold) is not None:
            return words.exact(gold, answer)
        number = number or parse.LENGTH.fullmatch(bare) is not None
        wanted, given = parse.read(gold, number), parse.read(answer, number)
        if wanted is None or given is None:
            return words.exact(gold, answer) if wanted is None else 0.0
        measured = isinstance(wanted, Quantity) and (number or wanted.is_numeral) and not symbols(wanted.tree)
        if measured and self.number != "tolerance" and isinstance(given, Quantity) and not symbols(given.tree):
            pay = _mean_relative_accuracy if self.number == "mra" else _tolerance_decay
            return max((pay(_relative_error(*pair)) for pair in compare.numbers(wanted, given)), default=0.0)  # type: ignore[arg-type]
        verdict = compare.same(wanted, given, self.tolerance if measured else None)
        return (bare, said) if verdict is None else float(verdict)

    def _judge_text(self, gold: str, answer: str, choices: Choices) -> Judgement:
        if self.text == "exact" and words.exact(gold, answer) == 0:
            for judge in (words.same_yes_or_no, words.same_date, words.same_time):
                score = judge(gold, answer)
                if score is not None:
                    return score
        return _TEXT_MEASURES[self.text](gold, answer)


def _relative_error(gold: Decimal, answer: Decimal) -> Decimal:
    """Return the relative error, at most 1: beyond that no measure pays."""
    return min(abs(answer - gold) / abs(gold), Decimal(1)) if gold else Decimal(answer != 0)


def _mean_relative_accuracy(error: Decimal) -> float:
    return sum(error < 1 - threshold for threshold in MRA_THRESHOLDS) / len(MRA_THRESHOLDS)


def _tolerance_decay(error: Decimal) -> float:
    full, zero = DECAY_ERRORS
    return (1 + math.cos(math.pi * min(max(float(error) - full, 0.0) / (zero - full), 1.0))) / 2


def _reads_as_choice(answer: str, golds: Sequence[str], choices: Choices) -> bool:
    return bool(read_choices(answer, choices)) or not any(gold_choices(gold, choices) for gold in golds)


def _reads_as_number(answer: str, golds: Sequence[str], choices: Choices) -> bool:
    value = parse.read(answer, True)
    return isinstance(value, Algebra) or (isinstance(value, Quantity) and not symbols(value.tree))


def _reads_as_math(answer: str, golds: Sequence[str], choices: Choices) -> bool:
    # `number` is said, so that the reading is the one that is remembered
    return parse.read(answer, False) is not None or any(words.exact(gold, answer) for gold in golds)


def _of_texts(same: Callable[[str, str], Judgement]) -> Callable[..., Judgement]:
    return lambda reward, gold, answer, choices: same(gold, answer)


# What each task compares: whether a statement reads as an answer of its kind, and how an answer is judged.
_TASKS: dict[str, tuple[Callable[..., bool], Callable[..., Judgement]]] = {
    "math": (_reads_as_math, partial(AccuracyReward._judge_value, number=False)),
    "choice": (_reads_as_choice, AccuracyReward._judge_choice),
    "number": (_reads_as_number, partial(AccuracyReward._judge_value, number=True)),
    "count": (_reads_as_number, partial(AccuracyReward._judge_value, number=True)),
    "text": (lambda *_: True, AccuracyReward._judge_text),
    "yes_no": (lambda said, *_: words.yes_or_no(said) is not None, _of_texts(words.same_yes_or_no)),
    "date": (lambda said, *_: bool(words.read_dates(said)), _of_texts(words.same_date)),
    "time": (lambda said, *_: words.read_time(said) is not None, _of_texts(words.same_time)),
    "list": (lambda *_: True, _of_texts(partial(words.same_items, ordered=True))),
    "set": (lambda *_: True, _of_texts(partial(words.same_items, ordered=False))),
}

accuracy_reward = AccuracyReward()
