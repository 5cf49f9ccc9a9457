"""Asking the formal text itself: a table for a value, a circuit for a voltage, where a question can be read whole."""

from __future__ import annotations

import re

from trl_onevision.formalize.check import operating_point, read_csv, word_set

# What may stand around the names in a question for one value; anything else may change what is asked.
_FILLER = word_set(
    """what whats is was were are the a an value values amount number level figure how many much of for in at on to
    by did does do there s according chart graph plot table image shown show shows given displayed read have has
    had bar line point category year month unit units"""
)
_EXTREME = {
    "highest": max, "largest": max, "greatest": max, "most": max, "maximum": max, "biggest": max,
    "lowest": min, "smallest": min, "least": min, "minimum": min, "fewest": min,
}  # fmt: skip
_TOTAL = frozenset({"total", "sum"})
_WORD = re.compile(r"[^\W_]+(?:[.'’-][^\W_]+)*", re.UNICODE)
_NODE = re.compile(
    r"what is the (?:dc )?(?:voltage|potential) (?:at|of|on) (?:the )?(?:node |point )?(\w+)"
    r"(?: in (?:the|this) circuit)?\s*\?",
    re.IGNORECASE,
)
_ACROSS = re.compile(
    r"what is the (?:dc )?(voltage|current) (?:drop )?(?:across|over|through|in) (?:the )?(?:resistor )?([rv]\w+)"
    r"(?: in (?:the|this) circuit)?\s*\?",
    re.IGNORECASE,
)


def answer(language: str, formal: str, question: str) -> str | None:
    """What the formal text says to the question, or `None` where the question cannot be read whole.

    >>> sales = "city,apples,pears\\nRome,3,5\\nOslo,4,1"
    >>> [answer("csv", sales, q) for q in ("How many pears in Oslo?", "Which city has the most apples?",
    ...     "What is the total of pears?", "How many more pears in Rome than in Oslo?")]
    ['1', 'Oslo', '6', None]
    """
    if language == "csv":
        return _from_table(read_csv(formal), question)
    if language == "spice":
        return _from_circuit(formal, question)
    return None


def _words(text: str) -> list[str]:
    return [word.casefold() for word in _WORD.findall(text)]


def _from_table(table: list[list[str]], question: str) -> str | None:
    words = _words(question)
    header, rows = table[0], table[1:]
    columns = _mentioned(words, header[1:])
    labels = _mentioned(words, [row[0] for row in rows])
    rest = [word for at, word in enumerate(words) if at not in columns.used | labels.used]
    corner = set(_words(header[0])) | {f"{word}s" for word in _words(header[0])} | {"which"}
    # Of a table with one column of values, a question need not name it.
    if not columns.found and len(header) == 2:
        columns.found.append(0)
    if len(columns.found) != 1:
        return None
    values = [row[columns.found[0] + 1] for row in rows]
    asked = [word for word in rest if word not in _FILLER | corner]
    if not asked and len(labels.found) == 1:
        return values[labels.found[0]]
    numbers = [_number(value) for value in values]
    if labels.found or None in numbers or len(asked) != 1:
        return None
    known = [number for number in numbers if number is not None]
    if asked[0] in _TOTAL:
        return f"{sum(known):.10g}"
    if asked[0] in _EXTREME:
        best = _EXTREME[asked[0]](known)
        if "which" in words:
            return rows[known.index(best)][0] if known.count(best) == 1 else None
        return f"{best:.10g}"
    return None


class _Mentions:
    def __init__(self) -> None:
        self.found: list[int] = []
        self.used: set[int] = set()


def _mentioned(words: list[str], names: list[str]) -> _Mentions:
    """Which names a question holds, the longest first, and the places of their words."""
    mentions = _Mentions()
    for index in sorted(range(len(names)), key=lambda i: -len(_words(names[i]))):
        name = _words(names[index])
        for start in range(len(words) - len(name) + 1):
            places = set(range(start, start + len(name)))
            if name and words[start : start + len(name)] == name and not places & mentions.used:
                mentions.found.append(index)
                mentions.used |= places
    return mentions


def _number(cell: str) -> float | None:
    try:
        return float(cell.replace(",", "").rstrip("%"))
    except ValueError:
        return None


def _from_circuit(netlist: str, question: str) -> str | None:
    node, across = _NODE.search(question), _ACROSS.search(question)
    if not node and not across:
        return None
    values = operating_point(netlist)
    if node:
        name = node.group(1).casefold()
        volts = 0.0 if name in ("0", "gnd", "ground") else values.get(name)
        return None if volts is None else f"{volts:.6g} V"
    assert across is not None
    what, part = across.group(1).casefold(), across.group(2).casefold()
    if what == "current":
        amperes = values.get(f"@{part}[i]", values.get(f"{part}#branch"))
        return None if amperes is None else f"{abs(amperes):.6g} A"
    ends = next(
        (
            line.split()[1:3]
            for line in netlist.splitlines()
            if line.split()[:1] and line.split()[0].casefold() == part
        ),
        None,
    )
    if ends is None:
        return None
    high, low = (0.0 if end == "0" else values.get(end.casefold()) for end in ends)
    return None if high is None or low is None else f"{abs(high - low):.6g} V"
