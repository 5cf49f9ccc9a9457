"""Whether two mathematical answers are equal that `answers.compare` cannot decide: math-verify in workers.

Algebra on text that a model wrote may take forever, so it runs in other processes: see `verify_worker.py`. The kernel
stops those after `seconds` of processor time a pair, and this process after `budget` seconds of wall clock a call,
from its turn on: calls of several threads go one by one.
Works from any thread, inside asyncio and in forked processes (each starts workers of its own). POSIX only.
"""

import atexit
import os
import re
import selectors
import threading
import time
from collections import deque
from collections.abc import Sequence

from trl_onevision.answers.markup import plain
from trl_onevision.rewards.child import Child

MAX_WORKERS = 4
PAIRS_AT_ONCE = 8
LONGEST_ANSWER = 1000  # characters; a longer one is compared as text only
MOST_REMEMBERED = 20_000

Pair = tuple[str, str]


def equal(pairs: Sequence[Pair], *, seconds: float = 1.0, budget: float = 30.0) -> list[bool | None]:
    r"""Tell for each (gold, answer) whether they are the same mathematical object; `None` where time ran out.

    >>> equal([("(x+1)^2", "x^2+2x+1"), ("[0, 1)", "[0, 1]")])
    [True, False]

    A verdict is remembered: the other rewards of a batch send the same pairs. The simple ones go first, so that a few
    expensive answers cannot use up the budget of the others. A long answer is no short gold.
    """
    verdicts: dict[Pair, bool | None] = {}
    for gold, answer in pairs:
        if not (gold.strip() and answer.strip()) or len(answer) > max(LONGEST_ANSWER, 2 * len(gold)):
            verdicts[gold, answer] = False
        elif (gold, answer, seconds) in _remembered:
            verdicts[gold, answer] = _remembered[gold, answer, seconds]
    undecided = sorted((pair for pair in dict.fromkeys(pairs) if pair not in verdicts), key=_expense)
    if undecided:
        deadline = time.monotonic() + budget
        found = _pool.check([(_latex(gold), _latex(answer)) for gold, answer in undecided], seconds, budget)
        verdicts |= zip(undecided, found, strict=True)
        if len(_remembered) > MOST_REMEMBERED:
            _remembered.clear()
        asked = time.monotonic() < deadline  # else a pair without a verdict may not have been tried
        _remembered.update(
            {(*pair, seconds): verdicts[pair] for pair in undecided if asked or verdicts[pair] is not None}
        )
    return [verdicts[pair] for pair in pairs]


_remembered: dict[tuple[str, str, float], bool | None] = {}


def _expense(pair: Pair) -> int:
    """Guess what a pair costs: long text, towers of powers and factorials come last."""
    return len(pair[1]) + 20 * (pair[1].count("^") + pair[1].count("!"))


_NAMES = "π=pi ∞=infty ≤=le ≥=ge ≠=ne ∪=cup ∩=cap ×=times ·=cdot ÷=div ±=pm θ=theta ∈=in ∅=emptyset"
_TO_LATEX = str.maketrans({entry[0]: rf"\{entry[2:]} " for entry in _NAMES.split()} | {"°": r"^\circ ", "$": ""})
_ROOT = re.compile(r"√\s{0,2}(?:\{([^{}]{0,100})\}|\(([^()]{0,100})\)|(\d{1,20}|[a-zA-Z]))")
# Without its backslash "tan" is the product of three variables, and "nat" the same.
_PLAIN_NAME = re.compile(
    r"(?<![\\a-zA-Z])(pi|arcsin|arccos|arctan|sinh|cosh|tanh|sin|cos|tan|sec|csc|cot|ln|log|exp)(?![a-zA-Z])"
)


def _latex(text: str) -> str:
    """Write what people type (√2, pi, 90°, sin x) as the LaTeX that math-verify reads; `$` is the caller's."""
    text = _ROOT.sub(lambda root: rf"\sqrt{{{root[1] or root[2] or root[3]}}}", plain(text))
    return _PLAIN_NAME.sub(lambda name: rf"\{name[1]} ", text.translate(_TO_LATEX)).strip().rstrip(".")


