"""Ctrl-C interrupts in the tests of it, also where a shell runs them in the background and has it ignored."""

import signal

signal.signal(signal.SIGINT, signal.default_int_handler)
