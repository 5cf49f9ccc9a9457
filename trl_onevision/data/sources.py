"""Reading raw datasets row by row: files, folders and the hub, each with flat memory."""

from __future__ import annotations

import csv
import json
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

import pyarrow as pa
import pyarrow.parquet as pq

from trl_onevision.data.images import FORMATS
from trl_onevision.data.schema import RowError, shown

DATA_SUFFIXES = (".parquet", ".jsonl", ".json", ".csv", ".tsv")
IMAGE_SUFFIXES = (*(f".{name.lower()}" for name in FORMATS), ".jpg", ".jp2")
_SPLITS = {"train": ("train",), "validation": ("validation", "valid", "val", "dev"), "test": ("test", "eval")}
_HUB_ID = re.compile(r"^[\w.-]+/[\w.-]+$")
_CHUNK = 2**16


class SourceError(ValueError):
    """A source that cannot be read at all: nothing was written."""


@dataclass(frozen=True)
class RawRow:
    """A raw row and its place, `FILE:NUMBER`; `error` stands for a row that could not even be parsed."""

    place: str
    example: dict[str, Any]
    error: RowError | None = None


@dataclass(frozen=True)
class Source:
    """Where raw rows come from: local files, or one split of a dataset on the hub."""

    name: str
    files: tuple[Path, ...] = ()
    root: Path | None = None
    hub_id: str | None = None
    hub_files: str | None = None
    revision: str | None = None
    config: str | None = None
    split: str = "train"

    def __len__(self) -> int:
        """The number of rows where parquet footers or a folder of images tell it, else 0."""
        if not self.files:
            return 0
        if all(path.suffix.lower() == ".parquet" for path in self.files):
            return sum(_row_count(path) for path in self.files)
        return len(self.files) if self.files[0].suffix.lower() in IMAGE_SUFFIXES else 0

    def rows(self, skip: int = 0) -> Iterator[RawRow]:
        """The raw rows in a fixed order, without the first `skip`."""
        if self.hub_id is not None:
            yield from self._hub_rows(skip)
            return
        for path in self.files:
            rows_in_file = _row_count(path) if skip else 0
            if skip and rows_in_file <= skip:
                skip -= rows_in_file
                continue
            yield from self._file_rows(path, skip)
            skip = 0

    def _file_rows(self, path: Path, skip: int) -> Iterator[RawRow]:
        name = path.relative_to(self.root) if self.root else path.name
        try:
            for number, row in _reader(path)(path, skip):
                yield _raw_row(f"{name}:{number}", row)
        except (OSError, UnicodeDecodeError, csv.Error, pa.ArrowException) as error:
            raise _unreadable(path, error) from error

    def _hub_rows(self, skip: int) -> Iterator[RawRow]:
        from datasets import load_dataset

        assert self.hub_id is not None
        options: dict[str, Any] = {"data_files": self.hub_files} if self.hub_files else {}
        try:
            dataset = load_dataset(
                self.hub_id, self.config, split=self.split, revision=self.revision, streaming=True, **options
            )
            if dataset.features is not None:
                dataset = dataset.decode(False)  # a broken image is then a broken row, not a broken stream
            for number, row in enumerate(dataset.skip(skip), start=skip):
                yield _raw_row(f"{self.name}:{number}", {key: _fetched(value) for key, value in row.items()})
        except Exception as error:  # a network, a licence gate, an unknown id or split: all end here
            raise SourceError(
                f"{self.name}: cannot be read from the hub ({type(error).__name__}: {shown(str(error), 300)}); "
                f"expected a reachable dataset with a split {self.split!r}, or a local file or folder"
            ) from error


def _unreadable(path: Path, error: Exception) -> SourceError:
    return SourceError(f"{path}: cannot be read ({error}); expected a whole {path.suffix} file")


def open_source(
    source: str, *, split: str = "train", config: str | None = None, revision: str | None = None
) -> Source:
    """A file, a folder of files, or a dataset on the hub (`owner/name`, `hf://datasets/owner/name[/files]`).

    >>> open_source("no/such/file.jsonl")
    Traceback (most recent call last):
    trl_onevision.data.sources.SourceError: no/such/file.jsonl: no such file or folder; expected a .parquet, ...

    Of a folder whose file names speak of splits, the files of `split` are taken; without such names, all. A folder
    of images without data files yields `image` and `label` (the name of the image's folder).
    """
    path = Path(source)
    if path.is_file():
        if path.suffix.lower() not in DATA_SUFFIXES:
            raise SourceError(f"{source}: unknown kind {path.suffix!r}; expected one of {', '.join(DATA_SUFFIXES)}")
        return Source(source, files=(path,), root=path.parent)
    if path.is_dir():
        return Source(source, files=_files_of(path, split), root=path)
    if source.startswith("hf://datasets/"):
        owner, name, *rest = source.removeprefix("hf://datasets/").split("/", 2)
        files = rest[0] if rest else None
        return Source(source, hub_id=f"{owner}/{name}", hub_files=files, split=split, config=config, revision=revision)
    if _HUB_ID.match(source) and path.suffix.lower() not in DATA_SUFFIXES:
        return Source(source, hub_id=source, split=split, config=config, revision=revision)
    raise SourceError(
        f"{source}: no such file or folder; expected a {', '.join(DATA_SUFFIXES)} file, a folder of them, or a "
        "dataset on the hub as owner/name"
    )


