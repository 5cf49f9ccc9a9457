"""Scripts on several CPU processes: `launch` runs one and reads what it says; `say` and `leave` are for the script."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NoReturn

import torch.distributed

TESTS = Path(__file__).parent


def launch(script: str, *arguments: str, ranks: int = 2, ends: int = 0, **environment: str) -> list[Any]:
    """Run a script of this folder: what its main process says."""
    several = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(ranks)]
    inherited = {key: value for key, value in os.environ.items() if key != "TRL_ONEVISION"}
    own = {"OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu", "PYTHONPATH": f"{TESTS.parents[1]}{os.pathsep}{TESTS}"}
    done = subprocess.run(
        [sys.executable, *(several if ranks > 1 else []), str(TESTS / script), *arguments],
        env=inherited | own | environment,
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == ends, done.stdout[-2000:] + done.stderr[-4000:]
    return [json.loads(line[3:]) for line in done.stdout.splitlines() if line.startswith("LOG")]


def say(what: Any) -> None:
    if int(os.environ.get("RANK", "0")) == 0:
        sys.stdout.write(f"LOG{json.dumps(what)}\n")


def leave() -> NoReturn:
    """End once every process has come so far, without the interpreter's own end.

    That end sometimes aborts on Python below 3.14 (4 of some 75 runs with torch 2.11): a thread of gloo that lets go
    of its last tensor asks for a lock which is no longer given.
    """
    if torch.distributed.is_initialized():
        torch.distributed.barrier()
    sys.stdout.flush()
    os._exit(0)
