"""Answers that are words: same text, edit distances for OCR and speech, yes/no, lists, dates and times of day."""

import ast
import contextlib
import itertools
import json
import re
from collections import Counter
from collections.abc import Sequence
from datetime import date

from rapidfuzz.distance import Levenshtein

from trl_onevision.answers.compare import item_key
from trl_onevision.answers.markup import normalize, plain
from trl_onevision.answers.numerals import CJK, with_figures
from trl_onevision.answers.stance import is_asked, is_asserted, is_guessed, is_hedged

_ELEMENT = (  # the longer symbols first
    "(?:He|Li|Be|Ne|Na|Mg|Al|Si|Cl|Ar|Ca|Sc|Ti|Cr|Mn|Fe|Co|Ni|Cu|Zn|Ga|Ge|As|Se|Br|Kr|Rb|Sr|Zr|Nb|Mo|Tc|Ru|Rh|Pd|Ag|Cd"
    "|In|Sn|Sb|Te|Xe|Cs|Ba|La|Ce|Nd|Sm|Eu|Gd|Pt|Au|Hg|Tl|Pb|Bi|Po|Rn|Ra|Th|Pu|H|B|C|N|O|F|P|S|K|V|Y|I|W|U)"
)
_FORMULA = re.compile(rf"(?:{_ELEMENT}\d{{0,3}}|\((?:{_ELEMENT}\d{{0,3}})++\)\d{{0,3}})++(?P<charge>\d?[+-])?")
_ALONE = ("H2", "N2", "O2", "O3", "F2", "Cl2", "Br2", "I2", "P4", "S8")
_INDEX_MARKS = re.compile(r"\\ce\b|[_{}$\s]|\^(?=\{?\d?[+-]\}?\s?$)|</?su[bp]>")


def formula(text: str) -> str | None:
    r"""Return a chemical formula without the marks of its indices, or `None`: no algebra, and its case counts.

    >>> formula("H_2O"), formula(r"\mathrm{Fe}_2\mathrm{O}_3"), formula("Ca(OH)2"), formula("x_1"), formula("P2")
    ('H2O', 'Fe2O3', 'Ca(OH)2', None, None)
    """
    bare = _INDEX_MARKS.sub("", plain(text)).rstrip(".")
    made_of = _FORMULA.fullmatch(bare) if len(bare) <= 60 else None
    if made_of is None or not re.search(r"\d|[+-]$", bare):
        return None
    return bare if made_of["charge"] or bare in _ALONE or len(set(re.findall(_ELEMENT, bare))) > 1 else None


def exact(gold: str, answer: str) -> float:
    """Return 1 where two texts are the same after `normalize`, else 0; chemical formulas by their letters' case, too.

    >>> exact("Paris", "paris."), exact("Paris", "Paris, France"), exact("CO2", "CO_2"), exact("CO2", "Co2")
    (1.0, 0.0, 1.0, 0.0)
    """
    if (made_of := formula(gold)) is not None:
        return float(formula(answer) == made_of)
    wanted, given = normalize(gold), normalize(answer)
    if is_asked(answer) and not is_asked(gold):  # a question states nothing
        return 0.0
    return float(wanted == given if wanted or given else gold.strip() == answer.strip())


