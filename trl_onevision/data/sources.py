"""Reading raw datasets row by row: files, folders and the hub, each with flat memory."""

from __future__ import annotations

import csv
import json
import os
import re
import sys
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TextIO

import pyarrow as pa
import pyarrow.parquet as pq

from trl_onevision.data.images import image_suffixes
from trl_onevision.data.schema import RowError, few, shown

DATA_SUFFIXES = (".parquet", ".jsonl", ".json", ".csv", ".tsv")
# What hubs and publishers lay beside the data
SIDE_FILES = ("readme.json", "dataset_info.json", "dataset_infos.json", "dataset-metadata.json", "croissant.json")
_SPLITS = {"train": ("train",), "validation": ("validation", "valid", "val", "dev"), "test": ("test", "eval")}
_HUB = re.compile(r"(?P<hf>hf://datasets/)?(?P<id>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w.-]+))?(?:/(?P<files>.+))?")
_OF_THE_HUB = re.compile(r"(?!.*\bhttps?://)\w+://")  # not any URL that a row holds
_CHUNK = 2**16
LONGEST_TOKEN = 16  # characters of JSON, without strings: "-Infinity", or a pair of escapes in one
_DECODER = json.JSONDecoder()
_NO_SPACE = re.compile(r"[^ \t\r\n]")


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
        """The number of rows where the footers of parquet, Arrow or a folder of images tell it, else 0."""
        counts = [_row_count(path) for path in self.files]
        return 0 if None in counts else sum(filter(None, counts))

    def stamps(self) -> dict[str, list[int]]:
        """What tells that local files have changed: size and time of each; of images, one number by folder."""
        stamps: dict[str, list[int]] = {}
        for path in self.files:
            try:
                status = path.stat()
            except OSError:  # said when its rows are read
                continue
            stamp = [status.st_size, status.st_mtime_ns]
            if _is_image(path):  # there may be millions
                (before,) = stamps.get(folder := self._named(path.parent), [0])
                stamps[folder] = [zlib.crc32(repr((path.name, stamp)).encode(), before)]
            else:
                stamps[self._named(path)] = stamp
        return stamps

    def _named(self, path: Path) -> str:
        return str(path.relative_to(self.root)) if self.root else path.name

    def rows(self, skip: int = 0) -> Iterator[RawRow]:
        """The raw rows in a fixed order, without the first `skip`."""
        if self.hub_id is not None:
            yield from self._hub_rows(skip)
            return
        for path in self.files:
            if skip and (known := _row_count(path)) is not None and known <= skip:
                skip -= known
                continue
            for row in self._file_rows(path):
                if not skip:
                    yield row
                skip = max(0, skip - 1)

    def _file_rows(self, path: Path) -> Iterator[RawRow]:
        try:
            for number, row in enumerate(_READERS.get(path.suffix.lower(), _image_rows)(path)):
                yield _raw_row(f"{self._named(path)}:{number}", row)
        except (OSError, UnicodeDecodeError, pa.ArrowException) as error:
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


def open_source(source: str, *, split: str = "train", config: str | None = None) -> Source:
    """A file, a folder of files, or a dataset on the hub (`owner/name[@revision]`, `hf://datasets/…[/files]`).

    >>> open_source("no/such/file.jsonl")
    Traceback (most recent call last):
    trl_onevision.data.sources.SourceError: no/such/file.jsonl: no such file or folder; expected a .parquet, ...

    Of a folder where the names of files or subfolders speak of splits, the files of `split` are taken; without such
    names, all. A folder of images without data files yields `image` and `label` (the name of the image's folder). A
    folder that `datasets` wrote by `save_to_disk` is read as such.
    """
    path = Path(source)
    if path.is_file():
        if path.suffix.lower() not in DATA_SUFFIXES:
            raise SourceError(f"{source}: unknown kind {path.suffix!r}; expected one of {', '.join(DATA_SUFFIXES)}")
        return Source(source, files=(path,), root=path.parent)
    if path.is_dir():
        return Source(source, files=_saved_files(path, split) or _files_of(path, split), root=path)
    hub = _HUB.fullmatch(source)
    if hub and (hub["hf"] or not (hub["files"] or path.suffix.lower() in DATA_SUFFIXES)):
        return Source(
            source, hub_id=hub["id"], hub_files=hub["files"], revision=hub["revision"], split=split, config=config
        )
    raise SourceError(
        f"{source}: no such file or folder; expected a {', '.join(DATA_SUFFIXES)} file, a folder of them, or a "
        "dataset on the hub as owner/name"
    )


