"""`trl-onevision formalize`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trl_onevision.chat import Chat
from trl_onevision.console import fail
from trl_onevision.data.convert import BoxFrame


def formalize_command(
    source: Annotated[str, typer.Argument(help="Images or a table that names them: whatever `prepare` reads.")],
    vision: Annotated[str, typer.Option(help="The server and model that see: http://127.0.0.1:8000/v1,MODEL")],
    reason: Annotated[str, typer.Option(help="The server and model that reason over text: URL,MODEL")],
    output: Annotated[Path, typer.Option(help="The folder of this run; the same command goes on with it.")],
    columns: Annotated[
        str | None, typer.Option(help="prompt=…,solution=…,image=…,choices=…,id=…; not needed for a known dataset.")
    ] = None,
    question: Annotated[str | None, typer.Option(help="One question for every image, where there are none.")] = None,
    kind: Annotated[
        str, typer.Option(help="The kind of every image: chart, circuit, …; else the vision model says.")
    ] = "",
    ocr: Annotated[str, typer.Option(help="rapidocr, none, or the dotted path of a function.")] = "rapidocr",
    boxes: Annotated[
        str, typer.Option(help="server (the vision model's own), none, a detection checkpoint, or a dotted path.")
    ] = "server",
    box_frame: Annotated[BoxFrame, typer.Option(help="The frame that the vision model answers in.")] = "norm1000",
    votes: Annotated[str, typer.Option(help="m/k: of k samples of the reasoning, m must agree.")] = "1/1",
    images: Annotated[
        Path | None, typer.Option(help="The folder that image paths start from. Default: the source's.")
    ] = None,
    grid: Annotated[int, typer.Option(help="Patch x merge size, as for `prepare`.")] = 28,
    max_pixels: Annotated[int | None, typer.Option(help="Larger images are reduced. Default: 1280 tokens.")] = None,
    split: Annotated[str, typer.Option(help="The split to read.")] = "train",
    config: Annotated[str | None, typer.Option(help="The configuration of a dataset on the hub.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Read at most this many rows.")] = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Requests to a server at a time.")] = 16,
    timeout: Annotated[float, typer.Option(help="Seconds of an attempt; five are made.")] = 600.0,
    max_tokens: Annotated[
        int, typer.Option(min=1, help="Length at which a reply is cut, and its row rejected.")
    ] = 8192,
    budget: Annotated[int | None, typer.Option(min=0, help="Requests that this run may send to both servers.")] = None,
    price: Annotated[str | None, typer.Option(help="vision=IN/OUT,reason=IN/OUT: money for a million tokens.")] = None,
    dry_run: Annotated[
        int | None, typer.Option(min=1, help="Print the requests for this many rows and an estimate; send nothing.")
    ] = None,
) -> None:
    """Images to formal text to reasoning to rows: R1-Onevision's pipeline, with any OpenAI-compatible servers.

    OUTPUT/rows is what `trl-onevision prepare r1-onevision --source` reads. Rows that are not kept stand in
    OUTPUT/rejected.jsonl with stage and reason. Replies are kept as they come: the same command goes on.
    """
    from trl_onevision.data.convert import Conversion
    from trl_onevision.data.images import PixelGrid
    from trl_onevision.data.prepare import Interrupted
    from trl_onevision.data.sources import open_source
    from trl_onevision.formalize import evidence, prompts
    from trl_onevision.formalize.pipeline import FormalizeError, Plan
    from trl_onevision.formalize.run import Prices, Reader
    from trl_onevision.formalize.run import dry_run as show_requests
    from trl_onevision.formalize.run import formalize as run

    try:
        if kind and kind not in prompts.KINDS:
            raise ValueError(f"--kind {kind!r}: unknown; expected one of {', '.join(prompts.KINDS)}")
        opened = open_source(source, split=split, config=config)
        conversion = Conversion(grid=PixelGrid.of(grid, None, max_pixels), image_root=images or opened.root)
        reader = Reader(opened, conversion, columns, question, kind)
        agreed = _votes(votes)
        sees, reasons = _chats(vision, reason, output, concurrency, timeout, max_tokens, budget, agreed[1] > 1)
        prices = Prices.parse(price) if price else Prices()
        plan = Plan(
            sees,
            reasons,
            text=evidence.text_reader(ocr),
            objects=evidence.object_finder(boxes),
            server_boxes=boxes == "server",
            box_frame=box_frame,
            votes=agreed,
        )
        if dry_run is not None:
            show_requests(reader, plan, dry_run, prices, limit, typer.echo)
            return
        _refuse_other(output)
        tally = run(reader, plan, output, prices=prices, limit=limit)
    except (FormalizeError, Interrupted, ImportError, ValueError, OSError) as error:
        fail(error)
    typer.echo(
        f"{tally.accepted:,} rows in {output}/rows, {tally.rejected.total():,} in rejected.jsonl; see samples.html. "
        f"Next: trl-onevision prepare r1-onevision --for sft --source {output}/rows --output …"
    )


def _votes(text: str) -> tuple[int, int]:
    least, _, samples = text.partition("/")
    if not (least.isdecimal() and samples.isdecimal() and 1 <= int(least) <= int(samples)):
        raise ValueError(f"--votes {text!r}: expected m/k with 1 <= m <= k, as in 2/3")
    return int(least), int(samples)


def _chats(
    vision: str,
    reason: str,
    output: Path,
    concurrency: int,
    timeout: float,
    max_tokens: int,
    budget: int | None,
    vote: bool,
) -> list[Chat]:
    from trl_onevision.chat import Budget
    from trl_onevision.formalize.run import REPLIES

    shared = None if budget is None else Budget(budget)
    chats = []
    for option, server, warm in (("--vision", vision, False), ("--reason", reason, vote)):
        url, comma, model = server.rpartition(",")
        if not comma or not url.startswith(("http://", "https://")) or not model:
            raise ValueError(f"{option} {server!r}: expected URL,MODEL, as in http://127.0.0.1:8000/v1,Qwen/Qwen3-32B")
        chats.append(
            Chat(
                model,
                url,
                max_concurrency=concurrency,
                timeout=timeout,
                cache=output / REPLIES,
                budget=shared,
                # Samples that are to vote differ: R1's own temperature.
                options={"temperature": 0.6 if warm else 0.0, "max_tokens": max_tokens},
            )
        )
    return chats


def _refuse_other(output: Path) -> None:
    """A folder that holds something, and no run of this command."""
    from trl_onevision.formalize.run import REPLIES

    known = {REPLIES, "rows.part", "rejected.part"}
    held = {path.name for path in output.iterdir()} if output.is_dir() else set()
    if held and not held & known:
        raise FileExistsError(f"{output}: found {sorted(held)[0]}, expected a new folder or one of this command")
