"""Trainers that differ only in their class, on the same rows and the same completions."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from trl import GRPOConfig, GRPOTrainer

sys.path.append(str(Path(__file__).parent))

import tiny
from tiny import Given, reward


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Builds a trainer of the given class around a tiny model of a family."""
    monkeypatch.delenv("TRL_ONEVISION", raising=False)

    def make(
        kind: type = GRPOTrainer,
        family: str = "qwen2_5_vl",
        given: list[list[int]] | None = None,
        data: Any = None,
        options: dict[str, Any] | None = None,
        config: type = GRPOConfig,
        prepare: Callable[[Any], None] = lambda model: None,
        peft_config: Any = None,
        rewards: Any = reward,
        build: dict[str, Any] | None = None,
        template: str | None = None,
        environment_factory: Any = None,
        **args: Any,
    ) -> Any:
        model, processor = tiny.build(family, **(build or {}))
        processor.chat_template = template or processor.chat_template
        if args.get("beta"):
            model.save_pretrained(tmp_path / family)
            model.config._name_or_path = str(tmp_path / family)
        prepare(model)
        settings = {
            "per_device_train_batch_size": 4,
            "gradient_accumulation_steps": 2,
            "num_generations": 4,
            "max_completion_length": 16,
            "learning_rate": 1e-3,
            "output_dir": str(tmp_path / "out"),
            "report_to": "none",
            "use_cpu": True,
            "bf16": False,
            "logging_steps": 1,
            "save_strategy": "no",
            "disable_tqdm": True,
            "gradient_checkpointing": False,
        }
        if given is not None:
            kind = type(kind.__name__, (Given, kind), {"completions": given})
        return kind(
            model,
            reward_funcs=rewards,
            args=config(**{**settings, **args}, **(options or {})),
            train_dataset=data if data is not None else tiny.dataset(2),
            processing_class=processor,
            peft_config=peft_config,
            environment_factory=environment_factory,
        )

    return make
