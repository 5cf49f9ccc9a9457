"""A whole text as one mathematical value: a quantity with its unit, a sequence, a relation, or nothing."""

import itertools
import re
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache, partial
from typing import NamedTuple

from trl_onevision.answers import expression
from trl_onevision.answers.expression import Parser, Token, Tree, Undefined, Unknown, Unreadable, symbols
from trl_onevision.answers.markup import plain
from trl_onevision.answers.numerals import CJK, with_figures
from trl_onevision.answers.sentence import NAME, affirmed, cores
from trl_onevision.answers.stance import is_asserted
from trl_onevision.answers.units import Unit, read_unit


class Quantity(NamedTuple):
    """An expression, what its unit may be, the words of a unit that is not known, and the name that it was given."""

    tree: Tree
    units: tuple[Unit, ...] = ()
    word: str = ""
    name: str = ""

    @property
    def is_percent(self) -> bool:
        """Whether it was written with a percent sign."""
        return any(unit.dimension == (("%", 1),) for unit in self.units)

    @property
    def is_numeral(self) -> bool:
        """Whether it is written as one number, and not computed."""
        return self._unsigned[0] == "num"

    @property
    def step(self) -> Decimal | None:
        """The step of the last decimal of a number; `None` of an integer and of an expression."""
        return self._unsigned[2] if self.is_numeral else None

    @property
    def _unsigned(self) -> Tree:
        return self.tree[1] if self.tree[0] == "-" else self.tree


class Sequence(NamedTuple):
    """Values in brackets, or without any, or joined: then their order is nothing."""

    brackets: str
    parts: tuple["Value", ...]
    of: str = ""  # whose interval it is, where inequalities say it


class Relation(NamedTuple):
    """An equation or an inequality between two expressions."""

    sign: str
    left: Tree
    right: Tree


class Algebra(NamedTuple):
    """Mathematics beyond this grammar, as it is written: sums, integrals, matrices."""

    text: str


Value = Quantity | Sequence | Relation | Algebra

_SIGNS = dict(zip("=<>≤≥≠≈≃≅∼⩽⩾", "=<>≤≥≠≈≈≈≈≤≥", strict=True))
_SIGN_COMMANDS = {"le": "≤", "leq": "≤", "leqslant": "≤", "ge": "≥", "geq": "≥", "geqslant": "≥", "lt": "<", "gt": ">"}
_SIGN_COMMANDS |= {"ne": "≠", "neq": "≠", "approx": "≈", "equiv": "=", "simeq": "≈", "sim": "≈", "doteq": "≈"}
(DEGREE,), (RADIAN,) = read_unit("°"), read_unit("rad")
_JOINTS = ("or", "and", "或", "和", "与", "或者", "及", "以及")
_HENCE = re.compile(
    r"=>|[→∴]|\\(?:Rightarrow|implies|therefore)(?![a-z])|\b(?:so|then|thus|hence|therefore)\b|所以|因此|[故得]",
    re.IGNORECASE,
)
_MEMBER = re.compile(r"\A[A-Za-z]\s?(?:∈|\\in(?![A-Za-z]))")  # "x ∈ (0, 1)" is the interval
_MONEY = re.compile(r"^(-?\s?)((?:US\s?)?\\\$|[€£¥₹₩₽]|USD|EUR|GBP|RMB|CNY)\s?(?=[-\d.(])")
# "red apples in the picture" may follow a number; "or more", "of 7", "if it rains", "to 9" may not.
_NO_NOUN_WORDS = (
    "and to than more less fewer plus minus times of is are was were does do did if unless when while but so because "
    "since would should from least most greater smaller then that which who as through until before after into "
    "divided multiplied modulo mod squared cubed factorial percent half thirds hundredths thousandths hundred "
    "thousand million billion trillion mln mn bn dozen point ish something past out kilo mille tens "
    "minimum maximum zero tops max ago hence shy short off "
    "lakh lakhs crore crores score gross dozens halved doubled tripled fold nan null undefined"
)
_NO_NOUN = frozenset(_NO_NOUN_WORDS.split())
_AND_OF_UNITS = re.compile(
    r"(\d\s?([^\W\d_]{1,20}))(?:,|\sand|,\sand)\s(\d{1,9}(?:\.\d{1,9})?\s?([^\W\d_]{1,20}))(?![\w/^])"
)
_NO_TAIL = re.compile(r"[和与及上下多少超余几至到的成折分比左か前出]")
_COUNTER_WORDS = "个 個 只 条 本 名 位 张 つ 個 개 项 unit item one piece total altogether answer"
_COUNTERS = frozenset(_COUNTER_WORDS.split())
MOST_WORDS = 6


