"""Any other dataset: the user says which raw column holds what."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trl_onevision.data.prompts import Prompt, with_choices
from trl_onevision.data.rows import gold_row, grpo_row, labelled_boxes, row_id, sft_row
from trl_onevision.data.schema import JSON_TASKS, TASKS, Purpose, RowError, naming, read, shown

FIELDS = ("prompt", "solution", "image", "completion", "choices", "task", "id")


@dataclass(frozen=True)
class ColumnsAdapter:
    """An adapter made of a mapping from the contract to raw columns.

    >>> from trl_onevision.data.prompts import PROMPTS
    >>> adapter = ColumnsAdapter.parse("prompt=question,solution=label")
    >>> row = adapter.to_row({"question": "Is it red?", "label": "yes"}, "grpo", PROMPTS["plain"])
    >>> row["solution"], row["task"]
    ('yes', 'text')

    Fields: `prompt` (required), `solution` (GRPO), `completion` (SFT), `image` (one, or a list), `choices` (a list, or
    an object with the keys A, B, …), `task`, `id`. A solution that is a list holds several accepted answers, or all
    right options; under the task `list` or `set`, the items of the answer. A `task` column with `boxes` makes the
    solution a box or a list of boxes; without one the task is read from the gold.
    """

    columns: Mapping[str, str]
    NAME: str = "columns"
    SOURCE: str | None = None
    REVISION: str | None = None
    LICENSE: str | None = None
    COLUMNS: frozenset[str] = frozenset()

    @classmethod
    def parse(cls, text: str, name: str = "columns") -> ColumnsAdapter:
        """From `prompt=question,solution=label,image=picture`.

        >>> ColumnsAdapter.parse("question=prompt")
        Traceback (most recent call last):
        ValueError: --columns 'question=prompt': unknown field 'question'; expected one of prompt, solution, ...
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
        return cls(columns, NAME=name)

    @property
    def PROMPT(self) -> dict[Purpose, str]:
        purposes: dict[Purpose, str] = {}
        if "completion" in self.columns:
            purposes["sft"] = "plain"
        if "solution" in self.columns:
            purposes["grpo"] = "think-answer"
        return purposes

    def to_row(self, example: Mapping[str, Any], purpose: Purpose, prompt: Prompt) -> dict[str, Any]:
        """A raw row as a row of the contract."""
        raw = {"id": self._get(example, "id") if "id" in self.columns else example.get("id")}
        with naming(row_id(raw)):
            return self._named_row(example, raw, purpose, prompt)

    def _named_row(
        self, example: Mapping[str, Any], raw: Mapping[str, Any], purpose: Purpose, prompt: Prompt
    ) -> dict[str, Any]:
        choices = self._choices(example)
        question = with_choices(read(example, self.columns["prompt"], str, "the question as text"), choices)
        images = self._images(example)
        if purpose == "sft":
            completion = read(example, self.columns["completion"], str, "the completion as text")
            return sft_row(raw, prompt, source=self.NAME, question=question, images=images, completion=completion)
        return self._grpo_row(example, raw, prompt, question, images, choices)

    def _grpo_row(
        self,
        example: Mapping[str, Any],
        raw: Mapping[str, Any],
        prompt: Prompt,
        question: str,
        images: list[Any],
        choices: list[str] | None,
    ) -> dict[str, Any]:
        gold, task = self._get(example, "solution"), self._get(example, "task")
        if task is not None and task not in TASKS:
            raise RowError(self.columns["task"], "unknown task", found=shown(task), expected=", ".join(TASKS))
        if task in JSON_TASKS:
            solution = self._json_gold(gold, task)
            return grpo_row(
                raw, prompt, source=self.NAME, question=question, images=images, solution=solution, task=task
            )
        return gold_row(
            raw, prompt, source=self.NAME, question=question, images=images, gold=gold, choices=choices, task=task
        )

    def _json_gold(self, gold: Any, task: str) -> str:
        value = json.loads(gold) if isinstance(gold, str) and gold.strip() in ("null", "{}") else gold
        if value is None or value == "" or value == {} or value != value:
            raise RowError(self.columns["solution"], "no gold answer", found=shown(gold), expected=f"{task} as JSON")
        if task == "boxes":
            value = labelled_boxes(value, "object")
        # Parquet has the counts of a compressed run-length code as bytes
        return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=bytes.decode)

    def _get(self, example: Mapping[str, Any], field: str) -> Any:
        return read(example, self.columns[field], object, f"the {field}") if field in self.columns else None

    def _images(self, example: Mapping[str, Any]) -> list[Any]:
        image = self._get(example, "image")
        if image is None or image == "":
            return []
        return image if isinstance(image, list) else [image]

    def _choices(self, example: Mapping[str, Any]) -> list[str] | None:
        choices = self._get(example, "choices")
        if isinstance(choices, str):  # a csv cell
            try:
                choices = json.loads(choices) if choices.strip() else None
            except json.JSONDecodeError as error:
                raise RowError(
                    self.columns["choices"], "not a list", found=shown(choices), expected='["red", "blue"]'
                ) from error
        if isinstance(choices, Mapping):  # parquet gives every row the keys of all
            given = {label: text for label, text in choices.items() if text is not None}
            in_order = [given.get(chr(ord("A") + index)) for index in range(len(given))]
            choices = choices if None in in_order else in_order
        if choices is not None and not isinstance(choices, list):
            raise RowError(
                self.columns["choices"], "not a list", found=shown(choices), expected='["red", "blue"] or {"A": "red"}'
            )
        return [str(choice) for choice in choices] if choices else None