def _most_workers() -> int:
    """Workers of this process: the machine's share, since every rank of it has a pool of its own."""
    ranks = int(os.environ.get("LOCAL_WORLD_SIZE") or 1)
    return max(1, min(MAX_WORKERS, (os.cpu_count() or 1) // max(ranks, 1)))


class _Worker(Child):
    """One `verify_worker.py`, the pairs that it is busy with, and whether it has said that it is ready."""

    def __init__(self) -> None:
        # sympy's order of terms, hence its verdicts, repeat
        super().__init__("verify_worker.py", str(os.getpid()), PYTHONHASHSEED="0")
        self.ready = False
        self.busy: deque[int] = deque()


class _Pool:
    """The workers of one process: started when first needed, kept, and replaced when killed."""

    def __init__(self) -> None:
        self.workers: list[_Worker] = []
        self.selector = selectors.DefaultSelector()
        self.lock = threading.Lock()

    def check(self, pairs: list[Pair], seconds: float, budget: float) -> list[bool | None]:
        verdicts: list[bool | None] = [None] * len(pairs)
        with self.lock:
            deadline = time.monotonic() + budget  # from here: another thread's hostile call costs time, not verdicts
            try:
                self._drop(*(worker for worker in self.workers if worker.process.poll() is not None))
                self._run(pairs, verdicts, seconds, deadline)
            finally:  # late, failed or interrupted: a worker that still computes is of no use to the next call
                self._drop(*(worker for worker in self.workers if worker.busy))
        return verdicts

    def _run(self, pairs: list[Pair], verdicts: list[bool | None], seconds: float, deadline: float) -> None:
        waiting = deque(range(len(pairs)))
        lost: set[int] = set()  # pairs whose worker vanished: they are tried once more
        while (waiting or any(worker.busy for worker in self.workers)) and time.monotonic() < deadline:
            while len(self.workers) < min(_most_workers(), -(-len(waiting) // PAIRS_AT_ONCE)):
                self.workers.append(_Worker())
                self.selector.register(self.workers[-1].stdout, selectors.EVENT_READ, self.workers[-1])
            idle = [worker for worker in self.workers if worker.ready and not worker.busy]
            while idle and waiting:
                worker = idle.pop()
                worker.busy.extend(waiting.popleft() for _ in range(min(PAIRS_AT_ONCE, len(waiting))))
                worker.send(pairs=[pairs[index] for index in worker.busy], seconds=seconds)
            for key, _ in self.selector.select(max(0.0, deadline - time.monotonic())):
                if not self._read(key.data, verdicts):
                    waiting.extend(index for index in key.data.busy if index not in lost)
                    lost.update(key.data.busy)
                    # What killed it may have killed the idle ones too: the second try goes to a new worker.
                    self._drop(*{key.data, *(worker for worker in self.workers if worker.ready and not worker.busy)})
                    break  # the events left may be of those just dropped; the others come again

    def _read(self, worker: _Worker, verdicts: list[bool | None]) -> bool:
        """Take what a worker has to say; false where it is gone."""
        said = worker.stdout.read(1 << 16)
        if not said:
            if not worker.ready and worker.process.wait() > 0:  # below 0, something has killed it
                raise RuntimeError(
                    "math-verify's worker does not start: see its error above (pip install math-verify)"
                )
            return False
        for letter in said.decode():
            if letter == "R":
                worker.ready = True
            else:
                verdicts[worker.busy.popleft()] = None if letter == "T" else letter == "1"
        return True

    def _drop(self, *workers: _Worker) -> None:
        for worker in workers:
            self.selector.unregister(worker.stdout)
            worker.kill()
            self.workers.remove(worker)

    def close(self) -> None:
        self._drop(*self.workers)

    def forget(self) -> None:
        for worker in self.workers:
            worker.forget()
        self.__init__()  # type: ignore[misc]


_pool = _Pool()
atexit.register(_pool.close)
os.register_at_fork(after_in_child=_pool.forget)
