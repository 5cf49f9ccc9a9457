"""Things that an option names by a dotted path: what is yours is found as `reward_funcs` finds it."""

from __future__ import annotations

from importlib import import_module
from typing import Any


def find(option: str, path: str) -> Any:
    """What a dotted path names.

    >>> find("advantage", "math.sqrt")(9)
    3.0
    >>> find("environment", "trl_onevision.environments.Zoon")
    Traceback (most recent call last):
    ValueError: environment: 'trl_onevision.environments.Zoon' cannot be imported: module 'trl_onevision.environments'
        has no attribute 'Zoon'
    >>> find("advantage", "math.pi")
    Traceback (most recent call last):
    ValueError: advantage: 'math.pi' cannot be called.

    Raises `ValueError` with the option's name.
    """
    module, _, name = path.rpartition(".")
    if not module:
        raise ValueError(f"{option}: {path!r} is no dotted path such as my_module.my_name.")
    try:
        found = getattr(import_module(module), name)
    except Exception as error:  # whatever a module of yours ends with
        raise ValueError(f"{option}: {path!r} cannot be imported: {error}") from error
    if not callable(found):
        raise ValueError(f"{option}: {path!r} cannot be called.")
    return found
