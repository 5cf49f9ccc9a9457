"""The figures: counted by hand, and intervals by Wilson's formula."""

import io
import math

import pytest
from rich.console import Console

from trl_onevision.bench import paper, report
from trl_onevision.bench.score import Scored

PLACES = [("College", "Math"), ("College", "Math"), ("High School", "Math"), ("College", "Physics"), ("Odd", "Law")]
RIGHT = [True, False, True, True, False]


@pytest.fixture
def scored():
    return [
        Scored(str(n), level, category, "choice" if n % 2 else "math", "A", "A", "stated", right, n == 0, True)
        for n, ((level, category), right) in enumerate(zip(PLACES, RIGHT, strict=True))
    ]


@pytest.mark.parametrize("right, n", [(0, 5), (5, 5), (1, 3), (341, 942), (50, 98)])
def test_intervals_are_wilsons(right, n):
    share, z = right / n, 1.959963984540054
    middle, half = share + z**2 / (2 * n), z * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    figure = report.cell([True] * right + [False] * (n - right))
    expected = ((middle - half) / (1 + z**2 / n), (middle + half) / (1 + z**2 / n))
    assert (figure["low"], figure["high"]) == pytest.approx(expected, abs=1e-9)
    assert (figure["n"], figure["right"], figure["accuracy"]) == (n, right, share)


def test_the_table_counts_what_is_there(scored):
    figures = report.results(scored, "m")
    assert list(figures["categories"]) == ["Math", "Physics", "Law"]
    assert list(figures["levels"]) == ["High School", "College", "Odd"]
    assert (figures["overall"]["right"], figures["overall"]["n"]) == (3, 5)
    assert figures["cells"]["Math"]["College"]["accuracy"] == 0.5
    assert figures["cells"]["Law"]["College"]["n"] == 0
    assert figures["literal_disagrees"] == 2
    for by in ("levels", "categories"):
        assert sum(figure["n"] for figure in figures[by].values()) == 5
    header, body = report.lines(figures)
    assert header == ["", "High School", "College", "Odd", "all"]
    assert body[0][:4] == ["Math", "100.0 (1/1)", "50.0 (1/2)", ""]
    assert body[-1][-1].startswith("60.0 [")


def test_the_papers_numbers_stand_in_the_columns_of_the_data(scored):
    columns, compared = report.comparison(report.results(scored, "m"))
    assert columns == ["all", "High School", "College", "Odd", "Math", "Physics", "Law"]
    assert compared["R1-Onevision-7B"] == [36.2, 39.5, 27.6, None, 33.0, 30.2, None]
    assert compared["Claude-3.5"][0] == 52.1
    assert all(len(row) == len(columns) for row in compared.values())


def test_the_papers_tables_are_whole():
    assert all(len(row) == 1 + len(paper.LEVELS) + len(paper.CATEGORIES) for row in paper.MODELS.values())
    # The paper's average is over rows, of which it states the number by category.
    n = dict(zip(paper.CATEGORIES, (327, 278, 105, 134, 98), strict=True))
    for average, *figures in paper.MODELS.values():
        by_category = dict(zip(paper.CATEGORIES, figures[len(paper.LEVELS) :], strict=True))
        assert math.isclose(sum(by_category[c] * n[c] for c in n) / paper.ROWS, average, abs_tol=0.15)


def test_a_short_file_says_that_it_does_not_compare(scored):
    assert "942 rows" in report.markdown(report.results(scored, "m"))


def test_a_judge_stands_beside_the_rules(scored):
    figures = report.results(scored, "m", judged={"0": 0.0, "1": 1.0, "4": 1.0})
    assert figures["overall"]["right"] == 3
    assert figures["judge"]["right"] == 4
    assert figures["unjudged"] == 2


def test_a_judge_without_a_verdict_has_no_figure(scored):
    figures = report.results(scored, "m", judged={})
    assert figures["judge"] is None and figures["unjudged"] == 5
    assert "Judged by a model: no verdict came." in report.markdown(figures)


def test_names_of_the_data_are_text_and_no_markup(tmp_path):
    odd = [("[/bold]", "$x^", True), ("[red]a|b", "$x^", False)]
    scored = [
        Scored(str(n), level, category, "math", "1", "1", "stated", right, right, True)
        for n, (level, category, right) in enumerate(odd)
    ]
    figures = report.results(scored, "runs/[/i]$\\frac")
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(report.console_table(figures))
    said = console.export_text()
    assert all(name in said for name in ("[/bold]", "[red]a|b", "$x^", "runs/[/i]$"))
    report.write(figures, tmp_path)
    assert "[red]a\\|b" in (tmp_path / "report.md").read_text()
    assert (tmp_path / "heatmap.png").stat().st_size > 10_000
