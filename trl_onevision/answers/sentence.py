"""The sentence around an answer: what leads to it, what closes it, the reasons behind it. One rule for every kind."""

import itertools
import re
from collections.abc import Iterator

from trl_onevision.answers.numerals import CJK
from trl_onevision.answers.stance import commits, is_asserted, is_denied, is_hedged

# How an answer is announced, in the languages that models write in.
ANSWER_ABROAD = "答え|정답|답|ответ|respuesta|réponse|resposta|antwort|risposta"
IS_ABROAD = r"(?:est|ist|es|è|é)\b|は|은"

# "B. The", "5 cm. So", but not "St. Louis", "J. K. Rowling", "U.S. Army": behind a title or a lone capital a sentence
# ends only where the next word is one that sentences begin with.
_OPENERS = (
    "The|This|That|These|Those|There|Here|It|Its|He|She|They|We|You|My|Our|Because|Since|As|So|Therefore|Thus|Hence|"
    "However|But|And|If|In|On|At|By|For|From|With|To|Of|An|Let|Note|Wait|When|While|Both|All|Only|Each|Other"
)
_TITLES = "[A-Z] St Dr Mr Ms Mt Ft Lt Jr Sr vs No Mrs Gen Col Rev Vol Prof Capt"
_BEHIND_NO_TITLE = "".join(rf"(?<!\b{title}\.)" for title in _TITLES.split())
SENTENCE_END = re.compile(
    rf"[.!?。！？](?:(?<=[。！？])|\s(?=\s{{0,4}}(?:(?:{_OPENERS})\b|[A-J](?:\)|\s[a-z])))"
    rf"|{_BEHIND_NO_TITLE}(?<!\.m\.)\s(?=\s{{0,4}}[A-Z]))"
)
_VALUE = r"[-+$\\(]{0,3}(?:\d[\d.,/]*(?:\s?[a-z%°]{1,3}\b)?|[A-J](?![A-Za-z])\)?)"
_VALUES = re.compile(r"\d[\d.]*|(?<![A-Za-z])[A-J](?![A-Za-z])")
_SOME = rf"{_VALUE}(?:(?:,|,?\s(?:n?or|and))\s{_VALUE})*"
# "not 13 but 12", "Neither B nor C, so A", "B is wrong, so A", 不是B,而是A: what is denied, and then what is said.
_DENIED_FIRST = re.compile(
    rf"(?:(?:[Ii]t|[Tt]he\sanswer)(?:'s|\sis)\s)?(?:(?:[Nn]ot|[Nn]either)\s{_SOME}"
    rf"|{_SOME}\s(?:is|are)\s(?:wrong|incorrect|false|not\s(?:right|correct)))"
    r"(?:[.,;]?\s(?:but|so|hence|thus|therefore|it\sis|it's)\b|[.;])\s*(?=\S)"
    rf"|(?:不是|不选|排除|并非)\s?{_VALUE}(?:[和与及或,]{_VALUE})*,?\s?(?:而是|是|所以|(?:应|故|所以)?选)"
)
# A second answer in the sentence behind the first: "But 13 may also be right."
_SECOND = (
    rf"\W{{0,6}}(?:(?:but|however|th?ough|although|also|and|yet)\b,?\s)?(?:{_VALUE}\s(?:(?:may|might|could|can|would)\b"
    r"(?:\s(?:also|be|equally|just|well|as))*\s(?:right|correct|valid|fine|works?)\b"
    r"|(?:is|be)\s(?:also|equally|just\sas|another|possible|plausible|acceptable)\b)"
    rf"|(?:it|that|this|the\sanswer)\s(?:may|might|could)(?:\s(?:also|well|equally))?\sbe\s{_VALUE}"
    rf"|(?:another|also)\s(?:possib\w+|plausible|valid)\b|(?:但|不过|而且)?(?:{_VALUE}[也同或]|也|可能))"
)
# What takes back or widens what was said just before it.
AFTERTHOUGHT = re.compile(
    r"\W{0,6}(?:text\w{0,6}\W{1,3})?or\b|[^\w\n]{0,6}(?:(?:nope|wait(?!\s(?!no\b)[a-z])"
    r"|actually|i\smean|maybe|perhaps|possibly|alternatively|scratch\sthat|then\sagain"
    r"|on\ssecond\sthought|just\skidding)\b|no,\s(?=(?:it|that|this)\b|[-$\\(]*[\dA-Z]\b)"
    rf"|或|也许|可能)|{_SECOND}",
    re.IGNORECASE,
)
_REASON = re.compile(
    r",?\s+because\b|(?:,|(?<=[\d)}\]$])|(?<=\b[A-Z]))\s+(?:since|which|where|so that)\b"
    r"|,\s+as (?:it|the|there)\b|因为"
    r"|(?:(?:,\s|\s\(|\sand\s)not|,?\s(?:rather\sthan|instead\sof))\s(?=[-$\\(]{0,3}\d\S*(?:\s[^\s\d]{1,12})?\Z)",
    re.IGNORECASE,
)
_MORE = re.compile(r"[.!?。！？]|,\s+wh(?:ich|ere)")

