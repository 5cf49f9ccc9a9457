"""TRL's own tests of GRPO, with stock `GRPOTrainer` and with `OneVisionGRPOTrainer` in its place.

    git clone --depth 1 --branch v1.16.0 https://github.com/huggingface/trl
    python tests/bench/trl_suite.py trl/tests [pytest arguments]

The models and data that the tests name are built here, small and random, in a folder whose layout is theirs
(`trl-internal-testing/tiny-…`); pytest runs in it, so that the names are paths, and nothing is downloaded. What a test
patches on a model's class (Liger's forwards stay there for good) is undone after it. Tests of
models that are not built here fail under both classes; those that need vLLM or a GPU are skipped by TRL.
`TRL_ONEVISION`, where set, gives the options of `OneVisionGRPOTrainer`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
import transformers
import trl
from datasets import Dataset, Features, Image, List, Value
from transformers import PreTrainedTokenizerFast

sys.path.append(str(Path(__file__).parents[1] / "grpo"))

import tiny

OWNER = "trl-internal-testing"
ROWS = {"train": 4, "test": 2}
TEXT = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "decoder_sparse_step": 1}
# Name in TRL's tests: architecture, chat template of TRL's, settings of its own
TEXT_MODELS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "tiny-Qwen2ForCausalLM-2.5": ("Qwen2ForCausalLM", "qwen2_5", {}),
    "tiny-Qwen2ForSequenceClassification-2.5": ("Qwen2ForSequenceClassification", "qwen2_5", {"num_labels": 1}),
    "tiny-Qwen3ForCausalLM": ("Qwen3ForCausalLM", "qwen3", {"head_dim": 8}),
    "tiny-Qwen3ForSequenceClassification": (
        "Qwen3ForSequenceClassification",
        "qwen3",
        {"head_dim": 8, "num_labels": 1},
    ),
    "tiny-Qwen3MoeForCausalLM": ("Qwen3MoeForCausalLM", "qwen3", {"head_dim": 8, **EXPERTS}),
    "tiny-LlamaForCausalLM-3.2": ("LlamaForCausalLM", "llama3_2", {}),
    "tiny-LlamaForSequenceClassification-3.2": ("LlamaForSequenceClassification", "llama3_2", {"num_labels": 1}),
    "tiny-MistralForCausalLM-0.2": ("MistralForCausalLM", "qwen2_5", {}),
    "tiny-Gemma2ForCausalLM": ("Gemma2ForCausalLM", "qwen2_5", {"head_dim": 8}),
    "tiny-Cohere2ForCausalLM": ("Cohere2ForCausalLM", "cohere2", {}),
    "tiny-GptOssForCausalLM": (
        "GptOssForCausalLM",
        "gptoss",
        {"head_dim": 8, "num_local_experts": 4, "num_experts_per_tok": 2},
    ),
    "tiny-Glm4MoeForCausalLM": (
        "Glm4MoeForCausalLM",
        "glm4moe",
        {"head_dim": 8, "n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32},
    ),
}
IMAGE_MODELS = {
    "tiny-Qwen2_5_VLForConditionalGeneration": "qwen2_5_vl",
    "tiny-Qwen2VLForConditionalGeneration": "qwen2_vl",
}


def template(name: str) -> str:
    """A chat template as TRL ships it, by which it knows a tokenizer."""
    return (Path(trl.__file__).parent / "chat_templates" / f"{name}.jinja").read_text()


def words() -> PreTrainedTokenizerFast:
    """The tests' tokenizer of bytes, with the special tokens that TRL's templates and parsers look for."""
    tokens = tiny.tokenizer()
    more = ["<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>"]
    tokens.add_tokens(more)
    return tokens


def build_text_model(folder: Path, architecture: str, chat: str, settings: dict[str, Any]) -> None:
    tokens = words()
    tokens.chat_template = template(chat)
    kind = getattr(transformers, architecture)
    ids = {"bos_token_id": None, "eos_token_id": tokens.eos_token_id, "pad_token_id": tokens.pad_token_id}
    torch.manual_seed(0)
    model = kind(kind.config_class(**{**TEXT, **settings, **ids, "vocab_size": len(tokens)}))
    spread(model)
    model.save_pretrained(folder)
    tokens.save_pretrained(folder)


def build_image_model(folder: Path, family: str) -> None:
    model, processor = tiny.build(family)
    processor.chat_template = template("qwen2_5_vl")
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def spread(model: torch.nn.Module) -> None:
    """Weights that tell one token from another, in a model as small as this."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.08)


