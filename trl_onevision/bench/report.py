"""Scores as a person reads them: a table by category and level, JSON, Markdown and a heat map."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from trl_onevision.bench import paper
from trl_onevision.bench.score import Scored
from trl_onevision.console import counts

RUN = "this run"


def cell(verdicts: Iterable[bool]) -> dict[str, Any]:
    """Rows, right ones, their share and its 95 % interval after Wilson, sound for few rows and near 0 and 1.

    >>> {name: round(value, 3) for name, value in cell([True] * 36 + [False] * 64).items()}
    {'n': 100, 'right': 36, 'accuracy': 0.36, 'low': 0.273, 'high': 0.458}
    """
    from scipy.stats import binomtest  # seconds to import, and only a report needs it

    verdicts = list(verdicts)
    n, right = len(verdicts), sum(verdicts)
    if n == 0:
        return {"n": 0, "right": 0, "accuracy": None, "low": 0.0, "high": 1.0}
    interval = binomtest(right, n).proportion_ci(method="wilson")
    return {"n": n, "right": right, "accuracy": right / n, "low": float(interval.low), "high": float(interval.high)}


def results(scored: Sequence[Scored], name: str, judged: Mapping[str, float] | None = None) -> dict[str, Any]:
    """All figures of a run; levels and categories are those of the data, in the paper's order where it has one."""
    levels = _ordered({one.level for one in scored}, paper.LEVELS)
    categories = _ordered({one.category for one in scored}, paper.CATEGORIES)

    def of(**wanted: str) -> dict[str, Any]:
        chosen = (one for one in scored if all(getattr(one, key) == value for key, value in wanted.items()))
        return cell(one.correct for one in chosen)

    figures: dict[str, Any] = {
        "model": name,
        "overall": of(),
        "levels": {level: of(level=level) for level in levels},
        "categories": {category: of(category=category) for category in categories},
        "cells": {c: {level: of(category=c, level=level) for level in levels} for c in categories},
        "choice": of(task="choice"),
        "free_form": cell(one.correct for one in scored if one.task != "choice"),
        "answers": {how: sum(one.how == how for one in scored) for how in ("stated", "last line", "none")},
        "unfinished": sum(not one.finished for one in scored),
        "literal_disagrees": sum(one.literal != one.correct for one in scored),
    }
    if judged is not None:
        verdicts = [judged.get(one.index, float(one.correct)) == 1 for one in scored]
        figures["judge"] = cell(verdicts) if judged else None
        figures["unjudged"] = sum(one.index not in judged for one in scored)
    return figures


def _ordered(names: set[str], known: tuple[str, ...]) -> list[str]:
    def place(name: str) -> tuple[int, str]:
        column = paper.column_of(name, known)
        return (known.index(column) if column else len(known), name)

    return sorted(names, key=place)


