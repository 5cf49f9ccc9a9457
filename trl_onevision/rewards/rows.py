"""What rewards share: options and a name, the rows of a call, and one warning for a row that cannot be scored."""

import logging
import types
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

logger = logging.getLogger(__name__)

LogMetric = Callable[[str, float], None]
Reward = Callable[..., Sequence[float | None]]  # any reward as TRL takes them: this package's, TRL's, your own
# Options that are checked when a reward is made: what they may be, in words and as a test
Positive = Annotated[float, "a number above 0", lambda value: value > 0]
NotNegative = Annotated[float, "a number of at least 0", lambda value: value >= 0]
Share = Annotated[float, "a number above 0, up to 1", lambda value: 0 < value <= 1]
Score = TypeVar("Score")
_warned: set[str] = set()


class Unscorable(ValueError):
    """A gold that cannot be scored, or a row without what its gold needs. A completion is never the reason."""


@dataclass(eq=False, kw_only=True)
class NamedReward:
    """A reward that is made with options, its fields; TRL logs it as `name`.

    >>> from trl_onevision.rewards.points import PointReward
    >>> PointReward(radius=0)
    Traceback (most recent call last):
    ValueError: radius=0: expected a number above 0

    A field that is a `Literal`, `Positive` or a `Share`, alone, or `None`, or in a tuple, is checked to be so.
    """

    name: str = ""

    def __post_init__(self) -> None:
        self.__name__ = self.name
        for field in fields(self):
            check_option(field.name, getattr(self, field.name), field.type)


def check_option(name: str, value: Any, kind: Any) -> None:
    """Raise `ValueError` on a value that an annotation of a reward's field does not allow.

    >>> check_option("frame", "norm999", Literal["pixel", "norm1000"])
    Traceback (most recent call last):
    ValueError: frame='norm999': expected one of pixel, norm1000
    """
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Literal and value not in parts:
        raise ValueError(f"{name}={value!r}: expected one of {', '.join(parts)}")
    if origin is Annotated and not parts[2](value):
        raise ValueError(f"{name}={value!r}: expected {parts[1]}")
    if origin in (Union, types.UnionType) and value is not None:
        check_option(name, value, parts[0])
    if origin is tuple:
        for item in value:
            check_option(name, item, parts[0])


def score_rows(name: str, score: Callable[[dict[str, Any]], Score], /, **columns: Any) -> list[Score | None]:
    """What `score` makes of each row of a call, given as a dict of its columns.

    >>> score_rows("half", lambda row: row["solution"] / 2, solution=[4, 9], id=None, trainer_state=object())
    [2.0, 4.5]

    `score` returns `None` for a row of another reward. It raises `Unscorable` on one that cannot be scored, which is
    `None` as well, and a warning with the name of the reward and the row's `id`. A column may be a list, a tuple, an
    array or a column of datasets, all equally long; what is none (`None`, the trainer's state) is in no row.
    """
    scores: list[Score | None] = []
    for row in _rows(columns):
        try:
            scores.append(score(row))
        except Unscorable as error:
            named = f"row {row['id']!r}" if row.get("id") is not None else "a row without an id"
            warn_once(f"{name} cannot score {named}: {error}")
            scores.append(None)
    return scores


def take(columns: dict[str, Any], indices: list[int]) -> dict[str, Any]:
    """The same columns with some of the rows.

    >>> take({"solution": ["a", "b", "c"], "trainer_state": None}, [0, 2])
    {'solution': ['a', 'c'], 'trainer_state': None}
    """
    return {key: [value[i] for i in indices] if _is_column(value) else value for key, value in columns.items()}


def question(prompt: Any) -> str:
    """The text of the last user message; what is an image in it is left out.

    >>> question([{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "How many?"}]}])
    'How many?'
    """
    if isinstance(prompt, str):
        return prompt
    messages = [message for message in prompt or [] if message.get("role") == "user"]
    content = messages[-1].get("content") if messages else ""
    if isinstance(content, str):
        return content
    return "\n".join(block["text"] for block in content or [] if isinstance(block.get("text"), str))


def _rows(columns: dict[str, Any]) -> Iterator[dict[str, Any]]:
    per_row = {key: value for key, value in columns.items() if _is_column(value)}
    for values in zip(*per_row.values(), strict=True):
        yield dict(zip(per_row, values, strict=True))


def _is_column(value: Any) -> bool:
    return hasattr(value, "__len__") and hasattr(value, "__getitem__") and not isinstance(value, str | bytes | dict)


def warn_once(message: str, detail: str = "") -> None:
    """Log a warning the first time that its text, less the detail, is seen: a broken gold comes back every epoch."""
    if message not in _warned:
        _warned.add(message)
        logger.warning("%s%s", message, detail)
