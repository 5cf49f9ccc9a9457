"""A raw dataset as a folder of parquet in TRL's columns: streamed, resumable, nothing lost without a reason."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import signal
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from rich.console import Console
from rich.table import Table

from trl_onevision.console import counts, fail, progress
from trl_onevision.data.adapters import ADAPTERS, Adapter, find
from trl_onevision.data.columns import columns_adapter
from trl_onevision.data.convert import BoxFormat, BoxFrame, Conversion, convert_row
from trl_onevision.data.images import PixelGrid
from trl_onevision.data.prompts import PROMPTS
from trl_onevision.data.schema import Purpose, RowError, few
from trl_onevision.data.sources import RawRow, SourceError, open_source
from trl_onevision.data.spans import SpanFrame
from trl_onevision.data.videos import Sampling
from trl_onevision.data.writer import (
    OutputExists,
    ShardWriter,
    output_folder,
    publish,
    refuse_used,
    rows_table,
    stored,
)
from trl_onevision.json_file import changes, read_json, write_json

RECORD = "prepare.json"
REJECTED = "rejected.jsonl"
T = TypeVar("T")
R = TypeVar("R")


@dataclass
class Summary:
    """What became of the rows that were read."""

    read: int = 0
    kept: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    found: bool = field(default=False, compare=False)  # of a run that had ended before

    @classmethod
    def of(cls, record: dict[str, Any], found: bool = False) -> Summary:
        """The counts that a run has kept of itself."""
        return cls(record["read"], record["kept"], Counter(record["dropped"]), found)

    def table(self, title: str) -> Table:
        """Kept, dropped and why, for a terminal."""
        dropped = ((f"dropped: {reason}", count) for reason, count in self.dropped.most_common())
        figures = (("read", self.read), ("kept", self.kept), *dropped)
        return counts((title, "rows"), ((name, f"{count:,}") for name, count in figures))


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
    until then the work lies hidden in `OUTPUT.partial`, where `resume=True` goes on. `limit` bounds the rows that
    are read.

    Raises `OutputExists`, `SourceError`, `ValueError` (unknown names and options), with `strict` the first
    `RowError`, and `Interrupted` on Ctrl-C.
    """
    console = console or Console()
    conversion = conversion or Conversion()
    output = output_folder(output, split)
    if columns is None and (task is not None or choice_base is not None):
        raise ValueError("--task and --choice-base go with --columns: the adapter of a dataset knows both.")
    adapter = columns_adapter(columns, dataset, task, choice_base) if columns else find(dataset)
    if (home := source or adapter.source) is None:
        raise SourceError(f"dataset {dataset!r}: has no home on the hub; expected --source with a file, folder or id")
    opened = open_source(home, split=split, config=config)
    conversion = replace(conversion, image_root=conversion.image_root or opened.root)
    # Everything that decides what the rows become: written beside them, and compared when a run goes on
    description = asdict(conversion) | {
        "prompt": conversion.prompt_name(adapter),
        "image_root": str(conversion.image_root or ""),
        "dataset": dataset,
        "columns": columns,
        "task": task,
        "choice_base": choice_base,
        "source": opened.name,
        "split": opened.split,
        "config": opened.config,
        "files": opened.stamps(),
        "license": adapter.license,
        "limit": limit,
    }
    if resume and (record := _record(output, description, "a finished run")):
        return Summary.of(record, found=True)
    refuse_used(output)
    with _alone_in(output.with_name(output.name + ".partial")) as work:  # beside it, so that the rename is atomic
        run = _Run(work, description, resume=resume)
        rows = islice(opened.rows(skip=run.summary.read), None if limit is None else limit - run.summary.read)
        converted = ordered_map(partial(_convert, adapter=adapter, conversion=conversion), rows, workers)
        run.write(converted, min(filter(None, (len(opened), limit)), default=None), strict, console)
        publish(run.folder, output, split)
    return run.summary


def _record(folder: Path, description: dict[str, Any], found: str) -> dict[str, Any] | None:
    """What a run has kept of itself in its folder; that must have been a run of this description."""
    if not (record := read_json(folder / RECORD)):
        return None
    before, now = record.get("files", {}), description["files"]
    differences = changes(record, {key: value for key, value in description.items() if key != "files"})
    if files := sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name)):
        differences.append(f"changed files {few(files)}")
    if differences:
        raise OutputExists(
            f"{folder}: found {found} with other options ({'; '.join(differences)}), expected the same. Repeat the "
            "command as it was, choose another --output, or move what is there."
        )
    return record


