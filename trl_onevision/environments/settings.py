"""Settings as a recipe gives them: a wrong one is said at the start, and not to the model when it calls a tool."""

from __future__ import annotations

import math
from typing import Any


def positive(environment: str, **settings: Any) -> None:
    """Raise `ValueError` where a setting is no number above zero.

    >>> positive("Zoom", calls="many")
    Traceback (most recent call last):
    ValueError: Zoom: calls is a number above zero, not 'many'.
    """
    for name, value in settings.items():
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not (is_number and 0 < value < math.inf):
            raise ValueError(f"{environment}: {name} is a number above zero, not {value!r}.")
