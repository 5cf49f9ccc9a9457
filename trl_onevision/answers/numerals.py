"""Numerals as people write them: separators, scientific notation, English and Chinese number words."""

import math
import re
from decimal import Decimal
from fractions import Fraction
from typing import NamedTuple

LARGEST_EXPONENT = 400
CJK = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"  # letters that stand beside a number without a space


class Numeral(NamedTuple):
    """A number, and the step of its last decimal; `None` for an integer."""

    value: Decimal
    step: Decimal | None = None


# Every repeat is bounded or meets a character that it cannot take: nothing to backtrack into.
NUMERAL = re.compile(
    r"""
    (?P<digits>
        \d{1,3}(?:,\d{3})+(?![\d,])(?:\.\d+)?           # 1,234,567.8
      | [1-9]\d{0,2}(?:\.\d{3})+,\d+                    # 1.234,5
      | [1-9]\d{0,2}(?:\.\d{3}){2,}(?!\d)               # 1.234.567
      | [1-9]\d{0,2}(?:[ ']\d{3})+(?!\d)(?:[.,]\d+)?    # 1 234,5
      | \d+\.\d+ | \d+,\d+ | \d+ | \.\d+
    )
    (?:[eE](?P<exponent>[-+]?\d{1,4})(?![\d.])
      |\s?(?:[*x×·]|\\(?:times|cdot|ast))\s?10\s?\^\s?(?P<open>[{(])?\s?(?P<power>[-+]?\s?\d{1,4})(?(open)\s?[})]))?
    """,
    re.VERBOSE | re.ASCII,
)


def numeral(text: str) -> Numeral | None:
    """Return the value of a text that `NUMERAL` matches; `None` where its exponent is too large to be meant.

    >>> numeral("1.234,50"), numeral("2.5e3")
    (Numeral(value=Decimal('1234.50'), step=Decimal('0.01')), Numeral(value=Decimal('2.5E+3'), step=Decimal('1E+2')))
    """
    match = NUMERAL.fullmatch(text)
    assert match, text
    exponent = int((match["exponent"] or match["power"] or "0").replace(" ", ""))
    if abs(exponent) > LARGEST_EXPONENT:
        return None
    digits = _decimal_point(match["digits"])
    decimals = len(digits.partition(".")[2])
    return Numeral(Decimal(f"{digits}E{exponent}"), Decimal(f"1E{exponent - decimals}") if decimals else None)


def _decimal_point(digits: str) -> str:
    """Drop the separators that group, and write the one that is decimal as a point."""
    digits = digits.replace(" ", "").replace("'", "")
    last = max(digits.rfind(","), digits.rfind("."))
    if last < 0:
        return digits
    whole, separator, decimals = digits[:last], digits[last], digits[last + 1 :]
    groups = whole.count(separator) > 0 or (
        separator == "," and len(decimals) == 3 and whole.lstrip("0") == whole != ""
    )
    whole = whole.replace(",", "").replace(".", "")
    return whole + decimals if groups else f"{whole or '0'}.{decimals}"


