"""Images: decoding whatever a raw dataset holds, and resizing once to the pixel grid of the processor."""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from trl_onevision.data.schema import RowError, shown

# Raster formats only: Pillow opens EPS by running Ghostscript, and a dataset must not choose what runs here.
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF")
# The largest phone cameras take 50 megapixels. More is a decompression bomb or a scan to be tiled on purpose.
MAX_SOURCE_PIXELS = 50_000_000
MAX_ASPECT_RATIO = 200  # the Qwen processors raise above it
LONGEST_PATH = 4096
JPEG_QUALITY = 95


@dataclass(frozen=True)
class PixelGrid:
    """The sizes that a processor keeps as they are: multiples of `factor`, within a range of pixels.

    >>> PixelGrid().fit(width=640, height=480)
    (644, 476)
    >>> PixelGrid.of(32).fit(width=640, height=480)
    (640, 480)
    >>> PixelGrid(max_pixels=100_000).fit(width=4000, height=3000)
    (364, 252)

    `factor` is patch size x merge size: 28 for Qwen2-VL and Qwen2.5-VL, 32 for Qwen3-VL. `factor=1` bounds the
    pixels alone, for processors that do their own tiling. Source: `smart_resize` of transformers' Qwen2-VL.
    """

    factor: int = 28
    min_pixels: int = 4 * 28 * 28
    max_pixels: int = 1280 * 28 * 28

    def __post_init__(self) -> None:
        if self.factor < 1 or not self.factor**2 <= self.max_pixels >= self.min_pixels > 0:
            raise ValueError(
                f"found factor={self.factor}, min_pixels={self.min_pixels}, max_pixels={self.max_pixels}; expected "
                f"0 < min_pixels <= max_pixels and room for one cell of {self.factor}x{self.factor}"
            )

    @classmethod
    def of(cls, factor: int, min_pixels: int | None = None, max_pixels: int | None = None) -> PixelGrid:
        """A grid with the bounds that its processor ships with, and at most 1280 visual tokens, unless given."""
        cells = 64 if factor == 32 else 4  # Qwen3-VL's shortest_edge is 65,536 pixels, Qwen2.5-VL's 3,136
        lowest, highest = (1, 1280 * 28 * 28) if factor == 1 else (cells * factor**2, 1280 * factor**2)
        return cls(factor, lowest if min_pixels is None else min_pixels, highest if max_pixels is None else max_pixels)

    def fit(self, width: int, height: int) -> tuple[int, int]:
        """The width and height on the grid that keep the aspect ratio best, and that the processor leaves alone.

        `smart_resize` alone is not enough: for elongated images its result can lie outside the range again, so that
        the processor would resize a second time. It is therefore applied until nothing changes.
        """
        size, seen = (width, height), set[tuple[int, int]]()
        while size not in seen:
            seen.add(size)
            if max(size) > MAX_ASPECT_RATIO * min(size):
                expected = f"an aspect ratio of at most {MAX_ASPECT_RATIO} (crop it)"
                raise _refused("image too elongated", f"{width}x{height}", expected)
            resized = self._smart_resize(*size)
            if resized == size:
                return size
            size = resized
        expected = f"a multiple of {self.factor} within {self.min_pixels} to {self.max_pixels} pixels (widen them)"
        raise _refused("no size on the grid", f"{width}x{height}", expected)

    def _smart_resize(self, width: int, height: int) -> tuple[int, int]:
        factor = self.factor
        new_width, new_height = round(width / factor) * factor, round(height / factor) * factor
        if new_width * new_height > self.max_pixels:
            shrink = math.sqrt(width * height / self.max_pixels)
            new_width = max(factor, math.floor(width / shrink / factor) * factor)
            new_height = max(factor, math.floor(height / shrink / factor) * factor)
        elif new_width * new_height < self.min_pixels:
            grow = math.sqrt(self.min_pixels / (width * height))
            new_width = math.ceil(width * grow / factor) * factor
            new_height = math.ceil(height * grow / factor) * factor
        return new_width, new_height


def _refused(problem: str, found: str, expected: str) -> RowError:
    return RowError("images", problem, found=found, expected=expected)


