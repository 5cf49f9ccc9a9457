"""StepGRPO as the recipe has it: what the trainer pays each completion is what the paper's equations give by hand."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
import yaml
from compare import update
from datasets import Dataset, load_dataset
from trl import SFTConfig, SFTTrainer

from trl_onevision import OneVisionGRPOConfig, OneVisionGRPOTrainer
from trl_onevision.data.convert import Conversion
from trl_onevision.data.prepare import prepare
from trl_onevision.recipes import recipe_path
from trl_onevision.rewards import step_accuracy_reward, step_validity_reward

FIXTURE = Path(__file__).parents[1] / "data" / "fixtures" / "r1_vl.json"
HEAD = "### Image Description:\nSome squares.\n### Rationales:\nCount them.\n### Let's think step by step.\n"

# The fixture asks how many squares two pictures of four hold (8, two key steps), and for a colour (A, one key step).
# completion, StepRAR (1 + 0.1 k, 0.1 k or 0), StepRVR
TABLE = [
    # right, both key steps, complete and in order
    (HEAD + "### Step 1:\nThere are four squares.\n### Step 2:\n2 * 4 = 8\n### The final answer is: 8", 1.1, 1.0),
    # right, one of two key steps, no step 2
    (HEAD + "### Step 1:\nI see four squares.\n### Step 3:\nDouble it.\n### The final answer is: 8", 1.05, 0.0),
    # wrong, both key steps
    (HEAD + "### Step 1:\nFour squares, 2 times 4 equals 8\n### The final answer is: 6", 0.1, 1.0),
    # both key steps and no answer at all
    (HEAD + "### Step 1:\nFour squares.\n### Step 2:\n2 * 4 = 8", 0.0, 0.0),
    # right by letter, the key step in its other wording
    (HEAD + "### Step 1:\nThe squares are red.\n### The final answer is: A", 1.1, 1.0),
    # right with the option's text, no key step
    (HEAD + "### Step 1:\nI look.\n### The final answer is: (A) red", 1.0, 1.0),
    # wrong, the key step, and the answer before the steps
    (HEAD + "### The final answer is: B\n### Step 1:\nThese are red squares.", 0.1, 0.0),
    # right, nothing but a step and the answer
    ("### Step 1:\nI look.\n### The final answer is: A", 1.0, 0.0),
]


@pytest.fixture
def rows(tmp_path: Path) -> Any:
    prepare("r1-vl", tmp_path / "data", source=str(FIXTURE), conversion=Conversion(purpose="grpo"))
    return load_dataset(str(tmp_path / "data"), split="train")


def test_the_recipe_pays_what_the_equations_give(make: Callable[..., Any], rows: Any) -> None:
    recipe = yaml.safe_load(recipe_path("r1-vl-2b-grpo").read_text())
    paths = [path.rsplit(".", 1) for path in recipe["reward_funcs"]]
    _, processor = tiny.build("qwen2_vl")
    end = processor.tokenizer.eos_token_id
    trainer = make(
        kind=OneVisionGRPOTrainer,
        config=OneVisionGRPOConfig,
        family="qwen2_vl",
        data=rows,
        given=[[*processor.tokenizer(text)["input_ids"], end] for text, _, _ in TABLE],
        rewards=[getattr(importlib.import_module(module), name) for module, name in paths],
        num_generations=recipe["num_generations"],
        temperature=recipe["temperature"],
        loss_type=recipe["loss_type"],
        max_completion_length=256,
        per_device_train_batch_size=8,
        gradient_accumulation_steps=1,
        shuffle_dataset=False,
        scale_rewards="group",
    )
    window = update(trainer)

    assert [message["content"] for (message,) in trainer._logs["completion"]] == [text for text, _, _ in TABLE]
    paid = trainer._logs["rewards"]
    assert list(paid["step_accuracy_reward"]) == pytest.approx([accuracy for _, accuracy, _ in TABLE])
    assert list(paid["step_validity_reward"]) == [validity for _, _, validity in TABLE]
    # r = r_auc + r_val, and the group's mean and deviation make the advantage
    total = torch.tensor([accuracy + validity for _, accuracy, validity in TABLE]).view(2, 4)
    expected = (total - total.mean(1, keepdim=True)) / (total.std(1, keepdim=True) + 1e-4)
    assert list(trainer._logs["advantages"]) == pytest.approx(expected.flatten().tolist(), abs=1e-4)
    assert window.metrics["reward"] == pytest.approx(total.mean().item())
    assert any(gradient is not None and gradient.any() for gradient in window.gradients.values())


OPENING = "### Image Description:\nSquares.\n### Rationales:\nCount.\n"
WARM_UP = [  # row, how often, completion: a quarter of what the warm-up teaches is right and in order
    (0, 2, OPENING + "### Step 1:\nFour squares.\n### Step 2:\n2 * 4 = 8\n### The final answer is: 8"),
    (0, 6, "### Rationales:\nCount.\n### Step 1:\nMany.\n### The final answer is: 6"),
    (1, 2, OPENING + "### Step 1:\nRed squares.\n### The final answer is: A"),
    (1, 6, "### Step 1:\nI look.\n### The final answer is: B"),
]


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_step_rewards_rise_over_a_run(tmp_path: Path, seed: int) -> None:
    """Warm-up, then StepGRPO, of a model that starts at random; the plain prompt keeps its bytes few."""
    plain = Conversion(purpose="grpo", prompt="plain")
    prepare("r1-vl", tmp_path / "data", source=str(FIXTURE), conversion=plain)
    rows = load_dataset(str(tmp_path / "data"), split="train")
    worked = [
        {
            "prompt": rows[row]["prompt"],
            "images": rows[row]["images"],
            "completion": [{"role": "assistant", "content": [{"type": "text", "text": text}]}],
        }
        for row, copies, text in WARM_UP
        for _ in range(copies)
    ]
    model, processor = tiny.build("qwen2_5_vl", hidden=64)
    settings = {
        "report_to": "none",
        "use_cpu": True,
        "bf16": False,
        "save_strategy": "no",
        "disable_tqdm": True,
        "gradient_checkpointing": False,
        "logging_steps": 1,
        "seed": seed,
    }
    SFTTrainer(
        model,
        args=SFTConfig(
            output_dir=str(tmp_path / "sft"),
            per_device_train_batch_size=8,
            max_steps=250,
            learning_rate=3e-3,
            lr_scheduler_type="cosine",
            max_length=None,
            **settings,
        ),
        train_dataset=Dataset.from_list(worked),
        processing_class=processor,
    ).train()
    trainer = OneVisionGRPOTrainer(
        model,
        reward_funcs=[step_accuracy_reward, step_validity_reward],
        args=OneVisionGRPOConfig(
            output_dir=str(tmp_path / "grpo"),
            per_device_train_batch_size=32,
            gradient_accumulation_steps=1,
            num_generations=16,
            max_completion_length=160,
            max_steps=40,
            learning_rate=1.5e-4,
            lr_scheduler_type="constant",
            loss_type="grpo",
            **settings,
        ),
        train_dataset=rows,
        processing_class=processor,
    )
    trainer.train()
    for reward in ("step_accuracy_reward", "step_validity_reward"):
        means = [entry[f"rewards/{reward}/mean"] for entry in trainer.state.log_history if "reward" in entry]
        assert len(means) == 40
        # Most is learnt within ten steps: the start is what comes before that
        start, end = sum(means[:5]) / 5, sum(means[-20:]) / 20
        assert end > start + 0.1, f"{reward}: {means}"
