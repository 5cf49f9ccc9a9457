"""Multimodal reasoning RL on TRL: rewards, data adapters, a group-aware GRPO trainer and recipes."""

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trl_onevision.grpo.options import OneVisionGRPOConfig
    from trl_onevision.grpo.trainer import OneVisionGRPOTrainer

__version__ = "0.1.0"
__all__ = ["OneVisionGRPOConfig", "OneVisionGRPOTrainer", "__version__"]


def __getattr__(name: str) -> Any:
    # Rewards and data work without torch and trl, so the trainer is imported when it is asked for.
    if name == "OneVisionGRPOTrainer":
        from trl_onevision.grpo.trainer import OneVisionGRPOTrainer

        return OneVisionGRPOTrainer
    if name == "OneVisionGRPOConfig":
        from trl_onevision.grpo.options import OneVisionGRPOConfig

        return OneVisionGRPOConfig
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def requested(text: str) -> bool:
    """Whether the text of `TRL_ONEVISION` asks for the trainer: it is not empty, and no word for no.

    >>> requested("1"), requested("{share_prompt: true}"), requested("False"), requested("None")
    (True, True, False, False)
    """
    return text.strip().lower() not in ("", "0", "false", "no", "off", "none", "null")


# `trl grpo` imports a reward, and with it this package: the one moment at which a recipe can ask for the trainer.
if requested(os.environ.get("TRL_ONEVISION", "")):
    from trl_onevision.grpo.activate import activate

    activate()