def _saved_files(folder: Path, split: str) -> tuple[Path, ...]:
    """The files of a dataset that `save_to_disk` wrote, of a dictionary of them that of the split; else none."""
    try:
        if (whole := folder / "dataset_dict.json").is_file():
            if split not in (splits := json.loads(whole.read_bytes())["splits"]):
                raise SourceError(f"{folder}: no split {split!r}; found {', '.join(splits)} (choose with --split)")
            folder = folder / split
        state = folder / "state.json"  # other files of Arrow beside it are a cache
        named = json.loads(state.read_bytes())["_data_files"] if state.is_file() else []
        return tuple(folder / one["filename"] for one in named)
    except (OSError, LookupError, TypeError, json.JSONDecodeError) as error:
        raise SourceError(
            f"{folder}: cannot be read ({error!r}); expected a whole folder of `save_to_disk`"
        ) from error


def _files_of(folder: Path, split: str) -> tuple[Path, ...]:
    visible = [path for path in _visible_files(folder) if path.name.lower() not in SIDE_FILES]
    files = [path for path in visible if path.suffix.lower() in DATA_SUFFIXES]
    kinds = sorted({path.suffix.lower() for path in files})
    if len(kinds) > 1:
        raise SourceError(f"{folder}: holds {' and '.join(kinds)} files; expected one kind (name the file to read)")
    if files:
        splits = {path: _splits_of(path.relative_to(folder).parts) for path in files}
    else:
        files = image_files(folder)
        splits = _splits_of_images(files, folder)
    if not files:
        raise SourceError(f"{folder}: holds no {', '.join(DATA_SUFFIXES)} and no image files; expected some")
    if not any(splits.values()):
        return tuple(files)
    known = ", ".join(sorted(set().union(*splits.values())))
    unclear = [str(path.relative_to(folder)) for path in files if len(splits[path]) != 1]
    if unclear:
        raise SourceError(
            f"{folder}: its names speak of splits ({known}), but {few(unclear)} of none or of several, and would be "
            "left out; expected one split by file, or none by any. Give the file or the folder to read itself as "
            "--source"
        )
    chosen = tuple(path for path in files if splits[path] == {split})
    if not chosen:
        raise SourceError(f"{folder}: no files of split {split!r}; found {known} (choose with --split)")
    return chosen


def _visible_files(folder: Path) -> list[Path]:
    """The files below a folder, in a fixed order; links to folders are followed, but not back to where they lie."""

    def refuse(error: OSError) -> None:
        raise SourceError(f"{error.filename}: cannot be read ({error.strerror}); expected a folder that can be listed")

    def leads_back(link: Path) -> bool:
        return link.is_symlink() and link.resolve() in {path.resolve() for path in link.absolute().parents}

    files: list[Path] = []
    for parent, folders, names in os.walk(folder, followlinks=True, onerror=refuse):
        folders[:] = [name for name in folders if name[0] != "." and not leads_back(Path(parent, name))]
        files += [Path(parent, name) for name in names if name[0] != "."]
    return sorted(files)


def image_files(folder: Path) -> list[Path]:
    """The images in a folder and the folders in it, in a fixed order."""
    return [path for path in _visible_files(folder) if _is_image(path)]


def _splits_of(names: Iterable[str]) -> set[str]:
    """The splits that the names on the way to a file speak of; `train_test/test.json` is of one."""
    spoken = [_splits_in(name) for name in names]
    return set().union(*(splits for splits in spoken if len(splits) == 1)) or set().union(*spoken)


def _splits_of_images(files: list[Path], folder: Path) -> dict[Path, set[str]]:
    """The splits by the folders above the labels, else by the images' own folders where these are no labels."""
    places = {path: path.relative_to(folder).parts[:-1] for path in files}
    above = {path: _splits_of(folders[:-1]) for path, folders in places.items()}
    own = {path: _splits_of(folders[-1:]) for path, folders in places.items()}
    # A folder `train` beside `car` and `ship` is the vehicle.
    return own if all(own.values()) and not any(above.values()) else above


def _splits_in(name: str) -> set[str]:
    words = set(re.split(r"[^a-z]+", name.lower()))
    return {split for split, keywords in _SPLITS.items() if words & set(keywords)}


