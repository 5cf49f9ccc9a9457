"""The process that runs math-verify: started by `verify.py` as a script, it imports sympy and nothing of this package.

A line of JSON a pair comes in (`{"gold": …, "answer": …, "seconds": 1.0}`), a line goes out: `1` equal, `0` not, `T`
too expensive. The pairs that wait are checked in a forked child. The kernel kills that child once a pair has used its
share of processor time, even in the middle of one enormous integer power, where no Python signal handler would ever
run; this process then forks again for the pairs that remain. So a hostile pair costs its time limit and a fork, never
an import, and nothing outlives the parent by more than one time limit: an idle worker leaves when its input ends.
"""

import contextlib
import json
import logging
import math
import os
import re
import resource
import signal
import sys
from typing import Any, NoReturn

MEMORY_BYTES = 2 * 1024**3
WARM_UP = ((r"\frac{1}{2}", r"\sqrt{2}+x^{2}"), (r"[1,2)", r"\{1,2\}"), ("(x+1)^2", "x^2+2x+3"))

# What arithmetic never does. A completion that reached any of it would have found a way to run as code.
_FORBIDDEN = """
os.system os.exec os.posix_spawn os.spawn os.fork os.forkpty os.kill os.killpg pty.spawn os.remove os.rename os.rmdir
os.mkdir os.link os.symlink os.truncate os.chmod os.chown os.putenv os.unsetenv subprocess.Popen shutil. socket.
ctypes. urllib. http. ftplib.
"""
FORBIDDEN_EVENTS = tuple(_FORBIDDEN.split())


def main() -> None:
    """Serve until the input ends."""
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    logging.disable(logging.CRITICAL)
    for gold, answer in WARM_UP:  # imports sympy and fills the grammar's caches once, for every child
        compare(gold, answer)
    os.write(1, b"ready\n")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # a failing import was shown; a completion has nothing to say
    buffer = b""
    while chunk := os.read(0, 1 << 16):
        buffer += chunk
        if buffer.endswith(b"\n"):  # a parent that is still writing would wait for the verdicts, past its budget
            check([json.loads(line) for line in buffer.splitlines()])
            buffer = b""


def check(pairs: list[dict[str, Any]]) -> None:
    """Write a verdict for each pair to the standard output, forking afresh after each that had to be killed."""
    done = 0
    while done < len(pairs):
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reader)
            _check_in_child(pairs[done:], writer)
        os.close(writer)
        while verdicts := os.read(reader, 1 << 16):
            os.write(1, verdicts)
            done += verdicts.count(b"\n")
        os.close(reader)
        os.waitpid(child, 0)
        if done < len(pairs):
            os.write(1, b"T\n")
            done += 1


def _check_in_child(pairs: list[dict[str, Any]], writer: int) -> NoReturn:
    try:
        _confine()
        for pair in pairs:
            signal.setitimer(signal.ITIMER_PROF, pair["seconds"])  # SIGPROF's default action ends the process
            os.write(writer, b"1\n" if compare(pair["gold"], pair["answer"]) else b"0\n")
    finally:
        os._exit(0)


def compare(gold: str, answer: str) -> bool:
    """Whether two LaTeX expressions are equal to math-verify; what cannot be parsed or compared is not.

    Only math-verify's LaTeX grammar is used: its other parser hands the text to Python's `eval`.
    """
    from math_verify import LatexExtractionConfig, parse, verify

    latex = [LatexExtractionConfig(boxed_match_priority=-1)]
    try:
        parsed = [
            parse(f"${text}$", latex, fallback_mode="no_fallback", parsing_timeout=None) for text in (gold, answer)
        ]
        if not all(parsed):
            return False
        decimals = _decimals(parsed[0][0])
        return verify(
            *parsed,
            float_rounding=decimals,
            numeric_precision=decimals + 9,
            allow_set_relation_comp=True,
            timeout_seconds=None,
        )
    except (Exception, RecursionError, MemoryError):
        return False


def _decimals(gold: Any) -> int:
    """Tell to how many decimals a gold is compared: math-verify's six leave 1.6e-19 no digits at all."""
    from sympy import preorder_traversal

    numbers = (abs(part) for part in preorder_traversal(gold) if getattr(part, "is_comparable", False))
    smallest = min((float(number) for number in numbers if 1e-300 < number < 1), default=1.0)
    return max(6, 3 - math.floor(math.log10(smallest)))


def _confine() -> None:
    """Close the roads from text to code, to other processes, to files and to the network."""
    import math_verify.parser
    from sympy.parsing import sympy_parser

    # `sympify` of a string, hence `Number` of a string, ends in these two, and they in `eval`.
    sympy_parser.parse_expr = math_verify.parser.parse_expr = _number
    sympy_parser.eval_expr = _number
    for limit, value in ((resource.RLIMIT_AS, MEMORY_BYTES), (resource.RLIMIT_FSIZE, 0), (resource.RLIMIT_CORE, 0)):
        with contextlib.suppress(ValueError, OSError):  # a platform without this limit
            resource.setrlimit(limit, (value, value))
    sys.addaudithook(_audit)


def _number(text: str, *args: Any, **kwargs: Any) -> Any:
    """Read a numeral, where sympy would evaluate it: all that the LaTeX grammar ever hands over as text."""
    from sympy import Float, Integer

    text = text.strip()
    if re.fullmatch(r"[-+]?\d+", text, re.ASCII):
        return Integer(text)
    if re.fullmatch(r"[-+]?(?:\d+\.\d*|\.\d+)(?:[eE][-+]?\d{1,4})?", text, re.ASCII):
        return Float(text)
    raise ValueError("text is never evaluated")


def _audit(event: str, args: tuple[Any, ...]) -> None:
    writes = event == "open" and isinstance(args[1], str) and any(letter in args[1] for letter in "wax+")
    if writes or event.startswith(FORBIDDEN_EVENTS):
        raise PermissionError(f"an expression tried {event}")


if __name__ == "__main__":
    main()
