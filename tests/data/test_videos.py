"""Videos as frames: times against those that a clip was written with, and files that nobody should trust."""

from __future__ import annotations

import io
import itertools
import json
import random
import struct
import sys
import tracemalloc
from fractions import Fraction
from pathlib import Path

import pytest
from datasets import load_dataset
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from rich.console import Console

sys.path.append(str(Path(__file__).parents[1]))

import clips

from trl_onevision.data import videos
from trl_onevision.data.columns import columns_adapter
from trl_onevision.data.convert import Conversion, convert_row
from trl_onevision.data.images import PixelGrid
from trl_onevision.data.prepare import prepare
from trl_onevision.data.schema import RowError
from trl_onevision.data.spans import in_seconds
from trl_onevision.data.videos import Sampling, store_video
from trl_onevision.rewards import span_reward

SMALL = PixelGrid(28, 784, 50_000)
STEADY = [n / 25 for n in range(100)]
# Frames that come in bursts, pause for seconds, and drift by a millisecond
VARIABLE = [0.0, 0.033, 0.067, 0.1, 0.5, 0.501, 1.7, 1.8, 3.0, 3.04, 3.08, 7.25, 7.5, 7.9, 8.001]
QUIET = Console(quiet=True)


def opened(stored):
    return [Image.open(io.BytesIO(frame.data)) for frame in stored.frames]


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi", "webm", "mov", "ts"])
@pytest.mark.parametrize("times", [STEADY, VARIABLE], ids=["steady", "variable"])
def test_a_frame_has_the_time_that_it_was_written_with(tmp_path, suffix, times):
    codec = {"webm": "libvpx", "mov": "libx264", "ts": "libx264"}.get(suffix, "mpeg4")
    path = clips.write(tmp_path / f"a.{suffix}", times, codec=codec)
    for fps, most in ((1, 16), (5, 16), (1000, 10_000), (5, 4)):
        stored = store_video(path, SMALL, sampling=Sampling(fps, most))
        numbers = [clips.read_counter(image) for image in opened(stored)]
        assert stored.times == pytest.approx([times[number] for number in numbers], abs=0.002)
        assert numbers == sorted(set(numbers)) and len(numbers) <= most
        assert abs(stored.duration - times[-1]) < 0.3
    assert len(store_video(path, SMALL, sampling=Sampling(1000, 10_000)).times) == len(times)


def test_frames_are_the_first_at_or_after_each_tick(tmp_path):
    path = clips.write(tmp_path / "a.mp4", VARIABLE)
    assert store_video(path, SMALL, sampling=Sampling(2, 20)).times == pytest.approx(
        [0.0, 0.5, 1.7, 3.0, 7.25, 7.5, 8.001], abs=0.001
    )
    # a third of a second is no whole number of milliseconds
    thirds = clips.write(tmp_path / "thirds.mkv", [n / 30 for n in range(61)])
    assert store_video(thirds, SMALL, sampling=Sampling(3, 16)).times == pytest.approx(
        [n / 3 for n in range(7)], abs=0.001
    )


@given(
    st.lists(st.floats(0.002, 30), min_size=1, max_size=200),
    st.sampled_from([0.1, 0.5, 1.0, 2.0, 7.0]),
    st.integers(1, 12),
)
def test_what_is_kept_is_even_and_bounded_whatever_the_times(gaps, fps, most):
    kept, time, held = videos._Kept(Sampling(fps, most), None), Fraction(0), 0
    times = []
    for gap in gaps:
        times.append(time)
        if kept.wants(time):
            kept.add(time, None)
        held = max(held, len(kept.frames))
        time += Fraction(gap)
    chosen = kept.stored(0.0).times
    assert held <= 2 * most and 1 <= len(chosen) <= most
    assert chosen[0] == 0 and chosen == sorted(set(chosen)) and set(chosen) <= set(map(float, times))
    ticks = {int((t + videos.ROUNDING) / kept.step) for t, _ in kept.frames}
    assert len(ticks) == len(kept.frames), "two frames of one tick"
    every = {int((t + videos.ROUNDING) / kept.step) for t in times}
    assert ticks == every, "a tick with a frame that has none kept"


def test_times_start_with_the_file(tmp_path):
    path = clips.write(tmp_path / "late.ts", STEADY, codec="libx264", offset=5.0)
    assert store_video(path, SMALL, sampling=Sampling(1, 8)).times == pytest.approx([0, 1, 2, 3], abs=0.002)


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_a_frame_is_turned_as_the_file_says(tmp_path, rotation):
    upright = Image.new("RGB", (56, 84), "white")
    upright.paste("red", (0, 0, 56, 28))
    lying = upright.rotate(-rotation, expand=True)
    path = clips.write(tmp_path / "a.mp4", [0, 0.04], lambda *_: lying, rotation=rotation)
    image = opened(store_video(path, SMALL))[0]
    assert image.size == (56, 84)
    assert image.getpixel((28, 10))[1] < 90 < image.getpixel((28, 70))[1]


