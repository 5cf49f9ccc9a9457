"""Processes that can be killed, for work that text may turn into endless or fatal work: a line in, a line out."""

import atexit
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from pathlib import Path

LOOK = 0.05  # seconds between two looks at the memory


class Child:
    """A script of this folder: a line when it is ready, then a line for each of JSON, until its input ends."""

    def __init__(self, script: str) -> None:
        self.process = subprocess.Popen(
            # -P keeps this folder, whose modules have everyday names, off the script's path.
            [sys.executable, "-P", str(Path(__file__).with_name(script))],
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONHASHSEED": "0"},  # sympy's order of terms, hence its verdicts, repeat
            start_new_session=True,  # Ctrl-C reaches the parent alone, and one kill takes the children too
        )
        assert self.process.stdin and self.process.stdout
        self.stdin, self.stdout = self.process.stdin, self.process.stdout
        self.ready = False
        self.busy: deque[int] = deque()  # the requests that it has not answered
        self._said = bytearray()

    def send(self, requests: Sequence[object]) -> None:
        lines = memoryview("".join(json.dumps(request) + "\n" for request in requests).encode())
        with contextlib.suppress(BrokenPipeError):  # it is gone, which the next reading shows
            while lines:
                lines = lines[self.stdin.write(lines) :]

    def lines(self) -> list[bytes] | None:
        """What it has said since the last time; `None` where it is gone."""
        said = self.stdout.read(1 << 16)
        self._said += said
        if b"\n" in said:
            *lines, self._said[:] = self._said.split(b"\n")
            return [bytes(line) for line in lines]
        return [] if said else None

    def resident(self) -> int:
        """The bytes of memory that it takes, 0 where nobody can tell."""
        with contextlib.suppress(OSError, ValueError):  # not Linux, or gone: the next reading says so
            return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        return 0

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


@dataclass(eq=False)
class Pool:
    """Children of one script: started when first needed, kept, and replaced when killed. `needs` is what it imports.

    `most` children work on `at_once` requests at a time, each in at most `memory` bytes. Calls of several threads go
    one by one; a forked process starts children of its own.
    """

    script: str
    needs: str
    most: Callable[[], int] = lambda: 1
    at_once: int = 1
    memory: int | None = None
    children: list[Child] = field(default_factory=list, init=False)
    lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    def __post_init__(self) -> None:
        atexit.register(self.close)
        os.register_at_fork(after_in_child=self._forget)

    def ask(self, requests: Sequence[object], budget: float) -> list[bytes | None]:
        """An answer to each request; `None` where there was none in `budget` seconds, or two children died of it."""
        answers: list[bytes | None] = [None] * len(requests)
        with self.lock:
            deadline = time.monotonic() + budget  # from here: another thread's hostile call costs time, not answers
            try:
                self._drop(*(child for child in self.children if child.process.poll() is not None))
                self._run(requests, answers, deadline)
            finally:  # late, failed or interrupted: a child that still works is of no use to the next call
                self._drop(*(child for child in self.children if child.busy))
        return answers

    def _run(self, requests: Sequence[object], answers: list[bytes | None], deadline: float) -> None:
        waiting = deque(range(len(requests)))
        lost: set[int] = set()  # requests whose child vanished: they are tried once more
        while (waiting or any(child.busy for child in self.children)) and time.monotonic() < deadline:
            while len(self.children) < min(self.most(), -(-len(waiting) // self.at_once)):
                self.children.append(Child(self.script))
            for child in self.children:
                if waiting and child.ready and not child.busy:
                    child.busy.extend(waiting.popleft() for _ in range(min(self.at_once, len(waiting))))
                    child.send([requests[index] for index in child.busy])
            outputs = [child.stdout.fileno() for child in self.children]
            heard = wait(outputs, max(0.0, min(LOOK, deadline - time.monotonic())))
            for child in [child for child in self.children if child.stdout.fileno() in heard]:
                lines = child.lines()
                if lines is None:
                    self._check_started(child)
                    waiting.extend(index for index in child.busy if index not in lost)
                    lost.update(child.busy)
                    # What killed it may have killed the idle ones too: the second try goes to a new child.
                    self._drop(*{child, *(one for one in self.children if one.ready and not one.busy)})
                    break  # those that are left are heard in the next round
                for line in lines:
                    if child.ready:
                        answers[child.busy.popleft()] = line
                    child.ready = True
            if self.memory is not None:
                self._drop(*(child for child in self.children if child.resident() > self.memory))

    def _check_started(self, child: Child) -> None:
        if not child.ready and child.process.wait() > 0:  # below 0, something has killed it
            raise RuntimeError(f"{self.script} does not start: see its error above (pip install {self.needs})")

    def _drop(self, *children: Child) -> None:
        for child in children:
            child.kill()
            self.children.remove(child)

    def close(self) -> None:
        self._drop(*self.children)

    def _forget(self) -> None:
        for child in self.children:
            child.forget()
        self.children, self.lock = [], threading.Lock()
