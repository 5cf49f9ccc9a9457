"""prepare: kept, dropped with a reason, refused, interrupted, resumed, and flat in memory."""

import base64
import json
import os
import random
import signal
import subprocess
import sys
import time
import zipfile
from io import BytesIO
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer
from click.testing import Result
from datasets import Dataset, DatasetDict, Features, List, Value, load_dataset
from datasets import Image as ImageFeature
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

from trl_onevision.data import convert, sources
from trl_onevision.data.convert import Conversion
from trl_onevision.data.images import PixelGrid
from trl_onevision.data.prepare import Interrupted, prepare, prepare_command
from trl_onevision.data.schema import RowError
from trl_onevision.data.sources import Source, SourceError, open_source
from trl_onevision.data.writer import OutputExists, write_dataset

FIXTURES = Path(__file__).parent / "fixtures"
QUIET = Console(quiet=True)
SMALL = Conversion(grid=PixelGrid(28, 784, 50_000))


def picture(mode: str = "RGB", size: tuple[int, int] = (84, 56), format: str = "PNG", **options) -> str:
    buffer = BytesIO()
    Image.new(mode, size).save(buffer, format=format, **options)
    return base64.b64encode(buffer.getvalue()).decode()


def picture_of_noise(seed: int) -> str:
    """A picture that nothing can compress, 48 kB: keeping rows in memory would show."""
    buffer = BytesIO()
    noise = random.Random(seed).randbytes(128 * 128 * 3)
    Image.frombytes("RGB", (128, 128), noise).save(buffer, format="PNG", compress_level=0)
    return base64.b64encode(buffer.getvalue()).decode()


GOOD = [
    picture(),
    picture(format="JPEG"),
    picture("CMYK", format="JPEG"),
    picture("I;16"),
    picture("RGBA"),
    picture("P", format="GIF"),
    "data:image/png;base64," + picture("LA"),
]
FRAMES = [Image.new("RGB", (28, 28), colour) for colour in ("red", "green")]
# What breaks a row, and the problem under which it has to be found again
BROKEN = [
    ({"image": picture_of_noise(0)[:1000]}, "truncated image"),
    ({"image": "%%% rubbish %%%"}, "not base64"),
    ({"image": base64.b64encode(b"no image").decode()}, "cannot be decoded"),
    ({"image": None}, "wrong type"),
    ({"image": picture(size=(30_000, 100))}, "image too elongated"),
    ({"image": picture(format="GIF", save_all=True, append_images=FRAMES)}, "animation"),
    ({"answer": None}, "wrong type"),
    ({"answer": "I look at it for a long time and wonder what it all means."}, "no closing answer"),
    ({"turns": 1}, "not one question and one answer"),
    ({"question": ""}, "no question"),
]


def raw_row(index: int, image: str | None, *, answer="", question="How many?", turns=2) -> dict:
    answer = f"I count them one by one.\n\nAnswer: {index}" if answer == "" else answer
    conversation = [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
    return {"id": f"row-{index}", "image": image, "conversations": conversation[:turns]}


def raw_rows(count: int, broken_share: float = 0.03) -> tuple[list[dict], dict[str, str]]:
    """Synthetic raw rows in R1-Onevision's schema, and the problem of each broken one."""
    chosen = random.Random(0).sample(range(count), int(count * broken_share))
    problems = {index: BROKEN[turn % len(BROKEN)] for turn, index in enumerate(chosen)}
    rows = []
    for index in range(count):
        change, _ = problems.get(index, ({}, None))
        rows.append(raw_row(index, **{"image": GOOD[index % len(GOOD)], **change}))
    return rows, {f"row-{index}": problem for index, (_, problem) in problems.items()}


def write_parquet(rows: list[dict], path: Path) -> Path:
    turn = pa.struct({"from": pa.string(), "value": pa.string()})
    schema = pa.schema({"id": pa.string(), "image": pa.string(), "conversations": pa.list_(turn)})
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path, row_group_size=500)
    return path


def write_jsonl(rows: list, path: Path) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def rejected(folder: Path) -> dict[str, str]:
    records = [json.loads(line) for line in (folder / "rejected.jsonl").read_text().splitlines()]
    return {record["id"]: record["problem"] for record in records}


def ids(folder: Path, tmp_path: Path) -> list[str]:
    return load_dataset(str(folder), split="train", cache_dir=str(tmp_path / "cache"))["id"][:]


def test_every_broken_row_is_found_again_and_none_is_fatal(tmp_path):
    rows, problems = raw_rows(200, broken_share=0.1)
    source = write_parquet(rows, tmp_path / "raw.parquet")
    summary = prepare("r1-onevision", tmp_path / "out", source=str(source), conversion=SMALL, console=QUIET)
    assert rejected(tmp_path / "out") == problems
    assert (summary.read, summary.kept, summary.dropped.total()) == (200, 180, 20)
    assert ids(tmp_path / "out", tmp_path) == [row["id"] for row in rows if row["id"] not in problems]
    notes = json.loads((tmp_path / "out" / "prepare.json").read_text())
    assert (notes["prompt"], notes["read"], notes["kept"]) == ("r1-onevision", 200, 180)


def test_rows_of_wrong_types_in_jsonl(tmp_path):
    rows = [raw_row(0, GOOD[0]), "{broken", '["list"]', "3", {"id": 4, "image": 4, "conversations": 4}, {}]
    source = write_jsonl(rows, tmp_path / "raw.jsonl")
    summary = prepare("r1-onevision", tmp_path / "out", source=str(source), console=QUIET)
    assert summary.kept == 1
    assert rejected(tmp_path / "out") == {
        "raw.jsonl:1": "not JSON",
        "raw.jsonl:2": "wrong type",
        "raw.jsonl:3": "wrong type",
        "4": "wrong type",
        "raw.jsonl:5": "missing column",
    }


