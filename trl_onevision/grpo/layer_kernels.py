"""What `use_liger_kernel` does to a family of models, said before training starts.

It is not needed for `loss: liger`, which is about head and loss only.
"""

from __future__ import annotations

import importlib
import logging
from importlib.metadata import version

logger = logging.getLogger(__name__)


def check(model_type: str) -> None:
    """Raise where Liger's layer kernels for this family cannot be applied, warn where there are none.

    Left to themselves, the first ends a run with an import error of Liger's own once training starts, and the second
    is silent.
    """
    from liger_kernel.transformers.monkey_patch import MODEL_TYPE_TO_APPLY_LIGER_FN

    if model_type not in MODEL_TYPE_TO_APPLY_LIGER_FN:
        logger.warning("use_liger_kernel changes nothing: Liger has no layer kernels for %r.", model_type)
        return
    module = f"liger_kernel.transformers.model.{model_type}"
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:  # not every family has one
            raise
    except ImportError as error:
        raise ValueError(
            f"use_liger_kernel: the layer kernels of liger-kernel {version('liger-kernel')} for {model_type!r} do not "
            f"fit transformers {version('transformers')} ({error.msg}). Drop it; loss: liger does not need it."
        ) from error