_TEENS = "ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen"
_SMALL = {word: n for n, word in enumerate(f"zero one two three four five six seven eight nine {_TEENS}".split())}
_TENS = {"twenty": 20, "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60, "seventy": 70, "eighty": 80, "ninety": 90}
_SCALES = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_PARTS = {"half": 2, "halves": 2, "third": 3, "quarter": 4, "fourth": 4, "fifth": 5, "sixth": 6, "eighth": 8}
_PARTS["tenth"] = 10
_PART = rf"(?:halves|(?:{'|'.join([part for part in _PARTS if part != 'halves'])})s?)\b"
_CARDINAL = rf"(?:{'|'.join([*_SMALL, *_TENS, *_SCALES, 'hundred', 'dozen'])})\b"
_FIGURE = r"(?<![\d.,/^])\d+(?:,\d{3})*(?:\.\d+)?(?![\d.,/^]*\d)"
# A whole run of words: "five" alone is no part of "forty-five", "five million", "minus five" or "five sixths".
_RUN = re.compile(
    rf"(?<![^\W\d_{CJK}])(?<![\w]-)(?:(?:minus|negative)[\s-]{{1,2}})?(?:an?\s(?={_PART}|{_CARDINAL}))?"
    rf"(?:half\b(?!-)(?:\san?(?=\s{_CARDINAL}))?|(?:{_CARDINAL}|{_FIGURE}))"
    rf"(?:[\s-]{{1,3}}(?:(?:and|point)\s{{1,2}})?(?:an?\s(?={_PART}))?(?:{_CARDINAL}(?!-?{_PART}\w)|{_PART}))*+",
    re.IGNORECASE,
)
_ROOT = re.compile(r"(?:(?:the\s)?square\s)?root\s(?:of\s)?(?=[\d(])|根号", re.IGNORECASE)
_MAY_SPEAK = re.compile(r"(?<![\\a-zA-Z])[a-zA-Z]{3}|[^\x00-\x7f]")
_MINUS = re.compile(r"(?:\b(?:minus|negative)\s|负)(?=[\d.(\\√])", re.IGNORECASE)
_CHINESE_FIGURES = {**{figure: n for n, figure in enumerate("零一二三四五六七八九")}, "〇": 0, "两": 2, "兩": 2}
_CHINESE_SCALES = {"十": 10, "百": 100, "千": 1000, **dict.fromkeys("万萬만", 10**4), **dict.fromkeys("亿億억", 10**8)}
_CHINESE = re.compile(
    rf"(?:(?<![{CJK}\d])|(?<=[为是有约得共:])|(?<=等于))负?(?:[{''.join(_CHINESE_FIGURES)}十百千万亿]+)"
    r"(?:点([零一二三四五六七八九]+))?半?(?![共般起样些定切直])|(\d+(?:\.\d+)?)\s?([百千万萬亿億만억]+)(?![克米瓦卡焦帕升伏安])"
)
_WHOLE_FIGURES = f"[{''.join(_CHINESE_FIGURES)}十百千万亿]{{1,9}}"
_CHINESE_PART = re.compile(f"({_WHOLE_FIGURES})分之({_WHOLE_FIGURES})")


def with_figures(text: str) -> str:
    """Return a text with its number words as figures; words that state no number stay.

    >>> with_figures("minus forty-five cats"), with_figures("two and a half"), with_figures("1.5 million")
    ('-45 cats', '2.5', '1500000')
    >>> with_figures("two thirds"), with_figures("five six"), with_figures("十二个"), with_figures("三分之一")
    ('(2/3)', 'five six', '12个', '(1/3)')
    """
    if not _MAY_SPEAK.search(text):
        return text
    text = _ROOT.sub("√", _RUN.sub(lambda run: _figures(run[0]), text))
    if text.isascii():
        return _MINUS.sub("-", text)
    return _CHINESE.sub(_chinese_figures, _MINUS.sub("-", _CHINESE_PART.sub(_chinese_part, text)))


def _figures(run: str) -> str:
    if run.replace(",", "").replace(".", "").isdigit():
        return run
    value = spoken(re.split(r"[\s-]+", run.lower()))
    return run if value is None else _written(value)


def _written(value: Fraction) -> str:
    if value.denominator in (1, 5, 10, 100, 1000) or (value.denominator in (2, 4) and value > 1):
        return f"{Decimal(value.numerator) / value.denominator:f}"
    return f"({value.numerator}/{value.denominator})"


def spoken(words: list[str]) -> Fraction | None:
    """Return the number that a run of words states; `None` where it states none as a whole.

    >>> spoken(["minus", "forty", "five"]), spoken(["two", "thirds"]), spoken(["one", "hundred", "and", "five"])
    (Fraction(-45, 1), Fraction(2, 3), Fraction(105, 1))
    >>> spoken(["five", "six"]), spoken(["two", "and", "a", "half"]), spoken(["two", "point", "five"])
    (None, Fraction(5, 2), Fraction(5, 2))
    """
    words = [word for index, word in enumerate(words) if word not in ("a", "an") or index == len(words) - 1]
    if not words or "" in words:
        return None
    factor = {"minus": Fraction(-1), "negative": Fraction(-1), "half": Fraction(1, 2)}.get(words[0])
    if factor and len(words) > 1:  # half a million
        value = spoken(words[1:])
        return None if value is None else value * factor
    part = _PARTS.get(words[-1]) or _PARTS.get(words[-1].removesuffix("s"))
    if part and "and" in words[1:-1]:  # two and a half
        at = len(words) - 1 - words[::-1].index("and")
        whole, share = spoken(words[:at]), spoken(words[at + 1 :])
        return whole + share if whole is not None and share is not None and share < 1 else None
    if part:
        counted = Fraction(1) if len(words) == 1 else spoken(words[:-1]) if len(words) == 2 else None
        agrees = counted is not None and counted.denominator == 1 and (counted == 1) != words[-1].endswith("s")
        return counted / part if counted is not None and agrees else None
    if "point" in words:
        at = words.index("point")
        whole, decimals = spoken(words[:at]), [_SMALL.get(word, 10) for word in words[at + 1 :]]
        if whole is None or not decimals or max(decimals) > 9:
            return None
        return whole + Fraction(int("".join(map(str, decimals))), 10 ** len(decimals))
    return _cardinal(words)


def _cardinal(words: list[str]) -> Fraction | None:
    if words[0][0].isdigit():  # 1.5 million
        scales = [{**_SCALES, "hundred": 100, "dozen": 12}.get(word, 0) for word in words[1:]]
        return Fraction(words[0].replace(",", "")) * math.prod(scales) if all(scales) else None
    total = group = 0
    room, scale_room = 10**3, 10**15  # what comes next has to be smaller
    for word in words:
        small = _SMALL.get(word) or _TENS.get(word)
        if word == "and":
            continue
        if small and small < room:
            group, room = group + small, 10 if small >= 20 else 0
        elif word == "hundred" and group < 20:
            group, room = max(group, 1) * 100, 100
        elif word in _SCALES and _SCALES[word] < scale_room:
            scale_room, room = _SCALES[word], 10**3
            total, group = total + max(group, 1) * scale_room, 0
        elif word == "dozen" and word == words[-1] and total == 0:
            group = max(group, 1) * 12
        elif words != ["zero"]:
            return None
    return Fraction(total + group)


def _chinese_figures(run: re.Match[str]) -> str:
    if run[2]:
        return _written(Fraction(run[2]) * math.prod(_CHINESE_SCALES[scale] for scale in run[3]))
    text = run[0]
    sign, text = ("-", text[1:]) if text[0] == "负" else ("", text)
    half, text = (5, text[:-1]) if text[-1] == "半" else (0, text)
    whole, _, decimals = text.partition("点")
    number = _chinese(whole)
    if number is None or (half and decimals):
        return run[0]
    digits = "".join(str(_CHINESE_FIGURES[one]) for one in decimals) or (str(half) if half else "")
    return f"{sign}{number}{'.' + digits if digits else ''}"


def _chinese_part(run: re.Match[str]) -> str:
    """三分之一 is 1/3, 百分之五 is 5%."""
    whole, part = map(_chinese, run.groups())
    if not whole or part is None:
        return run[0]
    return f"{part}%" if run[1] == "百" else f"({part}/{whole})"


def _chinese(text: str) -> int | None:
    total = section = figure = 0
    if len(text) > 1 and all(one in _CHINESE_FIGURES for one in text):  # 二〇二四
        return int("".join(str(_CHINESE_FIGURES[one]) for one in text))
    for index, one in enumerate(text):
        if one in _CHINESE_FIGURES:
            if figure or (index and text[index - 1] in _CHINESE_FIGURES and text[index - 1] not in "零〇"):
                return None
            figure = _CHINESE_FIGURES[one]
        elif (scale := _CHINESE_SCALES[one]) < 10**4:
            section, figure = section + (figure or 1) * scale, 0
        else:
            total, section, figure = (total + section + figure) * scale, 0, 0
    return total + section + figure
