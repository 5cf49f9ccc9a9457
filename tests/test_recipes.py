"""Every recipe is read by TRL's own parser, names rewards that exist, and has no key that nobody knows."""

import importlib
import re
import shlex
from pathlib import Path

import pytest
import yaml
from accelerate.commands.launch import launch_command_parser
from trl.cli.accelerate_config import resolve_accelerate_config_argument
from trl.scripts import grpo, sft
from trl.scripts.vllm_serve import ScriptArguments, build_command
from typer.testing import CliRunner

from trl_onevision.cli import app
from trl_onevision.recipes import recipe_folder, recipe_names, recipe_path, summary

RECIPES = recipe_names()


def method_of(recipe: str) -> str:
    return "grpo" if "grpo" in recipe else "sft"


def read(recipe: Path | str, monkeypatch):
    """What `trl METHOD --config RECIPE` makes of a recipe on a machine without a GPU: its arguments, and the rest."""
    path = recipe_path(recipe) if isinstance(recipe, str) else recipe
    monkeypatch.setenv("TRL_ONEVISION", "")  # undone after the test, when the parser has exported the recipe's `env`
    parser = {"grpo": grpo, "sft": sft}[method_of(path.stem)].make_parser()
    *arguments, rest = parser.parse_args_and_config(
        ["--config", str(path), "--use_cpu", "true"], return_remaining_strings=True
    )
    return arguments, rest


def refuse_unknown(rest: list[str]) -> None:
    """What TRL's parser leaves goes to `accelerate launch`, whose own parser exits on a key that it does not know."""
    launch_command_parser().parse_args([*resolve_accelerate_config_argument(rest), "script.py"])


@pytest.mark.parametrize("recipe", RECIPES)
def test_trl_reads_every_recipe(recipe, monkeypatch):
    (script, training, model, *_), rest = read(recipe, monkeypatch)
    given = yaml.safe_load(recipe_path(recipe).read_text())
    refuse_unknown(rest)
    assert script.dataset_name == given.get("dataset_name") and (script.dataset_name or given["datasets"])
    assert model.model_name_or_path == given["model_name_or_path"]
    assert training.learning_rate == given["learning_rate"]
    assert training.output_dir == given["output_dir"]


def test_a_key_that_nobody_knows_is_refused(tmp_path, monkeypatch):
    wrong = tmp_path / "wrong-sft.yaml"
    wrong.write_text(recipe_path("quickstart-sft").read_text() + "\nlearning_rat: 1.0e-3\n")
    _, rest = read(wrong, monkeypatch)
    with pytest.raises(SystemExit):
        refuse_unknown(rest)


@pytest.mark.parametrize("recipe", RECIPES)
def test_weights_that_train_are_fp32(recipe, monkeypatch):
    """bf16 holds no step of 1e-6 on a weight of 0.02: next to it is 0.02012."""
    (_, _, model, *_), _ = read(recipe, monkeypatch)
    assert model.dtype == ("bfloat16" if model.use_peft else "float32")


@pytest.mark.parametrize("recipe", [name for name in RECIPES if method_of(name) == "grpo"])
def test_every_reward_of_a_recipe_resolves(recipe):
    paths = yaml.safe_load(recipe_path(recipe).read_text())["reward_funcs"]
    for path in paths:
        module, name = path.rsplit(".", 1)
        assert callable(getattr(importlib.import_module(module), name))


def test_boxes_are_paid_in_the_frame_that_the_model_answers_in():
    """That is in pixels, as Qwen2.5-VL does; Qwen3-VL answers from 0 to 1000."""
    for recipe in RECIPES:
        given = yaml.safe_load(recipe_path(recipe).read_text())
        if any(name in path for path in given.get("reward_funcs", []) for name in ("iou", "detection", "point")):
            assert "Qwen2.5-VL" in given["model_name_or_path"] or recipe.startswith("quickstart"), recipe