def anls(gold: str, answer: str) -> float:
    """Return the normalised Levenshtein similarity, 0 below one half: the measure of DocVQA and other OCR tasks.

    >>> anls("invoice 1024", "invoice 1O24"), anls("invoice", "receipt")
    (0.9166666666666666, 0.0)

    `1 - distance / max(len)` on casefolded text. From "Scene Text Visual Question Answering" (arXiv 1905.13648).
    """
    gold, answer = (" ".join(text.casefold().split()) for text in (gold, answer))
    longest = max(len(gold), len(answer))
    if gold == answer:
        return 1.0
    similarity = 1 - Levenshtein.distance(gold, answer, score_cutoff=longest // 2 + 1) / longest
    return similarity if similarity > 0.5 else 0.0


def word_accuracy(gold: str, answer: str) -> float:
    """Return 1 minus the word error rate, at least 0.

    >>> word_accuracy("the cat sat down", "the cat sits down")
    0.75

    Words are split at white space and compared after `normalize`; Video-R1 and OneThinker score OCR so.
    """
    wanted, given = ([normalize(word) for word in text.split()] for text in (gold, answer))
    if len(given) >= 2 * len(wanted):
        return float(wanted == given)
    return max(0.0, 1 - Levenshtein.distance(wanted, given) / len(wanted))


_YES = "yes yeah yep true correct 是 是的 对 正确 没错 没有错 不错 无误 没问题 有 可以 能 会"
_YES += " はい 네 예 да sí si oui ja sim vero vrai"
_NO = "no nope false incorrect wrong 否 不 不是 不是的 不对 不正确 错 错误 没 没有 不可以 不能 不会 いいえ 아니요"
_NO += " нет non nein não falso faux"
_TRUTH = dict.fromkeys(_YES.split(), True) | dict.fromkeys(_NO.split(), False)
_TOKEN = re.compile(r"\w+(?:['’]\w+)?|[.,;:!?]")
_MARKS = ".,;:!?"
# Behind a yes: it is spoken of, and not said
_NO_ANSWER = frozenset(["or", "and", "is", "was", "isn't", "are", "seems", "would"])
_NEGATION = re.compile(r"not|never|cannot|\w+n['’]t|nicht|pas|не")
_NO_NEGATION = ("only", "just", "merely")  # "not only true" is true
_PLAINLY_NOT = re.compile(
    r"(?:definitely|certainly|absolutely|(?:it|they|he|she|there)\s(?:is|are|does|do|was))?\s?(?:not|n['’]t)(?:\sat\sall)?"
    rf"|(?!\S*(?:[知确清定必]|不.*不))[不没无未][{CJK}]{{1,3}}"
)
# "Yes, it is not", "No, it is": the short sentence turns the word before it.
_TURNED = re.compile(
    r"(?:yes|no),?\s(?:it|that|they|he|she|there|this|i|we)\s(?:is|are|does|do|was|were|can|will|has)(?P<not>n['’]t|\snot)?"
    r"(?:\s(?:think|believe)\sso)?"
)
_PRONOUN_WORDS = "it they there this that he she the we i because since as you these those both neither"
_PRONOUNS = frozenset(_PRONOUN_WORDS.split())
_CONDITION = re.compile(
    r"[^,.;:!?]*\b(?:if|unless|when|depend\w*)\b|\w+,\s(?:but\s)?(?:only\s)?(?:if|unless|it\sdepends)\b"
)
_IN_PART = re.compile(r"(?:sort|kind)\sof|kinda|in\stheory|opposite|\d\s?%")
_SET_ASIDE = re.compile(
    r"hardly|barely|scarcely|doubt|except|也不是?\W*\Z|thing\sbut\b|\bbut\s(?:yes|no|not)\b|\ball\sbut\b"
    r"|\b(?:half|almost|nearly|mostly)\s(?:true|right|correct)|other\sthan|rather\sthan|instead"
    r"|far\sfrom|unlike|without|neither|nobody|[除又但✗✘❌✖]|有误|以外|并非|[,;]\s?(?:or|maybe|perhaps|possibly)\b",
    re.IGNORECASE,
)


def yes_or_no(text: str) -> bool | None:
    """Read a yes or a no, in several languages; `None` where the text says neither, both or perhaps.

    >>> yes_or_no("Yes, it is."), yes_or_no("I know: yes"), yes_or_no("false"), yes_or_no("yes or no")
    (True, True, False, None)
    >>> yes_or_no("It isn't true."), yes_or_no("不包含"), yes_or_no("yes is wrong"), yes_or_no("No answer")
    (False, False, None, None)

    The first word decides unless the other answer follows it at once ("yes or no"); otherwise the one that occurs. A
    negation turns what stands at most two words behind it; what stands further behind in its clause is unclear.
    """
    folded = normalize(text)
    tokens = _TOKEN.findall(folded)
    words = [token for token in tokens if token not in _MARKS]
    if _PLAINLY_NOT.fullmatch(folded) and folded not in _TRUTH:
        return False
    if is_asked(text) or text.lstrip().startswith("{"):  # a question, or several fields of JSON
        return None
    head = re.split(r"[,.;:!?]", folded)[0]
    if is_hedged(head) or _IN_PART.search(head) or (len(words) < 4 and is_hedged(text)) or _SET_ASIDE.search(text):
        return None
    said = _said(tokens)
    turned = _TURNED.fullmatch(folded)
    if not said or (turned and (words[0] == "no") is not bool(turned["not"])):
        return None
    if words[0] not in _TRUTH:
        return said[0] if len(set(said)) == 1 else None
    turns = len(words) < 6 and len(set(said)) > 1
    spoken_of = any(word in _TRUTH or word in _NO_ANSWER or word[-3:] in ("n't", "n’t") for word in words[1:2])
    return None if _CONDITION.match(folded) or is_guessed(text) or turns or spoken_of else said[0]


def _said(tokens: Sequence[str]) -> list[bool | None]:
    """Return each yes and no of a text, turned where it is negated, `None` where that is unclear."""
    said: list[bool | None] = []
    since = None  # words since the last negation of the clause
    for token, after in itertools.zip_longest(tokens, tokens[1:], fillvalue="."):
        if token in _MARKS:
            since = None
        elif _NEGATION.fullmatch(token) and after not in _NO_NEGATION:
            since = 0
        elif token == "no" and after not in _MARKS and after not in _PRONOUNS:
            since = 0  # "no answer" says nothing
        else:
            if token in _TRUTH:
                said.append(_TRUTH[token] if since is None else None if since > 2 else not _TRUTH[token])
            since = None if since is None else since + 1
    return said


def is_yes_or_no(gold: str) -> bool:
    """Whether a gold is a yes or a no and nothing more.

    >>> is_yes_or_no("Yes."), is_yes_or_no("Yes, on Mondays")
    (True, False)
    """
    return normalize(gold) in _TRUTH


def same_yes_or_no(gold: str, answer: str) -> float | None:
    """Return 1 where gold and answer both say yes or both no; `None` where the gold is neither.

    >>> same_yes_or_no("yes", "Yes, it is."), same_yes_or_no("yes", "maybe"), same_yes_or_no("red", "yes")
    (1.0, 0.0, None)
    """
    return float(yes_or_no(answer) == _TRUTH[normalize(gold)]) if is_yes_or_no(gold) else None


_SEPARATOR = re.compile(
    r"\s{0,2}(?:[,;、，；\n]|→|->|\band\b|\bund\b|\by\b|\bet\b|&|和|与|及)\s{0,2}(?:and\b\s{0,2})?", re.IGNORECASE
)
_BULLET = re.compile(r"^\s{0,4}(?:[-*•]|\d{1,3}[.)])\s{1,4}", re.MULTILINE)


def items(text: str) -> list[str]:
    """Split an answer that is a list: JSON, bullets, lines, or what commas, semicolons and "and" separate.

    >>> items("red, green and blue"), items('["red", "a, b"]'), items("1. red" + chr(10) + "2. green")
    (['red', 'green', 'blue'], ['red', 'a, b'], ['red', 'green'])
    """
    values = listed(text)
    if values is not None:
        return [str(value) for value in values]
    bare = _BULLET.sub("", text.strip()).strip("[](){}\\$ ").removesuffix(".")
    bare = re.sub(r"\A[Bb]oth\s", "", bare)
    lines = bare.split("\n") if "\n" in bare else _SEPARATOR.split(bare)
    return [line.strip() for line in lines if line.strip()]


def same_items(gold: str, answer: str, *, ordered: bool) -> float:
    """Return 1 where two lists hold the same items, in the same order if `ordered`; else 0.

    >>> same_items("1, 2.0, red", "Red; 2 and 1", ordered=False), same_items("1, 2", "2, 1", ordered=True)
    (1.0, 0.0)

    Items are compared as quantities where they are, else after `normalize`. A repeated item counts as often.
    """
    if is_asked(answer) and not is_asked(gold):
        return 0.0
    wanted, given = ([item_key(item) for item in items(text)] for text in (gold, answer))
    return float(wanted == given if ordered else Counter(wanted) == Counter(given))


def listed(text: str) -> list | None:
    """Return the list that a text is in JSON or as Python writes it, or `None` for any other text.

    >>> listed("[1, 2]"), listed("['a', 'b']"), listed("1, 2")
    ([1, 2], ['a', 'b'], None)
    """
    text = text.strip()
    if not text.startswith("[") or len(text) > 10_000:
        return None
    for read in (json.loads, ast.literal_eval):  # literals alone: nothing runs
        with contextlib.suppress(ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
            values = read(text)
            return values if isinstance(values, list) else None
    return None


def accepted(gold: str) -> list[str] | None:
    """Return the strings of a gold that is a list of strings, or `None` for any other text.

    >>> accepted('["NYC", "New York"]'), accepted("New York"), accepted("[1, 2]")
    (['NYC', 'New York'], None, None)
    """
    values = listed(gold)
    return values if values and all(isinstance(value, str) for value in values) else None


_NAMES = "jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec"
_MONTH = rf"(?P<name>{_NAMES})[a-z]{{0,6}}\.?"
_DAY = r"(?P<day>\d{1,2})(?:st|nd|rd|th)?"
_YEAR = r"(?P<year>\d{4})"
_DATES = [
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        rf"(?<!\d){_YEAR}\s?[-/.年]\s?(?P<month>\d{{1,2}})\s?[-/.月]\s?(?P<day>\d{{1,2}})(?!\d)\s?[日号]?",
        rf"(?<!\d){_DAY}\s?[-/.]\s?(?P<month>\d{{1,2}})\s?[-/.]\s?{_YEAR}(?!\d)",
        rf"(?<!\d){_DAY}(?:\s{{1,2}}of)?[\s-]{{1,2}}{_MONTH},?[\s-]{{1,2}}{_YEAR}(?!\d)",
        rf"\b{_MONTH}\s{{1,2}}(?:the\s)?{_DAY},?\s{{1,2}}{_YEAR}(?!\d)",
    )
]
_HALF = r"(?P<half>am|pm|a\.m|p\.m)\b"
_CLOCKS = [
    re.compile(r"(?<![\d:.])" + pattern, re.IGNORECASE)
    for pattern in (
        r"(?P<hour>\d{1,2})(?:\s?[:点]\s?|h)(?P<minute>[0-5]\d)(?:\s?[:分]\s?(?P<second>[0-5]\d)|分)?"
        rf"(?![\d:.]\d|\d|\s?m(?!\.)|分)(?:\s{{0,2}}{_HALF})?",
        r"(?P<minute>\d{1,2})(?:\s{1,2}minutes?)?\s{1,2}(?P<way>past|after|to|before)\s{1,2}(?P<hour>\d{1,2})\b"
        rf"(?:\s{{0,2}}{_HALF})?(?:\s?o'clock)?",
        rf"(?P<hour>\d{{1,2}})\s{{0,2}}(?:{_HALF}|o'?\s?clock|点整?)(?:(?P<minute>\d{{1,2}})分?)?",
    )
]
_HALF_DAYS = (("下午|晚上|傍晚|in the (?:afternoon|evening)|at night", "pm"), ("上午|早上|凌晨|in the morning", "am"))
LONGEST = 300
MOST_WORDS = 8  # around a date or a time


# "before 3:05", "3:05 fast": another time than the one that is named.
_SINCE = re.compile(r"\b(?:before|after|until|till|by|since|from|past|starting|in|eve\sof)\s*\Z", re.IGNORECASE)
_THEN = re.compile(
    r"\s*(?:\b(?:on|onwards?|later|earlier|ago|fast|slow|early|late|BC|minus|plus|less)\b|[之以的]?[前后後次])",
    re.IGNORECASE,
)


def _found(patterns: Sequence[re.Pattern[str]], text: str) -> re.Match[str] | None:
    """The first of the patterns that is in a text, around which a few words may stand that change nothing."""
    for found in filter(None, (pattern.search(text) for pattern in patterns)):
        before, behind = text[: found.start()], text[found.end() :]
        rest = f"{before} {behind}"
        if re.search(r"\d", rest) or _SINCE.search(before) or _THEN.match(behind):
            continue
        if len(rest.split()) <= MOST_WORDS and is_asserted(rest):
            return found
    return None


def read_dates(text: str) -> set[date]:
    """Return the dates that a text may mean: none, one, or two where day and month could be exchanged.

    >>> read_dates("March 5th, 2024") == read_dates("2024-03-05") == read_dates("5 Mar 2024") != set()
    True
    >>> sorted(day.isoformat() for day in read_dates("3/5/2024")), read_dates("not 2024-03-05")
    (['2024-03-05', '2024-05-03'], set())
    """
    match = _found(_DATES, with_figures(plain(text[:LONGEST])))
    if match is None:
        return set()
    parts = match.groupdict()
    year, day = int(parts["year"]), int(parts["day"])
    month = _NAMES.split("|").index(parts["name"].lower()) + 1 if "name" in parts else int(parts["month"])
    found = set()
    for one_month, one_day in [(month, day), (day, month)] if match.re is _DATES[1] else [(month, day)]:
        with contextlib.suppress(ValueError):  # no such day
            found.add(date(year, one_month, one_day))
    return found


def same_date(gold: str, answer: str) -> float | None:
    """Return 1 where the answer is the gold's date; `None` where the gold is no date.

    >>> same_date("2024-03-05", "5 March 2024"), same_date("2024-03-05", "2024-03-06"), same_date("soon", "2024-03-05")
    (1.0, 0.0, None)

    Of "3/5/2024" both readings count: it is the fifth of March and the third of May.
    """
    wanted = read_dates(gold)
    return float(bool(wanted & read_dates(answer))) if wanted else None


def read_time(text: str) -> tuple[int, bool] | None:
    """Return the seconds after midnight that a text states, and whether it tells morning from afternoon.

    >>> read_time("3:05 pm"), read_time("half past 3"), read_time("quarter to four"), read_time("7 o'clock")
    ((54300, True), (12600, False), (13500, False), (25200, False))
    >>> read_time("2h 30min"), read_time("not 3:05"), read_time("三点半")
    (None, None, (12600, False))
    """
    text = plain(text[:LONGEST]).replace("’", "'")
    text = re.sub(r"\bhalf(?=\spast)", "30", text, flags=re.IGNORECASE)
    text = re.sub(r"\b(?:a\s)?quarter(?=\s(?:past|after|to|before))", "15", text, flags=re.IGNORECASE)
    text = with_figures(re.sub(r"(?<=[^\s\d])点", "点 ", re.sub("点半", "点30分", re.sub("[一刻]刻", "15分", text))))
    if " " not in text and "-" not in text:
        text = re.sub(r"\bnoon\b", "12:00 pm", re.sub(r"\bmidnight\b", "12:00 am", text))
    text = re.sub(r"点(\d)分", r"点0\1分", re.sub(r"点\s|(?<=\d)[时時]", "点", text))
    for words, half in _HALF_DAYS:
        text = re.sub(rf"(?:{words})\s?(\S+)|(\S+)\s(?:{words})", lambda m, half=half: f"{m[1] or m[2]} {half}", text)  # type: ignore[misc]
    match = _found(_CLOCKS, text)
    return _clock(**match.groupdict()) if match else None


def _clock(
    hour: str, minute: str | None = None, second: str | None = None, half: str | None = None, way: str | None = None
) -> tuple[int, bool] | None:
    hours, minutes = int(hour), int(minute or 0)
    if hours > 23 or minutes > 59 or ((half or way) and not 1 <= hours <= 12):
        return None
    if half:
        hours = hours % 12 + (12 if half[0] in "pP" else 0)
    sign = -1 if way and way.lower() in ("to", "before") else 1
    if way and not half:
        return (hours * 60 + sign * minutes) % 720 * 60, False
    return (hours * 3600 + sign * minutes * 60 + int(second or 0)) % 86400, bool(half) or hours > 12


def same_time(gold: str, answer: str) -> float | None:
    """Return 1 where the answer is the gold's time of day; `None` where the gold is no time.

    >>> same_time("15:05", "3:05 pm"), same_time("3:05", "15:05"), same_time("3:05 am", "3:05 pm")
    (1.0, 1.0, 0.0)

    A dial does not tell morning from afternoon: hours count modulo twelve unless both sides tell them apart.
    """
    wanted, given = read_time(gold), read_time(answer)
    if wanted is None:
        return None
    if given is None:
        return 0.0
    day = 24 * 3600 if wanted[1] and given[1] else 12 * 3600
    return float((wanted[0] - given[0]) % day == 0)
