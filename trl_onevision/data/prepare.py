"""A raw dataset as a folder of parquet in TRL's columns: streamed, resumable, nothing lost without a reason."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from rich.console import Console
from rich.table import Table

from trl_onevision.console import fail, progress
from trl_onevision.data.adapters import Adapter, find, names
from trl_onevision.data.columns import ColumnsAdapter
from trl_onevision.data.convert import BoxFormat, BoxFrame, Conversion, convert_row
from trl_onevision.data.images import PixelGrid
from trl_onevision.data.prompts import PROMPTS
from trl_onevision.data.rows import row_id
from trl_onevision.data.schema import Purpose, RowError, shown
from trl_onevision.data.sources import RawRow, Source, SourceError, open_source
from trl_onevision.data.spans import SpanFrame
from trl_onevision.data.videos import Sampling
from trl_onevision.data.writer import OutputExists, ShardWriter, output_folder, publish, refuse_used, shard_path
from trl_onevision.json_file import write_json

PROGRESS = "progress.part"
REJECTED = "rejected.part"
LOCK = "lock.part"
T = TypeVar("T")
R = TypeVar("R")


@dataclass
class Summary:
    """What became of the rows that were read."""

    read: int = 0
    kept: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    found: bool = field(default=False, compare=False)  # of a run that had ended before

    def table(self, title: str) -> Table:
        """Kept, dropped and why, for a terminal."""
        table = Table(title, "rows")
        table.columns[1].justify = "right"
        table.add_row("read", f"{self.read:,}")
        table.add_row("kept", f"{self.kept:,}", style="bold")
        for reason, count in self.dropped.most_common():
            table.add_row(f"dropped: {reason}", f"{count:,}")
        return table


class Interrupted(RuntimeError):
    """The run was stopped; what it had finished is kept beside the output."""


def prepare(
    dataset: str,
    output: str | Path,
    *,
    source: str | None = None,
    conversion: Conversion | None = None,
    columns: str | None = None,
    task: str | None = None,
    choice_base: int | None = None,
    split: str = "train",
    config: str | None = None,
    limit: int | None = None,
    strict: bool = False,
    resume: bool = False,
    workers: int | None = None,
    console: Console | None = None,
) -> Summary:
    """Convert a raw dataset and write it as a folder that `load_dataset` and a recipe read.

    >>> import json, tempfile
    >>> raw = [{"problem": "What is 6 x 7?", "solution": "#### 42"}, {"problem": "Why?", "solution": None}]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     lines = Path(folder, "raw.jsonl")
    ...     _ = lines.write_text("\\n".join(map(json.dumps, raw)))
    ...     summary = prepare("text-math", Path(folder, "out"), source=str(lines), console=Console(quiet=True))
    ...     rejected = Path(folder, "out", "rejected.jsonl").read_text()
    >>> summary.kept, dict(summary.dropped), json.loads(rejected)["id"]
    (1, {'solution: wrong type': 1}, 'raw.jsonl:1')

    The folder holds `data/*.parquet`, `rejected.jsonl` (`id`, `place`, `column`, `problem`, `reason` of every row
    that was dropped) and `prepare.json` (what was run, and the counts). It appears under its name when it is whole;
    until then the work lies in `OUTPUT.partial`, where `resume=True` goes on. `limit` bounds the rows that are read.

    Raises `OutputExists`, `SourceError`, `ValueError` (unknown names and options), with `strict` the first
    `RowError`, and `Interrupted` on Ctrl-C.
    """
    console = console or Console()
    conversion = conversion or Conversion()
    output = output_folder(output, split)
    if columns is None and (task is not None or choice_base is not None):
        raise ValueError("--task and --choice-base go with --columns: the adapter of a dataset knows both.")
    adapter = ColumnsAdapter.parse(columns, dataset, task, choice_base) if columns else find(dataset)
    opened = _open(adapter, dataset, source, split, config)
    conversion = replace(conversion, image_root=conversion.image_root or opened.root)
    mapped = {"columns": columns, "task": task, "choice_base": choice_base}
    description = _describe(dataset, adapter, opened, conversion, limit) | mapped
    if resume and (summary := _finished(output, description)):
        return summary
    refuse_used(output)
    work = output.with_name(output.name + ".partial")  # beside the output, so that the final rename is atomic
    with _alone_in(work):
        run = _Run(work, description, resume=resume)
        rows = islice(opened.rows(skip=run.summary.read), None if limit is None else limit - run.summary.read)
        converted = ordered_map(partial(_convert, adapter=adapter, conversion=conversion), rows, workers)
        run.write(converted, min(filter(None, (len(opened), limit)), default=None), strict, console)
        publish(work, output, split)
        for name in (PROGRESS, LOCK):
            (output / name).unlink()
    return run.summary


def _open(adapter: Adapter, dataset: str, source: str | None, split: str, config: str | None) -> Source:
    if source is None and adapter.SOURCE is None:
        raise SourceError(f"dataset {dataset!r}: has no home on the hub; expected --source with a file, folder or id")
    pinned = adapter.REVISION if source in (None, adapter.SOURCE) else None
    return open_source(source or str(adapter.SOURCE), split=split, config=config, revision=pinned)


def _describe(
    dataset: str, adapter: Adapter, source: Source, conversion: Conversion, limit: int | None
) -> dict[str, Any]:
    """Everything that decides what the rows become: written beside them, and compared when a run goes on."""
    return asdict(conversion) | {
        "prompt": conversion.prompt_name(adapter),
        "image_root": str(conversion.image_root or ""),
        "dataset": dataset,
        "source": source.name,
        "split": source.split,
        "config": source.config,
        "revision": source.revision,
        "files": source.stamps(),
        "license": adapter.LICENSE,
        "limit": limit,
    }


def _finished(output: Path, description: dict[str, Any]) -> Summary | None:
    """The summary of a run that has ended already, which must have been this one."""
    path = output / "prepare.json"
    if not path.is_file():
        return None
    saved = json.loads(path.read_text(encoding="utf-8"))
    if changed := _changes(saved, description):
        raise OutputExists(
            f"{output}: found a finished run with other options ({changed}), expected the same. Choose another "
            "--output, or move what is there."
        )
    return Summary(**_counts(saved), found=True)


def _counts(saved: dict[str, Any]) -> dict[str, Any]:
    """The counts of a run as it keeps them of itself."""
    return {"read": saved["read"], "kept": saved["kept"], "dropped": Counter(saved["dropped"])}


def _changes(saved: dict[str, Any], description: dict[str, Any]) -> str:
    """What is not as it was when a run began, '' for nothing; of the source's files the names."""
    changes = [
        f"{key} {saved.get(key)!r} -> {value!r}"
        for key, value in description.items()
        if key != "files" and saved.get(key) != value
    ]
    before, now = saved.get("files", {}), description["files"]
    files = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
    if files:
        changes.append(
            f"changed files {', '.join(files[:5])}" + (f" and {len(files) - 5} more" if len(files) > 5 else "")
        )
    return "; ".join(changes)


