"""A second generation, for rewards: the policy answers what they ask (`trl_onevision.rewards.second_pass`)."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from trl.trainer.grpo_trainer import GRPOTrainer

from trl_onevision.grpo.ranks import on_any_rank
from trl_onevision.grpo.rollout import PER_TOKEN_FIELDS

COLUMN = "ask_policy"
NOTHING = [{"role": "user", "content": "?"}]  # asked where another rank has more to ask


def wants_policy(rewards: Sequence[Any]) -> bool:
    """Whether a reward, or a part of one that is made of rewards, has a parameter of that name."""
    return any(
        COLUMN in inspect.signature(reward).parameters or wants_policy(getattr(reward, "rewards", ()))
        for reward in rewards
        if not isinstance(reward, torch.nn.Module)
    )


class AskPolicy:
    """Replies of one trainer's policy, sampled as completions are."""

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer

    def __call__(self, conversations: list[Any], starts: list[str] | None = None) -> list[str | None]:
        """A reply to each conversation, None to None; each begins with its start, which is not part of it.

        Every rank generates for as many conversations as the one that has most, and none where none has any. Without
        starts, equal ones beside each other are processed and prefilled once.
        """
        trainer = self.trainer
        asked = [i for i, conversation in enumerate(conversations) if conversation is not None]
        count = torch.tensor(len(asked), device=trainer.accelerator.device)
        most = int(trainer.accelerator.gather(count).max())
        replies: list[str | None] = [None] * len(conversations)
        if not most:
            return replies
        filling = most - len(asked)
        given = [conversations[i] for i in asked] + [NOTHING] * filling
        if starts is None:  # on every rank alike: what a reward asks for does not depend on its rows
            generated = self._answered(given)
        else:
            generated = self._continued(given, [starts[i] for i in asked] + [""] * filling)
        texts = trainer._tokenizer.batch_decode(generated, skip_special_tokens=True)
        for i, text in zip(asked, texts, strict=False):  # what fills up is asked last
            replies[i] = text
        return replies

    def _answered(self, given: list[Any]) -> list[list[int]]:
        """Replies from the beginning, for which all that completions of one prompt share is shared."""
        trainer = self.trainer
        prompts, processor = trainer._prompts, trainer.processing_class
        try:
            generated, _ = trainer._generate_single_turn(*trainer._tokenize_prompts(given), 1)
        finally:
            trainer._prompts, trainer.processing_class = prompts, processor
        return generated

    def _continued(self, given: list[Any], begun: list[str]) -> list[list[int]]:
        """What follows texts that are given: TRL's own way, for what is shared is known of a prompt alone."""
        trainer = self.trainer
        ids, images, fields = GRPOTrainer._tokenize_prompts(trainer, given)
        (trainer._tower.due,) = on_any_rank([images is not None], trainer.accelerator)
        added = [trainer._tokenizer(text, add_special_tokens=False)["input_ids"] if text else [] for text in begun]
        ids = [[*prompt, *start] for prompt, start in zip(ids, added, strict=True)]
        for name in set(PER_TOKEN_FIELDS) & set(fields):
            rows = zip(fields[name], added, strict=True)
            fields[name] = [[*map(int, of_prompt), *[0] * len(start)] for of_prompt, start in rows]
        generated, _ = trainer._generate_single_turn(ids, images, fields, 1)
        return generated
