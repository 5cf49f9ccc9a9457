"""Sampled answers as numbers: how often a row is answered right, without its image too, and how rewards differ."""

from __future__ import annotations

import asyncio
import inspect
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import yaml

from trl_onevision import dotted
from trl_onevision.answers.extract import full_text
from trl_onevision.chat import Reply
from trl_onevision.engine import Engine
from trl_onevision.recipes import RecipeError, recipe_path
from trl_onevision.select.rows import Rows, SelectError

CHUNK = 64  # rows that are scored at a time: a judge is asked for all of them at once
GIVEN = {"prompts", "completions", "trainer_state", "log_extra", "log_metric"}
ASKING = {"ask_policy", "environments"}  # which say by themselves, in training alone, what a reward reads
Reward = Callable[..., Any]


@dataclass(frozen=True)
class Scored:
    """One answer: what the rewards sum to, and whether it passes; `None` where no reward says so."""

    text: str
    finished: bool
    reward: float
    right: bool | None


@dataclass
class Measured:
    """What a model made of a row: its answers, and figures that outlive them. Without figures there is a reason."""

    index: int
    id: str
    answers: list[Scored] = field(default_factory=list)
    blind: list[Scored] = field(default_factory=list)
    reason: str = ""

    @cached_property
    def pass_rate(self) -> float:
        """The share of right answers."""
        return fmean(bool(answer.right) for answer in self.answers)

    @cached_property
    def pass_rate_blind(self) -> float | None:
        """The share of right answers with grey for images; `None` where there are none, or nobody asked."""
        return fmean(bool(answer.right) for answer in self.blind) if self.blind else None

    @cached_property
    def reward_std(self) -> float:
        """The deviation of the summed rewards, as TRL takes it of a group."""
        return stdev(answer.reward for answer in self.answers)

    @cached_property
    def pair(self) -> tuple[str, str] | None:
        """The best and the worst answer, or nothing where all earn the same."""
        best = max(self.answers, key=lambda answer: answer.reward)
        worst = min(self.answers, key=lambda answer: answer.reward)
        return (best.text, worst.text) if best.reward > worst.reward else None

    def forget(self) -> None:
        """Let go of the answers, once they are written: a hundred thousand rows fit into memory, their answers not."""
        if not self.reason:
            _ = self.pass_rate, self.pass_rate_blind, self.reward_std, self.pair
        self.answers, self.blind = [], []


@dataclass(frozen=True)
class Rewards:
    """Rewards as a recipe names and weighs them, and which of them says what is right.

    >>> rewards = Rewards.named(["trl_onevision.rewards.accuracy_reward", "trl_onevision.rewards.format_reward"])
    >>> rewards.score([Reply("<answer>4</answer>"), Reply("5")], solution=["4", "4"], task=["number", "number"])
    [Scored(text='<answer>4</answer>', finished=True, reward=1.0, right=True),
        Scored(text='5', finished=True, reward=0.0, right=False)]

    An answer is right where the first of `correct` that scores its row pays at least `pass_at`. By default those are
    the rewards that read a gold, as their parameter `solution` says: of `[accuracy, iou, format]` the first two, and
    the second where a row has boxes. Where none does, it is the first reward.
    """

    functions: tuple[Reward, ...]
    weights: tuple[float, ...]
    correct: tuple[Reward, ...]
    pass_at: float = 0.5

    @classmethod
    def named(
        cls,
        paths: Sequence[str],
        weights: Sequence[float] | None = None,
        correct: Sequence[str] | None = None,
        pass_at: float = 0.5,
    ) -> Rewards:
        """From dotted paths, as `trl grpo` takes them. Raises `ValueError` on one that leads to no reward."""
        if weights is not None and len(weights) != len(paths):
            raise SelectError(f"reward_weights: found {len(weights)}, expected one for each of {len(paths)} rewards")
        functions = tuple(map(_find, paths))
        decisive = tuple(map(_find, correct or ())) or tuple(filter(_reads_gold, functions)) or functions[:1]
        return cls(functions, tuple(weights or [1.0] * len(paths)), decisive, pass_at)

    def fitted(self, columns: Sequence[str]) -> tuple[Rewards, dict[str, str]]:
        """Those that can score a sampled answer, and of the others what of a rollout in training they need.

        Raises `SelectError` where rows lack a column that a reward needs, and where nothing is left that says what
        is right.
        """
        lacking = {reward: _needs(reward) - GIVEN - {*columns} for reward in (*self.functions, *self.correct)}
        for reward, names in lacking.items():
            if missing := names - ASKING - {"completion_ids"}:
                raise SelectError(
                    f"{_name(reward)}: the rows have no column {', '.join(sorted(missing))}, which it needs"
                )
        kept = [(f, w) for f, w in zip(self.functions, self.weights, strict=True) if not lacking[f]]
        correct = tuple(reward for reward in self.correct if not lacking[reward])
        left_out = {_name(reward): ", ".join(sorted(names)) for reward, names in lacking.items() if names}
        if not correct:
            raise SelectError(
                f"{_name(self.correct[0])}: says what is right by what only training has "
                f"({left_out[_name(self.correct[0])]}); name another reward with --correct"
            )
        return Rewards(tuple(f for f, _ in kept), tuple(w for _, w in kept), correct, self.pass_at), left_out

    def score(self, replies: Sequence[Reply], **columns: Any) -> list[Scored]:
        """What replies to rows earn; `columns` has the rows' columns, one value a reply."""
        texts = [full_text({"role": "assistant", "content": r.text, "reasoning": r.reasoning}) for r in replies]
        paid = {reward: self._paid(reward, texts, columns) for reward in {*self.functions, *self.correct}}
        scored = []
        for place, (reply, text) in enumerate(zip(replies, texts, strict=True)):
            earned = [paid[reward][place] for reward in self.functions]
            total = sum(w * r for w, r in zip(self.weights, earned, strict=True) if r is not None)
            decisive = next((r for reward in self.correct if (r := paid[reward][place]) is not None), None)
            right = None if decisive is None else decisive >= self.pass_at
            scored.append(Scored(text, not reply.cut, total, right))
        return scored

    def _paid(self, reward: Reward, texts: list[str], columns: dict[str, Any]) -> list[float | None]:
        given = {
            "prompts": columns.get("prompt"),
            "completions": [[{"role": "assistant", "content": text}] for text in texts],
            **{name: values for name, values in columns.items() if name not in ("prompt", "completion")},
            "trainer_state": None,
            "log_extra": _nowhere,
            "log_metric": _nowhere,
        }
        try:
            paid = reward(**given)
            paid = asyncio.run(paid) if inspect.iscoroutine(paid) else paid
        except TypeError as error:
            raise SelectError(f"{_name(reward)}: cannot score these rows ({error})") from error
        if len(paid) != len(texts):
            raise SelectError(f"{_name(reward)}: found {len(paid)} rewards for {len(texts)} answers")
        return [None if one is None or math.isnan(one) else float(one) for one in paid]


