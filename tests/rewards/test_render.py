"""Drawings: what is paid for likeness, what is not drawn at all, and renderers that are killed."""

import http.server
import json
import logging
import threading
import time

import numpy as np
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trl_onevision.rewards import RenderReward, child, render_reward, renderer
from trl_onevision.rewards.render import looks_like, pixels
from trl_onevision.rewards.render_source import Drawing, Refused, read_drawing, similarity
from trl_onevision.rewards.renderer import render

SVG = (
    '<svg viewBox="0 0 100 60"><rect x="5" y="5" width="30" height="20" fill="red"/>'
    '<circle cx="70" cy="30" r="15" fill="#1f5ab4"/></svg>'
)
CHART = json.dumps(
    {
        "mark": "bar",
        "data": {"values": [{"a": "x", "b": 3}, {"a": "y", "b": 7}, {"a": "z", "b": 5}]},
        "encoding": {"x": {"field": "a", "type": "nominal"}, "y": {"field": "b", "type": "quantitative"}},
    }
)
GOLDS = {"svg": SVG, "vega-lite": CHART}


def score(answer, language="svg", reward=render_reward, **columns):
    gold = json.dumps({"language": language, "source": GOLDS[language]})
    (value,) = reward([answer], solution=[gold], task=["render"], **columns)
    return value


@pytest.mark.parametrize("language", GOLDS)
def test_the_gold_earns_one_in_every_dress(language):
    source = GOLDS[language]
    for text in (source, f"<answer>{source}</answer>", f"Here:\n```{language}\n{source}\n```", f"```\n{source}```"):
        assert score(text, language) == pytest.approx(1)
    spaced = (
        source.replace("><", ">\n  <").replace("red", "#ff0000") if language == "svg" else source.replace(",", ",\n")
    )
    assert score(spaced, language) == pytest.approx(1)


def test_what_is_nearer_earns_more():
    exact = score(SVG)
    shifted = score(SVG.replace('x="5" y="5"', 'x="8" y="5"'))
    recoloured = score(SVG.replace("red", "green"))
    half = score(SVG.replace('<circle cx="70" cy="30" r="15" fill="#1f5ab4"/>', ""))
    far = score('<svg viewBox="0 0 100 60"><rect x="60" y="40" width="30" height="20" fill="red"/></svg>')
    assert exact > shifted > far and exact > recoloured > far and exact > half > far
    charts = [score(CHART.replace('"b": 7', f'"b": {value}'), "vega-lite") for value in (7, 6, 1)]
    assert charts == sorted(charts, reverse=True) and charts[0] > charts[1] > charts[2]


@pytest.mark.parametrize(
    "blank",
    [
        '<svg viewBox="0 0 100 60"/>',
        '<svg viewBox="0 0 100 60"><rect width="100" height="60" fill="white"/></svg>',
        '<svg viewBox="0 0 100 60"><rect width="100" height="60" fill="gray"/></svg>',
        '<svg viewBox="0 0 100 60"><rect width="100" height="60" fill="black"/></svg>',
        '{"mark": "bar", "data": {"values": []}}',
    ],
)
def test_paper_and_a_flood_of_one_colour_earn_next_to_nothing(blank):
    assert score(blank) <= 0.05


PARTS = SVG.removeprefix('<svg viewBox="0 0 100 60">').removesuffix("</svg>")
UNSEEN = {
    "defs": f"<defs>{PARTS}</defs>",
    "gradient": f"<linearGradient>{PARTS}</linearGradient>",
    "title": f"<title>{PARTS}</title>",
    "shape": f'<rect width="9" height="9" fill="none">{PARTS}</rect>',
    "text": f"<text>{PARTS}</text>",
    "display": f'<g display="none">{PARTS}</g>',
    "style": f'<g style="display: none">{PARTS}</g>',
    "visibility": f'<g visibility="hidden">{PARTS}</g>',
    "opacity": f'<g opacity="0.01">{PARTS}</g>',
}


@pytest.mark.parametrize("unseen", UNSEEN.values(), ids=UNSEEN)
def test_parts_that_nobody_sees_are_none(unseen):
    assert score(f'<svg viewBox="0 0 100 60">{unseen}</svg>') == 0
    speck = '<rect x="99" y="59" width="1" height="1"/>'
    assert score(f'<svg viewBox="0 0 100 60">{unseen}{speck}</svg>') < 0.01


