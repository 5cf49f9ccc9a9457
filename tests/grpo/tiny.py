"""Small models of real architectures (`zoo.py`), their tokenizer, and rows for them; nothing is downloaded."""

from __future__ import annotations

import importlib
import io
from typing import Any

import numpy as np
import torch
from datasets import Dataset, Features, List, Value
from datasets import Image as ImageFeature
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

SPECIAL = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
    "<image>",
    "<video>",
    "<img>",
    "</img>",
    "<IMG_CONTEXT>",
]
FAMILIES = ("qwen2_5_vl", "qwen2_vl", "qwen3_vl", "llava_onevision", "internvl")


def tokenizer(vocabulary: int = 384, special: tuple[str, ...] = (), **extra: str) -> PreTrainedTokenizerFast:
    """Bytes, the special tokens of every family here and those of `special`, and unused words up to `vocabulary`."""
    words = [*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet()), *special]
    words += [f"unused{i}" for i in range(vocabulary - len(words))]
    raw = Tokenizer(models.BPE(vocab={word: i for i, word in enumerate(words)}, merges=[]))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    raw.decoder = decoders.ByteLevel()
    raw.add_special_tokens([*SPECIAL, *special])
    return PreTrainedTokenizerFast(
        tokenizer_object=raw,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        padding_side="left",
        extra_special_tokens=extra,
    )


def build(family: str, hidden: int = 32, layers: int = 2, vocabulary: int = 384, std: float = 0.08) -> tuple[Any, Any]:
    """A random model of `family` and its processor, in fp32 and the same for the same arguments."""
    torch.manual_seed(0)
    model, processor = getattr(importlib.import_module("zoo"), family)(hidden, layers, vocabulary)
    with torch.no_grad():
        # transformers' 0.02 leaves a small model nearly constant: nothing would tell one token from another.
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=std)
            elif name.endswith("bias"):
                parameter.normal_(std=0.02)
    tokens = getattr(processor, "tokenizer", processor)
    model.generation_config.eos_token_id = tokens.eos_token_id
    model.generation_config.pad_token_id = tokens.pad_token_id
    return model, processor


def incline(model: Any, token: int, weight: float) -> None:
    """Give all states of text one number in common, and the head a weight on it: `token` is said always, or never."""
    states, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    with torch.no_grad():
        for layer in model.get_decoder().layers:  # which hand the number on as it is
            layer.self_attn.o_proj.weight[0] = layer.mlp.down_proj.weight[0] = 0.0
        head[:, 0] = 0.0
        states[:, 0] = 1.0
        head[token, 0] = weight


def say_always(model: Any, tokens: PreTrainedTokenizerFast, text: str) -> None:
    """Add one token that is the text, for a model that says it at every turn and nothing else."""
    tokens.add_tokens([text])
    token = tokens.convert_tokens_to_ids(text)
    model.resize_token_embeddings(len(tokens))
    incline(model, token, weight=50.0)
    model.generation_config.eos_token_id = [tokens.eos_token_id, token]


class Given:
    """Completions that are given: what is compared is everything that TRL and this package do with them."""

    completions: list[list[int]]

    def _generate_single_turn(self, prompt_ids: list, *args: Any, **kwargs: Any) -> tuple[list, None]:
        return self.completions[: len(prompt_ids)], None


def completions(lengths: list[int], seed: int = 0, truncated: tuple[int, ...] = ()) -> list[list[int]]:
    """Random text of the given lengths, each closed by the end-of-turn token unless truncated."""
    generator = torch.Generator().manual_seed(seed)
    texts = [torch.randint(20, 260, (n,), generator=generator).tolist() for n in lengths]
    return [text if i in truncated else [*text[:-1], SPECIAL.index("<|im_end|>")] for i, text in enumerate(texts)]


def reward(completion_ids: list[list[int]], **kwargs: Any) -> list[float]:
    """A number that depends on every token."""
    return [sum(ids) % 17 / 17 for ids in completion_ids]


def picture(seed: int, width: int = 56, height: int = 56) -> Image.Image:
    """Noise, the same for the same seed."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def png(image: Image.Image) -> bytes:
    """The image as an encoded file."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def dataset(
    count: int,
    sizes: tuple[tuple[int, int], ...] = ((56, 56), (84, 28)),
    text_rows: tuple[int, ...] = (),
    per_row: int = 1,
) -> Dataset:
    """Rows with `per_row` images each (none for `text_rows`), of different sizes and prompt lengths."""
    rows = {"prompt": [], "images": [], "solution": []}
    for i in range(count):
        images = [
            {"bytes": png(picture(100 * n + i, *sizes[(i + n) % len(sizes)])), "path": None} for n in range(per_row)
        ]
        rows["prompt"].append([{"role": "user", "content": f"What is in picture {i}?" + " Look again." * (i % 3)}])
        rows["images"].append([] if i in text_rows else images)
        rows["solution"].append(chr(97 + i % 26))
    features = Features(
        {
            "prompt": List({"role": Value("string"), "content": Value("string")}),
            "images": List(ImageFeature()),
            "solution": Value("string"),
        }
    )
    return Dataset.from_dict(rows, features=features)


def mixed(*images: int) -> Dataset:
    """Rows of so many images."""
    data = dataset(len(images), per_row=max(images))
    return data.map(lambda row, i: {"images": row["images"][: images[i]]}, with_indices=True, keep_in_memory=True)