def _files_of(folder: Path, split: str) -> tuple[Path, ...]:
    visible = [path for path in sorted(folder.rglob("*")) if path.is_file() and not _hidden(path, folder)]
    files = [path for path in visible if path.suffix.lower() in DATA_SUFFIXES]
    kinds = sorted({path.suffix.lower() for path in files})
    if len(kinds) > 1:
        raise SourceError(f"{folder}: holds {' and '.join(kinds)} files; expected one kind (name the file to read)")
    files = files or [path for path in visible if path.suffix.lower() in IMAGE_SUFFIXES]
    if not files:
        raise SourceError(f"{folder}: holds no {', '.join(DATA_SUFFIXES)} and no image files; expected some")
    splits = {path: _split_of(path.relative_to(folder)) for path in files}
    if not any(splits.values()):
        return tuple(files)
    chosen = tuple(path for path in files if splits[path] == split)
    if not chosen:
        known = ", ".join(sorted({name for name in splits.values() if name}))
        raise SourceError(f"{folder}: no files of split {split!r}; found {known} (choose with --split)")
    return chosen


def _hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def _split_of(path: Path) -> str | None:
    words = set(re.split(r"[^a-z]+", str(path).lower()))
    return next((split for split, keywords in _SPLITS.items() if words & set(keywords)), None)


def _raw_row(place: str, row: Any) -> RawRow:
    if isinstance(row, RowError):
        return RawRow(place, {"id": place}, error=row)
    if not isinstance(row, dict):
        error = RowError("row", "wrong type", found=shown(row), expected="an object with the columns as keys")
        return RawRow(place, {"id": place}, error=error)
    if row.get("id") is None or row["id"] == "":
        row["id"] = place
    return RawRow(place, row)


def _row_count(path: Path) -> int:
    """How many rows a file has, for going on behind it."""
    if path.suffix.lower() == ".parquet":
        try:
            return int(pq.read_metadata(path).num_rows)
        except (OSError, pa.ArrowException) as error:
            raise _unreadable(path, error) from error
    return sum(1 for _ in _reader(path)(path, 0))


def _reader(path: Path) -> Callable[[Path, int], Iterator[tuple[int, Any]]]:
    return _READERS.get(path.suffix.lower(), _image_rows)


def _parquet_rows(path: Path, skip: int) -> Iterator[tuple[int, Any]]:
    file = pq.ParquetFile(path, pre_buffer=False, buffer_size=2**20)
    number = 0
    for group in range(file.num_row_groups):
        rows_in_group = file.metadata.row_group(group).num_rows
        if number + rows_in_group <= skip:
            number += rows_in_group
            continue
        for batch in file.iter_batches(batch_size=16, row_groups=[group]):
            for row in batch.to_pylist():
                if number >= skip:
                    yield number, row
                number += 1


def _jsonl_rows(path: Path, skip: int) -> Iterator[tuple[int, Any]]:
    with path.open("rb") as lines:
        filled = (line for line in lines if line.strip())
        for number, line in enumerate(islice(filled, skip, None), start=skip):
            try:
                yield number, json.loads(line)
            except (ValueError, RecursionError) as error:
                found = shown(line.decode(errors="replace"))
                yield number, RowError("row", "not JSON", found=found, expected=f"one JSON object ({error})")


def _json_rows(path: Path, skip: int) -> Iterator[tuple[int, Any]]:
    """A JSON array, one element at a time; a file of JSON lines under this name is read as such."""
    with path.open(encoding="utf-8-sig") as file:
        first = next((char for char in iter(lambda: file.read(1), "") if not char.isspace()), "")
        if first == "[":
            yield from islice(enumerate(_array_elements(file, path)), skip, None)
            return
    yield from _jsonl_rows(path, skip)


def _array_elements(file: TextIO, path: Path) -> Iterator[Any]:
    """The elements behind an opening bracket. `json` has no incremental reader: decode from a growing buffer."""
    decoder, buffer, position, ended = json.JSONDecoder(), "", 0, False
    while True:
        while position < len(buffer) and buffer[position] in ", \t\r\n":
            position += 1
        if buffer.startswith("]", position):
            return
        try:
            element, end = decoder.raw_decode(buffer, position)
            # A number at the end of the buffer may go on in the next chunk.
            if end < len(buffer) or ended:
                position = end
                yield element
                continue
        except json.JSONDecodeError as error:
            if ended:
                raise SourceError(f"{path}: broken JSON array ({error}); expected '[…]' to its end") from error
        chunk = file.read(max(_CHUNK, len(buffer)))  # doubling keeps long elements linear
        buffer, position, ended = buffer[position:] + chunk, 0, not chunk


def _csv_rows(path: Path, skip: int) -> Iterator[tuple[int, Any]]:
    csv.field_size_limit(sys.maxsize)  # images in base64 are longer than the default of 131,072
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ",")
        for number, row in enumerate(islice(reader, skip, None), start=skip):
            if None in row or None in row.values():
                found = f"{len([v for v in row.values() if v is not None])} cells"
                expected = f"{len(reader.fieldnames or [])} cells"
                yield number, RowError("row", "wrong number of cells", found=found, expected=expected)
            else:
                yield number, dict(row)


def _image_rows(path: Path, skip: int) -> Iterator[tuple[int, Any]]:
    yield from islice([(0, {"image": str(path.absolute()), "label": path.parent.name})], skip, None)


_READERS = {
    ".parquet": _parquet_rows,
    ".jsonl": _jsonl_rows,
    ".json": _json_rows,
    ".csv": _csv_rows,
    ".tsv": _csv_rows,
}


def _fetched(value: Any) -> Any:
    """The bytes of an image that the hub keeps as a file beside the table."""
    if isinstance(value, list):
        return [_fetched(item) for item in value]
    if isinstance(value, dict) and value.get("bytes") is None and str(value.get("path")).startswith("hf://"):
        import fsspec

        with fsspec.open(value["path"], "rb") as file:
            return {"bytes": file.read(), "path": value["path"]}
    return value
