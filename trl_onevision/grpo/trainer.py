"""`OneVisionGRPOTrainer`: TRL's GRPO, with a group's prompt generated, preprocessed and scored once."""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from peft import PeftModel
from trl.extras.profiling import profiling_decorator
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer

from trl_onevision.grpo import checkpoint, environment, layer_kernels, shared_prompt, tower_attention
from trl_onevision.grpo.ask import COLUMN, AskPolicy, wants_policy
from trl_onevision.grpo.breakdown import Breakdown
from trl_onevision.grpo.collator import GroupCollator, decode_rows, keep_encoded
from trl_onevision.grpo.families import Sharing, has_dropout, sharing
from trl_onevision.grpo.freeze import freeze
from trl_onevision.grpo.groups import Groups, gather_groups
from trl_onevision.grpo.guards import refuse_too_few, refuse_unseen, refuse_unseen_rows
from trl_onevision.grpo.loss.head import fused_loss
from trl_onevision.grpo.options import Options
from trl_onevision.grpo.placeholders import Placeholders
from trl_onevision.grpo.ranks import TowerPasses, images_in, on_any_rank
from trl_onevision.grpo.raw_rows import adapt
from trl_onevision.grpo.resample import Resampler
from trl_onevision.grpo.rollout import (
    Prompts,
    can_expand,
    first_rows,
    mixed_rows,
    prefill_once,
    process_once,
    seen_once,
    unique_rows,
    unpadded,
)
from trl_onevision.grpo.rows import micro_batches
from trl_onevision.grpo.scoring import Scorer
from trl_onevision.grpo.shaping import Shaping
from trl_onevision.grpo.signatures import check_fields, check_signatures
from trl_onevision.grpo.terms import Terms
from trl_onevision.grpo.vllm_correction import VLLMCorrection
from trl_onevision.grpo.vllm_prompts import make_exact

_FIRST = ("model", "reward_funcs", "args", "train_dataset", "eval_dataset")

logger = logging.getLogger(__name__)