def build_data(folder: Path) -> None:
    """The prompts of TRL's data sets `zen`, `zen-image` and `zen-multi-image`, in kind if not in words."""
    generator = np.random.default_rng(0)

    def picture(row: int) -> np.ndarray:
        return generator.integers(0, 255, (40 + row, 60, 3), dtype=np.uint8)

    questions = [f"Better than {number} is" for number in range(sum(ROWS.values()))]
    asked = [[{"role": "user", "content": question}] for question in questions]
    message = [{"role": Value("string"), "content": Value("string")}]
    two = [[{"role": "user", "content": [{"type": "image", "text": None}] * 2 + [{"type": "text", "text": question}]}]
           for question in questions]  # fmt: skip
    parts = [{"role": Value("string"), "content": List({"type": Value("string"), "text": Value("string")})}]
    pictures = [picture(row) for row in range(len(questions))]
    tables: dict[str, dict[str, tuple[dict[str, Any], Features]]] = {
        "zen": {
            "standard_prompt_only": ({"prompt": questions}, Features(prompt=Value("string"))),
            "conversational_prompt_only": ({"prompt": asked}, Features(prompt=message)),
        },
        "zen-image": {
            "conversational_prompt_only": (
                {"prompt": asked, "image": pictures},
                Features(prompt=message, image=Image()),
            ),
        },
        "zen-multi-image": {
            "conversational_prompt_only": (
                {"prompt": two, "images": [[one, one] for one in pictures]},
                Features(prompt=parts, images=List(Image())),
            ),
        },
    }
    for name, configs in tables.items():
        lines = ["---", "configs:"]
        for config, (columns, features) in configs.items():
            table = Dataset.from_dict(columns, features=features)
            lines += [f"- config_name: {config}", "  data_files:"]
            start = 0
            for split, count in ROWS.items():
                path = folder / name / config / f"{split}.parquet"
                path.parent.mkdir(parents=True, exist_ok=True)
                table.select(range(start, start + count)).to_parquet(path)
                start += count
                lines += [f"  - split: {split}", f"    path: {config}/{split}.parquet"]
        (folder / name / "README.md").write_text("\n".join([*lines, "---", ""]))


def build(folder: Path) -> None:
    """Everything that the tests load, under the names by which they load it."""
    build_data(folder)
    for name, settings in TEXT_MODELS.items():
        build_text_model(folder / name, *settings)
    for name, family in IMAGE_MODELS.items():
        build_image_model(folder / name, family)


def start(tests: Path, hub: Path, kind: str, arguments: list[str]) -> subprocess.Popen[bytes]:
    """TRL's tests with one class, in a process whose folder is the hub."""
    here, package = Path(__file__).parent, Path(__file__).parents[2]
    environment = {
        **os.environ,
        "TRL_SUITE": kind,
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": os.pathsep.join([str(here), str(package), os.environ.get("PYTHONPATH", "")]),
    }
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "trl_suite",
        "-p",
        "no:cacheprovider",
        "--tb=short",
    ]
    command += [f"--rootdir={tests}", f"--junitxml={hub / kind}.xml", str(tests / "test_grpo_trainer.py"), *arguments]
    with (hub / f"{kind}.log").open("wb") as log:
        return subprocess.Popen(command, cwd=hub, env=environment, stdout=log, stderr=subprocess.STDOUT)


def pytest_configure() -> None:
    """Run by pytest, of which this file is a plugin: what the tests import from `trl`."""
    if os.environ.get("TRL_SUITE") == "ours":
        from trl_onevision import OneVisionGRPOTrainer

        trl.GRPOTrainer = OneVisionGRPOTrainer  # type: ignore[misc]


@pytest.fixture(autouse=True)
def unpatched() -> Iterator[None]:
    """What a test leaves on the models' classes and in their modules does not reach the next one."""
    modules = [
        m for name, m in sys.modules.items() if name.startswith("transformers.models.") and ".modeling_" in name
    ]
    names = {module: dict(vars(module)) for module in modules}
    classes = {kind for found in names.values() for kind in found.values() if isinstance(kind, type)}
    forwards = {kind: vars(kind)["forward"] for kind in classes if "forward" in vars(kind)}
    yield
    for module, found in names.items():
        vars(module).update(found)
    for kind, forward in forwards.items():
        if vars(kind)["forward"] is not forward:
            kind.forward = forward


def outcomes(report: Path) -> dict[str, str]:
    """How each test of a report ended: passed, failed, error or skipped."""
    found = {}
    for case in ElementTree.parse(report).getroot().iter("testcase"):
        ends = [child.tag for child in case if child.tag in ("failure", "error", "skipped")]
        found[f"{case.get('classname', '').rpartition('.')[2]}::{case.get('name')}"] = ends[0] if ends else "passed"
    return found


def main() -> int:
    if len(sys.argv) < 2 or not (Path(sys.argv[1]) / "test_grpo_trainer.py").exists():
        sys.exit(__doc__)
    tests = Path(sys.argv[1]).resolve()
    hub = Path(tempfile.mkdtemp(prefix="trl-suite-"))
    build(hub / OWNER)
    running = {kind: start(tests, hub, kind, sys.argv[2:]) for kind in ("stock", "ours")}
    for process in running.values():
        process.wait()
    stock, ours = (outcomes(hub / f"{kind}.xml") for kind in running)
    print(", ".join(f"{name} {version(name)}" for name in ("trl", "transformers", "torch")))
    for kind, found in (("stock", stock), ("ours", ours)):
        print(f"{kind}: {', '.join(f'{count} {end}' for end, count in sorted(Counter(found.values()).items()))}")
    different = [name for name in stock if ours.get(name) != stock[name]]
    for name in different:
        print(f"{name}: {stock[name]} with stock, {ours.get(name)} with ours")
    print(f"{len(different)} differ; the logs are in {hub}")
    return int(any(stock[name] == "passed" for name in different))


if __name__ == "__main__":
    sys.exit(main())
