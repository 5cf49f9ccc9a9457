"""The private kernels of Liger and TRL that the fused loss launches, told by the names of their arguments.

A launch with a wrong argument would end a run at its first step, after the rollout; this tells at its start.
"""

from __future__ import annotations

import importlib
import inspect
from importlib.metadata import version
from typing import Any

from transformers.utils.import_utils import is_triton_available

_LIGER = "liger_kernel.ops.grpo_loss"
_TRL = "trl.kernels.chunked_logprob"

# Launched by keyword, so that their order does not matter
BY_NAME = {
    (_LIGER, "_grpo_loss_bwd_kernel"): (
        "LOGITS DLOGITS DLOSS loss_stride0 loss_stride1 INPUT_IDS COMPLETION_MASK LSE ADVANTAGES PHI_SEQ LOSS_TYPE "
        "OLD_LOGP REF_LOGP VLLM_IS_RATIO VLLM_IS_RATIO_STRIDE TEMPERATURE BETA EPS_LOW EPS_HIGH DELTA "
        "SAPO_TEMP_POS SAPO_TEMP_NEG USE_BIAS_CORRECTION_KL L N BLOCK_N"
    ),
}
_OPTIONS = (
    "logit_scale softcap inv_t HAS_SOFTCAP HAS_ENTROPY HAS_LOG_SUM_SQ_PROBS HAS_MEAN_LOGITS HAS_IS_TOP1 BLOCK_SIZE"
)
# Called by position
BY_POSITION = {
    (_TRL, "_forward_kernel"): (
        "mm_ptr mm_stride targets_ptr max_ptr sum_exp_ptr x_sum_exp_ptr sq_sum_exp_ptr z_sum_ptr "
        f"max_before_target_ptr target_logit_ptr vocab_start n_cols {_OPTIONS}"
    ),
    (_TRL, "_forward_tile"): (
        "tile tile_stride targets running_max sum_exp x_sum_exp sq_sum_exp z_sum "
        f"max_before_target target_logit vocab_start n_cols {_OPTIONS}"
    ),
    (_TRL, "_addmm_fp32"): "acc a b",
    (_TRL, "_use_triton"): "device",
}


def mismatch() -> str | None:
    """The kernel that takes other arguments than those it is launched with, and what they are."""
    if not is_triton_available():
        return None  # Liger's kernel cannot be imported, and torch does its work
    for table, order in ((BY_NAME, sorted), (BY_POSITION, list)):
        for (module, name), expected in table.items():
            found = _arguments(getattr(importlib.import_module(module), name, None))
            if order(found) != order(expected.split()):
                package = module.split(".")[0].replace("_", "-")
                return (
                    f"{module}.{name} of {package} {version(package)} is launched with {expected}, but it takes "
                    f"{' '.join(found) or 'nothing: it is gone'}"
                )
    return None


def _arguments(kernel: Any) -> list[str]:
    if kernel is None:
        return []
    return list(kernel.arg_names if hasattr(kernel, "arg_names") else inspect.signature(kernel).parameters)