def test_half_a_surrogate_pair_anywhere_is_a_broken_row(tmp_path):
    good = {"problem": "6 x 7?", "solution": "#### 42"}
    lines = [good, good | {"id": "a\ud83d"}, good | {"problem": "\ud83d?"}, {"id": "b\ude00", "problem": 3}, good]
    source = write_jsonl(lines, tmp_path / "raw.jsonl")
    summary = prepare("text-math", tmp_path / "out", source=str(source), console=QUIET)
    assert (summary.kept, summary.dropped["id: not Unicode text"]) == (2, 1)
    assert rejected(tmp_path / "out") == {
        "a\ud83d": "not Unicode text",
        "raw.jsonl:2": "not Unicode text",
        "b\ude00": "wrong type",
    }


def test_a_file_name_that_is_not_utf8(tmp_path):
    source = tmp_path / os.fsdecode(b"caf\xe9.jsonl")
    write_jsonl([{"id": "1", "problem": "6 x 7?", "solution": "#### 42"}, {"id": "2"}], source)
    assert prepare("text-math", tmp_path / "out", source=str(source), console=QUIET).kept == 1
    assert json.loads((tmp_path / "out" / "prepare.json").read_text())["source"] == str(source)


def test_a_row_that_no_check_foresaw_is_listed_with_its_reason(tmp_path, monkeypatch):
    def validate_row(row, purpose):
        return json.dumps({"counts": b"PPYo1"}) if row["id"] == "1" else known(row, purpose)

    known = convert.validate_row
    monkeypatch.setattr(convert, "validate_row", validate_row)
    source = write_jsonl(
        [{"id": index, "problem": "6 x 7?", "solution": "#### 42"} for index in range(3)], tmp_path / "a.jsonl"
    )
    summary = prepare("text-math", tmp_path / "out", source=str(source), console=QUIET)
    assert (summary.kept, dict(summary.dropped)) == (2, {"row: cannot be converted": 1})
    (record,) = map(json.loads, (tmp_path / "out" / "rejected.jsonl").read_text().splitlines())
    assert (record["id"], record["place"]) == ("1", "a.jsonl:1")
    assert "found TypeError: 'Object of type bytes is not JSON serializable'" in record["reason"]
    with pytest.raises(RowError, match="row '1', column 'row': cannot be converted; found TypeError"):
        prepare("text-math", tmp_path / "strict", source=str(source), strict=True, console=QUIET)


def test_text_that_is_not_utf8_is_a_broken_row_and_a_byte_order_mark_is_none(tmp_path):
    good = json.dumps({"problem": "Was ist 6 × 7?", "solution": "#### 42"}, ensure_ascii=False)
    lines = b"\xef\xbb\xbf" + good.encode() + b"\n" + good.encode("latin-1") + b"\n" + b"[" * 100_000 + b"\n"
    (tmp_path / "raw.jsonl").write_bytes(lines)
    prepare("text-math", tmp_path / "out", source=str(tmp_path / "raw.jsonl"), console=QUIET)
    assert rejected(tmp_path / "out") == {"raw.jsonl:1": "not JSON", "raw.jsonl:2": "not JSON"}


def test_strict_stops_at_the_first_broken_row(tmp_path):
    source = write_jsonl([raw_row(0, GOOD[0]), raw_row(1, "missing.png")], tmp_path / "raw.jsonl")
    with pytest.raises(RowError, match=r"^raw.jsonl:1: row 'row-1', column 'images': missing file; found no file"):
        prepare("r1-onevision", tmp_path / "out", source=str(source), strict=True, console=QUIET)
    assert not (tmp_path / "out").exists()
    write_jsonl(["{broken"], source)  # the place stands for a missing id, and is said once
    with pytest.raises(RowError, match=r"^row 'raw.jsonl:0', column 'row': not JSON"):
        prepare("r1-onevision", tmp_path / "out", source=str(source), strict=True, console=QUIET)


def test_limit_reads_that_many_rows(tmp_path):
    source = write_jsonl([raw_row(index, GOOD[0]) for index in range(9)], tmp_path / "raw.jsonl")
    assert prepare("r1-onevision", tmp_path / "out", source=str(source), limit=4, console=QUIET).read == 4