def test_pixels_that_are_not_square_are_made_so(tmp_path):
    path = clips.write(tmp_path / "a.mkv", [0, 0.04], lambda *_: Image.new("RGB", (56, 56)), aspect=Fraction(2))
    assert store_video(path, SMALL).frames[0].size == (112, 56)


def test_bytes_a_mapping_and_a_name_without_suffix_are_clips_too(tmp_path):
    path = clips.write(tmp_path / "v_1.0_2.5.mkv", STEADY[:30])
    expected = store_video(path, SMALL).times
    for value in (path.read_bytes(), {"bytes": path.read_bytes(), "path": None}, {"path": str(path)}, "v_1.0_2.5"):
        assert store_video(value, SMALL, root=tmp_path).times == expected


@pytest.mark.parametrize("unknown", [False, True], ids=["length known", "length unknown"])
def test_memory_does_not_grow_with_the_clip(tmp_path, unknown, monkeypatch):
    path = clips.write(tmp_path / "long.mkv", [n / 10 for n in range(1000)], lambda *_: Image.new("RGB", (28, 28)))
    if unknown:
        monkeypatch.setattr(videos, "_claimed", lambda clip: None)
    tracemalloc.start()
    stored = store_video(path, SMALL, sampling=Sampling(10, 8))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(stored.frames) == 8 and peak < 2e6 and stored.duration == pytest.approx(100, abs=0.5)
    gaps = [after - before for before, after in itertools.pairwise(stored.times)]
    assert max(gaps) <= 2 * min(gaps) if unknown else gaps == pytest.approx([12.5] * 7, abs=0.1)


def cut(path: Path, share: float) -> Path:
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    return path


def billion(path: Path) -> Path:
    """The header of an MP4 that claims a billion frames of a hundred bytes."""
    data = bytearray(path.read_bytes())
    for tag, offset, numbers in ((b"stsz", 8, (100, 10**9)), (b"stsc", 16, (10**9,)), (b"stts", 12, (10**9,))):
        struct.pack_into(f">{len(numbers)}I", data, data.index(tag) + offset, *numbers)
    path.write_bytes(data)
    return path


def huge(path: Path) -> Path:
    """Frames whose own headers say that they are of 4.3 gigapixels."""
    data, at = bytearray(path.read_bytes()), 0
    while (at := data.find(b"\xff\xc0", at)) >= 0:
        data[at + 5 : at + 9] = b"\xff\xff" * 2
        at += 4
    path.write_bytes(data)
    return path


def text(path: Path, content: str) -> Path:
    path.write_text(content)
    return path


