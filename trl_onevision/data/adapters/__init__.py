"""One file a dataset: where it comes from, what its raw rows look like, and a pure `to_row`.

A new dataset is a new file here with the names of `Adapter`; nothing else has to know of it.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Iterable
from importlib import import_module
from typing import Protocol, cast

from trl_onevision.data.rows import Raw, Row
from trl_onevision.data.schema import Purpose


class Adapter(Protocol):
    """What a module of this package defines."""

    @property
    def NAME(self) -> str:
        """The name on the command line."""

    @property
    def SOURCE(self) -> str | None:
        """The dataset on the hub, with `@` and a commit to pin one, or `None` where only files are published."""

    @property
    def LICENSE(self) -> str | None:
        """The licence that the dataset's card states; `None` where none is known."""

    @property
    def COLUMNS(self) -> frozenset[str]:
        """The raw columns by which the schema is recognised; empty: never recognised, only named."""

    @property
    def PROMPT(self) -> dict[Purpose, str]:
        """The prompt used when none is chosen, for each purpose that the dataset serves."""

    def to_row(self, raw: Raw) -> Row:
        """A raw row as a row of the contract. Images stay as they are in the raw row, boxes in its own frame."""


def names() -> list[str]:
    """The names of the known datasets."""
    return sorted(module.name.replace("_", "-") for module in pkgutil.iter_modules(__path__))


def find(name: str) -> Adapter:
    """The adapter of a dataset.

    >>> find("geometry3k").SOURCE
    'hiyouga/geometry3k'
    >>> find("geometry")
    Traceback (most recent call last):
    ValueError: dataset 'geometry': unknown; expected one of clevr, ...
    """
    if name not in names():
        raise ValueError(
            f"dataset {name!r}: unknown; expected one of {', '.join(names())}, or --columns for any other"
        )
    return cast(Adapter, import_module(f"{__name__}.{name.replace('-', '_')}"))


def adapter_for(columns: Iterable[str]) -> Adapter | None:
    """The adapter whose raw schema these columns are, or `None`.

    >>> adapter_for(["id", "image", "conversations"]).NAME
    'r1-onevision'
    >>> adapter_for(["prompt", "images", "solution"]) is None
    True

    The adapter that explains most columns wins. Columns that TRL reads itself (`prompt`, `messages`) are never raw,
    and an adapter that does not know a column of videos or sounds would leave out what its rows ask about.
    """
    columns = set(columns)
    if columns & {"prompt", "messages"}:
        return None
    told = columns & {"video", "videos", "audio", "audios"}
    matching = [adapter for adapter in map(find, names()) if adapter.COLUMNS and told <= adapter.COLUMNS <= columns]
    return max(matching, key=lambda adapter: len(adapter.COLUMNS), default=None)