def interrupt_after(monkeypatch, rows: int, number: int = signal.SIGINT) -> None:
    import trl_onevision.data.prepare as module

    seen = 0
    convert_row = module.convert_row

    def counting(*arguments):
        nonlocal seen
        seen += 1
        if seen == rows:
            os.kill(os.getpid(), number)
        return convert_row(*arguments)

    monkeypatch.setattr(module, "convert_row", counting)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_goes_on_and_ends_as_if_it_had_not_been(tmp_path, monkeypatch, number):
    monkeypatch.setattr("trl_onevision.data.writer.SHARD_ROWS", 30)
    rows, problems = raw_rows(100, broken_share=0.1)
    source = str(write_parquet(rows, tmp_path / "raw.parquet"))
    options = {"source": source, "conversion": SMALL, "console": QUIET}
    with monkeypatch.context() as patch:
        interrupt_after(patch, 50, number)
        with pytest.raises(Interrupted, match=r"Stopped after \d+ rows; they are kept in .* Go on with --resume"):
            prepare("r1-onevision", tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()
    with pytest.raises(FileNotFoundError):
        load_dataset(str(tmp_path / "out.partial"), cache_dir=str(tmp_path / "cache"))
    with pytest.raises(OutputExists, match=r"found an unfinished run.*--resume"):
        prepare("r1-onevision", tmp_path / "out", **options)
    with pytest.raises(OutputExists, match=r"other options \(limit None -> 3\)"):
        prepare("r1-onevision", tmp_path / "out", **options, limit=3, resume=True)
    summary = prepare("r1-onevision", tmp_path / "out", **options, resume=True)
    assert (summary.read, summary.kept) == (100, 90)
    assert ids(tmp_path / "out", tmp_path) == [row["id"] for row in rows if row["id"] not in problems]
    assert rejected(tmp_path / "out") == problems
    assert not (tmp_path / "out.partial").exists()
    done = prepare("r1-onevision", tmp_path / "out", **options, resume=True)  # a script may say --resume always
    assert done == summary


def test_a_run_that_is_stopped_while_its_folder_gets_its_name_goes_on(tmp_path, monkeypatch):
    import trl_onevision.data.prepare as module

    def stop_half_way(work, output, split):
        (work / "data" / "00001.part").rename(work / "data" / f"{split}-00001-of-00003.parquet")
        raise OSError("no space left")

    monkeypatch.setattr("trl_onevision.data.writer.SHARD_ROWS", 5)
    source = str(write_jsonl([raw_row(index, GOOD[0]) for index in range(15)] + ["{broken"], tmp_path / "raw.jsonl"))
    options = {"source": source, "conversion": SMALL, "console": QUIET}
    with monkeypatch.context() as patch:
        patch.setattr(module, "publish", stop_half_way)
        with pytest.raises(OSError, match="no space left"):
            prepare("r1-onevision", tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()
    summary = prepare("r1-onevision", tmp_path / "out", **options, resume=True)
    assert (summary.read, summary.kept) == (16, 15)
    assert ids(tmp_path / "out", tmp_path) == [f"row-{index}" for index in range(15)]
    assert rejected(tmp_path / "out") == {"raw.jsonl:15": "not JSON"}
    assert {path.name for path in tmp_path.iterdir()} == {"out", "cache", "raw.jsonl"}


def test_a_source_that_has_changed_since_is_refused_by_its_name(tmp_path, monkeypatch):
    monkeypatch.setattr("trl_onevision.data.writer.SHARD_ROWS", 5)
    raw = tmp_path / "raw"
    raw.mkdir()
    for name in ("a.jsonl", "b.jsonl"):
        write_jsonl([raw_row(index, GOOD[0]) for index in range(20)], raw / name)
    options = {"source": str(raw), "conversion": SMALL, "console": QUIET, "resume": True}
    with monkeypatch.context() as patch:
        interrupt_after(patch, 12)
        with pytest.raises(Interrupted):
            prepare("r1-onevision", tmp_path / "out", **options)
    times = (raw / "a.jsonl").stat().st_atime_ns, (raw / "a.jsonl").stat().st_mtime_ns
    os.utime(raw / "a.jsonl", ns=(times[0], times[1] + 1))
    (raw / "c.jsonl").touch()
    with pytest.raises(
        OutputExists, match=r"a run with other options \(changed files a.jsonl, c.jsonl\), expected the"
    ):
        prepare("r1-onevision", tmp_path / "out", **options)
    os.utime(raw / "a.jsonl", ns=times)
    (raw / "c.jsonl").unlink()
    assert prepare("r1-onevision", tmp_path / "out", **options).kept == 40
    (raw / "b.jsonl").unlink()
    with pytest.raises(OutputExists, match=r"out: found a finished run with other options \(changed files b.jsonl\)"):
        prepare("r1-onevision", tmp_path / "out", **options)


def test_images_that_have_changed_are_told_by_their_folder(tmp_path):
    touch(tmp_path, "cat/1.png", "cat/2.png", "dog/1.png")
    before = open_source(str(tmp_path)).stamps()
    assert list(before) == ["cat", "dog"] and before == open_source(str(tmp_path)).stamps()
    (tmp_path / "cat" / "1.png").rename(tmp_path / "cat" / "3.png")
    after = open_source(str(tmp_path)).stamps()
    assert after["cat"] != before["cat"] and after["dog"] == before["dog"]


def test_a_second_run_into_the_same_output_is_refused_and_takes_nothing_from_the_first(tmp_path, monkeypatch):
    import trl_onevision.data.prepare as module

    rows, problems = raw_rows(40, broken_share=0.1)
    options = {"source": str(write_parquet(rows, tmp_path / "raw.parquet")), "conversion": SMALL, "console": QUIET}
    publish, refused = module.publish, []

    def publish_late(*arguments):
        for resume in (False, True):
            with pytest.raises(OutputExists, match=r"out\.partial: found another run that is writing there"):
                prepare("r1-onevision", tmp_path / "out", **options, resume=resume)
            refused.append(resume)
        return publish(*arguments)

    def start_second(*arguments):  # while no shard is closed yet, as in a run that has kept no row
        if not refused:
            refused.append(None)
            with pytest.raises(OutputExists, match="another run"):
                prepare("r1-onevision", tmp_path / "out", **options)
        return convert_row(*arguments)

    convert_row = module.convert_row
    monkeypatch.setattr(module, "convert_row", start_second)
    monkeypatch.setattr(module, "publish", publish_late)
    assert prepare("r1-onevision", tmp_path / "out", **options, workers=1).kept == 36
    assert refused == [None, False, True]
    assert rejected(tmp_path / "out") == problems
    assert ids(tmp_path / "out", tmp_path) == [row["id"] for row in rows if row["id"] not in problems]
    assert {path.name for path in tmp_path.iterdir()} == {"out", "cache", "raw.parquet"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"data", "prepare.json", "rejected.jsonl"}


def test_a_name_that_looks_like_markup_is_printed_as_it_is(tmp_path, capsys):
    source = write_jsonl([{"[/q]": "6 x 7?", "a": "42"}, {"a": "42"}], tmp_path / "raw.jsonl")
    prepare("my[/set]", tmp_path / "out", source=str(source), columns="prompt=[/q],solution=a")
    said = capsys.readouterr().out
    assert "my[/set] for grpo" in said and "dropped: [/q]: missing column" in said


def test_a_record_that_is_cut_and_a_source_without_a_row_are_named(tmp_path):
    options = {"source": str(FIXTURES / "clevr.parquet"), "console": QUIET}
    prepare("clevr", tmp_path / "out", **options)
    (tmp_path / "out" / "prepare.json").write_text('{"read"')
    with pytest.raises(ValueError, match=r"out/prepare.json: found no JSON object .* Nothing was changed"):
        prepare("clevr", tmp_path / "out", **options, resume=True)
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(SourceError, match=r"empty.jsonl: holds no row"):
        prepare("clevr", tmp_path / "none", source=str(tmp_path / "empty.jsonl"), console=QUIET)


def test_another_folder_of_that_name_is_left_alone(tmp_path):
    (tmp_path / "out.partial").mkdir()
    (tmp_path / "out.partial" / "thesis.tex").write_text("…")
    for resume in (False, True):
        with pytest.raises(OutputExists, match=r"out\.partial: found an unfinished run"):
            prepare("clevr", tmp_path / "out", source=str(FIXTURES / "clevr.parquet"), resume=resume, console=QUIET)
    assert [path.name for path in tmp_path.rglob("*")] == ["out.partial", "thesis.tex"]


RUN = """
import sys
from rich.console import Console
import trl_onevision.data.writer as writer
from trl_onevision.data.prepare import prepare
from trl_onevision.data import convert
from trl_onevision.data.convert import Conversion
from trl_onevision.data.images import PixelGrid
writer.SHARD_ROWS = 40
conversion = Conversion(grid=PixelGrid(28, 784, 50_000))
prepare("r1-onevision", sys.argv[2], source=sys.argv[1], conversion=conversion, console=Console(quiet=True), workers=2)
status = open("/proc/self/status").read()  # ru_maxrss would start from the parent's peak
print(status.partition("VmHWM:")[2].split()[0])
"""


def test_a_killed_run_leaves_nothing_to_read_and_goes_on(tmp_path):
    rows, problems = raw_rows(2_000)
    source = write_parquet(rows, tmp_path / "raw.parquet")
    process = subprocess.Popen([sys.executable, "-c", RUN, str(source), str(tmp_path / "out")])
    while len(list(tmp_path.glob("out.partial/.rows/data/0*.part"))) < 2 and process.poll() is None:
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert not (tmp_path / "out").exists() and (tmp_path / "out.partial").exists()
    with pytest.raises(FileNotFoundError):
        load_dataset(str(tmp_path / "out.partial"), cache_dir=str(tmp_path / "cache"))
    prepare("r1-onevision", tmp_path / "out", source=str(source), conversion=SMALL, resume=True, console=QUIET)
    assert ids(tmp_path / "out", tmp_path) == [row["id"] for row in rows if row["id"] not in problems]
    assert rejected(tmp_path / "out") == problems


def peak_memory(source: Path, output: Path) -> int:
    """Peak resident memory, in MiB, of a fresh process that prepares the source."""
    steady = os.environ | {"ARROW_DEFAULT_MEMORY_POOL": "system", "MALLOC_ARENA_MAX": "1"}  # less noise by threads
    command = [sys.executable, "-c", RUN, str(source), str(output)]
    printed = subprocess.check_output(command, text=True, env=steady)
    return int(printed.split()[-1]) // 1024


def heavy_parquet(count: int, path: Path) -> tuple[Path, dict[str, str]]:
    """Rows of which nine in ten hold a picture of their own."""
    rows, problems = raw_rows(count)
    for index, row in enumerate(rows):
        if row["image"] in GOOD and index % 10:
            row["image"] = picture_of_noise(index)
    return write_parquet(rows, path), problems


@pytest.mark.parametrize(
    ("few", "many"), [(600, 1_600), pytest.param(2_000, 10_000, marks=pytest.mark.slow)], ids=["small", "full"]
)
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from Linux's /proc")
def test_memory_does_not_grow_with_the_source(tmp_path, few, many):
    peaks = {}
    for count in (few, many):
        source, problems = heavy_parquet(count, tmp_path / f"raw-{count}.parquet")
        peaks[count] = peak_memory(source, tmp_path / f"out-{count}")
        assert rejected(tmp_path / f"out-{count}") == problems
    written = sum(path.stat().st_size for path in (tmp_path / f"out-{many}" / "data").iterdir()) // 2**20
    print(f"peak memory in MiB by rows: {peaks}; written: {written} MiB")  # noqa: T201 - the measurement
    assert written > 60
    assert peaks[many] < peaks[few] + 40  # of 50 MiB and more that were read and written on top


def test_a_used_output_is_refused_and_left_alone(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("…")
    with pytest.raises(OutputExists, match=r"holds thesis\.tex"):
        prepare("clevr", tmp_path / "out", source=str(FIXTURES / "clevr.parquet"), console=QUIET)
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "thesis.tex"]


def test_an_output_that_links_to_an_empty_folder_is_written_there(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "disk")
    prepare("clevr", tmp_path / "out", source=str(FIXTURES / "clevr.parquet"), console=QUIET)
    assert (tmp_path / "out").is_symlink() and (tmp_path / "disk" / "prepare.json").exists()
    assert {path.name for path in tmp_path.iterdir()} == {"disk", "out"}


@pytest.mark.parametrize("write", ["prepare", "write_dataset"])
def test_an_output_that_cannot_be_replaced_is_refused_before_a_row_is_read(tmp_path, monkeypatch, write):
    def call(output, split="train"):
        if write == "prepare":
            prepare("clevr", output, source="no/such/source", split=split, console=QUIET)
        else:
            write_dataset(iter(lambda: pytest.fail("a row was read"), None), output, split=split)

    (tmp_path / "disk").mkdir()
    monkeypatch.setattr(Path, "is_mount", lambda path: path.name == "disk")
    with pytest.raises(OutputExists, match=r"disk: found a mount point, which cannot be replaced, expected a new or"):
        call(tmp_path / "disk")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OutputExists, match=r"\.: found the folder that the command runs in, which cannot be replaced"):
        call(".")
    for split in ("a/b", "my-split", "train[:5]", "", "train\n"):
        with pytest.raises(ValueError, match=r"--split: found .*, expected letters, digits and underscores"):
            call("out", split)
    assert [path.name for path in tmp_path.rglob("*")] == ["disk"]


@pytest.mark.parametrize(
    ("dataset", "options", "error", "message"),
    [
        ("clever", {}, ValueError, "dataset 'clever': unknown; expected one of clevr, geometry3k, .*--columns"),
        ("clevr", {"source": "no/file.parquet"}, SourceError, "no/file.parquet: no such file or folder; expected"),
        ("vlm-r1", {}, SourceError, "has no home on the hub; expected --source"),
        (
            "clevr",
            {"conversion": Conversion(purpose="sft")},
            ValueError,
            "nothing to learn by sft; expected --for",
        ),
        ("x", {"columns": "question=q"}, ValueError, "unknown field 'question'; expected one of prompt, solution"),
        ("x", {"columns": "solution=q"}, ValueError, "no prompt; expected prompt=NAME"),
        ("clevr", {"source": str(FIXTURES)}, SourceError, r"holds .json and .jsonl and .parquet files; expected one"),
        ("clevr", {"source": str(FIXTURES / "make.py")}, SourceError, "unknown kind '.py'"),
        ("clevr", {"source": str(FIXTURES / "text_math.jsonl")}, SourceError, "none of 3 rows could be used.*another"),
    ],
)
def test_what_cannot_be_prepared_is_said_and_can_be_repeated(tmp_path, dataset, options, error, message):
    for _ in range(2):  # a failed run is in no one's way
        with pytest.raises(error, match=message):
            prepare(dataset, tmp_path / "out", console=QUIET, **options)
    assert not (tmp_path / "out").exists()


def test_unknown_options_are_refused():
    for option in ({"purpose": "dpo"}, {"box_frame": "norm"}, {"box_format": "cxcywh"}, {"prompt": "chatty"}):
        with pytest.raises(ValueError, match="expected one of"):
            Conversion(**option)


def test_a_hub_that_cannot_be_reached_is_a_clear_error(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    with pytest.raises(SourceError, match=r"nobody/nothing: cannot be read from the hub .* or a local file or folder"):
        prepare("clevr", tmp_path / "out", source="nobody/nothing", console=QUIET)
    assert not (tmp_path / "out").exists()


def test_a_stream_of_datasets_keeps_broken_images_as_rows(tmp_path):
    # load_dataset reads a local folder as it reads the hub
    (tmp_path / "hub").mkdir()
    rows = pq.read_table(FIXTURES / "clevr.parquet").to_pylist()
    rows[1]["image"]["bytes"] = b"rubbish"
    schema = pq.read_schema(FIXTURES / "clevr.parquet")
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), tmp_path / "hub" / "train.parquet")
    source = Source("owner/name", hub_id=str(tmp_path / "hub"))
    found = list(source.rows())
    assert [row.place for row in found] == ["owner/name:0", "owner/name:1", "owner/name:2"]
    assert [row.example["image"]["bytes"][:4] for row in found] == [b"\x89PNG", b"rubb", b"\x89PNG"]
    assert [row.place for row in source.rows(skip=2)] == ["owner/name:2"]


