"""Mathematics as people write it, in LaTeX or without: a tokenizer, a parser to a tree, and the value of the tree.

A tree is a tuple: `("num", value, step)`, `("sym", name)`, `("+", a, b)`, `("*", a, b)`, `("/", a, b)`, `("^", a, b)`,
`("-", a)`, `("!", a)`, `("abs", a)`, `("deg", a)`, `("fn", name, a)`.
"""

import decimal
import re
from collections.abc import Callable
from decimal import Decimal
from functools import lru_cache
from typing import Any, NamedTuple

from trl_onevision.answers.numerals import CJK, NUMERAL, numeral

Tree = tuple[Any, ...]
LONGEST = 1000
DEEPEST = 60
LARGEST_FACTORIAL = 5000
LARGEST_ANGLE = 10**12
ZERO, HALF, ONE = Decimal(0), Decimal("0.5"), Decimal(1)


class Unreadable(ValueError):
    """No expression: words, or mathematics with a piece missing."""


class Unknown(ValueError):
    """Mathematics that is beyond this grammar: sums, integrals, matrices."""


class Undefined(ArithmeticError):
    """No real value here, or none that can be computed cheaply."""


class Token(NamedTuple):
    """What a token is, its text, where it starts and ends, whether a space stands before it."""

    kind: str
    text: str
    start: int
    end: int
    spaced: bool


_FUNCTION_WORDS = "arcsin arccos arctan arccot sinh cosh tanh sin cos tan cot sec csc log ln lg exp sqrt abs"
FUNCTIONS = _FUNCTION_WORDS.split()
_GREEK_WORDS = (
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi pi rho sigma tau upsilon phi chi "
    "psi omega Delta Omega"
)
_GREEK = dict(zip("αβγδεζηθικλμνξπρστυφχψωΔΩ", _GREEK_WORDS.split(), strict=True))  # fmt: skip
_SYMBOLS = {*_GREEK.values(), "varphi", "vartheta", "varepsilon", "ell", "Phi", "Psi", "Theta", "Sigma", "Gamma", "Pi"}
_COMMANDS = {
    **dict.fromkeys(("times", "cdot", "ast"), "*"),
    **{
        "div": "/",
        "lbrace": "{",
        "rbrace": "}",
        "{": "{",
        "}": "}",
        "lvert": "|",
        "rvert": "|",
        "|": "|",
        "vert": "|",
    },
    **{"lfloor": "?", "$": "\\$", "%": "%"},
}
# Words and CJK runs are no mathematics; whoever parses may find a unit in them.
_TOKEN = re.compile(
    rf"(?P<number>{NUMERAL.pattern})|\\(?P<command>[a-zA-Z]+|.)|(?P<letters>[A-Za-z]+(?:'{{1,2}}(?![A-Za-z]))?)|(?P<greek>[α-ωΔΩ])"
    rf"|(?P<word>[{CJK}]+)|(?P<op>[^\s\w]|_)",
    re.VERBOSE | re.ASCII,
)
_OPS = {"×": "*", "·": "*", "÷": "/", "∗": "*", "⁄": "/"}
_MIXED = re.compile(
    r"(?<![\d/.,^])(\d{1,9})\s{1,2}(?:and\s)?(\d{1,9})/(\d{1,9})(?![\d/.^])|(?<![\d^}])(\d{1,9})\s?\\frac\s?\{(\d{1,9})\}\s?\{(\d{1,9})\}"
)
_KNOWN = frozenset(FUNCTIONS)
_LITTLE_WORD_WORDS = "is it of or to in as at by no on an so we he be do if my up us am me go oh ok vs and st nd rd th"
_LITTLE_WORDS = frozenset(_LITTLE_WORD_WORDS.split())


