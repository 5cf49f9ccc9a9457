"""The versions that this package is run with besides `constraints.txt`: the lowest it allows, and the newest.

python tests/versions.py lowest              # the lower bounds of pyproject.toml, as a constraints file
python tests/versions.py newest [FOLDER]     # the default suite on the newest of the day: what breaks, and on what
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import tomllib
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]
SHOWN = ("torch", "transformers", "trl", "accelerate", "peft", "datasets", "liger-kernel", "math-verify")


def lower_bounds() -> list[str]:
    """Each dependency at the least version that pyproject.toml allows."""
    dependencies = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    bounds = [re.fullmatch(r"([\w-]+)>=([\w.]+)(,<[\w.]+)?", dependency) for dependency in dependencies]
    if without := [dependency for dependency, bound in zip(dependencies, bounds, strict=True) if bound is None]:
        sys.exit(f"pyproject.toml: no lower bound, as in 'name>=1.0', in {', '.join(without)}")
    return [f"{bound[1]}=={bound[2]}" for bound in bounds if bound]


def newest(folder: Path) -> int:
    """Install the newest of everything into `folder`, run the default suite, print the versions and what breaks."""
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    # The runtime bound on TRL is what this asks about, so TRL is upgraded past it.
    for arguments in (["-e", f"{ROOT}[dev]"], ["--upgrade", "--no-deps", "trl"]):
        subprocess.run([python, "-m", "pip", "install", "-q", *arguments], check=True)
    suite = subprocess.run([python, "-m", "pytest", "-q", "--tb=line"], cwd=ROOT)
    names = ", ".join(repr(name) for name in SHOWN)
    show = f"from importlib.metadata import version; print(*(f'{{n}} {{version(n)}}' for n in ({names},)), sep=', ')"
    subprocess.run([python, "-c", show], check=True)
    return suite.returncode


if __name__ == "__main__":
    if sys.argv[1:] == ["lowest"]:
        print(*lower_bounds(), sep="\n")
    elif sys.argv[1:2] == ["newest"] and len(sys.argv) <= 3:
        with tempfile.TemporaryDirectory() as temporary:
            sys.exit(newest(Path(sys.argv[2] if len(sys.argv) == 3 else temporary)))
    else:
        sys.exit(__doc__)
