"""The loss inside a trainer: TRL's own `_compute_loss` against the definition, and against the fused head."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from peft import LoraConfig
from problems import CASES, distance
from trl import GRPOTrainer

from trl_onevision.grpo.loss import reference
from trl_onevision.grpo.loss.head import LigerLoss, fused_loss, loss_options
from trl_onevision.grpo.loss.reference import TokenBatch, sequence_weights
from trl_onevision.grpo.options import OneVisionGRPOConfig
from trl_onevision.grpo.trainer import OneVisionGRPOTrainer

LENGTHS = (9, 0, 4, 1)  # the second completion is masked out, as mask_truncated_completions does
SHAPE = (len(LENGTHS), 5, max(LENGTHS))


def trainer_of(make: Any, case: dict[str, Any], **args: Any) -> GRPOTrainer:
    trainer = make(steps_per_generation=4, **case, **args)
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = trainer.args.gradient_accumulation_steps
    return trainer


def inputs_of(trainer: GRPOTrainer, on_policy: bool = False, is_ratio: str | None = None) -> dict[str, torch.Tensor]:
    """A micro-batch as `_generate_and_score_completions` gives it, off policy enough to be clipped here and there."""
    generator = torch.Generator().manual_seed(1)
    B, P, T = SHAPE
    steps = torch.arange(T)
    inputs = {
        "prompt_ids": torch.randint(20, 260, (B, P), generator=generator),
        "prompt_mask": torch.ones(B, P, dtype=torch.long),
        "completion_ids": torch.randint(20, 260, (B, T), generator=generator),
        "completion_mask": (steps < torch.tensor(LENGTHS)[:, None]).long(),
        "advantages": torch.randn(B, generator=generator),
        "num_items_in_batch": torch.tensor(23),
    }
    inputs["prompt_mask"][2, :2] = 0
    with torch.no_grad():
        logps_BT, _, _ = trainer._get_per_token_logps_and_entropies(
            trainer.model,
            torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], dim=1),
            torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], dim=1),
            T,
        )
    if not on_policy:
        inputs["old_per_token_logps"] = logps_BT + 0.3 * torch.randn(B, T, generator=generator)
    if trainer.beta != 0.0:
        inputs["ref_per_token_logps"] = logps_BT + 0.3 * torch.randn(B, T, generator=generator)
    if is_ratio is not None:
        trainer.use_vllm = trainer.vllm_importance_sampling_correction = True
        ratio = torch.rand((B, T) if is_ratio == "token" else (B, 1), generator=generator) + 0.5
        # TRL's ratio is one wherever there is no token
        inputs["importance_sampling_ratio"] = (
            torch.where(inputs["completion_mask"].bool(), ratio, 1.0) if is_ratio == "token" else ratio
        )
    return inputs


def gradients_of(trainer: GRPOTrainer, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    trainer.model.zero_grad()
    loss.backward()
    return {name: p.grad for name, p in trainer.model.named_parameters() if p.grad is not None and p.grad.any()}


def defined_loss(trainer: GRPOTrainer, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """The definition on the hidden states of the scored tokens, with the batch written out."""
    options = loss_options(trainer.args)
    mask_BT = inputs["completion_mask"].bool()
    hidden = trainer.model.base_model(
        input_ids=torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], dim=1),
        attention_mask=torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], dim=1),
    ).last_hidden_state[:, -1 - mask_BT.size(1) : -1]
    ratio = inputs.get("importance_sampling_ratio")
    batch = TokenBatch(
        lengths_B=torch.tensor(LENGTHS),
        advantages_B=inputs["advantages"],
        weights_B=sequence_weights(
            options.loss_type,
            torch.tensor(LENGTHS),
            accumulation_steps=2,
            max_completion_length=16,
            window_tokens=23 * 2 / 4,
        ),
        old_logps_N=inputs["old_per_token_logps"][mask_BT] if "old_per_token_logps" in inputs else None,
        ref_logps_N=inputs["ref_per_token_logps"][mask_BT] if "ref_per_token_logps" in inputs else None,
        is_ratio=ratio if ratio is None or ratio.size(1) == 1 else ratio[mask_BT],
    )
    head = trainer.model.get_output_embeddings()
    labels_N = inputs["completion_ids"][mask_BT]
    return reference.grpo_loss(hidden[mask_BT], head.weight, head.bias, labels_N, batch, options).loss


def assert_all_agree(make: Any, case: dict[str, Any], **kind: Any) -> None:
    trainer = trainer_of(make, case)
    inputs = inputs_of(trainer, **kind)
    stock = trainer._compute_loss(trainer.model, inputs)
    expected, metrics = gradients_of(trainer, stock), dict(trainer._metrics["train"])
    assert expected
    # vespo exponentiates sums over a sequence, and its rounding with them
    tolerance = 1e-4 if trainer.loss_type == "vespo" else 1e-5

    defined = defined_loss(trainer, inputs)
    assert defined.item() == pytest.approx(stock.item(), rel=tolerance, abs=1e-6)
    assert_same_gradients(gradients_of(trainer, defined), expected)

    trainer._metrics["train"].clear()
    liger_loss = LigerLoss(trainer, trainer.model)
    fused = liger_loss.compute(functools.partial(GRPOTrainer._compute_loss, trainer), trainer.model, inputs)
    assert fused.item() == pytest.approx(stock.item(), rel=tolerance, abs=1e-6)
    assert_same_gradients(gradients_of(trainer, fused), expected)
    assert trainer._metrics["train"].keys() == metrics.keys()
    for name, values in metrics.items():
        assert trainer._metrics["train"][name] == pytest.approx(values, abs=1e-5, nan_ok=True), name


def assert_same_gradients(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    largest = max(gradient.norm() for gradient in expected.values())
    for name, gradient in expected.items():
        # Below a millionth of the largest gradient is rounding, such as that of a bias the softmax cancels
        if gradient.norm() > 1e-6 * largest:
            assert distance(found[name], gradient) < 1e-4, name


@pytest.mark.parametrize("case", CASES)
def test_trl_the_definition_and_the_fused_head_agree(make, case):
    assert_all_agree(make, CASES[case])


@pytest.mark.parametrize("loss_type", ["grpo", "cispo", "vespo"])
def test_they_agree_on_policy(make, loss_type):
    assert_all_agree(make, {"loss_type": loss_type}, on_policy=True)


@pytest.mark.parametrize("is_ratio", ["token", "sequence"])
@pytest.mark.parametrize("case", ["dapo", "sapo", "vespo", "sequence"])
def test_they_agree_with_the_ratio_of_vllm(make, case, is_ratio):
    assert_all_agree(make, CASES[case], is_ratio=is_ratio)


@pytest.mark.parametrize("loss_type", ["grpo", "dapo"])
def test_they_agree_in_evaluation(make, loss_type):
    trainer = trainer_of(make, {"loss_type": loss_type})
    inputs = inputs_of(trainer)
    liger_loss = LigerLoss(trainer, trainer.model)
    trainer.model.eval()
    with torch.no_grad():
        stock = trainer._compute_loss(trainer.model, inputs)
        compute = functools.partial(GRPOTrainer._compute_loss, trainer)
        assert liger_loss.compute(compute, trainer.model, inputs).item() == pytest.approx(stock.item(), rel=1e-5)


def test_a_head_in_fp32_under_bf16_stays_in_fp32(make):
    trainer = trainer_of(make, {"loss_type": "dapo"}, cast_lm_head_to_fp32=True)
    inputs = inputs_of(trainer)
    compute = functools.partial(GRPOTrainer._compute_loss, trainer)
    liger_loss = LigerLoss(trainer, trainer.model)
    with torch.autocast("cpu", torch.bfloat16):
        stock = trainer._compute_loss(trainer.model, inputs)
        expected = gradients_of(trainer, stock)
        fused = liger_loss.compute(compute, trainer.model, inputs)
    # The same bf16 hidden states on both sides: what differs is the head, which in bf16 would differ by 1e-3
    assert fused.item() == pytest.approx(stock.item(), rel=1e-5)
    gradients = gradients_of(trainer, fused)
    assert distance(gradients["lm_head.weight"], expected["lm_head.weight"]) < 1e-4


@pytest.mark.parametrize("case", ["grpo", "kl", "vespo", "sequence"])
def test_packed_rows_and_rows_left_out(make, case):
    """Two completions of each of two prompts, one of them without advantage."""

    def loss_and_gradients(loss: str) -> tuple[float, dict[str, torch.Tensor]]:
        options = {"loss": loss, "share_prompt": True}
        kind = {"kind": OneVisionGRPOTrainer, "config": OneVisionGRPOConfig, "options": options}
        trainer = trainer_of(make, CASES[case], **kind)
        inputs = inputs_of(trainer)
        for name in ("prompt_ids", "prompt_mask"):
            inputs[name] = inputs[name][[0, 0, 1, 1]]
        inputs["completion_mask"][1] = 1
        inputs["advantages"][2] = 0.0
        found = trainer._compute_loss(trainer.model, inputs)
        return found.item(), gradients_of(trainer, found)

    (stock, expected), (fused, gradients) = loss_and_gradients("trl"), loss_and_gradients("liger")
    assert fused == pytest.approx(stock, rel=1e-4, abs=1e-6)
    assert_same_gradients(gradients, expected)


@pytest.mark.parametrize("share_prompt", [True, False])
@pytest.mark.parametrize("loss_type", ["grpo", "dapo"])
def test_training_with_liger_is_training_with_trl(make, share_prompt, loss_type):
    def history(loss: str) -> tuple[list[dict[str, float]], torch.Tensor]:
        trainer = make(
            OneVisionGRPOTrainer,
            config=OneVisionGRPOConfig,
            options={"loss": loss, "share_prompt": share_prompt},
            loss_type=loss_type,
            num_iterations=2,
            max_steps=4,
        )
        trainer.train()
        weights = torch.cat([p.detach().flatten() for p in trainer.model.parameters()])
        return trainer.state.log_history[:-1], weights

    (stock, stock_weights), (fused, fused_weights) = history("trl"), history("liger")
    assert any(step["clip_ratio/region_mean"] > 0 for step in stock)
    for ours, theirs in zip(fused, stock, strict=True):
        assert ours.keys() == theirs.keys()
        for name in theirs.keys() - {"step_time"}:
            assert ours[name] == pytest.approx(theirs[name], rel=1e-3, abs=1e-5, nan_ok=True), name
    assert (fused_weights - stock_weights).abs().max() < 1e-4


def test_adapters_train_and_the_frozen_head_does_not(make):
    trainer = make(
        OneVisionGRPOTrainer,
        config=OneVisionGRPOConfig,
        options={"loss": "liger", "share_prompt": True},
        peft_config=LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights="gaussian"),
        max_steps=1,
    )
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    trainer.train()
    changed = {name for name, p in trainer.model.named_parameters() if not torch.equal(p, before[name])}
    assert changed
    assert all("lora" in name for name in changed)


@pytest.mark.parametrize(
    ("args", "name"),
    [
        ({"entropy_coef": 0.01}, "entropy_coef=0.01"),
        ({"use_adaptive_entropy": True}, "use_adaptive_entropy=True"),
        ({"top_entropy_quantile": 0.2}, "top_entropy_quantile=0.2"),
        ({"off_policy_mask_threshold": 0.5}, "off_policy_mask_threshold=0.5"),
        ({"fp16": True}, "fp16=True"),
        ({"router_aux_loss_coef": 0.01}, "router_aux_loss_coef=0.01"),
        ({"terms": "papo"}, "terms: papo"),
        ({"advantage": "steps"}, "advantage: steps"),
    ],
)
def test_an_option_that_cannot_be_honoured_is_refused_by_name(tmp_path, args, name):
    settings = {"output_dir": str(tmp_path), "report_to": "none", "use_cpu": True, "bf16": False, **args}
    with pytest.raises(ValueError, match=r"loss: liger cannot honour .*set loss: trl") as error:
        OneVisionGRPOConfig(loss="liger", **settings)
    assert name in str(error.value)
    for loss in ("trl", "auto"):
        config = OneVisionGRPOConfig(loss=loss, **settings)
        assert config.refused_by_fused_loss(config)


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("final_logit_softcapping", 30.0, "soft-capped logits"),
        ("logits_scaling", 8.0, "scaled logits"),
        ("logit_scale", 0.5, "scaled logits"),
    ],
)
def test_a_model_that_cannot_be_honoured_is_refused_by_name(make, name, value, says):
    def prepare(model: Any) -> None:
        setattr(model.config.get_text_config(), name, value)

    with pytest.raises(ValueError, match=rf"loss: liger cannot honour {says} \({name}={value}\)"):
        make(OneVisionGRPOTrainer, config=OneVisionGRPOConfig, options={"loss": "liger"}, prepare=prepare)


@pytest.mark.parametrize(
    ("options", "device", "says"),
    [
        ({}, "cpu", None),
        ({}, "cuda", ""),
        ({"loss": "trl"}, "cuda", None),
        ({"entropy_coef": 0.01}, "cuda", "entropy_coef=0.01"),
        ({"off_policy_mask_threshold": 0.5}, "cuda", "off_policy_mask_threshold=0.5"),
    ],
)
def test_by_default_a_gpu_has_the_fused_loss_where_nothing_needs_trls(
    make, monkeypatch, caplog, options, device, says
):
    """`says` is why it has not: empty where it has, None where there is nothing to say."""
    trainer = make(OneVisionGRPOTrainer, config=OneVisionGRPOConfig, options=options)
    monkeypatch.setattr(type(trainer.accelerator), "device", property(lambda self: torch.device(device)))
    caplog.clear()
    assert (fused_loss(trainer, trainer.model) is not None) == (says == "")
    assert bool(says) == bool(caplog.text)
    assert not says or f"As in TRL, the head runs over chunks of the vocabulary ({says}" in caplog.text


def test_tokens_masked_within_a_completion_are_refused(make):
    trainer = trainer_of(make, {"loss_type": "dapo"})
    inputs = inputs_of(trainer)
    inputs["tool_mask"] = inputs["completion_mask"].clone()
    liger_loss = LigerLoss(trainer, trainer.model)
    with pytest.raises(ValueError, match="loss: liger cannot honour tools and environments"):
        liger_loss.compute(functools.partial(GRPOTrainer._compute_loss, trainer), trainer.model, inputs)
    # The trainer is as it was
    assert trainer._compute_loss(trainer.model, inputs).requires_grad


def test_an_adapter_on_the_head_is_refused(make):
    with pytest.raises(ValueError, match="adapter to `lm_head`"):
        make(
            OneVisionGRPOTrainer,
            config=OneVisionGRPOConfig,
            options={"loss": "liger"},
            peft_config=LoraConfig(r=2, target_modules=["q_proj", "lm_head"]),
        )


def test_other_passes_are_left_to_trl(make):
    trainer = trainer_of(make, {"loss_type": "dapo"})
    inputs = inputs_of(trainer)
    ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], dim=1)
    expected = trainer.model(input_ids=ids).logits
    LigerLoss(trainer, trainer.model)
    assert torch.equal(trainer.model(input_ids=ids).logits, expected)
    scored = trainer.model(input_ids=ids, labels=ids, fused_lm_head=True)
    assert scored.log_probs.requires_grad