def test_images_in_an_archive_of_the_hub_are_fetched(tmp_path):
    (tmp_path / "hub").mkdir()
    questions = [{"file_name": f"{index}.png", "problem": "How many?", "solution": "3"} for index in range(3)]
    with zipfile.ZipFile(tmp_path / "hub" / "train.zip", "w") as archive:
        archive.writestr("metadata.jsonl", "".join(json.dumps(question) + "\n" for question in questions))
        for index in range(3):
            archive.writestr(f"{index}.png", base64.b64decode(picture()))
    rows = [row.example for row in Source("owner/name", hub_id=str(tmp_path / "hub")).rows()]
    assert [row["image"]["bytes"][:4] for row in rows] == [b"\x89PNG"] * 3
    assert all(row["image"]["path"].startswith("zip://") for row in rows)


def test_a_file_that_the_hub_lacks_is_its_rows_trouble_and_urls_are_not_fetched(tmp_path, monkeypatch):
    import fsspec

    (tmp_path / "hub").mkdir()
    zipfile.ZipFile(tmp_path / "a.zip", "w").close()
    paths = [
        f"zip://2.png::{tmp_path / 'a.zip'}",
        "nowhere://a.png",
        "https://x.org/a.png",
        "zip://1.png::http://x.org/a.zip",
    ]
    rows = [{"image": {"bytes": None, "path": path}} for path in paths]
    schema = pa.schema({"image": pa.struct({"bytes": pa.binary(), "path": pa.string()})})
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), tmp_path / "hub" / "train.parquet")
    opened = []
    fsspec_open = fsspec.open
    monkeypatch.setattr(fsspec, "open", lambda path, *a, **b: opened.append(path) or fsspec_open(path, *a, **b))
    found = [row.example["image"] for row in Source("owner/name", hub_id=str(tmp_path / "hub")).rows()]
    assert [image["path"] for image in found] == paths
    assert [path for path in opened if path in paths] == paths[:2]


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_folder_of_save_to_disk_is_read_as_such(tmp_path, split):
    features = Features({"id": Value("string"), "images": List(ImageFeature()), "problem": Value("string")})
    (tmp_path / "a.png").write_bytes(base64.b64decode(picture()))
    rows = [{"id": str(index), "images": [str(tmp_path / "a.png")], "problem": "?"} for index in range(40)]
    dataset = Dataset.from_list(rows, features=features)
    dataset.save_to_disk(tmp_path / "one")
    DatasetDict(train=dataset, test=dataset.select([4, 2])).save_to_disk(tmp_path / "more")
    (tmp_path / "one" / "cache-1.arrow").write_bytes(b"of an earlier map")
    file = "data-00000-of-00001.arrow"
    for folder, place, expected in (("one", file, 40), ("more", f"{split}/{file}", 40 if split == "train" else 2)):
        source = open_source(str(tmp_path / folder), split=split)
        found = list(source.rows())
        assert len(source) == len(found) == expected and list(source.stamps()) == [place]
        assert found[1].place == f"{place}:1" and found[1].example["images"][0]["bytes"][:4] == b"\x89PNG"
        assert list(source.rows(skip=1)) == found[1:]
    with pytest.raises(SourceError, match=r"more: no split 'dev'; found train, test \(choose with --split\)"):
        open_source(str(tmp_path / "more"), split="dev")
    for whole, rubbish, expected in (
        ("one/data-00000-of-00001.arrow", "rubbish", ".arrow file"),
        ("one/state.json", "{}", "folder of `save_to_disk`"),
        ("more/dataset_dict.json", "{}", "folder of `save_to_disk`"),
    ):
        (tmp_path / whole).write_text(rubbish)
        with pytest.raises(SourceError, match=rf"cannot be read .*; expected a whole {expected}"):
            list(open_source(str(tmp_path / Path(whole).parts[0])).rows())


