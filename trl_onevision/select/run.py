"""A whole selection: ask, measure, keep, write. Nothing is asked twice, and the output appears when it is whole."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any, TypeVar

import pyarrow as pa
from rich.console import Console
from rich.table import Table

from trl_onevision.console import counts, progress
from trl_onevision.data.writer import ShardWriter, name_shards
from trl_onevision.engine import Engine
from trl_onevision.json_file import write_json
from trl_onevision.select.keep import Order, Rule, control, is_kept, kept
from trl_onevision.select.measure import Measured, Rewards, measured
from trl_onevision.select.rows import Rows, SelectError

REPLIES = "answers.sqlite"
ANSWERS = "answers.jsonl"
SUMMARY = "select.json"
PART = "select.part"
PARTS = ("data", "pairs", ANSWERS, SUMMARY)
FIGURES = ("pass_rate", "pass_rate_blind", "reward_std")
Pair = tuple[Measured, tuple[str, str]]
T = TypeVar("T")


@dataclass(frozen=True)
class Wanted:
    """What is written: the rows that `rules` keep, in which order, and what else."""

    rules: Sequence[Rule] = ()
    order: Order | None = None
    pairs: bool = False
    random_control: bool = False
    seed: int = 0


@dataclass
class Summary:
    """What became of the rows."""

    rows: int = 0
    kept: int = 0
    pairs: int = 0
    unmeasured: dict[str, int] = field(default_factory=dict)
    never: int = 0
    sometimes: int = 0
    always: int = 0
    mean_pass_rate: float | None = None
    with_image: int = 0
    mean_pass_rate_blind: float | None = None
    needless: int = 0

    @classmethod
    def of(cls, rows: Sequence[Measured], kept: int, pairs: int) -> Summary:
        """The counts of a run."""
        good = [row for row in rows if not row.reason]
        rates = [row.pass_rate for row in good]
        blind = [(row.pass_rate, row.pass_rate_blind) for row in good if row.pass_rate_blind is not None]
        return cls(
            rows=len(rows),
            kept=kept,
            pairs=pairs,
            unmeasured=dict(Counter(row.reason for row in rows if row.reason).most_common()),
            never=sum(rate == 0 for rate in rates),
            sometimes=sum(0 < rate < 1 for rate in rates),
            always=sum(rate == 1 for rate in rates),
            mean_pass_rate=fmean(rates) if rates else None,
            with_image=len(blind),
            mean_pass_rate_blind=fmean(hidden for _, hidden in blind) if blind else None,
            needless=sum(0 < seen <= hidden for seen, hidden in blind),
        )

    def table(self) -> Table:
        """The counts for a terminal."""
        figures = [("read", f"{self.rows:,}")]
        figures += [(f"not measured: {reason[:100]}", f"{count:,}") for reason, count in self.unmeasured.items()]
        figures += [(f"{name} right", f"{getattr(self, name):,}") for name in ("never", "sometimes", "always")]
        if self.mean_pass_rate is not None:
            figures.append(("mean pass rate", f"{self.mean_pass_rate:.3f}"))
        if self.mean_pass_rate_blind is not None:
            figures.append(("mean pass rate with grey images", f"{self.mean_pass_rate_blind:.3f}"))
            share = f"{self.needless:,} ({self.needless / self.with_image:.0%})"
            figures.append(("right as often without the image", share))
        figures.append(("kept", f"{self.kept:,}"))
        return counts(("select", "rows"), figures + ([("pairs", f"{self.pairs:,}")] if self.pairs else []))


def select(
    rows: Rows,
    engine: Engine,
    rewards: Rewards,
    output: Path,
    wanted: Wanted | None = None,
    console: Console | None = None,
) -> Summary:
    """Measure rows by a model's sampled answers, and write those that are kept.

    `output` then holds `data/*.parquet` (the rows as they were, with `pass_rate`, `pass_rate_blind` and `reward_std`),
    `answers.jsonl` (a line a row of the data: its figures, answers and what each earned, or why it has none),
    `select.json` (the counts), and `answers.sqlite`, which knows every answer: the same command goes on where it was
    stopped, and another rule over the same answers asks nothing again. Raises `SelectError` and `EngineError`.
    """
    console, wanted = console or Console(), wanted or Wanted()
    rewards, left_out = rewards.fitted(rows.dataset.column_names)
    for name, needed in left_out.items():
        console.print(f"Left out: {name}, which needs {needed}, as rollouts in training have.")
    claim(output)
    refused = engine.ask(rows, console)
    part = output / PART
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    found: list[Measured] = []
    with progress(console) as bars, (part / ANSWERS).open("w", encoding="utf-8", errors="backslashreplace") as file:
        scored = measured(rows, engine, rewards, refused)
        for row in bars.track(scored, total=len(rows), description="scoring"):
            file.write(_record(row, is_kept(row, wanted.rules)) + "\n")
            row.forget()
            found.append(row)
    chosen = kept(found, wanted.rules, wanted.order)
    pairs = [(row, row.pair) for row in chosen if row.pair] if wanted.pairs else []
    summary = Summary.of(found, len(chosen), len(pairs))
    console.print(summary.table())
    if not chosen:
        raise SelectError(
            f"None of {len(found):,} rows is kept, and nothing was written. The answers are in {output}: the same "
            "command with another --keep asks nothing again."
        )

    def table(batch: list[Measured]) -> pa.Table:
        figures = {name: [getattr(row, name) for row in batch] for name in FIGURES}
        return rows.table([row.index for row in batch], figures)

    def table_of_pairs(batch: list[Pair]) -> pa.Table:
        return rows.pairs([row.index for row, _ in batch], [two for _, two in batch])

    _write(part / "data", "train", chosen, table)
    if wanted.random_control:
        _write(part / "data", "random", control(found, len(chosen), wanted.seed), table)
    if pairs:
        _write(part / "pairs" / "data", "train", pairs, table_of_pairs)
    write_json(part / SUMMARY, asdict(summary))
    _publish(part, output)
    return summary


def claim(output: Path) -> None:
    """Take a folder for a selection. Raises `SelectError` where it holds anything else."""
    held = sorted(path.name for path in output.iterdir()) if output.is_dir() else []
    if output.is_file() or (held and REPLIES not in held):
        found = "a file" if output.is_file() else f"a folder that holds {', '.join(held[:5])}"
        raise SelectError(f"{output}: found {found}, expected a new folder or one of this command.")
    output.mkdir(parents=True, exist_ok=True)


def _write(folder: Path, split: str, rows: Sequence[T], table: Callable[[list[T]], pa.Table]) -> None:
    apart = folder / split
    with ShardWriter(apart, table) as writer:
        for row in rows:
            writer.write(row)
    name_shards(apart, split, into=folder)
    apart.rmdir()


def _record(row: Measured, kept: bool) -> str:
    """A row's line of `answers.jsonl`."""
    record: dict[str, Any] = {"row": row.index, "id": row.id, "kept": kept}
    if row.reason:
        record["reason"] = row.reason
    else:
        record |= {name: getattr(row, name) for name in FIGURES}
    record["answers"] = [asdict(answer) for answer in row.answers]
    if row.blind:
        record["blind"] = [asdict(answer) for answer in row.blind]
    return json.dumps(record, ensure_ascii=False)


def _publish(part: Path, output: Path) -> None:
    """Put what is new in the place of what was there."""
    for name in PARTS:
        old = output / name
        if old.is_dir():
            shutil.rmtree(old)
        else:
            old.unlink(missing_ok=True)
    for name in PARTS:
        if (part / name).exists():
            (part / name).rename(output / name)
    part.rmdir()
