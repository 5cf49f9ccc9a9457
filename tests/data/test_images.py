"""Every form and mode of image that raw datasets hold, and agreement with the processor's own resize."""

import base64
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageFile
from transformers.models.qwen2_vl.image_processing_qwen2_vl import Qwen2VLImageProcessor, smart_resize

from trl_onevision.data.images import PixelGrid, decode_image, store_image
from trl_onevision.data.schema import RowError


def encoded(image: Image.Image, format: str = "PNG", **options) -> bytes:
    buffer = BytesIO()
    image.save(buffer, format=format, **options)
    return buffer.getvalue()


def photo(width: int = 84, height: int = 56) -> Image.Image:
    """A picture with structure: red grows to the right, green downwards."""
    y, x = np.mgrid[:height, :width]
    pixels = np.stack([255 * x / width, 255 * y / height, np.full_like(x, 90)], axis=-1)
    return Image.fromarray(pixels.astype(np.uint8))


PNG = encoded(photo())
BASE64 = base64.b64encode(PNG).decode()


@pytest.mark.parametrize(
    "value",
    [
        PNG,
        bytearray(PNG),
        {"bytes": PNG, "path": None},
        {"bytes": PNG, "path": "elsewhere.png"},
        BASE64,
        "data:image/png;base64," + BASE64,
        "\n".join(BASE64[i : i + 76] for i in range(0, len(BASE64), 76)),
        BASE64.rstrip("="),
        base64.urlsafe_b64encode(PNG).decode(),
        photo(),
    ],
)
def test_each_form_decodes_to_the_same_pixels(value):
    assert np.array_equal(np.asarray(decode_image(value)), np.asarray(photo()))


@pytest.mark.parametrize("name", ["cat.png", "no_suffix"])
def test_paths_absolute_relative_and_in_a_dict(tmp_path, name):
    (tmp_path / name).write_bytes(PNG)
    for value, root in [
        (str(tmp_path / name), None),
        (tmp_path / name, None),
        (name, tmp_path),
        ({"path": name, "bytes": None}, tmp_path),
    ]:
        assert decode_image(value, root).size == (84, 56)


def test_jpeg_in_base64_is_not_taken_for_a_path():
    text = base64.b64encode(encoded(photo(), "JPEG")).decode()
    assert text.startswith("/9j/")
    assert decode_image(text).size == (84, 56)


def test_a_short_text_with_a_slash_may_be_an_image():
    small = [encoded(Image.new("RGB", (2, 2), (red, 0, 0))) for red in range(256)]
    texts = [text for data in small if "/" in (text := base64.b64encode(data).decode()) and len(text) < 256]
    assert texts
    for text in texts:
        assert decode_image(text).size == (2, 2)


def test_exif_orientation_is_applied_and_does_not_survive():
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: width and height change places
    stored = store_image(encoded(photo(), "JPEG", exif=exif))
    assert stored.original_size == stored.size == (56, 84)
    assert Image.open(BytesIO(stored.data)).getexif().get(0x0112, 1) == 1


def test_transparency_lies_on_white():
    half = Image.new("RGBA", (56, 56), (255, 0, 0, 128))
    clear = Image.new("LA", (56, 56), (0, 0))
    palette = Image.new("P", (56, 56), 0)
    assert decode_image(encoded(half)).getpixel((0, 0)) == (255, 127, 127)
    assert decode_image(encoded(clear)).getpixel((0, 0)) == (255, 255, 255)
    assert decode_image(encoded(palette, transparency=0)).getpixel((0, 0)) == (255, 255, 255)


def test_sixteen_bit_grey_is_scaled_and_not_clipped():
    ramp = np.linspace(0, 65535, 56 * 56).astype(np.uint16).reshape(56, 56)
    grey = np.asarray(decode_image(encoded(Image.fromarray(ramp))))[..., 0]
    assert np.array_equal(grey, (ramp >> 8).astype(np.uint8))


def test_cmyk_keeps_its_colours():
    cmyk = photo().convert("CMYK")
    pixels = np.asarray(decode_image(encoded(cmyk, "JPEG", quality=100))).astype(int)
    assert np.abs(pixels - np.asarray(photo()).astype(int)).max() < 12


def test_a_still_gif_is_an_image_and_an_animation_is_none():
    frames = [Image.new("RGB", (56, 56), colour) for colour in ("red", "green", "blue")]
    assert decode_image(encoded(frames[0], "GIF")).mode == "RGB"
    with pytest.raises(RowError, match=r"animation; found 3 frames \(GIF\), expected one still image"):
        decode_image(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]))