def _raw_row(place: str, row: Any) -> RawRow:
    if isinstance(row, RowError):
        return RawRow(place, {"id": place}, error=row)
    if not isinstance(row, dict):
        error = RowError("row", "wrong type", found=shown(row), expected="an object with the columns as keys")
        return RawRow(place, {"id": place}, error=error)
    if row.get("id") is None or row["id"] == "":
        row["id"] = place
    return RawRow(place, row)


def _row_count(path: Path) -> int | None:
    """How many rows a file has, where it says so itself."""
    try:
        match path.suffix.lower():
            case ".parquet":
                return int(pq.read_metadata(path).num_rows)
            case ".arrow":
                return sum(batch.num_rows for batch in _batches(path))
            case _:
                return 1 if _is_image(path) else None
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(path, error) from error


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in image_suffixes()


def _parquet_rows(path: Path) -> Iterator[Any]:
    for batch in pq.ParquetFile(path, pre_buffer=False, buffer_size=2**20).iter_batches(batch_size=16):
        yield from batch.to_pylist()


def _arrow_rows(path: Path) -> Iterator[Any]:
    for batch in _batches(path):
        for start in range(0, batch.num_rows, 16):
            yield from batch.slice(start, 16).to_pylist()


def _batches(path: Path) -> Iterator[pa.RecordBatch]:
    """The parts of an Arrow stream, as `datasets` saves one; none of them is read until it is looked at."""
    with pa.memory_map(str(path)) as file, pa.ipc.open_stream(file) as stream:
        yield from stream


def _jsonl_rows(path: Path) -> Iterator[Any]:
    with path.open("rb") as lines:
        for line in filter(bytes.strip, lines):
            try:
                yield json.loads(line)
            except (ValueError, RecursionError) as error:
                found = shown(line.decode(errors="replace"))
                yield RowError("row", "not JSON", found=found, expected=f"one JSON object ({error})")


def _json_rows(path: Path) -> Iterator[Any]:
    """A JSON array, one element at a time; a file of JSON lines under this name is read as such."""
    with path.open(encoding="utf-8-sig") as file:
        array = _Array(file, path)
        if array.next_char() == "[":
            yield from array.elements()
            return
        if array.buffer[array.position :].partition("\n")[0].strip() == "{":
            expected = 'an array of rows, or a row a line (of {"data": […]}: jq .data FILE > NEW)'
            raise SourceError(f"{path}: holds one JSON object over several lines; expected {expected}")
    yield from _jsonl_rows(path)


class _Array:
    """A JSON array in a file. `json` has no incremental reader: it decodes from a buffer that grows."""

    def __init__(self, file: TextIO, path: Path) -> None:
        self.file, self.path, self.buffer, self.position, self.line = file, path, "", 0, 1

    def elements(self) -> Iterator[Any]:
        """The elements, where the array is whole and the file ends with it."""
        self.position += 1
        found = self.next_char()
        while found != "]":
            yield self._element()
            found = self.next_char()
            if found == ",":
                self.position += 1
            elif found != "]":
                raise self._broken(f"found {found!r}", "',' or ']' behind an element")
        self.position += 1
        if found := self.next_char():
            raise self._broken(f"found {found!r} behind its ']'", "one array, and nothing behind it")

    def next_char(self) -> str:
        """The next character that is no white space, '' at the end of the file; the position is then at it."""
        while not (found := _NO_SPACE.search(self.buffer, self.position)):
            self.position = len(self.buffer)
            if not self._grow():
                return ""
        self.position = found.start()
        return found[0]

    def _element(self) -> Any:
        """The JSON value at the position, which moves behind it."""
        self.next_char()
        while True:
            try:
                value, end = _DECODER.raw_decode(self.buffer, self.position)
            except json.JSONDecodeError as error:
                # What lies behind the fault is no part of it, but for a string that may end there
                in_it = error.pos < len(self.buffer) - LONGEST_TOKEN and not error.msg.startswith("Unterminated")
                if in_it or not self._grow():
                    raise self._broken(error.msg, "'[…]' to its end", error.pos) from error
            except (ValueError, RecursionError) as error:
                raise self._broken(str(error), "'[…]' to its end") from error
            else:
                # A number at the end of the buffer may go on in the next chunk.
                if end < len(self.buffer) or not self._grow():
                    self.position = end
                    return value

    def _grow(self) -> bool:
        """Read on, and let go of what lies before the position; false at the end of the file."""
        rest = self.buffer[self.position :]
        chunk = self.file.read(max(_CHUNK, len(rest)))  # doubling keeps long elements linear
        if chunk:
            self.line += self.buffer.count("\n", 0, self.position)
            self.buffer, self.position = rest + chunk, 0
        return bool(chunk)

    def _broken(self, reason: str, expected: str, position: int | None = None) -> SourceError:
        line = self.line + self.buffer.count("\n", 0, self.position if position is None else position)
        return SourceError(f"{self.path}: broken JSON array at line {line} ({reason}); expected {expected}")