@dataclass(frozen=True)
class StoredImage:
    """An image file on the grid, its size and the size that it had, by which boxes scale; as it came, where kept."""

    data: bytes
    size: tuple[int, int]
    original_size: tuple[int, int]
    original: bytes | None = None


def decode_image(value: Any, root: str | Path | None = None) -> Image.Image:
    """Decode an image to RGB, upright.

    >>> decode_image("data:image/gif;base64,R0lGODlhAQABAIAAAP8AAP///yH5BAAAAAAALAAAAAABAAEAAAICRAEAOw==").size
    (1, 1)
    >>> decode_image("cat.png", root="photos")
    Traceback (most recent call last):
    trl_onevision.data.schema.RowError: column 'images': missing file; found no file photos/cat.png, expected ...

    `value`: a PIL image, the bytes of a file, `{"bytes": …, "path": …}`, a path (relative ones to `root`), or base64
    with or without data-URL prefix. EXIF orientation is applied; transparency lies on white; 16-bit greys keep their
    upper 8 bits; CMYK and palettes are converted. Rejected, as `RowError`: animations, float pixels, more than
    `MAX_SOURCE_PIXELS`, truncated or unknown files.
    """
    return _decode(value, root).image


def store_image(
    value: Any, grid: PixelGrid | None = None, root: str | Path | None = None, keep: bool = False
) -> StoredImage:
    """Decode an image, resize it once to the grid, and encode it.

    >>> stored = store_image(Image.new("RGB", (640, 480)), PixelGrid(max_pixels=100_000))
    >>> stored.size, stored.original_size
    ((364, 252), (640, 480))

    A JPEG stays JPEG (quality 95, full colour resolution), everything else becomes PNG. A file that is already on
    the grid, upright and RGB is kept byte for byte. Resampling is bicubic, as in the processors. With `keep` the image
    is kept in its own size too.
    """
    image, jpeg, file = _decode(value, root)
    size = (grid or PixelGrid()).fit(*image.size)
    as_it_came = (file or encode_image(image, jpeg=jpeg)) if keep or size == image.size else None
    if as_it_came is not None and size == image.size:
        return StoredImage(as_it_came, size, size, as_it_came if keep else None)
    resized = image.resize(size, Image.Resampling.BICUBIC)
    return StoredImage(encode_image(resized, jpeg=jpeg), size, image.size, as_it_came)


class _Decoded(NamedTuple):
    image: Image.Image  # RGB and upright
    jpeg: bool
    file: bytes | None  # the bytes of the file, where they can be stored as they are


def _decode(value: Any, root: str | Path | None) -> _Decoded:
    data = None if isinstance(value, Image.Image) else _file_bytes(value, root)
    try:
        source = _checked(value) if data is None else _open(data)
        image = _to_rgb(_upright(source))
    except RowError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_large(str(error)) from error
    except Exception as error:  # on rubbish Pillow's plugins raise anything from struct.error to RecursionError
        found = "a PIL image" if data is None else f"{len(data)} bytes starting with {data[:8]!r}"
        problem = "truncated image" if "truncated" in str(error).lower() else "cannot be decoded"
        found = f"{found} ({type(error).__name__}: {shown(str(error))})"
        raise _refused(problem, found, f"a whole image file, one of {', '.join(FORMATS)}") from error
    as_it_is = image is source and source.format in ("PNG", "JPEG")
    return _Decoded(image, source.format in ("JPEG", "MPO"), data if as_it_is else None)


def _file_bytes(value: Any, root: str | Path | None) -> bytes:
    if isinstance(value, Mapping):
        value = value["bytes"] if value.get("bytes") is not None else value.get("path")
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    if isinstance(value, Path):
        return _read_path(value, root)
    if isinstance(value, str) and value:
        return _bytes_of_text(value, root)
    problem = "no image" if value is None or value == "" else "wrong type"
    expected = "a path, base64, the bytes of an image file, {'bytes': …, 'path': …} or a PIL image"
    raise _refused(problem, shown(value), expected)