@pytest.mark.parametrize(
    "drawn",
    [
        f'<g transform="translate(900 900)">{PARTS}</g>',
        f'<g transform="scale(0.001)">{PARTS}</g>',
        PARTS.replace("fill=", 'fill-opacity="0" fill='),
        f'{PARTS}<rect width="100" height="60" fill="white"/>',
    ],
)
def test_a_drawing_that_comes_out_blank_earns_nothing_for_its_parts(drawn):
    assert score(f'<svg viewBox="0 0 100 60">{drawn}</svg>') == 0


def test_a_transform_is_part_of_a_part():
    plain, moved = (
        f'<svg viewBox="0 0 9 9"><g{how}><rect width="3" height="3"/></g></svg>'
        for how in ("", " transform='translate(1,2)'")
    )
    twice = moved.replace("<rect", "<rect transform='scale(2)'")
    parts = [read_drawing(source).parts for source in (plain, moved, twice)]
    assert [similarity(parts[1], given) for given in parts] == [0, 1, 0]
    assert read_drawing(moved.replace("(1,2)", "( 1 2 )")).parts == parts[1]


@pytest.mark.parametrize(
    ("answer", "language"),
    [
        ('<svg viewBox="0 0 9 9"><rect x="1e999" width="9" height="9"/></svg>', "svg"),
        ('<svg viewBox="0 0 9 9"><path d="M0 0 L1e999 1e308"/></svg>', "svg"),
        ('<svg viewBox="0 0 1e-300 1e-300"><rect x="1e300" width="9" height="9"/></svg>', "svg"),
        ('{"mark": "bar", "data": {"values": [{"b": 1%s}]}}' % ("0" * 400), "vega-lite"),
        ('{"mark": "bar", "width": 1%s, "data": {"values": []}}' % ("0" * 400), "vega-lite"),
    ],
)
def test_numbers_beyond_all_bounds_earn_nothing(answer, language):
    assert score(answer, language) == 0


def test_a_fence_that_never_closes_costs_what_its_length_says(linear):
    for filling in (" ", "\n", "a "):
        assert linear(lambda body: score("```" + body), filling * 200_000) == 0


def test_many_parts_on_top_of_each_other_do_not_raise_the_score():
    rects = "".join(f'<rect x="{x}" y="{y}" width="30" height="20" fill="red"/>' for x in range(40) for y in range(40))
    assert score(f'<svg viewBox="0 0 100 60">{rects}</svg>') < score(SVG.replace("red", "green"))


def test_the_pixel_half_against_a_table_by_hand():
    gold, paper = np.ones((4, 4, 3)), np.ones((4, 4, 3))
    gold[:2] = 0  # the upper half is black
    assert looks_like(gold, paper) == 0
    given_ = paper.copy()
    given_[:1] = 0  # one of its two rows: half of what is painted is right
    assert looks_like(gold, given_) == pytest.approx(0.5)
    given_[2:3] = 0  # and one row that is paper: of three painted rows two are wrong, and blank paper has two wrong
    assert looks_like(gold, given_) == 0


@pytest.mark.parametrize(
    "other",
    [
        SVG.replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg"'),
        SVG.replace("<svg", '<!-- <svg> --><svg xmlns:x="y"').replace(" r=", " x:r="),
        SVG.replace("<svg", '<s:svg xmlns:s="http://www.w3.org/2000/svg"')
        .replace("<rect", "<s:rect")
        .replace("<circle", "<s:circle")
        .replace("</svg", "</s:svg"),
        SVG.replace("<svg", '<svg xmlns="http://example.org/no-svg"'),
    ],
)
def test_what_is_drawn_is_what_was_read_whatever_its_names(other):
    """A shape with a foreign name was counted as a part, and drawn by nobody."""
    assert read_drawing(other).parts == read_drawing(SVG).parts
    assert render(read_drawing(other)).tobytes() == render(read_drawing(SVG)).tobytes()