BROKEN = {
    "missing": (lambda d: d / "no.mp4", "missing file"),
    "empty": (lambda d: text(d / "a.mp4", ""), "cannot be opened"),
    "text": (lambda d: text(d / "a.txt", "A cat sits.\n" * 500), "cannot be opened"),
    "playlist": (lambda d: text(d / "a.m3u8", "#EXTM3U\n#EXTINF:9,\nfile:///etc/passwd\n"), "cannot be opened"),
    "concat": (lambda d: text(d / "a.ffconcat", "ffconcat version 1.0\nfile /etc/passwd\n"), "cannot be opened"),
    "picture": (lambda d: (Image.new("RGB", (56, 56)).save(d / "a.png"), d / "a.png")[1], "cannot be opened"),
    "sound": (lambda d: clips.write_sound(d / "a.mp4"), "no pictures"),
    "no index": (lambda d: cut(clips.write(d / "a.mp4", STEADY), 0.7), "cannot be opened"),
    "cut": (
        lambda d: cut(clips.write(d / "a.mp4", STEADY, options={"movflags": "faststart"}), 0.7),
        "broken video",
    ),
    "cut matroska": (lambda d: cut(clips.write(d / "a.mkv", STEADY), 0.6), "broken video"),
    "cut with sound": (
        lambda d: cut(clips.write(d / "a.mp4", STEADY, sound=True, options={"movflags": "faststart"}), 0.6),
        "broken video",
    ),
    "a billion frames": (lambda d: billion(clips.write(d / "a.mp4", STEADY)), "broken video"),
    "huge frames": (lambda d: huge(clips.write(d / "a.avi", STEADY[:9], codec="mjpeg")), "broken video"),
    "a url": (lambda d: "https://example.com/a.mp4", "a URL"),
    "a number": (lambda d: 7, "no video"),
    "nothing": (lambda d: None, "no video"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_no_whole_video_is_named(tmp_path, case, capfd):
    build, problem = BROKEN[case]
    value = build(tmp_path)
    with pytest.raises(RowError) as error:
        store_video(value, SMALL)
    assert (error.value.column, error.value.problem) == ("video", problem)
    assert not isinstance(value, Path) or str(value) in error.value.found
    assert not capfd.readouterr().err


@pytest.mark.parametrize(
    ("bound", "value"), [("MAX_SOURCE_PIXELS", 1000), ("MOST_FRAMES", 10), ("MOST_PIXELS", 56 * 56 * 20)]
)
def test_what_is_decoded_of_a_clip_is_bounded(tmp_path, monkeypatch, bound, value):
    path = clips.write(tmp_path / "a.mkv", STEADY, codec="libx264")
    monkeypatch.setattr(videos, bound, value)
    with pytest.raises(RowError, match=r"video too large; found .*a\.mkv"):
        store_video(path, SMALL)


def test_a_file_of_any_bytes_is_a_video_or_named(tmp_path):
    rng = random.Random(0)
    for suffix, codec in (("mp4", "mpeg4"), ("mkv", "libx264"), ("avi", "mpeg4"), ("ts", "libx264"), ("gif", "gif")):
        data = clips.write(tmp_path / f"a.{suffix}", STEADY[:12], codec=codec).read_bytes()
        for _ in range(60):
            changed = bytearray(data)
            for _ in range(rng.choice([1, 3, 20])):
                changed[rng.randrange(len(data))] = rng.randrange(256)
            try:
                assert len(store_video(bytes(changed), SMALL).times) <= 16
            except RowError as error:
                assert error.column in ("video", "images")


def test_rows_of_videos_become_rows_of_frames(tmp_path):
    (tmp_path / "clips").mkdir()
    for number in range(3):
        clips.write(tmp_path / "clips" / f"{number}.mp4", [n / 5 for n in range(20)], clips.square(number, 3))
    cut(clips.write(tmp_path / "clips" / "cut.mp4", STEADY, options={"movflags": "faststart"}), 0.5)
    raw = [{"id": f"v{n}", "question": "When is it red?", "path": f"clips/{n}.mp4", "when": [n, 3]} for n in (0, 1, 2)]
    raw += [raw[0] | {"id": "cut", "path": "clips/cut.mp4"}, raw[0] | {"id": "none", "path": "clips/none.mp4"}]
    raw += [raw[0] | {"id": "late", "when": [30, 31]}, raw[0] | {"id": "odd", "when": ["a", 3]}]
    source = tmp_path / "raw.jsonl"
    source.write_text("\n".join(map(json.dumps, raw)))
    summary = prepare(
        "red",
        tmp_path / "out",
        source=str(source),
        columns="prompt=question,video=path,solution=when",
        task="span",
        conversion=Conversion(grid=SMALL, prompt="plain", sampling=Sampling(1, 16)),
        console=QUIET,
    )
    assert summary.kept == 3
    lost = {
        one["id"]: (one["column"], one["problem"])
        for one in map(json.loads, (tmp_path / "out" / "rejected.jsonl").read_text().splitlines())
    }
    assert lost == {
        "cut": ("video", "broken video"),
        "none": ("video", "missing file"),
        "late": ("solution", "span outside the video"),
        "odd": ("solution", "not a span"),
    }
    rows = load_dataset(str(tmp_path / "out"), split="train", cache_dir=str(tmp_path / "cache"))
    row = rows[1]
    content = row["prompt"][0]["content"]
    assert [block["text"] for block in content if block["type"] == "text"] == [
        *(f"<{n}.0 seconds>" for n in range(4)),
        "When is it red?",
    ]
    assert [block["type"] for block in content] == ["text", "image"] * 4 + ["text"]
    assert [image.getpixel((28, 28))[0] > 127 for image in row["images"]] == [False, True, True, False]
    assert row["duration"] == pytest.approx(4.0, abs=0.2)
    assert json.loads(row["solution"]) == [{"start": 1.0, "end": 3.0}]
    answers = ["<answer>1 to 3</answer>", "<answer>2 to 3</answer>"]
    columns = {name: [row[name]] * 2 for name in ("solution", "task", "duration")}
    assert span_reward(answers, **columns) == [1.0, 0.5]


def test_a_clip_that_rows_share_is_decoded_once_and_a_changed_one_anew(tmp_path, monkeypatch):
    decoded, frames = [], videos._frames

    def counted(clip):
        decoded.append(Path(clip.name).name)
        return frames(clip)

    monkeypatch.setattr(videos, "_frames", counted)
    for name in ("a.mp4", "b.mp4"):
        clips.write(tmp_path / name, [n / 5 for n in range(20)])
    rows = [{"question": "When?", "path": name, "when": [n, 3]} for name in ("a.mp4", "b.mp4") for n in (0, 1, 2)]
    (tmp_path / "raw.jsonl").write_text("\n".join(map(json.dumps, rows)))
    options = {"columns": "prompt=question,video=path,solution=when", "task": "span", "console": QUIET}
    prepare("red", tmp_path / "out", source=str(tmp_path / "raw.jsonl"), workers=4, **options)
    assert sorted(decoded) == ["a.mp4", "b.mp4"]
    first = store_video(tmp_path / "a.mp4", SMALL)
    clips.write(tmp_path / "a.mp4", [n / 5 for n in range(10)])
    assert store_video(tmp_path / "a.mp4", SMALL).duration < first.duration


def shown(raw, columns="prompt=q,solution=a,image=i,video=v", **options):
    row = convert_row(raw, columns_adapter(columns), Conversion(prompt="plain", grid=SMALL, **options))
    return row, [block.get("text") or "image" for block in row["prompt"][0]["content"]]


def test_images_and_videos_stand_where_their_marks_do(tmp_path):
    video = clips.write(tmp_path / "a.mp4", [0, 0.5], lambda *_: Image.new("RGB", (56, 56), "red"))
    raw = {"q": "<image>Is it in <video>?", "a": "yes", "i": Image.new("RGB", (84, 56)), "v": str(video)}
    frames = ["<0.0 seconds>", "image", "<0.5 seconds>", "image"]
    row, content = shown(raw)
    assert content == ["image", "Is it in", *frames, "?"] or content == ["image", "Is it in ", *frames, "?"]
    assert len(row["images"]) == 3 and row["duration"] == pytest.approx(0.54, abs=0.05)
    assert shown(raw | {"q": "Is it?"})[1] == ["image", *frames, "Is it?"]
    assert shown(raw | {"q": "Is <video> it?", "i": None, "v": [str(video)] * 2})[1][:4] == frames
    turns = [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": "Red?"}]}]
    assert shown(raw | {"q": turns, "i": None})[1] == [*frames, "Red?"]
    row, content = shown(raw | {"v": None, "q": "<image>Is it?"})
    assert content == ["image", "Is it?"] and row.get("duration") is None
    with pytest.raises(RowError, match="more image marks than images"):
        shown(raw | {"q": "<video><video>Which?"})
    with pytest.raises(RowError, match=r"a video that no column holds.*video=NAME"):
        shown(raw | {"q": "<video>Which?"}, columns="prompt=q,solution=a,image=i")


def test_a_gold_of_shares_becomes_seconds(tmp_path):
    video = clips.write(tmp_path / "a.mp4", [n / 5 for n in range(20)])
    raw = {"q": "When?", "a": [0.25, 0.5], "v": str(video), "d": 4.0}
    columns = "prompt=q,solution=a,video=v,duration=d"
    row = convert_row(raw, columns_adapter(columns, task="span"), Conversion(grid=SMALL, span_frame="norm1"))
    assert json.loads(row["solution"]) == [{"start": 1.0, "end": 2.0}] and row["duration"] == 4.0


@pytest.mark.parametrize(
    ("gold", "spans"),
    [
        ("[1, 2.5]", [[1, 2.5]]),
        ("[[1, 2], [3, 9]]", [[1, 2], [3, 9]]),
        ('{"start_time": 1, "end_time": 2}', [[1, 2]]),
        ('[{"start": 1, "end": 2}, [3, 4]]', [[1, 2], [3, 4]]),
        ('["0:01 to 0:02", {"span": ["3s", "4.5 seconds"]}]', [[1, 2], [3, 4.5]]),
        ("[]", []),
    ],
)
def test_spans_of_any_form_are_one_form(gold, spans):
    assert [list(span.values()) for span in json.loads(in_seconds(gold, 8.0))] == spans


@pytest.mark.parametrize(
    "gold", ["[1]", "[1, 2, 3]", '"at 2"', '{"start": 1}', "[2, 1]", "[1, 1]", "[-1, 2]", "[8, 9]", "[NaN, 2]", "3"]
)
def test_what_is_no_span_of_the_clip_is_named(gold):
    with pytest.raises(RowError, match=r"column 'solution': (not a span|empty span|span outside the video)"):
        in_seconds(gold, 8.0)


def test_without_pyav_the_command_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    source = tmp_path / "raw.jsonl"
    source.write_text(json.dumps({"q": "When?", "v": text(tmp_path / "a.mp4", "").name, "a": "1"}))
    with pytest.raises(ImportError, match=r"pip install 'trl-onevision\[video\]'"):
        prepare("x", tmp_path / "out", source=str(source), columns="prompt=q,video=v,solution=a", console=QUIET)


@pytest.mark.parametrize("options", [{"fps": 0}, {"fps": float("nan")}, {"max_frames": 0}])
def test_a_sampling_of_nothing_is_refused(options):
    with pytest.raises(ValueError, match="expected both above 0"):
        Sampling(**options)
