"""Numbers as people write them: separators, percent, scientific notation, fractions, units, currency, words."""

import re
import unicodedata
from fractions import Fraction
from typing import NamedTuple

LONGEST = 300  # characters; nothing longer states one number
LARGEST_EXPONENT = 400


class Number(NamedTuple):
    """A number and how it was written: the step of its last decimal (`None` for integers and fractions), its unit."""

    value: Fraction
    step: Fraction | None = None
    unit: str = ""

    @property
    def is_percent(self) -> bool:
        """Whether it was written with a percent sign."""
        return self.unit == "%"


_SPELLING = {
    **dict.fromkeys("−–—‒﹣－", "-"),
    **dict.fromkeys("×·⋅∙✕", "*"),
    **dict.fromkeys("\u00a0\u2009\u202f\u2007", " "),
    **{power: f"^{digit}" for digit, power in enumerate("⁰¹²³⁴⁵⁶⁷⁸⁹")},
    **{vulgar: " " + unicodedata.normalize("NFKC", vulgar).replace("⁄", "/") for vulgar in "½⅓⅔¼¾⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞"},
    **{"⁻": "^-", "٫": ".", "٬": ",", "’": "'", "º": "°", "˚": "°"},
}
_TRANSLATION = str.maketrans(_SPELLING)
_LATEX = (
    (re.compile(r"\\[dtc]?frac\s?\{(-?\d{1,50})\}\s?\{(\d{1,50})\}"), r" \1/\2"),
    (re.compile(r"\\[dtc]?frac\s?(\d)\s?(\d)"), r" \1/\2"),
    (re.compile(r"\\(?:times|cdot|ast)(?![a-zA-Z])"), "*"),  # no \b: there is none between "s" and "10"
    (re.compile(r"\^\s?\{?\s?\\circ\s?\}?|\\degree(?![a-zA-Z])"), "°"),
    (re.compile(r"\{,\}"), ","),
    (
        re.compile(
            r"\\(?:text|mathrm|mathbf|textbf|rm|bf|mathit|operatorname)(?![a-zA-Z])|\\[()\[\],;:! ]|~|\\(?=[%$])"
        ),
        " ",
    ),
    (re.compile(r"\*\*|(?<!\\)\$(?!\s?\d)|__"), ""),
)
CJK = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"  # letters that stand beside a number without a space
# Every repeat is bounded or meets a character that it cannot take: nothing to backtrack into.
_START = rf"(?<![^\W{CJK}])(?<![.^/\\])"
_NUMBER = re.compile(
    _START
    + r"""
    (?P<sign>[-+]\s?)? (?:(?:US)?[$€£¥₹₩₽]\s?(?P<inner_sign>-)?)?
    (?: (?P<whole>\d{1,30})\s{1,2}(?=\d{1,30}/\d) )?
    (?P<digits>
        [1-9]\d{0,2}(?:,\d{3})+(?!\d)(?:\.\d+)?         # 1,234,567.8
      | [1-9]\d{0,2}(?:\.\d{3})+,\d+                    # 1.234,5
      | [1-9]\d{0,2}(?:\.\d{3}){2,}(?!\d)               # 1.234.567
      | [1-9]\d{0,2}(?:[ ']\d{3})+(?!\d)(?:[.,]\d+)?    # 1 234,5
      | \d+[.,]\d+ | \d+\.? | \.\d+
    )
    (?:/(?P<denominator>\d{1,50}))?
    (?: [eE](?P<exponent>[-+]?\d{1,4})(?!\d) | \s?[*x]\s?10\s?\^\s?[{(]?\s?(?P<power>[-+]?\s?\d{1,4})\s?[})]? )?
    """,
    re.VERBOSE,
)
_CURRENCY = "$€£¥₹₩₽"
_UNIT = re.compile(
    r"""
    \s{0,2} ( % | (?:°|[dD]eg(?:rees?)?) \s? ([CFcf]) (?:elsius|ahrenheit)? (?![^\W\d_])
      | [^\W\d_]{1,20} (?: \^-?\d | [23](?!\d) )? (?: / [^\W\d_]{1,10} (?:\^\d)? )? | ° )
    """,
    re.VERBOSE,
)
_TRAILING_UNIT = re.compile(  # as LaTeX has it: { m}^{2}, {km}/{h}
    r"""
    (?<![\\^a-zA-Z]) \{? \s? (?<![\\^a-zA-Z]) (?:[^\W\d_]{1,10}|°) \s? \}? (?: \^ \s? \{? [23] \}? )?
    (?: \s? / \s? \{? \s? [^\W\d_]{1,3} \s? \}? (?: \^ \s? \{? [23] \}? )? )? \s? \}? $
    """,
    re.VERBOSE,
)
_LONE_LETTER = re.compile(r"(?<![\\a-zA-Z])[a-zA-Z]")
_EXPRESSION = re.compile(r"\s?[\^!√*/\\]")
_FUNCTION = re.compile(r"(?<![a-zA-Z])(?:sqrt|sin|cos|tan|cot|ln|log|exp)\s?(?=[\d(])")
_VARIABLE = re.compile(r"\d[a-zA-Z](?![a-zA-Z])")
_REMARK = re.compile(r"\([^()]{0,200}\)")
_LEAD_IN = re.compile(r".*(?:=|≈|≃|\\(?:approx|equiv)(?![a-zA-Z]))", re.DOTALL)
_TEENS = "ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen"
_WORDS = {word: n for n, word in enumerate(f"zero one two three four five six seven eight nine {_TEENS}".split())}
_TENS = {"twenty": 20, "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60, "seventy": 70, "eighty": 80, "ninety": 90}
_SCALES = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_PARTS = {
    "half": 2,
    "halves": 2,
    "third": 3,
    "quarter": 4,
    "fourth": 4,
    "fifth": 5,
    "sixth": 6,
    "eighth": 8,
    "tenth": 10,
}
_PART = rf"(?:half|halves|(?:{'|'.join(list(_PARTS)[2:])})s?)\b"
_CARDINAL = rf"(?:{'|'.join([*_WORDS, *_TENS, *_SCALES, 'hundred', 'dozen'])})\b"
# A whole run of words: "five" alone is no part of "forty-five", "five million", "minus five" or "five sixths".
_NUMBER_WORDS = re.compile(
    rf"\b(?:(?:minus|negative)[\s-]{{1,2}})?(?:half\b|{_CARDINAL}"
    rf"(?:[\s-]{{1,3}}(?:(?:and|point)\s{{1,2}})?{_CARDINAL})*+(?:[\s-]{{1,2}}{_PART})?+)",
    re.IGNORECASE,
)
_SIGN_WORD = re.compile(r"\b(?:minus|negative)\s{1,2}(?=[\d.])", re.IGNORECASE)
_MIXED = re.compile(rf"\d\s{{1,2}}(?:and\s{{1,2}})?(?:(?:an?|one|two|three)\s{{1,2}})?{_PART}", re.IGNORECASE)
_BEHIND_DIGITS = _SCALES | {"hundred": 100, "dozen": 12, "百": 100, "千": 10**3, "万": 10**4, "萬": 10**4}
_BEHIND_DIGITS |= {"亿": 10**8, "億": 10**8, "만": 10**4, "억": 10**8}

# unit -> its size in each dimension that it may be of. Units that are not here are words, and words are not compared.
_UNITS: dict[str, dict[str, Fraction]] = {}
for _dimension, _sizes in {
    "length": "nm 1e-9 μm 1e-6 mm 1e-3 cm 1e-2 dm 1e-1 m 1 km 1e3 in 0.0254 ft 0.3048 yd 0.9144 mi 1609.344",
    "area": "mm^2 1e-6 cm^2 1e-4 dm^2 1e-2 m^2 1 km^2 1e6",
    "volume": "mm^3 1e-9 cm^3 1e-6 ml 1e-6 mL 1e-6 dm^3 1e-3 l 1e-3 L 1e-3 ML 1e3 m^3 1",
    "mass": "mg 1e-6 g 1e-3 kg 1 Mg 1e3 t 1e3",
    "density": "kg/m^3 1 g/cm^3 1e3",
    "time": "ms 1e-3 s 1 min 60 h 3600",
    "speed": "m/s 1 km/s 1e3 cm/s 1e-2 km/h 5/18 km/hr 5/18 kmh 5/18 mph 0.44704",
    "acceleration": "m/s^2 1 cm/s^2 1e-2",
    "frequency": "Hz 1 kHz 1e3 MHz 1e6 GHz 1e9",
    "angle": "° 1",
    "celsius": "°C 1 C 1",
    "fahrenheit": "°F 1 F 1",
    "kelvin": "K 1",
    "charge": "C 1",
    "force": "mN 1e-3 N 1 kN 1e3 MN 1e6",
    "pressure": "Pa 1 hPa 1e2 kPa 1e3 MPa 1e6",
    "energy": "mJ 1e-3 J 1 kJ 1e3 MJ 1e6 eV 1.602176634e-19",
    "power": "mW 1e-3 W 1 kW 1e3 MW 1e6",
    "voltage": "mV 1e-3 V 1 kV 1e3 MV 1e6",
    "current": "mA 1e-3 A 1",
    "resistance": "mΩ 1e-3 Ω 1 kΩ 1e3 MΩ 1e6",
}.items():
    _names = _sizes.split()
    for _name, _size in zip(_names[::2], _names[1::2], strict=True):
        _UNITS.setdefault(_name, {})[_dimension] = Fraction(_size)
_SPELLED = {
    word: unit
    for unit, words in {
        "m": "meter metre 米",
        "cm": "centimeter centimetre 厘米",
        "mm": "millimeter millimetre 毫米",
        "km": "kilometer kilometre 千米 公里",
        "g": "gram 克",
        "kg": "kilogram 千克 公斤",
        "s": "second sec 秒",
        "min": "minute min 分钟",
        "h": "hour hr 小时",
        "in": "inch inche",
        "ft": "feet foot",
        "mi": "mile",
        "l": "liter litre",
        "°": "deg degree 度",
        "°C": "celsius",
        "°F": "fahrenheit",
        "K": "kelvin",
        "N": "newton",
        "J": "joule",
        "W": "watt",
        "V": "volt",
        "A": "ampere amp",
        "Ω": "ohm",
        "%": "percent pct",
    }.items()
    for word in words.split()
}


def _in_any_case(unit: str) -> str:
    """Fold the case of a unit, but not of an M: a megawatt is no milliwatt. A lone letter may be a variable."""
    return unit if len(unit) == 1 else unit[0].replace("M", "mega").casefold() + unit[1:].casefold()


_FOLDED = {_in_any_case(name): name for name in _UNITS}


def read_number(text: str) -> Number | None:
    r"""Read the one number that a text states, or `None` where it states none or several.

    >>> read_number("about 1,234.50 km").value, read_number(r"$\frac{3}{4}$").value, read_number("2.5 x 10^3").value
    (Fraction(2469, 2), Fraction(3, 4), Fraction(2500, 1))
    >>> read_number("12%").unit, read_number("There are five apples.").value, read_number("3 or 4")
    ('%', Fraction(5, 1), None)

    What stands before the last "=" or "≈" and what stands in parentheses after the number is not part of it. The same
    number twice is one number. A comma is a decimal comma unless it groups three digits.
    """
    if len(text) > LONGEST:
        return None
    text = _LEAD_IN.sub("", _plain(text))
    if "\\" in text or "√" in text or _MIXED.search(text) or _FUNCTION.search(text):
        return None
    for candidate in (_REMARK.sub(" ", text), text):
        matches = list(_NUMBER.finditer(candidate))
        if matches:
            numbers = [_number(match, candidate) for match in matches]
            return numbers[0] if len({number and number.value for number in numbers}) == 1 else None
    runs = list(_NUMBER_WORDS.finditer(text))
    spoken = {_spoken(re.split(r"[\s-]+", run[0].lower())) for run in runs}
    value = spoken.pop() if len(spoken) == 1 else None
    return None if value is None else Number(value, unit=_unit(text[runs[0].end() :]))


def plain_number(text: str) -> Number | None:
    r"""Read a text that is a number and nothing else, percent and currency signs aside; `None` for all other text.

    >>> plain_number("-1/2").value, plain_number(r"50\%").unit, plain_number("3 cm"), plain_number("1,2")
    (Fraction(-1, 2), '%', None, None)

    Unlike in `read_number` a comma only groups: "1,2" may be a pair.
    """
    number, rest = _leading_number(text)
    return number if rest in ("", "%", *_CURRENCY) else None


def plain_quantity(text: str) -> Number | None:
    """Read a text that is a number with a known unit and nothing else; `None` for all other text.

    >>> plain_quantity("v = 50 km/h").unit, plain_quantity("3m"), plain_quantity("3 m n"), plain_quantity("3 apples")
    ('km/h', None, None, None)

    The "m" of "3m" may be a variable, as in `quantity`.
    """
    number, rest = _leading_number(_LEAD_IN.sub("", text) if len(text) <= LONGEST else text)
    if number is None or number.unit not in _UNITS or _VARIABLE.search(text):
        return None
    return number if _UNIT.fullmatch(rest) else None


def _leading_number(text: str) -> tuple[Number | None, str]:
    """Read the number that a text begins with, and return what follows it. Here a comma only groups."""
    plain = _plain(text).strip().removesuffix(".") if len(text) <= LONGEST else ""
    match = _NUMBER.match(plain)
    if match is None:
        return None, plain
    if "," in match["digits"] and not re.fullmatch(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?", match["digits"]):
        return None, plain
    return _number(match, plain), plain[match.end() :].strip()


def same_quantity(gold: Number, answer: Number, tolerance: float | None) -> bool:
    """Tell whether an answer is the gold quantity, in any unit of its kind.

    >>> def same(gold, answer, tolerance=None):
    ...     return same_quantity(read_number(gold), read_number(answer), tolerance)
    >>> same("3.46", "3.4641"), same("5 cm", "50 mm"), same("5 cm", "5 m")
    (True, True, False)
    >>> same("200", "205"), same("200", "205", tolerance=0.05)
    (False, True)

    `tolerance` is relative. With `None` the answer has to agree with every digit that the gold states: with an integer
    exactly, with a decimal to half a unit of its last place, with a fraction to six decimals and to a ten-thousandth
    of itself. A unit that one side leaves out is taken to be the other's; 50% is also 50 and 0.5.
    """
    return any(_within(candidate, gold, tolerance) for candidate in in_unit_of(gold, answer))


def in_unit_of(gold: Number, answer: Number) -> set[Fraction]:
    """Return what an answer may amount to in the gold's unit: two values where only one of them has a percent sign.

    >>> sorted(in_unit_of(read_number("5 cm"), read_number("50 mm")))
    [Fraction(5, 1)]
    """
    if gold.is_percent != answer.is_percent:
        other = answer if gold.is_percent else gold
        if other.unit in _UNITS:
            return set()
        return {answer.value, answer.value / 100 if answer.is_percent else answer.value * 100}
    if gold.unit in _UNITS and answer.unit in _UNITS:
        sizes, other_sizes = _UNITS[gold.unit], _UNITS[answer.unit]
        return {answer.value * other_sizes[kind] / sizes[kind] for kind in sizes.keys() & other_sizes.keys()}
    return {answer.value}


def quantity(gold: str) -> Number | None:
    """Read a gold that has a percent sign or a known unit, or `None`.

    >>> quantity("5 cm").unit, quantity("5 apples"), quantity("3m")
    ('cm', None, None)

    The "m" of "3m" means metres only to those who know the question: it may be a variable.
    """
    number = read_number(gold)
    if number is None or _VARIABLE.search(gold) or not (number.is_percent or number.unit in _UNITS):
        return None
    return number


def leeway(gold: Fraction) -> Fraction:
    """Return the error beyond which no answer is a gold, however many decimals agree: 0 is not 1.6e-19.

    >>> leeway(Fraction(1, 2))
    Fraction(1, 20000)
    """
    return abs(gold) / 10**4


def split_unit(text: str) -> tuple[str, str]:
    r"""Separate the known unit behind an expression, which `read_number` does not read, from the expression.

    >>> split_unit(r"\sqrt{25} \text{ m}^2"), split_unit(r"x = 5\pi cm"), split_unit("2 g m"), split_unit("5 + m")
    (('\\sqrt{25}', 'm^2'), ('5\\pi', 'cm'), ('2 g m', ''), ('5 + m', ''))

    Behind a variable or an operator it is a variable as well.
    """
    if len(text) > LONGEST:
        return text, ""
    plain = _LEAD_IN.sub("", _plain(text)).strip().removesuffix(".")
    match = _TRAILING_UNIT.search(plain)
    unit = _unit(re.sub(r"[\s{}]", "", match[0])) if match else ""
    if match is None or unit not in _UNITS:
        return text, ""
    expression = plain[: match.start()].strip()
    if not expression or expression[-1] in "+-*/^=(," or _LONE_LETTER.search(expression):
        return text, ""
    return expression.replace("*", r"\cdot "), unit


def _within(value: Fraction, gold: Number, tolerance: float | None) -> bool:
    error = abs(value - gold.value)
    if tolerance is not None:
        return error <= Fraction(tolerance) * abs(gold.value)
    if gold.step is not None:
        return error <= gold.step / 2
    return error == 0 if gold.value.denominator == 1 else error <= min(Fraction(1, 2 * 10**6), leeway(gold.value))


def _plain(text: str) -> str:
    text = unicodedata.normalize("NFKC", text.translate(_TRANSLATION))
    for pattern, replacement in _LATEX:
        text = pattern.sub(replacement, text)
    text = _SIGN_WORD.sub("-", text)
    text = text.strip(" *_")
    return text.replace("{", "").replace("}", "") if "\\" not in text else text


def _number(match: re.Match[str], text: str) -> Number | None:
    """Return the number that was matched; `None` where it is part of an expression or too large to be meant."""
    if _EXPRESSION.match(text, match.end()):
        return None
    exponent = int((match["exponent"] or match["power"] or "0").replace(" ", ""))
    if abs(exponent) > LARGEST_EXPONENT or (match["denominator"] and int(match["denominator"]) == 0):
        return None
    digits = _decimal_point(match["digits"])
    decimals = len(digits.partition(".")[2])
    scale = Fraction(10) ** exponent
    value = Fraction(digits) * scale
    step = Fraction(1, 10**decimals) * scale if decimals else None
    if match["denominator"]:
        value, step = value / int(match["denominator"]), None
    if match["whole"]:
        value += int(match["whole"])
    if "-" in (match["sign"] or "") or match["inner_sign"]:
        value = -value
    unit = _unit(text[match.end() :])
    if re.fullmatch(rf"[^\W\d_{CJK}]", unit) and unit not in _UNITS and text[match.end()] != " ":
        return None  # 3x
    scale = Fraction(_BEHIND_DIGITS.get(unit.casefold()) or _BEHIND_DIGITS.get(unit[:1], 0))
    if scale:
        value, step, unit = value * scale, step and step * scale, ""
    return Number(value, step, unit)


def _spoken(words: list[str]) -> Fraction | None:
    """Return the number that a run of words states; `None` where it states none as a whole.

    >>> _spoken(["minus", "forty", "five"]), _spoken(["two", "thirds"]), _spoken(["one", "hundred", "and", "five"])
    (Fraction(-45, 1), Fraction(2, 3), Fraction(105, 1))
    >>> _spoken(["five", "six"]), _spoken(["twenty", "fifth"])
    (None, None)
    """
    if words[0] in ("minus", "negative"):
        value = _spoken(words[1:])
        return None if value is None else -value
    part = _PARTS.get(words[-1]) or _PARTS.get(words[-1].removesuffix("s"))
    if part:
        counted = 1 if len(words) == 1 else _WORDS.get(words[0], 0) if len(words) == 2 else 0
        plural = words[-1] == "halves" or words[-1].endswith("s")
        return Fraction(counted, part) if counted == 1 or (counted and plural) else None
    total = group = 0
    room, scale_room = 10**3, 10**15  # what comes next has to be smaller
    for word in words:
        small = _WORDS.get(word) or _TENS.get(word)
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


def _decimal_point(digits: str) -> str:
    """Drop the separators that group, and write the one that is decimal as a point."""
    digits = digits.replace(" ", "").replace("'", "").rstrip(".")
    last = max(digits.rfind(","), digits.rfind("."))
    if last < 0:
        return digits
    whole, separator, decimals = digits[:last], digits[last], digits[last + 1 :]
    groups = whole.count(separator) > 0 or (
        separator == "," and len(decimals) == 3 and whole.lstrip("0") == whole != ""
    )
    whole = whole.replace(",", "").replace(".", "")
    return whole + decimals if groups else f"{whole or '0'}.{decimals}"


def _unit(rest: str) -> str:
    match = _UNIT.match(rest)
    if match is None:
        return ""
    if match[2]:
        return "°" + match[2].upper()
    unit = re.sub(r"(?<=m)([23])$", r"^\1", match[1].replace(" ", ""))
    word = unit.casefold()
    spelled = _SPELLED.get(word) or (_SPELLED.get(word.removesuffix("s")) if len(word) > 2 else None)
    return spelled or (unit if unit in _UNITS else _FOLDED.get(_in_any_case(unit), unit))
