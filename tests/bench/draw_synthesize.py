"""The figure of docs/synthesize.md: a dozen made rows.

python tests/bench/draw_synthesize.py docs/synthesize-sheet.png
"""

import argparse
from pathlib import Path

from trl_onevision.data.synthesize import make
from trl_onevision.data.synthesize.scene import picture
from trl_onevision.data.synthesize.sheet import draw_sheet

SHOWN = (
    ("jigsaw", 2), ("jigsaw", 4), ("rotation", 2), ("rotation", 3), ("masked-region", 2), ("masked-region", 3),
    ("count", 3), ("locate", 2), ("difference", 2), ("chart", 2), ("render", 2), ("render", 4),
)  # fmt: skip

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    draw_sheet([make(name, picture, level, seed=0, index=0) for name, level in SHOWN], parser.parse_args().output)
