"""The stages of the pipeline, each a pure pair: what is asked about a row, and what the reply makes of it.

kind of image -> evidence -> formal text -> its check -> reasoning -> role-play rewrite -> verification. A row that
fails anywhere is `Rejected` there, with the stage and the reason; what costs nothing is asked first.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import SequenceMatcher
from string import Template
from typing import Any, Literal, NamedTuple

from trl_onevision.chat import Reply, Request
from trl_onevision.data.convert import BoxFrame, scaled
from trl_onevision.data.schema import RowError, check_boxes
from trl_onevision.formalize import prompts
from trl_onevision.formalize.check import fenced

MOST_CHANGED_WORDS = 15  # of a rewrite, besides those that spoke of the description (VLAA-Thinking's bound)
Server = Literal["vision", "reason"]


class Rejected(Exception):
    """A row that is not kept: the stage, and why."""

    def __init__(self, stage: str, reason: str) -> None:
        super().__init__(stage, reason)
        self.stage, self.reason = stage, reason


@dataclass(frozen=True)
class Row:
    """One image and one question on their way; every stage adds its part. Boxes are in pixels of `image`."""

    id: str
    question: str
    image: bytes
    size: tuple[int, int]
    solution: str | None = None
    task: str | None = None
    choices: list[str] | None = None
    kind: str = ""
    objects: tuple[str, ...] = ()
    ocr: tuple[dict[str, Any], ...] = ()
    boxes: tuple[dict[str, Any], ...] = ()
    formal: str = ""
    fault: str | None = None
    drafts: tuple[str, ...] = ()
    reasoning: str = ""
    rewritten: str = ""
    verdicts: tuple[str, ...] = field(default=())
    requests: int = 0
    prompt_tokens: dict[str, int] = field(default_factory=dict)
    completion_tokens: dict[str, int] = field(default_factory=dict)

    @property
    def language(self) -> str:
        """The language of the formal text."""
        return prompts.KINDS[self.kind].language

    @property
    def described(self) -> str:
        """The formal text as the reasoning model gets it, in R1-Onevision's form."""
        parts = [f"Description: {self.formal}" if self.language == "caption" else self.formal]
        if self.boxes:
            named: dict[str, list] = {}
            for box in self.boxes:
                named.setdefault(box["label"], []).append(box["bbox_2d"])
            parts.append(f"Bounding Box Information: {json.dumps(named, ensure_ascii=False)}")
        if self.ocr and self.language == "caption":
            parts.append("OCR Result: " + json.dumps([item["text"] for item in self.ocr], ensure_ascii=False))
        return "\n".join(parts)


class Ask(NamedTuple):
    """A stage that asks a model: `request` gives what to ask, nothing where the row needs no asking."""

    name: str
    server: Server
    request: Callable[[Row], list[Request]]
    accept: Callable[[Row, Sequence[Reply]], Row]


def filled(prompt: str, /, **values: str) -> str:
    """A prompt with its values, whatever dollars they hold."""
    return Template(prompt).safe_substitute(values)


def whole(stage: str, reply: Reply) -> str:
    """The text of a reply that came to its end."""
    if reply.cut:
        raise Rejected(stage, f"the reply was cut {reply.cut}")
    if not reply.text.strip():
        raise Rejected(stage, "the reply is empty")
    return reply.text.strip()


def _json_of(stage: str, reply: Reply, kind: type) -> Any:
    text = whole(stage, reply)
    found = fenced(text)
    opening, closing = ("[", "]") if kind is list else ("{", "}")
    try:
        value = json.loads(found[found.index(opening) : found.rindex(closing) + 1])
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, kind):
        raise Rejected(stage, f"expected JSON, found {text[:80]!r}")
    return value


# Kind


def kind_request(row: Row) -> list[Request]:
    """Nothing where the kind is known."""
    if row.kind:
        return []
    kinds = "\n".join(f"- {name}: {kind.meaning}" for name, kind in prompts.KINDS.items())
    return [Request(filled(prompts.KIND, kinds=kinds), (row.image,))]


