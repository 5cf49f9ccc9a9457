"""Multiple choice: which options a text picks, by label or else by what an option says."""

import itertools
import re
import string
from collections.abc import Iterator, Sequence
from typing import Any

from trl_onevision.answers import parse
from trl_onevision.answers.compare import same
from trl_onevision.answers.expression import Unknown
from trl_onevision.answers.markup import normalize, plain
from trl_onevision.answers.numerals import CJK
from trl_onevision.answers.stance import is_asserted, is_denied, is_hedged
from trl_onevision.answers.words import accepted, is_yes_or_no, yes_or_no

LETTERS = string.ascii_uppercase[:10]  # of labels where the options are not known
_TOKEN = re.compile(
    rf"(?P<open>[(\[{{'*_]{{0,4}})(?<![A-Za-z0-9_^])(?P<letter>[A-Z]|[a-z](?!\())(?![A-Za-z0-9_^]|['’][A-Za-z])"
    rf"(?P<close>['*_]*[)\]}}]|)"
    rf"(?P<stop>['*_]*[.:](?![\d.])|)['*_]{{0,4}}"
    rf"|(?P<word>[A-Za-zÀ-ɏ]+(?:['’-][A-Za-z]+)*|[{CJK}])|(?P<mark>->|\d[\d.,]*|\n|[^\s\w])"
)
# What leads to a label and says nothing.
_LEAD_WORDS = (
    "so thus therefore hence then my our the this final correct best right most likely probably definitely "
    "clearly i we would will i'd i'll we'd do think believe guess choose pick select go with say answer "
    "answers option options choice choices letter label is are be it it's that that's to which one should must "
    "故 所 以 因 此 应 该 本 题 正 确 答 案 选 择 项 为 是 我 认 : , #"
)
_LEAD = frozenset(_LEAD_WORDS.split())
_REASON_WORDS = "because since as so but while whereas where which thus hence therefore given — – 因 由"
_REASONS = frozenset(_REASON_WORDS.split())
_JOINT_WORDS = ", ; / & + | and or 和 与 及 或 then plus with to through"
_JOINTS = frozenset(_JOINT_WORDS.split())
_AND = ("and", "&", "+", "plus", "和", "与")
_STOPS = frozenset((",", ";", ".", "\n", "!", "?"))
_DENIAL_WORDS = "not than of except unlike nor without neither no never wrong incorrect false excluded eliminated out"
_DENIALS = frozenset(_DENIAL_WORDS.split())
_BRACKETED = re.compile(r"[(\[【]\s?([A-Z])\s?[)\]】]|\b(?:[Oo]ption|[Cc]hoice|选项?)\s?([A-Z])\b")
_JOINED = re.compile(r"[^\w?]{0,4}([A-Z](?:\s?[A-Z]){0,9})[^\w?]{0,4}")
_WORD = re.compile(rf"[{CJK}]|[^\W_]+(?:[.'’-][^\W_]+)*|[%°]")
_OWN_LABEL = r"\s{{0,4}}[-*]?\s?[*_]{{0,2}}\(?{label}[).:、．][*_)]{{0,3}}\s{{0,4}}(?=\S)"
MOST_TOKENS = 300

Picks = frozenset[str]
NONE: Picks = frozenset()


def without_label(choice: Any, label: str) -> str:
    """Return an option's text without the label that it carries itself; `None` has none.

    >>> without_label("A) red", "A"), without_label("A) red", "B"), without_label(3, "A")
    ('red', 'A) red', '3')
    """
    return "" if choice is None else re.sub("^" + _OWN_LABEL.format(label=label), "", str(choice)).strip()


