"""Rows that cannot be trained on as they are meant: found and named before anything is trained.

TRL 1.16 hands a prompt's blocks to generation, and of those only images to the pass that scores.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa
from datasets import Dataset

_FRAMES = (
    "Give frames of it as images: a block {'type': 'image'} for each, and the frames in the column 'images'. "
    "`trl-onevision prepare NAME --columns prompt=…,solution=…,video=COLUMN` makes such rows of files (docs/video.md)."
)
_LEAVE_OUT = "Leave such rows out."
_AS_IMAGE = "Write it as a block {'type': 'image'}, with the image (or its URL) in the column 'images'."

UNSEEN_BLOCKS = {
    "video": _FRAMES,
    "video_url": _FRAMES,
    "audio": _LEAVE_OUT,
    "audio_url": _LEAVE_OUT,
    "input_audio": _LEAVE_OUT,
    "image_url": _AS_IMAGE,
    "input_image": _AS_IMAGE,
}
UNSEEN_COLUMNS = {"video": _FRAMES, "videos": _FRAMES, "audio": _LEAVE_OUT, "audios": _LEAVE_OUT}


def blocks(prompt: Any) -> list[dict[str, Any]]:
    """The content blocks of a prompt's messages, none where the prompt or its messages are plain text.

    Example:

    ```python
    >>> blocks([{"role": "system", "content": "Be brief."}, {"role": "user", "content": [{"type": "image"}]}])
    [{'type': 'image'}]

    ```
    """
    contents = [message.get("content") for message in prompt] if isinstance(prompt, list) else []
    return [block for content in contents if isinstance(content, list) for block in content]


def refuse_unseen(dataset: Any, name: str, owned: bool) -> None:
    """Raise where a dataset, or one of its splits, has no prompt, or holds what the model would not see.

    Rows of a stream are only known when they come, see `refuse_unseen_rows`. Where an environment has `owned` the
    rows, their columns are its own.

    Example:

    ```python
    >>> rows = [{"prompt": [{"role": "user", "content": [{"type": "video"}]}], "videos": [["cat.mp4"]]}]
    >>> refuse_unseen(Dataset.from_list(rows), "train_dataset", owned=True)
    Traceback (most recent call last):
    ValueError: train_dataset: a prompt holds a block of type 'video', which TRL does not give to the pass that scores,
        so that completions would be trained without it. Give frames of it as images: ...

    ```
    """
    if isinstance(dataset, dict):
        for split, rows in dataset.items():
            refuse_unseen(rows, f"{name}[{split!r}]", owned)
    if not isinstance(dataset, Dataset):
        return
    kept = {"prompt", *(() if owned else UNSEEN_COLUMNS)}.intersection(dataset.column_names)
    for table in dataset.select_columns(sorted(kept)).with_format("arrow").iter(1000) if kept else ():
        if "prompt" in kept:
            for column in table["prompt"].chunks:
                _refuse_blocks(_block_types(column), name)
        for column in kept - {"prompt"}:
            if any(table[column].to_pylist()):
                _refuse_column(column, name)
    if not owned and "prompt" not in kept:
        raise ValueError(
            f"{name} has no column 'prompt'; it has {', '.join(dataset.column_names) or 'none'}. "
            "`trl-onevision prepare NAME --columns prompt=…,solution=…` makes rows of it (docs/data.md)."
        )


def refuse_too_few(dataset: Any, args: Any) -> None:
    """Raise where a dataset has fewer rows than a generation takes.

    TRL's sampler makes no batch of them, and a run would end at once, in silence where it has `max_steps`.
    """
    needed = args.generation_batch_size // args.num_generations
    if isinstance(dataset, Dataset) and len(dataset) < needed:
        raise ValueError(
            f"train_dataset has {len(dataset)} rows, and a generation takes {needed}: generation_batch_size "
            f"{args.generation_batch_size} / num_generations {args.num_generations}. Give more rows, or lower "
            "gradient_accumulation_steps or per_device_train_batch_size."
        )


def refuse_unseen_rows(rows: list[dict[str, Any]], owned: bool) -> None:
    """Raise where a row of a generation holds what the model would not see."""
    for row in rows:
        name = f"row {row['id']!r}" if "id" in row else "a row"
        _refuse_blocks({block.get("type") for block in blocks(row.get("prompt"))}, name)
        for column in () if owned else UNSEEN_COLUMNS:
            if row.get(column):
                _refuse_column(column, name)


def _refuse_blocks(types: set[Any], name: str) -> None:
    for kind in sorted(types & UNSEEN_BLOCKS.keys()):
        raise ValueError(
            f"{name}: a prompt holds a block of type {kind!r}, which TRL does not give to the pass that scores, so "
            f"that completions would be trained without it. {UNSEEN_BLOCKS[kind]}"
        )


def _refuse_column(column: str, name: str) -> None:
    raise ValueError(
        f"{name}: the column {column!r} holds something, and TRL gives a model text and images only. "
        f"{UNSEEN_COLUMNS[column]} A column that is for the rewards alone needs another name."
    )


def _block_types(array: pa.Array) -> set[Any]:
    """Every `type` that an arrow array of prompts holds, without a Python object a row."""
    if isinstance(array.type, pa.BaseExtensionType):  # JSON, for contents that are a text or blocks
        return {kind for text in array.storage.to_pylist() if text for kind in _types_in(json.loads(text))}
    if pa.types.is_list(array.type) or pa.types.is_large_list(array.type):
        return _block_types(array.flatten())
    if not pa.types.is_struct(array.type):
        return set()
    fields = {field.name: array.field(field.name) for field in array.type}
    kinds = set(fields["type"].unique().to_pylist()) if "type" in fields else set()
    return kinds.union(*(_block_types(field) for field in fields.values()))


def _types_in(value: Any) -> Iterator[Any]:
    if isinstance(value, Mapping) and isinstance(value.get("type"), str):
        yield value["type"]
    for part in value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ():
        yield from _types_in(part)
