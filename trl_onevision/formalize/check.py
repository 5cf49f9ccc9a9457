"""A formal text that does not parse does not pass; one that asks for files, a network or a program is refused by name.

Tables and pages are read by the standard library, diagrams by real Mermaid (`mermaidx`, in a process of its own), and
SPICE, PlantUML and LilyPond by `ngspice`, `plantuml` and `lilypond` where they are on PATH. What a tool is shown has
passed an allow-list first: no directive, no Scheme, no preprocessor.
"""

from __future__ import annotations

import csv
import json
import re
import shutil
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

from trl_onevision.formalize import bounded

LONGEST = 20_000  # characters of a formal text: what one image holds is shorter
_DEEPEST = 50  # levels of JSON


def word_set(text: str) -> frozenset[str]:
    """The words of a text."""
    return frozenset(text.split())


_FENCE = re.compile(r"```[\w+-]*[ \t]*\n(.*?)\n?```", re.DOTALL)


def fenced(text: str) -> str:
    """The formal text of a reply: its last code fence, without one all of it.

    >>> fenced("Here:\\n```csv\\na,b\\n1,2\\n```"), fenced(" a,b ")
    ('a,b\\n1,2', 'a,b')
    """
    blocks = _FENCE.findall(text)
    return (blocks[-1] if blocks else text).strip()


def check(language: str, text: str) -> str | None:
    """Why a formal text does not pass, or `None`.

    >>> check("csv", "year,sales\\n2023,5\\n2024"), check("csv", "year,sales\\n2023,5")
    ('csv: row 3 has 1 cells, the header 2', None)
    >>> check("spice", "* a\\nR1 1 0 1k\\n.control\\nshell rm -r /\\n.endc")
    "spice: refused '.control': only .end, .ends, .func, .global, .ic, .model, .nodeset, .op, .param, .subckt, ..."

    `language`: one of `LANGUAGES`. The message is meant for whoever wrote the text: it names the language, the place,
    and what is allowed.
    """
    if language not in LANGUAGES:
        raise ValueError(f"language {language!r}: unknown; expected one of {', '.join(sorted(LANGUAGES))}")
    if not text.strip():
        return f"{language}: empty"
    if len(text) > LONGEST:
        return f"{language}: {len(text):,} characters; at most {LONGEST:,}"
    if "\0" in text:
        return f"{language}: refused a null character"
    problem = LANGUAGES[language](text)
    return None if problem is None else f"{language}: {problem}"


# Tables


def read_csv(text: str) -> list[list[str]]:
    """The rows of a table, the header first; `ValueError` says what is wrong with it."""
    try:
        rows = [[cell.strip() for cell in row] for row in csv.reader(text.splitlines(), strict=True) if row]
    except csv.Error as error:
        raise ValueError(str(error)) from error
    if len(rows) < 2 or len(rows[0]) < 2:
        raise ValueError("expected a header and rows of at least two cells")
    if not all(rows[0][1:]) or len(set(rows[0])) < len(rows[0]):
        raise ValueError("expected a header whose names differ and are not empty")
    for number, row in enumerate(rows[1:], start=2):
        if len(row) != len(rows[0]):
            raise ValueError(f"row {number} has {len(row)} cells, the header {len(rows[0])}")
        for cell in row:
            if cell[:1] in ("=", "@"):  # what a spreadsheet would run
                raise ValueError(f"refused the formula {cell[:40]!r}")
    return rows


def _csv_fault(text: str) -> str | None:
    try:
        read_csv(text)
    except ValueError as error:
        return str(error)
    return None


def _json_fault(text: str) -> str | None:
    def no_constant(name: str) -> None:
        raise ValueError(f"{name} is no JSON")

    def no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(pairs)) < len(pairs):
            raise ValueError("a key twice in one object")
        return dict(pairs)

    try:
        value = json.loads(text, parse_constant=no_constant, object_pairs_hook=no_twins)
    except (ValueError, RecursionError) as error:
        return str(error)
    if not isinstance(value, dict | list) or not value:
        return "expected an object or a list that holds something"
    return f"more than {_DEEPEST} levels deep" if _depth(value) > _DEEPEST else None


def _depth(value: Any) -> int:
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + max(map(_depth, inside), default=0)


# Pages

