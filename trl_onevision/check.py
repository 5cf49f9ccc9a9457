"""`trl-onevision check RECIPE`: what `trl grpo` will make of a recipe, known before anything is loaded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
import yaml

from trl_onevision import requested
from trl_onevision.console import fail
from trl_onevision.recipes import RecipeError, recipe_path

# Imports what `trl grpo` would import, in an interpreter that has not seen this package.
_IMPORT = """
import importlib, json, sys
problems = {}
for path in sys.argv[1:]:
    module, _, name = path.rpartition(".")
    try:
        problems[path] = None if callable(getattr(importlib.import_module(module), name)) else "it cannot be called"
    except (Exception, SystemExit) as error:
        problems[path] = f"{type(error).__name__}: {error}"
print(json.dumps([problems, "trl_onevision" in sys.modules]))
"""


class RecipeProblem(ValueError):
    """The recipe is not a file that `trl grpo` reads; the message says what was found."""


@dataclass
class Verdict:
    """What a recipe does: `errors` stop a run at its start, `notes` are what its author may not have meant."""

    trainer: str
    errors: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def check_recipe(recipe: Path, folder: Path | None = None) -> Verdict:
    """Read a recipe for `trl grpo` as TRL does: its keys, its rewards, and whether they bring in this package.

    `folder` is the one that `trl grpo` is started from, in which it looks for a module of rewards. Options are read,
    and those of this package held against TRL's; data and model are not looked at.

    >>> from trl_onevision.recipes import recipe_path
    >>> check_recipe(recipe_path("quickstart-grpo")).errors
    []

    Raises `RecipeProblem` where the file is no mapping in YAML.
    """
    settings = _read(recipe)
    # As TRL does: every key of `env` is exported as text
    text = str((settings.get("env") or {}).get("TRL_ONEVISION", os.environ.get("TRL_ONEVISION", "")))
    asked = requested(text)
    args, errors = _read_as_trl_does(settings)
    named = settings.get("reward_funcs") or []
    if isinstance(named, str) or not (named or settings.get("reward_model_name_or_path")):
        errors.append(f"reward_funcs: found {named or 'none'}, expected a list of rewards in a recipe for `trl grpo`.")
    paths = [path for path in ([] if isinstance(named, str) else named) if "." in str(path)]
    problems, brings_us_in = _imported(paths, folder or Path())
    errors += [f"reward_funcs: {path} cannot be used ({why})." for path, why in problems.items() if why]
    trainer, notes = "TRL's own GRPOTrainer", []
    if asked and brings_us_in:
        from trl_onevision.grpo.options import Options

        try:
            with _importable(folder or Path()):
                options = Options.parse(text)
            trainer = f"OneVisionGRPOTrainer, with {options.describe()}"
            if args is not None:
                options.check(args)
        except ValueError as error:
            errors.append(f"env: {error}")
    elif asked:
        notes.append(
            "TRL_ONEVISION does nothing here: no reward in reward_funcs imports trl_onevision. Name one of its "
            "rewards, or write `import trl_onevision` in the module of yours."
        )
    elif brings_us_in:
        notes.append("env: {TRL_ONEVISION: {share_prompt: auto}} would train with OneVisionGRPOTrainer.")
    return Verdict(trainer, errors, notes)


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """While active, modules of the folder are found, as `trl grpo` finds what an option names."""
    sys.path.insert(0, str(folder.resolve()))
    try:
        yield
    finally:
        sys.path.pop(0)


def _read(recipe: Path) -> dict[str, Any]:
    try:
        settings = yaml.safe_load(recipe.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise RecipeProblem(f"{recipe}: cannot be read as YAML ({error}).") from error
    if not isinstance(settings, dict):
        raise RecipeProblem(f"{recipe}: found {type(settings).__name__}, expected a mapping of options to values.")
    if not isinstance(settings.get("env") or {}, dict):
        raise RecipeProblem(f"{recipe}: env is {settings['env']!r}, expected a mapping of variables to values.")
    return settings


def _read_as_trl_does(settings: dict[str, Any]) -> tuple[Any, list[str]]:
    """The options as TRL's parser reads them, or None; and what is wrong: with a value, or keys that none knows.

    A key that neither TRL nor `accelerate launch` knows would end the run in `accelerate`'s parser.
    """
    from accelerate.commands.launch import launch_command_parser
    from trl.scripts.grpo import make_parser

    def refuse(message: str) -> NoReturn:
        raise ValueError(message)

    parser = make_parser()
    known = {a.dest for p in (parser, launch_command_parser()) for a in p._actions} | {"env", "accelerate_config"}
    errors = []
    for key in map(str, settings):
        if key not in known:
            close = get_close_matches(key, known, n=1)
            errors.append(f"{key}: neither TRL nor accelerate has this option.{f' {close[0]}?' if close else ''}")
    parser.set_defaults_with_config(**settings)
    parser.error = refuse  # in the place of leaving Python
    try:
        return parser.parse_args([]), errors
    except ValueError as error:
        return None, [*errors, str(error)]


def _imported(paths: list[str], folder: Path) -> tuple[dict[str, str | None], bool]:
    """For each dotted path why it cannot be used, and whether importing them brings in this package."""
    environment = {name: value for name, value in os.environ.items() if name != "TRL_ONEVISION"}
    run = subprocess.run(
        [sys.executable, "-c", _IMPORT, *paths], cwd=folder, env=environment, capture_output=True, text=True
    )
    lines = run.stdout.splitlines()
    if run.returncode != 0 or not lines:
        raise RecipeProblem(f"reward_funcs: importing them ended Python ({run.stderr.strip()[-500:]}).")
    problems, brings_us_in = json.loads(lines[-1])
    return problems, brings_us_in


def check_command(
    recipe: Annotated[Path, typer.Argument(help="A YAML file for `trl grpo`, or the name of one that ships.")],
) -> None:
    """Say what `trl grpo` will make of a recipe: which trainer, with which options, and what stops it at its start."""
    try:
        verdict = check_recipe(recipe if recipe.exists() else recipe_path(str(recipe)))
    except (RecipeProblem, RecipeError) as error:
        fail(error)
    for message in verdict.errors:
        typer.secho(f"Error: {message}", fg="red", err=True)
    for note in verdict.notes:
        typer.secho(f"Note: {note}", fg="yellow")
    if verdict.errors:
        raise typer.Exit(1)
    typer.echo(f"trl grpo --config {recipe}: {verdict.trainer}")
