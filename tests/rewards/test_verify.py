"""math-verify in workers: right, bounded, without orphans, and never a road from text to code."""

import asyncio
import concurrent.futures
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import psutil
import pytest

from trl_onevision.rewards import verify, verify_worker
from trl_onevision.rewards.verify import equal

ALGEBRA = ("(x+1)^2", "x^2+2x+1")
WRONG = ("(x+1)^2", "x^2+2x+2")
TOWER = ("42", "9^{9^{9^9}}")
HOSTILE = [
    "9^{9^{9^9}}",
    "9^{9^{9^{9^9}}}",
    "(9!)!",
    "((9!)!)!",
    "10^{10^{10}}!",
    r"\sum_{n=1}^{10^{9}} \frac{1}{n^{n}}",
    r"\prod_{n=1}^{10^{8}} n^{n}",
    r"\int_{0}^{1} x^{x^{x^{x}}} e^{\sin(x^{x})} dx",
    r"\operatorname{zeros}(99999999,99999999)",
    r"\binom{10^{12}}{10^{11}}",
    r"2^{2^{2^{2^{2^{2}}}}} + 1",
    "(" * 400 + "1" + ")" * 400,
    "{" * 900,
    r"\frac{1}{" * 200 + "2" + "}" * 200,
    r"\sqrt{" * 200 + "2" + "}" * 200,
    "-" * 900 + "1",
    "1" + "+1" * 400,
    "|" * 500,
]


def run(code, **options):
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], text=True, capture_output=True, timeout=60, **options
    )