def _nowhere(*values: Any, **named: Any) -> None:
    """Where a reward logs to when nobody trains."""


def _name(reward: Reward) -> str:
    return str(getattr(reward, "__name__", type(reward).__name__))


def _reads_gold(reward: Reward) -> bool:
    parts = getattr(reward, "rewards", ())  # of a composed one
    return "solution" in inspect.signature(reward).parameters or any(map(_reads_gold, parts))


def _needs(reward: Reward) -> set[str]:
    """The columns that a reward cannot do without."""
    parameters = inspect.signature(reward).parameters.values()
    named = {p.name for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}
    needed = {p.name for p in parameters if p.default is p.empty} & named
    return needed.union(named & ASKING, *map(_needs, getattr(reward, "rewards", ())))


def _find(path: str) -> Reward:
    reward: Reward = dotted.find("reward", path if "." in path else f"trl.rewards.{path}")  # which TRL knows by name
    return reward


def read_recipe(name: str) -> dict[str, Any]:
    """The settings of a recipe: a file, or one that ships with the package."""
    try:
        path = Path(name) if Path(name).is_file() else recipe_path(name)
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (RecipeError, OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SelectError(f"--recipe {name}: {error}") from error
    if not isinstance(settings, dict) or not settings.get("reward_funcs"):
        raise SelectError(f"--recipe {name}: found no reward_funcs, expected a recipe for `trl grpo`")
    return settings


def measured(rows: Rows, engine: Engine, rewards: Rewards, refused: dict[int, str]) -> Iterator[Measured]:
    """Each row in order, scored; those that a server refused, and those that no reward scores, with the reason."""
    for start in range(0, len(rows), CHUNK):
        chunk = [Measured(index, rows.name(index)) for index in range(start, min(start + CHUNK, len(rows)))]
        for blind in (False, True) if engine.sampling.blind else (False,):
            _score(rows, chunk, engine, rewards, blind)
        for row in chunk:
            if row.index in refused:
                row.reason = f"no answer: {refused[row.index]}"
            elif not row.answers:
                row.reason = f"its answers could not be kept in {engine.chat.cache}"
            elif any(answer.right is None for answer in row.answers):
                row.reason = "no reward says whether it is right"
        yield from chunk


def _score(rows: Rows, chunk: list[Measured], engine: Engine, rewards: Rewards, blind: bool) -> None:
    asked = [(row, replies) for row in chunk if (replies := _replies(rows, row.index, engine, blind))]
    if not asked:
        return
    stored = rows.dataset[[row.index for row, _ in asked]]  # each image is decoded once
    columns = {
        name: [value for value, (_, replies) in zip(values, asked, strict=True) for _ in replies]
        for name, values in stored.items()
    }
    scored = iter(rewards.score([reply for _, replies in asked for reply in replies], **columns))
    for row, replies in asked:
        answers = [next(scored) for _ in replies]
        if blind:
            row.blind = answers
        else:
            row.answers = answers


def _replies(rows: Rows, index: int, engine: Engine, blind: bool) -> list[Reply] | None:
    prompt = rows.asked(index, blind)
    return None if prompt is None else engine.replies(prompt)