def kind_accept(row: Row, replies: Sequence[Reply]) -> Row:
    """
    >>> row = Row("1", "How many?", b"", (8, 8))
    >>> kind_accept(row, [Reply('{"kind": "scene", "objects": ["a dog"]}')]).objects
    ('a dog',)
    """
    value = _json_of("kind", replies[0], dict)
    kind, objects = value.get("kind"), value.get("objects") or []
    if not isinstance(kind, str) or kind not in prompts.KINDS:
        raise Rejected("kind", f"unknown kind {str(kind)[:40]!r}; expected one of {', '.join(prompts.KINDS)}")
    named = [name.strip() for name in objects if isinstance(name, str)] if isinstance(objects, list) else []
    return replace(row, kind=kind, objects=tuple(name[:60] for name in named if name)[:10])


# Evidence


def boxes_request(row: Row) -> list[Request]:
    """Boxes from the vision server itself, where the kind wants some."""
    if not prompts.KINDS[row.kind].boxes or not row.objects:
        return []
    return [Request(filled(prompts.BOXES, objects=", ".join(row.objects)), (row.image,))]


def boxes_accept(frame: BoxFrame, row: Row, replies: Sequence[Reply]) -> Row:
    """Boxes in pixels of the stored image, whatever frame the model answers in.

    >>> row = Row("1", "Where?", b"", (200, 100), kind="scene")
    >>> boxes_accept("norm1000", row, [Reply('[{"bbox_2d": [0, 0, 500, 500], "label": "dog"}]')]).boxes
    ({'bbox_2d': [0.0, 0.0, 100.0, 50.0], 'label': 'dog'},)
    """
    boxes = _json_of("boxes", replies[0], list)
    return replace(row, boxes=checked_boxes(boxes, frame, row.size))


def checked_boxes(boxes: Any, frame: BoxFrame, size: tuple[int, int]) -> tuple[dict[str, Any], ...]:
    """Boxes moved once to pixels; `Rejected` where one is none, or outside the image."""
    width, height = {"pixel": size, "norm1000": (1000, 1000), "norm1": (1, 1)}[frame]
    try:
        check_boxes(boxes, (width, height) if frame != "norm1" else None)
        moved = scaled(boxes, size[0] / width, size[1] / height)
        check_boxes(moved, size)
    except RowError as error:
        raise Rejected("boxes", error.reason) from error
    return tuple({"bbox_2d": [float(x) for x in b["bbox_2d"]], "label": str(b.get("label", "object"))} for b in moved)


# Formal text


def _formal_prompt(row: Row) -> str:
    prompt = prompts.KINDS[row.kind].prompt
    found = [f"{item['text']!r} at {[round(x) for x in item['bbox_2d']]}" for item in row.ocr]
    found += [f"{box['label']} at {[round(x) for x in box['bbox_2d']]}" for box in row.boxes]
    return filled(prompts.EVIDENCE, prompt=prompt, evidence="\n".join(found)) if found else prompt


def formal_request(row: Row) -> list[Request]:
    """The prompt of the row's kind, with what was read and found."""
    return [Request(_formal_prompt(row), (row.image,))]


def formal_accept(row: Row, replies: Sequence[Reply]) -> Row:
    """
    >>> formal_accept(Row("1", "?", b"", (8, 8), kind="chart"), [Reply("```csv\\na,b\\n1,2\\n```")]).formal
    'a,b\\n1,2'
    """
    text = whole("formal", replies[0])
    return replace(row, formal=text if prompts.KINDS[row.kind].language == "caption" else fenced(text), fault=None)


def repair_request(row: Row) -> list[Request]:
    """The one retry, with the parser's message."""
    if row.fault is None:
        return []
    asked = filled(prompts.REPAIR, prompt=_formal_prompt(row), formal=row.formal[:4000], fault=row.fault)
    return [Request(asked, (row.image,))]


# Reasoning


