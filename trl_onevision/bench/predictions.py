"""The folder of a run, which is of one run alone, and predictions that other engines wrote."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trl_onevision.bench.answer import Answer, BenchError
from trl_onevision.data.schema import shown
from trl_onevision.data.sources import open_source
from trl_onevision.data.writer import refuse_used
from trl_onevision.json_file import changes, read_json, write_json

RUN = "run.json"
REPLIES = "answers.sqlite"
PREDICTIONS = "predictions.jsonl"
TEXT_COLUMNS = ("completion", "prediction", "response")


def claim(folder: Path, description: Mapping[str, Any]) -> None:
    """Take a folder for a run, whose `description` is all that decides what the answers are.

    One that holds another run's answers, or files that no benchmark wrote, is left as it is, with a `BenchError` that
    names the difference. One without a single answer is free for any run.
    """
    try:
        saved = read_json(folder / RUN)
    except ValueError as error:
        raise BenchError(f"{error} A whole {PREDICTIONS} can be scored with --predictions.") from error
    if not saved.keys() >= {"data", "limit"}:  # what every description names; others write a run.json too
        refuse_used(folder)
    if not (folder / REPLIES).exists() and not (folder / PREDICTIONS).exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / RUN, description)
    elif differences := changes(saved, description):
        raise BenchError(
            f"{folder}: holds answers of another run ({'; '.join(differences)}). Nothing was changed: name a new "
            "folder with --output, or repeat that run's command to go on with it."
        )


def read_predictions(path: Path, indices: Sequence[str], limit: int | None = None) -> list[Answer]:
    """Another engine's answers: a table with `index` and one of `completion`, `prediction`, `response`.

    The file is JSONL, TSV, CSV or whatever else `prepare` reads. `limit` keeps the answers to the first rows only.
    Raises `SourceError` for a file that cannot be read, and `BenchError` for a row that cannot, for one of the first
    rows without an answer, for two answers to a row, and for an answer to no row of the benchmark. `finished`, where
    the file has it, says whether the model came to an end by itself.
    """
    answers: dict[str, Answer] = {}
    for raw in open_source(str(path)).rows():
        place, record = f"{path}: {raw.place}", raw.example
        if raw.error is not None:
            raise BenchError(f"{place}: {raw.error.reason}")
        column = next((name for name in TEXT_COLUMNS if name in record), None)
        if column is None or record.get("index") is None:
            raise BenchError(
                f"{place}: found columns {shown(sorted(record))}, expected 'index' and one of "
                f"{', '.join(TEXT_COLUMNS)}."
            )
        index, text = str(record["index"]).strip(), record[column]
        if index in answers:
            raise BenchError(f"{place}: index {index!r} is there twice, expected one answer a row.")
        if not isinstance(text, str | None):
            raise BenchError(f"{place}, column {column!r}: found {shown(text)}, expected text.")
        answers[index] = Answer(index, text or "", record.get("finished", True) not in (False, "False", "false"))
    unknown = sorted(answers.keys() - set(indices))
    wanted = indices[:limit]
    missing = [index for index in wanted if index not in answers]
    if unknown or missing:
        raise BenchError(
            f"{path}: found no answer to {len(missing)} rows {missing[:5]} and {len(unknown)} answers to no row "
            f"{unknown[:5]}, expected one answer for each of the {len(wanted)} rows. Is it another benchmark's?"
        )
    return [answers[index] for index in wanted]
