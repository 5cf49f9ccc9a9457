"""The door of `trl grpo`, and the options that go through it."""

from __future__ import annotations

import inspect
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny
import yaml
from datasets import load_dataset
from trl import GRPOConfig, GRPOTrainer, TrlParser

from trl_onevision import OneVisionGRPOConfig, OneVisionGRPOTrainer, requested
from trl_onevision.grpo.activate import activate, deactivate
from trl_onevision.grpo.options import Options
from trl_onevision.grpo.signatures import SIGNATURES, check_signatures

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def undone() -> Iterator[None]:
    yield
    deactivate()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([], ("auto", "auto", True, None)),
        (["--share_prompt", "true", "--loss", "liger"], ("true", "liger", True, None)),
        (["--share_prompt", "False", "--skip_zero_advantages", "false"], ("false", "auto", False, None)),
        (["--freeze", "vision"], ("auto", "auto", True, "vision")),
    ],
)
def test_the_options_are_read_from_a_command_line_too(given: list[str], expected: tuple[Any, ...]) -> None:
    (args,) = TrlParser(OneVisionGRPOConfig).parse_args_and_config([*given, "--bf16", "false", "--use_cpu", "true"])
    assert (args.share_prompt, args.loss, args.skip_zero_advantages, args.freeze) == expected


def test_one_module_may_hold_rewards_and_what_options_name(tmp_path: Path) -> None:
    """Its first line imports this package, which reads the options before the rest of the module is there."""
    lines = ["from trl_onevision.rewards import accuracy_reward", "def damp(groups): ...", "class Board: ..."]
    (tmp_path / "my_own.py").write_text("\n".join(lines))
    for options in ("{advantage: my_own.damp, environment: my_own.Board}", "{advantage: my_own.dump}"):
        code = "import my_own; from trl_onevision.grpo.options import Options; print(Options.of(None).describe())"
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=tmp_path,
            env=os.environ | {"TRL_ONEVISION": options, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
        )
        if "damp" in options:
            assert "advantage='my_own.damp'" in done.stdout, done.stderr
        else:  # said when a trainer reads its options, before a model is loaded
            assert "advantage: 'my_own.dump' cannot be imported: module 'my_own' has no attribute" in done.stderr


def test_activation_is_idempotent_undoable_and_says_so_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    before = dict(vars(GRPOTrainer))
    monkeypatch.setenv("TRL_ONEVISION", str({"share_prompt": True}))
    with caplog.at_level(logging.WARNING):
        activate()
        activate()
    assert [record.getMessage() for record in caplog.records] == [
        "TRL_ONEVISION is set: GRPOTrainer is OneVisionGRPOTrainer, with "
        "share_prompt='true', loss='auto', skip_zero_advantages=True, resample=0."
    ]
    assert isinstance(build(GRPOTrainer, tmp_path), OneVisionGRPOTrainer)

    class Own(GRPOTrainer):
        pass

    caplog.clear()
    assert type(build(Own, tmp_path)) is Own
    assert "TRL_ONEVISION is set, but" in caplog.text
    assert "Own stays as it is: only GRPOTrainer itself is replaced. Derive it from" in caplog.text
    caplog.clear()
    assert isinstance(build(type("Ours", (OneVisionGRPOTrainer,), {}), tmp_path), OneVisionGRPOTrainer)
    assert "stays as it is" not in caplog.text
    deactivate()
    deactivate()
    assert type(build(GRPOTrainer, tmp_path)) is GRPOTrainer
    assert dict(vars(GRPOTrainer)) == before


def build(kind: type, folder: Path) -> Any:
    model, processor = tiny.build("qwen2_5_vl")
    args = GRPOConfig(output_dir=str(folder), bf16=False, use_cpu=True, report_to="none")
    return kind(model, lambda completions, **kwargs: [0.0] * len(completions), args, tiny.dataset(2), None, processor)


@pytest.mark.parametrize(
    "text, message",
    [
        ("{share_promt: true}", "Unknown option 'share_promt' .* share_prompt, loss, skip_zero_advantages"),
        ("{share_prompt: maybe}", "share_prompt must be true or false or 'auto', not 'maybe'"),
        ("{loss: tril}", "loss must be 'auto', 'trl' or 'liger', not 'tril'"),
        ("{skip_zero_advantages: 2}", "skip_zero_advantages must be true or false"),
        ("[share_prompt]", "must be a mapping"),
    ],
)
def test_a_wrong_option_is_named(monkeypatch: pytest.MonkeyPatch, text: str, message: str) -> None:
    stock = GRPOTrainer.__init__
    monkeypatch.setenv("TRL_ONEVISION", text)
    with pytest.raises(ValueError, match=message):
        activate()
    assert GRPOTrainer.__init__ is stock