LENGTH = re.compile(r"[\d.,+\-√{}()\s]{0,30}\d[\d.,√{})\s]{0,30}m")  # in geometry: of other letters nobody knows


@lru_cache(maxsize=8192)
def read(text: str, number: bool = False) -> Value | None:
    r"""Read a text as one value; `None` where it states none as a whole.

    >>> read("The result is 3 cm.").word, read("x + 3 apples or so"), read("Figure 3 does not show it")
    ('', None, None)
    >>> read("1, 2").brackets, read("(1, 2)").brackets, read("x > 5").sign
    ('', '()', '>')

    `number`: in a row that asks for a number "1,5" has a decimal comma, and the letter of "3m" is a unit.
    """
    text = affirmed(plain(text))
    if len(text) > expression.LONGEST:
        return None
    is_algebra = False
    for candidate in filter(None, cores(text)):
        try:
            return _value(with_figures(candidate), number)
        except Unknown:
            is_algebra = True
        except Undefined:
            return None
        except (Unreadable, RecursionError):
            continue
    return Algebra(text) if is_algebra and is_asserted(text) and not is_prose(text) else None


def is_prose(text: str) -> bool:
    """Whether a text has words: algebra would read each letter as a variable, and any anagram as equal.

    >>> is_prose("red car"), is_prose(r"\\int_0^1 x dx"), is_prose("cos(2x)")
    (True, False, False)
    """
    found = _LATIN.findall(_ANY_COMMAND.sub(" ", text))
    return any(len(word) > 2 and word.casefold() not in _NO_PROSE for word in found)


_ANY_COMMAND = re.compile(r"\\(?:begin|end)\s?\{[a-zA-Z*]{1,20}\}|\\[a-zA-Z]{1,40}")
_LATIN = re.compile(r"[^\W\d_]{2,}")
_NO_PROSE_WORDS = "min max gcd lcm lim mod det and infinity deg mph rad mol inf"
_NO_PROSE = frozenset([*expression.FUNCTIONS, *_NO_PROSE_WORDS.split()])


def _value(text: str, number: bool) -> Value:
    text = expression.mixed(_MEMBER.sub("", text).replace(">=", "≥").replace("<=", "≤"))
    text = _HENCE.sub("⇒", text) if "=" in text else text
    money = _MONEY.match(text)
    if money:
        text = f"{money[1]}{text[money.end() :]} {money[2].replace('US', '', money[2] != 'USD')}"
    text = _AND_OF_UNITS.sub(_joined_units, text)
    tokens = expression.tokenize(text, groups=not _brackets_of(text), decimal_comma=number)
    parts = _split(tokens, (",", ";", "⇒", *_JOINTS))
    if len(parts) > 1:
        value = _derived([_related(text, part, number) for part in parts if part])
        if isinstance(value, Sequence) and "⇒" in text:
            raise Unreadable("values that follow from none")
        return value
    parts = _split(tokens, ("cup", "∪"))
    if len(parts) > 1:
        return Sequence("∪", tuple(_related(text, part, number) for part in parts))
    return _related(text, tokens, number)


def _derived(parts: list[Value]) -> Value:
    """A sequence, or the end of "x + 4 = 11, x = 7", whose equations have to hold for each value of their variable."""
    equations = [part for part in parts if isinstance(part, Relation) and part.sign == "="]
    values = [part for part in parts if part not in equations]
    for value, (_, left, right) in itertools.product(values, equations):
        if not isinstance(value, Quantity) or symbols(left) | symbols(right) != {value.name}:
            return Sequence("", tuple(parts))
        _check_equal([Quantity(_put(side, value)) for side in (left, right)])
    return values[0] if len(values) == 1 else Sequence("", tuple(values or parts))