@pytest.mark.parametrize(
    ("source", "hub_id", "files", "revision"),
    [
        ("owner/name", "owner/name", None, None),
        ("owner/name@v1.0", "owner/name", None, "v1.0"),
        ("hf://datasets/owner/name", "owner/name", None, None),
        ("hf://datasets/owner/name/data/*.parquet", "owner/name", "data/*.parquet", None),
        ("hf://datasets/owner/name@abc/data/a.json", "owner/name", "data/a.json", "abc"),
    ],
)
def test_names_on_the_hub(source, hub_id, files, revision):
    opened = open_source(source, split="test")
    assert (opened.hub_id, opened.hub_files, opened.split, opened.revision) == (hub_id, files, "test", revision)


@pytest.mark.parametrize("source", ["owner/name/data", "owner/rows.jsonl", "hf://datasets/name", "name"])
def test_what_is_no_file_and_no_name_on_the_hub_is_said(source):
    with pytest.raises(SourceError, match=r"no such file or folder; expected a \.parquet"):
        open_source(source)


def test_a_truncated_file_is_named(tmp_path):
    data = (FIXTURES / "clevr.parquet").read_bytes()
    (tmp_path / "raw.parquet").write_bytes(data[:-100])
    with pytest.raises(SourceError, match=r"raw.parquet: cannot be read .*; expected a whole .parquet file"):
        prepare("clevr", tmp_path / "out", source=str(tmp_path / "raw.parquet"), console=QUIET)
    (tmp_path / "raw.json").write_text('[{"problem": "1 + 1?", "solution": "2"}, {"problem": ')
    with pytest.raises(SourceError, match=r"raw.json: broken JSON array"):
        prepare("text-math", tmp_path / "out2", source=str(tmp_path / "raw.json"), console=QUIET)


