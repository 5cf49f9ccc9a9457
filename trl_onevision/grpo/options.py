"""What this trainer adds to `GRPOConfig`: typed options, and reading them from `TRL_ONEVISION`."""

from __future__ import annotations

import ast
import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml
from trl.trainer.grpo_config import GRPOConfig

from trl_onevision import requested
from trl_onevision.grpo import environment, shaping, terms
from trl_onevision.grpo.freeze import PARTS

VARIABLE = "TRL_ONEVISION"


@dataclass
class Options:
    """The options this package adds to TRL's; every default is the one to keep unless you measure otherwise.

    Args:
        share_prompt: `"auto"` scores a group as one sequence where that is cheaper than TRL's G copies, `"true"` (or
            `True`) wherever the model allows it, `"false"` never. In any case a distinct prompt is preprocessed and
            prefilled once.
        loss: `"trl"` keeps TRL's chunked head and loss, `"liger"` computes head and loss in one with Liger's kernel,
            `"auto"` does so on a GPU, unless another option needs TRL's.
        skip_zero_advantages: Leave completions whose advantage is exactly zero out of the policy pass, where their
            gradient is exactly zero. The `entropy` metric is then the mean over the completions that were scored.
        freeze: `"vision"` keeps the vision tower and its projector as they are, `"language"` the language model.
        advantage: What scales the advantages: a name, a dotted path, or a list of them, which multiply
            (`trl_onevision.grpo.shaping`).
        correct: The reward that says what is right, by its name in TRL's log; needed where there are several.
        resample: In how many rounds a group whose rewards do not differ is replaced by a group of a fresh row.
        terms: What is added to the loss, by name: `papo`, `dads`, or a mapping of them to their settings
            (`trl_onevision.grpo.terms`).
        environment: What TRL takes as `environment_factory`: a dotted path, such as
            `trl_onevision.environments.Zoom`, or a mapping of one to its settings.

    Example:

    ```python
    >>> Options.parse("{share_prompt: true, loss: trl}")
    Options(share_prompt='true', loss='trl', skip_zero_advantages=True, freeze=None, advantage=None, correct=None,
        resample=0, terms=None, environment=None)
    >>> Options.parse("{share_promt: true}")
    Traceback (most recent call last):
    ValueError: Unknown option 'share_promt' of TRL_ONEVISION. Known options: share_prompt, loss, skip_zero_advantages,
        freeze, advantage, correct, resample, terms, environment.

    ```
    """

    # `str` and no union with bool, which `TrlParser` would take for a bool alone
    share_prompt: str = field(
        default="auto", metadata={"help": "Score a group as one sequence: 'auto' (where it pays), true or false."}
    )
    loss: str = field(default="auto", metadata={"help": "Who computes head and loss: 'trl', 'liger' or 'auto'."})
    skip_zero_advantages: bool = field(
        default=True, metadata={"help": "Leave completions with an advantage of exactly zero out of the policy pass."}
    )
    freeze: str | None = field(default=None, metadata={"help": "What not to train: 'vision' or 'language'."})
    # In this order, for `TrlParser` to take what a command line gives as text; `__post_init__` reads it
    advantage: list[str] | str | None = field(
        default=None,
        metadata={"help": "What scales the advantages: odsw-easy, observe, ema, my_module.fn, or a list."},
    )
    correct: str | None = field(default=None, metadata={"help": "The reward that says what is right."})
    resample: int = field(
        default=0, metadata={"help": "Rounds in which groups whose rewards do not differ are replaced by fresh ones."}
    )
    terms: dict[str, Any] | str | None = field(
        default=None, metadata={"help": "What is added to the loss: papo, dads, or a mapping of them to settings."}
    )
    environment: dict[str, Any] | str | None = field(
        default=None,
        metadata={"help": "TRL's environment_factory: a dotted path, or a mapping of one to its settings."},
    )

    def __post_init__(self) -> None:
        given, self.share_prompt = self.share_prompt, str(self.share_prompt).lower()
        if self.share_prompt not in ("auto", "true", "false"):
            raise ValueError(f"share_prompt must be true or false or 'auto', not {given!r}.")
        if self.loss not in ("auto", "trl", "liger"):
            raise ValueError(f"loss must be 'auto', 'trl' or 'liger', not {self.loss!r}.")
        if not isinstance(self.skip_zero_advantages, bool):
            self.skip_zero_advantages = _as_bool("skip_zero_advantages", self.skip_zero_advantages)
        if self.freeze not in (None, *PARTS):
            raise ValueError(f"freeze must be 'vision' or 'language', not {self.freeze!r}.")
        for name in ("advantage", "terms", "environment"):
            value = getattr(self, name)
            if isinstance(value, str) and value.startswith(("{", "[")):  # as a command line gives one
                setattr(self, name, _read(name, value))
        shaping.read(self.advantage)
        if isinstance(self.resample, bool) or not isinstance(self.resample, int) or self.resample < 0:
            raise ValueError(f"resample must be a number of rounds, 0 for none, not {self.resample!r}.")
        terms.read(self.terms)
        environment.read(self.environment)

    @property
    def advantages(self) -> list[str]:
        """The names in `advantage`."""
        return list(shaping.read(self.advantage))

    @classmethod
    def parse(cls, text: str) -> Options:
        """Read options from the text of `TRL_ONEVISION`: a YAML mapping, or `true`, `on`, `yes`, `1`: the defaults.

        A recipe's mapping comes as Python writes it, since TRL exports `str` of it: `None`, and strings with escapes.
        """
        given = _read(VARIABLE, text)
        if given in (True, None):  # 1 is equal to True
            given = {}
        if not isinstance(given, Mapping):
            raise ValueError(f"{VARIABLE} must be a mapping such as {{share_prompt: auto}}, not {text!r}.")
        known = [f.name for f in dataclasses.fields(Options)]
        for name in given:
            if name not in known:
                raise ValueError(f"Unknown option {name!r} of {VARIABLE}. Known options: {', '.join(known)}.")
        return cls(**given)

    @classmethod
    def of(cls, args: GRPOConfig | None) -> Options:
        """The options in force: those of an `OneVisionGRPOConfig`, else those of the environment, else defaults."""
        if isinstance(args, Options):
            return Options(**{f.name: getattr(args, f.name) for f in dataclasses.fields(Options)})
        return cls.parse(os.environ[VARIABLE]) if requested(os.environ.get(VARIABLE, "")) else Options()

    def check(self, args: GRPOConfig) -> None:
        """Raise where an option conflicts with one of TRL's, before anything is loaded."""
        if self.loss == "liger":
            # Imported here: reading options is all that most of its callers do
            from trl_onevision.grpo.loss import head

            head.check(self.refused_by_fused_loss(args))
        if self.share_prompt == "true" and args.cache_implementation is not None:
            raise ValueError(
                f"share_prompt: true expands a dynamic cache, which cannot hold with cache_implementation: "
                f"{args.cache_implementation}. Drop one of the two, or set share_prompt: auto."
            )
        if self.share_prompt == "true" and args.router_aux_loss_coef:
            raise ValueError(
                "share_prompt: true counts a prompt's tokens once, which cannot hold with router_aux_loss_coef: the "
                "auxiliary loss counts them once a completion. Drop one of the two, or set share_prompt: auto."
            )
        if self.resample and self.environment:
            raise ValueError("resample cannot hold with an environment, which has a state. Drop one of the two.")
        terms.check(terms.read(self.terms), args)
        if "ema" in self.advantages and args.scale_rewards not in ("none", False):
            raise ValueError(
                f"advantage: ema divides by a deviation of its own, so TRL's has to be off: set scale_rewards: none, "
                f"not {args.scale_rewards}."
            )
        if "ema" in self.advantages and args.multi_objective_aggregation != "sum_then_normalize":
            raise ValueError("advantage: ema needs multi_objective_aggregation: sum_then_normalize.")

    def refused_by_fused_loss(self, args: GRPOConfig) -> list[str]:
        """What in these options and in TRL's needs TRL's own loss."""
        from trl_onevision.grpo.loss import head

        found = head.refused_options(args)
        if names := terms.read(self.terms):
            found.append(f"terms: {', '.join(names)}, which are added to the loss outside of the head")
        if "steps" in self.advantages:
            found.append("advantage: steps, which gives each token its own")
        return found + [head.MASKED_WITHIN] * bool(self.environment)

    def check_correct(self, rewards: list[str]) -> None:
        """Raise where `correct` names none of a run's rewards, or says nothing where something needs it."""
        wanting = [f"advantage: {name}" for name in self.advantages if name in shaping.OF_CORRECT]
        wanting += ["terms: dads"] if "dads" in terms.read(self.terms) else []
        if self.correct is None and len(rewards) > 1 and wanting:
            raise ValueError(f"{wanting[0]} needs correct: the reward that says what is right, one of {rewards}.")
        if self.correct is not None and rewards.count(self.correct) != 1:
            found = "is the name of several" if self.correct in rewards else "is not among the"
            raise ValueError(f"correct: {self.correct!r} {found} rewards of this run: {rewards}.")

    def describe(self) -> str:
        """The options that say something, as one line, in the order of their definition."""
        given = {f.name: getattr(self, f.name) for f in dataclasses.fields(Options)}
        return ", ".join(f"{name}={value!r}" for name, value in given.items() if value is not None)


@dataclass
class OneVisionGRPOConfig(Options, GRPOConfig):
    """`GRPOConfig` with the options of `OneVisionGRPOTrainer`; whatever TRL accepts stays valid.

    Example:

    ```python
    >>> config = OneVisionGRPOConfig(output_dir="runs/clevr", share_prompt=True, bf16=False, report_to="none")
    >>> config.share_prompt, config.loss, config.num_generations
    ('true', 'auto', 8)

    ```
    """

    def __post_init__(self) -> None:
        Options.__post_init__(self)
        GRPOConfig.__post_init__(self)
        self.check(self)


def _read(name: str, text: str) -> Any:
    """What a text says: as Python writes it, or as YAML."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        pass
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"{name} cannot be read as YAML: {text!r}. {error}") from error


def _as_bool(name: str, value: Any) -> bool:
    words = {"true": True, "false": False}
    if str(value).lower() not in words:
        raise ValueError(f"{name} must be true or false, not {value!r}.")
    return words[str(value).lower()]
