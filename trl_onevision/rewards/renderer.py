"""Rendering in a process that can be killed: hostile drawings abort a renderer, hang it, or ask it for all memory."""

from base64 import b64decode
from io import BytesIO

from PIL import Image

from trl_onevision.rewards.child import Pool
from trl_onevision.rewards.render_source import Drawing

MEMORY_BYTES = 1536 * 2**20  # resident: V8 reserves far more of addresses than it uses
START = 10  # seconds for the first drawing of a child, which waits for V8's start as well

_pool = Pool("render_worker.py", needs="'trl-onevision[render]'", memory=MEMORY_BYTES)


def render(drawing: Drawing, side: int = 224, seconds: float = 2.0) -> Image.Image | None:
    """A drawing on white, its longer side `side` pixels; `None` where it cannot be drawn in time.

    >>> from trl_onevision.rewards.render_source import read_drawing
    >>> render(read_drawing('<svg viewBox="0 0 4 2"><rect width="4" height="2"/></svg>'), side=8).size
    (8, 4)
    """
    request = {"language": drawing.language, "source": drawing.source, "side": side}
    (png,) = _pool.ask([request], seconds if _pool.children else seconds + START)
    if not png:
        return None
    image = Image.open(BytesIO(b64decode(png))).convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
