"""Any other dataset: the user says which raw column holds what."""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from trl_onevision.answers.choice import LETTERS
from trl_onevision.answers.task import is_boxes
from trl_onevision.answers.words import accepted, listed
from trl_onevision.data.adapters import Adapter
from trl_onevision.data.prompts import IMAGE, with_choices
from trl_onevision.data.questions import bare_choices, read_choices
from trl_onevision.data.rows import Asked, Raw, Row, labelled_boxes, row_id
from trl_onevision.data.schema import JSON_TASKS, NUMBERS, TASKS, Purpose, RowError, naming, read, require
from trl_onevision.data.videos import Video

VIDEO = "<video>"
_NUMBERED = re.compile(r"<(image|video)[ _]?\d{1,2}>")
_MARK = re.compile(f"{IMAGE}|{VIDEO}")
FIELDS = ("prompt", "solution", "image", "video", "completion", "choices", "task", "id", *NUMBERS, "visual_facts")


def columns_adapter(
    text: str, name: str = "columns", task: str | None = None, choice_base: int | None = None
) -> Adapter:
    """The adapter of any table, from `prompt=question,solution=label,image=picture`.

    >>> adapter = columns_adapter("prompt=question,solution=label")
    >>> row = adapter.to_row(Raw({"question": "Is it red?", "label": "yes"}))
    >>> row["solution"], row["task"]
    ('yes', 'text')
    >>> columns_adapter("question=prompt")
    Traceback (most recent call last):
    ValueError: --columns 'question=prompt': unknown field 'question'; expected one of prompt, solution, ...

    Fields: `prompt` (required), `solution` (GRPO), `completion` (SFT), `image` and `video` (one, or a list), `choices`
    (a list, an object with the keys A, B, …, or lettered text), `task`, `id`. A solution that is a list holds several
    accepted answers, or all right options; under the task `list` or `set`, the items of the answer. A `task` column
    with `boxes` makes the solution a box or a list of boxes; without one the task is read from the gold. A column may
    be a path into a nested one (`solution=reward_model.ground_truth`), `prompt` may hold messages, and `image` and
    `video` several columns (`image=image_1+image_2`); `<image>` and `<video>` in the prompt say where each stands.
    What rewards read besides goes through as it is (`difficulty`, `uncertainty`, `duration`, `visual_facts`).

    `task` is the task of all rows, where no column says it. With `choice_base` the gold of a row with options is the
    number of one, counted from there: 0 is the first, or 1.
    """
    pairs = [part.partition("=") for part in text.split(",") if part.strip()]
    columns = {field.strip(): column.strip() for field, _, column in pairs}
    for field, column in columns.items():
        if field not in FIELDS or not column:
            problem = f"unknown field {field!r}" if field not in FIELDS else f"no column for {field!r}"
            raise ValueError(
                f"--columns {text!r}: {problem}; expected one of {', '.join(FIELDS)}, as in "
                "prompt=question,solution=label,image=picture"
            )
    if len(columns) < len(pairs):
        raise ValueError(f"--columns {text!r}: a field twice; expected each once (several images are a list)")
    if "prompt" not in columns:
        raise ValueError(f"--columns {text!r}: no prompt; expected prompt=NAME_OF_THE_QUESTION_COLUMN")
    if task is not None and (task not in TASKS or "task" in columns):
        expected = "no task= in --columns beside it" if task in TASKS else f"one of {', '.join(TASKS)}"
        raise ValueError(f"--task {task}: expected {expected}")
    served: dict[str, tuple[Purpose, str]] = {"completion": ("sft", "plain"), "solution": ("grpo", "think-answer")}
    prompts = dict(purpose for field, purpose in served.items() if field in columns)
    return Adapter(name, _Columns(columns, task, choice_base).to_row, prompts)


