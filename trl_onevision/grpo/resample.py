"""Dynamic sampling (DAPO, arXiv 2503.14476): a fresh row in the place of one whose rewards do not differ.

TRL's `_generate_and_score_completions` generates, scores and rewards in one go. Here it is left right after it has
generated, by an exception, until the rows of the step are found; then it runs once to its end, on them, and is handed
the completions and rewards that they have already. So its passes, its advantages and its log are of those rows alone,
and a round costs its rollouts.

Where ranks divide a group between them it still is one: rewards are gathered, and what moves from one rank to another
is a completion's token ids; images are read from the dataset where they are needed.
"""

from __future__ import annotations

import json
import logging
import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import blake2b
from itertools import islice
from typing import Any

import torch
from accelerate.utils import gather_object
from datasets import Dataset
from transformers import TrainerCallback

from trl_onevision.grpo.collator import decode_rows

logger = logging.getLogger(__name__)


class _RoundDone(Exception):
    """Leaves TRL's method where the completions of a round and their rewards are known."""


@dataclass
class _Rollout:
    """A completion as TRL's `_generate` returns it, and what the rewards logged of it."""

    ids: list[int]
    completion: Any
    logps: list[float] | None
    extra: dict[str, Any] = field(default_factory=dict)


class Resampler(TrainerCallback):
    """The rounds of one trainer; there is nothing to save, since fresh rows follow from seed and step."""

    def __init__(self, trainer: Any, rounds: int) -> None:
        self.trainer, self.rounds = trainer, rounds
        if trainer.tools or trainer.environment_factories or trainer.rollout_func is not None:
            raise ValueError(
                "resample cannot hold with tools, environments or a rollout function, which have a state."
            )
        if not isinstance(trainer.train_dataset, Dataset):
            kind = type(trainer.train_dataset).__name__
            raise ValueError(f"resample reads fresh rows by their index, so it needs a map-style dataset, not {kind}.")
        trainer.add_callback(self)
        self._step_began = 0  # at which of this run's micro-batches
        self.known_rewards: torch.Tensor | None = None
        self._rows: list[dict[str, Any]] = []
        self._generated: list[_Rollout] = []
        self._chosen: list[_Rollout] | None = None
        self._leaves_live = True  # whether a generation of live groups alone leaves TRL's method, too
        self._said: set[str] = set()

    def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
        """The last step of an epoch may have fewer micro-batches than the others."""
        self._step_began = self.trainer._step

    def score(
        self, generate_and_score: Callable[[list[dict[str, Any]]], dict[str, Any]], encoded: list[dict[str, Any]]
    ) -> dict[str, Any]:
        """What `generate_and_score`, which ends in TRL's method, returns for the rows that are found."""
        rows = decode_rows(encoded)
        self._leaves_live, self._rows = False, rows
        try:
            with suppress(_RoundDone):
                scored = generate_and_score(rows)
                self._log(live_before=1.0, live_after=1.0, rounds=0, rows=self._groups_of(len(rows)))
                return scored
            self._leaves_live = True
            return generate_and_score(self._replace_dead(generate_and_score, rows, self._fresh_indices(encoded)))
        finally:
            self.known_rewards = self._chosen = None
            self._rows, self._generated = [], []

    def generate(self, generate: Callable[[list[Any]], tuple[Any, ...]], prompts: list[Any]) -> tuple[Any, ...]:
        """What TRL's `_generate` returns for `prompts`: known already, or generated, and then rewarded at once."""
        trainer = self.trainer
        if self._chosen is not None:
            ids, images, _ = trainer._tokenize_prompts(prompts)
            trainer._pending_extra_logs.update(_columns(self._chosen))
            logps = [rollout.logps for rollout in self._chosen]
            return (
                ids,
                [rollout.ids for rollout in self._chosen],
                None,
                [rollout.completion for rollout in self._chosen],
                None if None in logps else logps,
                {},
                images,
                [],
            )
        output = generate(prompts)
        completion_ids, completions, logps = output[1], output[3], output[4]
        rewards_NF = trainer._calculate_rewards(self._rows, prompts, completions, completion_ids)
        if not self._leaves_live and trainer._groups.live_M.all():
            self.known_rewards = rewards_NF
            return output
        each = zip(completion_ids, completions, logps or [None] * len(prompts), strict=True)
        self._generated = [_Rollout(*rollout) for rollout in each]
        for column, values in trainer._pending_extra_logs.items():
            for rollout, value in zip(self._generated, values, strict=True):
                rollout.extra[column] = value
        trainer._pending_extra_logs.clear()
        raise _RoundDone

    def _replace_dead(
        self,
        generate_and_score: Callable[[list[dict[str, Any]]], Any],
        rows: list[dict[str, Any]],
        fresh: Iterator[int],
    ) -> list[dict[str, Any]]:
        """Rounds of fresh groups, each in the place of a dead one; the rows of this rank when they are over."""
        trainer, G, B = self.trainer, self.trainer.num_generations, len(rows)
        rank, ranks = trainer.accelerator.process_index, trainer.accelerator.num_processes
        rows, chosen, rewards_NF = list(rows), list(self._generated), trainer._groups.rewards_NF.clone()
        live = trainer._groups.live_M.tolist()
        dead = [group for group, alive in enumerate(live) if not alive]
        before, seen, rounds = 1 - len(dead) / len(live), len(live), 0
        while dead and rounds < self.rounds and (tried := list(islice(fresh, len(dead)))):
            each = -(-len(tried) // ranks)  # as many on each rank, so that each makes the same passes
            mine = (tried + tried[-1:] * (each * ranks - len(tried)))[rank * each : (rank + 1) * each]
            self._rows = self._read(mine, G)
            with self._unlogged(), suppress(_RoundDone):
                generate_and_score(self._rows)
            rounds, seen = rounds + 1, seen + len(tried)
            live = trainer._groups.live_M.tolist()
            for place, index, rollouts in self._gather_live(live[: len(tried)], tried, rank * each, each):
                group = dead[place]
                source = slice(place * G, (place + 1) * G)
                rewards_NF[group * G : (group + 1) * G] = trainer._groups.rewards_NF[source]
                here = range(max(group * G, rank * B), min((group + 1) * G, (rank + 1) * B))
                for row, of_group in zip(here, self._read([index], len(here)), strict=True):
                    rows[row - rank * B], chosen[row - rank * B] = of_group, rollouts[row - group * G]
            dead = [group for place, group in enumerate(dead) if place >= len(tried) or not live[place]]
        groups = self._groups_of(B)
        self._log(live_before=before, live_after=1 - len(dead) / groups, rounds=rounds, rows=seen)
        self._explain(len(dead) == groups, bool(dead) and rounds < self.rounds)
        self.known_rewards, self._chosen = rewards_NF, chosen
        return decode_rows(rows)

    @contextmanager
    def _unlogged(self) -> Iterator[None]:
        """While active, nothing is logged: what belongs to no row is that of the first round, which chose nothing."""
        metrics, pending = self.trainer._metrics["train"], self.trainer._pending_metrics
        lengths, logged = {name: len(values) for name, values in metrics.items()}, dict(pending)
        pending.clear()
        yield
        for name in metrics:
            del metrics[name][lengths.get(name, 0) :]
        pending.clear()
        pending.update(logged)

    def _gather_live(
        self, live: list[bool], tried: list[int], start: int, count: int
    ) -> list[tuple[int, int, list[_Rollout]]]:
        """The live groups of a round on every rank: which of those tried, its row's index, its rollouts."""
        G = self.trainer.num_generations
        mine = [
            (place, tried[place], self._generated[(place - start) * G : (place - start + 1) * G])
            for place in range(start, min(start + count, len(tried)))
            if live[place]
        ]
        return sorted(gather_object(mine), key=lambda found: found[0])

    def _fresh_indices(self, encoded: list[dict[str, Any]]) -> Iterator[int]:
        """Rows of the dataset, none twice nor of `encoded`.

        They are drawn for each generation of a run; where the dataset is gone through in order, they are the nearest.
        """
        trainer = self.trainer
        seen = set(gather_object([_content(row) for row in encoded[:: trainer.num_generations]]))
        seen |= set(gather_object([_content(encoded[-1])]))  # of a group that begins on another rank
        size, groups, micro_batch = len(self._dataset), self._groups_of(len(encoded)), trainer._step - self._step_began
        if trainer.args.shuffle_dataset:
            order = random.Random(f"{trainer.args.seed} {trainer.state.global_step} {micro_batch}")
            indices: Iterable[int] = order.sample(range(size), min(size, self.rounds * groups + len(seen)))
        else:
            indices = around(self._first_row(micro_batch, groups), groups, size)
        return (index for index in indices if _content(self._dataset[index]) not in seen)

    def _first_row(self, micro_batch: int, groups: int) -> int:
        """Where the generation of a micro-batch of the step begins in a dataset that is gone through in order."""
        trainer = self.trainer
        uses = trainer.args.steps_per_generation * trainer.args.num_iterations
        of_epoch = len(self._dataset) // groups * uses  # micro-batches, of which `epoch` is the share before the step
        return (round((trainer.state.epoch or 0) * of_epoch) + micro_batch) % of_epoch // uses * groups

    def _read(self, indices: list[int], copies: int) -> list[dict[str, Any]]:
        rows = [self._dataset[index] for index in indices]
        return decode_rows(self.trainer.data_collator([row for row in rows for _ in range(copies)]))

    @cached_property
    def _dataset(self) -> Dataset:
        """What the loader reads its rows from."""
        return self.trainer._remove_unused_columns(self.trainer.train_dataset, description="fresh")

    def _groups_of(self, rows: int) -> int:
        return int(rows * self.trainer.accelerator.num_processes // self.trainer.num_generations)

    def _log(self, **metrics: float) -> None:
        for name, value in metrics.items():
            self.trainer._metrics["train"][f"resample/{name}"].append(float(value))

    def _explain(self, none_is_live: bool, ran_out: bool) -> None:
        """Say once each what a user may not expect."""
        if ran_out:
            self._say(
                f"resample: the {len(self._dataset)} rows of the dataset were all tried in one step; what is dead "
                "stays."
            )
        if none_is_live:
            self._say(
                f"resample: after {self.rounds} rounds the rewards of no group differ. If they are equal by design, "
                "or every row is too easy or too hard, resample only costs time."
            )

    def _say(self, text: str) -> None:
        if text not in self._said and self.trainer.accelerator.is_main_process:
            logger.warning(text)
        self._said.add(text)


def around(first: int, count: int, size: int) -> Iterator[int]:
    """The rows of a dataset around some of them, from the nearest on, of two the later first.

    >>> list(around(first=2, count=3, size=8))
    [5, 1, 6, 0, 7]
    """
    for distance in range(1, size):
        yield from (i for i in (first + count - 1 + distance, first - distance) if 0 <= i < size)


def _content(row: dict[str, Any]) -> str:
    """What tells a row from others, the same on every rank."""

    def of(value: Any) -> Any:
        return blake2b(value).hexdigest() if isinstance(value, bytes) else repr(value)

    return json.dumps(row, default=of, sort_keys=True)


def _columns(rollouts: list[_Rollout]) -> dict[str, list[Any]]:
    """What rewards logged of the completions, by column; None where one logged nothing."""
    names = {name for rollout in rollouts for name in rollout.extra}
    return {name: [rollout.extra.get(name) for rollout in rollouts] for name in sorted(names)}
