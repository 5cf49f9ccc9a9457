"""Multiple choice: which options a text picks, by label or else by what an option says."""

import itertools
import re
import string
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

from trl_onevision.answers import parse
from trl_onevision.answers.compare import same
from trl_onevision.answers.markup import normalize, plain
from trl_onevision.answers.numerals import CJK
from trl_onevision.answers.sentence import ANSWER_ABROAD, IS_ABROAD, affirmed, without_relative
from trl_onevision.answers.stance import commits, is_asked, is_asserted, is_denied, is_guessed, is_hedged
from trl_onevision.answers.words import accepted, exact, is_yes_or_no, items, yes_or_no

LETTERS = string.ascii_uppercase[:10]  # of labels where the options are not known
_WORD = re.compile(rf"[{CJK}]|[^\W_]+(?:[.'’-][^\W_]+)*|[%°]")
_OWN_LABEL = r"\s{{0,4}}[-*]?\s?[*_]{{0,2}}\(?{label}[).:、．][*_)]{{0,3}}\s{{0,4}}(?=\S)"
MOST_CHARACTERS = 2_000  # of an answer; no pick is that long
LONGEST_VALUE = 120  # of an option behind its label: all that follows each label would be read for each

# What leads to a label and says nothing
_SAID = r"would|will|do|think|believe|guess|choose|pick|select|go|say|answer"
_LEAD = re.compile(
    rf"(?:(?:so|thus|therefore|hence|then|my|our|the|this|final|correct|best|right|most|likely|probably"
    rf"|definitely|clearly|surely|certainly|obviously"
    rf"|we|(?:i|we)['’](?:ll|d)|i(?=\s(?:{_SAID})\b)|{_SAID}|with|answers?|options?|choices?|letter|label|solution|is|are|be"
    rf"|(?:it|that)['’]s|it|that|to|which|one|both|should|must|la|die)\b|{ANSWER_ABROAD}|{IS_ABROAD}"
    rf"|[故所以因此应该本题正确答案选择项为是我认:,#\s])+",
    re.IGNORECASE,
)
_LABEL = re.compile(
    r"(?P<open>[(\[{'*_【]{0,4})(?<![A-Za-z0-9_^'’\\])(?P<letter>[A-Z]|[a-z](?!\())"
    r"(?P<close>['*_]{0,4}(?:[)\]}】]|[.:](?!\d))['*_.:]{0,4}"
    r"|['*_]{0,4})(?:(?<=[A-Z][)\]}】])(?=[A-Za-z]{2})|(?![A-Za-z0-9_^#]|['’][A-Za-z]))"
)
_DRESS = r"[\s$=\\.,:;()\[\]{}'\"*_|\-]{0,4}"  # around a label alone; a cross and a sign of negation are none
_ALL_LABELS = re.compile(rf"{_DRESS}([A-Z](?:\s?[A-Z]){{0,9}})(?:\s?[!✓✔✅☑])?{_DRESS}")
_JOINT = re.compile(r"[\s'\"]{0,4}(?:[,;/&|+\n]|\band\b|[和与及])(?:\s?and\b)?[\s'\"]{0,4}", re.IGNORECASE)
_AFFIRMED = re.compile(
    r"(?:is|was)\s(?:(?:the|most|likely|clearly|correct|right|true|best|final|one|answer|option|choice)\b\s?)+",
    re.IGNORECASE,
)
# Where the reasons for a pick begin, in which other options may be named
_REASON = re.compile(
    r"\b(?:because|given)\b|[因由]|(?:^|[,;.:(\n—–-])\s?(?:since|as(?!\swell)|so|where"
    r"|which(?!\s(?:is|was)\s(?:wrong|incorrect|false|not))|thus|hence|therefore)\b",
    re.IGNORECASE,
)
_CLAUSE = re.compile(r"[,;!\n]|\.(?!\d)|\bbut\b|但", re.IGNORECASE)
_AROUND = " \n:;,–—-()=\"'*_"  # what stands between a label and its option
_TOGETHER = re.compile(r"\b(?:both|all|are|were)\b|[均都皆全]")
_AND_MORE = re.compile(r"\s?(?:(?:and|plus)\b|[&+和与])", re.IGNORECASE)
# "red, not green", "not green but red"
_NOT_ANOTHER = re.compile(
    r"(?:,\s|\s\()not\s[^,]*\Z|\bnot\s(?!(?:only|sure|certain|clear)\b)[^,.]{1,30},?\s(?=but\s)", re.IGNORECASE
)
_BECAUSE = re.compile(r"\b(?:because|since)\b.*")
_SHADES = ("dark", "light", "pale", "deep", "less", "half", "semi", "non", "near", "new")  # dark red is another colour
_BETWEEN, _BETWEEN_OPEN = re.compile(r"[\s,*_'\"–—-]*"), re.compile(r"[\s,(*_'\"]*(?:is\s)?")
_WORD_END = r"(?!(?<=[a-z0-9])[a-z0-9])"
_FORMULA = re.compile(r"\s{0,4}(?:[-=]?>|[=→<~^*≠≤≥≈]|-\s?[A-Za-z0-9(](?![A-Za-z]))")
_OUTRIGHT = re.compile(r"\A\W*no\b|\b(?:wrong|incorrect|false|not\s(?:right|correct))\b", re.IGNORECASE)
_LONE = re.compile(r"\s*\W?[A-Za-z]\W?\s*")
_BRACKETED = re.compile(
    r"[(\[【]\s?([A-Z])\s?[)\]】]|\b(?:[Oo]ption|[Cc]hoice|选项?)\s?([A-Z])\b"
    r"|\b(?:is|are|be|letter)\s(?:letter\s)?['\"]?([A-Z])['\"]?\W*\Z"
)