def _put(tree: Tree, value: Quantity) -> Tree:
    """Put a value in the place of its name."""
    if tree == ("sym", value.name):
        return value.tree
    return tuple(_put(part, value) if isinstance(part, tuple) else part for part in tree)


def _joined_units(found: re.Match[str]) -> str:
    """Join "2 h and 30 min", whose second unit is a smaller one of the same kind; "2 m and 3 s" are two quantities."""
    large, small = read_unit(found[2]), read_unit(found[4])
    one = large and small and large[0].dimension == small[0].dimension and large[0].size > small[0].size
    return f"{found[1]} {found[3]}" if one else found[0]


def _brackets_of(text: str) -> str:
    """The brackets that hold a whole text, of which an interval may have two kinds; else nothing."""
    text = text.replace("\\{", "{").replace("\\}", "}")
    if len(text) < 2 or text[0] not in "([{" or text[-1] not in ")]}":
        return ""
    depths = itertools.accumulate((one in "([{") - (one in ")]}") for one in text[:-1])
    return text[0] + text[-1] if all(depths) else ""


def _split(tokens: list[Token], separators: tuple[str, ...]) -> list[list[Token]]:
    parts: list[list[Token]] = [[]]
    depth = 0
    for token in tokens:
        depth += (token.text in ("(", "[", "{")) - (token.text in (")", "]", "}"))
        if depth == 0 and token.text in separators and token.kind in ("op", "letters", "word", "command"):
            if parts[-1]:
                parts.append([])
        else:
            parts[-1].append(token)
    return parts if parts[-1] or len(parts) == 1 else parts[:-1]


def _related(text: str, tokens: list[Token], number: bool) -> Value:
    """A value, perhaps with its name ("x = 5") or the way to it ("3 + 4 = 7"); else a relation."""
    sides: list[list[Token]] = [[]]
    signs: list[str] = []
    for token in tokens:
        sign = {"op": _SIGNS, "command": _SIGN_COMMANDS}.get(token.kind, {}).get(token.text)
        if sign:
            signs.append(sign)
            sides.append([])
        else:
            sides[-1].append(token)
    if not signs:
        return _signed(text, tokens, number)
    if not all(sides[1:]):
        raise Unreadable("a side is missing")
    if {"=", "≈"}.issuperset(signs):
        return _chain(text, sides, number)
    if not sides[0]:
        raise Unreadable("a bound")
    if len(signs) > 1:
        return _interval([_plain_value(text, side, False) for side in sides], "".join(signs))
    left, right = (_plain_value(text, side, False) for side in sides)
    if isinstance(left, Quantity) and isinstance(right, Quantity):
        return Relation(signs[0], left.tree, right.tree)
    raise Unreadable(signs[0])


def _interval(sides: list[Value], signs: str) -> Sequence:
    """0 ≤ x < 1 is [0, 1), and so is 1 > x ≥ 0."""
    if signs[0] in ">≥":
        sides, signs = sides[::-1], signs[::-1].translate(str.maketrans(">≥<≤", "<≤>≥"))
    middle = sides[1]
    if signs not in ("<<", "<≤", "≤<", "≤≤") or not isinstance(middle, Quantity) or middle.tree[0] != "sym":
        raise Unknown("a chain of inequalities")
    return Sequence("(["[signs[0] == "≤"] + ")]"[signs[1] == "≤"], (sides[0], sides[2]), middle.tree[1])


