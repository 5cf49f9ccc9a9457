"""The door of `trl grpo`: while active, constructing `GRPOTrainer` constructs `OneVisionGRPOTrainer`.

`trl grpo` binds the class before it imports a reward, so replacing the name `trl.GRPOTrainer` would come too late; its
`__init__` is looked up at the moment of construction. (So is `__new__`, but a class that once had one of its own
refuses arguments when it is deleted again, and could not be given back as it was.)
"""

from __future__ import annotations

import functools
import logging
import os
from typing import Any

from trl.trainer.grpo_trainer import GRPOTrainer

from trl_onevision.grpo.options import VARIABLE, Options
from trl_onevision.grpo.signatures import check_signatures

MARK = "_trl_onevision_stock"

logger = logging.getLogger(__name__)


def activate() -> None:
    """Make `GRPOTrainer(...)` build an `OneVisionGRPOTrainer`; does nothing when already active."""
    if hasattr(GRPOTrainer.__init__, MARK):
        return
    options = Options.parse(os.environ.get(VARIABLE, "{}"))
    check_signatures(GRPOTrainer)
    stock = GRPOTrainer.__init__

    @functools.wraps(stock)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        from trl_onevision.grpo.trainer import OneVisionGRPOTrainer

        if type(self) is GRPOTrainer:
            self.__class__ = OneVisionGRPOTrainer
            initialise: Any = OneVisionGRPOTrainer.__init__
        else:
            if not isinstance(self, OneVisionGRPOTrainer) and _is_main_process():
                logger.warning(
                    "%s is set, but %s stays as it is: only GRPOTrainer itself is replaced. Derive it from "
                    "trl_onevision.OneVisionGRPOTrainer.",
                    VARIABLE,
                    type(self).__qualname__,
                )
            initialise = stock
        initialise(self, *args, **kwargs)

    setattr(__init__, MARK, stock)
    GRPOTrainer.__init__ = __init__  # type: ignore[method-assign]
    if _is_main_process():
        logger.warning("%s is set: GRPOTrainer is OneVisionGRPOTrainer, with %s.", VARIABLE, options.describe())


def deactivate() -> None:
    """Undo `activate`; does nothing when not active."""
    GRPOTrainer.__init__ = getattr(GRPOTrainer.__init__, MARK, GRPOTrainer.__init__)  # type: ignore[method-assign]


def _is_main_process() -> bool:
    return int(os.environ.get("RANK", "0")) == 0