Options = dict[str, str]  # label -> what it says, "" where that is not known
Picks = frozenset[str]
NONE: Picks = frozenset()


def without_label(choice: Any, label: str) -> str:
    """Return an option's text without the label that it carries itself; `None` has none.

    >>> without_label("A) red", "A"), without_label("A) red", "B"), without_label(3, "A")
    ('red', 'A) red', '3')
    """
    text = "" if choice is None else str(choice)
    return re.sub("^" + _OWN_LABEL.format(label=label), "", text).strip() if label in text[:9] else text.strip()


def _options(choices: Sequence[Any]) -> tuple[str, ...]:
    if len(choices) == 1 and isinstance(choices[0], list | tuple):  # as MMMU-Pro ships a row
        (choices,) = choices
    return tuple(map(without_label, choices, string.ascii_uppercase))


def read_choices(text: str, choices: Sequence[Any] | None = None) -> Picks:
    """Return the labels that a text picks: none where it picks nothing, denies or hedges.

    >>> sorted(read_choices("(B)")), sorted(read_choices("B) red")), sorted(read_choices("A, because B is wrong"))
    (['B'], ['B'], ['A'])
    >>> sorted(read_choices("A and C")), sorted(read_choices("BD")), sorted(read_choices("not (A)"))
    (['A', 'C'], ['B', 'D'], [])
    >>> sorted(read_choices("It is the red one.", choices=["red", "blue"])), sorted(read_choices("A man runs"))
    (['A'], [])
    >>> sorted(read_choices("64 degrees", choices=["26°", "64°"])), sorted(read_choices("(A) C", choices=["C", "A"]))
    (['B'], ['A'])

    A label goes before the words; without one, the option that equals the text, in value or in words; without that,
    the one option whose words occur in it. Labels beyond the number of `choices` are no options.
    """
    return _read(text[:MOST_CHARACTERS], _options(choices) if choices else ())


@lru_cache(maxsize=8192)
def _read(text: str, choices: tuple[str, ...]) -> Picks:
    options = dict(zip(string.ascii_uppercase, choices, strict=False)) or dict.fromkeys(LETTERS, "")
    text = affirmed(re.sub(r"^[-*>]\s+", "", plain(text)))
    bare = _bare(text)
    picked = _same(text, options) or _labelled(bare, options)
    if picked is None:
        picked = _listed(bare, options) or _named(text, options)
    return _by_words(text, options) if picked is None else picked


def _bare(text: str) -> str:
    return text[lead.end() :] if (lead := _LEAD.match(text)) else text


def _same(text: str, options: Options) -> Picks:
    """Pick the one option that the whole text is; of an option that stands there twice the first."""
    equal = _equal(text, options)
    return frozenset(equal[0]) if len({normalize(options[label]) for label in equal}) == 1 else NONE


def _equal(text: str, options: Options) -> list[str]:
    """The options that a whole text is, in words or else in value; a lone letter is a label where it can be."""
    lone = text.strip("()[]. ").upper()
    if len(lone) == 1 and lone in options:
        return []
    equal = [label for label, option in options.items() if option and exact(option, text)]
    equal = equal or [label for label, option in options.items() if option and _equal_values(option, text)]
    # Of 1.2 and 5(√5 - 2) the second is 5√5 - 10; the first is what it rounds to
    return equal if len(equal) < 2 else [one for one in equal if _equal_values(text, options[one])] or equal


