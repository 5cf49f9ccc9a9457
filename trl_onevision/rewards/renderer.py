"""Rendering in a process that can be killed: hostile drawings abort a renderer, hang it, or ask it for all memory."""

from __future__ import annotations

import atexit
import contextlib
import os
import select
import struct
import threading
import time
from importlib.util import find_spec
from pathlib import Path

from trl_onevision.rewards.child import Child
from trl_onevision.rewards.render_source import Drawing

MEMORY_BYTES = 1536 * 2**20  # resident: V8 reserves far more of addresses than it uses
LOOK = 0.05  # seconds between two looks at the memory
START = 10  # seconds for the first drawing of a child, which waits for its imports and V8's start as well


class _Renderer:
    """One child for all drawings of this process, started when first needed and after each that had to be killed."""

    def __init__(self) -> None:
        self.child: Child | None = None
        self.lock = threading.Lock()

    def draw(self, request: dict[str, object], seconds: float) -> bytes | None:
        with self.lock:
            deadline = time.monotonic() + seconds + (START if self.child is None else 0)
            child = self.child = self.child or _started()
            png = None
            try:
                child.send(**request)
                head = _read(child, 4, deadline)
                png = None if head is None else _read(child, struct.unpack("<I", head)[0], deadline)
            finally:  # late, dead or interrupted: its answer must not be taken for that to the next request
                if png is None:
                    self.close()
            return png or None  # empty where the source cannot be drawn

    def close(self) -> None:
        if self.child is not None:
            self.child.kill()
            self.child = None

    def forget(self) -> None:
        if self.child is not None:
            self.child.forget()
        self.__init__()  # type: ignore[misc]


def _started() -> Child:
    if missing := [name for name in ("resvg_py", "vl_convert") if find_spec(name) is None]:
        raise ModuleNotFoundError(f"Rendering needs {' and '.join(missing)}: pip install 'trl-onevision[render]'.")
    return Child("render_worker.py")


def _read(child: Child, count: int, deadline: float) -> bytes | None:
    """What a child says next; `None` where it died, is late or has grown too large."""
    data = b""
    while len(data) < count:
        left = deadline - time.monotonic()
        if left <= 0 or _resident(child.process.pid) > MEMORY_BYTES:
            return None
        if select.select([child.stdout], [], [], min(left, LOOK))[0]:
            chunk = child.stdout.read(count - len(data))
            if not chunk:
                return None
            data += chunk
    return data


def _resident(pid: int) -> int:
    with contextlib.suppress(OSError, ValueError):  # not Linux, or gone: the next read says so
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0


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
    return _renderer.draw(request, seconds)