def table_rows(path: Path, delimiter: str) -> Iterator[dict[str, str] | RowError]:
    """The rows of a CSV or TSV as texts by column, without empty lines; for what is no row the error that says why.

    Raises `SourceError` where a quoted cell does not end, `OSError` where the file cannot be read.
    """
    limit = csv.field_size_limit(sys.maxsize)  # images in base64 are longer than the default of 131,072
    try:
        # What is not UTF-8 is looked for cell by cell: a decoder that stops at it has read ahead of the row.
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            # Strict: a stray quote at the start of a cell would swallow the lines up to the next quote.
            reader, start, columns = csv.reader(file, delimiter=delimiter, strict=True), 1, list[str]()
            for cells in reader:
                if columns and cells:
                    yield _table_row(columns, cells, delimiter)
                elif error := _not_utf8(cells, cells):
                    raise SourceError(f"{path}: the header cannot be read; found {error.found}, expected UTF-8")
                elif twice := [name for name, count in Counter(filter(None, cells)).items() if count > 1]:
                    raise SourceError(f"{path}: the header names a column twice ({few(twice)}); expected each once")
                columns, start = columns or cells, reader.line_num + 1
    except csv.Error as error:
        raise SourceError(
            f"{path}: the row that starts at line {start} cannot be read (at line {reader.line_num}: {error}); "
            'expected "…" around a cell that starts with a quote or holds several lines, and "" for a quote within'
        ) from error
    finally:
        csv.field_size_limit(limit)


def _table_row(columns: list[str], cells: list[str], delimiter: str) -> dict[str, str] | RowError:
    if len(cells) != len(columns):
        column = columns[len(cells)] if len(cells) < len(columns) else columns[-1]
        found, expected = f"{len(cells)} cells", f"{len(columns)} cells"
        return RowError(column, "wrong number of cells", found=found, expected=expected)
    if delimiter == "\t" and (swallowed := _swallowed_rows(cells)):
        expected = "no tabs and lines in it as of whole rows (is there a stray quote?)"
        return RowError("row", "rows within a cell", found=shown(swallowed), expected=expected)
    return _not_utf8(columns, cells) or dict(zip(columns, cells, strict=True))


def _not_utf8(columns: list[str], cells: list[str]) -> RowError | None:
    for column, cell in zip(columns, cells, strict=True):
        try:
            cell.encode()
        except UnicodeEncodeError as error:
            byte = ord(cell[error.start]) - 0xDC00  # as `surrogateescape` keeps it
            return RowError(column, "not UTF-8", found=f"the byte 0x{byte:02x}", expected="UTF-8")
    return None


def _swallowed_rows(cells: list[str]) -> str | None:
    """The cell of a TSV where one stray quote opened and another happened to close: it holds the tabs of its lines."""
    tabs = len(cells) - 1
    return next((cell for cell in cells if cell.count("\t") == tabs * cell.count("\n") > 0), None)


def _image_rows(path: Path) -> Iterator[Any]:
    yield {"image": str(path.absolute()), "label": path.parent.name}


_READERS: dict[str, Callable[[Path], Iterator[Any]]] = {
    ".parquet": _parquet_rows,
    ".arrow": _arrow_rows,
    ".jsonl": _jsonl_rows,
    ".json": _json_rows,
    ".csv": partial(table_rows, delimiter=","),
    ".tsv": partial(table_rows, delimiter="\t"),
}


def _fetched(value: Any) -> Any:
    """The bytes of an image that the hub keeps as a file beside the table, or in an archive (`zip://1.png::hf://…`)."""
    if isinstance(value, list):
        return [_fetched(item) for item in value]
    if isinstance(value, dict) and value.get("bytes") is None and _OF_THE_HUB.match(str(value.get("path"))):
        import fsspec

        try:
            with fsspec.open(value["path"], "rb") as file:
                return {"bytes": file.read(), "path": value["path"]}
        except (FileNotFoundError, ValueError):  # no such file, no such scheme: named when the row is converted
            return value
    return value