def _chain(text: str, sides: list[list[Token]], number: bool) -> Value:
    """The end of a chain of equations: of "A = πr² = 78.5" its exact value; an equation in variables is a relation."""
    name = _name(text, sides[0])
    values = [_signed(text, side, number) for side in (sides if name is None else sides[1:])]
    quantities = [value for value in values if isinstance(value, Quantity)]
    if len(quantities) < len(values):
        if len(values) > 1:
            raise Unreadable("a chain")
        return values[0]
    *others, last = quantities
    if not others or (name and any(symbols(value.tree) for value in quantities)):
        return last._replace(name=name or "")
    if any(symbols(value.tree) for value in quantities):
        if len(others) > 1:
            raise Unknown("a chain of equations")
        return Relation("=", others[0].tree, last.tree)
    _check_equal(quantities)
    chosen = next((value for value in reversed(quantities) if value.step is None), last)
    measured = [value for value in quantities if (value.units or value.word) and not value.is_percent]
    chosen, unit, _ = aligned(chosen, [chosen, *measured][-1])
    return Quantity(chosen.tree, chosen.units or unit.units, chosen.word or unit.word, name or "")


def _name(text: str, tokens: list[Token]) -> str | None:
    """What the head of a chain names, nothing where the chain begins with its sign; `None` where it is a value."""
    if not tokens:
        return ""
    first = text[tokens[0].start : tokens[-1].end]
    try:
        value = _plain_value(text, tokens, False)
    except (Unreadable, Unknown, Undefined):
        value = None
    # An operation on symbols is no name: "ab" may be a line, "2x" and "x + y" are terms.
    head, *operands = value.tree if isinstance(value, Quantity) else ("sym",)
    is_term = head not in ("sym", "*") or any(one[0] == "num" for one in operands if isinstance(one, tuple))
    if NAME.fullmatch(first) and (first.isupper() or is_asserted(first)) and not is_term:
        return re.sub(r"\s", "", first)
    if value is None or (head == "sym" and isinstance(value, Quantity) and symbols(value.tree)):
        raise Unreadable(first)
    return None


def _check_equal(values: list[Quantity]) -> None:
    """Refuse "2 + 2 = 5" and "12 cm = 0.13 m": a chain whose sides differ by more than rounding or cutting off."""
    *others, last = values
    for one in others:
        one, end, factors = aligned(one, last)
        if factors and not any(_shows(one, end, factor) or _shows(end, one, 1 / factor) for factor in factors):
            raise Unreadable("its sides differ")


def aligned(gold: Quantity, given: Quantity) -> tuple[Quantity, Quantity, list[Fraction]]:
    """Return two quantities and the factors that turn the second's unit into the first's; none if of two kinds.

    A unit that one side leaves out is the other's. 50% is also 50 and 0.5. A unit that is not known may be left out,
    and is no other. π/3 beside degrees is an angle in radians; any other number without a unit is one of degrees.
    """
    gold, given = _in_degrees(gold, given), _in_degrees(given, gold)
    wanted, said = set(gold.word.split()), set(given.word.split())
    factors = [Fraction(1)] if wanted <= said or said <= wanted else []
    if gold.is_percent != given.is_percent:
        bare = not (given.units or given.word) if gold.is_percent else not (gold.units or gold.word)
        factors = [Fraction(1), Fraction(100) if gold.is_percent else Fraction(1, 100)] if bare else []
    elif gold.units and given.units:
        pairs = itertools.product(gold.units, given.units)
        factors = list(dict.fromkeys(two.size / one.size for one, two in pairs if one.dimension == two.dimension))
    elif (gold.units and given.word) or (gold.word and given.units):
        factors = []
    return gold, given, factors


def _in_degrees(angle: Quantity, other: Quantity) -> Quantity:
    plain = not angle.units and not angle.word
    if DEGREE not in other.units or "pi" not in expression.names(angle.tree) or not (plain or RADIAN in angle.units):
        return angle
    return Quantity(("/", ("*", angle.tree, _integer(180)), ("sym", "pi")), other.units)


def _shows(exact: Quantity, shown: Quantity, factor: Fraction) -> bool:
    """Whether a number, times `factor`, is a value to its last digit: √2 is 1.41 and 1.414, and not 1.5."""
    value, number = (expression.evaluate(one.tree, 40) for one in (exact, shown))
    scale = Decimal(factor.numerator) / factor.denominator
    missing = abs(value) - abs(number * scale)
    step = (shown.step or 0) * scale
    rounding = abs(value).scaleb(-9)
    return value * number >= 0 and -step / 2 - rounding <= missing <= max(step - rounding, rounding)