def reason_request(samples: int, row: Row) -> list[Request]:
    """One sample, or `samples` of them to vote."""
    text = filled(prompts.REASON, formal=row.described, question=row.question)
    return [Request(text, seed=seed) for seed in (range(1, samples + 1) if samples > 1 else (0,))]


def reason_accept(row: Row, replies: Sequence[Reply]) -> Row:
    """The reasoning that a server splits off stands before what it says; samples that were cut do not vote."""
    drafts = tuple("\n\n".join(filter(None, (r.reasoning.strip(), r.text.strip()))) for r in replies if not r.cut)
    if not any(drafts):
        whole("reason", replies[0])
    return replace(row, drafts=tuple(filter(None, drafts)))


def rewrite_request(row: Row) -> list[Request]:
    """The reasoning, to be told as if the image had been seen."""
    return [Request(filled(prompts.REWRITE, reasoning=row.reasoning))]


def rewrite_accept(row: Row, replies: Sequence[Reply]) -> Row:
    """Rejects a rewrite that still speaks of a description, and one that changed more than that.

    >>> row = Row("1", "How many?", b"", (8, 8), reasoning="The caption says two dogs.\\nAnswer: 2")
    >>> rewrite_accept(row, [Reply("The image shows two dogs.\\nAnswer: 2")]).rewritten
    'The image shows two dogs.\\nAnswer: 2'
    >>> rewrite_accept(row, [Reply(row.reasoning)])
    Traceback (most recent call last):
    trl_onevision.formalize.stages.Rejected: ('leak', "speaks of what was read: 'The caption'")
    """
    text = whole("rewrite", replies[0])
    if leak := find_leak(text, row.question):
        raise Rejected("leak", f"speaks of what was read: {leak!r}")
    if (changed := changed_words(row.reasoning, text)) > MOST_CHANGED_WORDS:
        raise Rejected(
            "rewrite", f"changed too much: {changed} words besides its references; at most {MOST_CHANGED_WORDS}"
        )
    return replace(row, rewritten=text)


# What only a reader has. Photographs show mermaids and spice: those two count as languages alone.
_FORMAL = (
    r"(?:captions?|descriptions?|OCR(?:\s+(?:results?|text))?|bounding[-\s]box(?:es)?|transcri(?:pts?|ptions?)|netlists?"
    r"|CSV|JSON|HTML|(?-i:SPICE)|Mermaid\s+(?:code|diagram|syntax|text)|PlantUML|LilyPond"
    r"|(?:formal|textual)\s+(?:text|representation))"
)
_TERM = (
    rf"(?:{_FORMAL}|(?:given|provided)\s+(?:text|information|details|data)"
    r"|(?:text|information|details|data)\s+(?:given|provided)"
    r"(?!\s+(?:in|by|on)\s+the\s+(?:image|picture|figure|diagram|chart|graph|table|question|problem)))"
)
_QUALIFIED = r"(?:provided|given|image|picture|visual|textual|above|detailed)"
_SAYS = (
    r"(?:say|state|mention|show|indicate|describe|tell|give|list|read|note|report|suggest|specif|provide|include|contain"
    r"|confirm|match|impl|refer|explain|detail|detect|locat)\w*|(?:is|are|was|were|has|have|does|doesn['’]t|do|don['’]t)"
)
_WORDS = r"(?:[\w'’-]+\s+){0,2}"
_LEAKS = [
    re.compile(pattern, re.IGNORECASE | re.MULTILINE)
    for pattern in (
        # Any "the caption", "this OCR result", and one that opens a line
        rf"\b(?:the|this|that|these|your)\s+{_WORDS}?{_FORMAL}\b|^\s*\**(?:captions?|descriptions?|OCR)\**\s*:",
        # "the given data shows"
        rf"\b(?:the|this|that|these|your|its|a|an)\s+{_WORDS}?{_TERM}\s+(?:[\w'’-]+\s+)??(?:{_SAYS})\b",
        # "according to the caption", "based on the given OCR", "in the description"
        rf"\b(?:according\s+to|based\s+(?:only\s+|solely\s+)?(?:on|upon)|from|in|per|using|given|with|by|reading)\s+"
        rf"(?:the|this|that|these|your|a|an)?\s*{_WORDS}?{_TERM}\b",
        rf"\b{_QUALIFIED}(?:['’]s)?\s+(?:captions?|descriptions?|OCR|bounding[-\s]box(?:es)?)\b",
        r"\b(?:caption|description)s?\s+of\s+the\s+(?:image|picture|scene|figure)\b",
        r"\bas\s+(?:it\s+(?:is|was)\s+)?described\b(?!\s+(?:in|by)\s+the\s+(?:question|problem))",
        r"\b(?:is|are|was|were)\s+described\s+(?:as|in)\b|\bdescribed\s+(?:image|picture|scene)\b",
        r"\b(?:visuali[sz]|imagin)(?:e|ing)\s+(?:the|this|an?)\s+(?:image|picture|scene|figure)\b",
        r"\b(?:can(?:['’]t|not|\s+not)|unable\s+to)\s+(?:actually\s+|directly\s+)?(?:see|view)\s+(?:the|this|an?|any)\s+"
        r"(?:image|picture|figure)\b",
    )
]


