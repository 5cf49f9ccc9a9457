"""`trl-onevision prepare synthesize`: rows of a made task as a folder that a recipe reads."""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
import typer
from rich.console import Console

from trl_onevision.console import fail, progress
from trl_onevision.data.images import encode_image
from trl_onevision.data.prompts import PROMPTS, find_prompt
from trl_onevision.data.schema import validate_row
from trl_onevision.data.synthesize import TASKS, level_of, make, make_row
from trl_onevision.data.synthesize.pictures import from_folder
from trl_onevision.data.synthesize.puzzle import Pictures
from trl_onevision.data.synthesize.scene import picture
from trl_onevision.data.synthesize.sheet import SHOWN, draw_sheet
from trl_onevision.data.writer import ShardWriter, rows_table, stored, whole_folder

FACTS = "facts.jsonl"
ALONE = 100  # rows up to which no further process is started: that takes as long


def synthesize(
    task: str,
    output: str | Path,
    *,
    number: int,
    level: int = 1,
    seed: int = 0,
    images: str | Path | None = None,
    prompt: str = "think-answer",
    split: str = "train",
    workers: int | None = None,
    console: Console | None = None,
) -> Path:
    """Write `number` rows of a made task: the same rows for the same arguments, on every machine.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = synthesize("count", f"{folder}/count", number=3, console=Console(quiet=True))
    ...     sorted(file.name for file in path.iterdir())
    ['data', 'facts.jsonl']

    `images` is a folder of photographs, else scenes are drawn. `facts.jsonl` says by row id what was drawn. Raises
    `ValueError` on an unknown task or level and where no puzzle can be made, `OutputExists`, `RowError` on an image
    file that cannot be decoded.
    """
    console = console or Console()
    draw = partial(_row, task, level, seed, None if images is None else str(images), prompt)
    draw(0)  # what cannot be made at all is said before a process is started
    with (
        whole_folder(output, split) as work,
        ShardWriter(work / "data", rows_table("grpo")) as writer,
        (work / FACTS).open("w", encoding="utf-8") as facts,
        progress(console) as bar,
    ):
        drawn = _mapped(draw, number, workers)
        for row, fact in bar.track(drawn, total=number, description=f"making {task}"):
            validate_row(row)
            writer.write(*stored(row, "grpo"))
            facts.write(json.dumps(fact, ensure_ascii=False) + "\n")
    return Path(output).resolve()


def write_seeds(
    task: str, output: str | Path, *, number: int, level: int = 1, seed: int = 0, split: str = "train"
) -> Path:
    """Write what `synthesize` makes its rows from, for `environments.Synthesize` to draw them while training.

    >>> import tempfile, pyarrow.parquet
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = write_seeds("count", f"{folder}/count", number=2, level=3)
    ...     pyarrow.parquet.read_table(path / "data").to_pylist()
    [{'task': 'count', 'level': 3, 'seed': 0, 'index': 0}, {'task': 'count', 'level': 3, 'seed': 0, 'index': 1}]

    Raises `ValueError` on an unknown task or level, `OutputExists`.
    """
    level_of(task, level)
    with whole_folder(output, split) as work, ShardWriter(work / "data", pa.Table.from_pylist) as writer:
        for index in range(number):
            writer.write({"task": task, "level": level, "seed": seed, "index": index})
    return Path(output).resolve()


def _mapped(draw: Any, number: int, workers: int | None) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    workers = min(workers or os.cpu_count() or 1, -(-number // ALONE))
    if workers == 1:
        yield from map(draw, range(number))
        return
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(draw, range(number), chunksize=16)


def _row(
    task: str, level: int, seed: int, images: str | None, prompt: str, index: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """A row with its images encoded, which is most of the work, and what was drawn."""
    puzzle, made = make_row(task, _pictures(images), level, seed, index, find_prompt(prompt))
    made["images"] = [{"bytes": encode_image(image)} for image in puzzle.images]
    return made, {"id": made["id"], "facts": puzzle.facts}


@cache
def _pictures(images: str | None) -> Pictures:
    return picture if images is None else from_folder(images)


def synthesize_command(
    output: Annotated[Path, typer.Option(help="The folder to write; new or empty.")],
    task: Annotated[str, typer.Option(help=f"One of {', '.join(TASKS)}.")],
    number: Annotated[int, typer.Option(min=1, help="How many rows.")] = 1000,
    level: Annotated[int, typer.Option(min=1, help="How hard; each task says what its levels are.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Other seeds give other rows.")] = 0,
    images: Annotated[
        Path | None, typer.Option(help="A folder of photographs to make tasks from. Default: drawn scenes.")
    ] = None,
    prompt: Annotated[str, typer.Option(help=f"One of {', '.join(sorted(PROMPTS))}.")] = "think-answer",
    split: Annotated[str, typer.Option(help="The split to write.")] = "train",
    sheet: Annotated[Path | None, typer.Option(help="Draw the first dozen rows into this image file.")] = None,
    online: Annotated[
        bool, typer.Option("--online", help="Write seeds alone: environments.Synthesize draws while training.")
    ] = False,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes that draw. Default: one a core.")] = None,
) -> None:
    """Make rows of a task whose answer is known because the question was made from it."""
    try:
        if online and (images or sheet):
            raise ValueError("--online writes seeds alone: leave out --images and --sheet.")
        if online:
            path = write_seeds(task, output, number=number, level=level, seed=seed, split=split)
            typer.echo(
                f"Wrote {number:,} seeds of {task}, level {level}, to {path}. A recipe with "
                "`environment: trl_onevision.environments.Synthesize` draws their rows."
            )
            return
        if sheet is not None:
            drawn = _pictures(None if images is None else str(images))
            draw_sheet([make(task, drawn, level, seed, index) for index in range(min(number, SHOWN))], sheet)
        options: dict[str, Any] = {"images": images, "prompt": prompt, "split": split, "workers": workers}
        path = synthesize(task, output, number=number, level=level, seed=seed, **options)
    except (ValueError, OSError) as error:
        fail(error)
    description, chance = level_of(task, level)
    typer.echo(f"Wrote {number:,} rows of {task}, level {level} ({description}), to {path}.")
    typer.echo(f"Answers at random earn {chance:.3f}. A recipe reads the rows as `dataset_name: {output}`.")
