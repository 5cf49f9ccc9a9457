"""What the commands share on a terminal."""

from typing import NoReturn

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


def progress(console: Console) -> Progress:
    """Bars with what is done, of how much, and both times; they give way to what is said afterwards."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    )


def fail(error: Exception) -> NoReturn:
    """End a command with the error's message on standard error and status 1, without a traceback."""
    typer.secho(f"Error: {error}", fg="red", err=True)
    raise typer.Exit(1) from error