def find_leak(text: str, question: str = "") -> str | None:
    """The first words that speak of a description in place of the image, or `None`.

    >>> find_leak("Based on the provided caption, it is 5."), find_leak("The OCR result reads 12.")
    ('the provided caption', 'The OCR result')
    >>> find_leak("The image shows 5 bars, as stated."), find_leak("The caption says Rome.", "Read the caption.")
    (None, None)

    A word that the question itself uses is one that the image shows, unless it is qualified ("the provided caption").
    """
    for number, leak in enumerate(_LEAKS):
        for match in leak.finditer(text):
            words = re.findall(_TERM, match.group(), re.IGNORECASE)
            asked = [word for word in words if word.lower().rstrip("s") in question.lower()]
            if number >= 3 or re.search(_QUALIFIED, match.group(), re.IGNORECASE) or not asked:
                return " ".join(match.group().split())
    return None


_REFERENCE = re.compile(rf"\b(?:{_TERM}|describ\w*|visuali[sz]\w*|imagin\w*)\b", re.IGNORECASE)
_REACH = 8  # words of a replaced reference with the words around it: "based on the given caption, it says"


def changed_words(before: str, after: str) -> int:
    """How many words a rewrite changed, besides those that spoke of a description.

    >>> changed_words("The caption says two dogs run. So 2.", "The image shows two dogs run. So 2.")
    0
    >>> changed_words("Two dogs run. So 2.", "Two cats sit. So 2.")
    2
    """
    old, new = before.split(), after.split()
    changed = 0
    for what, i1, i2, j1, j2 in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        length = max(i2 - i1, j2 - j1)
        around = " ".join(old[max(0, i1 - 2) : i2 + 2])
        if what != "equal" and not (length <= _REACH and _REFERENCE.search(around)):
            changed += length
    return changed


# Verification


def verify_request(row: Row) -> list[Request]:
    """The step check; the texts are quoted, for they are data."""
    texts: Mapping[str, Any] = {
        "formal": row.described,
        "question": row.question,
        "solution": row.solution,
        "rewritten": row.rewritten,
    }
    return [Request(filled(prompts.VERIFY, **{name: json.dumps(text) for name, text in texts.items()}))]


def verify_accept(row: Row, replies: Sequence[Reply]) -> Row:
    """
    >>> verify_accept(Row("1", "?", b"", (8, 8)), [Reply('{"valid": 0, "why": "step 2 adds wrongly"}')])
    Traceback (most recent call last):
    trl_onevision.formalize.stages.Rejected: ('verify', 'step 2 adds wrongly')
    """
    value = _json_of("verify", replies[0], dict)
    valid = value.get("valid")
    if valid in (0, False):
        raise Rejected("verify", str(value.get("why") or "not valid")[:300])
    if valid not in (1, True):
        raise Rejected("verify", f"no verdict in {replies[0].text[:80]!r}")
    return replace(row, verdicts=(*row.verdicts, "steps checked"))
