"""`trl-onevision stages FILE`: `trl` commands in a row, each from the checkpoint of the one before.

A curriculum is rows in order (`shuffle_dataset: false`) and stages in order; no trainer has to know of it.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from rich.console import Console

from trl_onevision.console import fail
from trl_onevision.json_file import write_json
from trl_onevision.recipes import RecipeError, recipe_folder, recipe_path

DONE = "stage.json"  # in a stage's output folder, once it has ended well
FOLDER = "stages"  # of the files that ship with the recipes


class StageError(RuntimeError):
    """A file of stages that cannot be walked, or a stage that failed; the message says which, why and what to do."""


@dataclass(frozen=True)
class Stage:
    """One `trl` command, and the folder that it leaves its model in."""

    number: int
    command: tuple[str, ...]
    output: Path

    def __str__(self) -> str:
        return f"stage {self.number} ({shlex.join(self.command)})"

    @property
    def checkpoint(self) -> Path | None:
        """The last whole checkpoint of a run that was stopped."""
        found = [path.parent for path in self.output.glob("checkpoint-*/trainer_state.json")]
        return max(found, key=lambda path: int(path.name.rpartition("-")[2]), default=None)


def read_stages(file: str | Path) -> list[Stage]:
    """The stages of a file: a YAML list of commands, `trl METHOD --config RECIPE [--option value …]`.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "stages.yaml")
    ...     _ = path.write_text("- trl sft --config quickstart-sft.yaml\\n- trl grpo --config quickstart-grpo.yaml\\n")
    ...     first, second = read_stages(path)
    >>> str(first.output), second.command[-2:]
    ('sft', ('--model_name_or_path', 'sft'))

    A recipe is looked for beside the file, and then among those that ship with the package. Every stage but the first
    starts from the model that the one before leaves, unless its command names a model. Raises `StageError`.
    """
    path = Path(file)
    try:
        lines = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise StageError(f"{path}: cannot be read as YAML ({error}).") from error
    if not isinstance(lines, list) or not lines or not all(isinstance(line, str) for line in lines):
        raise StageError(f"{path}: expected a list of commands, as in '- trl grpo --config RECIPE', found {lines!r}.")
    stages: list[Stage] = []
    for number, line in enumerate(lines, start=1):
        stages.append(_stage(path, number, _words(line), stages[-1].output if stages else None))
    outputs = [stage.output for stage in stages]
    for stage in stages:
        if outputs.count(stage.output) > 1:
            raise StageError(f"{path}: {stage} writes to {stage.output}, as another stage does; give --output_dir.")
    return stages


def _words(command: str) -> list[str]:
    """The words of a command, each option and its value apart and spelled as in a recipe.

    >>> _words("trl grpo --config=two.yaml --output-dir runs/two")
    ['trl', 'grpo', '--config', 'two.yaml', '--output_dir', 'runs/two']
    """
    words: list[str] = []
    for word in shlex.split(command):
        name, equals, value = word.partition("=")
        is_option = word.startswith("--")
        words += [f"--{name[2:].replace('-', '_')}", *([value] if equals else [])] if is_option else [word]
    return words


def _stage(file: Path, number: int, words: list[str], start: Path | None) -> Stage:
    where = f"{file}, stage {number}"
    if len(words) < 2 or words[0] != "trl" or "--config" not in words[:-1]:
        raise StageError(f"{where}: expected 'trl METHOD --config RECIPE …', found {shlex.join(words)!r}.")
    at = words.index("--config") + 1
    recipe = file.parent / words[at]
    if not recipe.is_file():
        try:
            recipe = recipe_path(words[at])
        except RecipeError as error:
            raise StageError(f"{where}: --config {words[at]}: no file beside {file.name}, and {error}") from error
    words[at] = str(recipe)
    settings: dict[str, Any] = yaml.safe_load(recipe.read_text(encoding="utf-8")) or {}
    output = words[words.index("--output_dir") + 1] if "--output_dir" in words[:-1] else settings.get("output_dir")
    if output is None:
        raise StageError(f"{where}: names no output_dir, neither in {words[at]} nor in the command.")
    if start is not None and "--model_name_or_path" not in words:
        words += ["--model_name_or_path", str(start)]
    return Stage(number, tuple(words), Path(output))


def walk(stages: list[Stage], console: Console | None = None) -> None:
    """Run the stages that are not finished, in order; one that was stopped goes on from its last checkpoint.

    A finished stage leaves `stage.json` with its command in its output folder. Raises `StageError` where a stage
    fails, where its folder holds what another command made, and where the next would start from adapters alone.
    """
    console = console or Console()
    for before, stage in zip([None, *stages], stages, strict=False):
        done = stage.output / DONE
        if done.exists():
            made = json.loads(done.read_text(encoding="utf-8"))["command"]
            if made != list(stage.command):
                raise StageError(
                    f"{stage}: {stage.output} was made by {shlex.join(made)!r}. Name another --output_dir, or move it."
                )
            console.print(f"{stage}: done before", markup=False, highlight=False)
            continue
        if before is not None and str(before.output) in stage.command and _holds_adapters_alone(before.output):
            raise StageError(
                f"{stage}: starts from {before.output}, which holds adapters and no model. Merge them "
                "(peft's merge_and_unload) and give the merged folder as --model_name_or_path."
            )
        _run(stage, console)


def _run(stage: Stage, console: Console) -> None:
    resume = ["--resume_from_checkpoint", str(stage.checkpoint)] if stage.checkpoint else []
    going_on = f", from {stage.checkpoint}" if resume else ""
    console.print(f"{stage}{going_on}", markup=False, highlight=False)
    # This interpreter's own TRL, whatever stands on PATH
    command = [sys.executable, "-m", "trl.cli.main", *stage.command[1:], *resume]
    start = time.monotonic()
    status = subprocess.run(command, env=os.environ).returncode
    if status != 0:
        raise StageError(
            f"{stage} ended with status {status}. Mend it and run the same stages again: they go on there."
        )
    write_json(stage.output / DONE, {"command": stage.command, "seconds": round(time.monotonic() - start, 1)})


def _holds_adapters_alone(folder: Path) -> bool:
    return (folder / "adapter_config.json").exists() and not (folder / "config.json").exists()


def stages_command(
    file: Annotated[Path, typer.Argument(help="A YAML list of `trl` commands, or the name of one that ships.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the commands and run none.")] = False,
) -> None:
    """Run `trl` commands in a row, each from the checkpoint of the one before; finished ones are skipped."""
    shipped = recipe_folder() / FOLDER / f"{file.name.removesuffix('.yaml')}.yaml"
    try:
        stages = read_stages(shipped if not file.exists() and shipped.is_file() else file)
        if dry_run:
            for stage in stages:
                typer.echo(shlex.join(stage.command))
        else:
            walk(stages)
    except (StageError, OSError) as error:
        fail(error)