class OneVisionGRPOTrainer(GRPOTrainer):
    """`GRPOTrainer` whose cost grows with the distinct prompts of a batch, and not with its generations.

    Loss, gradients and metrics are TRL's. Takes what `GRPOTrainer` takes; the options of `OneVisionGRPOConfig` come
    from `args`, from the variable `TRL_ONEVISION` where `args` is a plain `GRPOConfig`, or are the defaults.

    Example:

    ```python
    trainer = OneVisionGRPOTrainer(
        model="Qwen/Qwen2.5-VL-3B-Instruct",
        args=OneVisionGRPOConfig(output_dir="runs/clevr"),
        reward_funcs=accuracy_reward,
        train_dataset=dataset,
    )
    ```
    """

    args: Any
    model: Any
    processing_class: Any
    data_collator: Any
    num_generations: int
    _buffered_inputs: Any
    _logs: dict[str, Any]
    _rows_are_owned = False
    _resampler: Resampler | None = None

    def __init__(
        self,
        model: Any,
        reward_funcs: Any = None,
        args: GRPOConfig | None = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        *others: Any,
        **kwargs: Any,
    ) -> None:
        check_signatures(GRPOTrainer)
        self.options = Options.of(args)
        if args is not None:
            self.options.check(args)
        given = inspect.signature(GRPOTrainer.__init__).bind_partial(
            self, model, None, None, None, None, *others, **kwargs
        )
        more = {name: value for name, value in given.arguments.items() if name not in ("self", *_FIRST)}
        more = environment.prepare(self.options.environment, model, args, more)
        # What an environment makes of its rows, and reads in their columns, is its own
        self._rows_are_owned = more.get("environment_factory") is not None
        if not self._rows_are_owned:
            train_dataset, eval_dataset = adapt(train_dataset), adapt(eval_dataset)
        refuse_unseen(train_dataset, "train_dataset", self._rows_are_owned)
        refuse_unseen(eval_dataset, "eval_dataset", self._rows_are_owned)
        super().__init__(
            model,
            reward_funcs,
            args,
            keep_encoded(train_dataset),
            keep_encoded(eval_dataset),
            **more,
        )
        checkpoint.accept_published_names(self._base_model(self.model))
        self.data_collator = GroupCollator()
        self._prompts: Prompts | None = None
        if self.options.freeze is not None:
            freeze(self._base_model(self.model), self.options.freeze)
        if self.args.use_liger_kernel:
            layer_kernels.check(self._base_model(self.model).config.model_type)
        self._placeholders = self._guard_images()
        self._liger_loss = fused_loss(self, self._base_model(self.model))
        self.options.check_correct(self.reward_func_names)
        self._groups: Groups | None = None
        self._breakdown = Breakdown(self.train_dataset)
        self._shaping = Shaping(self) if self.options.advantage else None
        if self.options.resample:
            self._resampler = Resampler(self, self.options.resample)
        self._ask_policy = AskPolicy(self) if wants_policy(self.reward_funcs) else None
        self._terms = Terms(self) if self.options.terms else None
        self._policy_logps: torch.Tensor | None = None
        self._tower = TowerPasses(self)
        self._generates_sharded = self._dist.is_fsdp or (
            self._dist.is_zero3 and not self.args.ds3_gather_for_generation
        )
        if self.tools and self.accelerator.num_processes > 1:
            environment.refuse_waiting(self)
        self.log_multimodal = False  # TRL gathers images on ranks that have some: `_generate` does, on every rank
        self._sharing = self._enable_sharing()
        self._scorer = Scorer(self, super()._get_per_token_logps_and_entropies)
        self._corrects_vllm = self.use_vllm and self.vllm_importance_sampling_correction
        self._keeps_first_logps = self._first_logps_are_old_logps()
        self._vllm_correction = VLLMCorrection(self) if self._keeps_first_logps and self._corrects_vllm else None
        # Where a tool may add images to any completion, every row holds those of its prompt, as under TRL
        self._holds_once = self._sharing.processing is None and not self.tools
        self._skips_zero_advantages = self._holds_once and self._zero_advantage_is_zero_gradient()

    def _guard_images(self) -> Placeholders | None:
        """Keep the token that stands for an image out of completions, and vLLM to the prompts that are trained on."""
        token_id = getattr(self._base_model(self.model).config, "image_token_id", None)
        if token_id is None or not self._is_vlm:
            return None
        if self.use_vllm:
            make_exact(self, token_id)
        return Placeholders(self, token_id)

    def _enable_sharing(self) -> Sharing:
        """Find what a prompt's completions can share, say once what they cannot, and prepare the models for it."""
        shared = sharing(self, self._base_model(self.model))
        if shared.describe():
            logger.warning("As in TRL, each completion has its own %s.", shared.describe())
        for model in (self.model, self.ref_model):
            if model is not None:
                tower_attention.enable(self._base_model(model))
                if shared.scoring is None:
                    shared_prompt.enable(self._base_model(model))
        return shared

    def _first_logps_are_old_logps(self) -> bool:
        """Whether the first use of a generation, before any step, gives what TRL runs an old-policy pass for."""
        accumulation, per_generation = self.args.gradient_accumulation_steps, self.args.steps_per_generation
        runs_old_pass = accumulation % (per_generation * self.num_iterations) != 0 or self._corrects_vllm
        no_step_in_between = accumulation % per_generation == 0
        repeatable = not has_dropout(self._base_model(self.model))
        # The fused loss has its gradients when the pass is done, and so needs vLLM's ratio before.
        needed_before = self._corrects_vllm and self._liger_loss is not None
        return runs_old_pass and no_step_in_between and repeatable and not needed_before

    def _zero_advantage_is_zero_gradient(self) -> bool:
        """Whether a completion with advantage zero adds nothing to loss, gradient or any metric but `entropy`."""
        return (
            self.options.skip_zero_advantages
            and self.beta == 0.0
            and not self.aux_loss_enabled
            and not self._entropy_bonus_enabled
            and self.top_entropy_quantile == 1.0
            and self.loss_type != "vespo"  # its metric counts every completion
            and self._terms is None
        )

    def _base_model(self, model: Any) -> Any:
        model = self.accelerator.unwrap_model(model)
        return model.get_base_model() if isinstance(model, PeftModel) else model

    def get_train_dataloader(self) -> Any:
        """TRL's, of as many rows as one batch takes at least."""
        refuse_too_few(self.train_dataset, self.args)
        return super().get_train_dataloader()

    # Generation: one decode, one preprocess and one prefill a prompt

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
        refuse_unseen_rows(inputs, self._rows_are_owned)
        score: Callable[..., dict[str, Any]] = functools.partial(self._generate_and_score, **more)
        if self._resampler is not None and self.model.training:
            return self._resampler.score(score, inputs)
        return score(decode_rows(inputs))

    def _generate_and_score(self, rows: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
        processor, num_iterations = self.processing_class, self.num_iterations
        if self._keeps_first_logps:
            # TRL runs no old-policy pass for a generation that is used once and needs no correction.
            self.num_iterations = 1
            self.vllm_importance_sampling_correction &= not self.model.training
        try:
            scored = super()._generate_and_score_completions(rows, **more)
        finally:
            self.processing_class, self.num_iterations, self._prompts = processor, num_iterations, None
            self.vllm_importance_sampling_correction = self.args.vllm_importance_sampling_correction
        if self._placeholders is not None:
            scored = self._placeholders.fold(scored)
        assert self._groups is not None
        self._breakdown.log(self._groups, self._metrics["train" if self.model.training else "eval"])
        if self.model.training:
            if self._terms is not None:
                self._terms.prepare(scored, self._groups)
            if self._shaping is not None:
                self._shaping.apply(scored, self._groups, rows)
        return scored

    def _generate(self, prompts: list[Any], **more: Any) -> tuple[Any, ...]:
        if self._rows_are_owned:  # an environment has added to the prompts
            refuse_unseen_rows([{"prompt": prompt} for prompt in prompts], owned=True)
            prompts = environment.as_one(self, prompts)
        generate: Callable[..., tuple[Any, ...]] = functools.partial(super()._generate, **more)
        if self._resampler is not None and self.model.training:
            generate = functools.partial(self._resampler.generate, generate)
        generated = generate(prompts)
        if self._placeholders is not None:
            generated = self._placeholders.leave_out(generated)
        *outputs, images, tool_images = generated
        of_row = images_in(prompts) if images is None else images  # a rollout function returns none
        (self._tower.due,) = on_any_rank([any(of_row)], self.accelerator)
        if self._is_vlm and self.args.log_multimodal:
            self._logs["images"].extend(gather_object(of_row))
        return *outputs, images, tool_images

    def _tokenize_prompts(self, prompts: list[Any], **more: Any) -> tuple[list[Any], list[Any] | None, dict[str, Any]]:
        if self._sharing.processing is not None:
            return self._tokenize_every_copy(prompts, **more)
        unique_of_row = unique_rows(prompts)
        first = first_rows(unique_of_row)
        with seen_once(self.processing_class) as seen, environment.of_rows(self, first):
            ids, images, fields = self._tokenize_unpadded([prompts[row] for row in first], **more)
        known = Prompts(unique_of_row, ids, images, fields, seen, every_copy=not self._holds_once)
        reason = known.why_not()
        on_a_rank, self._tower.due = on_any_rank([reason is not None, images is not None], self.accelerator)
        if on_a_rank:
            reason = reason or "so it has on another rank"
            logger.warning("As in TRL, each completion has its own processing and prefill (%s).", reason)
            self._sharing = replace(self._sharing, processing=reason, prefill=reason)
            return self._tokenize_every_copy(prompts, **more)
        self._prompts = known
        if known.images is not None:
            self.processing_class = process_once(self.processing_class, known)
        # The fields are for a turn after the first, which follows a tool.
        return known.ids, known.images, known.fields_of_rows(every_copy=True) if known.every_copy else {}

    def _tokenize_every_copy(
        self, prompts: list[Any], **more: Any
    ) -> tuple[list[Any], list[Any] | None, dict[str, Any]]:
        if self._is_vlm:
            self.processing_class = mixed_rows(self.processing_class)
        ids, images, fields = self._tokenize_unpadded(prompts, **more)
        (self._tower.due,) = on_any_rank([images is not None], self.accelerator)
        return ids, images, fields

    def _tokenize_unpadded(
        self, prompts: list[Any], **more: Any
    ) -> tuple[list[Any], list[Any] | None, dict[str, Any]]:
        processor = self.processing_class
        self.processing_class = unpadded(processor) if self._is_vlm else processor
        try:
            return super()._tokenize_prompts(prompts, **more)
        finally:
            self.processing_class = processor

    def _generate_single_turn(
        self,
        prompt_ids: list[Any],
        images: list[Any] | None,
        multimodal_fields: dict[str, Any],
        *others: Any,
        **more: Any,
    ) -> tuple[list[Any], list[Any] | None]:
        # Where weights are gathered layer by layer while transformers generates, its first pass is in step as well.
        joined = self._tower.joined(self._base_model(self.model), any(images or []))
        with joined if self._generates_sharded else nullcontext():
            return self._generate_turn(prompt_ids, images, multimodal_fields, *others, **more)

    def _generate_turn(
        self,
        prompt_ids: list[Any],
        images: list[Any] | None,
        multimodal_fields: dict[str, Any],
        *others: Any,
        **more: Any,
    ) -> tuple[list[Any], list[Any] | None]:
        generate, known = super()._generate_single_turn, self._prompts
        if known is None or prompt_ids is not known.ids:  # not the turn that follows the prompt
            return generate(prompt_ids, images, multimodal_fields, *others, **more)
        if not self._can_prefill_once(known):
            # Other engines take the images themselves, or none.
            by_transformers = not (self.use_vllm or self.use_transformers_continuous_batching)
            fields = known.fields_of_rows(every_copy=True) if by_transformers else {}
            return generate(prompt_ids, known.all_images, fields, *others, **more)
        with prefill_once(self.accelerator.unwrap_model(self.model_wrapped), known):
            return generate(prompt_ids, known.all_images, known.fields, *others, **more)

    def _can_prefill_once(self, prompts: Prompts) -> bool:
        """Whether transformers generates more than one completion of a prompt, from a cache that can be expanded.

        Where ranks have to make the same passes, a rank with one row a prompt prefills apart as well.
        """
        if self._sharing.prefill is not None or self.use_vllm or self.use_transformers_continuous_batching:
            return False
        config, _ = self._base_model(self.model)._prepare_generation_config(self.generation_config)
        has_copies = self._generates_sharded or len(prompts.unique_ids) < len(prompts.ids)
        return has_copies and can_expand(config, max(map(len, prompts.ids)))

    def _get_tool_suffix_ids(self, tool_messages: list[dict[str, Any]], **more: Any) -> list[int]:
        return super()._get_tool_suffix_ids(environment.plain(tool_messages, self._tokenizer), **more)

    def _prepare_inputs(self, generation_batch: Any) -> dict[str, Any]:
        in_training = self.model.training
        generate_every = self.args.steps_per_generation * self.num_iterations
        is_due = not in_training or self._step % generate_every == 0 or self._buffered_inputs is None
        if self._holds_once and in_training and is_due:
            # TRL's own step shuffles single rows; a group is only shared where its rows stay in one micro-batch.
            scored = self._generate_and_score_completions(generation_batch)
            self._buffered_inputs = micro_batches(scored, self.args.steps_per_generation)
            inputs = self._buffered_inputs[self._step % self.args.steps_per_generation]
        else:
            inputs = super()._prepare_inputs(generation_batch)
        if is_due:
            self._tower.note(self._buffered_inputs if in_training else [inputs])
        return inputs

    # Between rewards and loss: what each group was paid, and what that makes of its advantages

    def _calculate_rewards(
        self,
        inputs: list[dict[str, Any]],
        prompts: list[Any],
        completions: list[Any],
        completion_ids_list: list[Any],
        **more: Any,
    ) -> torch.Tensor:
        inputs = environment.with_columns(inputs, self.environments)
        rewards_NF = None if self._resampler is None else self._resampler.known_rewards
        if rewards_NF is None:
            asking = [{**row, COLUMN: self._ask_policy} for row in inputs] if self._ask_policy else inputs
            rewards_NF = super()._calculate_rewards(asking, prompts, completions, completion_ids_list, **more)
        self._groups = gather_groups(self, inputs, completion_ids_list, rewards_NF)
        return rewards_NF

    def log(self, logs: dict[str, float], *others: Any, **more: Any) -> None:
        if self.tools:
            completions = self._logs["completion"]
            texts = [environment.as_text(completion) for completion in completions]
            completions.clear()
            completions.extend(texts)
        super().log(logs, *others, **more)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        if self._shaping is not None and self.args.should_save:
            self._shaping.save(Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}")

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if self._shaping is not None and checkpoint is not None:
            self._shaping.load(Path(checkpoint))

    # Scoring: one pass over a prompt and its completions

    @profiling_decorator
    def _get_per_token_logps_and_entropies(
        self,
        model: Any,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        compute_entropy: bool = False,
        compute_aux_loss: bool = False,
        **fields: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        check_fields(fields)
        fields.pop("batch_num_images", None)  # of LLaVA-OneVision's processor, and not by row as TRL takes it to be
        passes = {"compute_entropy": compute_entropy, "compute_aux_loss": compute_aux_loss}
        if self._holds_once:
            batch = {"input_ids": input_ids, "attention_mask": attention_mask, **fields}
            scores = self._scorer.score(model, batch, logits_to_keep, batch_size, **passes)
        else:
            calls = self._scorer.calls_of_rows(model, fields.get("num_images"))
            scores = super()._get_per_token_logps_and_entropies(
                calls, input_ids, attention_mask, logits_to_keep, batch_size, **passes, **fields
            )
        if self._scorer.policy_inputs is not None:
            self._policy_logps = scores[0]
            if self._keeps_first_logps:
                self._note_first_logps(scores[0].detach(), self._scorer.policy_inputs)
        return scores

    def _note_first_logps(self, logps_BT: torch.Tensor, inputs: dict[str, Any]) -> None:
        """Put where TRL reads them, after the pass that scores, what its own old-policy pass would have given."""
        if "old_per_token_logps" in inputs:
            return
        inputs["old_per_token_logps"] = logps_BT
        if self._vllm_correction is not None:
            inputs["importance_sampling_ratio"] = self._vllm_correction.ratio(logps_BT, inputs, self._scorer.moves)

    # Work that changes nothing is not done

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        self._tower.due, masked_logps = inputs.get("tower_due", False), None
        if self._terms is not None and self.model.training:
            masked_logps = self._terms.masked_logps(model, inputs)
        self._scorer.policy_inputs = inputs
        if self._skips_zero_advantages and self.model.training:
            self._scorer.moves = (inputs["advantages"] != 0).reshape(len(inputs["advantages"]), -1).any(1).tolist()
        try:
            if self._liger_loss is not None:
                return self._liger_loss.compute(super()._compute_loss, model, inputs)
            loss = super()._compute_loss(model, inputs)
            if self._terms is not None and self._policy_logps is not None and self.model.training:
                loss = loss + self._terms.loss(self._policy_logps, masked_logps, inputs)
            return loss
        finally:
            self._scorer.policy_inputs = self._policy_logps = self._scorer.moves = None
