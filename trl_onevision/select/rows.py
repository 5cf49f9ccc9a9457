"""The rows that are measured, and what a model is asked about each."""

from __future__ import annotations

import json
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow as pa
from PIL import Image

from trl_onevision.data.images import encode_image
from trl_onevision.data.schema import features
from trl_onevision.data.writer import structured
from trl_onevision.engine import Conversation

GREY = (128, 128, 128)


class SelectError(RuntimeError):
    """The selection cannot go on; the message says why and what to do."""


@cache
def grey(size: tuple[int, int]) -> bytes:
    """An image without anything in it."""
    return encode_image(Image.new("RGB", size, GREY))


class Rows:
    """A dataset of prompts, with its images as the bytes that they are stored as.

    `data` is a folder that `trl-onevision prepare` wrote, or whatever else `load_dataset` reads with TRL's columns.
    """

    def __init__(self, data: str, split: str = "train", limit: int | None = None) -> None:
        from datasets import load_dataset

        try:
            dataset = load_dataset(data, split=split)
        except (OSError, ValueError) as error:
            raise SelectError(
                f"{data}: cannot be loaded ({error}). Expected a folder that `prepare` wrote."
            ) from error
        if "prompt" not in dataset.column_names or "image" in dataset.column_names:
            raise SelectError(
                f"{data}: found the columns {', '.join(dataset.column_names)}, expected `prompt` as messages and "
                "`images` as lists. Raw rows become such by `trl-onevision prepare`."
            )
        self.dataset = dataset if limit is None else dataset.select(range(min(limit, len(dataset))))
        self._stored = self.dataset.with_format("arrow")
        if not len(self):
            raise SelectError(f"{data}: found no row, expected some.")

    def __len__(self) -> int:
        return len(self.dataset)

    def name(self, index: int) -> str:
        """The row's id, or its number where it has none."""
        columns = self.dataset.column_names
        return str(self.dataset["id"][index]) if "id" in columns else str(index)

    def asked(self, index: int, blind: bool = False) -> Conversation | None:
        """What is asked about a row; blind, with grey in the place of its images: nothing, where it has none."""
        row = self._stored[index].select([c for c in ("prompt", "images") if c in self.dataset.column_names])
        (stored,) = row.to_pylist()
        images = tuple(_bytes(image) for image in stored.get("images") or [])
        if blind:
            if not images:
                return None
            images = tuple(grey(Image.open(BytesIO(image)).size) for image in images)
        messages = structured(_messages(stored["prompt"]), len(images))
        for message in messages:
            message["content"] = [{k: v for k, v in block.items() if v is not None} for block in message["content"]]
        return Conversation(json.dumps(messages, ensure_ascii=False), images)

    def table(self, indices: list[int], figures: dict[str, list[float | None]]) -> pa.Table:
        """Rows as they are stored, images whole, with figures beside their columns."""
        from datasets import Features, Value

        columns = [name for name in self.dataset.column_names if name not in figures]
        kinds = {name: self.dataset.features[name] for name in columns} | dict.fromkeys(figures, Value("float64"))
        found = self._whole(indices).select(columns)
        for name, values in figures.items():
            found = found.append_column(name, pa.array(values, pa.float64()))
        return found.cast(Features(kinds).arrow_schema)

    def pairs(self, indices: list[int], answers: list[tuple[str, str]]) -> pa.Table:
        """Rows in the columns of `trl dpo`: prompt, images, and two answers, of which the first is the better."""
        from datasets import Features, List
        from datasets import Image as Picture

        message = features("sft")["completion"]
        rows = [
            {
                "prompt": structured(_messages(row["prompt"]), len(row.get("images") or [])),
                "images": row.get("images") or [],
                "chosen": structured(_said(better), 0),
                "rejected": structured(_said(worse), 0),
            }
            for row, (better, worse) in zip(self._whole(indices).to_pylist(), answers, strict=True)
        ]
        kinds = {"prompt": message, "images": List(Picture()), "chosen": message, "rejected": message}
        return pa.Table.from_pylist(rows, schema=Features(kinds).arrow_schema)

    def _whole(self, indices: list[int]) -> pa.Table:
        """Rows as a table that holds the bytes of its images, wherever they were."""
        from datasets.table import embed_table_storage

        return embed_table_storage(self._stored[indices])


def _said(text: str) -> list[dict[str, Any]]:
    return [{"role": "assistant", "content": text}]


def _messages(prompt: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt


def _bytes(image: dict[str, Any]) -> bytes:
    data: bytes | None = image["bytes"]
    return data if data is not None else Path(image["path"]).read_bytes()
