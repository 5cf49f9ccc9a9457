"""Formal texts that parse, that do not, and that want more than to be read; each with the real tool."""

import shutil
import socket
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trl_onevision.formalize import bounded
from trl_onevision.formalize.check import LANGUAGES, check, operating_point

needs = {tool: pytest.mark.skipif(shutil.which(tool) is None, reason=f"{tool} is not on PATH") for tool in
         ("ngspice", "plantuml", "lilypond")}  # fmt: skip

VALID = {
    "csv": ['a,b\n1,2\n3,"4, 5"', ",Rome,Oslo\n2023,1,2"],
    "json": ['[{"a": 1}]', '{"rows": [[1, 2]], "name": "été"}'],
    "html": ["<html><body><h1>A</h1><p>b<br>c<ul><li>x<li>y</ul></body></html>", '<a href="#top">up</a>'],
    "mermaid": ["flowchart TD\n A[Start] --> B{ok?}\n B -- yes --> C[End]", 'pie title Pets\n "dogs": 3\n "cats": 2'],
    "caption": ["Two dogs on a lawn."],
}
BROKEN = {
    "csv": ["a,b\n1,2,3", "a\n1", "a,a\n1,2", 'a,b\n1,"2', "just words"],
    "json": ["{", "3", "[]", '{"a": NaN}', '{"a": 1, "a": 2}', "[" * 60 + "1" + "]" * 60, "[" * 10_000],
    "html": ["words", "<div><span>x</div>", "<p>a</p></div>", "<table>"],
    "mermaid": ["flowchart LR\nA[one --> B", "hello"],
    "caption": ["dog"],
}
HOSTILE = {
    "csv": ['a,b\n1,=HYPERLINK("http://x")', "a,b\n@SUM(1),2"],
    "html": [
        "<div><script>alert(1)</script></div>",
        "<img src=x onerror=alert(1)>",
        "<a href='java\tscript:alert(1)'>x</a>",
        "<img src='http://127.0.0.1/x.png'>",
        "<img src='//evil/x.png'>",
        "<iframe srcdoc='x'></iframe>",
        "<meta http-equiv=refresh content='0;url=http://x'>",
        "<div style='background: url(http://x)'>x</div>",
        "<style>@import 'http://x';</style>",
        "<object data='file:///etc/passwd'></object>",
        "<svg onload=alert(1)></svg>",
    ],
    "mermaid": [
        "flowchart LR\nA-->B\nclick A call alert()",
        "%%{init: {'securityLevel': 'loose'}}%%\nflowchart LR\nA-->B",
        'flowchart LR\nA["<img src=x onerror=alert(1)>"]-->B',
        'flowchart LR\nA["<script>x</script>"]-->B',
    ],
    "plantuml": [
        "@startuml\n!include /etc/passwd\nA->B\n@enduml",
        "@startuml\n  !includeurl http://127.0.0.1/x\nA->B\n@enduml",
        "@startuml\nA->B : %getenv(\"HOME\")\n@enduml",
        "@startuml\nA->B : <img:/etc/passwd>\n@enduml",
        "@startditaa\n+--+\n@endditaa",
        "@startuml\nA->B : [[http://x]]\n@enduml",
    ],
    "spice": [
        "* t\nR1 1 0 1k\n.control\nshell touch /tmp/owned\n.endc\n.end",
        "* t\nR1 1 0 1k\n.CONTROL\nquit\n.endc",
        "* t\nR1 1 0 1k\n.include /etc/passwd",
        "* t\nR1 1 0 1k\n.lib /etc/passwd x",
        "* t\nV1 1 0 PWL file=/etc/passwd",
        "* t\nA1 [1] d\n.model d filesource (file=\"/etc/passwd\")",
        "* t\nR1 1 0 `id`",
        "* t\nR1 1 0 1k\n.csparam x={1}",
        "*ng_script\nshell touch /tmp/owned",
    ],
    "lilypond": [
        "{ c4 #(system \"touch /tmp/owned\") }",
        "{ c4 $(ly:gulp-file \"/etc/passwd\") }",
        "\\include \"/etc/passwd\"\n{ c4 }",
        "\\markup { \\verbatim-file \"/etc/passwd\" }",
        "\\markup { \\epsfile X 10 \"/etc/passwd\" }",
        "\\book { \\bookOutputName \"/tmp/owned\" { c4 } }",
        "include = { c4 }\n{ \\include \"/etc/passwd\" }",
        "\\markup { \\postscript \"run\" }",
    ],
}  # fmt: skip


def cases(table):
    return [pytest.param(language, text, id=f"{language}-{n}") for language in table for n, text in
            enumerate(table[language])]  # fmt: skip


@pytest.mark.parametrize(("language", "text"), cases(VALID))
def test_what_parses_passes(language, text):
    assert check(language, text) is None


@pytest.mark.parametrize(("language", "text"), cases(BROKEN))
def test_what_does_not_parse_is_told_why(language, text):
    assert check(language, text).startswith(f"{language}: ")


