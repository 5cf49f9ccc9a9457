"""A process that can be killed: a script of this folder for work that text may turn into endless or fatal work."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path


class Child:
    """A script of this folder, in a session of its own, that answers lines of JSON. It leaves when its input ends."""

    def __init__(self, script: str, *arguments: str, **environment: str) -> None:
        # -P keeps this folder, whose modules have everyday names, off the script's path.
        command = [sys.executable, "-P", str(Path(__file__).with_name(script)), *arguments]
        inherited = {name: value for name, value in os.environ.items() if name != "TRL_ONEVISION"}
        self.process = subprocess.Popen(
            command,
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=inherited | environment,
            start_new_session=True,  # Ctrl-C reaches the parent alone, and one kill takes the children too
        )
        assert self.process.stdin and self.process.stdout
        self.stdin, self.stdout = self.process.stdin, self.process.stdout

    def send(self, **request: object) -> None:
        with contextlib.suppress(BrokenPipeError):  # it is gone, which the next reading shows
            self.stdin.write(json.dumps(request).encode() + b"\n")

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self._close()
        self.process.wait()

    def forget(self) -> None:
        """In a forked process: the child is the parent's. Holding its pipes open would keep it from leaving."""
        self._close()
        self.process.returncode = 0

    def _close(self) -> None:
        self.stdin.close()
        self.stdout.close()
