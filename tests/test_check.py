"""What `trl-onevision check` says of a recipe, beside what `trl grpo` does with it."""

import os
import re

import pytest
import yaml
from typer.testing import CliRunner

from trl_onevision.check import RecipeProblem, check_recipe
from trl_onevision.cli import app
from trl_onevision.recipes import recipe_folder

OURS = "trl_onevision.rewards.accuracy_reward"


@pytest.fixture
def check(tmp_path, monkeypatch):
    monkeypatch.delenv("TRL_ONEVISION", raising=False)
    monkeypatch.setenv("PYTHONPATH", os.fspath(recipe_folder().parent))
    (tmp_path / "my_rewards.py").write_text("import json\n\ndef length(completions, **kwargs): ...\n\nnumber = 3\n")
    (tmp_path / "ours_too.py").write_text("from trl_onevision.rewards import Gate\n\ndef paid(completions): ...\n")
    (tmp_path / "boards.py").write_text("class Board:\n    def __init__(self, size=3): ...\n")
    (tmp_path / "broken.py").write_text("import no_such_module\n")

    def check(**settings):
        (tmp_path / "recipe.yaml").write_text(yaml.safe_dump({"reward_funcs": ["accuracy_reward"], **settings}))
        return check_recipe(tmp_path / "recipe.yaml", tmp_path)

    return check


@pytest.mark.parametrize("recipe", sorted(recipe_folder().glob("*grpo*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_recipe_trains_with_our_trainer_and_has_no_note(recipe):
    verdict = check_recipe(recipe)
    assert (verdict.errors, verdict.notes) == ([], [])
    assert verdict.trainer.startswith("OneVisionGRPOTrainer, with share_prompt=")


@pytest.mark.parametrize("reward", [OURS, "ours_too.paid"])
def test_a_reward_that_imports_the_package_brings_the_trainer_in(check, reward):
    verdict = check(reward_funcs=[reward], env={"TRL_ONEVISION": {"loss": "liger"}})
    assert "loss='liger'" in verdict.trainer and not verdict.notes and not verdict.errors


def test_the_variable_without_the_package_does_nothing_and_that_is_said(check):
    verdict = check(reward_funcs=["my_rewards.length", "accuracy_reward"], env={"TRL_ONEVISION": True})
    assert verdict.trainer == "TRL's own GRPOTrainer"
    assert len(verdict.notes) == 1 and "TRL_ONEVISION does nothing here" in verdict.notes[0]
    assert not verdict.errors


@pytest.mark.parametrize("env", [{}, {"TRL_ONEVISION": False}, {"TRL_ONEVISION": None}, {"TRL_ONEVISION": 0}])
def test_the_package_without_the_variable_is_said_too(check, env):
    verdict = check(reward_funcs=[OURS], env=env)
    assert verdict.trainer == "TRL's own GRPOTrainer"
    assert "would train with OneVisionGRPOTrainer" in verdict.notes[0]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"learning_rat": 1e-6}, "learning_rat: neither TRL nor accelerate has this option. learning_rate?"),
        ({"onevision_loss": "liger"}, "onevision_loss: neither TRL nor accelerate"),
        ({"reward_funcs": []}, "reward_funcs: found none, expected a list of rewards in a recipe for `trl grpo`"),
        ({"reward_funcs": OURS}, f"reward_funcs: found {OURS}, expected a list"),
        ({"reward_funcs": ["my_rewards.lenght"]}, "my_rewards.lenght cannot be used (AttributeError"),
        ({"reward_funcs": ["my_rewards.number"]}, "my_rewards.number cannot be used (it cannot be called)"),
        ({"reward_funcs": ["broken.reward"]}, "broken.reward cannot be used (ModuleNotFoundError: No module named"),
        ({"reward_funcs": [OURS], "env": {"TRL_ONEVISION": {"los": "trl"}}}, "env: Unknown option 'los'"),
        (
            {"reward_funcs": [OURS], "env": {"TRL_ONEVISION": {"environment": "boards.Chess"}}},
            "has no attribute 'Chess'",
        ),
        (
            {"reward_funcs": [OURS], "env": {"TRL_ONEVISION": {"environment": {"boards.Board": {"width": 8}}}}},
            "env: environment: boards.Board got an unexpected keyword argument 'width'; it takes size.",
        ),
        ({"num_generations": "many"}, "--num_generations"),
        ({"reward_funcs": [OURS], "env": {"TRL_ONEVISION": {"advantage": "ema"}}}, "set scale_rewards: none"),
        ({"reward_funcs": [OURS], "beta": 0.0, "env": {"TRL_ONEVISION": {"terms": "dads"}}}, "it needs a beta"),
    ],
)
def test_what_stops_a_run_at_its_start_is_named(check, settings, expected):
    (error,) = check(**settings).errors
    assert expected in error


@pytest.mark.parametrize("given", ["boards.Board", {"boards.Board": {"size": 8}}, "trl_onevision.environments.Zoom"])
def test_an_environment_is_looked_for_where_trl_looks_for_rewards(check, given):
    verdict = check(reward_funcs=[OURS], env={"TRL_ONEVISION": {"environment": given}})
    assert not verdict.errors and f"environment={given!r}" in verdict.trainer


def test_options_of_trl_that_fit_are_no_error(check):
    ema = {"TRL_ONEVISION": {"advantage": "ema", "terms": {"dads": None}}}
    assert not check(reward_funcs=[OURS], scale_rewards=False, beta=0.1, env=ema).errors


def test_options_of_accelerate_may_stand_in_a_recipe(check):
    assert not check(num_processes=2, accelerate_config="zero2", max_steps=3).errors


@pytest.mark.parametrize("text", ["- a list", "a: [", "env: 3"])
def test_what_is_no_recipe_is_refused_with_its_name(tmp_path, text):
    (tmp_path / "recipe.yaml").write_text(text)
    with pytest.raises(RecipeProblem, match=re.escape("recipe.yaml")):
        check_recipe(tmp_path / "recipe.yaml")


def test_the_command_prints_the_trainer_and_fails_on_an_error(tmp_path, monkeypatch):
    monkeypatch.delenv("TRL_ONEVISION", raising=False)
    for missing, said in (("clevr.yaml", "No recipe is named"), ("quickstart-sft", "found none, expected a list")):
        failed = CliRunner().invoke(app, ["check", missing])
        assert failed.exit_code == 1 and said in failed.output
    assert CliRunner().invoke(app, ["check", "quickstart-grpo"]).exit_code == 0
    good = CliRunner().invoke(app, ["check", str(recipe_folder() / "quickstart-grpo.yaml")])
    assert good.exit_code == 0 and "OneVisionGRPOTrainer" in good.output
    (tmp_path / "bad.yaml").write_text("learning_rat: 1")
    assert CliRunner().invoke(app, ["check", str(tmp_path / "bad.yaml")]).exit_code == 1
