"""A text without what only dresses it: mathematics delimiters, text commands, Markdown, quotes, full width."""

import re
import unicodedata
from functools import lru_cache

LONGEST = 10_000  # characters; what is longer is left as it is: it states no short answer
MOST_LAYERS = 20  # of dress; thousands, as of backslashes before as many marks, would take as many passes

_SUPERSCRIPTS = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺ⁿ", "0123456789-+n", strict=True))
_SUPERSCRIPT = re.compile(f"[{''.join(_SUPERSCRIPTS)}]+")
_VULGAR = re.compile(r"(\d?)\s?([¼½¾⅐-⅞])")
_SPELLING = str.maketrans(
    {
        **dict.fromkeys("−–—‒‐‑﹣－", "-"),
        **dict.fromkeys("\u00a0\u2009\u202f\u2007", " "),
        **dict.fromkeys("⋅∙✕·•", "·"),
        **dict.fromkeys("“”„«»「」『』", '"'),
        **dict.fromkeys("‘’", "'"),
        **dict.fromkeys("º˚", "°"),
        **dict(zip("，、。：∶；₂٫٬", ",,.::;2.,", strict=True)),
        "\u200b": "",
    }
)
_FOREIGN_DIGIT = re.compile(r"(?![0-9])\d")
# A command with a braced argument that is only a font; what it holds stands apart, so that `5\mathrm{m}` is `5 m`.
_FONT = re.compile(
    r"\\(?:text(?:normal|bf|it|rm|sf|tt)?|math(?:rm|bf|it|sf|bb|normal|cal)|operatorname|mbox|hbox|boldsymbol|bm|boxed"
    r"|fbox)\*?\s?\{"
)
_BRACE = re.compile(r"\\[{}\\]|[{}]")
# What is struck out is not said: "~~A~~", "A̶", \cancel{A}.
_STRUCK = re.compile(
    r"~~[^~\n]{1,200}~~|\S[\u0335-\u0338]|\\(?:[xb]?cancel|sout|st)\s?\{[^{}]{0,200}\}|<(s|del|strike)>[^<]{0,200}</\1>"
)
_NOISE = (
    (_STRUCK, ""),
    (re.compile(r"```[a-zA-Z]{0,12}\n?|`"), ""),
    (re.compile(r"\{,\}|\\(?:!|displaystyle(?![a-zA-Z])|limits(?![a-zA-Z]))"), lambda m: "," if "," in m[0] else ""),
    (re.compile(r"\\(?:left|right|[bB]igg?[lr]?)(?![a-zA-Z])\.?|\\(?:rm|bf|it|sf)(?![a-zA-Z])"), " "),
    (re.compile(r"\\[()\[\],;: ]|\\q?quad(?![a-zA-Z])|~|&nbsp;|\\\n"), " "),
    (re.compile(r"\\[dtc]frac(?![a-zA-Z])"), r"\\frac"),
    (re.compile(r"\^\s?\{?\s?\\circ\s?\}?|\\degree(?![a-zA-Z])|\\circ(?=\s?[CF]\b)"), "°"),
    (re.compile(r"\\%"), "%"),
    (re.compile(r"(?<=[\w)])\*\*(?=[\d(])"), "^"),
    (re.compile(r"\*\*|(?<!\w)__|__(?!\w)|^\s{0,3}#{1,6}\s"), ""),
    (re.compile(r"(?<!\\)\$\$"), ""),
    (re.compile(r"(?<!\\)\$([^$]*?)(?<!\\)\$(?!\d)"), r" \1 "),
    (re.compile(r"(?<![\\A-Z])(?:US)?\$(?=\s?-?[\d.])"), r"\\$"),
    (re.compile(r'"([^"\n]*)"'), r"\1"),
)
_MAY_DRESS = re.compile(r'[\\`~*_#$&<{"^\u0335-\u0338]')  # each of these has one of them
_SPACES = re.compile(r"(?<!\s)\s+(?=[_^])|(?<=[_^])\s+")  # a run is tried once, not from each of its spaces
_PAIRS = {"{": "}", "'": "'", '"': '"', "*": "*", "_": "_"}