_VOID = word_set("area base br col embed hr img input link meta source track wbr")
_OPTIONAL = word_set("li p dt dd option tr td th thead tbody tfoot colgroup")  # may be left open
_REFUSED = word_set("script iframe object embed applet base link frame frameset portal")
_REACHING = re.compile(r"\s*(?:[a-z][a-z0-9+.-]*:|//)", re.IGNORECASE)
_STYLE = re.compile(r"url\s*\(|@import|expression\s*\(|javascript:", re.IGNORECASE)


class _Page(HTMLParser):
    """Every element closed in its order, and nothing in it that a browser would run or fetch."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.fault: str | None = None
        self.elements = 0

    def _refuse(self, what: str) -> None:
        line, column = self.getpos()
        self.fault = self.fault or f"line {line}, column {column + 1}: {what}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements += 1
        if tag in _REFUSED:
            self._refuse(f"refused <{tag}>: nothing that runs or loads")
        for name, value in attrs:
            self._attribute(tag, name, value or "")
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in _VOID and self.open:
            self.open.pop()

    def _attribute(self, tag: str, name: str, value: str) -> None:
        if name.startswith("on") or name in ("srcdoc", "http-equiv", "ping"):
            self._refuse(f"refused the attribute {name!r}")
        loads = name in ("src", "srcset", "data", "poster", "background", "action", "formaction", "manifest")
        # A link is part of what is seen; it may point somewhere, but not run.
        if (loads and _REACHING.match(value)) or "script:" in re.sub(r"\s+", "", value).lower():
            self._refuse(f"refused {name}={value[:40]!r}: no address")
        if name == "style" and _STYLE.search(value):
            self._refuse(f"refused style={value[:40]!r}: no address")

    def handle_endtag(self, tag: str) -> None:
        while self.open and self.open[-1] != tag and self.open[-1] in _OPTIONAL:
            self.open.pop()
        if not self.open or self.open[-1] != tag:
            self._refuse(f"</{tag}> closes nothing" + (f"; <{self.open[-1]}> is open" if self.open else ""))
        else:
            self.open.pop()

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "style" and _STYLE.search(data):
            self._refuse("refused a style that loads")


def _html_fault(text: str) -> str | None:
    page = _Page()
    page.feed(text)
    page.close()
    if page.fault is None and page.elements == 0:
        return "no element"
    left = [tag for tag in page.open if tag not in _OPTIONAL]
    return page.fault or (f"<{left[-1]}> is never closed" if left else None)


# Diagrams

_MERMAID_REFUSED = re.compile(
    r"^\s*(?:click|callback|link|links)\b|%%\{|---\s*\n|javascript:|<\s*/?\s*\w+[^>]*\bon\w+\s*=|"
    r"<\s*(?:script|iframe|img|object)|\bhref\b",
    re.IGNORECASE | re.MULTILINE,
)
_MERMAID = """
import pathlib, sys, mermaidx
try:
    mermaidx.render(pathlib.Path("chart.mmd").read_text(encoding="utf-8")).svg()
except RuntimeError as error:
    sys.exit(str(error))
