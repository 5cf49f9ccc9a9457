"""What a text does with what it says, or with a place in it: assert, deny or hedge it. One rule for every kind."""

import itertools
import re
from collections.abc import Iterable

MAX_ITEMS = 1000  # of an answer: a longer list scores as if it held as many, which already divides its reward

_NOT = r"not|never|nor|cannot|except(?:ed|ing)?|excluding|aside|(?:other|rather)\sthan|instead\sof"
_WRONG = r"wrong|incorrect|false"
_DENIED = re.compile(
    rf"\b(?:{_NOT}|{_WRONG}|no|neither|none|nobody|untrue|excluded?|eliminat\w+|unlike|without|impossible|unlikely|invalid"
    r"|instead|reject\w*|refut\w+|doubt\w*|hardly|barely|scarcely|(?:anything|everything|all|nothing|any)\sbut|far\sfrom"
    r"|rul\w+\sout|(?:is|are|was|were)\s(?:absent|missing)|fails?|mistake\w*|the\s(?:trap|worst|least\s\w+)"
    r"|red\sherring|decoy|distractor|opposite\sof|the\sopposite(?=\W*\Z)|isnt|cant)\b"
    r"|n['’]t\b|[不非没沒未错錯误誤除别別否無无疑👎✗✘❌✖¬]|[以之]外|有问题|では?(?:な|あり)|ない|아[니닙]|干扰项|反面|相反|\b(?:niet|nicht|kein\w*)\b",
    re.IGNORECASE,
)


def _not_behind(words: str) -> str:
    return "".join(rf"(?<!\b{word}\s)" for word in words.split())


_APART = _not_behind("difference distance gap angle ratio interval space time")  # "the difference between"
_SHOWN = _not_behind("figure graph table image picture diagram chart shown given the")  # "in the figure above"
# "A or B", "maybe A", and what only shows what might be said: "e.g. A", "A, etc.", "A...", "some say A".
_HEDGED = re.compile(
    rf"\b(?:(?:or|ou)(?!\s?=)|oder|или|maybe|perhaps|possibly|might|either|{_APART}between|could|may|unsure|uncertain|unclear"
    r"|alternative\w*|vs|versus|else|otherwise|failing|sometimes|partly|partially|e\.g|for\s(?:example|instance)|such\sas"
    r"|etc|et\sal|and\s(?:more|others)|among\sothers|(?:some|any)thing\slike|so\s(?:on|forth)"
    r"|in\s(?:the\s)?(?:best|worst|most|many|some|certain)\scases?|for\s(?:now|the\smoment)|at\sfirst"
    r"|(?:some|they|people|others|one\swould)\s(?:say|claim)s?)\b|(?<!\s)-ish\b|\A\s*like\b|,\slike\b|,\ssay\W*\Z"
    r"|\.\.\.|\\[lc]?dots|或者?|还是|也许|可能|要么|(?<!分)之一|[均都]可|大概|似乎|例如|比如|诸如|随便|什么的|之类|等等"
    r"|(?<![相平全])等\W*\Z",
    re.IGNORECASE,
)
# What owns up to a guess; "I guess it is A" is no more than "I think".
_GUESSED = re.compile(
    r"\b(?:guess(?:ing|ed|work)|an?\s(?:\w+\s)?guess|guess(?=\W*\Z)|(?:no|any)\sidea"
    r"|cannot\s(?:say|tell|know|determine)|(?:low|little|no)\s(?:confidence|certainty)|tentative\w*"
    r"|unverified|unless|hopefully|hope\sso|just\skidding|coin\s(?:flip|toss)"
    r"|flip\w*\sa\scoin|50/50|(?:sort|kind)\sof(?=\W*\Z)|in\sa\sway|tbd"
    r"|I\ssuppose|subject\sto\schange|to\sbe\s(?:confirmed|verified|determined|checked)"
    r"|(?:please|pls)\s(?:verify|check)|fingers\scrossed"
    r"|as\sa\s(?:last\sresort|fallback|backup)|hypothetically|in\stheory(?=\W*\Z)"
    r"|if\sany|inter\salia|(?:do\snot|don['’]t)\strust|if\si(?:['’]m|\sam)|not\s(?:\w+\s){0,2}(?:sure|certain|confident)"
    r"|quote\sme)\b|n['’]t\s(?:\w+\s){0,2}(?:sure|certain|know)\b|猜(?!是)|蒙的|不确定|不太?[确肯]定|没把握|说不[定准]"
    r"|吧\W*\Z|待定|🤷|🤔|\((?:default|placeholder|example)\)|\A\W*(?:(?:so|then|now)\b\W{1,3})?(?:suppose"
    r"|assum\w+|imagine|let(?:(?:['’]?s|\sus)\s(?:say|assume|suppose|imagine)|\s[a-z]\s?=))",
    re.IGNORECASE,
)
# What says that the value is another: a bound, or "nearly".
_BOUND = re.compile(
    rf"\b(?:(?:more|less|fewer|greater|larger|smaller|higher|lower|bigger)\sthan"
    rf"|up\sto|over(?!\stime)|under|beyond|{_SHOWN}(?:above|below)"
    r"|at\s(?:least|most|best|worst|minimum|maximum|the\s(?:la|earlie)test)|exceeds?|upwards?"
    r"|nearly|almost|close\sto|(?:short|shy)\sof|as\s(?:many|few|much|little)\sas|exclusive"
    r"|too\s(?:many|few|much|late|early))\b|大于|小于|超过|不少于|以上|以下|至少|至多|(?:左右|上下)\W*\Z|几乎|接近|将近",
    re.IGNORECASE,
)
_ASKS = re.compile(r"[?？吗嗎]\W{0,80}\Z|是不是|是否|有没有|对不对")
_DOUBLE = re.compile("没错|不错|没有错")
# What may stand between a denial and the place that it denies: "not in the region at [1, 2]".
_OF_A_PLACE = (
    r"at|one|in|inside|within|from|between|the|a|an|this|that|it|its|is|are|be|bound(?:ing|ed)|b?box(?:es)?|region|area|"
    r"points?|position|locat(?:ion|ed)|found|span|segment|interval|object|target|answer|coordinates|correct|right|"
    r"find|see|locate|json|bbox_2d|box_2d|point_2d|start|label"
)
_BEFORE = re.compile(
    rf"(?:\b(?:{_NOT}|(?:{_WRONG})\s(?:b?box|answer|point|span|region|one))\b|n['’]t\b)"
    rf"(?:[\s:=\"'`*_{{(\[<|>]{{1,8}}(?:{_OF_A_PLACE})\b){{0,8}}+[\s:=\"'`*_{{(\[<|>]{{0,8}}\Z"
    r"|(?:不是|不在|并非|没有|除了|排除)[^，。；,.;]{0,6}\Z",
    re.IGNORECASE,
)
_BEHIND = re.compile(
    rf"[\s\])}}>\"'`*_]{{0,8}}(?:(?:is|are|was|were)(?:\snot\b|n['’]t\b|\s(?:{_WRONG}|impossible|unlikely)\b)"
    rf"|[(:,-]{{0,2}}\s?(?:{_WRONG})\b|(?:是错|不对|不是|错误))",
    re.IGNORECASE,
)
_OR = re.compile(
    r"[\s\])}>,;.`\"']{0,8}(?:\bor\b|或者?|还是|/)"
    r"(?:\s(?:maybe|perhaps|possibly|else|at|from))?(?:[\s:\[({<,`\"']|b?box(?:_2d)?|point(?:_2d)?|start){0,12}",
    re.IGNORECASE,
)


