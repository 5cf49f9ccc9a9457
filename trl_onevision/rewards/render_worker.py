"""The process that draws: started by `renderer.py` as a script, it imports a renderer and nothing of this package.

A line of JSON comes in (`{"language": …, "source": …, "side": …}`), and a line goes out: a PNG in base 64, or nothing
where the source cannot be drawn. Rust and V8 draw, so a hostile source may abort or hang this process: its parent
sees that, and kills it where it must.
"""

import base64
import contextlib
import json
import os
import re
import resource
import sys

import vl_convert

LARGEST = 2_048
# The font that vl-convert brings along: text is left out where a machine has no sans-serif.
FONT = {"font": "Liberation Sans"}
_SIZE = re.compile(r'<svg[^>]*?\bwidth="([\d.e+-]+)"[^>]*?\bheight="([\d.e+-]+)"')


def main() -> None:
    """Serve until the input ends."""
    os.write(1, b"ready\n")
    output = os.fdopen(os.dup(1), "wb")
    for printed in (1, 2):  # what a renderer prints is no answer
        os.dup2(os.open(os.devnull, os.O_WRONLY), printed)
    for limit, value in ((resource.RLIMIT_FSIZE, 0), (resource.RLIMIT_CORE, 0)):
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(limit, (value, value))
    for line in sys.stdin:
        try:
            png = draw(**json.loads(line))
        except BaseException as error:  # a panic of Rust's is no Exception
            if isinstance(error, KeyboardInterrupt | SystemExit):
                raise
            png = b""
        output.write(base64.b64encode(png) + b"\n")
        output.flush()


def draw(language: str, source: str, side: int) -> bytes:
    """The source as PNG, its longer side `side` pixels."""
    if language == "vega-lite":
        source = vl_convert.vegalite_to_svg(source, config=FONT, allowed_base_urls=["data:never"])
    found = _SIZE.search(source)  # a chart's size comes out of its data
    longer = max(float(found[1]), float(found[2])) if found else 0
    if not 0 < longer <= LARGEST or "<image" in source:
        return b""
    return vl_convert.svg_to_png(source, scale=side / longer)


if __name__ == "__main__":
    main()