def _is_another(text: str, label: str, options: Options) -> bool:
    """Whether what stands beside a label is what other options say and not its own: "A. blue"."""
    said = text.strip(_AROUND) and (_equal(text, options) or _equal(_bare(text.strip(_AROUND)), options))
    return label not in (said or _by_words(text, options) or label)


def _labelled(text: str, options: Options) -> Picks | None:
    """Read a text that begins with a label: what its clauses add or deny, up to a reason; `None` where it does not."""
    joined = _ALL_LABELS.fullmatch(text)
    letters = re.sub(r"\s", "", joined[1]) if joined else ""
    if letters and options.keys() >= set(letters):
        return frozenset(letters) if len(letters) == len(set(letters)) and not is_hedged(text) else NONE
    first = _LABEL.match(text)
    if first is None:
        return None
    if first["letter"].upper() not in options:  # "E) red" of four options
        return NONE if first["letter"].isupper() and (first["close"] or first.end() == len(text)) else None
    own = _own_end(text, first, options)
    if own == first.end() and not _is_label(text, first):
        return None
    if _FORMULA.match(text, own):
        return NONE
    picked, denied_before = set[str](), False
    for label, of_option, said, goes_on in _mentions(text, first, own, options):
        pieces = _CLAUSE.split(said)
        of_this = pieces[0] if len(pieces) > 1 or not goes_on else ""
        if (
            is_hedged(said)
            or is_guessed(said)
            or re.search("[?吗嗎]", said)
            or _AND_MORE.match(of_this)
            or any(map(_OUTRIGHT.search, pieces[1:]))
            or (said and _is_another(of_option, label, options))
            or any(_same(_bare(one.strip(_AROUND)), options) - {label} for one in pieces)
        ):
            return NONE
        if not denied_before and not is_denied(of_this):
            picked.add(label)
        elif not denied_before and _TOGETHER.search(of_this):
            return NONE
        denied_before = is_denied(pieces[-1])
    return frozenset(picked)


def _mentions(text: str, label: re.Match[str], start: int, options: Options) -> Iterator[tuple[str, str, str, bool]]:
    """Yield each label, what follows up to the next or a reason, that without its words, and if another follows."""
    # Of an option whose own words are not known, a letter among them is no label unless it is marked as one
    only_marked = not any(options.values()) and label["close"] != "" and re.match(r"\s?\w", text[start:]) is not None
    for other in itertools.chain(_LABEL.finditer(text, start), (None,)):
        if other and not (start <= other.start() and _goes_on(text, start, label, other, options, only_marked)):
            continue
        end = other.start() if other else len(text)
        reason = _REASON.search(text[start:end])
        end = start + reason.start() if reason else end
        yield label["letter"].upper(), text[label.end() : end], text[start:end], bool(other and not reason)
        if reason or not other:
            return
        label, start = other, _own_end(text, other, options)


def _goes_on(
    text: str, start: int, before: re.Match[str], found: re.Match[str], options: Options, only_marked: bool
) -> bool:
    """Whether a letter is the next label behind another; "A" and "I" may be words, "a" is a label in a list alone."""
    if found["letter"].upper() not in options:
        return False
    said, capital, follows = text[start : found.start()], found["letter"].isupper(), text[found.end() :]
    mark = found["close"].strip("'*_")
    if mark and (follows.strip() or mark[0] in ")]}】") and (capital or before["letter"].islower()):
        return True
    alone = not follows.strip(" '\"*_)]") or _CLAUSE.match(follows) or _JOINT.match(follows)
    listed = alone and _JOINT.fullmatch(said)
    may_be_word = found["letter"] in "AI" and not found["close"] and not (said and alone)
    return not only_marked and bool(listed or (capital and not may_be_word))


def _is_label(text: str, first: re.Match[str]) -> bool:
    """Whether a lone letter at the head of a text is a label: "A man", "a + b" and "I think" begin with none."""
    letter, rest = first["letter"], text[first.end() :].lstrip(" '*_")
    marked = first["close"].strip("'*_") and (letter.isupper() or first["close"][:1] == ")")
    if marked or not rest.strip(".,;!?"):
        return True
    if letter.islower():
        joint = _JOINT.match(text, first.end())
        return bool(joint and (after := _LABEL.match(text, joint.end())) and after["letter"].islower())
    word = re.split(r"\W", rest, maxsplit=1)[0].lower()
    if word in ("is", "was"):
        return bool(_AFFIRMED.match(rest)) or is_denied(rest)
    goes_on = _JOINT.match(rest) or _CLAUSE.match(rest) or _REASON.match(rest) or _FORMULA.match(rest)
    other_words = word in ("rather", "instead") or not is_asserted(word) or ord(rest[0]) > 0x2E80
    return bool(goes_on) or rest[0] in "([–—-?" or other_words or letter not in "AI"