"""


def _mermaid_fault(text: str) -> str | None:
    if refused := _MERMAID_REFUSED.search(text):
        return f"refused {refused.group().strip()!r}: no links, no settings, no markup that runs"
    ran = bounded.run([sys.executable, "-I", "-c", _MERMAID], {"chart.mmd": text}, seconds=60)
    if "No module named" in ran.errors:
        return 'cannot be checked without mermaidx: pip install "trl-onevision[formalize]"'
    return _verdict(ran, ran.errors.removeprefix("Mermaid rendering failed: "))


_PLANTUML_REFUSED = re.compile(
    r"^\s*!|%\w+\s*\(|<img\b|<\$|<#|\bsprite\b|\[\[|file:|https?:|\{\{", re.IGNORECASE | re.M
)


def _plantuml_fault(text: str) -> str | None:
    lines = text.strip().splitlines()
    if lines[0].strip() != "@startuml" or lines[-1].strip() != "@enduml" or text.count("@start") != 1:
        return "expected one diagram from @startuml to @enduml"
    if refused := _PLANTUML_REFUSED.search(text):
        return f"refused {refused.group().strip()!r}: no preprocessor, no pictures, no links"
    if (missing := _missing("plantuml")) is not None:
        return missing
    options = {"JAVA_TOOL_OPTIONS": "-Xmx256m -XX:ReservedCodeCacheSize=64m -Djava.awt.headless=true"}
    command = ["sh", "-c", "plantuml -syntax < chart.puml"]
    ran = bounded.run(command, {"chart.puml": text}, megabytes=16384, environment=options)
    found = ran.output.splitlines()
    place = f"line {found[1]}: {' '.join(found[2:])}" if found[:1] == ["ERROR"] and len(found) > 2 else ran.errors
    return _verdict(ran, place)


# Circuits

SPICE_CARDS = word_set(".end .ends .func .global .ic .model .nodeset .op .param .subckt .temp")
_SPICE_ELEMENT = re.compile(r"[RCLVIEFGHDQMJKSWBTX]\w*\Z", re.IGNORECASE)
_SPICE_REFUSED = re.compile(
    r"[`\"'\\;$]|\bfile\b|^\s*(?:shell|source|load|write|include|lib|exec|system|cd|echo)\b", re.IGNORECASE
)
_SPICE_BLOCK = """
.options savecurrents
.control
op
print all
quit 0
.endc
.end
"""
_SPICE_VALUE = re.compile(r"^(\S+) = (-?\d\.\d+e[+-]\d+)$", re.MULTILINE)
_SPICE_TROUBLE = re.compile(r"^(?:Warning|Error|Fatal|Note: singular|.*singular matrix|doAnalyses).*", re.I | re.M)


def netlist(text: str) -> str:
    """The elements and cards of a netlist, which are all that ngspice is shown; `ValueError` names what is refused.

    ngspice runs `.control` blocks and comments that begin with `*#`, loads files by several cards, and reads its first
    line as a title. So comments go, the title is ours, and only elements and harmless cards stay.
    """
    lines = text.strip().splitlines()
    if lines and not lines[0].lstrip().startswith(("*", ".title")):
        raise ValueError("line 1 is the title and must be a comment that starts with *")
    kept: list[str] = []
    for number, line in enumerate(lines, start=1):
        words = line.split()
        if not words or words[0].startswith("*") or words[0] == ".title":
            continue
        if refused := _SPICE_REFUSED.search(line):
            raise ValueError(f"refused {refused.group()!r} in line {number}")
        if line.lstrip().startswith("+"):
            if not kept:
                raise ValueError(f"line {number} goes on with nothing")
        elif words[0].startswith("."):
            if words[0].lower() not in SPICE_CARDS:
                raise ValueError(f"refused {words[0]!r}: only {', '.join(sorted(SPICE_CARDS))}")
            if words[0].lower() == ".end":
                break
            if words[0].lower() == ".op":
                continue
        elif not _SPICE_ELEMENT.match(words[0]):
            raise ValueError(f"refused {words[0][:20]!r} in line {number}: no known element")
        kept.append(line.strip())
    if not any(not line.startswith((".", "+")) for line in kept):
        raise ValueError("no element")
    return "\n".join(kept)


def operating_point(text: str) -> dict[str, float]:
    """What ngspice's `.op` says of a netlist: volts by node, amperes by `name#branch` and `@name[i]`.

    Raises `ValueError` where the netlist is refused, does not parse, or has no operating point.
    """
    deck = "* checked\n" + netlist(text) + _SPICE_BLOCK
    if (missing := _missing("ngspice")) is not None:
        raise ValueError(missing)
    ran = bounded.run(["ngspice", "-n", "-b", "deck.cir"], {"deck.cir": deck})
    trouble = _SPICE_TROUBLE.search(f"{ran.errors}\n{ran.output}")
    values = {name: float(value) for name, value in _SPICE_VALUE.findall(ran.output)}
    if ran.late or ran.status or trouble or not values:
        problem = trouble.group() if trouble else ran.errors or "no operating point"
        raise ValueError(_verdict(ran, problem) or problem)
    return values


def _spice_fault(text: str) -> str | None:
    try:
        operating_point(text)
    except ValueError as error:
        return str(error)
    return None


# Music

_LY_COMMAND = re.compile(r"\\([A-Za-z][A-Za-z-]*)")
_LY_ASSIGNED = re.compile(r"^\s*([A-Za-z]+)\s*=", re.MULTILINE)
_LY_KNOWN = word_set(
    """version header score book new context with relative fixed absolute transpose clef key time tempo bar partial
    major minor dorian phrygian lydian mixolydian aeolian locrian ionian repeat alternative volta unfold tuplet
    times grace acciaccatura appoggiatura slashedGrace afterGrace addlyrics lyricmode lyricsto lyrics chordmode
    chords drummode drums notemode figuremode markup bold italic fontsize column line center-column hspace vspace
    concat small large tiny huge left-align right-align center-align layout midi paper voiceOne voiceTwo
    voiceThree voiceFour oneVoice stemUp stemDown stemNeutral slurUp slurDown slurNeutral tieUp tieDown tieNeutral
    dynamicUp dynamicDown dynamicNeutral autoBeamOff autoBeamOn cadenzaOn cadenzaOff numericTimeSignature
    defaultTimeSignature break noBreak pageBreak fermata trill turn mordent prall reverseturn upbow downbow
    flageolet thumb open stopped staccato staccatissimo tenuto accent marcato portato espressivo ppppp pppp ppp pp
    p mp mf f ff fff ffff fffff fp sf sff sfz sp spp rfz cresc decresc dim n crescTextCresc dimTextDim segno coda
    arpeggio arpeggioArrowUp arpeggioNormal glissando breathe sustainOn sustainOff unaCorda treCorde sostenutoOn
    sostenutoOff ottava startTrillSpan stopTrillSpan startTextSpan stopTextSpan mark default skip rest longa breve
    maxima change autochange omit hide undo tweak override revert set unset once shiftOn shiftOff
    mergeDifferentlyHeadedOn mergeDifferentlyDottedOn sharp flat natural doublesharp doubleflat language
    bassFigure parallelMusic keepWithTag removeWithTag tag cueDuring quoteDuring startStaff stopStaff startGroup
    stopGroup ShapeNote sacredHarpHeads easyHeadsOn melisma melismaEnd bendAfter fingering finger rightHandFinger
    stringNumber musicglyph note note-by-number number dynamic text sans typewriter super sub caps smallCaps
    underline rounded-box box circle bracket fill-line justify wordwrap override with-color Staff Voice Score
    Lyrics ChordNames Dynamics PianoStaff StaffGroup GrandStaff ChoirStaff DrumStaff TabStaff FretBoards
    RemoveEmptyStaves consists remove accepts denies alias name type description defaultchild"""
)
_LY_NEVER = word_set(
    """include verbatim-file epsfile image postscript bookOutputName bookOutputSuffix sourcefilename sourcefileline
    path eps-file score-lines page-link url-link with-url with-link"""
)


def _lilypond_fault(text: str) -> str | None:
    if scheme := re.search(r"[#$].{0,20}", text):
        return f"refused {scheme.group()!r}: no Scheme (write a sharp as 'is', in titles as a word)"
    known = (_LY_KNOWN | set(_LY_ASSIGNED.findall(text))) - _LY_NEVER
    for command in _LY_COMMAND.findall(text):
        if command not in known:
            return f"refused \\{command}: only music, marks and text of the score itself"
    if assigned := sorted(set(_LY_ASSIGNED.findall(text)) & _LY_NEVER):
        return f"refused the name {assigned[0]!r}"
    if (missing := _missing("lilypond")) is not None:
        return missing
    command = ["lilypond", "-dno-print-pages", "--loglevel=ERROR", "-o", "score", "score.ly"]
    ran = bounded.run(command, {"score.ly": text}, seconds=60, megabytes=4096)
    return _verdict(ran, ran.errors)


def _missing(tool: str) -> str | None:
    return None if shutil.which(tool) else f"cannot be checked without {tool} on PATH: install it"


def _verdict(ran: bounded.Ran, problem: str) -> str | None:
    if ran.late:
        return "took too long"
    return None if ran.status == 0 else " ".join(problem.split())[:400] or f"ended with status {ran.status}"


def _caption_fault(text: str) -> str | None:
    return None if len(text.split()) >= 3 else "expected a description in words"


LANGUAGES: dict[str, Callable[[str], str | None]] = {
    "caption": _caption_fault,
    "csv": _csv_fault,
    "html": _html_fault,
    "json": _json_fault,
    "lilypond": _lilypond_fault,
    "mermaid": _mermaid_fault,
    "plantuml": _plantuml_fault,
    "spice": _spice_fault,
}
