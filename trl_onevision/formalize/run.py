"""A whole run: rows of a source through the pipeline, in order, with flat memory; its cache is how it goes on."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import threading
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field
from functools import partial
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from rich.console import Console
from rich.table import Table

from trl_onevision.chat import BudgetSpent
from trl_onevision.console import counts, progress
from trl_onevision.data.adapters import Adapter, adapter_for
from trl_onevision.data.columns import columns_adapter
from trl_onevision.data.convert import Conversion, convert_row
from trl_onevision.data.prepare import Interrupted, stop_signals
from trl_onevision.data.schema import RowError
from trl_onevision.data.sources import RawRow, Source
from trl_onevision.data.writer import ShardWriter, name_shards
from trl_onevision.formalize.pipeline import FormalizeError, Pipeline, Plan, Tally
from trl_onevision.formalize.sheet import Sheet
from trl_onevision.formalize.stages import Rejected, Row
from trl_onevision.json_file import write_json

REPLIES = "replies.sqlite"
AHEAD = 4  # times the concurrency: rows under way, so that a slow one holds up nobody for long
T = TypeVar("T")

_PLACES = pa.list_(pa.struct([("bbox_2d", pa.list_(pa.float64())), ("label", pa.string())]))
_LINES = pa.list_(pa.struct([("text", pa.string()), ("bbox_2d", pa.list_(pa.float64())), ("score", pa.float64())]))
_TURNS = pa.list_(pa.struct([("from", pa.string()), ("value", pa.string())]))
_COST = [
    ("requests", pa.int64()),
    ("prompt_tokens", pa.int64()),
    ("completion_tokens", pa.int64()),
    ("money", pa.float64()),
]
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("image", pa.string()),
        ("conversations", _TURNS),
        ("solution", pa.string()),
        ("kind", pa.string()),
        ("language", pa.string()),
        ("formal", pa.string()),
        ("boxes", _PLACES),
        ("ocr", _LINES),
        ("verdicts", pa.list_(pa.string())),
        ("models", pa.struct([("vision", pa.string()), ("reason", pa.string())])),
        ("cost", pa.struct(_COST)),
    ]
)


@dataclass(frozen=True)
class Prices:
    """Money for a million tokens, in the prompt and in the reply, by server.

    >>> Prices.parse("vision=2.5/10,reason=0.5/2").money({"vision": 1_000_000}, {"reason": 500_000})
    3.5
    """

    by_server: dict[str, tuple[float, float]] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> Prices:
        """From `vision=IN/OUT,reason=IN/OUT`."""
        try:
            pairs = [part.split("=") for part in text.split(",")]
            prices = {name.strip(): tuple(map(float, both.split("/"))) for name, both in pairs}
        except ValueError:
            prices = {}
        if not prices or not set(prices) <= {"vision", "reason"} or any(len(both) != 2 for both in prices.values()):
            raise ValueError(f"--price {text!r}: expected vision=IN/OUT,reason=IN/OUT, money for a million tokens")
        return cls({name: (both[0], both[1]) for name, both in prices.items()})

    def money(self, prompt_tokens: dict[str, int], completion_tokens: dict[str, int]) -> float | None:
        """What tokens cost, `None` without prices."""
        if not self.by_server:
            return None
        spent = (
            prompt_tokens.get(name, 0) * read + completion_tokens.get(name, 0) * said
            for name, (read, said) in self.by_server.items()
        )
        return round(sum(spent) / 1e6, 6)


@dataclass(frozen=True)
class Reader:
    """How raw rows become rows with one image on the grid, a question and, where the source has one, a gold."""

    source: Source
    conversion: Conversion
    columns: str | None = None
    question: str | None = None
    kind: str = ""

    def rows(self, limit: int | None = None) -> Iterator[RawRow]:
        """The raw rows."""
        return islice(self.source.rows(), limit)

    def read(self, raw: RawRow) -> Row:
        """One row; `Rejected` where it cannot be used."""
        if raw.error is not None:
            raise Rejected("row", raw.error.reason)
        example = dict(raw.example)
        try:
            adapter, purpose = self._adapter(example)
            conversion = Conversion("grpo", "plain", self.conversion.grid, self.conversion.image_root)
            if purpose == "sft":  # no gold: the contract's other rows, with a completion that nobody reads
                example[_NO_COMPLETION] = "-"
                conversion = Conversion("sft", "plain", conversion.grid, conversion.image_root)
            row = convert_row(example, adapter, conversion)
        except RowError as error:
            raise Rejected("row", error.reason) from error
        if len(row["images"]) != 1:
            raise Rejected("row", f"found {len(row['images'])} images, expected exactly one")
        texts = [block["text"] for block in row["prompt"][0]["content"] if block["type"] == "text"]
        data = row["images"][0]["bytes"]
        with Image.open(BytesIO(data)) as image:
            size = image.size
        return Row(
            row["id"],
            "\n".join(texts),
            data,
            size,
            row.get("solution"),
            row.get("task"),
            row.get("choices"),
            self.kind,
        )

    def _adapter(self, example: dict[str, Any]) -> tuple[Adapter, str]:
        columns = self.columns
        if self.question is not None:
            example[_QUESTION] = self.question
            columns = f"prompt={_QUESTION},{columns or 'image=image'}"
        if columns is None:
            adapter = adapter_for(example)
            if adapter is None:
                raise RowError(
                    "row",
                    "unknown columns",
                    found=", ".join(sorted(example)),
                    expected="--columns prompt=…,solution=…,image=…, --question, or the raw rows of a known dataset",
                )
            return adapter, "grpo"
        chosen = columns_adapter(columns, "formalize")
        if "grpo" in chosen.prompts:
            return chosen, "grpo"
        return columns_adapter(f"{columns},completion={_NO_COMPLETION}", "formalize"), "sft"


_QUESTION, _NO_COMPLETION = "formalize question", "formalize completion"


@dataclass
class Done:
    """What became of one raw row."""

    raw: RawRow
    row: Row | None
    rejected: Rejected | None


async def formalized(
    pipeline: Pipeline, reader: Reader, raws: Iterable[RawRow], window: int, stopped: threading.Event
) -> AsyncIterator[Done]:
    """Rows in the order of the source, `window` of them under way."""

    async def one(raw: RawRow) -> Done:
        try:
            row = await asyncio.to_thread(reader.read, raw)
        except Rejected as rejected:
            return Done(raw, None, rejected)
        return Done(raw, *await pipeline.run(row))

    under_way: deque[asyncio.Task[Done]] = deque()
    try:
        for raw in raws:
            under_way.append(asyncio.create_task(one(raw)))
            while len(under_way) >= window or (under_way and under_way[0].done()):
                yield await _unless(stopped, under_way.popleft())
            await asyncio.sleep(0)
        while under_way:
            yield await _unless(stopped, under_way.popleft())
    except BudgetSpent:
        await asyncio.gather(*under_way, return_exceptions=True)  # what is sent is paid for, and kept
        raise
    finally:
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)


async def _unless(stopped: threading.Event, task: asyncio.Task[T]) -> T:
    while not task.done():
        if stopped.is_set():
            task.cancel()
            raise Interrupted("Stopped; what was answered is kept, and the same command goes on.")
        await asyncio.wait([task], timeout=0.2)
    return task.result()


class Output:
    """The folder of a run: `rows/*.parquet`, `rejected.jsonl`, `samples.html`, `summary.json`; replaced as a whole."""

    def __init__(self, folder: Path, models: dict[str, str], prices: Prices) -> None:
        self.folder, self.models, self.prices = folder, models, prices
        self.part = folder / "rows.part"
        self.writer = ShardWriter(self.part, partial(pa.Table.from_pylist, schema=SCHEMA))
        self.rejected = (folder / "rejected.part").open("w", encoding="utf-8", errors="backslashreplace")
        self.sheet = Sheet()

    def take(self, done: Done) -> None:
        """Write a row, or why it is none."""
        self.sheet.add(done.row, done.rejected)
        if done.rejected is not None or done.row is None:
            assert done.rejected is not None
            line = {
                "id": done.row.id if done.row else str(done.raw.example.get("id")),
                "place": done.raw.place,
                "stage": done.rejected.stage,
                "reason": done.rejected.reason,
            }
            self.rejected.write(json.dumps(line, ensure_ascii=False) + "\n")
            return
        self.writer.write(self._record(done.row), len(done.row.image))

    def _record(self, row: Row) -> dict[str, Any]:
        prompt_tokens, completion_tokens = sum(row.prompt_tokens.values()), sum(row.completion_tokens.values())
        return {
            "id": row.id,
            "image": base64.b64encode(row.image).decode(),
            "conversations": [
                {"from": "human", "value": f"<image>{row.question}"},
                {"from": "gpt", "value": row.rewritten},
            ],
            "solution": row.solution,
            "kind": row.kind,
            "language": row.language,
            "formal": row.formal,
            "boxes": list(row.boxes),
            "ocr": list(row.ocr),
            "verdicts": list(row.verdicts),
            "models": self.models,
            "cost": {
                "requests": row.requests,
                "prompt_tokens": prompt_tokens,
                "completion_tokens": completion_tokens,
                "money": self.prices.money(row.prompt_tokens, row.completion_tokens),
            },
        }

    def publish(self, summary: dict[str, Any]) -> None:
        """Give everything its name."""
        self.writer.close_shard()
        if not name_shards(self.part, "train"):
            pq.write_table(SCHEMA.empty_table(), self.part / "train-00000-of-00001.parquet")
        self.rejected.close()
        shutil.rmtree(self.folder / "rows", ignore_errors=True)
        self.part.rename(self.folder / "rows")
        (self.folder / "rejected.part").replace(self.folder / "rejected.jsonl")
        (self.folder / "samples.html").write_text(self.sheet.html(), encoding="utf-8", errors="replace")
        write_json(self.folder / "summary.json", summary)


def formalize(
    reader: Reader,
    plan: Plan,
    output: Path,
    *,
    prices: Prices | None = None,
    limit: int | None = None,
    console: Console | None = None,
) -> Tally:
    """Run the pipeline over a source and write its rows.

    What was asked and answered is in `output/replies.sqlite`: the same command goes on where it was stopped, asks for
    what failed, and ends with the same rows. Raises `FormalizeError` and `Interrupted`.
    """
    console = console or Console()
    prices = prices or Prices()
    return asyncio.run(_formalize(reader, plan, output, prices, limit, console))


async def _formalize(
    reader: Reader, plan: Plan, output: Path, prices: Prices, limit: int | None, console: Console
) -> Tally:
    tally, window = Tally(), AHEAD * max(plan.vision.max_concurrency, plan.reason.max_concurrency)
    out = Output(output, {"vision": plan.vision.model, "reason": plan.reason.model}, prices)
    total = min(filter(None, (len(reader.source), limit)), default=None)
    spent = ""
    async with AsyncExitStack() as stack:
        lines = {
            "vision": await stack.enter_async_context(plan.vision.open()),
            "reason": await stack.enter_async_context(plan.reason.open()),
        }
        stopped = stack.enter_context(stop_signals())
        bar = stack.enter_context(progress(console))
        task = bar.add_task("formalize", total=total)
        pipeline = Pipeline(plan, lines, tally)
        stack.callback(pipeline.pool.shutdown, wait=False, cancel_futures=True)
        try:
            async for done in formalized(pipeline, reader, reader.rows(limit), window, stopped):
                out.take(done)
                if done.rejected is None:
                    tally.accepted += 1
                else:
                    tally.rejected[f"{done.rejected.stage}: {done.rejected.reason.partition(':')[0][:60]}"] += 1
                bar.advance(task)
        except BudgetSpent as error:
            spent = str(error)
    out.publish(summary(tally, prices) | {"stopped": spent or None})
    console.print(table(tally, prices))
    if spent:
        console.print(f"Stopped: {spent}. The same command with another --budget goes on.")
    return tally


def summary(tally: Tally, prices: Prices) -> dict[str, Any]:
    """The counts of a run, as `summary.json` has them. Tokens and money are those of this run: the cache is free."""
    counts = {name: dict(value) if isinstance(value, Counter) else value for name, value in vars(tally).items()}
    return counts | {"money": prices.money(dict(tally.prompt_tokens), dict(tally.completion_tokens))}


def table(tally: Tally, prices: Prices) -> Table:
    """The counts for a terminal."""
    kinds = (tally.asked, tally.cached, tally.failed)
    rows = [[stage, *(f"{kind[stage]:,}" for kind in kinds)] for stage in tally.asked | tally.cached | tally.failed]
    tokens = tally.prompt_tokens.total() + tally.completion_tokens.total()
    money = prices.money(dict(tally.prompt_tokens), dict(tally.completion_tokens))
    totals = (f"{kind.total():,}" for kind in kinds)
    rows += [["all", *totals, f"{tokens:,}", "" if money is None else f"{money:,.2f}"]]
    rows += [["accepted", f"{tally.accepted:,}"]]
    rows += [[f"rejected: {reason}", f"{count:,}"] for reason, count in tally.rejected.most_common()]
    return counts(("", "asked", "cached", "no reply", "tokens", "money"), rows, bold=("all", "accepted"))


# What a stage's reply is taken to cost where nothing is known yet: tokens, for the estimate of a dry run
ASSUMED = {"kind": 30, "boxes": 150, "formal": 400, "repair": 0, "reason": 1200, "rewrite": 1200, "verify": 40}
_STAND_IN = "‹the reply of stage {}›"
PIXELS_OF_A_TOKEN = 28 * 28


def dry_run(
    reader: Reader, plan: Plan, count: int, prices: Prices, limit: int | None, show: Callable[[str], None]
) -> float | None:
    """Print what would be asked of the first rows, and what the whole source would cost; nothing is sent.

    What depends on a reply is shown with a stand-in. Returns the money, `None` without prices.
    """
    read: dict[str, float] = {"vision": 0, "reason": 0}
    said: dict[str, float] = {"vision": 0, "reason": 0}
    rows = 0
    for raw in reader.rows(min(filter(None, (count, limit)))):
        try:
            row = reader.read(raw)
        except Rejected as rejected:
            show(f"=== {raw.place}: rejected, {rejected.reason}")
            continue
        rows += 1
        for name, ask in plan.asks.items():
            for request in ask.request(_with_stand_ins(row, name)):
                images = f" and an image of {row.size[0]}x{row.size[1]}" if request.images else ""
                show(f"=== {row.id}, {name}, to {getattr(plan, ask.server).model}{images}\n{request.text}")
                pixels = row.size[0] * row.size[1] if request.images else 0
                earlier = request.text.count("‹the reply of stage") * ASSUMED["formal"]
                read[ask.server] += len(request.text) / 4 + pixels / PIXELS_OF_A_TOKEN + earlier
                said[ask.server] += ASSUMED[name]
    if not rows:
        raise FormalizeError(f"{reader.source.name}: none of the first {count} rows can be used; expected some")
    total = min(filter(None, (len(reader.source), limit)), default=rows)
    scale = total / rows
    tokens = [{name: round(value * scale) for name, value in part.items()} for part in (read, said)]
    money = prices.money(*tokens)
    show(
        f"=== estimate for {total:,} rows, with replies of {ASSUMED['reason']:,} tokens for the reasoning: "
        f"{sum(tokens[0].values()):,} tokens in, {sum(tokens[1].values()):,} out"
        + ("; give --price for money" if money is None else f", {money:,.2f} at the given prices")
    )
    return money


def _with_stand_ins(row: Row, stage: str) -> Row:
    """A row as a stage would find it, with stand-ins for what only a reply can tell."""
    values = asdict(row) | {"ocr": (), "boxes": (), "objects": (_STAND_IN.format("kind"),)}
    if stage != "kind":
        values["kind"] = row.kind or "scene"
    if stage in ("reason", "verify"):
        values["formal"] = _STAND_IN.format("formal")
    values |= {"reasoning": _STAND_IN.format("reason"), "rewritten": _STAND_IN.format("rewrite")}
    return Row(**values)