@pytest.mark.parametrize(("language", "text"), cases(HOSTILE))
def test_what_wants_to_run_or_to_load_is_refused_by_name_before_any_tool(language, text, monkeypatch):
    monkeypatch.setattr(bounded, "run", lambda *_, **__: pytest.fail("a tool was shown it"))
    fault = check(language, text)
    assert fault and ("refused" in fault or "expected one diagram" in fault or "no element" in fault), fault


@pytest.mark.parametrize("language", sorted(LANGUAGES))
def test_too_long_empty_and_binary_texts_are_refused(language):
    assert "10,000,000 characters; at most" in check(language, "x" * 10_000_000)
    assert check(language, " \n") == f"{language}: empty"
    assert "null character" in check(language, "a\0b")


@settings(max_examples=200, deadline=None)
@given(language=st.sampled_from(["csv", "json", "html", "caption"]), text=st.text(max_size=200))
def test_no_text_raises(language, text):
    assert isinstance(check(language, text), str | None)


# Circuits


@needs["ngspice"]
@pytest.mark.parametrize(("top", "bottom", "volts"), [(1000, 1000, 5.0), (3000, 1000, 2.5), (150, 850, 8.5)])
def test_the_operating_point_is_the_voltage_of_the_divider(top, bottom, volts):
    netlist = f"* divider\nV1 in 0 10\nR1 in out {top}\nR2 out 0 {bottom}\n.end"
    assert check("spice", netlist) is None
    assert operating_point(netlist)["out"] == pytest.approx(volts, rel=1e-6)


@needs["ngspice"]
@pytest.mark.parametrize(
    "lines",
    [
        "V1 in 0 10\nR1 in out",  # no value: ngspice would take a milliohm
        "V1 in 0 10\nC1 in out 1u\nR1 x 0 1",  # a node that hangs in the air
        "V1 in 0 10\nV2 in 0 5",
        "V1 in 0 10\nD1 in 0 unknown",
        "V1 in 0 10\nX1 in 0 unknown",
    ],
)
def test_a_netlist_without_an_operating_point_is_told_what_ngspice_said(lines):
    assert len(check("spice", f"* t\n{lines}\n.end")) > len("spice: ")


@needs["ngspice"]
def test_models_parameters_and_subcircuits_parse():
    text = "* t\n.param r=2k\nV1 a 0 5\nR1 a b {r}\nD1 b 0 dio\n.model dio D\nX1 a 0 load\n.subckt load p n\nR9 p n 1k\n.ends\n.end"  # noqa: E501
    assert check("spice", text) is None


def test_a_title_must_be_a_comment_since_spice_would_swallow_the_line():
    assert "title" in check("spice", "V1 in 0 10\nR1 in 0 1k")


@needs["plantuml"]
def test_plantuml_tells_valid_from_broken():
    assert check("plantuml", "@startuml\nstart\n:a;\nif (x) then (yes)\n:b;\nendif\nstop\n@enduml") is None
    assert "Syntax Error" in check("plantuml", "@startuml\nstart\n:a;\nif (x then\n:b\nstop\n@enduml")


@needs["lilypond"]
def test_lilypond_tells_valid_from_broken():
    melody = "melody = \\relative c' { \\key g \\major c4 d8( e) f2\\p }\n\\score { \\new Staff \\melody }"
    assert check("lilypond", melody) is None
    assert "syntax error" in check("lilypond", "{ c4 d e f")


@pytest.mark.parametrize("tool", ["ngspice", "plantuml", "lilypond"])
def test_a_missing_tool_is_named(tool, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    language = {"ngspice": "spice"}.get(tool, tool)
    text = {"spice": "* t\nR1 1 0 1k", "plantuml": "@startuml\nA->B\n@enduml", "lilypond": "{ c4 }"}[language]
    assert check(language, text) == f"{language}: cannot be checked without {tool} on PATH: install it"


# The process


def test_time_memory_and_files_of_a_tool_are_bounded(tmp_path):
    endless = bounded.run(["sh", "-c", "while :; do :; done"], {}, seconds=1)
    assert endless.late
    hungry = bounded.run(["python3", "-c", "x = bytearray(4 * 2**30)"], {}, megabytes=512)
    assert hungry.status != 0
    chatty = bounded.run(["sh", "-c", "yes"], {}, seconds=10)
    assert len(chatty.output) <= bounded.LONGEST_OUTPUT


def test_a_tool_has_neither_home_nor_secrets_and_its_children_die_with_it(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    ran = bounded.run(["sh", "-c", "env; pwd; (sleep 60; echo late) & ls -a"], {"a.txt": "x"})
    assert "sk-secret" not in ran.output and "HOME=/tmp" in ran.output and "a.txt" in ran.output


def test_a_tool_reaches_no_server_where_the_kernel_gives_networks_away():
    served = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=lambda: served.append(server.accept()), daemon=True)
        thread.start()
        code = f"import socket; socket.create_connection(('127.0.0.1', {server.getsockname()[1]}), 2)"
        ran = bounded.run(["python3", "-c", code], {})
    if ran.status == 0:
        pytest.skip("this kernel gives no process a network of its own")
    assert not served