def test_an_image_of_another_shape_than_its_coordinates_is_bounded_too():
    """A square viewBox let an image of 0.001 by 2000 pixels pass."""
    with pytest.raises(Refused, match="as long as wide"):
        read_drawing('<svg viewBox="0 0 9 9" width="0.001" height="2000"><rect width="9" height="9"/></svg>')
    wide = read_drawing('<svg viewBox="0 0 9 9" width="40" height="10"><rect width="9" height="9"/></svg>')
    assert render(wide, side=80).size == (80, 20)


def test_the_structure_half_is_the_f1_of_the_parts():
    gold = read_drawing(SVG).parts
    one = read_drawing('<svg viewBox="0 0 100 60"><rect x="5" y="5" width="30" height="20" fill="red"/></svg>').parts
    assert similarity(gold, one) == pytest.approx(2 / 3)
    assert similarity(gold, read_drawing(CHART).parts) == 0


HOSTILE = {
    "huge": '<svg width="100000" height="100000"><rect width="9" height="9"/></svg>',
    "huge box": '<svg viewBox="0 0 1e9 1e9"><rect width="9" height="9"/></svg>',
    "huge, small box": '<svg viewBox="0 0 9 9" width="1e6" height="1e6"><rect width="9" height="9"/></svg>',
    "thin": '<svg viewBox="0 0 0.0000001 2000"><rect width="9" height="9"/></svg>',
    "percent": '<svg width="1000000%" height="9"><rect width="9" height="9"/></svg>',
    "not a number": '<svg viewBox="0 0 NaN NaN"><rect width="9" height="9"/></svg>',
    "laughs": '<!DOCTYPE s [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]><svg viewBox="0 0 9 9"><text>&b;</text></svg>',
    "entity": '<!DOCTYPE s [<!ENTITY x SYSTEM "file:///etc/passwd">]><svg viewBox="0 0 9 9"><text>&x;</text></svg>',
    "image": '<svg viewBox="0 0 9 9"><image href="file:///etc/passwd"/></svg>',
    "linked image": '<svg xmlns:xlink="x" viewBox="0 0 9 9"><image xlink:href="http://127.0.0.1/"/></svg>',
    "use": '<svg viewBox="0 0 9 9"><use href="other.svg#a"/></svg>',
    "svg in svg": '<svg viewBox="0 0 9 9"><svg x="5" width="9" height="9"><rect width="9" height="9"/></svg></svg>',
    "script": '<svg viewBox="0 0 9 9"><script>alert(1)</script></svg>',
    "handler": '<svg viewBox="0 0 9 9" onload="alert(1)"><rect width="9" height="9"/></svg>',
    "foreign": '<svg viewBox="0 0 9 9"><foreignObject><p>x</p></foreignObject></svg>',
    "style sheet": '<svg viewBox="0 0 9 9"><style>@import url(http://127.0.0.1/a.css);</style></svg>',
    "fill from afar": '<svg viewBox="0 0 9 9"><rect fill="url(http://127.0.0.1/a.svg#b)" width="9" height="9"/></svg>',
    "filter": '<svg viewBox="0 0 9 9"><filter id="f"><feGaussianBlur stdDeviation="1e9"/></filter></svg>',
    "pattern": '<svg viewBox="0 0 9 9"><pattern id="p" width="1e-9" height="1e-9"/></svg>',
    "deep": '<svg viewBox="0 0 9 9">' + "<g>" * 5000 + "</g>" * 5000 + "</svg>",
    "many": '<svg viewBox="0 0 9 9">' + '<rect width="1" height="1"/>' * 5000 + "</svg>",
    "long": '<svg viewBox="0 0 9 9"><path d="' + "M0 0" * 50_000 + '"/></svg>',
    "cut off": SVG[:60],
    "html": "<html><body>hi</body></html>",
    "words": "I draw a red rectangle.",
    "empty": "",
    "data by address": '{"mark": "bar", "data": {"url": "http://127.0.0.1/data.json"}}',
    "data by file": '{"mark": "bar", "data": {"url": "file:///etc/passwd"}}',
    "sequence": '{"mark": "bar", "data": {"sequence": {"start": 0, "stop": 1e12}}}',
    "expression": '{"mark": "bar", "data": {"values": [{}]}, "transform": [{"calculate": "warn(1)", "as": "b"}]}',
    "expression as value": '{"mark": {"type": "bar", "size": {"expr": "1e9"}}, "data": {"values": [{"a": 1}]}}',
    "image mark": '{"mark": "image", "data": {"values": [{"u": "http://127.0.0.1/a.png"}]}, "encoding": {}}',
    "link": '{"mark": "bar", "data": {"values": [{"a": 1}]}, "encoding": {"href": {"field": "a"}}}',
    "wide chart": '{"mark": "bar", "width": 1e9, "data": {"values": [{"a": 1}]}}',
    "step": '{"mark": "bar", "width": {"step": 1e9}, "data": {"values": [{"a": 1}]}}',
    "python": "{'mark': __import__('os').system('touch hacked')}",
    "nested": '{"mark": ' + "[" * 100_000 + "]" * 100_000 + "}",
}  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_what_reaches_beyond_a_drawing_is_refused_before_a_renderer_sees_it(text):
    with pytest.raises(Refused):
        read_drawing(text)
    assert score(text) == 0


