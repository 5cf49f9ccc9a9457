"""Writing rows as parquet that plain `load_dataset(folder)` reads: in shards, with flat memory, all or nothing."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from trl_onevision.data.images import decode_image, encode_image
from trl_onevision.data.schema import COLUMNS, Purpose, blocks, features, few, validate_row

T = TypeVar("T")

SHARD_BYTES = 256 * 2**20
SHARD_ROWS = 5_000
ROW_GROUP_BYTES = 16 * 2**20
ROW_GROUP_ROWS = 100
_SPLIT = re.compile(r"\w+(\.\w+)*")  # what `datasets` takes for the name of a split
_NUMBER = re.compile(r"(\d{5})(?:\.part|-of-\d{5}\.parquet)$")  # of a closed shard, published or not


class OutputExists(FileExistsError):
    """The output folder already holds something: nothing was read, nothing was written."""


def write_dataset(
    rows: Iterable[Mapping[str, Any]], output: str | Path, *, purpose: Purpose = "grpo", split: str = "train"
) -> Path:
    """Write rows of the contract as a folder of parquet with the images embedded.

    >>> import tempfile
    >>> from datasets import load_dataset
    >>> row = {
    ...     "prompt": [{"role": "user", "content": "What colour is this?"}], "images": [Image.new("RGB", (56, 56))],
    ...     "solution": "black", "task": "text", "id": "1", "source": "example",
    ... }
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = write_dataset([row], Path(folder) / "colours")
    ...     loaded = load_dataset(str(path), split="train", cache_dir=folder)
    >>> loaded[0]["images"][0].size, loaded[0]["prompt"][0]["content"][0]["type"]
    ((56, 56), 'image')

    Images are PIL images (stored as RGB in PNG), the bytes of a file, or `{"bytes": …}`. They keep their size: rows
    with boxes should hold images that are on the grid already (`store_image`). The folder appears under its name only
    when it is whole. Raises `OutputExists` when `output` already holds something, `RowError` on a bad row.
    """
    with whole_folder(output, split) as work, ShardWriter(work / "data", rows_table(purpose)) as writer:
        for row in rows:
            validate_row(row, purpose)
            writer.write(*stored(row, purpose))
    return Path(output).resolve()


@contextmanager
def whole_folder(output: str | Path, split: str) -> Iterator[Path]:
    """A folder to write in, with shards in `data`, that becomes `output` where the block ends well."""
    folder = output_folder(output, split)
    refuse_used(folder)
    work = folder.with_name(f"{folder.name}.{os.getpid()}.partial")  # beside it, so that the rename is atomic
    try:
        yield work
        publish(work, folder, split)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def output_folder(output: str | Path, split: str) -> Path:
    """The folder behind links, where it can be replaced and the split can name its files: known before any row is."""
    if not _SPLIT.fullmatch(split):
        raise ValueError(
            f"--split: found {split!r}, expected letters, digits and underscores, as in 'train' (fewer rows: --limit)"
        )
    folder = Path(output).resolve()
    if folder == Path.cwd() or folder.is_mount():
        found = "the folder that the command runs in" if folder == Path.cwd() else "a mount point"
        raise OutputExists(
            f"{output}: found {found}, which cannot be replaced, expected a new or empty folder. Choose another "
            "--output, as a folder in it."
        )
    return folder


def refuse_used(output: Path) -> None:
    """Raise `OutputExists` unless `output` is absent or an empty folder."""
    held = sorted(path.name for path in output.iterdir()) if output.is_dir() else []
    if not output.exists() or (output.is_dir() and not held):
        return
    found = f"a folder that holds {few(held)}" if held else "a file"
    raise OutputExists(
        f"{output}: found {found}, expected a new or empty folder. Nothing was changed: choose another --output, "
        "or move what is there."
    )


class ShardWriter(Generic[T]):
    """Writes items to numbered shards in a folder, as the tables that `table` makes of them; it counts closed shards.

    Until `name_shards` they are named `*.part`: no reader of parquet takes them for data. `first_shard` is where a run
    that goes on starts counting; shards that it has closed since it last said so are written again.
    """

    def __init__(self, folder: Path, table: Callable[[list[T]], pa.Table], first_shard: int = 0) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        kept = [shard for index, shard in _closed(folder) if index < first_shard]
        for path in folder.iterdir():
            if path not in kept:
                path.unlink()
        self.folder, self.shards, self._table = folder, first_shard, table
        self._items: list[T] = []
        self._buffered = self._rows = self._bytes = 0
        self._writer: pq.ParquetWriter | None = None

    def __enter__(self) -> ShardWriter[T]:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is None:
            self.close_shard()
        elif self._writer is not None:
            self._writer.close()

    def write(self, item: T, size: int = 0) -> None:
        """Add one item, whose images have `size` bytes."""
        self._items.append(item)
        self._buffered += size
        self._rows += 1
        self._bytes += size
        if len(self._items) >= ROW_GROUP_ROWS or self._buffered >= ROW_GROUP_BYTES:
            self._flush()
        if self._rows >= SHARD_ROWS or self._bytes >= SHARD_BYTES:
            self.close_shard()

    def close_shard(self) -> None:
        """Finish the open shard, if it holds a row."""
        self._flush()
        if self._writer is None:
            return
        self._writer.close()
        (self.folder / "open.part").rename(self.folder / f"{self.shards:05d}.part")
        self.shards += 1
        self._writer, self._rows, self._bytes = None, 0, 0

    def _flush(self) -> None:
        if not self._items:
            return
        table = self._table(self._items)
        if self._writer is None:
            self._writer = pq.ParquetWriter(self.folder / "open.part", table.schema)
        self._writer.write_table(table)
        self._items, self._buffered = [], 0


def _closed(folder: Path) -> list[tuple[int, Path]]:
    """The closed shards, in order."""
    named = ((_NUMBER.search(path.name), path) for path in folder.iterdir())
    return sorted((int(number[1]), path) for number, path in named if number)


def publish(work: Path, output: Path, split: str) -> None:
    """Give the shards the names that `load_dataset` knows and move the whole folder into place.

    Stopped at any point of it, it can be called again.
    """
    refuse_used(output)
    if not name_shards(work / "data", split):
        raise ValueError(f"{output}: no row to write, expected at least one")
    if output.is_dir():
        output.rmdir()
    work.rename(output)


def name_shards(folder: Path, split: str, into: Path | None = None) -> int:
    """Give the shards of a folder the names that `load_dataset` knows; how many they are."""
    shards = _closed(folder)
    for index, shard in shards:
        shard.rename((into or folder) / f"{split}-{index:05d}-of-{len(shards):05d}.parquet")
    return len(shards)


def rows_table(purpose: Purpose) -> Callable[[list[dict[str, Any]]], pa.Table]:
    """What makes a table of rows as `stored` leaves them."""
    return partial(pa.Table.from_pylist, schema=features(purpose).arrow_schema)


def stored(row: Mapping[str, Any], purpose: Purpose) -> tuple[dict[str, Any], int]:
    """A row that keeps the contract as parquet holds it, and the bytes of its images."""
    held: dict[str, Any] = {column: row.get(column) for column in COLUMNS[purpose]}
    for column in ("images", "originals"):
        if held.get(column) is not None:
            held[column] = [{"bytes": _image_bytes(image), "path": None} for image in row[column]]
    held["prompt"] = structured(row["prompt"], n_images=len(row["images"]))
    if "completion" in held:
        held["completion"] = structured(row["completion"], n_images=0)
    return held, sum(len(image["bytes"]) for image in [*held["images"], *(held.get("originals") or [])])


def _image_bytes(image: Any) -> bytes:
    if isinstance(image, Image.Image):
        return encode_image(decode_image(image))
    data: bytes = image["bytes"] if isinstance(image, Mapping) else image
    return data


def structured(messages: list[Any], n_images: int) -> list[dict[str, Any]]:
    """Messages whose contents are all blocks: parquet holds one type, and so the place of an image is in the data."""
    missing = 0 if any(isinstance(message["content"], list) for message in messages) else n_images
    whole = []
    for message in messages:
        content = blocks(message["content"])
        if message["role"] == "user":
            content, missing = [{"type": "image"}] * missing + content, 0
        whole.append({"role": message["role"], "content": [_block(block) for block in content]})
    return whole


def _block(block: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": block["type"], "text": block["text"] if block["type"] == "text" else None}
