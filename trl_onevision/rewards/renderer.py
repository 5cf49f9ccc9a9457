"""Rendering in a process that can be killed: hostile drawings abort a renderer, hang it, or ask it for all memory."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import select
import struct
import subprocess
import sys
import threading
import time
from importlib.util import find_spec
from pathlib import Path

from trl_onevision.rewards.render_source import Drawing

MEMORY_BYTES = 1536 * 2**20  # resident: V8 reserves far more of addresses than it uses
LOOK = 0.05  # seconds between two looks at the memory


class _Process:
    def __init__(self) -> None:
        command = [sys.executable, "-P", str(Path(__file__).with_name("render_worker.py"))]
        environment = {name: value for name, value in os.environ.items() if name != "TRL_ONEVISION"}
        self.process = subprocess.Popen(
            command, bufsize=0, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, start_new_session=True
        )
        assert self.process.stdin and self.process.stdout
        self.stdin, self.stdout = self.process.stdin, self.process.stdout

    def ask(self, request: dict[str, object], deadline: float) -> bytes | None:
        """The PNG, empty where the source cannot be drawn; `None` where the process died or had to be killed."""
        with contextlib.suppress(BrokenPipeError):
            self.stdin.write(json.dumps(request).encode() + b"\n")
        head = self._read(4, deadline)
        body = None if head is None else self._read(struct.unpack("<I", head)[0], deadline)
        if body is None:
            self.kill()
        return body

    def _read(self, count: int, deadline: float) -> bytes | None:
        data = b""
        while len(data) < count:
            left = deadline - time.monotonic()
            if left <= 0 or self._resident() > MEMORY_BYTES:
                return None
            if select.select([self.stdout], [], [], min(left, LOOK))[0]:
                chunk = self.stdout.read(count - len(data))
                if not chunk:
                    return None
                data += chunk
        return data

    def _resident(self) -> int:
        with contextlib.suppress(OSError, ValueError):  # not Linux, or gone: the next read says so
            pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
            return pages * os.sysconf("SC_PAGE_SIZE")
        return 0

    def kill(self) -> None:
        self.process.kill()
        self.stdin.close()
        self.stdout.close()
        self.process.wait()


class _Renderer:
    """One process for all calls of this one, started when first needed and after each that had to be killed."""

    def __init__(self) -> None:
        self.process: _Process | None = None
        self.lock = threading.Lock()

    def render(self, request: dict[str, object], seconds: float) -> bytes | None:
        with self.lock:
            fresh = self.process is None
            if self.process is None:
                if missing := [name for name in ("resvg_py", "vl_convert") if find_spec(name) is None]:
                    raise ModuleNotFoundError(
                        f"Rendering needs {' and '.join(missing)}: pip install 'trl-onevision[render]'."
                    )
                self.process = _Process()
            # The first drawing of a process waits for its imports and V8's start as well.
            deadline = time.monotonic() + seconds + (10 if fresh else 0)
            png = self.process.ask(request, deadline)
            if png is None:
                self.process = None
            return png or None

    def close(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process = None

    def forget(self) -> None:
        """In a forked child: the process is the parent's."""
        self.__init__()  # type: ignore[misc]


_renderer = _Renderer()
atexit.register(_renderer.close)
os.register_at_fork(after_in_child=_renderer.forget)


def render(drawing: Drawing, side: int = 224, seconds: float = 2.0) -> bytes | None:
    """A drawing as PNG on white, its longer side `side` pixels; `None` where it cannot be drawn in time.

    >>> from trl_onevision.rewards.render_source import read_drawing
    >>> png = render(read_drawing('<svg viewBox="0 0 4 2"><rect width="4" height="2"/></svg>'), side=8)
    >>> png[1:4]
    b'PNG'
    """
    request = {"language": drawing.language, "source": drawing.source, "side": side, "wide": drawing.wide}
    return _renderer.render(request, seconds)