_GROUPED = re.compile(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?", re.ASCII)


def tokenize(text: str, *, groups: bool = True, decimal_comma: bool = False) -> list[Token]:
    """Cut a text into tokens; `Unreadable` where a character is none.

    `groups`: "1,234" is one number, and no pair; `decimal_comma`: so is "1,5".
    """
    if len(text) > LONGEST:
        raise Unreadable("too long")
    tokens: list[Token] = []
    at, length = 0, len(text)
    while at < length:
        if text[at].isspace():
            at += 1
            continue
        match = _TOKEN.match(text, at)
        if match is None:
            raise Unreadable(text[at])
        kind, end = match.lastgroup or "", match.end()
        for kind in ("number", "command", "letters", "greek", "word", "op"):
            if match[kind] is not None:
                break
        said = match[kind]
        if kind == "number" and "," in said and not (groups and (decimal_comma or _GROUPED.fullmatch(said))):
            said = said.partition(",")[0]
            end = at + len(said)
        spaced = at > 0 and text[at - 1].isspace()
        tokens.append(Token(kind, _OPS.get(said, said) if kind == "op" else said, at, end, spaced))
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
        self.unit: Any = None

    def parse(self) -> Tree:
        if not self.tokens:
            raise Unreadable("nothing")
        tree = self.sum()
        if self.at < len(self.tokens):
            raise Unreadable(self.tokens[self.at].text)
        return tree

    def peek(self) -> Token | None:
        return self.tokens[self.at] if self.at < len(self.tokens) else None

    def take(self, *texts: str) -> bool:
        token = self.peek()
        if (
            token
            and token.kind in ("op", "command")
            and (token.text in texts or (token.kind == "command" and _COMMANDS.get(token.text) in texts))
        ):
            self.at += 1
            return True
        return False

    def sum(self) -> Tree:
        self.depth += 1
        if self.depth > DEEPEST:
            raise Unknown("too deep")
        if self.take("-"):
            tree: Tree = ("-", self.product(first=True))
        else:
            self.take("+")
            tree = self.product(first=True)
        while True:
            if self.take("+"):
                tree = ("+", tree, self.product())
            elif self.take("-"):
                tree = ("+", tree, ("-", self.product()))
            else:
                self.depth -= 1
                return tree

    def product(self, first: bool = False) -> Tree:
        tree = self.signed()
        while True:
            token = self.peek()
            if token is None or self.unit is not None:
                return tree
            if self.depth == 1 and self.unit_at and self._unit_here(token, first, tree):
                return tree
            if self.take("*"):
                tree = ("*", tree, self.signed())
            elif self.take("/", ":"):
                tree = ("/", tree, self.signed())
            elif self.starts_factor(token):
                if tree[0] == "num" and token.kind == "number" and self.tokens[self.at - 1].kind == "number":
                    raise Unreadable("two numbers side by side")
                tree = ("*", tree, self.power())
            else:
                return tree

    def _unit_here(self, token: Token, first: bool, tree: Tree) -> bool:
        rest = self.text[token.start : self.tokens[-1].end]
        found = self.unit_at(rest, token, first, tree, self.tokens[self.at - 1])
        if found is None:
            return False
        self.unit, self.at = found, len(self.tokens)
        return True

    def starts_factor(self, token: Token) -> bool:
        if token.kind in ("number", "greek", "letters"):
            return True
        if token.kind == "command":
            return _COMMANDS.get(token.text) is None or token.text in ("{", "lbrace")
        return token.text in ("(", "{", "[", "√", "∞") if token.kind == "op" else False

    def signed(self) -> Tree:
        if self.take("-"):
            return ("-", self.power())
        self.take("+")
        return self.power()

    def power(self) -> Tree:
        tree = self.postfix(self.primary())
        if self.take("^"):
            tree = self.postfix(("^", tree, self.exponent()))
        return tree

    def postfix(self, tree: Tree) -> Tree:
        while True:
            if self.take("!"):
                tree = ("!", tree)
            elif self.depth > 1 and self.take("°"):
                tree = ("deg", tree)
            elif self.depth == 1 and self.peek() and self.peek().text == "°" and self._degree_inside():  # type: ignore[union-attr]
                self.at += 1
                tree = ("deg", tree)
            else:
                return tree

    def _degree_inside(self) -> bool:
        """Whether a degree sign stands inside an expression; one at its end is a unit."""
        rest = self.text[self.tokens[self.at].end : self.tokens[-1].end].strip()
        return self.unit_at is None or (bool(rest) and rest[0] in "-+*/×·)")

    def exponent(self) -> Tree:
        if self.take("-"):
            return ("-", self.exponent())
        self.take("+")
        token = self.peek()
        if token and token.kind == "number" and self.text[token.start - 1] == "^" and "{" not in token.text:
            self.at += 1
            return self.number(token)
        tree = self.primary()
        return ("^", tree, self.exponent()) if self.take("^") else tree

    def number(self, token: Token) -> Tree:
        match = NUMERAL.fullmatch(token.text)
        value = numeral(match) if match else None
        if value is None:
            raise Undefined("too large")
        return ("num", value.value, value.step)

    def primary(self) -> Tree:
        token = self.peek()
        if token is None:
            raise Unreadable("the end")
        self.at += 1
        match token.kind:
            case "number":
                return self.number(token)
            case "greek":
                return self.subscripted(_GREEK[token.text])
            case "letters":
                return self.letters(token)
            case "command":
                return self.command(token)
            case "op":
                return self.bracketed(token)
        raise Unreadable(token.text)

    def bracketed(self, token: Token) -> Tree:
        closing = {"(": ")", "[": "]", "{": "}", "|": "|"}.get(token.text)
        if token.text == "√":
            return ("fn", "sqrt", self.primary())
        if token.text == "∞":
            return ("sym", "infty")
        if closing is None:
            raise Unreadable(token.text)
        tree = self.sum()
        if not self.take(closing):
            raise Unreadable("a bracket that is not closed")
        return ("abs", tree) if closing == "|" else tree

    def braced(self) -> Tree:
        """The argument of a command: a group in braces, one digit or one symbol."""
        token = self.peek()
        if token and token.kind == "number" and len(token.text) > 1 and not self.text[token.start - 1].isspace():
            digit, rest = token.text[0], token.text[1:]
            self.tokens[self.at] = Token("number", rest, token.start + 1, token.end, False)
            if not digit.isdigit() or not rest[0].isdigit():
                raise Unreadable(token.text)
            return ("num", Decimal(digit), None)
        return self.primary()

    def command(self, token: Token) -> Tree:
        name = token.text
        if name == "frac":
            return ("/", self.braced(), self.braced())
        if name == "sqrt":
            index: Tree | None = None
            if self.take("["):
                index = self.sum()
                if not self.take("]"):
                    raise Unreadable("a root's index")
            tree = self.braced()
            return ("fn", "sqrt", tree) if index is None else ("^", tree, ("/", ("num", Decimal(1), None), index))
        if name == "binom":
            upper, lower = self.braced(), self.braced()
            return ("/", ("!", upper), ("*", ("!", lower), ("!", ("+", upper, ("-", lower)))))
        if name in _KNOWN:
            return self.function(name)
        if name in ("infty", "emptyset", "varnothing"):
            return ("sym", name)
        if name in _SYMBOLS:
            return self.subscripted(name.removeprefix("var"))
        if name in ("angle", "triangle"):
            following = self.peek()
            if following and following.kind in ("letters", "number"):
                self.at += 1
                return ("sym", f"{name} {following.text}")
        if name in ("{", "lbrace"):
            tree = self.sum()
            if not self.take("}"):
                raise Unreadable("a brace that is not closed")
            return tree
        raise Unknown(name)

    def letters(self, token: Token) -> Tree:
        run = token.text
        lower = run.lower()
        if lower in _KNOWN:
            return self.function(lower)
        if lower == "pi" or (lower in ("infinity", "inf")):
            return ("sym", "pi" if lower == "pi" else "infty")
        for name in ("sqrt", "pi", *FUNCTIONS):  # xsin(y), 2pi, rpi
            if len(run) > len(name) and run.endswith(name) and len(run) - len(name) <= 2 and name != "abs":
                split = token.end - len(name)
                self.at -= 1
                self.tokens[self.at : self.at + 1] = [
                    Token("letters", run[: -len(name)], token.start, split, token.spaced),
                    Token("letters", name, split, token.end, False),
                ]
                return self.letters_of(self.tokens[self.at])
        if (len(run.rstrip("'")) > 2 and not run.isupper()) or lower in _LITTLE_WORDS:
            raise Unreadable(run)
        self.at -= 1
        return self.letters_of(token)

    def letters_of(self, token: Token) -> Tree:
        """A run of letters: a product of variables, the last of which may have an index and a power."""
        self.at += 1
        run = token.text
        if len(run.rstrip("'")) > 4:
            raise Unreadable(run)
        names = re.findall(r"[A-Za-z]'*", run)
        if len(names) > 1:
            self.at -= 1
            at = token.start
            pieces = []
            for index, name in enumerate(names):
                pieces.append(Token("letters", name, at, at + len(name), token.spaced and not index))
                at += len(name)
            self.tokens[self.at : self.at + 1] = pieces
            self.at += 1
        return self.subscripted(names[0])

    def subscripted(self, name: str) -> Tree:
        if self.take("_"):
            start = self.peek()
            if start is None:
                raise Unreadable("no index")
            if self.take("{"):
                depth = 1
                while depth and (token := self.peek()):
                    depth += {"{": 1, "}": -1}.get(token.text, 0)
                    self.at += 1
                if depth:
                    raise Unreadable("an index that is not closed")
            else:
                self.at += 1
            index = self.text[start.start : self.tokens[self.at - 1].end]
            name = name + "_" + re.sub(r"[{}\s]", "", index)
        return ("sym", name)

    def function(self, name: str) -> Tree:
        power: Tree | None = None
        base: Tree | None = None
        while True:
            if power is None and self.take("^"):
                power = self.exponent()
            elif base is None and name == "log" and self.take("_"):
                base = self.braced()
            else:
                break
        tree = self.argument()
        if power is not None and power == ("-", ("num", Decimal(1), None)) and name in ("sin", "cos", "tan"):
            return ("fn", f"arc{name}", tree)
        if base is not None:
            value: Tree = ("/", ("fn", "ln", tree), ("fn", "ln", base))
        elif name == "abs":
            value = ("abs", tree)
        else:
            value = ("fn", name, tree)
        return value if power is None else ("^", value, power)

    def argument(self) -> Tree:
        """What a function is of: a bracket, or a product up to the next function, sign or unit."""
        token = self.peek()
        if token and token.text in ("(", "{", "[", "|") and token.kind == "op":
            self.at += 1
            return self.bracketed(token)
        self.depth += 1
        tree = self.power()
        while (
            (token := self.peek())
            and token.kind in ("number", "greek", "letters", "command")
            and not token.text.lower().startswith(tuple(FUNCTIONS))
            and self.starts_factor(token)
            and token.kind != "number"
        ):
            if token.kind == "letters" and len(token.text) > 2 and token.text != "pi":
                break
            tree = ("*", tree, self.power())
        if self.take("°"):
            tree = ("deg", tree)
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
    found: set[str] = set()
    _collect(tree, found)
    return frozenset(found - {"pi", "e"})


def _collect(tree: Tree, found: set[str]) -> None:
    if tree[0] == "sym":
        found.add(tree[1])
    for part in tree[1:]:
        if isinstance(part, tuple):
            _collect(part, found)


def evaluate(tree: Tree, digits: int, values: dict[str, Decimal] | None = None) -> Decimal:
    """Return the value of a tree, computed with so many digits; `Undefined` where it has no real one.

    >>> round(evaluate(parse("sqrt(2)^2"), 30), 9)
    Decimal('2.000000000')
    """
    context = decimal.Context(prec=digits, Emax=decimal.MAX_EMAX // 4, Emin=decimal.MIN_EMIN // 4)
    with decimal.localcontext(context):
        try:
            return _evaluate(tree, values or {})
        except (decimal.DecimalException, OverflowError, RecursionError, MemoryError) as error:
            raise Undefined(str(error)) from error


def _evaluate(tree: Tree, values: dict[str, Decimal]) -> Decimal:
    match tree:
        case ("num", value, _):
            return +value
        case ("sym", "pi"):
            return pi(decimal.getcontext().prec)
        case ("sym", "e") if "e" not in values:
            return ONE.exp()
        case ("sym", name):
            if name not in values:
                raise Undefined(name)
            return values[name]
        case ("!", part):
            return _factorial(_evaluate(part, values))
        case ("fn", name, part):
            return _FUNCTIONS[name](_evaluate(_in_radians(part) if name in _CIRCULAR else part, values))
        case ("-", part):
            return -_evaluate(part, values)
        case ("deg", part):
            return _evaluate(part, values)
        case ("abs", part):
            return abs(_evaluate(part, values))
    left, right = (_evaluate(part, values) for part in tree[1:])
    match tree[0]:
        case "+":
            return left + right
        case "*":
            return left * right
        case "/":
            return left / right
    if left < 0 and right != right.to_integral_value():
        raise Undefined("a power of a negative number")
    return left.sqrt() if right == HALF else left**right


_CIRCULAR = ("sin", "cos", "tan", "cot", "sec", "csc")


def _in_radians(tree: Tree) -> Tree:
    if tree[0] == "deg":
        return ("/", ("*", tree[1], ("sym", "pi")), ("num", Decimal(180), None))
    return (tree[0], *(_in_radians(part) if isinstance(part, tuple) else part for part in tree[1:]))


def _factorial(value: Decimal) -> Decimal:
    if value != value.to_integral_value() or not 0 <= value <= LARGEST_FACTORIAL:
        raise Undefined("factorial")
    product = ONE
    for factor in range(2, int(value) + 1):
        product *= factor
    return product


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


@lru_cache(maxsize=64)
def pi(digits: int) -> Decimal:
    """Return pi by Machin's formula.

    >>> pi(10)
    Decimal('3.141592654')
    """
    unity = 10 ** (digits + 10)

    def arccot(x: int) -> int:
        total = term = unity // x
        n, sign = 3, -1
        while term:
            term //= x * x
            total += sign * (term // n)
            n, sign = n + 2, -sign
        return total

    with decimal.localcontext() as context:
        context.prec = digits
        return Decimal(4 * (4 * arccot(5) - arccot(239))) / unity


_FUNCTIONS: dict[str, Callable[[Decimal], Decimal]] = {
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