def _convert(raw: RawRow, adapter: Adapter, conversion: Conversion) -> tuple[RawRow, dict[str, Any] | RowError]:
    if raw.error is not None:
        raw.error.row_id = raw.example["id"]
        return raw, raw.error
    try:
        return raw, convert_row(raw.example, adapter, conversion)
    except RowError as error:
        return raw, error
    except ImportError:  # of what decodes videos: every such row would be lost, and none is broken
        raise
    except Exception as error:  # raw rows hold anything: one that no check foresaw must not end the run
        found = f"{type(error).__name__}: {shown(str(error))}"
        name = row_id(raw.example)
        return raw, RowError(
            "row", "cannot be converted", found=found, expected="a row in the dataset's own form", row_id=name
        )


@contextmanager
def _alone_in(work: Path) -> Iterator[None]:
    """Hold the work folder for one run: a second one would clear away what the first has under way.

    The lock ends with the process, however that ends; its file moves with the folder.
    """
    work.mkdir(parents=True, exist_ok=True)
    with (work / LOCK).open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            held = os.fstat(lock.fileno()).st_nlink == 0  # a run that ended just now has removed the file
        except BlockingIOError:
            held = True
        except OSError as error:
            if error.errno not in (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK):
                raise
            held = False  # a file system without locks, as some clusters mount theirs
        if held:
            raise OutputExists(
                f"{work}: found another run that is writing there, expected none. Wait for it, or choose another "
                "--output."
            )
        try:
            yield
        finally:
            (work / LOCK).unlink(missing_ok=True)


