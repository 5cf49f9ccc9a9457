"""What a text does with what it says: assert it, deny it or hedge it. One rule for every kind of answer."""

import re

_DENIED = re.compile(
    r"\b(?:not|no|never|neither|nor|none|cannot|wrong|incorrect|false|untrue|except|excluding|excluded?|eliminat\w+|unlike|without"
    r"|impossible|unlikely|invalid|reject\w*|(?:anything|everything|all|nothing|any)\sbut|(?:other|rather)\sthan|instead|far\sfrom"
    r"|rul\w+\sout|isnt|cant)\b|\w+n['’]t\b|[不非没沒未错錯除別别否無无]|[以之]外|でな|ない|아니|\bniet\b|\bnicht\b|\bkein\w*\b",
    re.IGNORECASE,
)
_HEDGED = re.compile(
    r"\b(?:or|maybe|perhaps|possibly|might|either|between|could|may|unsure|uncertain|alternatively|unclear|vs|versus)\b"
    r"|或|也许|可能|要么",
    re.IGNORECASE,
)
_BOUND = re.compile(
    r"\b(?:(?:more|less|fewer|greater|larger|smaller|higher|lower|bigger)\sthan|at\s(?:least|most)|up\sto|over|under|above"
    r"|below|beyond|exceeds?)\b|大于|小于|超过|不少于|以上|以下|至少|至多",
    re.IGNORECASE,
)
_DOUBLE = re.compile(r"\bnot\s(?:only|just|merely)\b|没错|不错|没有错", re.IGNORECASE)


def is_asserted(text: str) -> bool:
    """Whether a text neither denies nor hedges nor sets a bound: what it says is meant.

    >>> is_asserted("It is 12."), is_asserted("It is not 12."), is_asserted("12 or 13"), is_asserted("不选C")
    (True, False, False, False)
    """
    return not is_denied(text) and not _HEDGED.search(text) and not _BOUND.search(text)


def is_denied(text: str) -> bool:
    """Whether a text denies something; "not only" does not.

    >>> is_denied("All except A"), is_denied("A is wrong"), is_denied("not only A"), is_denied("A")
    (True, True, False, False)
    """
    return _DENIED.search(_DOUBLE.sub("", text)) is not None


def is_hedged(text: str) -> bool:
    """Whether a text leaves a choice open.

    >>> is_hedged("A or maybe B"), is_hedged("I think it is A")
    (True, False)
    """
    return _HEDGED.search(text) is not None