def bomb(width: int, height: int) -> bytes:
    """A PNG whose header claims a size that its pixels do not have."""
    header = bytearray(encoded(Image.new("L", (1, 1))))
    header[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    import zlib

    header[29:33] = zlib.crc32(header[12:29]).to_bytes(4, "big")
    return bytes(header)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (PNG[:120], "truncated image; found 120 bytes starting with"),
        (encoded(photo(), "JPEG")[:-200], "truncated image"),
        (b"GIF89a rubbish", "cannot be decoded"),
        (b"", "cannot be decoded"),
        ("!!! not base64 !!!", "not base64; found '!!! not base64 !!!'"),
        (base64.b64encode(b"no image at all").decode(), "cannot be decoded"),
        ("data:image/png;base64,####", "not base64"),
        ("missing.png", "missing file; found no file missing.png, expected a readable image file"),
        ({"path": "missing.png", "bytes": None}, "missing file"),
        ("x" * 300 + ".png", "missing file; found .*File name too long"),
        ("A" * 1000, "cannot be decoded"),
        (".", "missing file"),
        ("images/0001", "missing file; found no file images/0001, expected a readable image file"),
        ("images/00012", "missing file; found no file images/00012"),
        ("https://x.org/a.png", "a URL; found 'https://x.org/a.png', expected a file, since URLs are not fetched"),
        ({"path": "HTTP://x.org/a", "bytes": None}, "a URL"),
        (None, "no image; found None, expected a path, base64"),
        ("", "no image"),
        ({"bytes": None, "path": None}, "no image"),
        (42, "wrong type; found 42"),
        (bomb(30_000, 30_000), "image too large"),
        (bomb(9_000, 9_000), "image too large; found 9000x9000"),
        (bomb(0, 10), "cannot be decoded|without pixels"),
        (encoded(Image.new("F", (9, 9)), "TIFF"), "float pixels"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "cannot be decoded"),
    ],
)
def test_what_is_refused_is_named(value, message):
    with pytest.raises(RowError, match=message):
        decode_image(value)


def test_truncation_is_refused_whatever_another_library_has_set():
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False


def test_a_thirty_thousand_pixel_wide_image_is_fitted_or_named():
    assert store_image(encoded(Image.new("RGB", (30_000, 400)))).size == (8652, 112)
    with pytest.raises(RowError, match="too elongated; found 30000x100"):
        store_image(encoded(Image.new("RGB", (30_000, 100))))


def test_a_zero_size_pil_image_is_named():
    with pytest.raises(RowError, match="without pixels; found 0x5"):
        store_image(Image.new("RGB", (0, 5)))


SIZES = st.integers(1, 6000)
GRIDS = [
    PixelGrid(),
    PixelGrid.of(32),
    PixelGrid(28, 3136, 100_352),
    PixelGrid.of(28, max_pixels=12_845_056),
    PixelGrid.of(1, max_pixels=50_000),
]


@pytest.mark.parametrize("grid", GRIDS, ids=str)
@given(width=SIZES, height=SIZES)
def test_the_processor_leaves_a_fitted_image_alone(grid, width, height):
    if max(width, height) > 200 * min(width, height):
        return
    try:
        new_width, new_height = grid.fit(width, height)
    except RowError as error:  # a thin image whose fitted size the processor itself refuses
        assert error.problem == "image too elongated"
        assert max(width, height) > 100 * min(width, height)
        return
    bounds = {"factor": grid.factor, "min_pixels": grid.min_pixels, "max_pixels": grid.max_pixels}
    assert smart_resize(new_height, new_width, **bounds) == (new_height, new_width)
    first = smart_resize(height, width, **bounds)
    if max(first) <= 200 * min(first) and smart_resize(*first, **bounds) == first:
        assert (new_height, new_width) == first


@pytest.mark.parametrize(("factor", "patch"), [(28, 14), (32, 16)])
def test_the_real_processor_makes_of_a_stored_image_its_own_grid(factor, patch):
    grid = PixelGrid.of(factor)
    stored = store_image(photo(801, 333), grid)
    processor = Qwen2VLImageProcessor(patch_size=patch, min_pixels=grid.min_pixels, max_pixels=grid.max_pixels)
    thw = processor(images=[Image.open(BytesIO(stored.data))], return_tensors="pt")["image_grid_thw"][0].tolist()
    assert thw == [1, stored.size[1] // patch, stored.size[0] // patch]


def test_a_file_on_the_grid_is_kept_byte_for_byte_and_others_keep_their_kind():
    jpeg = encoded(photo(), "JPEG")
    assert store_image(jpeg).data == jpeg
    assert store_image(PNG).data == PNG
    assert Image.open(BytesIO(store_image(encoded(photo(300, 200), "JPEG")).data)).format == "JPEG"
    assert Image.open(BytesIO(store_image(encoded(photo(300, 200), "WEBP")).data)).format == "PNG"


@pytest.mark.parametrize(
    "bounds", [{"min_pixels": 9000, "max_pixels": 8000}, {"factor": 0}, {"min_pixels": 1, "max_pixels": 100}]
)
def test_an_impossible_grid_is_refused(bounds):
    with pytest.raises(ValueError, match="expected 0 < min_pixels <= max_pixels"):
        PixelGrid(**bounds)


def test_relative_paths_start_from_the_given_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    Path("photos/a.png").write_bytes(PNG)
    assert decode_image("a.png", "photos").size == (84, 56)