def gone(pids, seconds=60):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        living = [pid for pid in pids if psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie"]
        if not living:
            return True
        time.sleep(0.05)
    return False


@pytest.fixture(autouse=True)
def nothing_remembered():
    verify._remembered.clear()


def test_a_verdict_is_remembered_across_calls():
    assert equal([ALGEBRA, WRONG]) == [True, False]
    sent = []
    check, verify._pool.check = verify._pool.check, lambda pairs, *rest: sent.append(pairs)
    try:
        assert equal([WRONG, ALGEBRA, WRONG]) == [False, True, False]
    finally:
        verify._pool.check = check
    assert sent == []


def test_workers_are_counted_per_machine(monkeypatch):
    monkeypatch.setattr(verify.os, "cpu_count", lambda: 8)
    counts = {}
    for ranks in ("", "1", "4", "64"):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", ranks)
        counts[ranks] = verify._most_workers()
    assert counts == {"": 4, "1": 4, "4": 2, "64": 1}


def test_a_time_out_is_none_and_the_rest_of_the_call_is_answered():
    assert equal([ALGEBRA, TOWER, WRONG, TOWER, ALGEBRA]) == [True, None, False, None, True]


def test_workers_persist_between_calls_and_are_replaced_when_killed():
    equal([ALGEBRA])
    before = {worker.process.pid for worker in verify._pool.children}
    equal([WRONG])
    assert {worker.process.pid for worker in verify._pool.children} == before
    equal([(f"x+{n}", f"{n}+x") for n in range(40)])  # a worker a core
    before = {worker.process.pid for worker in verify._pool.children}
    for pid in before:
        os.killpg(pid, signal.SIGKILL)
    verify._remembered.clear()
    assert equal([ALGEBRA]) == [True]  # whether or not the kernel was done with the killing
    assert not before & {worker.process.pid for worker in verify._pool.children}


def test_the_parents_clock_ends_a_call_and_the_next_call_is_well():
    start = time.monotonic()
    assert equal([TOWER, ALGEBRA], seconds=100, budget=4)[0] is None
    assert time.monotonic() - start < 4 * 3
    assert equal([ALGEBRA]) == [True]


def test_a_worker_is_small_and_imports_neither_torch_nor_this_package():
    code = (
        "import sys, verify_worker\n"
        "verify_worker.compare('x+1', '1+x')\n"
        "print({'torch', 'trl', 'transformers', 'datasets', 'trl_onevision'} & set(sys.modules))"
    )
    folder = str(Path(verify_worker.__file__).parent)
    shown = run(code, env={**os.environ, "PYTHONPATH": folder, "TRL_ONEVISION": "{share_prompt: true}"})
    assert shown.stdout.strip() == "set()", shown.stderr
    equal([ALGEBRA])
    assert all(psutil.Process(w.process.pid).memory_info().rss < 200 * 2**20 for w in verify._pool.children)


def test_from_threads():
    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        assert list(threads.map(lambda _: equal([ALGEBRA, WRONG]), range(8))) == [[True, False]] * 8


def test_a_hostile_call_of_another_thread_costs_an_honest_one_no_verdict():
    pool = verify._Checkers()
    try:
        with concurrent.futures.ThreadPoolExecutor(1) as other:
            hostile = other.submit(pool.check, [TOWER], 100, 7)
            time.sleep(0.5)
            assert pool.check([ALGEBRA], 2, 6) == [True]
            assert hostile.result() == [None]
    finally:
        pool.close()


def test_the_thread_that_started_the_workers_may_end():
    pool = verify._Checkers()
    try:
        for _ in range(2):
            results = []
            thread = threading.Thread(target=lambda found=results: found.extend(pool.check([ALGEBRA], 2, 30)))
            thread.start()
            thread.join()
            assert results == [True]
    finally:
        pool.close()


def test_inside_asyncio():
    async def score():
        loop = asyncio.get_running_loop()
        return equal([ALGEBRA]), await loop.run_in_executor(None, equal, [WRONG])

    assert asyncio.run(score()) == ([True], [False])


def test_in_a_forked_process():
    shown = run(
        """
        import os
        from trl_onevision.rewards.verify import _pool, equal
        assert equal([("x+1", "1+x")]) == [True]
        parents = {worker.process.pid for worker in _pool.children}
        child = os.fork()
        verdict = equal([("x+1", "1+x"), ("x+1", "2+x")])
        own = {worker.process.pid for worker in _pool.children}
        assert verdict == [True, False] and (own.isdisjoint(parents) if child == 0 else own >= parents)
        if child == 0:
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        """
    )
    assert shown.returncode == 0, shown.stderr


def test_in_two_ranks_of_multiprocessing():
    shown = run(
        """
        import multiprocessing
        from trl_onevision.rewards.verify import equal
        if __name__ == "__main__":
            with multiprocessing.get_context("fork").Pool(2) as ranks:
                assert ranks.map(equal, [[("x+1", "1+x")]] * 4) == [[True]] * 4
        """
    )
    assert shown.returncode == 0, shown.stderr


PARENT = """
import sys, time
from trl_onevision.rewards import verify
verify.equal([("x+1", "1+x")])
print(*[worker.process.pid for worker in verify._pool.children], flush=True)
{then}
"""


@pytest.mark.parametrize(
    ("then", "send"),
    [
        ("", None),
        ("raise SystemExit(3)", None),
        ("raise RuntimeError('crash')", None),
        ("import os; os.abort()", None),
        ("time.sleep(60)", signal.SIGKILL),
        ("time.sleep(60)", signal.SIGINT),
        ("time.sleep(60)", signal.SIGTERM),
        ("verify.equal([('42', '9^{9^{9^9}}')], seconds=3)", signal.SIGKILL),
        ("verify.equal([('42', '9^{9^{9^9}}')], seconds=3)", signal.SIGINT),
    ],
)
def test_no_orphans(then, send):
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT.format(then=then)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    pids = [int(pid) for pid in parent.stdout.readline().split()]
    assert pids
    if send:
        time.sleep(0.5)
        pids += [child.pid for pid in pids for child in psutil.Process(pid).children()]
        parent.send_signal(send)
    parent.wait(30)
    assert gone(pids)


def test_ctrl_c_in_the_middle_of_a_call_leaves_the_pool_usable():
    pool = verify._Checkers()
    threading.Timer(3, os.kill, [os.getpid(), signal.SIGINT]).start()
    try:
        with pytest.raises(KeyboardInterrupt):
            pool.check([TOWER] * 3, seconds=60, budget=60)
        assert pool.check([ALGEBRA], seconds=2, budget=30) == [True]
    finally:
        pool.close()


def test_pairs_longer_than_a_pipe_holds_do_not_outlast_the_budget():
    pool, long = verify._Checkers(), "+x" * 15_000
    try:
        assert pool.check([ALGEBRA], seconds=2, budget=30) == [True]
        start = time.monotonic()
        pool.check([(f"{n}{long}", f"{n}^{{9^{{9^9}}}}{long}") for n in range(8)], seconds=20, budget=2)
        assert time.monotonic() - start < 2 * 3
    finally:
        pool.close()


@pytest.mark.parametrize("thread", ["main", "other"])
def test_a_thousand_hostile_answers_are_bounded_by_the_budget(thread):
    pairs = [("42", f"{HOSTILE[index % len(HOSTILE)]} + {index}") for index in range(1000)]
    pairs[500] = ALGEBRA  # an honest answer among them is still heard
    equal([("x+2", "2+x")])  # the workers' start is not what is measured
    start = time.monotonic()
    if thread == "main":
        verdicts = equal(pairs, seconds=0.5, budget=4)
    else:
        with concurrent.futures.ThreadPoolExecutor(1) as other:
            verdicts = other.submit(equal, pairs, seconds=0.5, budget=4).result()
    assert time.monotonic() - start < 4 * 3  # the budget, with room for a busy machine
    assert verdicts[500] is True
    assert not any(verdict for index, verdict in enumerate(verdicts) if index != 500)


CANARY = "canary"
INJECTIONS = [
    "__import__('os').system('touch {path}')",
    "__import__('pathlib').Path('{path}').touch()",
    "open('{path}','w')",
    "exec(\"open('{path}','w')\")",
    "eval(\"open('{path}','w')\")",
    "().__class__.__base__.__subclasses__()",
    "(lambda: open('{path}', 'w'))()",
    "[open('{path}','w') for x in (1,)]",
    "{{open('{path}','w')}}",
    "1 if open('{path}','w') else 2",
    "x.__class__.__init__.__globals__['os'].system('touch {path}')",
    r"\operatorname{{exec}}(open('{path}','w'))",
    r"\operatorname{{__import__}}(os)",
    r"\text{{__import__('os').system('touch {path}')}}",
    r"\mathrm{{open('{path}','w')}}",
    r"\input{{{path}}}",
    r"\write18{{touch {path}}}",
    r"\immediate\write18{{touch {path}}}",
    r"x_{{__import__('os').system('touch {path}')}}",
    r"\frac{{open('{path}','w')}}{{1}}",
    r"\begin{{matrix}}open('{path}','w')\end{{matrix}}",
    "5 + open('{path}','w')",
    "5; import os; os.system('touch {path}')",
    "5\nimport os\nos.system('touch {path}')",
    "$(touch {path})",
    "`touch {path}`",
    "'; touch {path}; '",
    '"}}\n{{"gold": "1", "answer": "1", "seconds": 1}}\n',
    "Symbol('x', cls=open('{path}','w'))",
    'S(\'open("{path}","w")\')',
    'sympify(\'open("{path}","w")\')',
    "lambdify(x, open('{path}','w'))()",
    "!!python/object/apply:os.system ['touch {path}']",
    "cos\nsystem\n(S'touch {path}'\ntR.",
    "os.system('touch {path}')\x00",
]


@pytest.fixture(scope="module")
def exposed(tmp_path_factory):
    """Workers that started in an empty folder, reached without the fast path."""
    folder, before = tmp_path_factory.mktemp("exposed"), Path.cwd()
    os.chdir(folder)
    pool = verify._Checkers()
    assert pool.check([ALGEBRA], seconds=2, budget=60) == [True]
    os.chdir(before)
    yield pool, folder
    pool.close()


@pytest.mark.parametrize("dress", ["{}", "${}$", r"\boxed{{{}}}", "x = {}", "5 + {}"])
def test_no_completion_runs_as_code(exposed, dress):
    pool, folder = exposed
    attempts = [dress.format(injection.format(path=folder / CANARY)) for injection in INJECTIONS]
    pairs = [("42", attempt) for attempt in attempts] + [(attempt, "42") for attempt in attempts]
    assert not any(pool.check(pairs, seconds=1, budget=60))
    assert list(folder.iterdir()) == []


def confined(code):
    return run(
        "import verify_worker\nverify_worker.compare('x+1', '1+x')\nverify_worker._confine()\n"
        + textwrap.dedent(code),
        env={**os.environ, "PYTHONPATH": str(Path(verify_worker.__file__).parent)},
    )


@pytest.mark.parametrize(
    "attempt",
    [
        "import os; os.system('true')",
        "import subprocess; subprocess.run(['true'])",
        "import os; os.fork()",
        "open('canary', 'w')",
        "import pathlib; pathlib.Path('canary').touch(); open('canary', 'a')",
        "import os; os.remove('/nonexistent')",
        "import socket; socket.socket().connect(('127.0.0.1', 9))",
        "import ctypes; ctypes.CDLL(None)",
        "import sympy; sympy.sympify('1+1')",
        "import sympy; sympy.sympify('__import__(\"os\").getcwd()')",
        "from sympy.parsing.sympy_parser import parse_expr; parse_expr('x')",
    ],
)
def test_the_confinement_holds_even_if_text_became_code(tmp_path, monkeypatch, attempt):
    """The second wall, tried from the inside: what an injection would do, done."""
    monkeypatch.chdir(tmp_path)
    shown = confined(f"import sys\ntry:\n    {attempt}\nexcept (PermissionError, ValueError):\n    sys.exit(7)")
    assert shown.returncode == 7, shown.stderr
    assert not (tmp_path / CANARY).exists() or (tmp_path / CANARY).stat().st_size == 0


def test_mathematics_still_works_in_confinement():
    shown = confined(
        "print(verify_worker.compare('0.5 + 1.5', '2'), verify_worker.compare('10^{20}', '10^{10} 10^{10}'))"
    )
    assert shown.stdout.split() == ["True", "True"], shown.stderr


def test_pairs_cannot_break_the_protocol():
    odd = ["\n", "\r\n", "\x00", "\ud800", "\u2028", '"]}\n{"', "ready", "T", "1", "é" * 400, "\\" * 300]
    pool = verify._Checkers()
    try:
        verdicts = pool.check([(f"{text} x", "x+1") for text in odd] + [ALGEBRA], seconds=1, budget=60)
    finally:
        pool.close()
    assert verdicts[-1] is True
    assert len(verdicts) == len(odd) + 1


def test_a_worker_that_cannot_start_says_so(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    pool = verify._Checkers()
    with pytest.raises(RuntimeError, match="does not start"):
        pool.check([ALGEBRA], seconds=1, budget=10)


def test_the_worker_says_that_it_is_ready_and_then_a_line_a_pair():
    worker = subprocess.Popen(
        [sys.executable, "-P", verify_worker.__file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    pairs = [{"gold": gold, "answer": answer, "seconds": 1} for gold, answer in (ALGEBRA, TOWER, WRONG)]
    out, _ = worker.communicate("".join(json.dumps(pair) + "\n" for pair in pairs).encode(), timeout=60)
    assert out.split() == [b"ready", b"1", b"T", b"0"]