@pytest.mark.parametrize("suffix", ["json", "jsonl", "csv", "tsv", "parquet"])
@pytest.mark.parametrize("skip", [0, 1, 4, 5, 7])
def test_every_kind_of_file_yields_the_same_rows_from_any_place(tmp_path, suffix, skip):
    rows = [
        {"id": str(index), "problem": f'"Why", {index}?\nOr not?', "solution": "x" * 200_000} for index in range(5)
    ]
    write_table(rows[:3], tmp_path / f"a-train.{suffix}")
    write_table(rows[3:], tmp_path / f"b-train.{suffix}")
    write_table(rows, tmp_path / f"c-test.{suffix}")
    found = list(open_source(str(tmp_path)).rows(skip))
    assert [row.example for row in found] == rows[skip:]
    assert not found or found[-1].place == f"b-train.{suffix}:1"
    with pytest.raises(SourceError, match="no files of split 'validation'; found test, train"):
        open_source(str(tmp_path), split="validation")


def write_table(rows: list[dict], path: Path) -> None:
    import pandas as pd

    table = pd.DataFrame(rows)
    writers = {
        ".json": lambda: path.write_text(json.dumps(rows, indent=1)),
        ".jsonl": lambda: write_jsonl(rows, path),
        ".csv": lambda: table.to_csv(path, index=False),
        ".tsv": lambda: table.to_csv(path, index=False, sep="\t"),
        ".parquet": lambda: pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=2),
    }
    writers[path.suffix]()


def test_a_folder_of_images_yields_images_and_labels(tmp_path):
    for label in ("cat", "dog"):
        (tmp_path / "raw" / label).mkdir(parents=True)
        Image.new("RGB", (56, 56)).save(tmp_path / "raw" / label / "1.png")
    rows = [row.example for row in open_source(str(tmp_path / "raw")).rows()]
    assert [(Path(row["image"]).name, row["label"]) for row in rows] == [("1.png", "cat"), ("1.png", "dog")]


def files_read(folder: Path, split: str = "train") -> list[str]:
    return [str(path.relative_to(folder)) for path in open_source(str(folder), split=split).files]


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def test_images_are_known_by_every_suffix_that_pillow_reads(tmp_path):
    names = ["a.JPG", "b.jfif", "c.jpe", "d.j2k", "e.tif", "f.pgm", "g.png"]
    assert files_read(touch(tmp_path, *names, "notes.txt", "h.eps")) == names


