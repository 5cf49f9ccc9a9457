"""What all tests share: Ctrl-C that interrupts, and a bound on processor time."""

import gc
import signal
import time

import pytest

# Where a shell runs the tests in the background, it has SIGINT ignored; the tests of Ctrl-C need it.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def within():
    """Calls a function, and fails where it takes more than so many seconds of its thread's processor time.

    The least of three tries counts, since a busy neighbour slows a processor too. What the process already holds is
    kept from the garbage collector: its walks over torch and transformers take a second that is not the function's.
    """

    def call(seconds, function, *args, **kwargs):
        taken = []
        gc.freeze()
        try:
            while len(taken) < 3:
                start = time.thread_time()
                result = function(*args, **kwargs)
                taken.append(time.thread_time() - start)
                if taken[-1] < seconds:
                    return result
        finally:
            gc.unfreeze()
        pytest.fail(f"took {min(taken):.2f} s of processor time, and should take less than {seconds} s")

    return call