def is_asserted(text: str) -> bool:
    """Whether a text neither denies nor hedges nor asks nor sets a bound: what it says is meant.

    >>> is_asserted("It is 12."), is_asserted("It is not 12."), is_asserted("12 or 13"), is_asserted("不选C")
    (True, False, False, False)
    """
    return commits(text) and not _BOUND.search(text)


def commits(text: str) -> bool:
    """Whether a text neither denies nor hedges nor asks nor guesses; it may set a bound.

    >>> commits("more than 12"), commits("perhaps 12")
    (True, False)
    """
    return not (is_asked(text) or is_denied(text) or is_hedged(text) or is_guessed(text))


def is_asked(text: str) -> bool:
    """Whether a text is a question.

    >>> is_asked("**Paris?**"), is_asked("是A吗"), is_asked("Paris")
    (True, True, False)
    """
    return _ASKS.search(text) is not None


def is_denied(text: str) -> bool:
    """Whether a text denies something.

    >>> is_denied("All except A"), is_denied("A is wrong"), is_denied("A没错"), is_denied("A")
    (True, True, False, False)
    """
    return _DENIED.search(_DOUBLE.sub("", text)) is not None


def is_hedged(text: str) -> bool:
    """Whether a text leaves a choice open.

    >>> is_hedged("A or maybe B"), is_hedged("I think it is A")
    (True, False)
    """
    return _HEDGED.search(text) is not None


def is_guessed(text: str) -> bool:
    """Whether a text owns up to a guess.

    >>> is_guessed("12 (just a guess)"), is_guessed("A, I'm not sure"), is_guessed("I guess it is A")
    (True, True, False)
    """
    return _GUESSED.search(text) is not None


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