def test_a_chart_is_drawn_with_its_text_on_white_on_any_machine():
    """resvg leaves text out where it finds no sans-serif: then the reward compared what nobody was shown."""
    dark = {
        background: pixels(render(read_drawing(json.dumps(chart)), seconds=10), 224).min()
        for background in ("white", None)
        for chart in [{"mark": {"type": "text", "text": "WWW"}, "data": {"values": [{}]}, "background": background}]
    }
    assert dark["white"] == dark[None] < 0.9
    paper = pixels(render(read_drawing(json.dumps(json.loads(CHART) | {"background": None})), seconds=10), 224)
    assert paper[0, 0].tolist() == [1, 1, 1]


def test_a_chart_too_large_by_its_data_is_not_drawn():
    values = [{"a": f"name {index}", "b": index} for index in range(700)]
    chart = json.loads(CHART) | {"data": {"values": values}}
    assert read_drawing(json.dumps(chart)).language == "vega-lite"
    assert score(json.dumps(chart), "vega-lite") == 0  # 700 bars of 20 pixels


def test_no_renderer_asks_an_address_even_where_it_is_let():
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    at = f"http://127.0.0.1:{server.server_port}"
    one = {"values": [{}]}
    size = 'xmlns="http://www.w3.org/2000/svg" width="9" height="9"'
    past_the_check = [
        Drawing("vega-lite", json.dumps({"mark": "bar", "data": {"url": f"{at}/data.json"}}), {}),
        Drawing("vega-lite", json.dumps({"mark": "bar", "data": {"url": "file:///etc/hostname"}}), {}),
        Drawing("vega-lite", json.dumps({"mark": {"type": "image", "url": f"{at}/b.png"}, "data": one}), {}),
        Drawing("svg", f'<svg {size}><image width="9" height="9" href="{at}/a.png"/></svg>', {}),
    ]
    for drawing in past_the_check:
        render(drawing)
    server.shutdown()
    assert asked == []


SEQUENCE = {"mark": "point", "data": {"sequence": {"start": 0, "stop": 1e10}}, "encoding": {}}
STALLS = Drawing("vega-lite", json.dumps(SEQUENCE), {})


def test_a_renderer_that_aborts_or_hangs_is_replaced_and_the_next_drawing_drawn():
    good = read_drawing(SVG)
    assert render(good) is not None
    for bad, side in ((good, 60_000), (STALLS, 224)):
        assert render(bad, side, seconds=1) is None
        assert render(good) is not None
    children = psutil.Process().children(recursive=True)
    assert sum("render_worker.py" in " ".join(one.cmdline()) for one in children if one.is_running()) == 1


def test_an_interrupted_drawing_is_not_the_answer_to_the_next(monkeypatch):
    black, white = (
        f'<svg viewBox="0 0 9 9"><rect width="9" height="9" fill="{fill}"/></svg>' for fill in ("#000", "#fff")
    )
    expected = render(read_drawing(white))

    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(child, "wait", interrupted)
        render(read_drawing(black))
    assert render(read_drawing(white)) == expected


