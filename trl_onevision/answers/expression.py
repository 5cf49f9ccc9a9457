"""Mathematics as people write it, in LaTeX or without: a tokenizer, a parser to a tree, and the value of the tree.

A tree is a tuple: `("num", value, step)`, `("sym", name)`, or an operation and its operands: `("+", a, b)`,
`("*", a, b)`, `("/", a, b)`, `("^", a, b)`, `("-", a)`, `("!", a)`, `("sin", a)`. A degree is the symbol `°`: radians
inside a circular function, and 1 elsewhere.
"""

import decimal
import math
import operator
import re
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache
from typing import Any, NamedTuple

from trl_onevision.answers.numerals import CJK, NUMERAL, numeral

Tree = tuple[Any, ...]
LONGEST = 1000
DEEPEST = 60
LARGEST_FACTORIAL = 5000
LARGEST_EXPONENT = 400_000  # of ten: the difference and the quotient of two such numbers are numbers yet
MOST_BITS = 100_000  # of a rational number
LARGEST_ANGLE = 10**12
ZERO, HALF, ONE = Decimal(0), Decimal("0.5"), Decimal(1)
MINUS_ONE: Tree = ("-", ("num", ONE, None))


class Unreadable(ValueError):
    """No expression: words, or mathematics with a piece missing."""


class Unknown(ValueError):
    """Mathematics that is beyond this grammar: sums, integrals, matrices."""


class Undefined(ArithmeticError):
    """No real value here, or none that can be computed cheaply."""


class Huge(Undefined):
    """A value that is larger, or nearer to 0, than any that is meant."""


class Token(NamedTuple):
    """What a token is, its text, where it starts and ends, whether a space stands before it."""

    kind: str
    text: str
    start: int
    end: int
    spaced: bool