class _Run:
    """The work folder of one run: shards, rejected rows and how far it has come."""

    def __init__(self, work: Path, description: dict[str, Any], *, resume: bool) -> None:
        self.work, self.description = work, description
        self.summary, self.shards = Summary(), 0
        if resume and (self.work / PROGRESS).exists():
            self._restore()
        else:
            self._make_room()
            self._save()
        # Half a surrogate pair has no UTF-8; with a backslash it is JSON's own way to write it.
        self.rejected = (self.work / REJECTED).open("a", encoding="utf-8", errors="backslashreplace")

    def _make_room(self) -> None:
        """An empty work folder. What another run has kept is not thrown away; a run that kept no row is."""
        held = [path for path in self.work.iterdir() if path.name != LOCK]
        state = self.work / PROGRESS
        saved = json.loads(state.read_text(encoding="utf-8")) if state.exists() else {"kept": bool(held)}
        if saved["kept"] or not all(path.name.endswith(".part") for path in held):
            raise OutputExists(
                f"{self.work}: found an unfinished run, expected none. Go on with --resume, or remove the folder."
            )
        for path in held:
            path.unlink()

    def _restore(self) -> None:
        saved = json.loads((self.work / PROGRESS).read_text(encoding="utf-8"))
        if changed := _changes(saved["run"], self.description):
            raise OutputExists(
                f"{self.work}: found a run with other options ({changed}), expected the same. Repeat the command "
                "as it was, or remove the folder to start over."
            )
        self.summary = Summary(**_counts(saved))
        self.shards = saved["shards"]
        self._undo_finish()
        for shard in [*self.work.glob("open-*.part"), *self.work.glob("shard-*.part")]:
            if shard not in {shard_path(self.work, index) for index in range(self.shards)}:
                shard.unlink()
        with (self.work / REJECTED).open("ab") as file:
            file.truncate(saved["rejected_bytes"])

    def _undo_finish(self) -> None:
        """For a run that was stopped while its folder was given its final names."""
        for shard in (self.work / "data").glob("*.parquet"):
            shard.rename(shard_path(self.work, int(shard.name.split("-")[1])))
        if (self.work / "rejected.jsonl").exists():
            (self.work / "rejected.jsonl").rename(self.work / REJECTED)
        (self.work / "prepare.json").unlink(missing_ok=True)

    def _save(self) -> None:
        rejected = self.work / REJECTED
        size = rejected.stat().st_size if rejected.exists() else 0
        saved = {"run": self.description, "shards": self.shards, "rejected_bytes": size}
        write_json(self.work / PROGRESS, saved | _counts(vars(self.summary)))

    def write(
        self,
        converted: Iterable[tuple[RawRow, dict[str, Any] | RowError]],
        total: int | None,
        strict: bool,
        console: Console,
    ) -> None:
        """Write or reject each row, then leave the work folder as the output is to be."""
        title = f"{self.description['dataset']} for {self.description['purpose']}"
        writer = ShardWriter(self.work, self.description["purpose"], first_shard=self.shards)
        with writer, self.rejected, stop_signals() as stopped, progress(console) as bar:
            task = bar.add_task(title, total=total, completed=self.summary.read)
            for raw, row in converted:
                self._take(raw, row, writer, strict)
                bar.advance(task)
                if stopped.is_set():
                    break
            self._checkpoint(writer)
        if stopped.is_set():
            raise Interrupted(
                f"Stopped after {self.summary.read:,} rows; they are kept in {self.work}. Go on with --resume."
            )
        console.print(self.summary.table(title))
        self._finish()

    def _take(self, raw: RawRow, row: dict[str, Any] | RowError, writer: ShardWriter, strict: bool) -> None:
        if isinstance(row, RowError):
            if strict:
                row.place = raw.place
                raise row
            self._reject(raw, row)
        else:
            writer.write(row)
            self.summary.kept += 1
        self.summary.read += 1
        if writer.shards > self.shards:
            self._checkpoint(writer)

    def _reject(self, raw: RawRow, error: RowError) -> None:
        record = {
            "id": error.row_id,
            "place": raw.place,
            "column": error.column,
            "problem": error.problem,
            "reason": error.reason,
        }
        self.rejected.write(json.dumps(record, ensure_ascii=False) + "\n")
        self.summary.dropped[f"{error.column}: {error.problem}"] += 1

    def _checkpoint(self, writer: ShardWriter) -> None:
        writer.close_shard()
        self.rejected.flush()
        self.shards = writer.shards
        self._save()

    def _finish(self) -> None:
        if not self.summary.kept:
            raise SourceError(
                f"{self.description['source']}: none of {self.summary.read:,} rows could be used; the reasons are in "
                f"{self.work / REJECTED}. Is it another dataset than {self.description['dataset']!r}?"
            )
        write_json(self.work / "prepare.json", self.description | _counts(vars(self.summary)))
        (self.work / REJECTED).rename(self.work / "rejected.jsonl")


def ordered_map(function: Callable[[T], R], items: Iterable[T], workers: int | None = None) -> Iterator[R]:
    """`map` in threads, in order, with few items under way: Pillow works outside the interpreter's lock.

    >>> list(ordered_map(abs, [-2, 1, -3], workers=2))
    [2, 1, 3]
    """
    workers = workers or min(8, os.cpu_count() or 1)
    with ThreadPoolExecutor(workers) as pool:
        under_way: deque[Future[R]] = deque()
        try:
            for item in items:
                under_way.append(pool.submit(function, item))
                if len(under_way) > 2 * workers:
                    yield under_way.popleft().result()
            while under_way:
                yield under_way.popleft().result()
        finally:
            for future in under_way:
                future.cancel()


