"""What a training run with an engine shows: the prompts on both sides, and how far log-probabilities are apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from trl import GRPOConfig, GRPOTrainer

STOCK: dict[str, Any] = {"kind": GRPOTrainer, "config": GRPOConfig, "options": {}}
EPOCHS: dict[str, Any] = {
    "per_device_train_batch_size": 8,
    "gradient_accumulation_steps": 1,
    "num_train_epochs": 3,
    "lr_scheduler_type": "constant",
}
LARGEST = "sampling/sampling_logp_difference/max"
RATIO = "sampling/importance_sampling_ratio"


@dataclass
class Run:
    """What a training run showed: prompts as trained on and as the engine saw them, and the log of each step."""

    sent: list[list[list[int]]]
    seen: list[list[list[int]]]
    log: list[dict[str, float]]

    @property
    def largest(self) -> list[float]:
        """The largest difference of a sampled and a trained log-probability after each generation."""
        return [step[LARGEST] for step in self.log if LARGEST in step]


def run(trainer: Any) -> Run:
    """Train, and note on the way what is sent and seen."""
    sent: list[list[list[int]]] = []
    score = trainer._generate_and_score_completions

    def noted(rows: Any) -> Any:
        scored = score(rows)
        pairs = zip(scored["prompt_ids"], scored["prompt_mask"], strict=True)
        sent.append([ids[mask.bool()].tolist() for ids, mask in pairs])
        return scored

    trainer._generate_and_score_completions = noted
    trainer.train()
    seen = [
        [list(answer.prompt_token_ids) for answer in answers for _ in answer.outputs]
        for answers in trainer.engines.answers
    ]
    return Run(sent, seen, [step for step in trainer.state.log_history if "loss" in step])


def ratios(step: dict[str, float]) -> list[float]:
    """The least and the largest ratio that TRL logs, where it logs them."""
    return [step[name] for name in (f"{RATIO}/min", f"{RATIO}/max") if name in step]
