"""What all tests share: Ctrl-C that interrupts, a bound on how processor time grows, and an untrained model."""

import gc
import signal
import time

import pytest

# Where a shell runs the tests in the background, it has SIGINT ignored; the tests of Ctrl-C need it.
signal.signal(signal.SIGINT, signal.default_int_handler)

NOISE = 0.005  # seconds below which a difference says nothing


@pytest.fixture
def linear():
    """Calls a function on a quarter of a sequence and on all of it, and fails where its cost grows faster than that.

    Four times the input may take eight times the time of its thread's processor; a quadratic reader takes sixteen.
    The least of five tries counts, since a busy neighbour slows a processor too. What the process already holds is
    kept from the garbage collector: its walks over torch and transformers are not the function's.
    """

    def check(function, sequence):
        def call(part):
            start = time.thread_time()
            result = function(part)
            return time.thread_time() - start, result

        gc.freeze()
        try:
            quarter = whole = float("inf")
            for _ in range(5):
                quarter = min(quarter, call(sequence[: len(sequence) // 4])[0])
                taken, result = call(sequence)
                whole = min(whole, taken)
                if whole <= 8 * max(quarter, NOISE):
                    return result
        finally:
            gc.unfreeze()
        pytest.fail(f"a quarter of the input takes {quarter:.3f} s of processor time, all of it {whole:.3f} s")

    return check


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """The quickstart's model as it is before any training, in a folder."""
    from trl_onevision.quickstart.model import build_model, build_processor

    folder = tmp_path_factory.mktemp("checkpoint")
    processor = build_processor()
    build_model(processor).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