@pytest.mark.parametrize(
    "given",
    ["{'share_prompt': True, 'skip_zero_advantages': False}", "{share_prompt: true, skip_zero_advantages: no}"],
)
def test_options_arrive_as_trl_exports_them(given: str) -> None:
    assert Options.parse(given) == Options(share_prompt=True, skip_zero_advantages=False)
    for word in ("True", "1", "on", "ON", "yes", "true"):
        assert requested(word)
        assert Options.parse(word) == Options()
    for word in ("False", "0", "off", "no", "None", "null", ""):
        assert not requested(word)


def test_options_that_cannot_hold_together_say_so_before_a_model_is_loaded(tmp_path: Path) -> None:
    clash = {"output_dir": str(tmp_path), "bf16": False, "report_to": "none", "cache_implementation": "static"}
    with pytest.raises(ValueError, match=r"share_prompt: true .* cache_implementation: static"):
        OneVisionGRPOConfig(share_prompt=True, **clash)
    trainer = OneVisionGRPOTrainer.__new__(OneVisionGRPOTrainer)
    os.environ["TRL_ONEVISION"] = "{share_prompt: true}"
    try:
        with pytest.raises(ValueError, match="cache_implementation"):
            trainer.__init__("no/such-model", None, GRPOConfig(**clash))
    finally:
        del os.environ["TRL_ONEVISION"]


def renamed(self: Any, model: Any, batch: Any) -> Any: ...


def requires_more(self: Any, model: Any, inputs: Any, epoch: Any) -> Any: ...


def reordered(self: Any, inputs: Any, model: Any) -> Any: ...


def offers_more(self: Any, model: Any, inputs: Any, *others: Any, epoch: int = 0, **more: Any) -> Any: ...


@pytest.mark.parametrize("change", [renamed, requires_more, reordered, None])
def test_what_trl_requires_and_is_not_given_is_refused_with_the_tested_versions(change: Any) -> None:
    changed = type("Changed", (GRPOTrainer,), {"_compute_loss": change})
    with pytest.raises(RuntimeError, match=r"_compute_loss.*Tested versions of TRL: 1\.16\.0\. Install one"):
        check_signatures(changed)


def test_every_method_of_trls_that_is_overridden_is_checked_and_passes_on_what_it_does_not_know() -> None:
    overridden = {name for name in vars(OneVisionGRPOTrainer) if name.startswith("_") and name in vars(GRPOTrainer)}
    overridden = {name for name in overridden if callable(getattr(GRPOTrainer, name)) and not name.startswith("__")}
    assert overridden <= set(SIGNATURES)
    by_transformers = {"_prepare_inputs", "_compute_loss", "_save_checkpoint", "_load_optimizer_and_scheduler"}
    for name in overridden - by_transformers:
        parameters = inspect.signature(getattr(OneVisionGRPOTrainer, name)).parameters.values()
        assert any(p.kind is p.VAR_KEYWORD for p in parameters), name


def test_what_trl_can_do_without_is_not() -> None:
    check_signatures(GRPOTrainer)
    check_signatures(type("Changed", (GRPOTrainer,), {"_compute_loss": offers_more}))


def recipe(folder: Path, options: dict[str, Any] | None) -> list[str]:
    """A recipe with everything it needs in `folder`, and the command that runs it."""
    model, processor = tiny.build("qwen2_5_vl")
    model.save_pretrained(folder / "model")
    processor.save_pretrained(folder / "model")
    (folder / "data").mkdir()
    tiny.dataset(4).to_parquet(folder / "data" / "train.parquet")
    assert load_dataset(str(folder / "data"), split="train").num_rows == 4
    (folder / "my_rewards.py").write_text(
        "import trl_onevision\n\n\n"
        "def length(completion_ids, **kwargs):\n"
        "    return [sum(ids) % 17 / 17 for ids in completion_ids]\n"
    )
    settings: dict[str, Any] = {
        "model_name_or_path": "model",
        "dataset_name": "data",
        "reward_funcs": ["my_rewards.length"],
        "output_dir": "out",
        "max_steps": 2,
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 1,
        "num_generations": 4,
        "max_completion_length": 8,
        "use_cpu": True,
        "bf16": False,
        "report_to": "none",
        "save_strategy": "no",
        "logging_steps": 1,
    }
    if options is not None:
        settings["env"] = {"TRL_ONEVISION": options}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(settings))
    return [str(Path(sys.executable).with_name("trl")), "grpo", "--config", "recipe.yaml"]


@pytest.mark.parametrize("options", [{"share_prompt": True}, None], ids=["asked for", "not asked for"])
def test_trl_grpo_trains_with_the_recipe_alone(tmp_path: Path, options: dict[str, Any] | None) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "TRL_ONEVISION"}
    environment |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    run = subprocess.run(
        recipe(tmp_path, options), cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
    )
    assert run.returncode == 0, run.stderr[-2000:]
    said = "GRPOTrainer is OneVisionGRPOTrainer, with share_prompt='true'" in run.stderr
    assert said == (options is not None)
    assert "Training completed" in run.stdout
    # The attention this package registers is no part of what is saved.
    assert "shared_prompt" not in (tmp_path / "out" / "config.json").read_text()
