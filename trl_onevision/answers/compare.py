"""Whether two values are equal: exactly, to the digits that the gold states, or to a tolerance."""

import contextlib
import zlib
from decimal import Decimal
from fractions import Fraction

from trl_onevision.answers import parse
from trl_onevision.answers.expression import Huge, Tree, Undefined, evaluate, evaluate_all, rational, symbols
from trl_onevision.answers.markup import normalize
from trl_onevision.answers.parse import Algebra, Quantity, Relation, Sequence, Value, aligned

DIGITS, MANY_DIGITS = 50, 400  # what two sides agree to at first is checked with many: 1 + 10^-301 is not 1
LEEWAY = Decimal("5e-7")  # of a decimal answer to an exact gold: 0.333333 is 1/3
SMALL_LEEWAY = Decimal("1e-4")  # and relative: 0 is not 1.6e-19
POINTS = 5
_ORDERED = {"<": ">", ">": "<", "≤": "≥", "≥": "≤", "=": "=", "≠": "≠", "≈": "≈"}


def same(gold: Value, given: Value, tolerance: float | None = None) -> bool | None:
    """Whether a given value is the gold; `None` where it takes more algebra to say.

    >>> def equal(gold, given):
    ...     return same(parse.read(gold), parse.read(given))
    >>> equal("22.6", r"16\\sqrt{2}"), equal("5 cm", "50 mm"), equal("5 cm", "5"), equal("5 cm", "5 m")
    (True, True, True, False)
    >>> equal(r"\\sqrt{2gh}", r"\\sqrt{2g}\\sqrt{h}"), equal("1/2004!", "1/2006!"), equal("(1, 2)", "(2, 1)")
    (True, False, False)
    """
    match gold, given:
        case (Algebra(), _) | (_, Algebra()):
            return None
        case Quantity(), Quantity():
            return _same_quantity(gold, given, tolerance)
        case Sequence(), Sequence():
            return _same_sequence(gold, given, tolerance)
        case Relation(), Relation():
            return _same_relation(gold, given)
        case (Quantity(name=name, tree=tree), Relation("=") as other) | (
            Relation("=") as other,
            Quantity(name=name, tree=tree),
        ) if name:
            return _same_relation(Relation("=", ("sym", name), tree), other)
        case (Quantity(), _) | (_, Quantity()):
            return False
        case (Relation(), Sequence()) | (Sequence(), Relation()):
            sides = [_interval(side) if isinstance(side, Relation) else side for side in (gold, given)]
            return None if None in sides else same(sides[0], sides[1], tolerance)  # type: ignore[arg-type]
    return None


def _interval(relation: Relation) -> Sequence | None:
    """Return x > 5 as (5, ∞); `None` of what is no bound on a variable."""
    sign, variable, bound = relation
    if variable[0] != "sym":
        sign, variable, bound = _ORDERED[sign], bound, variable
    if variable[0] != "sym" or sign not in "<>≤≥":
        return None
    infinity: Tree = ("sym", "infty")
    if sign in ">≥":
        return Sequence("(["[sign == "≥"] + ")", (Quantity(bound), Quantity(infinity)), variable[1])
    return Sequence("(" + ")]"[sign == "≤"], (Quantity(("-", infinity)), Quantity(bound)), variable[1])


def numbers(gold: Quantity, given: Quantity) -> list[tuple[Decimal, Decimal]]:
    """Return what gold and answer may amount to in the gold's unit, as pairs; none where they are of two kinds.

    >>> numbers(parse.read("5 cm"), parse.read("50 mm"))
    [(Decimal('5'), Decimal('5'))]
    """
    gold, given, factors = aligned(gold, given)
    try:
        wanted, value = evaluate(gold.tree, DIGITS), evaluate(given.tree, DIGITS)
    except Undefined:
        return []
    return [(wanted, value * factor.numerator / factor.denominator) for factor in factors]


def _same_quantity(gold: Quantity, given: Quantity, tolerance: float | None) -> bool | None:
    if gold.name and given.name and gold.name != given.name and len(gold.name) == len(given.name) == 1:
        return False
    gold, given, factors = aligned(gold, given)
    if not factors:
        return False
    if gold.tree == given.tree and 1 in factors:
        return True
    verdicts = [_same_expression(gold, given, factor, tolerance) for factor in factors]
    return True if True in verdicts else None if None in verdicts else False


def _same_expression(gold: Quantity, given: Quantity, factor: Fraction, tolerance: float | None) -> bool | None:
    scaled = given.tree
    if factor != 1:
        top, bottom = (("num", Decimal(part), None) for part in (factor.numerator, factor.denominator))
        scaled = ("/", ("*", scaled, top), bottom)
    if symbols(gold.tree) or symbols(scaled):
        return _same_trees(gold.tree, scaled)
    try:
        wanted, value = evaluate(gold.tree, DIGITS), evaluate(scaled, DIGITS)
    except Huge:  # the trees are not the same
        return False
    except Undefined:
        return None
    error = abs(wanted - value)
    if tolerance is not None:
        return error <= Decimal(str(tolerance)) * abs(wanted)
    if gold.step is not None:
        return error <= gold.step / 2
    if (
        given.step is not None
        and (factor != 1 or not gold.is_numeral)
        and error <= LEEWAY
        and error <= abs(wanted) * SMALL_LEEWAY
    ):
        return True
    return _same_trees(gold.tree, scaled)