def _options(choices: Sequence[Any]) -> tuple[str, ...]:
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
    options = _options(choices) if choices else ()
    labels = string.ascii_uppercase[: len(options)] if options else LETTERS
    text = re.sub(r"^[-*>]\s+", "", plain(text))
    if options and (whole := _same_words(text, options) or _by_value(text, options)):
        return whole
    tokens = list(itertools.islice(_TOKEN.finditer(text), MOST_TOKENS))
    start = _after_lead(tokens)
    picked = _labelled(text, tokens[start:], options, labels)
    if picked is None:
        bare = text[tokens[start].start() :] if start < len(tokens) else ""
        picked = (bare != text and (_same_words(bare, options) or _by_value(bare, options))) or NONE
        picked = picked or _named(text) or _by_words(text, options)
    return picked & frozenset(labels)


def _after_lead(tokens: list[re.Match[str]]) -> int:
    """The place of the first token that is not a lead-in: "I" leads before a verb, "A" never does."""
    for index, token in enumerate(tokens):
        said = (token["word"] or token["mark"] or "").lower().replace("’", "'")
        follows = tokens[index + 1]["word"] if index + 1 < len(tokens) else None
        leads = token["letter"] in ("I", "i") and not token["close"] + token["stop"] and (follows or "") in _LEAD
        if not leads and said not in _LEAD:
            return index
    return len(tokens)


def _same_words(text: str, options: tuple[str, ...]) -> Picks:
    wanted = normalize(text)
    found = [index for index, option in enumerate(options) if option and normalize(option) == wanted]
    lone = len(text.strip("()[]. ")) == 1 and text.strip("()[]. ").isalpha()
    return frozenset(string.ascii_uppercase[found[0]]) if found and not lone else NONE


def _labelled(text: str, tokens: list[re.Match[str]], options: tuple[str, ...], labels: str) -> Picks | None:
    """Read a text that begins with a label: what its clauses add, up to a reason; `None` where it does not."""
    joined = _JOINED.fullmatch(text, tokens[0].start()) if tokens else None
    if joined:
        letters = joined[1].replace(" ", "")
        return frozenset(letters) if list(letters) == sorted(set(letters)) else NONE  # "BD", but not "BAD"
    if not tokens or not tokens[0]["letter"]:
        return None
    first = tokens[0]
    if first["letter"].upper() not in labels:
        marked = first["close"] or first["stop"] or len(tokens) == 1 or tokens[1]["mark"] == ","
        return NONE if marked and first["letter"].isupper() else None
    if not _is_label(text, tokens, options, labels):
        return None
    picked: set[str] = set()
    bare = bool(options) or not (first["close"] or first["stop"]) or len(tokens) == 1 or tokens[1]["word"] is None
    at = -1
    for clause in _clauses(text, tokens):
        said = [token for token in clause if token.start() >= at]
        found: list[str] = []
        denied = hedged = False
        for index, token in enumerate(said):
            if token.start() < at:
                continue
            word = (token["word"] or token["mark"] or "").lower().replace("’", "'")
            if token["letter"] and _counts(said, index, token is first, bare):
                label = token["letter"].upper()
                at = _after_own_words(text, token.end(), label, options, labels)
                if denied and found:  # "A rather than B"
                    denied = False
                elif not denied:
                    found.append(label)
                else:
                    denied = False
            elif word in _DENIALS or word.endswith("n't") or (word in "不非没错除" and word):
                denied = True
            elif word in _AND and not picked and not (first["close"] or first["stop"]):
                others = index + 1 < len(said) and not said[index + 1]["letter"] and token.start() >= at
                if others:  # "A and others"
                    return NONE
            hedged |= word == "?" or (not token["letter"] and is_hedged(word))
            if word in ("=", "->", "→", "<", ">", "~", "*", "^") or (word == "-" and _is_minus(text, token)):
                return NONE
        if denied and found and not picked and said[0] is first:
            return NONE
        if hedged and (found or not picked or not is_asserted((clause[0]["word"] or "").lower())):
            return NONE
        if (
            denied
            and not found
            and any((token["word"] or "").lower() in ("no", "wrong", "incorrect", "false") for token in said)
        ):
            return NONE
        if not denied:
            picked.update(found)
    return frozenset(picked)


