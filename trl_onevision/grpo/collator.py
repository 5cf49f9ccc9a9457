"""The G copies of a row become one, and its images stay encoded until a generation needs them.

TRL's sampler makes the loader fetch a whole generation batch at every micro-step, and all but one in
`steps_per_generation * num_iterations` are thrown away. So nothing is decoded here or in the dataset.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, Image, IterableDataset, List

from trl_onevision.data.images import decode_image
from trl_onevision.data.schema import RowError, shown

IMAGE_COLUMNS = ("image", "images")
ORIGINALS = "originals"  # which whoever looks at one decodes


class GroupCollator:
    """Makes adjacent equal rows share their values, so that what is done to one copy is done to all.

    Example:

    ```python
    >>> rows = [{"prompt": "How many?", "images": [b"jpeg"]} for _ in range(2)]
    >>> first, second = GroupCollator()(rows)
    >>> first is second, first["images"] is second["images"]
    (False, True)

    ```
    """

    def __call__(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        collapsed: list[dict[str, Any]] = []
        for row in rows:
            is_copy = bool(collapsed) and _same(collapsed[-1], row)
            # A new mapping for each row: TRL writes what a rollout function returns into it.
            collapsed.append(dict(collapsed[-1] if is_copy else row))
        return collapsed


def keep_encoded(dataset: Any) -> Any:
    """The dataset with its image columns left as bytes and paths; anything else is returned as it is."""
    if isinstance(dataset, dict):
        return type(dataset)({name: keep_encoded(split) for name, split in dataset.items()})
    if not isinstance(dataset, (Dataset, IterableDataset)) or dataset.features is None:
        return dataset
    if isinstance(dataset, Dataset) and dataset.format["type"] == "custom":
        return dataset  # a transform of the user's own, which expects decoded images
    for column in (*IMAGE_COLUMNS, ORIGINALS):
        feature = dataset.features.get(column)
        if _decodes(feature):
            dataset = dataset.cast_column(column, Image(decode=False))
        elif isinstance(feature, List) and _decodes(feature.feature):
            dataset = dataset.cast_column(column, List(Image(decode=False)))
    return dataset


def _decodes(feature: Any) -> bool:
    """Whether a feature decodes images, to the mode of their file: another mode is `datasets`' to convert to."""
    return isinstance(feature, Image) and feature.decode and feature.mode is None


def decode_rows(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows with their images decoded, each distinct encoded image once; copies share the decoded image."""
    decoded: dict[Any, Any] = {}

    def decode(value: Any) -> Any:
        if isinstance(value, list):
            return [decode(item) for item in value]
        # By content: on the way from the loader, accelerate rebuilds every list and mapping.
        key = (value.get("bytes"), value.get("path")) if isinstance(value, dict) else value
        key = key if isinstance(value, (dict, bytes, str)) else id(value)
        if key not in decoded:
            decoded[key] = decode_column_value(value)
        return decoded[key]

    def decode_row(row: dict[str, Any]) -> dict[str, Any]:
        images = {}
        for column in IMAGE_COLUMNS:
            try:
                if row.get(column) is not None:
                    images[column] = decode(row[column])
            except RowError as error:
                error.column, error.row_id = column, row.get("id")
                raise
            except OSError as error:  # of `datasets` and Pillow
                found, expected = shown(str(error), 200), "a readable image file"
                row_id = row.get("id")
                raise RowError(column, "unreadable image", found=found, expected=expected, row_id=row_id) from error
        return {**row, **images}

    rows = [decode_row(row) for row in rows]
    if any(row.get(column) is not None for row in rows for column in IMAGE_COLUMNS):
        return rows
    # Of a batch without an image TRL understands the empty list, but not None
    return [{**row, "images": []} if row.keys() & set(IMAGE_COLUMNS) else row for row in rows]


def decode_column_value(value: Any) -> Any:
    """A PIL image from a `datasets` image mapping, bytes, a path, base64 or a data URL; others are left to TRL.

    So is a web address: TRL's processor fetches it.

    Raises `RowError` on a text that is no image and names no file.

    Example:

    ```python
    >>> import base64, io
    >>> from PIL import Image as PILImage
    >>> buffer = io.BytesIO()
    >>> PILImage.new("RGB", (4, 2)).save(buffer, format="PNG")
    >>> text = base64.b64encode(buffer.getvalue()).decode()
    >>> decode_column_value(buffer.getvalue()).size, decode_column_value(text).size
    ((4, 2), (4, 2))

    ```
    """
    if isinstance(value, dict) and ("bytes" in value or "path" in value):
        return Image().decode_example({"bytes": value.get("bytes"), "path": value.get("path")})
    if isinstance(value, bytes):
        return Image().decode_example({"bytes": value, "path": None})
    if isinstance(value, str) and value.lower().startswith(("http://", "https://")):
        return value
    if isinstance(value, str) and "://" in value:
        return Image().decode_example({"bytes": None, "path": value})
    return decode_image(value) if isinstance(value, (str, Path)) else value


def _same(a: Any, b: Any) -> bool:
    if a is b:
        return True
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(_same, a, b))
    return bool(np.array_equal(a, b)) if hasattr(a, "__array__") else bool(a == b)
