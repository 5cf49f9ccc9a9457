"""Videos as frames: one streaming pass over a clip, and each frame with the time at which it is shown."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

from PIL import Image

from trl_onevision.data.images import MAX_SOURCE_PIXELS, PixelGrid, StoredImage, encode_image
from trl_onevision.data.schema import RowError, blocks, shown

# Containers that hold their own pictures: a playlist opens other files, and FFmpeg plays any text as a terminal would.
FORMATS = ("mov", "matroska", "avi", "mpegts", "mpeg", "flv", "asf", "ogg", "gif")
SUFFIXES = (".mp4", ".mkv", ".webm", ".avi", ".mov")  # looked for where a dataset names a clip without one
RECENT = 8  # clips that are remembered, as the frames that were kept of them
MOST_FRAMES = 2_000_000  # that are decoded of a clip: 18 hours at 30 a second
MOST_PIXELS = 10**12  # in all of them: half an hour of 4K at 60 a second
ROUNDING = Fraction(2, 1000)  # seconds; containers round times to a millisecond
TAIL = 1.0, 0.05  # what may be missing of the length that a file claims: seconds, or a share of it
_CLOCK = re.compile(r"(\d{2,3}):(\d{2}):(\d{2}(?:\.\d+)?)")
_QUARTER_TURNS = {90: Image.Transpose.ROTATE_90, 180: Image.Transpose.ROTATE_180, 270: Image.Transpose.ROTATE_270}


@dataclass(frozen=True)
class Video:
    """Stands for a clip among the images of a raw row: a path, the bytes of a file, or `{"bytes": …, "path": …}`."""

    value: Any


@dataclass(frozen=True)
class Sampling:
    """How many frames of a clip are kept: `fps` a second, and evenly fewer where these are more than `max_frames`.

    >>> Sampling(fps=0)
    Traceback (most recent call last):
    ValueError: found fps=0, max_frames=16; expected both above 0
    """

    fps: float = 2.0
    max_frames: int = 16

    def __post_init__(self) -> None:
        if not (0 < self.fps < math.inf and self.max_frames > 0):
            raise ValueError(f"found fps={self.fps}, max_frames={self.max_frames}; expected both above 0")


@dataclass(frozen=True)
class StoredVideo:
    """Frames as image files on the grid, the seconds from the start at which each is shown, and those of the clip."""

    frames: list[StoredImage]
    times: list[float]
    duration: float

    def content(self) -> list[dict[str, Any]]:
        """The blocks that show the clip in a prompt: before each frame its time, as Qwen3-VL's processor writes it.

        >>> frame = StoredImage(b"", (56, 56), (56, 56))
        >>> [block.get("text", "a frame") for block in StoredVideo([frame] * 2, [0.0, 0.5], 1.0).content()]
        ['<0.0 seconds>', 'a frame', '<0.5 seconds>', 'a frame']
        """
        times = [{"type": "text", "text": f"<{time:.1f} seconds>"} for time in self.times]
        return [block for time in times for block in (time, {"type": "image"})]


def with_frames(messages: list[dict[str, Any]], stored: list[StoredImage | StoredVideo]) -> list[dict[str, Any]]:
    """The messages of a prompt, in which the block of each clip has made way for its frames and their times."""
    waiting = iter(stored)

    def unfolded(block: dict[str, Any]) -> list[dict[str, Any]]:
        visual = next(waiting, None) if block["type"] == "image" else None
        return visual.content() if isinstance(visual, StoredVideo) else [block]

    return [
        {**message, "content": [part for block in blocks(message["content"]) for part in unfolded(block)]}
        for message in messages
    ]


def store_video(
    value: Any, grid: PixelGrid | None = None, root: str | Path | None = None, sampling: Sampling | None = None
) -> StoredVideo:
    """Decode a clip once, from the first frame to the last, and store frames of it as JPEG on the grid.

    >>> store_video("cat.mp4", root="clips")
    Traceback (most recent call last):
    trl_onevision.data.schema.RowError: column 'video': missing file; found no file clips/cat.mp4, expected ...

    A frame's time is its presentation time stamp, counted from the start of the file, whatever the frame rate and
    however it varies. Kept is the first frame at or after each tick, of `1 / fps` seconds or, where that is longer,
    one part in `max_frames` of the clip. No more than twice `max_frames` are held, encoded: memory grows neither with
    the length of a clip nor with what its header claims, and one without a length loses every second frame when
    there are more. Frames are turned as the file says, and pixels that are not square are made so.

    `value` is as in `Video`; relative paths start from `root`, and a name without one of `SUFFIXES` is looked for with
    each. The last few files are remembered, since rows that follow each other often ask about one. Raises `RowError`
    on what is no whole video in a known container, and `ImportError` without PyAV.
    """
    file = _file(value, root)
    if isinstance(file, bytes):
        return _decoded(file, grid or PixelGrid(), sampling or Sampling())
    status = file.stat()
    stamp = (status.st_size, status.st_mtime_ns)
    return _once(file, stamp, grid or PixelGrid(), sampling or Sampling())()


@lru_cache(maxsize=RECENT)
def _once(file: Path, stamp: tuple[int, int], grid: PixelGrid, sampling: Sampling) -> Callable[[], StoredVideo]:
    """What stores a clip: it is decoded for the thread that asks first, and the others wait."""
    lock, stored = Lock(), list[StoredVideo]()

    def clip() -> StoredVideo:
        with lock:
            if not stored:
                stored.append(_decoded(file, grid, sampling))
            return stored[0]

    return clip


def _decoded(file: bytes | Path, grid: PixelGrid, sampling: Sampling) -> StoredVideo:
    last = None
    with _opened(file) as clip:
        kept = _Kept(sampling, _claimed(clip))
        for last in _frames(clip):
            if kept.wants(last.time):
                kept.add(last.time, _stored(last.picture, clip, grid))
        if last is None:
            raise _broken(clip.name, "no frame")
        return kept.stored(_duration(clip, last))


class _Clip(NamedTuple):
    name: str
    container: Any
    stream: Any


class _Frame(NamedTuple):
    picture: Any
    time: Fraction  # at which it is shown, in seconds from the start
    since: Fraction  # the frame before


@contextmanager
def _opened(file: bytes | Path) -> Iterator[_Clip]:
    """The file of a clip and its first stream of pictures."""
    try:
        import av
    except ImportError as error:
        raise ImportError("Videos are decoded by PyAV. Install: pip install 'trl-onevision[video]'") from error
    name = str(file) if isinstance(file, Path) else f"{len(file)} bytes"
    bound = {"max_pixels": str(MAX_SOURCE_PIXELS)}  # for the decoders, one of which looks into the file at its opening
    options = {"format_whitelist": ",".join(FORMATS), "protocol_whitelist": "file", **bound}
    try:
        opened = f"file:{file}" if isinstance(file, Path) else BytesIO(file)
        container = av.open(opened, options=options, metadata_errors="replace")
    except Exception as error:  # of FFmpeg, which has a class for each of its codes
        expected = f"a whole video file, one of {', '.join(FORMATS)} (look at it with: ffprobe FILE)"
        raise _refused("cannot be opened", f"{name} ({type(error).__name__})", expected) from error
    with container:
        pictures = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
        if not pictures or pictures[0].codec_context is None:
            kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
            raise _refused("no pictures", f"{name} with {kinds} only", "a stream of video (leave it out)")
        codec = pictures[0].codec_context
        if codec.width * codec.height > MAX_SOURCE_PIXELS:
            raise _too_large(f"{name}: frames of {codec.width}x{codec.height}")
        if not codec.width:
            raise _broken(name, f"frames of no known size, or of more than {MAX_SOURCE_PIXELS:,} pixels")
        codec.options = bound
        yield _Clip(name, container, pictures[0])


def _file(value: Any, root: str | Path | None) -> bytes | Path:
    """The bytes of a clip, or its file, which is there."""
    if isinstance(value, Mapping):
        value = value["bytes"] if value.get("bytes") is not None else value.get("path")
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    if not isinstance(value, str | Path) or not str(value):
        raise _refused("no video", shown(value), "a path, or the bytes of a video file")
    if "://" in str(value):
        raise _refused("a URL", shown(value), "a file, since URLs are not fetched")
    path = Path(root or ".", value)
    try:
        candidates = [path, *(path.with_name(path.name + suffix) for suffix in SUFFIXES)]
        return next(candidate for candidate in candidates if candidate.is_file())
    except (StopIteration, OSError, ValueError) as error:  # there is none; of a name that no file may have
        expected = f"a readable video file (paths start from {root or 'the current folder'}, or --images)"
        raise _refused("missing file", f"no file {path}", expected) from error


def _frames(clip: _Clip) -> Iterator[_Frame]:
    """Every frame of a clip."""
    start: Fraction | None = None
    reached, pixels = Fraction(0), 0
    try:
        for count, picture in enumerate(clip.container.decode(clip.stream), start=1):
            pixels += picture.width * picture.height
            if count > MOST_FRAMES or pixels > MOST_PIXELS or picture.width * picture.height > MAX_SOURCE_PIXELS:
                raise _too_large(f"{clip.name}: {count:,} frames, the last of {picture.width}x{picture.height}")
            if picture.is_corrupt:
                raise _broken(clip.name, f"a broken frame after {float(reached):.1f} s")
            if picture.pts is None:
                found = f"{clip.name}, a {clip.container.format.name} file"
                expected = "presentation time stamps (write it anew: ffmpeg -i FILE NEW.mp4)"
                raise _refused("frames without times", found, expected)
            at = picture.pts * Fraction(picture.time_base)
            if start is None:
                start = min(at, Fraction(clip.container.start_time, 10**6) if clip.container.start_time else at)
            before, reached = reached, at - start
            yield _Frame(picture, reached, max(reached - before, Fraction(0)))
    except RowError:
        raise
    except Exception as error:  # of FFmpeg
        raise _broken(clip.name, f"{type(error).__name__} after {float(reached):.1f} s") from error


def _refused(problem: str, found: str, expected: str) -> RowError:
    return RowError("video", problem, found=found, expected=expected)


def _broken(name: str, found: str) -> RowError:
    expected = "a video that decodes to its end (write it anew: ffmpeg -i FILE NEW.mp4; or leave it out)"
    return _refused("broken video", f"{name}: {found}", expected)


def _too_large(found: str) -> RowError:
    expected = f"at most {MOST_FRAMES:,} frames, {MAX_SOURCE_PIXELS:,} pixels in each and {MOST_PIXELS:,} in all"
    return _refused("video too large", found, f"{expected} (cut it, or make it smaller)")


def _claimed(clip: _Clip) -> float | None:
    """The seconds of the pictures by the file's own account."""
    stream, container = clip.stream, clip.container
    if stream.duration is not None:
        return float(stream.duration * stream.time_base)
    if container.duration is not None and len(container.streams) == 1:  # of several, the longest counts
        return container.duration / 10**6
    named = _CLOCK.fullmatch(stream.metadata.get("DURATION", ""))  # as Matroska has it
    return int(named[1]) * 3600 + int(named[2]) * 60 + float(named[3]) if named else None