def _is_label(text: str, tokens: list[re.Match[str]], options: tuple[str, ...], labels: str) -> bool:
    """Whether a lone letter at the head of a text is a label: "A man" and "a + b" begin with none."""
    first, rest = tokens[0], text[tokens[0].end() :]
    label = first["letter"].upper()
    if first["close"] or (first["stop"] and first["letter"].isupper()) or not rest.strip(" '*_.,;!?"):
        return True
    own = options[labels.index(label)] if options and label in labels else ""
    if own and (_says(rest.lstrip(" ,"), own) or _says(rest.lstrip(" ,("), own)):
        return True
    follows = tokens[1]
    word = (follows["word"] or follows["mark"] or "").lower()
    if first["letter"].islower():
        joint = word in (",", ";", "/", "&", "|", "or", "and", "\n", "-") and len(tokens) > 2 and tokens[2]["letter"]
        return bool(joint) or (bool(first["stop"]) and own == "")
    if follows["letter"] or word in _REASONS | _JOINTS | _STOPS | {
        "is",
        "was",
        "=",
        "->",
        "→",
        "-",
        "(",
        "~",
        "*",
        "rather",
        "instead",
        "not",
    }:
        return (
            word not in ("with", "to", "through", "then", "plus", "as", "so")
            or label not in "AI"
            or bool(tokens[2:] and tokens[2]["letter"])
        )
    return (label not in "AI" and rest[:1].isspace()) or ord(word[:1] or "a") > 0x2E80 or is_denied(word)


def _clauses(text: str, tokens: list[re.Match[str]]) -> Iterator[list[re.Match[str]]]:
    """Cut tokens at commas, stops and line ends, up to a reason or a new sentence without labels."""
    clause: list[re.Match[str]] = []
    for index, token in enumerate(tokens):
        word = (token["word"] or token["mark"] or "").lower()
        if (index and word in _REASONS) or (word == "-" and index == 1 and not _is_minus(text, token)):
            break
        if word in _STOPS:
            if clause:
                yield [*clause, token] if word == "?" else clause
            clause = []
        else:
            clause.append(token)
    if clause:
        yield clause


def _counts(clause: list[re.Match[str]], index: int, is_first: bool, bare: bool) -> bool:
    """Whether a lone letter of a clause is a label: marked, or alone between what joins; "A" and "I" may be words."""
    token = clause[index]
    if is_first or token["close"]:
        return True
    follows = clause[index + 1] if index + 1 < len(clause) else None
    before = (clause[index - 1]["word"] or clause[index - 1]["mark"] or "").lower() if index else ""
    word = (follows["word"] or follows["mark"] or "").lower() if follows else ""
    lone = follows is None or bool(follows["letter"]) or word in _JOINTS | {"is", "was", "too", ")", "]"}
    if token["stop"] and token["letter"].isupper() and (bare or follows is not None):
        return True
    joined = (
        index == 0
        or before in _JOINTS | _DENIALS | {"option", "also", "be", "'", "[", "("}
        or not is_asserted(before)
        or bool(clause[index - 1]["letter"])
    )
    return lone and joined and (bare or before in ("and", "or", "和", "或"))


def _is_minus(text: str, token: re.Match[str]) -> bool:
    """Whether a hyphen stands between terms; one with spaces around it may be a dash before words."""
    after = text[token.end() :].lstrip()
    return re.match(r"[A-Za-z0-9(](?![A-Za-z])", after) is not None


def _after_own_words(text: str, end: int, label: str, options: tuple[str, ...], labels: str) -> int:
    """The place behind a label and its own option's text, in which letters are no labels."""
    own = options[labels.index(label)] if options and label in labels else ""
    rest = text[end:]
    lead = len(rest) - len(rest.lstrip(" ,)*_'"))
    own_text = plain(own).rstrip(". ").casefold()
    for skipped in (lead, len(rest) - len(rest.lstrip(" ,()*_'"))):
        if own_text and rest[skipped : skipped + len(own_text)].casefold() == own_text:
            return end + skipped + len(own_text)
    return len(text) if own and _equal_values(own, rest[lead:]) else end