def lines(figures: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """The table by category (rows) and level (columns): a header and its lines, as text."""
    *categories, (name, totals) = _grid(figures)
    body = [[category, *map(_short, cells[:-1]), _long(cells[-1])] for category, cells in categories]
    return ["", *figures["levels"], "all"], [*body, [name, *map(_long, totals)]]


def _grid(figures: Mapping[str, Any]) -> list[tuple[str, list[dict[str, Any]]]]:
    """The figures of each category by level, and in all; then those of all categories."""
    grid = [(name, [*figures["cells"][name].values(), total]) for name, total in figures["categories"].items()]
    return [*grid, ("all", [*figures["levels"].values(), figures["overall"]])]


def _short(figure: Mapping[str, Any]) -> str:
    return f"{100 * figure['accuracy']:.1f} ({figure['right']}/{figure['n']})" if figure["n"] else ""


def _long(figure: Mapping[str, Any]) -> str:
    return f"{100 * figure['accuracy']:.1f} [{100 * figure['low']:.1f}, {100 * figure['high']:.1f}]"


def console_table(figures: Mapping[str, Any]) -> Table:
    """The table for a terminal."""
    header, body = lines(figures)
    table = counts(header, body, bold=(body[-1][0],))
    table.title, table.caption = f"R1-Onevision-Bench: {escape(figures['model'])}", " ".join(notes(figures))
    return table


def notes(figures: Mapping[str, Any]) -> list[str]:
    """What a reader of the figures has to know, a sentence each."""
    n, answers = figures["overall"]["n"], figures["answers"]
    said = [
        "Percent right by rule, with 95 % Wilson intervals.",
        f"Choice {_short(figures['choice']) or 'none'}, free-form {_short(figures['free_form']) or 'none'}.",
        f"Of {n} rows {answers['stated']} state an answer, {answers['last line']} were read by their last line, "
        f"{answers['none']} have none; {figures['unfinished']} were cut at the length limit.",
        f"Comparing character by character would differ on {figures['literal_disagrees']} rows.",
    ]
    if figures.get("judge"):
        said.append(
            f"Judged by a model: {_long(figures['judge'])}; {figures['unjudged']} rows kept the rule's verdict."
        )
    elif "judge" in figures:
        said.append("Judged by a model: no verdict came. Check that its server is up and has it, and run again.")
    if n != paper.ROWS:
        said.append(f"The published benchmark has {paper.ROWS} rows: these figures do not compare with the paper's.")
    return said


def comparison(figures: Mapping[str, Any]) -> tuple[list[str], dict[str, list[float | None]]]:
    """Columns (all, then levels and categories of the data) and a line of percentages for this run and the paper's."""
    own = [figures["overall"], *figures["levels"].values(), *figures["categories"].values()]
    compared = {RUN: [_percent(figure) for figure in own]}
    places = [paper.column_of(name, paper.LEVELS) for name in figures["levels"]]
    places += [paper.column_of(name, paper.CATEGORIES) for name in figures["categories"]]
    for model, (average, *rest) in paper.MODELS.items():
        reported = dict(zip((*paper.LEVELS, *paper.CATEGORIES), rest, strict=True))
        compared[model] = [average, *(reported.get(place or "") for place in places)]
    for model, average in paper.AVERAGES.items():
        compared[model] = [average, *(None for _ in places)]
    return ["all", *figures["levels"], *figures["categories"]], compared


def _percent(figure: Mapping[str, Any]) -> float | None:
    return 100 * figure["accuracy"] if figure["n"] else None


def markdown(figures: Mapping[str, Any]) -> str:
    """The whole report as Markdown."""
    columns, compared = comparison(figures)
    beside = [[model, *("" if value is None else f"{value:.1f}" for value in row)] for model, row in compared.items()]
    return "\n\n".join(
        [
            f"# R1-Onevision-Bench: {figures['model']}",
            _markdown_table(*lines(figures)),
            "\n".join(f"- {note}" for note in notes(figures)),
            "## Beside the paper's numbers",
            _markdown_table(["", *columns], beside),
            "![heat map](heatmap.png)\n",
        ]
    )


def _markdown_table(header: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    rows = [header, ["---", *["---:"] * (len(header) - 1)], *body]
    return "\n".join("| " + " | ".join(text.replace("|", "\\|") for text in row) + " |" for row in rows)


def draw(figures: Mapping[str, Any], path: Path) -> None:
    """The heat map: this run by category and level, and beside it the paper's models."""
    from matplotlib.figure import Figure

    grid, levels = _grid(figures), [*figures["levels"], "all"]
    columns, compared = comparison(figures)
    height = max(len(grid), len(compared))
    figure = Figure(figsize=(3.5 + 0.75 * (len(levels) + len(columns)), 2.2 + 0.42 * height), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[len(levels), len(columns)])
    _heat(left, [(name, [_percent(one) for one in cells]) for name, cells in grid], levels)
    left.set_title(
        f"{_plain(figures['model'][-40:])}\n{figures['overall']['n']} rows, percent right by rule", fontsize=9
    )
    image = _heat(right, [*compared.items()], columns)
    right.set_title("beside the paper's numbers\n(answers extracted and judged by models)", fontsize=9)
    figure.colorbar(image, ax=[left, right], label="percent right")
    figure.savefig(path, dpi=150)


def _heat(axes: Any, rows: Sequence[tuple[str, list[float | None]]], columns: list[str]) -> Any:
    values = [[math.nan if value is None else value for value in row] for _, row in rows]
    image = axes.imshow(values, cmap="viridis", vmin=0, vmax=100, aspect="auto")
    axes.set_xticks(range(len(columns)), map(_plain, columns), rotation=40, ha="right", fontsize=7)
    axes.set_yticks(range(len(rows)), [_plain(name) for name, _ in rows], fontsize=7)
    for y, row in enumerate(values):
        for x, value in enumerate(row):
            if not math.isnan(value):
                axes.text(x, y, f"{value:.0f}", ha="center", va="center", fontsize=7, color="wk"[value > 60])
    return image


def _plain(text: str) -> str:
    """A name as a label: matplotlib would set what stands between dollars as mathematics."""
    return text.replace("$", r"\$")


def write(figures: Mapping[str, Any], folder: Path) -> None:
    """`results.json`, `report.md` and `heatmap.png`."""
    (folder / "results.json").write_text(json.dumps(figures, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    (folder / "report.md").write_text(markdown(figures), encoding="utf-8")
    draw(figures, folder / "heatmap.png")
