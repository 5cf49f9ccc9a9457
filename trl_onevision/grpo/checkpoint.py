"""Resuming a run with the weights of its checkpoint.

`save_pretrained` writes some families (Qwen2-VL and Qwen2.5-VL among them) under the names they were published with,
and transformers' `Trainer` loads a checkpoint by the names of modules. Nothing matches, which it logs as a warning,
and the run goes on from the weights that it once started with (transformers issue 43701).
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightRenaming, rename_source_key


def accept_published_names(model: Any) -> None:
    """Make `model.load_state_dict` take the names that `model.save_pretrained` writes, beside its own."""
    conversions = getattr(model, "_weight_conversions", None) or get_model_conversion_mapping(model)
    renamings = [conversion for conversion in conversions if isinstance(conversion, WeightRenaming)]
    if renamings:
        model.register_load_state_dict_pre_hook(partial(_rename, renamings))


def _rename(
    renamings: list[WeightRenaming], model: Any, state_dict: dict[str, torch.Tensor], prefix: str, *rest: Any
) -> None:
    own = model.state_dict(keep_vars=True)
    for key in list(state_dict):
        name = key.removeprefix(prefix)
        if name not in own:
            known, _ = rename_source_key(name, renamings, [], model.base_model_prefix, own)
            if known in own:
                state_dict[prefix + known] = state_dict.pop(key)