def _convert(raw: RawRow, adapter: Adapter, conversion: Conversion) -> tuple[RawRow, dict[str, Any] | RowError]:
    if raw.error is not None:
        raw.error.row_id = raw.example["id"]
        return raw, raw.error
    try:
        return raw, convert_row(raw.example, adapter, conversion)
    except RowError as error:
        return raw, error


@contextmanager
def _alone_in(work: Path) -> Iterator[Path]:
    """Hold the work folder for one run: a second one would clear away what the first has under way.

    The lock ends with the process, however that ends.
    """
    work.mkdir(parents=True, exist_ok=True)
    with (work / "lock").open("ab") as lock:
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
            yield work
        finally:
            (work / "lock").unlink(missing_ok=True)
            with suppress(OSError):  # what is unfinished stays
                work.rmdir()


class _Run:
    """The work of one run: shards, rejected rows, and a record of how far it has come.

    It lies in a folder that is hidden, so that no reader of JSON or parquet takes it for data.
    """

    def __init__(self, work: Path, description: dict[str, Any], *, resume: bool) -> None:
        self.folder, self.description = work / ".rows", description
        record = _record(self.folder, description, "a run") if resume else None
        if record is None:
            record = {"read": 0, "kept": 0, "dropped": {}, "shards": 0, "rejected_bytes": 0}
            self._make_room(work)
        self.summary = Summary.of(record)
        self.writer = ShardWriter(self.folder / "data", rows_table(description["purpose"]), record["shards"])
        # Half a surrogate pair has no UTF-8; with a backslash it is JSON's own way to write it.
        self.rejected = (self.folder / REJECTED).open("a", encoding="utf-8", errors="backslashreplace")
        os.truncate(self.rejected.name, record["rejected_bytes"])

    def _make_room(self, work: Path) -> None:
        """What another run has kept is not thrown away; a run that kept no row is."""
        if set(work.iterdir()) - {work / "lock", self.folder} or read_json(self.folder / RECORD).get("kept"):
            raise OutputExists(
                f"{work}: found an unfinished run, expected none. Go on with --resume, or remove the folder."
            )
        shutil.rmtree(self.folder, ignore_errors=True)

    def write(
        self,
        converted: Iterable[tuple[RawRow, dict[str, Any] | RowError]],
        total: int | None,
        strict: bool,
        console: Console,
    ) -> None:
        """Write or reject each row, then leave the folder as the output is to be."""
        title = f"{self.description['dataset']} for {self.description['purpose']}"
        self._checkpoint()
        with self.writer, self.rejected, stop_signals() as stopped, progress(console) as bar:
            for raw, row in bar.track(converted, total, completed=self.summary.read, description=title):
                self._take(raw, row, strict)
                if stopped.is_set():
                    break
            self._checkpoint()
        if stopped.is_set():
            raise Interrupted(
                f"Stopped after {self.summary.read:,} rows; they are kept in {self.folder.parent}. Go on with "
                "--resume."
            )
        console.print(self.summary.table(title))
        if not self.summary.read:
            raise SourceError(f"{self.description['source']}: holds no row, expected some")
        if not self.summary.kept:
            raise SourceError(
                f"{self.description['source']}: none of {self.summary.read:,} rows could be used; the reasons are in "
                f"{self.folder / REJECTED}. Is it another dataset than {self.description['dataset']!r}?"
            )

    def _take(self, raw: RawRow, row: dict[str, Any] | RowError, strict: bool) -> None:
        shards = self.writer.shards
        if isinstance(row, RowError):
            if strict:
                row.place = raw.place
                raise row
            self._reject(raw, row)
        else:
            self.writer.write(*stored(row, self.description["purpose"]))
            self.summary.kept += 1
        self.summary.read += 1
        if self.writer.shards > shards:
            self._checkpoint()

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

    def _checkpoint(self) -> None:
        """Say how far the run has come: from there it would go on."""
        self.writer.close_shard()
        self.rejected.flush()
        counts = {"read": self.summary.read, "kept": self.summary.kept, "dropped": self.summary.dropped}
        state = {"shards": self.writer.shards, "rejected_bytes": (self.folder / REJECTED).stat().st_size}
        write_json(self.folder / RECORD, self.description | counts | state)


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
    dataset: Annotated[str, typer.Argument(help=f"One of {', '.join(ADAPTERS)}; any name with --columns.")],
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