@pytest.mark.parametrize("recipe", [name for name in RECIPES if method_of(name) == "grpo"])
def test_the_options_of_a_recipe_are_known(recipe):
    from trl_onevision.grpo.options import Options

    env = yaml.safe_load(recipe_path(recipe).read_text()).get("env", {})
    if "TRL_ONEVISION" in env:
        Options.parse(str(env["TRL_ONEVISION"]))


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_opens_with_what_it_does_how_to_run_it_and_on_what(recipe):
    header = recipe_path(recipe).read_text().split("\n\n")[0]
    assert summary(recipe_path(recipe)).endswith(".")
    assert f"trl {method_of(recipe)} --config {recipe}.yaml" in header
    assert "Override" in header
    assert "Hardware:" in header


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_page_names_every_recipe(recipe):
    page = Path(__file__).parents[1] / "docs" / "recipes.md"
    assert f"`{recipe}`" in page.read_text()


def test_recipes_lists_each_with_one_line_whole_in_a_pipe_and_cut_in_a_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    piped = CliRunner().invoke(app, ["recipes"])
    assert piped.exit_code == 0
    assert [line.split("  ")[0] for line in piped.output.splitlines()] == RECIPES
    assert all(line.endswith(summary(recipe_path(line.split()[0]))) for line in piped.output.splitlines())

    monkeypatch.setenv("FORCE_COLOR", "1")  # what rich takes for a terminal
    shown = CliRunner().invoke(app, ["recipes"]).output.splitlines()
    assert [line.split("  ")[0] for line in shown] == RECIPES
    assert all(len(line) <= 80 for line in shown) and any(line.endswith("…") for line in shown)


def test_recipes_prints_one_as_it_is():
    result = CliRunner().invoke(app, ["recipes", "quickstart-sft"])
    assert result.output == (recipe_folder() / "quickstart-sft.yaml").read_text()


def test_recipes_copies_one_and_overwrites_nothing(tmp_path):
    target = tmp_path / "new" / "mine.yaml"
    assert CliRunner().invoke(app, ["recipes", "quickstart-grpo", "--output", str(target)]).exit_code == 0
    assert target.read_text() == recipe_path("quickstart-grpo").read_text()

    target.write_text("mine: 1\n")
    result = CliRunner().invoke(app, ["recipes", "quickstart-grpo", "--output", str(target)])
    assert result.exit_code == 1
    assert "holds something else" in result.output
    assert target.read_text() == "mine: 1\n"


def test_a_recipe_that_cannot_be_written_is_an_error_in_a_line(tmp_path):
    (tmp_path / "notes").write_text("mine")
    target = tmp_path / "notes" / "mine.yaml"
    result = CliRunner().invoke(app, ["recipes", "quickstart-grpo", "--output", str(target)])
    assert result.exit_code == 1
    assert result.output.startswith("Error: ") and str(tmp_path / "notes") in result.output


def test_an_unknown_recipe_names_the_known_ones():
    result = CliRunner().invoke(app, ["recipes", "quickstart-grop"])
    assert result.exit_code == 1
    assert "Did you mean quickstart-grpo?" in result.output
    assert all(recipe in result.output for recipe in RECIPES)


def test_the_server_of_the_page_has_the_flags_that_trl_asks_for():
    page = (Path(__file__).parents[1] / "docs" / "recipes.md").read_text()
    (line,) = re.findall(r"^VLLM_SERVER_DEV_MODE=1 (vllm serve .*?)\ntrl", page.replace("\\\n", ""), re.M)
    command = build_command(ScriptArguments("Qwen/Qwen2.5-VL-3B-Instruct"))
    asked = command[command.index("--weight-transfer-config") :]
    assert shlex.split(line)[:3] == ["vllm", "serve", "Qwen/Qwen2.5-VL-3B-Instruct"]
    assert {*shlex.split(line)[3:]} == {*asked, "--enable-scale-out"}
