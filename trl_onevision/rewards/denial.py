"""What a text takes back: places that it denies, and places of which it offers one or another.

A bounded look around each place, so that all of it is linear in the text.
"""

import itertools
import re
from collections.abc import Iterable

MAX_ITEMS = 1000  # of an answer: a longer list scores as if it held as many, which already divides its reward

_OF_A_PLACE = (
    r"at|one|in|inside|within|from|between|the|a|an|this|that|it|its|is|are|be|bound(?:ing|ed)|b?box(?:es)?|region|area|"
    r"points?|position|locat(?:ion|ed)|found|span|segment|interval|object|target|answer|coordinates|correct|right|"
    r"find|see|locate|json|bbox_2d|box_2d|point_2d|start|label"
)
_BEFORE = re.compile(
    r"(?:\b(?:not|never|nor|cannot|(?:wrong|incorrect)\s(?:b?box|answer|point|span|region|one)|except|excluding|rather\sthan|instead\sof)\b|n['’]t\b)"
    rf"(?:[\s:=\"'`*_{{(\[<|>]{{1,8}}(?:{_OF_A_PLACE})\b){{0,8}}+[\s:=\"'`*_{{(\[<|>]{{0,8}}\Z"
    r"|(?:不是|不在|并非|没有|除了|排除)[^，。；,.;]{0,6}\Z",
    re.IGNORECASE,
)
_BEHIND = re.compile(
    r"[\s\])}>\"'`*_]{0,8}(?:(?:is|are|was|were)(?:\snot\b|n['’]t\b|\s(?:wrong|incorrect|false)\b)"
    r"|[(:,-]{0,2}\s?(?:wrong|incorrect)\b|(?:是错|不对|不是|错误))",
    re.IGNORECASE,
)
_OR = re.compile(
    r"[\s\])}>,;.`\"']{0,8}(?:\bor\b|或者?|还是|/)"
    r"(?:\s(?:maybe|perhaps|possibly|else|at|from))?(?:[\s:\[({<,`\"']|b?box(?:_2d)?|point(?:_2d)?|start){0,12}",
    re.IGNORECASE,
)


def asserts(text: str, start: int, end: int) -> bool:
    """Whether a text does not deny what stands between two places of it.

    >>> asserts("It is at [1, 2].", 9, 15), asserts("It is not at [1, 2].", 13, 19), asserts("[1, 2] is wrong", 0, 6)
    (True, False, False)
    """
    return not _BEFORE.search(text[max(0, start - 80) : start]) and not _BEHIND.match(text, end)


def stated(text: str, matches: Iterable[re.Match[str]]) -> list[re.Match[str]]:
    """The matches that a text asserts, at most `MAX_ITEMS`: no denied ones, and none at all of "this or that".

    >>> [found[0] for found in stated("not 1 but 2", re.finditer("[0-9]", "not 1 but 2"))]
    ['2']
    >>> stated("1 or 2", re.finditer("[0-9]", "1 or 2"))
    []
    """
    kept, end = [], None
    for found in itertools.islice(matches, MAX_ITEMS):
        if end is not None and _OR.fullmatch(text, end, found.start()):
            return []
        if asserts(text, *found.span()):
            kept.append(found)
        end = found.end()
    return kept
