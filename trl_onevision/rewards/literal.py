"""Answers that are words: normalised text, edit distances for OCR and speech, yes/no, lists."""

import itertools
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Hashable, Sequence

from trl_onevision.rewards.number import plain_number

_TEXT_COMMAND = re.compile(r"\\(?:text|textbf|textit|mathrm|mathbf|operatorname)\b|[{}$`*]")
_ARTICLE = re.compile(r"^(?:the|a|an)\s+(?=\S)")
_EDGES = " \t\r\n.,;:!?\"'“”‘’«»()[]。，；：！？、"


def normalize(text: str) -> str:
    r"""Reduce a text to what counts when answers are compared.

    >>> normalize("  The  Eiffel Tower. "), normalize(r"\text{Ｃａｔ}")
    ('eiffel tower', 'cat')

    Unicode compatibility forms, case, runs of white space, punctuation at both ends, a leading article and text
    mark-up (Markdown's asterisks, LaTeX's text commands) do not count.
    """
    text = unicodedata.normalize("NFKC", _TEXT_COMMAND.sub("", text)).casefold()
    words = " ".join(text.split()).strip(_EDGES)
    return _ARTICLE.sub("", words) or words


def exact(gold: str, answer: str) -> float:
    """Return 1 where two texts are the same after `normalize`, else 0.

    >>> exact("Paris", "paris."), exact("Paris", "Paris, France")
    (1.0, 0.0)
    """
    wanted, given = normalize(gold), normalize(answer)
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
    if abs(len(gold) - len(answer)) * 2 >= longest:  # the distance is at least that
        return 0.0
    similarity = 1 - edit_distance(gold, answer) / longest
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
    return max(0.0, 1 - edit_distance(wanted, given) / len(wanted))


def edit_distance(first: Sequence[Hashable], second: Sequence[Hashable]) -> int:
    """Return the Levenshtein distance of two sequences.

    >>> edit_distance("kitten", "sitting")
    3

    Hyyrö's bit-parallel algorithm on one long integer a column: a step costs a few operations on `len(first)` bits.
    """
    if not first:
        return len(second)
    positions: dict[Hashable, int] = {}
    for index, item in enumerate(first):
        positions[item] = positions.get(item, 0) | 1 << index
    mask, last = (1 << len(first)) - 1, 1 << (len(first) - 1)
    rises, falls, distance = mask, 0, len(first)
    for item in second:
        matches = positions.get(item, 0)
        diagonal = (((matches & rises) + rises) ^ rises) | matches | falls
        up, down = falls | ~(diagonal | rises) & mask, diagonal & rises
        distance += bool(up & last) - bool(down & last)
        up, down = up << 1 | 1, down << 1
        rises, falls = (down | ~(diagonal | up)) & mask, up & diagonal & mask
    return distance


_YES = "yes yeah yep true correct 是 是的 对 正确 没错 没有错 有 はい 네 예 да sí si oui ja sim vero vrai"
_NO = "no nope false incorrect wrong 否 不 不是 不是的 不对 不正确 错 错误 没 没有 いいえ 아니요"
_NO += " нет non nein não falso faux"
_TRUTH = dict.fromkeys(_YES.split(), True) | dict.fromkeys(_NO.split(), False)
_WORD = re.compile(r"\w+(?:['’]\w+)?|[.,;:!?]")
_NEGATION = re.compile(r"not|never|cannot|\w+n['’]t|nicht|pas|не")
_NO_NEGATION = ("only", "just", "merely")  # "not only true" is true


def yes_or_no(text: str) -> bool | None:
    """Read a yes or a no, in several languages; `None` where the text says neither or both.

    >>> yes_or_no("Yes, it is."), yes_or_no("I know: yes"), yes_or_no("false"), yes_or_no("yes or no")
    (True, True, False, None)
    >>> yes_or_no("It isn't true."), yes_or_no("No, it is not true."), yes_or_no("I doubt not that it may be true")
    (False, False, None)

    The first word decides unless the other answer follows it at once ("yes or no"); otherwise the one that occurs. A
    negation turns what stands at most two words behind it; what stands further behind in its clause is unclear.
    """
    tokens = _WORD.findall(normalize(text))
    words = [token for token in tokens if token not in ".,;:!?"]
    said = _said(tokens)
    if not said:
        return None
    if len(set(said)) == 1:
        return said[0]
    hedges = words[1:2] and (words[1] in ("or", "and") or words[1] in _TRUTH)
    return said[0] if words[0] in _TRUTH and not hedges else None


def _said(tokens: Sequence[str]) -> list[bool | None]:
    """Return each yes and no of a text, turned where it is negated, `None` where that is unclear."""
    said: list[bool | None] = []
    since = None  # words since the last negation of the clause
    for token, after in itertools.zip_longest(tokens, tokens[1:]):
        if token in ".,;:!?":
            since = None
        elif _NEGATION.fullmatch(token) and after not in _NO_NEGATION:
            since = 0
        else:
            if token in _TRUTH:
                said.append(_TRUTH[token] if since is None else None if since > 2 else not _TRUTH[token])
            since = None if since is None else since + 1
    return said


def is_yes_or_no(gold: str) -> bool:
    """Tell whether a gold is a yes or a no and nothing more.

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
    r"\s{0,2}(?:[,;、，；\n]|\band\b|\bund\b|\by\b|\bet\b|&)\s{0,2}(?:and\b\s{0,2})?", re.IGNORECASE
)
_BULLET = re.compile(r"^\s{0,4}(?:[-*•]|\d{1,3}[.)])\s{1,4}", re.MULTILINE)


def items(text: str) -> list[str]:
    """Split an answer that is a list: JSON, bullets, lines, or what commas, semicolons and "and" separate.

    >>> items("red, green and blue"), items('["red", "a, b"]'), items("1. red" + chr(10) + "2. green")
    (['red', 'green', 'blue'], ['red', 'a, b'], ['red', 'green'])
    """
    values = json_list(text)
    if values is not None:
        return [str(value) for value in values]
    bare = _BULLET.sub("", text.strip()).strip("[](){}")
    lines = bare.split("\n") if "\n" in bare else _SEPARATOR.split(bare)
    return [line.strip() for line in lines if line.strip()]


def same_items(gold: str, answer: str, *, ordered: bool) -> float:
    """Return 1 where two lists hold the same items, in the same order if `ordered`; else 0.

    >>> same_items("1, 2.0, red", "Red; 2 and 1", ordered=False), same_items("1, 2", "2, 1", ordered=True)
    (1.0, 0.0)

    Items are compared as numbers where they are numbers, else after `normalize`. A repeated item counts as often.
    """
    wanted, given = ([_item_key(item) for item in items(text)] for text in (gold, answer))
    return float(wanted == given if ordered else Counter(wanted) == Counter(given))


def _item_key(item: str) -> Hashable:
    number = plain_number(item)
    return normalize(item) if number is None else number.value


def accepted(gold: str) -> list[str] | None:
    """Return the strings of a gold that is a JSON list of strings, or `None` for any other text.

    >>> accepted('["NYC", "New York"]'), accepted("New York"), accepted("[1, 2]")
    (['NYC', 'New York'], None, None)
    """
    values = json_list(gold)
    return values if values and all(isinstance(value, str) for value in values) else None


def json_list(text: str) -> list | None:
    """Return the list that a text is as JSON, or `None` for any other text.

    >>> json_list("[1, 2]"), json_list("1, 2")
    ([1, 2], None)
    """
    if not text.lstrip().startswith("["):
        return None
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return values if isinstance(values, list) else None