def _says(said: str, option: str) -> bool:
    wanted, given = normalize(option), normalize(said)
    return bool(wanted) and (given.startswith(wanted) or _equal_values(option, said) is True)


def _equal_values(option: str, text: str) -> bool | None:
    try:
        wanted, given = parse.read(option), parse.read(text)
    except Unknown:
        return None
    if wanted is None or given is None:
        return False
    return same(wanted, given)


def _by_value(text: str, options: tuple[str, ...]) -> Picks:
    """Pick the one option that the whole text equals."""
    equal = [index for index, option in enumerate(options) if option and _equal_values(option, text)]
    lone = len(text.strip("()[]. ")) == 1 and text.strip("()[]. ").isalpha()
    twins = {normalize(options[index]) for index in equal}
    return frozenset(string.ascii_uppercase[equal[0]]) if len(twins) == 1 and not lone else NONE


def _named(text: str) -> Picks:
    """Pick the label that a sentence names in brackets or as an option, if it names one."""
    found = {one or other for one, other in _BRACKETED.findall(text)}
    return frozenset(found) if len(found) == 1 and is_asserted(text) else NONE


def _by_words(text: str, options: tuple[str, ...]) -> Picks:
    """Pick the option whose words occur in the text; of "red" and "dark red" the longer one."""
    folded = [" ".join(_WORD.findall(normalize(option))) for option in options]
    truths = [is_yes_or_no(option) for option in options]
    if any(truths) and (said := yes_or_no(text)) is not None:
        words = normalize(text)
        agreed = [
            index
            for index, option in enumerate(options)
            if truths[index] and yes_or_no(option) is said and re.search(rf"\b{re.escape(normalize(option))}\b", words)
        ]
        if len(agreed) == 1:
            return frozenset(string.ascii_uppercase[agreed[0]])
    padded = f" {' '.join(_WORD.findall(normalize(text)))} "
    present = [
        index
        for index, option in enumerate(folded)
        if option and not truths[index] and f" {option} " in padded and not _is_value(options[index])
    ]
    maximal = [
        one for one in present if not any(folded[one] != folded[two] and folded[one] in folded[two] for two in present)
    ]
    if len(maximal) != 1 or not is_asserted(padded.replace(f" {folded[maximal[0]]} ", " ")):
        return NONE
    return frozenset(string.ascii_uppercase[maximal[0]])


def _is_value(option: str) -> bool:
    """Whether an option is mathematics or a lone letter, which is picked as a whole or not at all."""
    if len(normalize(option)) < 2 and not re.match(rf"[{CJK}]", normalize(option)):
        return True
    try:
        return parse.read(option) is not None
    except Unknown:
        return True


def gold_choices(gold: str, choices: Sequence[Any] | None = None) -> list[Picks]:
    """Return what a gold accepts as picks, from "B", "(B)", "A,C", "AC", '["A", "C"]' or an option's text.

    >>> gold_choices("blue", ["red", "blue"]) == [{"B"}], gold_choices('["A", "C"]') == [{"A", "C"}]
    (True, True)
    >>> gold_choices("18", ["9", "12", "18", "18"]) == [{"C"}, {"D"}], gold_choices("答案：B") == [{"B"}]
    (True, True)

    Of an option's text that stands there twice either label counts.
    """
    parts = accepted(gold) or [gold]
    if len(parts) == 1:
        if choices:
            options = [normalize(option) for option in _options(choices)]
            found = [index for index, option in enumerate(options) if option == normalize(parts[0]) and option]
            if len(found) > 1:
                return [frozenset(string.ascii_uppercase[index]) for index in found]
        if re.fullmatch(r"\W?[a-z]\W?", parts[0].strip()):
            parts = [parts[0].upper()]
    picks = frozenset().union(*(read_choices(part, choices) for part in parts))
    return [picks] if picks and all(read_choices(part, choices) for part in parts) else []
