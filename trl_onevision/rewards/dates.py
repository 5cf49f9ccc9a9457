"""Dates and clock times as people write them."""

import re
import unicodedata
from datetime import date

_NAMES = "jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec"
_MONTHS = _NAMES.split("|")
_MONTH = rf"(?P<name>{_NAMES})[a-z]{{0,6}}\.?"
_DAY = r"(?P<day>\d{1,2})(?:st|nd|rd|th)?"
_YEAR = r"(?P<year>\d{4})"
_DATES = [
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        rf"(?<!\d){_YEAR}\s?[-/.年]\s?(?P<month>\d{{1,2}})\s?[-/.月]\s?(?P<day>\d{{1,2}})(?!\d)",
        rf"(?<!\d){_DAY}\s?[-/.]\s?(?P<month>\d{{1,2}})\s?[-/.]\s?{_YEAR}(?!\d)",
        rf"(?<!\d){_DAY}(?:\s{{1,2}}of)?[\s-]{{1,2}}{_MONTH},?[\s-]{{1,2}}{_YEAR}(?!\d)",
        rf"\b{_MONTH}\s{{1,2}}{_DAY},?\s{{1,2}}{_YEAR}(?!\d)",
    )
]
_CLOCK = re.compile(
    r"(?<![\d:.])(\d{1,2})\s?[:h点]\s?([0-5]\d)(?:\s?[:m分]\s?([0-5]\d))?(?![\d:])\s{0,2}(am|pm|a\.m|p\.m)?",
    re.IGNORECASE,
)
_HOUR = re.compile(r"(?<![\d:.])(\d{1,2})\s{0,2}(?:(am|pm|a\.m|p\.m)\b|o['’]?\s?clock|点)", re.IGNORECASE)
_SPOKEN = re.compile(
    r"\b(half|quarter|\d{1,2})(?:\s{1,2}minutes?)?\s{1,2}(past|after|to|before)\s{1,2}(\d{1,2})\b", re.IGNORECASE
)
_FIGURES = "zero|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve"
_WORDS = _FIGURES.split("|")
_WORD = re.compile(rf"\b(?:{_FIGURES}|twenty[\s-]five|twenty)\b", re.IGNORECASE)
LONGEST = 300


def read_dates(text: str) -> set[date]:
    """Return the dates that a text may mean: none, one, or two where day and month could be exchanged.

    >>> read_dates("March 5th, 2024") == read_dates("2024-03-05") == read_dates("5 Mar 2024")
    True
    >>> sorted(day.isoformat() for day in read_dates("3/5/2024"))
    ['2024-03-05', '2024-05-03']

    A text that states two different dates states none.
    """
    text = unicodedata.normalize("NFKC", text[:LONGEST])
    readings = [_readings(match) for pattern in _DATES for match in pattern.finditer(text)]
    return readings[0] if readings and all(reading == readings[0] for reading in readings) else set()


def _readings(match: re.Match[str]) -> set[date]:
    parts = match.groupdict()
    year, day = int(parts["year"]), int(parts["day"])
    named = "name" in parts
    month = _MONTHS.index(parts["name"].lower()) + 1 if named else int(parts["month"])
    found = set()
    ambiguous = not named and match.re is _DATES[1]
    for one_month, one_day in [(month, day), (day, month)] if ambiguous else [(month, day)]:
        try:
            found.add(date(year, one_month, one_day))
        except ValueError:  # no such day
            continue
    return found


def same_date(gold: str, answer: str) -> float | None:
    """Return 1 where the answer is the gold's date; `None` where the gold is no date.

    >>> same_date("2024-03-05", "5 March 2024"), same_date("2024-03-05", "2024-03-06"), same_date("soon", "2024-03-05")
    (1.0, 0.0, None)

    Of "3/5/2024" both readings count: it is the fifth of March and the third of May.
    """
    wanted = read_dates(gold)
    return float(bool(wanted & read_dates(answer))) if wanted else None


def read_time(text: str) -> tuple[int, bool] | None:
    """Return the seconds after midnight that a text states, and whether it tells morning from afternoon.

    >>> read_time("3:05 pm"), read_time("half past 3"), read_time("quarter to four"), read_time("7 o'clock")
    ((54300, True), (12600, False), (13500, False), (25200, False))
    """
    text = _WORD.sub(_figure, unicodedata.normalize("NFKC", text[:LONGEST]))
    found = {_clock(*match) for match in _CLOCK.findall(text)} or {_spoken(*match) for match in _SPOKEN.findall(text)}
    found = found or {_clock(hour, "0", "0", half) for hour, half in _HOUR.findall(text)}
    return found.pop() if len(found) == 1 else None


def same_time(gold: str, answer: str) -> float | None:
    """Return 1 where the answer is the gold's time of day; `None` where the gold is no time.

    >>> same_time("15:05", "3:05 pm"), same_time("3:05", "15:05"), same_time("3:05 am", "3:05 pm")
    (1.0, 1.0, 0.0)

    A dial does not tell morning from afternoon: hours count modulo twelve unless both sides tell them apart.
    """
    wanted, given = read_time(gold), read_time(answer)
    if wanted is None:
        return None
    if given is None:
        return 0.0
    day = 24 * 3600 if wanted[1] and given[1] else 12 * 3600
    return float((wanted[0] - given[0]) % day == 0)


def _figure(word: re.Match[str]) -> str:
    spoken = word[0].lower()
    if spoken.startswith("twenty"):
        return "25" if "five" in spoken else "20"
    return str(_WORDS.index(spoken))


def _clock(hour: str, minute: str, second: str, half: str) -> tuple[int, bool] | None:
    hours = int(hour)
    if half:
        if not 1 <= hours <= 12:
            return None
        hours = hours % 12 + (12 if half[0] in "pP" else 0)
    if hours > 23:
        return None
    return hours * 3600 + int(minute) * 60 + int(second or 0), bool(half) or hours > 12


def _spoken(minutes: str, direction: str, hour: str) -> tuple[int, bool] | None:
    offset = {"half": 30, "quarter": 15}.get(minutes.lower()) or int(minutes)
    if int(hour) > 12 or offset > 59:
        return None
    sign = 1 if direction.lower() in ("past", "after") else -1
    return (int(hour) * 60 + sign * offset) % 720 * 60, False
