"""How large an image of a row is."""

from collections.abc import Mapping
from io import BytesIO
from typing import Any

from PIL import Image


def image_size(image: Any) -> tuple[int, int] | None:
    """Width and height of an image as columns hold it, from its header alone; `None` for what is no image.

    >>> image_size(Image.new("RGB", (640, 480))), image_size({"bytes": b"GIF89a", "path": None})
    ((640, 480), None)

    Takes a PIL image, the bytes of a file, or a mapping of `bytes` or a `path`.
    """
    if isinstance(image, Image.Image):
        return image.size
    file = image if isinstance(image, Mapping) else {"bytes": image}
    try:
        with Image.open(BytesIO(file["bytes"]) if file.get("bytes") else file["path"]) as opened:
            return opened.size
    except Exception:  # on rubbish Pillow raises anything, and on a bomb an error of its own
        return None