def test_linked_folders_are_read_once_more_but_not_in_circles(tmp_path):
    touch(tmp_path, "elsewhere/b.jsonl", "raw/a.jsonl", "raw/sub/c.jsonl")
    (tmp_path / "raw" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "raw" / "sub" / "up").symlink_to(tmp_path / "raw")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "raw")
    assert files_read(tmp_path / "raw") == ["a.jsonl", "linked/b.jsonl", "sub/c.jsonl"]


def test_a_link_to_a_missing_file_is_not_left_out(tmp_path):
    (tmp_path / "a.jsonl").symlink_to(tmp_path / "gone.jsonl")
    with pytest.raises(SourceError, match=r"a.jsonl: cannot be read .*No such file"):
        list(open_source(str(tmp_path)).rows())


@pytest.mark.parametrize(
    ("names", "train", "test"),
    [
        ("data/train-00000-of-00002.parquet data/train-00001-of-00002.parquet data/test-0.parquet", (0, 1), (2,)),
        ("train.jsonl test.jsonl", (0,), (1,)),
        ("train.json test.json README.json dataset_infos.json", (0,), (1,)),
        ("train/metadata.jsonl eval/metadata.jsonl", (0,), (1,)),
        ("default/train/0000.parquet default/test/0000.parquet", (0,), (1,)),
        ("train_test_split/train.csv train_test_split/test.csv", (0,), (1,)),
        ("a.jsonl b/c.jsonl", (0, 1), (0, 1)),
        ("train/cat/1.png train/dog/2.png test/cat/3.png", (0, 1), (2,)),
        ("raw/train/cat/1.png raw/test/cat/1.png", (0,), (1,)),
        ("train/1.png test/1.png", (0,), (1,)),
        ("car/test_1.png train/2.png ship/3.png", (0, 1, 2), (0, 1, 2)),
        ("train/car/1.png train/train/2.png test/test_tube/3.png", (0, 1), (2,)),
    ],
)
def test_the_split_is_read_from_the_names_of_files_and_folders(tmp_path, names, train, test):
    names = names.split()
    touch(tmp_path, *names)
    for split, places in (("train", train), ("test", test)):
        assert files_read(tmp_path, split) == sorted(names[place] for place in places)


@pytest.mark.parametrize(
    ("names", "unclear"),
    [
        ("clevr_train.jsonl geometry.jsonl", "geometry.jsonl"),
        ("train.csv train/eval.csv", "train/eval.csv"),
        ("train_val.json", "train_val.json"),
        ("train/cat/1.png extra/cat/2.png", "extra/cat/2.png"),
    ],
)
def test_files_whose_split_is_not_clear_are_not_left_out(tmp_path, names, unclear):
    touch(tmp_path, *names.split())
    with pytest.raises(SourceError, match=rf"speak of splits \(.*\), but {unclear} of none .* Give the file or the"):
        open_source(str(tmp_path))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[{"id": 1}]\n[{"id": 2}]', r"at line 2 \(found '\[' behind its '\]'\); expected one array, and nothing"),
        ('[\n{"id": 1}\n{"id": 2}]', r"at line 3 \(found '{'\); expected ',' or '\]' behind an element"),
        ('[{"id": 1},\n]', "at line 2 .Expecting value"),
        ('[\n{"id": 1},\n{"id": ', "at line 3 .Expecting value"),
        ('[{"id": 1}', "found ''"),
        ('[{"id": 1}, ' + "1" * 5000 + "]", r"at line 1 \(Exceeds the limit"),
        ("[\n" + ('{"id": "' + "x" * 900 + '"},\n') * 999 + '{"id" 3}]', r"at line 1001 \(Expecting ':' delimiter\)"),
    ],
)
def test_a_json_array_is_read_to_its_end_or_refused_with_its_line(tmp_path, text, message):
    (tmp_path / "raw.json").write_text(text)
    with pytest.raises(SourceError, match=f"raw.json: broken JSON array .*{message}"):
        list(open_source(str(tmp_path / "raw.json")).rows())


def test_a_fault_at_the_start_of_a_large_array_is_said_without_reading_to_its_end(tmp_path, monkeypatch):
    (tmp_path / "raw.json").write_text('[{"id" 3},' + '{"id": 1},' * 10**6 + "{}]")
    grown, grow = [], sources._Array._grow
    monkeypatch.setattr(sources._Array, "_grow", lambda self: grown.append(self) or grow(self))
    with pytest.raises(SourceError, match=r"at line 1 \(Expecting ':' delimiter\)"):
        list(open_source(str(tmp_path / "raw.json")).rows())
    assert len(grown) == 1  # of 153


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 64])
def test_an_array_is_read_the_same_wherever_its_buffer_ends(tmp_path, monkeypatch, chunk):
    rows = [{"a": 'x😀é\\"y' * 30, "b": [1, -2.5e-7, True, None, float("inf")], "c": "é" * 50}] * 5
    (tmp_path / "raw.json").write_text(json.dumps(rows), encoding="utf-8")
    monkeypatch.setattr(sources, "_CHUNK", chunk)
    found = [row.example for row in open_source(str(tmp_path / "raw.json")).rows()]
    assert [row | {"id": None} for row in found] == [row | {"id": None} for row in rows]


def test_json_arrays_of_one_line_and_of_none(tmp_path):
    for text, count in (("[]", 0), (" [ ] \n", 0), ('\ufeff[{"id": 1},{"id": 2}]\n\n', 2)):
        (tmp_path / "raw.json").write_text(text)
        assert len(list(open_source(str(tmp_path / "raw.json")).rows())) == count