# What a name may be made of: "AB", "∠ABC", "f'", "\alpha", "面积".
NAME = re.compile(r"(?:[\\∠△Δ]?\s?[A-Za-zα-ωΔ'_{}()△∠,\s]|\\[a-z]+|\d(?=[\s})'A-Za-z]|\s?$)|[" + CJK + r"]){1,60}")
# What may be said before a value, up to its last word: "The area is", "There are", "x equals", "一共有".
_COPULA = re.compile(
    r"\b(?:is|are|was|were|be|equals|equal\sto|has|have|had|got|gets?|gives?"
    r"|makes?|counts?|counted|bought|sold|ate|found|saw|made|took|used|spent"
    r"|paid|earned|see|needs?|totals?|of"
    rf"|yields?|takes?|lasts?|for|as|about|approximately|around|roughly|exactly"
    rf"|precisely|only|just|approx\.?|answers?|results?|{IS_ABROAD})\b\s*:?\s*"
    r"|['’]s\s+|\b(?:in|year)\s(?=[12]\d{3}\Z)|(?:应该)?[是为有得]|等于|大?约|一共|总共|共|[:≈]|\\approx\b"
)
_LEAD = re.compile(rf"[A-Za-z{CJK}'’,\s\-:*_]*(?:\b[A-Za-z]+\s\d{{1,3}}\s[A-Za-z{CJK}'’,\s\-:]*)?")
# "the square root of 3", "half of 3": what a sentence makes of its number.
_OPERATION = re.compile(
    r"\b(?:roots?|half|thirds?|quarters?|tenths?|fractions?|squares?|cubes?|multiples?|factors?|powers?|doubles?|inverse"
    r"|reciprocal|opposite|negative|log\w*|factorial|sine|cosine|tangent|percent|sum|product|out|one|some|most)\s+of\s*\Z",
    re.IGNORECASE,
)
_CLOSING = re.compile(
    r"\s*(?:,\sI\s(?:think|believe|am\ssure)|\b(?:is|was)\s(?:the|my"
    r"|our)?\s?(?:final\s|correct\s|right\s)?(?:answer|result|solution|value|total)s?"
    r"|\b(?:long|wide|tall|high|deep|thick|away|apart|old|each|altogether|in\s(?:total|all|length|area|size))"
    rf"|\s\((?=[^()]*(?:[a-z]{{3}}|[{CJK}]))[^()\d]{{2,80}}\)|\s?[✓✔✅☑]|[.,;]|(?<=[a-z]{{2}})!|です|입니다)\s*$"
)
# "left after …", "in the picture", "as it is the mode": words that add no number.
_TAIL = re.compile(
    r"(?<=[\w%°}])'?,?\s(?:left(?!\sout)|remaining|in|on|at|after|that"
    r"|which|with|for|when|as|since|of\sthem|(?<=[a-z]\s)(?:are|were))\b"
    r"(?:\s[^\d\\=+*/<>^]{1,200}|)\Z"
)
# Words, or marks that a sentence is made of: a formula has none, and is read as it is.
_SAYS = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2}|[^\x00-\x7f:]|[.?!,;](?:\s|\Z)|\s\(|'")
_RELATIVE = re.compile(
    r"\s(?:that|which|who|with(?:out)?)\s[^.;:?!]{1,120}?,?(?=\s(?:is|are|was|were)\s)", re.IGNORECASE
)
_JUDGES = re.compile(
    r"\b(?:I|we|you|not\san?|right|correct|true|wrong|false|incorrect|answers?|options?|fits?|match\w*|exclu\w+|reject\w*"
    r"|eliminat\w+|rule[ds]?|say|claim)\b",
    re.IGNORECASE,
)
# "There are 3 bars with values below 40": a bound on what is counted, and none on the number
_COUNTED = re.compile(
    r"(?:[^,\d]{1,40},\s)?there\s(?:are|is|were|was)\s((?:(?:only|exactly|a\stotal\sof)\s)?\w+(?:\s[a-z-]+){1,5}?)"
    r"\s(?:of|with|that|who|whose|which|having|sold|preferred|below|above|larger|smaller|greater)\b(?P<which>.*)",
    re.IGNORECASE,
)
_EQUALS = re.compile(r"\A([-+*/×÷.()\d\s]{1,80}\d)\s(?:is|equals|is\sequal\sto)\s(?=-?\d)")  # "3 + 4 is 7"
# "twice the number is", "the answer minus one is", "the side squared is": of another value than is asked for.
CHANGED = re.compile(
    r"\b(?:twice|thrice|half|double|triple|(?:two|three|four|five|six|seven|eight|nine|ten|\d{1,3})\stimes)\s(?:of\s)?"
    r"(?:the|its|their|his|her|our|this|that|[a-z])\b|(?<!\\)\b(?:minus|plus|less|times|over)\s(?:one|two|three|four|five|\d|[a-z]\b)"
    r"|\b(?:third|quarter|fifth|tenth|square|cube|root|reciprocal|inverse|negative|opposite|complement)\sof\sthe\b"
    r"|\b(?:squared|cubed|doubled|tripled|halved)\s+\S+\s*\Z"
    r"|\b(?:divided|multiplied|increased|decreased|reduced|raised)\s(?:by|to)\s|\b(?:upper|lower)\sbound\b"
    r"|\b(?:previous|earlier|initial|old|original)\s(?:answer|guess|result|value|estimate)\b"
    r"|(?:[两二三四五六七八九十\d]倍|一半|分之[一二三]|平方|立方|倒数|相反数)(?:就?是|为|等于)\s*\Z",
    re.IGNORECASE,
)
_IF = re.compile(
    r"(?:(?:so|thus|hence|therefore|then|and|but|now|well)\b,?\s{1,4}){0,3}"
    r"(?:if|unless|whether|suppos\w*|assum\w*|imagine|let\s[a-z]\b|say|try|far|(?:what|how)\sabout)\b",
    re.IGNORECASE,
)
_ABOUT = re.compile(r"\s\((?:≈|about|approximately|approx\.?)\s?([^()]{1,40})\)\W*$")  # "√2 (about 1.41)"
MOST_LEADS = 8
_ONE_OR = re.compile(r"\S\s(?:or|或)\s\S")
SHORT = 60  # characters of what states a value and little else


def without_reason(stated: str) -> str:
    """Return an answer without the sentence or the reason behind it.

    >>> without_reason("A, because B is wrong"), without_reason("closed since 1990"), without_reason("B since it fits")
    ('A', 'closed since 1990', 'B')
    """
    cut = _REASON.search(stated)
    answer = stated[: cut.start()] if cut else stated
    end = SENTENCE_END.search(answer)
    return answer[: end.start()] if end else answer


def affirmed(text: str) -> str:
    """Return what a text says behind the values that it denies first.

    >>> affirmed("not 13 but 12"), affirmed("Neither B nor C, so A"), affirmed("not 13 but maybe 12")
    ('12', 'A', 'not 13 but maybe 12')
    """
    denied = _DENIED_FIRST.match(text)
    rest = text[denied.end() :] if denied else text
    again = denied and set(_VALUES.findall(denied[0])) & set(_VALUES.findall(rest))
    return rest if denied and is_asserted(rest) and not again else text


def takes_back(stated: str) -> bool:
    """Whether what is stated is a value that it does not stand by: what was stated before it is not the answer either.

    >>> takes_back("12 or 13"), takes_back("not B"), takes_back("13?"), takes_back("given in metres")
    (True, True, True, False)
    """
    named = _VALUES.search(stated) or _ONE_OR.search(stated)
    return len(stated) <= SHORT and named is not None and not commits(stated)


def without_relative(text: str) -> str:
    """Return a text without the clause that only says which one is meant: what it denies is not the answer.

    >>> without_relative("The animal that cannot swim is C"), without_relative("The one that is not right is C")
    ('The animal is C', 'The one that is not right is C')
    """
    return _RELATIVE.sub(lambda clause: clause[0] if _JUDGES.search(clause[0]) else "", text)


def cores(text: str) -> Iterator[str]:
    """Yield what a sentence may state: itself, then what is left of it without what leads to its value.

    >>> list(cores("There are 3 apples in the picture."))
    ['There are 3 apples in the picture', 'There are 3 apples', '3 apples in the picture', '3 apples']
    >>> next(cores("3, because 1 + 2 = 3"))
    '3'
    """
    if not _SAYS.search(text):
        yield text
        return
    said = without_reason(text)
    rest = text[len(said) :]
    takes_back = _MORE.match(rest) and (re.search(r"\d", rest) or not is_asserted(rest))
    if rest and not takes_back and not AFTERTHOUGHT.match(rest):
        yield from _cores(said)
    yield from _cores(text)


def _cores(text: str) -> Iterator[str]:
    text = _ABOUT.sub(r" ≈ \1", text)
    if (counted := _COUNTED.fullmatch(text)) and not (is_denied(counted["which"]) or is_hedged(counted["which"])):
        yield counted[1]
    if not is_asserted(text) and not is_asserted(text := without_relative(text)):
        yield text.rstrip(" ,;").removesuffix(".")
        return
    bare = _EQUALS.sub(r"\1 = ", _without_closing(text))
    copulas = () if _IF.match(bare) else itertools.islice(_COPULA.finditer(bare), MOST_LEADS)
    for end in (0, *(copula.end() for copula in copulas)):
        leads = _LEAD.fullmatch(bare, 0, end) or NAME.fullmatch(bare[:end].rstrip(" :≈"))
        subject = bare[bare.rfind(",", 0, end) + 1 : end]
        if leads and not _OPERATION.search(bare, 0, end) and not CHANGED.search(subject):
            yield (value := bare[end:].strip().strip("'" if end else ""))
            if tail := _TAIL.search(value):
                yield value[: tail.start()].strip(" ,")


def _without_closing(text: str) -> str:
    while True:
        shorter = _CLOSING.sub("", text).strip()
        if shorter == text or not shorter:
            return shorter or text
        text = shorter
