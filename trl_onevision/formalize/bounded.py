"""Running a tool on a text that nobody trusts: few seconds, little memory, no home, no network, small files."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

LONGEST_OUTPUT = 1_000_000  # bytes of each file that a tool may write, its two outputs among them
WALL = 10  # times the seconds of processor time: on a busy machine the clock runs ahead of the work

# Set by the process itself, before it becomes the tool. A network of its own has nobody in it; where the kernel does
# not give one away, what remains is that texts which ask for files or addresses are refused before any tool runs.
_LAUNCHER = """
import ctypes, os, resource, sys
seconds, memory, output = map(int, sys.argv[1:4])
for limit, value in ((resource.RLIMIT_CPU, seconds), (resource.RLIMIT_AS, memory), (resource.RLIMIT_FSIZE, output)):
    resource.setrlimit(limit, (value, value))
try:
    ctypes.CDLL(None).unshare(0x10000000 | 0x40000000)  # CLONE_NEWUSER | CLONE_NEWNET
except (OSError, AttributeError):
    pass
os.execvp(sys.argv[4], sys.argv[4:])
"""


class Ran(NamedTuple):
    """How a tool ended; `late` says that its time ran out."""

    status: int
    output: str
    errors: str
    late: bool


def run(
    command: Sequence[str],
    files: Mapping[str, str],
    *,
    seconds: int = 20,
    megabytes: int = 2048,
    environment: Mapping[str, str] | None = None,
) -> Ran:
    """Run a command in an empty folder that holds `files`, which is its home and is gone afterwards.

    >>> run(["cat", "a.txt"], {"a.txt": "hello"}).output, run(["sh", "-c", "while :; do :; done"], {}, seconds=1).late
    ('hello', True)
    """
    launch = [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(seconds), str(megabytes * 2**20), str(LONGEST_OUTPUT)]
    with tempfile.TemporaryDirectory(prefix="formalize-") as folder:
        for name, text in files.items():
            Path(folder, name).write_text(text, encoding="utf-8", errors="replace")
        known = {"PATH": os.environ.get("PATH", os.defpath), "HOME": folder, "TMPDIR": folder, "LANG": "C.UTF-8"}
        output, errors = Path(folder, ".stdout"), Path(folder, ".stderr")
        with output.open("wb") as out, errors.open("wb") as err:
            process = subprocess.Popen(
                [*launch, *command],
                cwd=folder,
                env=known | dict(environment or {}),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )
            try:
                status = process.wait(seconds * WALL)
            except subprocess.TimeoutExpired:
                status = -signal.SIGXCPU
            finally:
                _end(process)
        late = status in (-signal.SIGXCPU, -signal.SIGKILL)  # at the hard limit the kernel kills
        return Ran(status, _text(output), _text(errors), late)


def _end(process: subprocess.Popen) -> None:
    """The whole session: a tool's children go with it."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _text(path: Path) -> str:
    return path.read_bytes().decode("utf-8", errors="replace")
