"""What adapters share: rows of the contract out of a question, a gold answer and images."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any

from trl_onevision.answers.places import BOXES
from trl_onevision.data.prompts import PROMPTS, Prompt, user_messages
from trl_onevision.data.questions import classify, read_choices
from trl_onevision.data.schema import Purpose, RowError, Task, read, require, shown
from trl_onevision.data.solutions import closing_answer, tagged_completion

Row = dict[str, Any]
MOST_WORDS = 6  # a longer closing is a sentence: exact comparison would never pay


@dataclass(frozen=True)
class Raw:
    """A raw row as an adapter gets it: its columns, the stage that it is for, and the prompt around its question.

    >>> raw = Raw({"id": 7, "question": "How many cubes?", "answer": "<answer> 3 </answer>"})
    >>> row = raw.asked(raw.read("question", str, "the question as text"), images=[]).gold(raw.get("answer"))
    >>> row["solution"], row["task"], row["id"]
    ('3', 'number', '7')
    """

    columns: Mapping[str, Any]
    purpose: Purpose = "grpo"
    prompt: Prompt = PROMPTS["plain"]
    source: str = "raw"

    def get(self, column: str) -> Any:
        """What a column holds, `None` where there is none."""
        return self.columns.get(column)

    def read(self, column: str, kind: type | tuple[type, ...], expected: str) -> Any:
        """What a column holds, or a `RowError` where that is of no such kind."""
        return read(self.columns, column, kind, expected)

    def asked(self, question: str, images: list[Any], id: object = None) -> Asked:
        """The question of the row, under the name that it has in a column of its own or else under `id`."""
        return Asked(row_id(id, self.get("id")), self.prompt, self.source, question, images)


@dataclass(frozen=True)
class Asked:
    """A question of a dataset, and the rows of the contract that answers make of it."""

    id: str
    prompt: Prompt
    source: str
    question: str
    images: list[Any]

    def _row(self) -> Row:
        messages = user_messages(self.question, self.prompt, len(self.images))
        return {"prompt": messages, "images": self.images, "id": self.id, "source": self.source}

    def sft(self, completion: str) -> Row:
        """An SFT row."""
        content = [{"type": "text", "text": completion}]
        return self._row() | {"completion": [{"role": "assistant", "content": content}]}

    def grpo(self, solution: str, task: Task, choices: list[str] | None = None) -> Row:
        """A GRPO row around a gold answer whose task is known."""
        return self._row() | {"solution": solution, "task": task, "choices": choices, "key_steps": None}

    def gold(self, gold: object, task: Task | None = None, choices: list[str] | None = None) -> Row:
        """A GRPO row around a short gold; task and options that are not given are read from it and the question.

        A list is several accepted answers, or of a question with options all that are right.
        """
        choices = choices or read_choices(self.question) if task in (None, "choice") else None
        golds = gold if isinstance(gold, list) and gold else [gold]
        classified = [classify(_short_answer(one), self.question, choices) for one in golds]
        solution, likely_task = classified[0]
        if len(classified) > 1:
            solution = json.dumps([answer for answer, _ in classified], ensure_ascii=False)
        return self.grpo(solution, task or likely_task, choices)

    def solved(self, solution: str, purpose: Purpose) -> Row:
        """A row around a worked solution: to learn from (SFT), or for the answer that it closes with (GRPO)."""
        if purpose == "sft":
            return self.sft(tagged_completion(solution))
        closing = closing_answer(solution)
        if closing is None or len(closing.answer.split()) > MOST_WORDS:
            found = f"a solution that ends with {shown(solution[-60:])}"
            expected = "'Answer: …', 'the answer is …', <answer>…</answer> or \\boxed{…}, and a short answer"
            raise RowError("solution", "no closing answer", found=found, expected=expected)
        return self.gold(closing.answer)


def _short_answer(gold: object) -> str:
    # As JSON and as parquet hold them
    known = isinstance(gold, str | int | Decimal | date) or (isinstance(gold, float) and not math.isnan(gold))
    closing = closing_answer(str(gold)) if known else None
    answer = closing.answer if closing else str(gold).strip()
    expected = "a short answer as text, or a list of such"
    require(known and answer, "solution", "no gold answer", gold, expected)
    return answer


def conversation_turns(raw: Raw) -> tuple[str, str]:
    """The question and the answer of `[{"from": "human", "value": …}, {"from": "gpt", "value": …}]`.

    An answer that is a list is given as JSON.
    """
    expected = "one turn from 'human' and one from 'gpt', each with a text as 'value'"
    turns = raw.read("conversations", list, expected)
    are_turns = all(isinstance(turn, Mapping) for turn in turns)
    require(are_turns, "conversations", "wrong type", turns, expected)
    are_two = [turn.get("from") for turn in turns] == ["human", "gpt"]
    require(are_two, "conversations", "not one question and one answer", turns, expected)
    question, answer = (turn.get("value") for turn in turns)
    if isinstance(answer, int | float | list):
        answer = json.dumps(answer, ensure_ascii=False, default=str)
    are_texts = isinstance(question, str) and isinstance(answer, str)
    require(are_texts, "conversations", "wrong type", turns, expected)
    return question, answer


def labelled_boxes(value: Any, label: str) -> list[dict[str, Any]]:
    """A box or boxes in any of the forms that `iou_reward` reads, as `[{"bbox_2d": …, "label": …}]`.

    >>> labelled_boxes("<answer>[[1, 2, 3, 4]]</answer>", "cat"), labelled_boxes({"bbox": [1, 2, 3, 4]}, "cat")
    ([{'bbox_2d': [1, 2, 3, 4], 'label': 'cat'}], [{'bbox_2d': [1, 2, 3, 4], 'label': 'cat'}])
    """
    if isinstance(value, str):
        try:
            value = json.loads(re.sub(r"</?answer>|```(?:json)?", "", value))
        except json.JSONDecodeError as error:
            raise RowError("solution", "not boxes", found=shown(value), expected="[x1, y1, x2, y2]") from error
    boxes = []
    for item in value if isinstance(value, list) and not BOXES.of(value) else [value]:
        read = BOXES.of(item)
        require(read, "solution", "not a box", item, '[x1, y1, x2, y2] or {"bbox_2d": [x1, y1, x2, y2], "label": …}')
        boxes += [{"bbox_2d": list(map(_as_written, box.numbers)), "label": box.label or label} for box in read]
    return boxes


def _as_written(number: float) -> float:
    return int(number) if number.is_integer() else number


def row_id(*names: object) -> str:
    """The first that is a name. Whoever reads files gives rows without one their place as `id`."""
    return next((str(name) for name in names if name is not None and name != ""), "unnamed")
