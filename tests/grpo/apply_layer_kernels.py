"""Applies Liger's layer kernels to each family, and prints by family what failed: run in a process of its own.

Liger replaces forwards on transformers' classes for good.
"""

from __future__ import annotations

import json

import tiny
from liger_kernel.transformers import _apply_liger_kernel_to_instance


def main() -> None:
    failures = {}
    for family in tiny.FAMILIES:
        model, _ = tiny.build(family)
        try:
            # No kernel is asked for: what fails, fails for any
            _apply_liger_kernel_to_instance(model=model, rope=False, rms_norm=False, swiglu=False)
        except ImportError as error:
            failures[family] = str(error)
    print(json.dumps(failures))  # noqa: T201


if __name__ == "__main__":
    main()