def _duration(clip: _Clip, last: _Frame) -> float:
    """The seconds of a clip: to the end of its last frame or, where no frame has a length, as the file claims.

    Raises where the clip ends well before that: golds would lie in what is missing.
    """
    claimed = _claimed(clip)
    lasts = (last.picture.duration or 0) * last.picture.time_base
    end = float(last.time + (lasts or last.since))
    if claimed is None:
        return end
    if end < claimed - max(TAIL[0], TAIL[1] * claimed):
        raise _broken(clip.name, f"frames up to {end:.1f} s of {claimed:.1f} s")
    return end if lasts or claimed <= last.time else claimed


def _stored(picture: Any, clip: _Clip, grid: PixelGrid) -> StoredImage:
    """A frame as it is shown, upright and with square pixels, on the grid."""
    turn = _QUARTER_TURNS.get(picture.rotation % 360)
    width, height = max(1, round(picture.width * (clip.stream.sample_aspect_ratio or 1))), picture.height
    if turn in (Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_270):
        width, height = height, width
    size = grid.fit(width, height)
    image: Image.Image = picture.to_image()
    image = image if turn is None else image.transpose(turn)
    image = image if image.size == size else image.resize(size, Image.Resampling.BICUBIC)
    return StoredImage(encode_image(image, jpeg=True), size, (width, height))