_FUNCTION_WORDS = "arcsin arccos arctan arccot sinh cosh tanh sin cos tan cot sec csc log ln lg exp sqrt abs"
FUNCTIONS = tuple(_FUNCTION_WORDS.split())
_GREEK_WORDS = (
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi pi rho sigma tau upsilon phi chi "
    "psi omega Delta Omega"
)
_GREEK = dict(zip("αβγδεζηθικλμνξπρστυφχψωΔΩ", _GREEK_WORDS.split(), strict=True))
_SYMBOLS = {*_GREEK.values(), "varphi", "vartheta", "varepsilon", "ell", "Phi", "Psi", "Theta", "Sigma", "Gamma", "Pi"}
_OPERATORS = {"×": "*", "·": "*", "÷": "/", "∗": "*", "⁄": "/"}
_COMMANDS = dict.fromkeys(("times", "cdot", "ast"), "*") | dict.fromkeys(("lvert", "rvert", "vert", "|"), "|")
_COMMANDS |= {"div": "/", "lbrace": "{", "rbrace": "}", "{": "{", "}": "}", "_": "_"}
_CLOSING = {"(": ")", "[": "]", "{": "}", "|": "|"}
# Words and CJK runs are no mathematics; whoever parses may find a unit in them.
_TOKEN = re.compile(
    rf"(?P<number>{NUMERAL.pattern})|\\(?P<command>[a-zA-Z]+|.)"
    rf"|(?P<letters>[A-Za-z]+(?:'{{1,2}}(?![A-Za-z]))?)|(?P<greek>[α-ωΔΩ])"
    rf"|(?P<word>[{CJK}]+)|(?P<op>[^\s\w]|_)",
    re.VERBOSE | re.ASCII,
)
_GROUPED = re.compile(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?", re.ASCII)
_MIXED = re.compile(
    r"(?<![\d/.,^])(\d{1,9})\s{1,2}(?:and\s)?(\d{1,9})/(\d{1,9})(?![\d/.^])"
    r"|(?<![\d^}])(\d{1,9})\s?\\frac\s?\{(\d{1,9})\}\s?\{(\d{1,9})\}"
)
_LITTLE_WORD_WORDS = "is it of or to in as at by no on an so we he be do if my up us am me go oh ok vs and st nd rd th"
_LITTLE_WORDS = frozenset(_LITTLE_WORD_WORDS.split())


def tokenize(text: str, *, groups: bool = True, decimal_comma: bool = False) -> list[Token]:
    """Cut a text into tokens; `Unreadable` where a character is none.

    `groups`: "1,234" is one number, and no pair; `decimal_comma`: so is "1,5".
    """
    if len(text) > LONGEST:
        raise Unreadable("too long")
    tokens: list[Token] = []
    at = 0
    while at < len(text):
        if text[at].isspace():
            at += 1
            continue
        match = _TOKEN.match(text, at)
        if match is None:
            raise Unreadable(text[at])
        if text[at] in "∈∩∅∑∏∫":
            raise Unknown(text[at])
        kind = match.lastgroup or ""
        said, end = match[kind], match.end()
        if kind == "number" and "," in said and not (groups and (decimal_comma or _GROUPED.fullmatch(said))):
            said = said.partition(",")[0]
            end = at + len(said)
        elif kind == "command" and said in _COMMANDS:
            kind, said = "op", _COMMANDS[said]
        tokens.append(Token(kind, _OPERATORS.get(said, said), at, end, at > 0 and text[at - 1].isspace()))
        at = end
    return tokens


class Parser:
    """Recursive descent over the tokens of one expression. `unit_at` says whether a unit starts at a token."""

    def __init__(self, text: str, tokens: list[Token], unit_at: Any = None) -> None:
        self.text = text
        self.tokens = tokens
        self.at = 0
        self.depth = 0
        self.unit_at = unit_at
        self.unit: Any = ((), "", "")

    def parse(self) -> Tree:
        tree = self.sum()
        if token := self.peek():
            raise Unreadable(token.text)
        return tree

    def peek(self) -> Token | None:
        return self.tokens[self.at] if self.at < len(self.tokens) else None

    def next(self) -> Token:
        if self.at == len(self.tokens):
            raise Unreadable("the end")
        self.at += 1
        return self.tokens[self.at - 1]

    def take(self, *signs: str) -> str:
        """Step over the next token and return it, if it is one of these operators."""
        token = self.peek()
        if token is None or token.kind != "op" or token.text not in signs:
            return ""
        self.at += 1
        return token.text

    def sum(self, closing: str = "") -> Tree:
        self.depth += 1
        if self.depth > DEEPEST:
            raise Unknown("too deep")
        sign = self.take("-", "+")
        tree = self.product(first=True)
        tree = ("-", tree) if sign == "-" else tree
        while sign := self.take("+", "-"):
            term = self.product()
            tree = ("+", tree, ("-", term) if sign == "-" else term)
        if closing and not self.take(closing):
            raise Unreadable("a bracket that is not closed")
        self.depth -= 1
        return tree

    def product(self, first: bool = False) -> Tree:
        tree = self.signed()
        while token := self.peek():
            if self.depth == 1 and self.unit_at and self._unit_here(token, first, tree):
                break
            if sign := self.take("*", "/", ":"):
                tree = ("*" if sign == "*" else "/", tree, self.signed())
            elif self.starts_factor(token):
                if tree[0] == "num" and token.kind == "number" and self.tokens[self.at - 1].kind == "number":
                    raise Unreadable("two numbers side by side")
                tree = ("*", tree, self.power())
            else:
                break
        return tree

    def _unit_here(self, token: Token, first: bool, tree: Tree) -> bool:
        rest = self.text[token.start : self.tokens[-1].end]
        found = self.unit_at(rest, token, first, tree, self.tokens[self.at - 1])
        if found is not None:
            self.unit, self.at = found, len(self.tokens)
        return found is not None

    def starts_factor(self, token: Token) -> bool:
        """Whether a factor starts here, joined by no sign to the one before it; an escaped dollar is money."""
        kinds = ("number", "greek", "letters", "command")
        return token.text in ("(", "{", "[", "√", "∞") or (token.kind in kinds and token.text != "$")

    def signed(self) -> Tree:
        return ("-", self.power()) if self.take("-", "+") == "-" else self.power()

    def power(self) -> Tree:
        tree = self.postfix(self.primary())
        return self.postfix(("^", tree, self.exponent())) if self.take("^") else tree

    def exponent(self) -> Tree:
        if self.take("-", "+") == "-":
            return ("-", self.exponent())
        tree = self.primary()
        return ("^", tree, self.exponent()) if self.take("^") else tree

    def postfix(self, tree: Tree) -> Tree:
        while (token := self.peek()) and token.text in ("!", "°"):
            inside = [one.text in "-+*/)" for one in self.tokens[self.at + 1 :][:1]] == [True]
            if token.text == "°" and self.depth == 1 and self.unit_at and not inside:  # at the end it is a unit
                break
            self.at += 1
            tree = ("!", tree) if token.text == "!" else ("*", tree, ("sym", "°"))
        return tree

    def primary(self) -> Tree:
        token = self.next()
        match token.kind:
            case "number":
                value = numeral(token.text)
                if value is None:
                    raise Undefined("too large")
                return ("num", value.value, value.step)
            case "greek":
                return self.subscripted(_GREEK[token.text])
            case "letters":
                return self.letters(token)
            case "command":
                return self.command(token.text)
            case "op" if token.text == "√":
                return ("sqrt", self.primary())
            case "op" if token.text == "∞":
                return ("sym", "infty")
            case "op" if token.text in _CLOSING:
                return self.bracketed(token.text)
        raise Unreadable(token.text)

    def bracketed(self, opening: str) -> Tree:
        tree = self.sum(_CLOSING[opening])
        return ("abs", tree) if opening == "|" else tree

    def braced(self) -> Tree:
        """The argument of a command: a group in braces, one symbol, or one digit of those that follow: `\frac12`."""
        token = self.peek()
        if token and token.kind == "number" and len(token.text) > 1 and not self.text[token.start - 1].isspace():
            if not token.text[:2].isdigit():
                raise Unreadable(token.text)
            self.tokens[self.at] = Token("number", token.text[1:], token.start + 1, token.end, False)
            return ("num", Decimal(token.text[0]), None)
        return self.primary()

    def command(self, name: str) -> Tree:
        if name == "frac":
            return ("/", self.braced(), self.braced())
        if name == "sqrt":
            index = self.sum("]") if self.take("[") else None
            tree = self.braced()
            return ("sqrt", tree) if index is None else ("^", tree, ("/", ("num", ONE, None), index))
        if name == "binom":
            upper, lower = self.braced(), self.braced()
            return ("/", ("!", upper), ("*", ("!", lower), ("!", ("+", upper, ("-", lower)))))
        if name in FUNCTIONS:
            return self.function(name)
        if name in ("infty", "emptyset", "varnothing"):
            return ("sym", name)
        if name in _SYMBOLS:
            return self.subscripted(name.removeprefix("var"))
        following = self.peek()
        if name in ("angle", "triangle") and following and following.kind in ("letters", "number"):
            self.at += 1
            return ("sym", f"{name} {following.text}")
        raise Unknown(name)

    def letters(self, token: Token) -> Tree:
        """A function, a constant, or a product of variables, the last of which may have an index and a power."""
        run = token.text
        lower = run.lower()
        if lower in FUNCTIONS:
            return self.function(lower)
        if lower in ("pi", "infinity", "inf"):
            return ("sym", "pi" if lower == "pi" else "infty")
        ending = next(
            (name for name in ("pi", *FUNCTIONS[:-1]) if run[1:].endswith(name) and len(run) < len(name) + 3), ""
        )
        if ending:  # xsin(y), 2pi, rpi
            pieces = [*run[: -len(ending)], ending]
        elif len(run.rstrip("'")) > (4 if run.isupper() else 2) or lower in _LITTLE_WORDS:
            raise Unreadable(run)
        else:
            pieces = re.findall(r"[A-Za-z]'*", run)
        at, cut = token.start, list[Token]()
        for piece in pieces:
            cut.append(Token("letters", piece, at, at + len(piece), token.spaced and not cut))
            at += len(piece)
        self.tokens[self.at - 1 : self.at] = cut
        follows = self.peek()
        is_index = follows and follows.start == cut[0].end and follows.kind == "number" and follows.text.isdigit()
        if follows and is_index and pieces[0] not in ("i", "j"):  # P2 is P_2, but j120 is imaginary
            self.at += 1
            return ("sym", f"{pieces[0]}_{follows.text}")
        return self.subscripted(pieces[0])

    def subscripted(self, name: str) -> Tree:
        if self.take("_"):
            first = self.next()
            depth = int(first.text == "{" and first.kind == "op")
            while depth:
                depth += {"{": 1, "}": -1}.get(self.next().text, 0)
            index = self.text[first.start : self.tokens[self.at - 1].end]
            name += "_" + re.sub(r"[{}\s]", "", index)
        return ("sym", name)

    def function(self, name: str) -> Tree:
        power = base = None
        while sign := self.take("^", "_"):
            if sign == "^":
                power = self.exponent()
            elif name == "log":
                base = self.braced()
            else:
                raise Unreadable("an index of a function")
        tree = self.argument()
        if power == MINUS_ONE and name in ("sin", "cos", "tan"):
            return (f"arc{name}", tree)
        value = (name, tree) if base is None else ("/", ("ln", tree), ("ln", base))
        return value if power is None else ("^", value, power)

    def argument(self) -> Tree:
        """What a function is of: a bracket, or a product up to the next function, sign or unit."""
        if opening := self.take(*_CLOSING):
            return self.bracketed(opening)
        self.depth += 1
        tree = self.power()
        while (
            (token := self.peek())
            and token.kind in ("greek", "letters", "command")
            and not token.text.lower().startswith(FUNCTIONS)
            and not (token.kind == "letters" and len(token.text) > 2)
        ):
            tree = ("*", tree, self.power())
        self.depth -= 1
        return tree


def parse(text: str) -> Tree:
    r"""Read a text that is one expression and nothing else.

    >>> parse("3x^2"), parse(r"\frac12") == parse("1/2")
    (('*', ('num', Decimal('3'), None), ('^', ('sym', 'x'), ('num', Decimal('2'), None))), True)

    Raises `Unreadable` where it is none, `Unknown` where it is mathematics beyond this grammar.
    """
    text = mixed(text)
    return Parser(text, tokenize(text)).parse()


def mixed(text: str) -> str:
    r"""Write "1 2/3" and "1\frac{2}{3}" as sums."""
    return _MIXED.sub(
        lambda m: f"({m[1]}+{m[2]}/{m[3]})" if m[1] else f"({m[4]}+{m[5]}/{m[6]})" if int(m[5]) < int(m[6]) else m[0],
        text,
    )


def symbols(tree: Tree) -> frozenset[str]:
    """Return the free symbols of a tree: all names but pi and e.

    >>> sorted(symbols(parse("2pi r + e^x")))
    ['r', 'x']
    """
    return names(tree) - {"pi", "e", "°"}


def names(tree: Tree) -> frozenset[str]:
    """Return all names of a tree, the constants too.

    >>> sorted(names(parse("2pi r")))
    ['pi', 'r']
    """
    found, waiting = set(), [tree]
    while waiting:
        head, *parts = waiting.pop()
        if head == "sym":
            found.add(parts[0])
        elif head != "num":
            waiting += parts
    return frozenset(found)


def rational(tree: Tree) -> Fraction | None:
    """Return the value of a tree of numbers that is rational and not too long, `None` of any other.

    >>> rational(parse("1 + 2^{-1000}")) == 1, rational(parse("2pi")), rational(parse("9^{9^9}"))
    (False, None, None)
    """
    head, *parts = tree
    if head == "num":
        return Fraction(parts[0]) if abs(parts[0].adjusted()) < LONGEST else None
    values: list[Any] = [None if head == "sym" else rational(part) for part in parts]
    first, last = values[0], values[-1]
    if None in values or (head == "/" and last == 0):
        return None
    if head in ("^", "!"):
        bits = max(first.numerator.bit_length(), first.denominator.bit_length()) * abs(last)
        if last.denominator != 1 or bits > MOST_BITS or (last < 0 and (head == "!" or first == 0)):
            return None
        return first**last if head == "^" else Fraction(math.factorial(int(last)))
    return _ARITHMETIC[head](*values) if head in _ARITHMETIC else None


def evaluate(tree: Tree, digits: int, values: dict[str, Decimal] | None = None) -> Decimal:
    """Return the value of a tree, computed with so many digits; `Undefined` where it has no real one.

    >>> round(evaluate(parse("sqrt(2)^2"), 30), 9)
    Decimal('2.000000000')
    """
    (value,) = evaluate_all((tree,), digits, values)
    return value


def evaluate_all(trees: tuple[Tree, ...], digits: int, values: dict[str, Decimal] | None = None) -> list[Decimal]:
    """Return the value of each tree, and of two also their difference, which may be far smaller.

    >>> evaluate_all((parse("1/3"), parse("1/4")), 5)
    [Decimal('0.33333'), Decimal('0.25'), Decimal('0.08333')]
    """
    with decimal.localcontext(_context(digits)):
        try:
            names = _constants(digits) | (values or {})
            found = [_evaluate(tree, names) for tree in trees]
            if any(abs(one.adjusted()) > LARGEST_EXPONENT for one in found):
                raise Huge("an exponent")
            return found if len(found) == 1 else [*found, found[0] - found[1]]
        except (decimal.DecimalException, OverflowError, RecursionError, MemoryError) as error:
            raise Undefined(str(error)) from error


@lru_cache(maxsize=16)
def _context(digits: int) -> decimal.Context:
    return decimal.Context(prec=digits, Emax=decimal.MAX_EMAX // 4, Emin=decimal.MIN_EMIN // 4)


@lru_cache(maxsize=16)
def _constants(digits: int) -> dict[str, Decimal]:
    return {"pi": pi(digits), "e": ONE.exp(), "°": ONE}


def _evaluate(tree: Tree, values: dict[str, Decimal]) -> Decimal:
    head = tree[0]
    if head == "num":
        return +tree[1]
    if head == "sym":
        if tree[1] not in values:
            raise Undefined(tree[1])
        return values[tree[1]]
    if head in _CIRCULAR:
        values = values | {"°": values["pi"] / 180}
    return _OPERATIONS[head](*[_evaluate(part, values) for part in tree[1:]])


def _power(base: Decimal, exponent: Decimal) -> Decimal:
    if base < 0 and exponent != exponent.to_integral_value():
        raise Undefined("a power of a negative number")
    return base.sqrt() if exponent == HALF else base**exponent


def _factorial(value: Decimal) -> Decimal:
    if value != value.to_integral_value() or not 0 <= value <= LARGEST_FACTORIAL:
        raise Undefined("factorial")
    return +Decimal(math.factorial(int(value)))


def _sine(x: Decimal) -> Decimal:
    if abs(x) > LARGEST_ANGLE:
        raise Undefined("a large angle")
    with decimal.localcontext() as context:
        context.prec += 16
        x = x.remainder_near(2 * pi(context.prec))
        total, term, n = ZERO, x, 1
        while abs(term) > Decimal(10) ** -context.prec:
            total += term
            term = -term * x * x / ((n + 1) * (n + 2))
            n += 2
    return +total


def _cosine(x: Decimal) -> Decimal:
    return _sine(x + pi(decimal.getcontext().prec + 16) / 2)


def _arctan(x: Decimal) -> Decimal:
    with decimal.localcontext() as context:
        context.prec += 10
        doublings = 0
        while abs(x) > Decimal("0.1"):
            x = x / (1 + (1 + x * x).sqrt())
            doublings += 1
        total, term, n = ZERO, x, 1
        while abs(term) > Decimal(10) ** -context.prec:
            total += term / n
            term = -term * x * x
            n += 2
        total *= 2**doublings
    return +total


def _arcsin(x: Decimal) -> Decimal:
    if abs(x) == 1:
        return pi(decimal.getcontext().prec).copy_sign(x) / 2
    return _arctan(x / (1 - x * x).sqrt())


@lru_cache(maxsize=16)
def pi(digits: int) -> Decimal:
    """Return pi to so many digits.

    >>> pi(10)
    Decimal('3.141592654')
    """
    with decimal.localcontext() as context:
        context.prec = digits + 4
        quarter = _arctan(ONE)
        context.prec = digits
        return 4 * quarter


_CIRCULAR = frozenset(("sin", "cos", "tan", "cot", "sec", "csc"))
_ARITHMETIC: dict[str, Callable[..., Any]] = {
    "+": operator.add,
    "*": operator.mul,
    "/": operator.truediv,
    "-": operator.neg,
}
_OPERATIONS: dict[str, Callable[..., Decimal]] = {
    **_ARITHMETIC,
    "^": _power,
    "!": _factorial,
    "abs": abs,
    "sqrt": Decimal.sqrt,
    "exp": Decimal.exp,
    "ln": Decimal.ln,
    "log": Decimal.ln,
    "lg": Decimal.log10,
    "sin": _sine,
    "cos": _cosine,
    "tan": lambda x: _sine(x) / _cosine(x),
    "cot": lambda x: _cosine(x) / _sine(x),
    "sec": lambda x: 1 / _cosine(x),
    "csc": lambda x: 1 / _sine(x),
    "sinh": lambda x: (x.exp() - (-x).exp()) / 2,
    "cosh": lambda x: (x.exp() + (-x).exp()) / 2,
    "tanh": lambda x: 1 - 2 / ((2 * x).exp() + 1),
    "arcsin": _arcsin,
    "arccos": lambda x: pi(decimal.getcontext().prec) / 2 - _arcsin(x),
    "arctan": _arctan,
    "arccot": lambda x: pi(decimal.getcontext().prec) / 2 - _arctan(x),
}