def _bytes_of_text(text: str, root: str | Path | None) -> bytes:
    """A text is a data URL, a path or base64. Base64 of a JPEG starts with `/9j/`, so a file is looked for first."""
    if text.startswith("data:"):
        return _from_base64(text.partition(",")[2])
    if text.lower().startswith(("http://", "https://")):
        raise _refused("a URL", shown(text), "a file, since URLs are not fetched (download the images first)")
    may_be_path = len(text) <= LONGEST_PATH and "\n" not in text and "\0" not in text
    # Base64 has no full stop, and a file name has one.
    if may_be_path and ("." in text or _is_file(Path(root or ".", text))):
        return _read_path(Path(text), root)
    # `images/0001` is base64 too, but of no image. A file name has at most 255 characters.
    if may_be_path and "/" in text and len(text) < 256 and not _holds_image(text):
        return _read_path(Path(text), root)
    return _from_base64(text)


def _holds_image(text: str) -> bool:
    try:
        Image.open(BytesIO(_from_base64(text)), formats=_known_formats())
    except (RowError, UnidentifiedImageError):
        return False
    except Exception:  # an image, if a broken one: said when it is decoded
        return True
    return True


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # base64 is longer than a file name may be
        return False


def _read_path(path: Path, root: str | Path | None) -> bytes:
    path = Path(root or ".", path)
    try:
        return path.read_bytes()
    except OSError as error:
        found = f"no file {path}" if isinstance(error, FileNotFoundError) else shown(str(error))
        expected = f"a readable image file (paths start from {root or 'the current folder'})"
        raise _refused("missing file", found, expected) from error


def _from_base64(text: str) -> bytes:
    compact = "".join(text.split()).rstrip("=").replace("-", "+").replace("_", "/")
    try:
        return base64.b64decode(compact + "=" * (-len(compact) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise _refused("not base64", shown(text, 24), f"an image file in base64 ({error})") from error


@cache
def _known_formats() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)  # AVIF depends on the build


@cache
def image_suffixes() -> frozenset[str]:
    """The file suffixes, in small letters, of the formats that are read.

    >>> sorted(image_suffixes() & {".png", ".jfif", ".tif", ".eps", ".txt"})
    ['.jfif', '.png', '.tif']
    """
    return frozenset(suffix for suffix, name in Image.registered_extensions().items() if name in _known_formats())


def _open(data: bytes) -> Image.Image:
    image = _checked(Image.open(BytesIO(data), formats=_known_formats()))
    image.load()
    return image


def _upright(image: Image.Image) -> Image.Image:
    # exif_transpose() copies also where there is nothing to turn.
    return image if image.getexif().get(ExifTags.Base.Orientation, 1) == 1 else ImageOps.exif_transpose(image)


def _checked(image: Image.Image) -> Image.Image:
    """Refuse by size and frames: what the header tells, before any pixel is decoded."""
    width, height = image.size
    if width < 1 or height < 1:
        raise _refused("image without pixels", f"{width}x{height}", "at least 1x1")
    if width * height > MAX_SOURCE_PIXELS:
        raise _too_large(f"{width}x{height}")
    # An MPO is a photograph with previews behind it; several frames anywhere else are an animation or pages.
    if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":
        found = f"{getattr(image, 'n_frames', 1)} frames ({image.format})"
        raise _refused("animation", found, "one still image (choose the frame that the question is about)")
    return image


def _too_large(found: str) -> RowError:
    return _refused("image too large", found, f"at most {MAX_SOURCE_PIXELS} pixels (make it smaller)")


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode == "F":
        raise _refused("float pixels", "32-bit float pixels of unknown range", "8 or 16 bits a channel")
    if image.mode.startswith("I"):  # 16 bits, also where Pillow reads them as 32; convert() would clip, not scale
        return Image.fromarray((np.asarray(image).clip(0, 65535) >> 8).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("RGB")


def encode_image(image: Image.Image, *, jpeg: bool = False) -> bytes:
    """The bytes of an image file: PNG, or JPEG for what was JPEG before."""
    buffer = BytesIO()
    if jpeg:
        image.save(buffer, format="JPEG", quality=JPEG_QUALITY, subsampling=0)
    else:
        # Level 3 of 9 takes less than half the time of the default 6, for a tenth more bytes on a photograph.
        image.save(buffer, format="PNG", compress_level=3)
    return buffer.getvalue()