class _Kept:
    """The frames that are kept of a clip; where its length is unknown, ticks grow twice as long when they are many."""

    def __init__(self, sampling: Sampling, claimed: float | None) -> None:
        self.most = sampling.max_frames
        self.step = max(1 / Fraction(sampling.fps), Fraction(claimed or 0) / self.most)
        self.due = Fraction(0)
        self.frames: list[tuple[Fraction, StoredImage]] = []

    def wants(self, time: Fraction) -> bool:
        return time >= self.due - ROUNDING

    def add(self, time: Fraction, image: StoredImage) -> None:
        self._append(time, image)
        while len(self.frames) > 2 * self.most:
            self.step *= 2
            held, self.frames, self.due = self.frames, [], Fraction(0)
            for frame in held:
                if self.wants(frame[0]):
                    self._append(*frame)

    def _append(self, time: Fraction, image: StoredImage) -> None:
        self.frames.append((time, image))
        self.due = ((time + ROUNDING) // self.step + 1) * self.step

    def stored(self, duration: float) -> StoredVideo:
        """At most `most` of what was kept, evenly, with the first and the last."""
        last, gaps = len(self.frames) - 1, self.most - 1
        chosen = self.frames
        if last > gaps:
            chosen = [self.frames[round(index * last / gaps) if gaps else 0] for index in range(self.most)]
        return StoredVideo([image for _, image in chosen], [float(time) for time, _ in chosen], duration)
