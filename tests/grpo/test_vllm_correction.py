"""vLLM's importance-sampling correction without an old-policy pass, against TRL's, which runs one.

The engine is replaced by completions and log-probabilities that are given: what vLLM does with a GPU is not what is
tested, but everything that TRL and this package make of its answer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, ClassVar

import compare
import pytest
import tiny
import torch
from compare import ONE_BATCH, assert_same, update
from tiny import completions
from trl.generation.vllm_generation import VLLMGeneration
from trl.trainer import grpo_trainer

LENGTHS = [5, 9, 3, 16, 7, 7, 12, 1]
OURS: dict[str, Any] = compare.OURS | {"options": {"share_prompt": True, "skip_zero_advantages": False}}
VLLM: dict[str, Any] = {"use_vllm": True, "vllm_mode": "colocate"}


class Engine(VLLMGeneration):
    """Stands where TRL builds vLLM: completions, and log-probabilities near a tiny model's."""

    asked: ClassVar[list[Any]] = []  # the images of each call

    def _init_vllm(self) -> None:
        self.llm = SimpleNamespace(generate=None, llm_engine=SimpleNamespace(reset_encoder_cache=lambda: None))

    def sync_weights(self) -> None:
        pass

    def generate(self, prompts: list[Any], images: Any, num_generations: int, profiler: Any) -> Any:
        Engine.asked.append(images)
        given = (completions(LENGTHS) * 4)[: len(prompts)]
        noise = torch.Generator().manual_seed(1)
        logps = [(-6 + 0.5 * torch.randn(len(ids), generator=noise)).tolist() for ids in given]
        logps[3][2] = None  # what vLLM says of a token it has no number for
        return prompts, given, [[[logp] for logp in row] for row in logps], None


@pytest.fixture(autouse=True)
def engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(grpo_trainer, "VLLMGeneration", Engine)
    Engine.asked = []
    yield


def passes(trainer: Any) -> list[int]:
    """One entry a pass through the language model."""
    seen: list[int] = []
    trainer.model.get_decoder().register_forward_pre_hook(lambda *_: seen.append(1))
    return seen


@pytest.mark.parametrize("mode", ["token_truncate", "token_mask", "sequence_truncate", "sequence_mask"])
@pytest.mark.parametrize("bounds", [{}, {"vllm_importance_sampling_clip_min": 0.2}], ids=["above", "both sides"])
def test_ratio_loss_gradients_and_metrics_are_trls_with_one_pass_less(
    make: Callable[..., Any], mode: str, bounds: dict[str, float]
) -> None:
    settings = {**VLLM, "vllm_importance_sampling_mode": mode, "vllm_importance_sampling_clip_max": 3.0, **bounds}
    ours, stock = make(**OURS, **settings, **ONE_BATCH), make(**settings, **ONE_BATCH)
    counted = passes(ours), passes(stock)
    expected = update(stock)
    assert expected.metrics["sampling/importance_sampling_ratio/max"] > 0
    assert_same(update(ours), expected)
    assert [len(seen) for seen in counted] == [1, 2]


@pytest.mark.parametrize("setting", [{"loss_type": "grpo"}, {"loss_type": "vespo"}, {"beta": 0.1}], ids=str)
def test_the_ratio_reaches_every_term_of_the_loss(make: Callable[..., Any], setting: dict[str, Any]) -> None:
    settings = {**VLLM, **ONE_BATCH, "vllm_importance_sampling_mode": "token_truncate", **setting}
    settings |= {"off_policy_mask_threshold": 0.3}
    assert_same(update(make(**OURS, **settings)), update(make(**settings)))


def test_metrics_are_those_of_the_generation_and_not_of_its_micro_batches(make: Callable[..., Any]) -> None:
    settings = {**VLLM, "per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}
    ours, stock = make(**OURS, **settings), make(**settings)
    assert_same(update(ours), update(stock))
    names = [name for name in stock._metrics["train"] if name.startswith("sampling/")]
    assert len(names) == 5
    for name in names:
        (found,), (expected,) = ours._metrics["train"][name], stock._metrics["train"][name]
        assert found == pytest.approx(expected, abs=1e-5), name


def test_completions_without_advantage_leave_the_pass_and_nothing_becomes_nan(make: Callable[..., Any]) -> None:
    def first_group_only(completion_ids: list[list[int]], **kwargs: Any) -> list[float]:
        return [sum(ids) % 17 / 17 if i < 4 else 1.0 for i, ids in enumerate(completion_ids)]

    settings = {**VLLM, **ONE_BATCH, "rewards": first_group_only, "shuffle_dataset": False}
    ours = make(**{**OURS, "options": {"share_prompt": True}}, **settings)
    stock = make(**settings)
    found = update(ours)
    of_scored = tuple(name for name in found.metrics if name.startswith("sampling/"))
    assert_same(found, update(stock), but=("entropy", *of_scored))
    assert all(math.isfinite(found.metrics[name]) for name in of_scored)


@pytest.mark.parametrize("options", [{"share_prompt": True}, {"share_prompt": True, "loss": "liger"}], ids=str)
def test_a_second_iteration_keeps_the_ratio_of_the_first(make: Callable[..., Any], options: dict[str, Any]) -> None:
    settings = {**VLLM, **ONE_BATCH, "num_iterations": 2, "max_steps": 4, "lr_scheduler_type": "constant"}
    ours = make(**{**OURS, "options": {**options, "skip_zero_advantages": False}}, **settings)
    stock = make(**settings)
    for trainer in (ours, stock):
        trainer.train()
    for log, expected in zip(ours.state.log_history[:-1], stock.state.log_history[:-1], strict=True):
        assert log.keys() == expected.keys()
        for name in ("loss", "grad_norm", "clip_ratio/region_mean"):
            assert log[name] == pytest.approx(expected[name], abs=2e-5), (name, log["step"])


def test_evaluation_corrects_as_trl_does(make: Callable[..., Any]) -> None:
    settings = {**VLLM, "per_device_train_batch_size": 8, "per_device_eval_batch_size": 8}
    results = [
        (trainer := make(**kind, **settings)).evaluate(trainer.train_dataset) | {"trainer": trainer}
        for kind in (OURS, {})
    ]
    names = [name for name in results[1] if "sampling/" in name or name == "eval_loss"]
    assert len(names) == 6
    for name in names:
        assert results[0][name] == pytest.approx(results[1][name], abs=1e-5), name
    assert not any(name.startswith("sampling/") for name in results[0]["trainer"]._metrics["train"])


def test_vllm_gets_the_images_of_every_row(make: Callable[..., Any]) -> None:
    ours, stock = make(**OURS, **VLLM, data=tiny.dataset(2)), make(**VLLM, data=tiny.dataset(2))
    for trainer in (ours, stock):
        trainer.model.train()
        trainer._generate_and_score_completions(next(iter(trainer.get_train_dataloader())))
    found, expected = Engine.asked
    assert len(found) == len(expected) == 8
    for images, those in zip(found, expected, strict=True):
        assert [image.tobytes() for image in images] == [image.tobytes() for image in those]