@dataclass(frozen=True)
class _Columns:
    """Reads the fields of the contract from the raw columns that a mapping names."""

    columns: Mapping[str, str]
    task: str | None
    choice_base: int | None

    def to_row(self, raw: Raw) -> Row:
        """A raw row as a row of the contract."""
        example = raw.columns
        name = self._get(example, "id")
        with naming(row_id(name, raw.get("id"))):
            choices = self._choices(example)
            asked = raw.asked(*self._shown(example, with_choices(self._question(example), choices)), id=name)
            if raw.purpose == "sft":
                column = self.columns["completion"]
                found = {column: self._get(example, "completion")}
                return asked.sft(read(found, column, str, "the completion as text"))
            given = [field for field in (*NUMBERS, "visual_facts") if field in self.columns]
            return self._grpo_row(example, asked, choices) | {f: _of_cell(self._get(example, f)) for f in given}

    def _grpo_row(self, example: Mapping[str, Any], asked: Asked, choices: list[str] | None) -> Row:
        gold: Any = self._get(example, "solution")
        task: Any = self._get(example, "task") or self.task
        if self.choice_base is not None and choices:  # an index, before it can be taken for a value
            gold = self._letter(gold, choices)
        if isinstance(gold, str):
            gold = accepted(gold) or gold
        if task is None and not choices and _is_place(gold):
            task = "boxes"
        if task is not None:
            require(task in TASKS, self.columns.get("task", "task"), "unknown task", task, ", ".join(TASKS))
        if task in JSON_TASKS:
            return asked.grpo(self._json_gold(gold, task), task)
        return asked.gold(gold, task, choices)

    def _letter(self, gold: Any, choices: list[str]) -> str:
        """The letter of an option that the gold names by its number."""
        base = self.choice_base or 0
        named = re.fullmatch(r"\s*(\d{1,3})(?:\.0)?\s*", str(gold))
        index, most = int(named[1]) - base if named else -1, min(len(choices), len(LETTERS))
        expected = f"the number of an option, {base} to {base + most - 1} (--choice-base {base})"
        require(0 <= index < most, self.columns["solution"], "gold is no option", gold, expected)
        return LETTERS[index]

    def _json_gold(self, gold: Any, task: str) -> str:
        value = json.loads(gold) if isinstance(gold, str) and gold.strip() in ("null", "{}") else gold
        missing = value is None or value == "" or value == {} or value != value
        require(not missing, self.columns["solution"], "no gold answer", gold, f"{task} as JSON")
        if task == "boxes":
            value = labelled_boxes(value, "object")
        # Parquet has the counts of a compressed run-length code as bytes
        return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=bytes.decode)

    def _get(self, example: Mapping[str, Any], field: str) -> Any:
        return _column(example, self.columns[field], field) if field in self.columns else None

    def _question(self, example: Mapping[str, Any]) -> str:
        """The question as text, or as the last message of the user."""
        question = self._get(example, "prompt")
        if isinstance(question, list):
            asked = [turn for turn in question if isinstance(turn, Mapping) and turn.get("role") == "user"]
            content = asked[-1].get("content") if asked else None
            parts = content if isinstance(content, list) else [{"type": "text", "text": content}]
            mark = {"video": VIDEO}
            texts = [
                str(part.get("text") or "") if part.get("type") == "text" else mark.get(str(part.get("type")), IMAGE)
                for part in parts
            ]
            question = "".join(texts) or None
        fine = isinstance(question, str)
        require(fine, self.columns["prompt"], "no question", question, "text, or messages of a user")
        return _NUMBERED.sub(r"<\1>", question)

    def _shown(self, example: Mapping[str, Any], question: str) -> tuple[str, list[Any]]:
        """What the question shows, in the order of its marks, and the question with one kind of mark."""
        images = self._listed(example, "image")
        videos = [Video(value) for value in self._listed(example, "video")]
        if "video" not in self.columns:
            shows_one = question.lstrip().startswith(VIDEO)  # elsewhere it may be a word of HTML
            expected = "video=NAME_OF_ITS_COLUMN in --columns"
            require(not shows_one, "prompt", "a video that no column holds", question, expected)
            return question, images
        first: list[Any] = []  # what has no mark
        marked: dict[str, deque[Any]] = {}
        for mark, values in ((IMAGE, images), (VIDEO, videos)):
            unmarked = len(values) - question.count(mark)
            if unmarked < 0:
                found = f"{question.count(mark)} {mark} and {len(values)} in the columns"
                raise RowError("prompt", "more image marks than images", found=found, expected="one mark each at most")
            first += values[:unmarked]
            marked[mark] = deque(values[unmarked:])
        in_order = [marked[mark].popleft() for mark in _MARK.findall(question)]
        return _MARK.sub(IMAGE, question), first + in_order

    def _listed(self, example: Mapping[str, Any], field: str) -> list[Any]:
        found = []
        for column in self.columns.get(field, "").split("+"):
            value = _column(example, column, field) if column else None
            found += value if isinstance(value, list) else [] if value is None or value == "" else [value]
        return found

    def _choices(self, example: Mapping[str, Any]) -> list[str] | None:
        given = self._get(example, "choices")
        choices = _of_cell(given)
        if isinstance(choices, str):
            choices = read_choices(choices) or choices
        if isinstance(choices, list):
            choices = {chr(ord("A") + index): text for index, text in enumerate(choices)}
        if isinstance(choices, Mapping):  # parquet gives every row the keys of all
            labelled = {label: text for label, text in choices.items() if text is not None}
            choices = [labelled.get(chr(ord("A") + index)) for index in range(len(labelled))]
        fine = choices is None or (isinstance(choices, list) and None not in choices)
        require(fine, self.columns.get("choices", "choices"), "not a list", given, '["red", "blue"] or {"A": "red"}')
        return bare_choices([str(choice) for choice in choices]) if choices else None


def _column(example: Mapping[str, Any], column: str, field: str) -> Any:
    """A column by its name, or by a path into one: `reward_model.ground_truth`."""
    name, _, rest = column.partition(".")
    if column in example or not rest:
        return read(example, column, object, f"the {field}")
    inside = _of_cell(read(example, name, object, f"the {field}"))
    require(isinstance(inside, Mapping), column, "missing column", inside, f"an object that holds the {field}")
    return _column(inside, rest, field)


def _of_cell(value: Any) -> Any:
    """A number, a list or an object, also where a table holds it as text."""
    if not isinstance(value, str):
        return value
    with suppress(json.JSONDecodeError):
        return listed(value) or json.loads(value.strip() or "null")
    return value


def _is_place(gold: Any) -> bool:
    """Whether a gold is a box, boxes or objects in JSON: four numbers are no accepted answers."""
    if isinstance(gold, Mapping):
        return any(key.startswith(("bbox", "box", "point")) for key in gold)
    return is_boxes(gold if isinstance(gold, str) else json.dumps(gold, default=str)) if gold else False