def _own_end(text: str, label: re.Match[str], options: Options) -> int:
    """The place behind a label and its own option's text, in which letters are no labels."""
    own = options[label["letter"].upper()]
    if not own:
        return label.end()
    said = r"\s*".join(map(re.escape, re.findall(r"\w+|[^\w\s]", plain(own).rstrip(". ").casefold())))
    for between in (_BETWEEN, _BETWEEN_OPEN):
        start = between.match(text, label.end()).end()  # type: ignore[union-attr]
        if found := re.match(said + _WORD_END, text[start:].casefold()):
            return start + found.end()
        if len(text) - start <= LONGEST_VALUE and _equal_values(own, text[start:]):
            return len(text)
    return label.end()


def _equal_values(option: str, text: str) -> bool | None:
    length = parse.LENGTH.fullmatch(option) is not None
    wanted, given = parse.read(option, length), parse.read(text, length)
    return wanted is not None and given is not None and same(wanted, given)


def _listed(text: str, options: Options) -> Picks:
    """Pick the options that a text lists, and nothing else: "red and blue"."""
    picks = [_same(item, options) for item in items(text)]
    return frozenset().union(*picks) if len(picks) > 1 and all(picks) else NONE


def _named(text: str, options: Options) -> Picks | None:
    """Pick the label that a sentence names in brackets or as an option; `None` where it names none, or several."""
    text = without_relative(text)
    found = {"".join(label) for label in _BRACKETED.findall(text)} & options.keys()
    if len(found) != 1 or not is_asserted(text):
        return None
    return NONE if _is_another(_BRACKETED.sub("", text), min(found), options) else frozenset(found)


def _by_words(text: str, options: Options) -> Picks:
    """Pick the option whose words occur in the text; of "red" and "dark red" the longer one."""
    text = _NOT_ANOTHER.sub("", text)
    padded = f" {' '.join(_WORD.findall(normalize(text)))} "
    folded = {label: " ".join(_WORD.findall(normalize(option))) for label, option in options.items()}
    present = {
        label: words
        for label, words in folded.items()
        if words and (cut := padded.split(f" {words} "))[1:] and cut[0].rpartition(" ")[2] not in _SHADES
    }
    truths = [label for label in options if is_yes_or_no(options[label])]
    if truths and (said := yes_or_no(text)) is not None:
        agreed = [label for label in truths if label in present and yes_or_no(options[label]) is said]
        if len(agreed) == 1:
            return frozenset(agreed)
    present = {
        label: words for label, words in present.items() if label not in truths and not _is_value(options[label])
    }
    maximal = [
        label for label, words in present.items() if not any(words != one and words in one for one in present.values())
    ]
    if len(maximal) != 1 or is_asked(text):
        return NONE
    words = present[maximal[0]]
    rest = without_relative(_BECAUSE.sub(" ", padded.replace(f" {words} ", " | ")))
    before, _, behind = rest.partition(" | ")
    near = " ".join([*before.split()[-3:], *behind.split()[:2]])  # a bound elsewhere is one on something else
    return frozenset(maximal) if commits(rest) and is_asserted(near) else NONE


def _is_value(option: str) -> bool:
    """Whether an option is mathematics or a lone letter, which is picked as a whole or not at all."""
    is_letter = len(normalize(option)) < 2 and not re.match(rf"[{CJK}]", normalize(option))
    return is_letter or parse.read(option, False) is not None


def gold_choices(gold: str, choices: Sequence[Any] | None = None) -> list[Picks]:
    """Return what a gold accepts as picks, from "B", "(B)", "A,C", "AC", '["A", "C"]' or an option's text.

    >>> gold_choices("blue", ["red", "blue"]) == [{"B"}], gold_choices('["A", "C"]') == [{"A", "C"}]
    (True, True)
    >>> gold_choices("18", ["9", "12", "18", "18"]) == [{"C"}, {"D"}], gold_choices("答案：B") == [{"B"}]
    (True, True)

    Of an option's text that stands there twice either label counts; a small letter is an option's text where one is.
    """
    lone = _LONE.fullmatch(gold)
    parts = [gold.upper()] if lone else accepted(gold) or [gold]
    fold = str.strip if lone else normalize
    options = zip(string.ascii_uppercase, map(fold, _options(choices or ())), strict=False)
    twins = [label for label, option in options if option and option == fold(gold)]
    if twins and (gold.islower() if lone else len(twins) > 1):
        return [frozenset(label) for label in twins]
    picks = [read_choices(part, choices) for part in parts]
    return [frozenset().union(*picks)] if all(picks) else []
