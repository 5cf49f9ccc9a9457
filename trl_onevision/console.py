"""What the commands share on a terminal."""

from collections.abc import Container, Iterable, Sequence
from typing import NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table


def progress(console: Console) -> Progress:
    """Bars with what is done, of how much, and both times; they give way to what is said afterwards."""
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    )


def counts(header: Sequence[str], rows: Iterable[Sequence[str]], bold: Container[str] = ("kept",)) -> Table:
    """Figures for a terminal, by what they count; nothing in them is markup, whatever a dataset or a server says."""
    table = Table(*map(escape, header))
    for column in table.columns[1:]:
        column.justify = "right"
    for row in rows:
        table.add_row(*map(escape, row), style="bold" if row[0] in bold else None)
    return table


def fail(error: Exception) -> NoReturn:
    """End a command with the error's message on standard error and status 1, without a traceback."""
    typer.secho(f"Error: {error}", fg="red", err=True)
    raise typer.Exit(1) from error
