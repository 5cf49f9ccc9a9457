"""The benchmark's file as published: one TSV, checked row by row before a model is loaded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from trl_onevision.answers.choice import LETTERS
from trl_onevision.answers.words import listed
from trl_onevision.data.images import decode_image
from trl_onevision.data.questions import read_choices
from trl_onevision.data.schema import RowError, shown
from trl_onevision.data.sources import SourceError, table_rows

COLUMNS = ("index", "question", "choices", "answer", "level", "category", "image")
MISSING = ("", "nan", "none", "null", "[]")
"""How a cell says that it holds nothing, once lower-cased."""
_AGAIN = "Download the file again if it should be whole."


class TsvError(ValueError):
    """The file is no R1-Onevision-Bench; the message names the row and the column."""


@dataclass(frozen=True)
class BenchRow:
    """One question; `choices` are its option texts, where it has options and they are known."""

    index: str
    question: str
    choices: list[str] | None
    answer: str
    level: str
    category: str
    image: str


def read_tsv(path: Path, limit: int | None = None) -> list[BenchRow]:
    """Read and check the benchmark; `limit` keeps the first rows only.

    Every row has all columns, none but `choices` empty, an index of its own, and an image that opens, or the index of
    the row whose image it shares. Raises `TsvError`, with the number of the row counted from 1 after the header, its
    index and the column.
    """
    rows: dict[str, BenchRow] = {}
    for number, cells in enumerate(_cells(path), 1):
        row = row_of(cells)
        place = f"{path}: row {number} (index {shown(row.index, 20)})"
        for column in COLUMNS:
            if not cells[column].strip() and column != "choices":
                raise TsvError(f"{place}, column {column!r}: found nothing, expected a value. {_AGAIN}")
        if row.index in rows:
            first = 1 + [*rows].index(row.index)
            raise TsvError(f"{place}, column 'index': found the index of row {first}, expected one of its own.")
        if row.image in rows:
            row = replace(row, image=rows[row.image].image)
        else:
            _check_image(row.image, place)
        rows[row.index] = row
        if len(rows) == limit:
            break
    if not rows:
        raise TsvError(f"{path}: found a header and no rows. {_AGAIN}")
    return [*rows.values()]


def _cells(path: Path) -> Iterator[dict[str, str]]:
    """The rows as mappings. Each has as many cells as the header: a cut or unquoted row has not."""
    number = 0
    try:
        for number, row in enumerate(table_rows(path, "\t"), 1):
            if isinstance(row, RowError):
                raise TsvError(f"{path}: row {number}, {row.reason}. {_AGAIN}")
            if missing := [column for column in COLUMNS if column not in row]:
                raise TsvError(
                    f"{path}: row 0 (the header), column {missing[0]!r}: found {shown(list(row))}, expected "
                    f"{', '.join(COLUMNS)}. Is it another file than r1-onevision.tsv?"
                )
            yield row
    except SourceError as error:
        raise TsvError(f"{path}: row {number + 1}, column {COLUMNS[-1]!r} or before: {error}. {_AGAIN}") from error
    except OSError as error:
        raise TsvError(f"{path}: cannot be read ({error.strerror}), expected the file r1-onevision.tsv.") from error


def _check_image(cell: str, place: str) -> None:
    try:
        decode_image(f"data:;base64,{cell}")  # never a path: a file from elsewhere must not name files here
    except RowError as error:
        raise TsvError(f"{place}, column 'image': {error.problem}; found {error.found}. {_AGAIN}") from error


def row_of(cells: Mapping[str, str]) -> BenchRow:
    """The cells of one row, read."""
    stripped = {column: cells[column].strip() for column in COLUMNS}
    choices = stripped.pop("choices")
    return BenchRow(**stripped, choices=None if choices.lower() in MISSING else options(choices, stripped["question"]))


def options(cell: str, question: str) -> list[str] | None:
    """The option texts of a `choices` cell: a list in JSON or Python, or lettered text; else the question's own.

    >>> options('["red", "blue"]', ""), options("['A. red', 'B. blue']", ""), options("A. red\\nB. blue", "")
    (['red', 'blue'], ['A. red', 'B. blue'], ['red', 'blue'])
    >>> options("A, B", "Which? (A) red (B) blue"), options("A, B", "Which?")
    (['red', 'blue'], None)
    >>> options("[1, 2]", "Which?"), options("['A', 'B']", "Which? (A) red (B) blue")
    (['1', '2'], ['red', 'blue'])
    """
    texts = [str(option).strip() for option in listed(cell) or ()]
    if texts and texts != list(LETTERS[: len(texts)]):  # letters alone: the texts are in the question
        return texts
    return read_choices(cell) or read_choices(question)