@contextmanager
def stop_signals() -> Iterator[threading.Event]:
    """An event that Ctrl-C and SIGTERM set, so that a run stops between two rows; a second signal stops it at once."""
    stopped = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stopped  # signals reach the main thread only
        return
    previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in previous.items():
            signal.signal(number, handler)

    def stop(number: int, frame: object) -> None:
        stopped.set()
        restore()

    for number in previous:
        signal.signal(number, stop)
    try:
        yield stopped
    finally:
        restore()


def prepare_command(
    dataset: Annotated[str, typer.Argument(help=f"One of {', '.join(names())}; any name with --columns.")],
    output: Annotated[Path, typer.Option(help="The folder to write; new or empty.")],
    purpose: Annotated[Purpose, typer.Option("--for", help="The stage that the rows are for.")],
    source: Annotated[
        str | None, typer.Option(help="File, folder, or hub id. Default: the dataset's home on the hub.")
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option(help="For any other dataset: prompt=…,solution=…,image=…,video=…,choices=…,task=…,id=…"),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(help="With --columns: the task of all rows, as boxes. Default: by column, or the gold."),
    ] = None,
    choice_base: Annotated[
        int | None, typer.Option(min=0, max=1, help="With --columns: golds are the numbers of options, from 0 or 1.")
    ] = None,
    prompt: Annotated[
        str | None, typer.Option(help=f"One of {', '.join(sorted(PROMPTS))}. Default: the dataset's own.")
    ] = None,
    grid: Annotated[
        int, typer.Option(help="Patch x merge size: 28 for Qwen2-VL and 2.5-VL, 32 for Qwen3-VL, 1 for none.")
    ] = 28,
    min_pixels: Annotated[int | None, typer.Option(help="Smaller images are enlarged. Default: by grid.")] = None,
    max_pixels: Annotated[int | None, typer.Option(help="Larger images are reduced. Default: 1280 tokens.")] = None,
    originals: Annotated[
        bool, typer.Option("--originals", help="Keep reduced images as they came too, for environments.Zoom.")
    ] = False,
    images: Annotated[
        Path | None, typer.Option(help="The folder that paths of images and videos start from. Default: the source's.")
    ] = None,
    box_frame: Annotated[BoxFrame, typer.Option(help="The frame of the raw boxes.")] = "pixel",
    box_format: Annotated[BoxFormat, typer.Option(help="The corners of the raw boxes.")] = "xyxy",
    span_frame: Annotated[SpanFrame, typer.Option(help="The frame of the raw spans of videos.")] = "second",
    fps: Annotated[float, typer.Option(help="Frames that are kept of a second of video.")] = Sampling.fps,
    max_frames: Annotated[
        int, typer.Option(help="The most frames of a video; of more, as many evenly.")
    ] = Sampling.max_frames,
    split: Annotated[str, typer.Option(help="The split to read and to write.")] = "train",
    config: Annotated[str | None, typer.Option(help="The configuration of a dataset on the hub.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Read at most this many rows.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first row that cannot be used.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run that was stopped.")] = False,
    workers: Annotated[int | None, typer.Option(min=1, help="Threads that decode images. Default: up to 8.")] = None,
) -> None:
    """Write a raw dataset as parquet in TRL's columns, with images on the processor's grid.

    Rows that cannot be used are dropped, counted, and listed with their reason in OUTPUT/rejected.jsonl.
    """
    try:
        conversion = Conversion(
            purpose=purpose,
            prompt=prompt,
            grid=PixelGrid.of(grid, min_pixels, max_pixels),
            image_root=images,
            box_frame=box_frame,
            box_format=box_format,
            span_frame=span_frame,
            sampling=Sampling(fps, max_frames),
            originals=originals,
        )
        summary = prepare(
            dataset,
            output,
            source=source,
            conversion=conversion,
            columns=columns,
            task=task,
            choice_base=choice_base,
            split=split,
            config=config,
            limit=limit,
            strict=strict,
            resume=resume,
            workers=workers,
        )
    except (ValueError, OSError, ImportError, Interrupted) as error:
        fail(error)
    rows = f"{summary.kept:,} rows"
    did = f"Found {output} complete already, with {rows}" if summary.found else f"Wrote {rows} to {output}"
    typer.echo(f"{did}. A recipe reads them as `dataset_name: {output}`.")
