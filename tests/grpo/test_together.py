"""Options beside each other and beside TRL's own, over steps that move the weights: as TRL with the factor by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import tiny
import torch
from compare import OURS
from peft import LoraConfig
from tiny import completions, mixed
from trl import GRPOTrainer

from trl_onevision.grpo import shaping
from trl_onevision.grpo.groups import gather_groups
from trl_onevision.grpo.options import Options

LENGTHS = [5, 9, 3, 16, 7, 7, 12, 1, 4, 8, 15, 2, 6, 3, 9, 11]
NAMES = ["observe", "odsw-hard", "stcr"]


def right(completion_ids: list[list[int]], **columns: Any) -> list[float]:
    return [float(len(ids) % 2) for ids in completion_ids]


def other(completion_ids: list[list[int]], **columns: Any) -> list[float | None]:
    """Says nothing of completions of seven tokens."""
    return [None if len(ids) == 7 else sum(ids) % 7 / 7 for ids in completion_ids]


class ByHand(GRPOTrainer):
    """TRL's trainer, whose advantages are multiplied by the factors after the fact."""

    options = Options(correct="right")

    def _calculate_rewards(self, inputs: Any, prompts: Any, completions: Any, ids: Any) -> Any:
        rewards = super()._calculate_rewards(inputs, prompts, completions, ids)
        self.groups = gather_groups(self, inputs, ids, rewards)
        return rewards

    def _generate_and_score_completions(self, inputs: Any) -> Any:
        scored = super()._generate_and_score_completions(inputs)
        for name in NAMES:
            scored["advantages"] = scored["advantages"] * shaping.find(name)(self.groups)
        return scored


SETTINGS: dict[str, Any] = {
    "given": completions(LENGTHS, truncated=(3, 10)),
    "rewards": [right, other],
    "reward_weights": [1.0, 0.5],
    # One micro-batch, since TRL shuffles rows and this trainer groups
    "per_device_train_batch_size": 16,
    "gradient_accumulation_steps": 1,
    "max_steps": 4,
    "optim": "sgd",
    "lr_scheduler_type": "constant",
    "max_grad_norm": 0.0,
}
ALL: dict[str, Any] = {
    "multi_objective_aggregation": "normalize_then_sum",
    "mask_truncated_completions": True,
    "num_iterations": 2,
    "beta": 0.1,
}
BESIDE: dict[str, dict[str, Any]] = {
    "all": ALL,
    "batch": {**ALL, "multi_objective_aggregation": "sum_then_normalize", "scale_rewards": "batch"},
    "sequence": {**ALL, "importance_sampling_level": "sequence", "loss_type": "grpo", "use_bias_correction_kl": True},
    "entropies": {**ALL, "entropy_coef": 0.1, "top_entropy_quantile": 0.5},
}


def train(make: Callable[..., Any], lora: bool, **settings: Any) -> tuple[Any, list[torch.Tensor]]:
    """A trained trainer, and how far each of its weights went."""
    torch.manual_seed(0)
    adapter = LoraConfig(r=4, lora_dropout=0.0, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    trainer = make(peft_config=adapter if lora else None, **SETTINGS, **settings)
    before = [parameter.detach().clone() for parameter in trainer.model.parameters()]
    trainer.train()
    return trainer, [p.detach() - b for p, b in zip(trainer.model.parameters(), before, strict=True)]


def assert_same(ours: tuple[Any, list[torch.Tensor]], expected: tuple[Any, list[torch.Tensor]]) -> None:
    """The same way of each weight, and the same log."""
    assert max(moved.norm() for moved in expected[1]) > 1e-2, "a comparison of nothing"
    for one, moved in zip(ours[1], expected[1], strict=True):
        assert (one - moved).norm() < max(2e-3 * moved.norm(), 1e-6)
    for one, log in zip(ours[0].state.log_history[:-1], expected[0].state.log_history[:-1], strict=True):
        assert one.keys() == log.keys()
        for name in log:
            assert "time" in name or one[name] == pytest.approx(log[name], rel=1e-3, abs=2e-4, nan_ok=True), name


@pytest.mark.parametrize(
    ("beside", "loss", "lora"),
    [
        ("all", "trl", True),
        ("all", "liger", True),
        ("batch", "liger", False),
        ("sequence", "trl", False),
        ("sequence", "liger", True),
        ("entropies", "trl", True),
    ],
)
def test_factors_beside_trls_options_train_as_trl_with_the_factors_by_hand(
    make: Callable[..., Any], beside: str, loss: str, lora: bool
) -> None:
    options = {"share_prompt": True, "advantage": NAMES, "correct": "right", "loss": loss}
    settings = {"data": tiny.dataset(8), "learning_rate": 0.5, **BESIDE[beside]}
    ours = train(make, lora, **{**OURS, "options": options}, **settings)
    assert_same(ours, train(make, lora, kind=ByHand, **settings))


@pytest.mark.parametrize("family", ["qwen2_5_vl", "internvl"])
@pytest.mark.parametrize("lora", [False, True])
def test_terms_on_text_beside_images_are_those_of_rows_that_are_not_packed(
    make: Callable[..., Any], family: str, lora: bool
) -> None:
    papo = {"gamma": 0.3, "mask": 1.0, "detach": False, "eta": 0.05, "eta_masked": 0.02}
    options = {"advantage": NAMES, "correct": "right", "terms": {"papo": papo, "dads": None}}
    settings = {"data": mixed(0, 1, 2, 0, 1, 0, 0, 0), "family": family, "learning_rate": 0.1, **BESIDE["batch"]}
    packed, apart = (
        train(make, lora, **{**OURS, "options": {**options, "share_prompt": share}}, **settings)
        for share in (True, False)
    )
    assert packed[0]._sharing.scoring is None and apart[0]._sharing.scoring is not None
    assert max(log["papo/kl"] for log in packed[0].state.log_history[:-1]) > 1e-4
    assert_same(packed, apart)