def _same_trees(left: Tree, right: Tree) -> bool | None:
    """Compare two expressions as constants, or at a few points: equal wherever both have real values."""
    if left == right:
        return True
    if None not in (exact := [rational(left), rational(right)]):
        return exact[0] == exact[1]
    free = sorted(symbols(left) | symbols(right))
    agreed = 0
    for point in range(POINTS if free else 1):
        values = {name: _at(name, point) for name in free}
        verdict = _agree(left, right, values, MANY_DIGITS if agreed == 0 else DIGITS)
        if verdict is False:
            return None if {"i", "j"} & set(free) else False
        agreed += verdict is True
    return True if agreed >= (2 if free else 1) else None


def _agree(left: Tree, right: Tree, values: dict[str, Decimal], digits: int) -> bool | None:
    """Whether a difference is nothing but rounding: then it shrinks with every digit that is added."""
    try:
        size, _, rough = map(abs, evaluate_all((left, right), DIGITS, values))
        if rough > max(size, Decimal(1)).scaleb(-DIGITS // 3):
            return False
        fine = rough if digits == DIGITS else abs(evaluate_all((left, right), digits, values)[2])
    except Undefined:
        return None
    return digits == DIGITS or fine <= max(rough, size.scaleb(5 - DIGITS)).scaleb(DIGITS + 20 - digits)


def _at(name: str, point: int) -> Decimal:
    """A value of a variable, the same on every run: positive at first, then negative, then of either sign."""
    seed = zlib.crc32(f"{name}/{point}".encode())
    value = Decimal(seed % 9973 + 1300) / 4999
    return -8 * value if point == 3 or (point > 3 and seed & 64) else value


def _same_sequence(gold: Sequence, given: Sequence, tolerance: float | None) -> bool | None:
    ordered = "(" in gold.brackets or "[" in gold.brackets
    if len(gold.parts) != len(given.parts) or (gold.of and not given.brackets):
        return False
    if any(one and two and one != two for one, two in ((gold.of, given.of), (gold.brackets, given.brackets))):
        return False
    named = {part.name for part in gold.parts if isinstance(part, Quantity)}
    if given.brackets[:1] in ("(", "[") and not gold.brackets and len(named - {""}) == 1:
        return False  # "x = 3 or x = 5" is no (3, 5)
    verdicts = [same(*pair, tolerance) for pair in zip(gold.parts, given.parts, strict=True)]
    if all(verdicts):
        return True
    if ordered or len(verdicts) > 8:
        return False if False in verdicts else None
    left, unclear = list(given.parts), False
    for wanted in gold.parts:  # each has to be one of the others, in any order
        verdicts = [same(wanted, one, tolerance) for one in left]
        unclear |= None in verdicts
        if True not in verdicts:
            return None if unclear else False
        del left[verdicts.index(True)]
    return True


def _same_relation(gold: Relation, given: Relation) -> bool | None:
    for sign, left, right in ((given.sign, given.left, given.right), (_ORDERED[given.sign], given.right, given.left)):
        if sign == gold.sign and _same_trees(gold.left, left) and _same_trees(gold.right, right):
            return True
    if gold.sign == given.sign == "=":
        ratio = [("+", one.left, ("-", one.right)) for one in (gold, given)]
        free = sorted(symbols(ratio[0]) | symbols(ratio[1]))
        ratios = []
        for point in range(POINTS):
            with contextlib.suppress(Undefined):
                ratios.append(evaluate(("/", *ratio), DIGITS, {name: _at(name, point) for name in free}))
        alike = len(ratios) > 1 and all(abs(one / ratios[0] - 1) < Decimal("1e-30") for one in ratios)
        return alike or None
    if gold.right[0] == given.right[0] == "num" and gold.left == given.left:
        return False
    return None


def item_key(part: str) -> object:
    """What an item of a list is worth: its number in base units, else its words.

    >>> item_key("3 cm") == item_key("30 mm"), item_key("Red.") == item_key("red"), item_key("3") == item_key("4")
    (True, True, False)
    """
    with contextlib.suppress(Undefined):
        value = parse.read(part, True)
        if isinstance(value, Quantity) and not symbols(value.tree):
            size, dimension = value.units[0] if value.units else (Fraction(1), ())
            number = evaluate(value.tree, DIGITS) * size.numerator / size.denominator
            return number.normalize(), dimension, value.word
    return normalize(part)