def _signed(text: str, tokens: list[Token], number: bool) -> Value:
    """A value that may have one ±: then it is two."""
    for index, token in enumerate(tokens):
        if token.text in ("±", "pm") and token.kind in ("op", "command"):
            if any(other.text in ("±", "pm", "mp") for other in tokens[index + 1 :]):
                raise Unknown("several ±")
            both = [[*tokens[:index], token._replace(kind="op", text=sign), *tokens[index + 1 :]] for sign in "+-"]
            return Sequence("", tuple(_plain_value(text, one, number) for one in both))
    return _plain_value(text, tokens, number)


def _plain_value(text: str, tokens: list[Token], number: bool) -> Value:
    if not tokens:
        raise Unreadable("nothing")
    own = text[tokens[0].start : tokens[-1].end]
    brackets = _brackets_of(own)
    if brackets and len(inside := _split(tokens[1:-1], (",", ";"))) > 1:
        return Sequence(brackets, tuple(_plain_value(text, part, number) for part in inside))

    parser = Parser(text, list(tokens), partial(_unit_at, number=number))
    tree = parser.parse()
    units, word, more = parser.unit
    if more:  # 2 h 30 min
        rest = _value(more, True)
        if not isinstance(rest, Quantity) or not rest.units or rest.units[0].dimension != units[0].dimension:
            raise Unreadable(more)
        factor = rest.units[0].size / units[0].size
        tree = ("+", tree, ("/", ("*", rest.tree, _integer(factor.numerator)), _integer(factor.denominator)))
    return Quantity(tree, units, word)


def _integer(value: int) -> Tree:
    return ("num", Decimal(value), None)


def _unit_at(
    rest: str, token: Token, first: bool, tree: Tree, previous: Token, number: bool
) -> tuple[tuple[Unit, ...], str, str] | None:
    """Read a unit that takes all the rest of a text; `None` where what starts there is mathematics.

    A unit that is known, the words of one that is not, and a second quantity behind the unit: "2 h 30 min".
    """
    if token.text in ("*", "/", "(", "{", "[", "^", "-", "+", "|", "√", ":", "!", "st", "nd", "rd", "th"):
        return None
    if token.kind == "number" or (token.kind == "command" and token.text not in ("Omega", "mu", "$")):
        return None
    compound = re.match(r"([^\W\d_]+)\s?(?=\d)", rest)
    if compound and tree[0] == "num" and (units := read_unit(compound[1])):
        return units, "", rest[compound.end() :]
    units = read_unit(rest)
    is_word = token.kind == "word" or (token.kind == "letters" and len(token.text) > 2)
    if units:
        if token.kind in ("letters", "greek") and len(token.text) == 1 and not number:
            upright = token.spaced and first and previous.kind != "letters"
            measured = previous.kind != "number" and re.search(r"^m\s?\^\s?\{?[23]|/", rest)
            by = previous.kind == "number" and "/" in rest
            if not (upright or measured or by):
                return None
        is_unit = not symbols(tree) or (len(token.text) > 1 and (token.spaced or is_word))
        return (units, "", "") if is_unit else None
    word = noun(rest) if is_word and not symbols(tree) else None
    return None if word is None else ((), word, "")


def noun(text: str) -> str | None:
    """Return the words that follow a number, folded; `None` where they say more than what is counted.

    >>> noun("Red apples"), noun("or more"), noun("apples in total"), noun("个")
    ('red apple', None, 'apple in', '')
    """
    text = text.strip()
    if re.fullmatch(rf"[{CJK}]{{1,8}}", text):
        return None if _NO_TAIL.search(text) or not is_asserted(text) else "" if text in _COUNTERS else text
    if not re.fullmatch(r"[A-Za-z'’\-\s]+", text):
        return None
    words = text.lower().split()
    if not 1 <= len(words) <= MOST_WORDS or _NO_NOUN.intersection(words) or not is_asserted(text):
        return None
    singular = (re.sub(r"(?<=..[a-rt-z])s$", "", word) for word in words)
    return " ".join(word for word in singular if word not in _COUNTERS)
