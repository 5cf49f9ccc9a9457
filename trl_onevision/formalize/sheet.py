"""A page of samples to look at: image, formal text, boxes, reasoning, verdicts. No script, no network."""

from __future__ import annotations

from html import escape
from io import BytesIO

from PIL import Image

from trl_onevision.chat import data_url
from trl_onevision.data.images import encode_image
from trl_onevision.formalize.stages import Rejected, Row

SAMPLES = 12  # of the accepted rows, and of the rejected ones
WIDEST = 480  # pixels of an image on the page
LONGEST = 6_000  # characters of a text on the page

_PAGE = """\
<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1"><title>formalize: samples</title>
<style>
:root {{ color-scheme: light dark }}
body {{ font: 15px/1.45 system-ui, sans-serif; margin: 1.5rem auto; max-width: 70rem; padding: 0 1rem }}
article {{ border-top: 1px solid #8886; padding: 1rem 0; display: grid; gap: 0 1.5rem;
  grid-template-columns: minmax(0, 30rem) minmax(0, 1fr) }}
h2 {{ font-size: 1rem; grid-column: 1 / -1; margin: 0 0 .5rem }}
svg {{ max-width: 100%; height: auto }}
pre {{ white-space: pre-wrap; overflow-wrap: anywhere; margin: .2rem 0 .8rem; font: 13px/1.4 ui-monospace, monospace }}
h3 {{ font-size: .8rem; margin: 0; opacity: .7 }}
.kept {{ color: #2a7d2a }} .not {{ color: #c0392b }}
@media (max-width: 45rem) {{ article {{ grid-template-columns: minmax(0, 1fr) }} }}
</style></head><body><h1>Samples</h1>
{articles}
</body></html>
"""


class Sheet:
    """The first rows of both fates."""

    def __init__(self) -> None:
        self.articles: list[str] = []
        self.left = {True: SAMPLES, False: SAMPLES}

    def add(self, row: Row | None, rejected: Rejected | None) -> None:
        """Take a row, if there is room."""
        if row is not None and self.left[rejected is None] > 0:
            self.left[rejected is None] -= 1
            self.articles.append(_article(row, rejected))

    def html(self) -> str:
        """The page."""
        return _PAGE.format(articles="\n".join(self.articles))


def _article(row: Row, rejected: Rejected | None) -> str:
    fate = (
        '<span class="kept">accepted</span>'
        if rejected is None
        else f'<span class="not">rejected at {escape(rejected.stage)}: {escape(rejected.reason[:400])}</span>'
    )
    drafts = row.reasoning or "\n---\n".join(row.drafts)
    texts = {
        "question": row.question,
        "gold": row.solution or "",
        f"formal text ({row.kind or 'no kind'})": row.formal,
        "text read": "\n".join(line["text"] for line in row.ocr),
        "reasoning": drafts,
        "rewritten": row.rewritten,
        "verdicts": "\n".join(row.verdicts),
    }
    shown = "".join(
        f"<h3>{escape(name)}</h3><pre>{escape(text[:LONGEST])}</pre>" for name, text in texts.items() if text
    )
    return f"<article><h2>{escape(row.id)} · {fate}</h2><div>{_picture(row)}</div><div>{shown}</div></article>"


def _picture(row: Row) -> str:
    width, height = row.size
    with Image.open(BytesIO(row.image)) as image:
        small = image.convert("RGB")
        small.thumbnail((WIDEST, WIDEST))
        url = data_url(encode_image(small, jpeg=True))
    boxes = "".join(_box(box["bbox_2d"], box["label"], "#e8590c", width) for box in row.boxes)
    boxes += "".join(_box(line["bbox_2d"], "", "#1c7ed6", width) for line in row.ocr)
    shown = min(WIDEST, max(width, 280))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{shown}">'
        f'<image href="{url}" width="{width}" height="{height}"/>{boxes}</svg>'
    )


def _box(box: list[float], label: str, colour: str, width: int) -> str:
    x1, y1, x2, y2 = box
    line = max(1, width / 300)
    text = f'<text x="{x1:g}" y="{y1:g}" dy="-2" font-size="{line * 8:g}" fill="{colour}">{escape(label)}</text>'
    return (
        f'<rect x="{x1:g}" y="{y1:g}" width="{x2 - x1:g}" height="{y2 - y1:g}" fill="none" stroke="{colour}" '
        f'stroke-width="{line:g}"/>{text if label else ""}'
    )