@lru_cache(maxsize=4096)
def plain(text: str) -> str:
    r"""Return a text without its dress.

    >>> plain(r"\( \text{B} \)"), plain("**１３**"), plain("```\n13\n```"), plain("“east”"), plain(r"5\,\mathrm{m}")
    ('B', '13', '13', 'east', '5 m')
    >>> plain("6.02×10²³"), plain("2½"), plain(r"$90^{\circ}$"), plain(r"\$16,\!386.20"), plain("$5$")
    ('6.02×10^{23}', '2 1/2', '90°', '\\$16,386.20', '5')

    What remains is text and the mathematics of LaTeX. A dollar sign before a number is money where no other closes it,
    and stays as `\$`. `plain` of a plain text is that text.
    """
    if len(text) > LONGEST:
        return text.strip()
    for _ in range(MOST_LAYERS):
        before, text = text, _undressed(text)
        if text == before:
            break
    return text


def _undressed(text: str) -> str:
    if not text.isascii():
        text = _SUPERSCRIPT.sub(lambda run: _power(run[0]), text)
        text = _VULGAR.sub(lambda half: f"{half[1]} {unicodedata.normalize('NFKC', half[2]).replace('⁄', '/')}", text)
        text = unicodedata.normalize("NFKC", text.translate(_SPELLING)).translate(_SPELLING)
        text = _FOREIGN_DIGIT.sub(lambda digit: str(int(digit[0])), text)
    if _MAY_DRESS.search(text):
        text = _without_fonts(text)
        for pattern, replacement in _NOISE:
            text = pattern.sub(replacement, text)
    text = _SPACES.sub("", text if "\n" in text else " ".join(text.split())).strip()
    while (
        len(text) > 1 and _PAIRS.get(text[0]) == text[-1] and text[0] not in text[1:-1] and text[-1] not in text[1:-1]
    ):
        text = text[1:-1].strip()
    return text


def _power(run: str) -> str:
    figures = "".join(_SUPERSCRIPTS[one] for one in run)
    return f"^{figures}" if len(figures) == 1 else f"^{{{figures}}}"


def _without_fonts(text: str) -> str:
    """Take off font commands with their braces, in one walk over the braces of the text."""
    if "\\" not in text:
        return text
    fonts = {match.end() - 1: match.start() for match in _FONT.finditer(text)}
    if not fonts:
        return text
    opened: list[int] = []
    cuts: list[tuple[int, int]] = []
    for brace in _BRACE.finditer(text):
        if brace[0] == "{":
            opened.append(brace.start())
        elif brace[0] == "}" and opened and (start := opened.pop()) in fonts:
            cuts += [(fonts[start], start + 1), (brace.start(), brace.end())]
    parts, at = [], 0
    for start, end in sorted(cuts):
        parts.append(text[at:start])
        at = end
    return " ".join([*parts, text[at:]])


_ARTICLE = re.compile(r"^(?:the|a|an)\s+(?=\S)")
_INDEX = re.compile(r"(?<=\w)_(?=[\d{+-])|[{}$`*]")  # H_2O
_EDGES = " \t\r\n.,;:!?\"'“”‘’«»()[]。，；：！？、"


@lru_cache(maxsize=4096)
def normalize(text: str) -> str:
    r"""Reduce a text to what counts when answers are compared.

    >>> normalize("  The  Eiffel Tower. "), normalize(r"\(\text{Ｃａｔ}\)"), normalize(r"$\mathrm{H_2O}$")
    ('eiffel tower', 'cat', 'h2o')

    Markup, case, runs of white space, punctuation at both ends and a leading article do not count.
    """
    text = _INDEX.sub("", plain(text)).casefold()
    words = " ".join(text.split()).strip(_EDGES)
    return _ARTICLE.sub("", words) or words
