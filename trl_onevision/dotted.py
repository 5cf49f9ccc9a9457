"""Functions and classes that an option names by a dotted path: what is yours is found as `trl grpo` finds rewards."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import Any


def find(option: str, path: str) -> Any:
    """What a dotted path names; a module of yours lies in the folder that the command is started from.

    >>> find("advantage", "math.sqrt")(9)
    3.0
    >>> find("environment", "trl_onevision.environments.Zoon")
    Traceback (most recent call last):
    ValueError: environment: 'trl_onevision.environments.Zoon' cannot be imported: module 'trl_onevision.environments'
        has no attribute 'Zoon'
    >>> find("advantage", "math.pi")
    Traceback (most recent call last):
    ValueError: advantage: 'math.pi' cannot be called.

    Raises `ValueError` with the option's name. A module that is being imported now, as one of yours whose rewards have
    brought this package in, is looked into when what it names is called.
    """
    module, _, name = path.rpartition(".")
    if not module:
        raise ValueError(f"{option}: {path!r} is no dotted path such as my_module.my_name.")
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        holder = import_module(module)
        if getattr(holder.__spec__, "_initializing", False) and not hasattr(holder, name):
            return lambda *args, **kwargs: find(option, path)(*args, **kwargs)
        found = getattr(holder, name)
    except Exception as error:  # whatever a module of yours ends with
        raise ValueError(f"{option}: {path!r} cannot be imported: {error}") from error
    if not callable(found):
        raise ValueError(f"{option}: {path!r} cannot be called.")
    return found
