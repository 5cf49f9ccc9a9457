"""Options as recipes, command lines and scripts give them: what is meant is read, what is wrong is named."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trl import TrlParser

from trl_onevision import OneVisionGRPOConfig
from trl_onevision.grpo import terms
from trl_onevision.grpo.options import Options

ZOOM, DRAWN = "trl_onevision.environments.Zoom", "trl_onevision.environments.Synthesize"


def config(**options: Any) -> OneVisionGRPOConfig:
    return OneVisionGRPOConfig(output_dir="runs", bf16=False, report_to="none", **options)


@pytest.mark.parametrize(
    "given",
    [
        {"freeze": None, "advantage": None},
        {"terms": {"dads": None, "papo": {"gamma": 0.01, "detach": False}}},
        {"environment": {ZOOM: None}},
        {"advantage": ["observe", "stcr"], "skip_zero_advantages": False, "resample": 2},
    ],
)
def test_a_recipes_mapping_is_read_from_what_trl_exports_of_it(given: dict[str, Any]) -> None:
    assert Options.parse(str(given)) == Options(**given)


@given(st.text())
def test_a_text_in_it_comes_as_it_was(text: str) -> None:
    given = {"environment": {DRAWN: {"prompt": text}}}
    assert Options.parse(str(given)).environment == given["environment"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"advantage": ["observe", "observe"]}, r"advantage: \['observe', 'observe'\] names one twice"),
        ({"advantage": {"observe": 2}}, r"advantage: a name, a dotted path, or a list of them, not \{'observe': 2\}"),
        ({"advantage": 5}, "advantage: a name, a dotted path, or a list of them, not 5"),
        ({"advantage": "math.pi"}, "advantage: 'math.pi' cannot be called"),
        ({"terms": 5}, "terms: a name, a list of names, or a mapping of names to settings, not 5"),
        ({"terms": {"papo": 0.02}}, "terms: papo: a mapping of settings to values, not 0.02"),
        ({"terms": {"papo": {"gamma": "lots"}}}, "terms: papo: gamma is a number, not 'lots'"),
        ({"terms": {"papo": {"gamma": float("nan")}}}, "terms: papo: gamma is a number, not nan"),
        ({"terms": {"papo": {"eta": True}}}, "terms: papo: eta is a number, not True"),
        ({"terms": {"papo": {"detach": "no"}}}, "terms: papo: detach is true or false, not 'no'"),
        ({"terms": {"papo": {"clamp": 0}}}, "terms: papo: clamp is the most that a KL counts, above 0"),
        ({"environment": 5}, "environment: a dotted path, or a mapping of one to its settings, not 5"),
        ({"environment": [ZOOM]}, "environment: a dotted path, or a mapping of one"),
        ({"environment": {ZOOM: 4}}, "environment: .*Zoom .*must be a mapping, not int"),
        ({"environment": ZOOM, "resample": 1}, "resample cannot hold with an environment"),
        ({"environment": ZOOM, "loss": "liger"}, "loss: liger cannot honour tools and environments"),
    ],
)
def test_a_wrong_value_is_named_before_anything_is_loaded(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config(**options)


def test_a_text_that_is_no_yaml_is_named() -> None:
    with pytest.raises(ValueError, match=r"TRL_ONEVISION cannot be read as YAML: '\{share_prompt: auto'"):
        Options.parse("{share_prompt: auto")


def test_a_number_that_yaml_takes_for_a_text_is_one() -> None:
    assert terms.read({"papo": {"gamma": "2e-2"}})["papo"] == terms.Papo(gamma=0.02)


@pytest.mark.parametrize(
    ("words", "name", "expected"),
    [
        (["--advantage", "observe"], "advantage", "observe"),
        (["--advantage", "[observe, stcr]"], "advantage", ["observe", "stcr"]),
        (["--terms", "papo"], "terms", "papo"),
        (["--terms", "{papo: {gamma: 0.01}}"], "terms", {"papo": {"gamma": 0.01}}),
        (["--environment", ZOOM], "environment", ZOOM),
        (["--environment", f'{{"{ZOOM}": {{"calls": 2}}}}'], "environment", {ZOOM: {"calls": 2}}),
    ],
)
def test_a_command_line_gives_lists_and_mappings_too(words: list[str], name: str, expected: Any) -> None:
    common = ["--output_dir", "runs", "--bf16", "false", "--use_cpu", "true"]
    (args,) = TrlParser((OneVisionGRPOConfig,)).parse_args_and_config([*common, *words])
    assert getattr(args, name) == expected
