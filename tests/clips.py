"""Clips whose events are known, written by PyAV: a counter of frames, and a square that is red for a while."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image, ImageDraw

CELL = 8
BITS = 7  # of the counter


def counter(index: int, time: float) -> Image.Image:
    """The number of a frame in black and white cells, which no codec blurs into each other."""
    cells = np.array([[index >> bit & 1 for bit in range(BITS)]] * BITS, np.uint8)
    return Image.fromarray(np.kron(255 * cells, np.ones((CELL, CELL), np.uint8))).convert("RGB")


def read_counter(image: Image.Image) -> int:
    """The number that `counter` drew, at any size."""
    grey = np.asarray(image.convert("L").resize((BITS, BITS), Image.Resampling.BOX))
    return sum(int(grey[BITS // 2, bit] > 127) << bit for bit in range(BITS))


def square(start: float, end: float, size: int = 56) -> Callable[[int, float], Image.Image]:
    """A painter of a square that is blue, and red from `start` to `end`."""

    def paint(index: int, time: float) -> Image.Image:
        image = Image.new("RGB", (size, size), "white")
        colour = "red" if start <= time < end else "blue"
        ImageDraw.Draw(image).rectangle([size // 4, size // 4, 3 * size // 4, 3 * size // 4], fill=colour)
        return image

    return paint


def write(
    path: Path,
    times: Iterable[float],
    paint: Callable[[int, float], Image.Image] = counter,
    codec: str = "mpeg4",
    rotation: int | None = None,
    aspect: Fraction | None = None,
    offset: float = 0.0,
    sound: bool = False,
    options: dict[str, str] | None = None,
) -> Path:
    """A clip with a frame at each of the times, in the container that the suffix of `path` names."""
    times = list(times)
    painted = [paint(index, time) for index, time in enumerate(times)]
    tick = Fraction(1, 1000)
    with av.open(path, "w", options=options or {}) as container:
        stream = container.add_stream(codec, rate=25, options={"crf": "20"} if codec == "libx264" else {})
        stream.width, stream.height = painted[0].size
        stream.pix_fmt = {"gif": "rgb8", "mjpeg": "yuvj420p"}.get(codec, "yuv420p")
        stream.time_base = stream.codec_context.time_base = tick
        if aspect is not None:
            stream.codec_context.sample_aspect_ratio = aspect
        audio = container.add_stream("aac", rate=8000) if sound else None
        for image, time in zip(painted, times, strict=True):
            frame = av.VideoFrame.from_image(image).reformat(format=stream.pix_fmt)
            frame.pts, frame.time_base = round((time + offset) / tick), tick
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        if audio is not None:
            _silence(container, audio, times[-1])
    if rotation is not None:
        _turn(path, rotation)
    return path


def _turn(path: Path, degrees: int) -> None:
    """Say in the header of an MP4 that its pictures are to be turned, against the clock."""
    data, angle = bytearray(path.read_bytes()), math.radians(-degrees)
    cos, sin = (round(turn(angle)) << 16 for turn in (math.cos, math.sin))
    struct.pack_into(">9i", data, data.index(b"tkhd") + 44, cos, sin, 0, -sin, cos, 0, 0, 0, 1 << 30)
    path.write_bytes(data)


def write_sound(path: Path) -> Path:
    """A file with sound alone."""
    with av.open(path, "w") as container:
        _silence(container, container.add_stream("aac", rate=8000), 1.0)
    return path


def _silence(container: av.container.OutputContainer, stream: av.AudioStream, seconds: float) -> None:
    for number in range(int(seconds * 8000 / 1024) + 1):
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.pts = 8000, number * 1024
        container.mux(stream.encode(frame))
    container.mux(stream.encode())
