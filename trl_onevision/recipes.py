"""Finding the YAML recipes that ship with the package."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from trl_onevision.console import fail


class RecipeError(ValueError):
    """No such recipe, or no place to copy it to; the message says what to do."""


def recipe_folder() -> Path:
    """Where the recipes lie: inside an installed wheel, beside the package in a checkout."""
    installed = Path(__file__).parent / "recipes"
    return installed if installed.is_dir() else Path(__file__).parent.parent / "recipes"


def recipe_names() -> list[str]:
    """The names of all recipes.

    >>> "quickstart-grpo" in recipe_names()
    True
    """
    return sorted(path.stem for path in recipe_folder().glob("*.yaml"))


def recipe_path(name: str) -> Path:
    """The file of one recipe, named with or without `.yaml`.

    >>> recipe_path("quickstart-sft").name
    'quickstart-sft.yaml'

    Raises `RecipeError`, which lists the known names, when there is none.
    """
    stem = name.removesuffix(".yaml")
    if stem not in recipe_names():
        close = get_close_matches(stem, recipe_names(), n=1)
        hint = f" Did you mean {close[0]}?" if close else ""
        raise RecipeError(f"No recipe is named {name!r}.{hint} Known recipes: {', '.join(recipe_names())}.")
    return recipe_folder() / f"{stem}.yaml"


def summary(recipe: Path) -> str:
    """What a recipe does: the first line of the comment that opens it."""
    with recipe.open(encoding="utf-8") as lines:
        return next(lines).lstrip("# ").rstrip()


def copy_recipe(name: str, target: Path) -> None:
    """Copy one recipe to `target`, which must not exist with other content.

    Raises `RecipeError` when the recipe is unknown or `target` holds something else.
    """
    text = recipe_path(name).read_text(encoding="utf-8")
    if target.is_dir():
        raise RecipeError(f"{target}: found a folder, expected the name of a file to write.")
    if target.exists() and target.read_text(encoding="utf-8", errors="replace") != text:
        raise RecipeError(
            f"{target}: already holds something else. Nothing was changed: name another file or move it."
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text, encoding="utf-8")


def recipes_command(
    name: Annotated[str | None, typer.Argument(help="A recipe to print; without it, all are listed.")] = None,
    output: Annotated[Path | None, typer.Option(help="Copy the recipe to this file instead of printing it.")] = None,
) -> None:
    """List the recipes, print one, or copy one to a file."""
    try:
        if name is None:
            if output is not None:
                raise RecipeError("--output copies one recipe: trl-onevision recipes NAME --output FILE")
            _list()
        elif output is None:
            typer.echo(recipe_path(name).read_text(encoding="utf-8"), nl=False)
        else:
            copy_recipe(name, output)
            typer.echo(f"{recipe_path(name).stem} -> {output}")
    except (RecipeError, OSError) as error:
        fail(error)


def _list() -> None:
    """Print a line each: cut to a terminal's width, whole in a file or a pipe."""
    console, width = Console(), max(map(len, recipe_names()))
    for name in recipe_names():
        console.print(
            f"{name:<{width}}  {summary(recipe_path(name))}",
            no_wrap=True,
            overflow="ellipsis" if console.is_terminal else "ignore",
            crop=console.is_terminal,
            markup=False,
            highlight=False,
        )
