"""Predictions on disk: the file of a run, which grows row by row, and files that other engines wrote."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from trl_onevision.bench.answer import Answer, BenchError
from trl_onevision.data.schema import shown
from trl_onevision.data.sources import open_source
from trl_onevision.data.writer import refuse_used
from trl_onevision.json_file import write_json

RUN = "run.json"
PREDICTIONS = "predictions.jsonl"
TEXT_COLUMNS = ("completion", "prediction", "response")


class Predictions:
    """The answers of one run in its folder, kept as they come; a run of anything else is refused.

    `description` is all that decides what the answers are. A folder that holds another one's answers, or files that
    no benchmark wrote, is left as it is, with a `BenchError` that names the difference. One without a single answer is
    free for any run.
    """

    def __init__(self, folder: Path, description: Mapping[str, Any]) -> None:
        self.path = folder / PREDICTIONS
        self.answers: dict[str, Answer] = {}
        _claim(folder, description)
        self._restore()
        self._file = self.path.open("a", encoding="utf-8")

    def __enter__(self) -> Predictions:
        return self

    def __exit__(self, *raised: object) -> None:
        self._file.close()

    def add(self, answer: Answer) -> None:
        """Keep one answer: on disk when this returns."""
        self._file.write(json.dumps(asdict(answer)) + "\n")
        self._file.flush()
        self.answers[answer.index] = answer

    def _restore(self) -> None:
        """Read what an earlier run left; a last line that a crash cut off is dropped."""
        whole = 0
        if self.path.exists():
            for number, line in enumerate(self.path.read_bytes().splitlines(keepends=True), 1):
                if not line.endswith(b"\n"):
                    break
                try:
                    answer = Answer(**json.loads(line))
                except (ValueError, TypeError) as error:
                    raise BenchError(
                        f"{self.path}: line {number} is no prediction of this benchmark ({error}). Mend or remove the "
                        "line: its row is then answered again."
                    ) from error
                self.answers[answer.index] = answer
                whole += len(line)
            with self.path.open("ab") as file:
                file.truncate(whole)


def _claim(folder: Path, description: Mapping[str, Any]) -> None:
    run = folder / RUN
    saved = _description(run) if run.is_file() else {}
    if not saved.keys() >= {"data", "limit"}:  # what every description names; others write a run.json too
        refuse_used(folder)
    answers = folder / PREDICTIONS
    if not answers.exists() or not answers.stat().st_size:  # new, or its first start failed: nothing to keep
        folder.mkdir(parents=True, exist_ok=True)
        write_json(run, description)
    elif changed := [key for key in description if saved.get(key) != description[key]]:
        differences = "; ".join(f"{key} {saved.get(key)!r}, now {description[key]!r}" for key in changed)
        raise BenchError(
            f"{folder}: holds answers of another run ({differences}). Nothing was changed: name a new folder with "
            "--output, or repeat that run's command to go on with it."
        )


def _description(run: Path) -> dict[str, Any]:
    try:
        saved = json.loads(run.read_bytes())
    except ValueError as error:
        raise BenchError(
            f"{run}: found no JSON ({error}), expected the description of a run. Nothing was changed: name a new "
            f"folder with --output. A whole {PREDICTIONS} can be scored with --predictions."
        ) from error
    return saved if isinstance(saved, dict) else {}


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


def fingerprint(path: Path) -> str:
    """What tells a file from another by its content, or a folder of weights from another without reading them all."""
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]
    # Weights lie flat; folders within may be earlier checkpoints, or this benchmark's own report.
    files = sorted(file for file in path.iterdir() if file.suffix in (".safetensors", ".bin", ".json", ".jinja"))
    named = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return hashlib.sha256(json.dumps(named).encode()).hexdigest()[:16]
