"""Multiple choice: which options a text picks, by letter or by the option's own words."""

import re
import string
from collections.abc import Sequence
from typing import Any

from trl_onevision.rewards.literal import accepted, normalize

LETTERS = string.ascii_uppercase[:10]
_QUOTES = r"\s*_\"'“”‘’$"
_LEAD = (
    rf"^[{_QUOTES}(\[{{]{{0,8}}(?:(?:the\s)?(?:correct\s)?(?:options?|choices?|answers?|选项|选)"
    rf"\s{{0,2}}(?:is|are|:|：)?[\s*_(\[]{{0,8}})?"
)
# What may follow a letter that is an answer and not a word ("A man"): a bracket, punctuation, a reason, the end.
_END = rf"(?=[{_QUOTES}}}]{{0,8}}(?:$|[)\].:,;!?、，。：；）】/&=\n–—-]|(?:because|since|as|is|and|or)\b|和))"
_DELIMITED = re.compile(rf"{_LEAD}([{LETTERS}])(?!\w){_END}", re.IGNORECASE)
_BARE = re.compile(rf"{_LEAD}([B-HJ])(?=\s)")
_MORE = re.compile(
    rf"[{_QUOTES})\]）】]{{0,4}}(?:[,;/&、，和]|\band\b|\bor\b|\n(?=\W{{0,4}}[{LETTERS}]\W{{0,4}}(?:\n|$)))"
    rf"[{_QUOTES}(\[（【]{{0,4}}(?:and\s|or\s)?\(?"
    rf"(?!I\s\w)([{LETTERS}])(?![\w'’])"
)
# "A) red, C) green": the letters of the options that follow, up to the reasons; none of "A) red, B) blue is wrong".
_LABEL = re.compile(r"[\s*_]{0,4}[)\].:：）】][\s*_]{0,4}(?=[^\s*_])")
_LABELLED = re.compile(
    rf"(?:[\n,;/|、，；]|\band\b|\bor\b|和|\s(?=\W?[{LETTERS}][)\]）】]))[{_QUOTES}(\[（【-]{{0,8}}(?:and\s|or\s)?[(\[（【]?"
    rf"([{LETTERS}])(?:[)\]）】]|[.:：]\s{{1,4}}\S)"
)
_REASON = re.compile(r"\b(?:because|since|as|so|but|not|while|whereas|than)\b", re.IGNORECASE)
_REJECTION = re.compile(r"\b(?:wrong|incorrect|false|eliminated?|excluded?|ruled)\b", re.IGNORECASE)
_JOINED = re.compile(rf"^\W{{0,4}}([{LETTERS}](?:\s?[{LETTERS}]){{1,9}})\W{{0,4}}$")
_BRACKETED = re.compile(rf"[(\[（【]\s?([{LETTERS}])\s?[)\]）】]|\*\*([{LETTERS}])\*\*")
_WORDS = re.compile(r"[^\s.,;:!?()]+")
_TEXT = re.compile(r"\\(?:text|mathrm|mathbf|textbf|boxed)\s?\{([^{}]{0,200})\}")


def read_choices(text: str, choices: Sequence[str] | None = None) -> frozenset[str]:
    """Return the letters that a text picks, of A to J.

    >>> sorted(read_choices("(B)")), sorted(read_choices("B) red")), sorted(read_choices("A, because B is wrong"))
    (['B'], ['B'], ['A'])
    >>> sorted(read_choices("A and C")), sorted(read_choices("BD")), sorted(read_choices("It is the red one."))
    (['A', 'C'], ['B', 'D'], [])
    >>> sorted(read_choices("A. red, C. green")), sorted(read_choices("A. red, not C. green"))
    (['A', 'C'], ['A'])
    >>> sorted(read_choices("It is the red one.", choices=["red", "blue"])), sorted(read_choices("A man runs"))
    (['A'], [])

    In this order: the text is an option's text; it begins with letters, each with
    the option's text or without; it holds one letter in brackets or bold; the
    words of exactly one option occur in it. Letters beyond the number of `choices` are no options.
    """
    text = _TEXT.sub(r"\1", text).strip()
    labels = LETTERS[: len(choices)] if choices else LETTERS
    options = [_option(choice, label) for choice, label in zip(choices or (), labels, strict=False)]
    whole = normalize(text)
    if whole and options.count(whole) == 1:
        return frozenset(labels[options.index(whole)])
    picked = _leading_letters(text) or _bracketed_letter(text)
    return (picked or _by_words(whole, options, labels)) & frozenset(labels)


def _leading_letters(text: str) -> frozenset[str]:
    joined = _JOINED.match(text)
    if joined:
        letters = joined[1].replace(" ", "")
        if list(letters) == sorted(set(letters)):  # "BD", but not "BAD"
            return frozenset(letters)
    first = _DELIMITED.match(text) or _BARE.match(text)
    if first is None:
        return frozenset()
    picked, end = {first[1].upper()}, first.end()
    while more := _MORE.match(text, end):
        picked.add(more[1])
        end = more.end()
    if _LABEL.match(text, end) and not _REJECTION.search(text, end):
        reason = _REASON.search(text, end)
        picked.update(_LABELLED.findall(text, end, reason.start() if reason else len(text)))
    return frozenset(picked)


def _bracketed_letter(text: str) -> frozenset[str]:
    letters = {first or second for first, second in _BRACKETED.findall(text)}
    return frozenset(letters) if len(letters) == 1 else frozenset()


def _by_words(text: str, options: Sequence[str], labels: str) -> frozenset[str]:
    """Pick the option whose words occur in the text; of "red" and "dark red" the longer one."""
    padded = f" {' '.join(_WORDS.findall(text))} "
    present = [option for option in options if option and f" {' '.join(_WORDS.findall(option))} " in padded]
    maximal = {option for option in present if not any(option != other and option in other for other in present)}
    if len(maximal) != 1 or options.count(option := maximal.pop()) != 1:
        return frozenset()
    return frozenset(labels[options.index(option)])


def _option(choice: Any, label: str) -> str:
    """Return the normalised text of an option: a number, "A) red" or "(A) red"; `None` has none."""
    text = "" if choice is None else str(choice)
    match = re.match(rf"\s{{0,4}}\(?{label}[).:]\s{{0,4}}(?=\S)", text)
    return normalize(text[match.end() :] if match else text)


def gold_choices(gold: str, choices: Sequence[str] | None = None) -> frozenset[str]:
    """Return the letters that a gold names: "B", "(B)", "A,C", '["A", "C"]' or an option's text.

    >>> sorted(gold_choices("blue", ["red", "blue"])), sorted(gold_choices('["A", "C"]'))
    (['B'], ['A', 'C'])
    """
    return frozenset().union(*(read_choices(part, choices) for part in accepted(gold) or [gold]))
