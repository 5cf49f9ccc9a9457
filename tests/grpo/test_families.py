"""Every family that packs or prefills gives the numbers of TRL and transformers, on a small model."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
import transformers
import zoo
from compare import ONE_BATCH, OURS, assert_same, logps, update
from packaging.version import Version
from tiny import completions
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from trl_onevision.grpo import families, shared_prompt
from trl_onevision.grpo.rollout import Prompts, prefill_once

P, LENGTHS = 24, [9, 5, 3, 8, 2, 9, 1, 4]
T = max(LENGTHS)
# What configs of some families ask for, small
SMALL = {
    "head_dim": 8,
    "moe_intermediate_size": 32,
    "num_experts": 4,
    "n_routed_experts": 4,
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
    "n_group": 1,
    "topk_group": 1,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
    "first_k_dense_replace": 1,
    "n_shared_experts": 1,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "query_pre_attn_scalar": 8,
}
OWN: dict[str, dict[str, Any]] = {
    "deepseek_v3": {"num_key_value_heads": 4},
    "gemma4_text": {"vocab_size_per_layer_input": 384, "hidden_size_per_layer_input": 8},
    "lfm2": {"block_auto_adjust_ff_dim": False},
}
# The others are tested below, inside the families that look
ALONE = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
KINDS = {"lfm2": "conv", "qwen3_5_text": "linear_attention", "qwen3_next": "linear_attention"}


def language_model(family: str, slides: bool = False) -> Any:
    """A random language model of two layers in fp32; where it `slides`, one of a window smaller than the prompt."""
    try:
        default = AutoConfig.for_model(family)
    except (KeyError, ValueError):
        pytest.skip(f"this transformers has no {family}")
    own = {key: value for key, value in SMALL.items() if vars(default).get(key) is not None}
    text = {**zoo.text(32, 2, 384, tiny.tokenizer()), **own, **OWN.get(family, {})}
    if slides:
        text |= {"layer_types": [KINDS.get(family, "sliding_attention"), "full_attention"], "sliding_window": 8}
    elif getattr(default, "sliding_window", None):
        text["sliding_window"] = None
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **text)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.08)
            elif name.endswith("bias"):
                parameter.normal_(std=0.02)
    return model


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    """Two prompts, one of them shorter, with four completions each: token ids and mask (8, P + T)."""
    generator = torch.Generator().manual_seed(1)
    prompts = torch.randint(20, 260, (2, P), generator=generator).repeat_interleave(4, 0)
    ids = torch.cat([prompts, torch.randint(20, 260, (8, T), generator=generator)], dim=1)
    mask = torch.ones_like(ids)
    mask[4:, :5] = 0
    for row, length in enumerate(LENGTHS):
        mask[row, P + length :] = 0
    return ids, mask


@pytest.mark.parametrize("family", [name for name in families.PACKED_LANGUAGE if name in ALONE])
@torch.no_grad()
def test_a_language_model_scores_a_packed_row_as_its_copies(
    family: str, batch: tuple[torch.Tensor, torch.Tensor]
) -> None:
    ids, mask = batch
    model = language_model(family)
    assert families._why_not_packed(model) is None

    def scores(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return logits.log_softmax(-1).gather(-1, labels.clamp(min=0)[..., None])[..., 0]

    expected = scores(model(input_ids=ids, attention_mask=mask).logits[:, P - 1 : -1], ids[:, P:])
    shared_prompt.enable(model)
    row = shared_prompt.pack(mask[:, :P].sum(1).tolist(), LENGTHS, [0] * 4 + [4] * 4, P, T)
    positions = shared_prompt.prompt_positions(model, ids[[0, 4], :P], mask[[0, 4], :P], None, None)
    logits = model(
        input_ids=ids.flatten()[row.token_L][None],
        attention_mask=mask.new_zeros(1, 1, 1, 1),
        position_ids=row.position_ids(positions),
        shared_prompt=row.groups,
    ).logits
    found = row.unpack(scores(logits, row.labels(ids[:, P:])), torch.Size([8, T]))
    assert ((found - expected) * mask[:, P:]).abs().max() < 1e-5


@pytest.mark.filterwarnings("error:.*past_key_values")
@pytest.mark.parametrize("family", [name for name in families.PREFILLED_LANGUAGE if name in ALONE])
@torch.no_grad()
def test_a_language_model_goes_on_from_one_prefill(family: str, batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    ids, mask = (x[:, :P] for x in batch)
    model = language_model(family, slides=family not in families.PACKED_LANGUAGE)
    arguments = {
        "input_ids": ids,
        "attention_mask": mask,
        "generation_config": GenerationConfig(
            max_new_tokens=6, do_sample=False, eos_token_id=None, output_logits=True, return_dict_in_generate=True
        ),
    }
    expected = model.generate(**arguments)
    rows, seen = [0] * 4 + [1] * 4, []
    hook = model.get_decoder().register_forward_pre_hook(
        lambda module, args, kwargs: seen.append((args[0] if args else kwargs["input_ids"]).shape), with_kwargs=True
    )
    with prefill_once(model, Prompts(rows, ids[[0, 4]].tolist(), None, {}, {}, every_copy=False)):
        found = model.generate(**arguments)
    hook.remove()
    assert seen == [(2, P - 1)] + [(8, 1)] * 6
    assert torch.equal(found.sequences, expected.sequences)
    assert (torch.stack(found.logits) - torch.stack(expected.logits)).abs().max() < 1e-4


def test_every_name_is_tested_alone_or_inside_a_family_that_looks() -> None:
    inside = {tiny.build(family)[0].config.get_text_config().model_type for family in families.PREFILLED_VISION}
    known = [name for name in families.PREFILLED_LANGUAGE if name in CONFIG_MAPPING_NAMES]  # to this transformers
    assert [name for name in known if name not in (*ALONE, *inside)] == []


def dynamic(model: Any) -> None:
    model.config.rope_parameters["rope_type"] = "dynamic"


@pytest.mark.parametrize(
    "family, prepare, reason",
    [
        ("mistral", lambda model: setattr(model.config, "sliding_window", 8), "layers of sliding_attention do not"),
        ("qwen3_5_text", lambda model: None, "layers of linear_attention do not attend to the whole prompt"),
        ("llama", dynamic, "rotary positions of type 'dynamic' change"),
        ("stablelm", lambda model: None, "'stablelm' is not among the language models tested for it"),
    ],
    ids=["window", "linear", "dynamic positions", "not known"],
)
def test_what_does_not_pack_says_why(family: str, prepare: Callable[[Any], None], reason: str) -> None:
    model = language_model(family, slides=family == "qwen3_5_text")
    prepare(model)
    assert (families._why_not_packed(model) or "").startswith(reason)


# Families that look. The first five go through every test of the trainer

FURTHER = [name for name in families.PREFILLED_VISION if name not in tiny.FAMILIES]
GIVEN = completions([5, 9, 3, 16, 7, 7, 12, 1])


def settings(family: str, **others: Any) -> dict[str, Any]:
    """Arguments of `make`, for ours and stock alike."""
    if family in ("mistral3", "gemma4"):  # of which TRL 1.16 takes prompts of one length
        others = {"data": tiny.dataset(1), "num_generations": 8, **others}
    if family.endswith("moe"):  # the auxiliary loss counts copies
        others = {"router_aux_loss_coef": 0.0, **others}
    return {"family": family, **ONE_BATCH, **others}


@pytest.mark.parametrize("family", FURTHER)
def test_a_further_family_updates_as_trl_does(make: Callable[..., Any], family: str) -> None:
    arguments = settings(family, given=GIVEN)
    ours = make(**OURS, **arguments)
    assert ours._sharing.processing is None
    assert (ours._sharing.scoring is None) == (family in families.PACKED_VISION)
    assert_same(update(ours), update(make(**arguments)))


@pytest.mark.parametrize("family", FURTHER)
def test_a_further_family_generates_as_trl_does(make: Callable[..., Any], family: str) -> None:
    batches, logits = [], []
    for kind in (OURS, {}):
        trainer, seen = make(**kind, **settings(family, max_completion_length=8)), []
        trainer.model.get_output_embeddings().register_forward_hook(
            lambda module, args, output, seen=seen: seen.append(output[:, -1].detach())
        )
        torch.manual_seed(7)
        batches.append(trainer._generate_and_score_completions(next(iter(trainer.get_train_dataloader()))))
        logits.append(seen)
    assert torch.equal(batches[0]["completion_ids"], batches[1]["completion_ids"])
    assert [len(step) for step in logits[0]] == [8 // trainer.num_generations, *map(len, logits[1])]
    for ours, stock in zip(logits[0][1:], logits[1], strict=True):
        assert (ours - stock).abs().max() < 1e-4


@pytest.mark.parametrize("family", FURTHER)
def test_a_further_family_takes_text_rows_beside_image_rows(make: Callable[..., Any], family: str) -> None:
    if family == "smolvlm" and Version(transformers.__version__) < Version("5.24"):
        pytest.skip("its processor left out rows without images")
    both = settings(family, given=GIVEN, data=tiny.dataset(2, text_rows=(1,)), shuffle_dataset=False)
    both |= {"num_generations": 4}
    found, _ = logps(make(**OURS, **both))
    for rows, data in ((slice(4), tiny.dataset(1)), (slice(4, 8), tiny.dataset(2, text_rows=(0, 1)).select([1]))):
        alone = both | {"given": GIVEN[rows], "data": data, "per_device_train_batch_size": 4}
        expected, _ = logps(make(**alone))
        assert (found[rows, : expected.size(1)] - expected).abs().max() < 1e-5


def test_the_docs_name_every_language_model() -> None:
    text = (Path(__file__).parents[2] / "docs" / "families.md").read_text(encoding="utf-8")
    packed, prefilled = text[text.index("## Language models") :].split("\nPrefilled once:")
    assert set(re.findall("`(.+?)`", packed)) == set(families.PACKED_LANGUAGE)
    assert set(re.findall("`(.+?)`", prefilled)) == set(families.PREFILLED_LANGUAGE) - set(families.PACKED_LANGUAGE)
