"""Render shows what its reward pays for, and only the last call counts."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trl_onevision.data.synthesize import make
from trl_onevision.data.synthesize.scene import picture
from trl_onevision.environments import Render, drawn_reward
from trl_onevision.rewards import render_reward

DISC = '<svg viewBox="0 0 90 90"><circle cx="40" cy="40" r="30" fill="red"/></svg>'
SQUARE = '<svg viewBox="0 0 90 90"><rect x="40" y="40" width="30" height="30"/></svg>'


def begun(solution: str | None = None, **settings: Any) -> Render:
    environment = Render(**{"seconds": 30, **settings})
    environment.reset(solution=solution or json.dumps({"language": "svg", "source": DISC}), task="render", id="a")
    return environment


@pytest.mark.parametrize("level", [1, 2, 3, 4])
def test_the_gold_is_shown_as_the_prompt_shows_it_and_earns_one(level: int) -> None:
    puzzle = make("render", picture, level, seed=3, index=0)
    environment = begun(puzzle.solution, side=max(puzzle.images[0].size))
    (shown,) = environment.render(json.loads(puzzle.solution)["source"])
    assert shown["image"].size == puzzle.images[0].size
    assert np.abs(np.asarray(shown["image"], int) - np.asarray(puzzle.images[0], int)).mean() < 1
    assert environment.likeness() == 1


@pytest.mark.parametrize("source", [SQUARE, f"```svg\n{DISC}\n```", f"<answer>{SQUARE}</answer>", f"so</think>{DISC}"])
def test_a_call_is_paid_what_render_reward_pays_for_its_source(source: str) -> None:
    environment = begun()
    environment.render(source)
    (expected,) = render_reward([source], solution=[environment._row["solution"]], task=["render"])
    assert environment.likeness() == expected


def test_the_last_call_counts_whatever_came_of_it() -> None:
    environment = begun(calls=3)
    assert environment.likeness() == 0
    environment.render(DISC)
    assert environment.likeness() == 1
    environment.render(SQUARE)
    assert environment.likeness() < 0.5
    with pytest.raises(ValueError, match="Not drawn: no XML"):
        environment.render("<svg")
    assert environment.likeness() == 0
    with pytest.raises(ValueError, match="All 3 calls are used"):
        environment.render(DISC)
    assert environment.likeness() == 0  # what is refused is no call
    environment.reset(solution=environment._row["solution"], task="render")
    assert environment.likeness() == 0


def test_a_specification_may_come_as_an_object() -> None:
    spec = {"mark": "bar", "data": {"values": [{"a": 1}]}, "encoding": {"x": {"field": "a", "type": "quantitative"}}}
    environment = begun(json.dumps({"language": "vega-lite", "source": json.dumps(spec)}))
    environment.render(spec)  # type: ignore[arg-type]
    assert environment.likeness() == 1


@pytest.mark.parametrize(
    "source",
    [
        '<svg width="100000" height="100000"/>',
        '<svg viewBox="0 0 9 9"><script>alert(1)</script></svg>',
        '<svg viewBox="0 0 9 9"><image href="/etc/passwd"/></svg>',
        '{"mark": "bar", "data": {"url": "http://localhost/"}}',
        "import os; os.system('true')",
        "",
        7,
        None,
        [[]],
    ],
)
def test_what_is_no_drawing_is_said_and_pays_nothing(source: Any) -> None:
    environment = begun()
    with pytest.raises(ValueError, match="Not drawn"):
        environment.render(source)
    assert environment.likeness() == 0


TEXT = st.text(max_size=20)
LEAF = st.none() | st.booleans() | st.floats() | TEXT


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(LEAF | st.lists(LEAF, max_size=4) | st.dictionaries(TEXT, LEAF | st.lists(LEAF, max_size=2), max_size=4))
def test_nothing_that_is_said_fails_otherwise(source: Any) -> None:
    environment = begun()
    with pytest.raises(ValueError):
        environment.render(source)
    assert environment.likeness() == 0


def test_rows_of_other_tasks_are_left_to_their_rewards_and_a_recipe_without_the_environment_is_told() -> None:
    other = begun()
    other.reset(solution="7", task="number")
    assert drawn_reward(completions=[[], []], environments=[other, object()]) == [None, None]
    with pytest.raises(ValueError, match=r"needs `environment: trl_onevision\.environments\.Render`"):
        drawn_reward(completions=[[]])