def test_a_renderer_that_takes_too_much_memory_is_killed(monkeypatch):
    assert render(read_drawing(SVG)) is not None
    (before,) = renderer._pool.children
    monkeypatch.setattr(renderer._pool, "memory", before.resident() + 100 * 2**20)
    start = time.monotonic()
    assert render(STALLS, seconds=60) is None and time.monotonic() - start < 30
    assert before.process.poll() is not None
    monkeypatch.undo()
    assert render(read_drawing(SVG)) is not None


def test_thinking_that_the_template_opened_and_a_cut_off_left_open_earns_nothing():
    fence = f"```svg\n{SVG}\n```"
    assert score(f"I try {fence}") == 1
    assert score(f"I try {fence}", reward=RenderReward(opened=True)) == 0
    assert score(f"I try</think>{fence}", reward=RenderReward(opened=True)) == 1


def test_a_call_ends_with_its_budget():
    reward = RenderReward(budget=0.0)
    assert score(SVG, reward=reward) == 0
    start = time.monotonic()
    gold = json.dumps({"language": "svg", "source": SVG})
    scores = RenderReward(budget=1.0)([SVG] * 2000, solution=[gold] * 2000, task=["render"] * 2000)
    assert set(scores) <= {0.0, 1.0} and time.monotonic() - start < 30


@pytest.mark.parametrize(
    "gold",
    [
        "",
        "x",
        "{}",
        None,
        {"language": "svg"},
        {"language": "vega-lite", "source": SVG},
        {"language": "svg", "source": "<svg"},
        {"language": "svg", "source": '<svg viewBox="0 0 9 9"/>'},
    ],
)
def test_a_gold_that_does_not_render_is_named(gold, caplog):
    with caplog.at_level(logging.WARNING):
        assert render_reward([SVG], solution=[gold], task=["render"], id=[f"row {gold!r}"]) == [None]
    assert "render_reward cannot score row" in caplog.text


def test_a_gold_may_be_a_mapping_and_a_row_without_the_task_is_anothers():
    gold = {"language": "svg", "source": SVG}
    assert render_reward([SVG], solution=[gold], task=["render"]) == [1]
    assert render_reward([SVG], solution=[gold], task=["text"]) == [None]
    assert render_reward([SVG], solution=[gold]) == [None]


def test_the_share_that_renders_is_a_metric():
    logged = {}
    gold = json.dumps({"language": "svg", "source": SVG})
    render_reward([SVG, "no"], solution=[gold] * 2, task=["render"] * 2, log_metric=logged.__setitem__)
    assert logged == {"render_reward/rendered": 0.5}


@given(st.text(max_size=200))
@settings(max_examples=30, deadline=None)
def test_no_text_raises(text):
    for dressed in (text, f'<svg viewBox="0 0 9 9">{text}</svg>', f'{{"mark": "bar", "data": {json.dumps(text)}}}'):
        assert 0 <= score(dressed) <= 1


@pytest.mark.parametrize("unit", ["<g>", "{", '{"a":', "```", "<!--", "M0 0 ", "<rect/>", '{"mark":"bar"},'])
def test_hostile_text_costs_what_its_length_says(unit, linear):
    for head in ("", '<svg viewBox="0 0 9 9">', '{"mark": '):
        assert linear(lambda body, head=head: score(head + body), unit * (400_000 // len(unit))) == 0


def test_long_numbers_and_transforms_over_many_shapes_cost_what_their_length_says(linear):
    """A width of 49,000 digits took a minute and a half to be no width."""
    for body in ("1" * 49_000, "1" + " " * 49_000):
        assert linear(lambda width: score(f'<svg viewBox="0 0 9 9" width="{width}x"/>'), body) == 0

    def moved(body):
        return score(f'<svg viewBox="0 0 9 9"><g transform="{body}">{"<rect/>" * (len(body) // 20)}</g></svg>')

    assert linear(moved, "a 1 " * 7_000) == 0


def test_drawings_of_any_shape_lie_on_one_square():
    for box in ("0 0 100 10", "0 0 10 100"):
        png = render(read_drawing(f'<svg viewBox="{box}"><rect width="100" height="100" fill="black"/></svg>'))
        image = pixels(png, 224)
        assert image.shape == (224, 224, 3)
        assert (image < 0.5).mean() == pytest.approx(0.1, abs=0.02)
