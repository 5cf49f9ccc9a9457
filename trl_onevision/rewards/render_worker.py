"""The process that draws: started by `renderer.py` as a script, it imports two renderers and nothing of this package.

One line of JSON comes in (`{"language": …, "source": …, "side": …, "wide": …}`), and the length of a PNG and the PNG
go out; a length of 0 where the source cannot be drawn. Rust and V8 draw, so a hostile source may abort or hang this
process: its parent sees that, and kills it where it must.
"""

import contextlib
import json
import os
import re
import resource
import struct
import sys
from typing import Any

LARGEST = 2_048
FONT = {"font": "Liberation Sans"}
_SIZE = re.compile(r'<svg[^>]*?\bwidth="([\d.]+)"[^>]*?\bheight="([\d.]+)"')


def main() -> None:
    """Serve until the input ends."""
    output = os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what the renderers print is no answer
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
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
        output.write(struct.pack("<I", len(png)) + png)
        output.flush()


def draw(language: str, source: str, side: int, wide: bool) -> Any:
    """The source as PNG, on white, its longer side `side` pixels: the width where it is `wide`."""
    if language == "vega-lite":
        import vl_convert

        # With the font that it brings along: resvg leaves out text where a machine has no sans-serif
        source = vl_convert.vegalite_to_svg(source, config=FONT, allowed_base_urls=["data:never"])
        found = _SIZE.search(source)  # a chart's size comes out of its data
        longer = max(float(found[1]), float(found[2])) if found else 0
        if not 0 < longer <= LARGEST or "<image" in source:
            return b""
        paper = '><rect width="100%" height="100%" fill="white"/>'
        return vl_convert.svg_to_png(source.replace(">", paper, 1), scale=side / longer)
    import resvg_py

    return resvg_py.svg_to_bytes(
        source, background="white", width=side if wide else None, height=None if wide else side
    )


if __name__ == "__main__":
    main()
