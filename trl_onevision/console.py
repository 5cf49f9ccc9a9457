"""What the commands share on a terminal."""

from typing import NoReturn

import typer


def fail(error: Exception) -> NoReturn:
    """End a command with the error's message on standard error and status 1, without a traceback."""
    typer.secho(f"Error: {error}", fg="red", err=True)
    raise typer.Exit(1) from error