@pytest.mark.parametrize("suffix", ["csv", "tsv"])
@pytest.mark.parametrize("later", ['say "hi"', '"quoted, as it should be"', "nothing"])
def test_a_stray_quote_is_refused_with_its_line_and_swallows_nothing(tmp_path, suffix, later):
    rows = [["id", "problem", "solution"], *([str(index), "Why?", "x"] for index in range(300))]
    rows[10][1], rows[200][1] = '"Why?', later
    comma = "," if suffix == "csv" else "\t"
    (tmp_path / f"raw.{suffix}").write_text("".join(comma.join(row) + "\n" for row in rows))
    with pytest.raises(SourceError, match=rf"raw.{suffix}: the row that starts at line 11 cannot be read \(at line"):
        list(open_source(str(tmp_path / f"raw.{suffix}")).rows())


def test_a_table_that_names_a_column_twice_would_lose_one(tmp_path):
    (tmp_path / "raw.csv").write_text("id,problem,solution,solution\n1,Why?,a,b\n")
    with pytest.raises(SourceError, match=r"raw.csv: the header names a column twice \(solution\)"):
        list(open_source(str(tmp_path / "raw.csv")).rows())


def test_an_object_over_several_lines_is_no_rows(tmp_path):
    (tmp_path / "raw.json").write_text(json.dumps({"data": [{"id": 1}]}, indent=2))
    with pytest.raises(SourceError, match=r"raw.json: holds one JSON object over several lines; expected an array"):
        list(open_source(str(tmp_path / "raw.json")).rows())


def test_a_byte_of_a_table_that_is_not_utf8_breaks_its_row_alone(tmp_path):
    (tmp_path / "raw.csv").write_bytes("id,problem\n1,é\n2,e\n".encode("latin-1"))
    broken, whole = open_source(str(tmp_path / "raw.csv")).rows()
    assert broken.error.reason == "column 'problem': not UTF-8; found the byte 0xe9, expected UTF-8"
    assert whole.example == {"id": "2", "problem": "e"}


@pytest.mark.parametrize("apart", [1, 2, 100])
def test_rows_between_two_stray_quotes_of_a_tsv_are_said(tmp_path, apart):
    rows = [["id", "problem", "solution"], *([str(index), "How long?", "x"] for index in range(200))]
    rows[10][1], rows[10 + apart][1] = '"How long?', '5"'
    (tmp_path / "raw.tsv").write_text("".join("\t".join(row) + "\n" for row in rows))
    found = [row.error for row in open_source(str(tmp_path / "raw.tsv")).rows() if row.error]
    assert [error.problem for error in found] == ["rows within a cell"]
    assert found[0].found.startswith(r"'How long?\tx\n")


def test_a_table_in_a_quoted_cell_of_a_tsv_is_a_text(tmp_path):
    row = {"id": "1", "problem": "Which?\na\tb\n1\t2", "solution": "2"}
    write_table([row], tmp_path / "raw.tsv")
    assert [found.example for found in open_source(str(tmp_path / "raw.tsv")).rows()] == [row]


def command(*arguments: object) -> Result:
    app = typer.Typer()
    app.command("prepare")(prepare_command)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


CLEVR = ("clevr", "--source", FIXTURES / "clevr.parquet", "--for", "grpo")


def test_the_command_line(tmp_path):
    options = ["--max-pixels", "20000", "--min-pixels", "784", "--limit", "2", "--prompt", "plain"]
    first = command(*CLEVR, "--output", tmp_path / "out", *options)
    assert first.exit_code == 0 and "Wrote 2 rows" in first.output and "kept" in first.output
    rows = load_dataset(str(tmp_path / "out"), split="train", cache_dir=str(tmp_path / "cache"))
    assert rows[0]["images"][0].size == (168, 112)
    assert rows[0]["prompt"][0]["content"][1]["text"] == "How many different items are there in the image?"
    found = command(*CLEVR, "--output", tmp_path / "out", *options, "--resume")
    assert found.exit_code == 0 and "complete already, with 2 rows" in found.output and "Wrote" not in found.output
    again = command(*CLEVR, "--output", tmp_path / "out")
    assert again.exit_code == 1
    assert "found a folder that holds data, prepare.json, rejected.jsonl" in again.output.replace("\n", " ")


def test_the_grid_of_qwen3(tmp_path):
    assert command(*CLEVR, "--output", tmp_path / "out", "--grid", 32).exit_code == 0
    rows = load_dataset(str(tmp_path / "out"), split="train", cache_dir=str(tmp_path / "cache"))
    ((width, height),) = {row["images"][0].size for row in rows}
    assert width % 32 == height % 32 == 0 and width * height >= 65_536


def test_originals_are_kept_as_they_came_where_the_grid_reduced_an_image(tmp_path):
    whole, small = Image.effect_noise((640, 480), 50).convert("RGB"), Image.new("RGB", (56, 56))
    for name, image in (("whole.png", whole), ("small.png", small)):
        image.save(tmp_path / name)
    lines = [{"problem": "How many?", "solution": "3", "image": name} for name in ("whole.png", "small.png")]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    arguments = ("clevr", "--source", tmp_path / "rows.jsonl", "--for", "grpo", "--max-pixels", 50_000)
    assert command(*arguments, "--output", tmp_path / "out", "--originals").exit_code == 0
    rows = load_dataset(str(tmp_path / "out"), split="train", cache_dir=str(tmp_path / "cache"))
    assert rows[0]["images"][0].size == (252, 168)
    assert rows[0]["originals"][0].tobytes() == whole.tobytes()
    assert rows[1]["originals"] is None
    assert command(*arguments, "--output", tmp_path / "plain").exit_code == 0
    plain = load_dataset(str(tmp_path / "plain"), split="train", cache_dir=str(tmp_path / "cache"))
    assert plain["originals"] == [None, None]
