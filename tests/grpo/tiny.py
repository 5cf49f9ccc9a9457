"""Small models of real architectures with their real processors and a tokenizer built here; nothing is downloaded."""

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
from transformers import (
    GotOcr2ImageProcessor,
    InternVLConfig,
    InternVLForConditionalGeneration,
    InternVLProcessor,
    InternVLVideoProcessor,
    InternVLVisionConfig,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    LlavaOnevisionImageProcessor,
    LlavaOnevisionProcessor,
    LlavaOnevisionVideoProcessor,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2Config,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
    SiglipVisionConfig,
)

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
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}IMAGE{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
FAMILIES = ("qwen2_5_vl", "qwen2_vl", "qwen3_vl", "llava_onevision", "internvl")
TEXT = {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 8192}


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
    builder = globals().get(f"_{family}") or getattr(importlib.import_module("zoo"), family)
    model, processor = builder(hidden, layers, vocabulary)
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


def _ids(tokens: PreTrainedTokenizerFast, **names: str) -> dict[str, int]:
    return {key: tokens.convert_tokens_to_ids(word) for key, word in names.items()}


def _text(hidden: int, layers: int, vocabulary: int, tokens: PreTrainedTokenizerFast) -> dict[str, Any]:
    return {
        **TEXT,
        "num_hidden_layers": layers,
        "hidden_size": hidden,
        "intermediate_size": 2 * hidden,
        "vocab_size": vocabulary,
        "bos_token_id": None,
        "eos_token_id": tokens.eos_token_id,
        "pad_token_id": tokens.pad_token_id,
    }


def _qwen_ids(tokens: PreTrainedTokenizerFast) -> dict[str, int]:
    return _ids(
        tokens,
        image_token_id="<|image_pad|>",
        video_token_id="<|video_pad|>",
        vision_start_token_id="<|vision_start|>",
        vision_end_token_id="<|vision_end|>",
    )


def _qwen_rope(hidden: int) -> dict[str, Any]:
    pairs = hidden // 8  # of a head of hidden / 4
    section = [pairs - 2 * (pairs // 3), pairs // 3, pairs // 3]
    return {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": section}


def _qwen_processor(processor: type, video: type, tokens: PreTrainedTokenizerFast, patch: int = 14) -> Any:
    pixels = {
        "patch_size": patch,
        "size": {"shortest_edge": (2 * patch) ** 2, "longest_edge": 4096 * (2 * patch) ** 2},
    }
    template = TEMPLATE.replace("IMAGE", "<|vision_start|><|image_pad|><|vision_end|>")
    return processor(Qwen2VLImageProcessor(**pixels), tokens, video(), chat_template=template)


def _qwen2_5_vl(hidden: int, layers: int, vocabulary: int) -> tuple[Any, Any]:
    tokens = tokenizer(vocabulary)
    vision = {
        "depth": 2,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_heads": 2,
        "out_hidden_size": hidden,
        "fullatt_block_indexes": [1],
    }
    text = {**_text(hidden, layers, vocabulary, tokens), "rope_parameters": _qwen_rope(hidden)}
    config = Qwen2_5_VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=False, **_qwen_ids(tokens))
    return Qwen2_5_VLForConditionalGeneration(config), _qwen_processor(
        Qwen2_5_VLProcessor, Qwen2VLVideoProcessor, tokens
    )


def _qwen2_vl(hidden: int, layers: int, vocabulary: int) -> tuple[Any, Any]:
    tokens = tokenizer(vocabulary)
    vision = {"depth": 2, "embed_dim": 32, "hidden_size": hidden, "num_heads": 2, "mlp_ratio": 2}
    text = {**_text(hidden, layers, vocabulary, tokens), "rope_parameters": _qwen_rope(hidden)}
    config = Qwen2VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=True, **_qwen_ids(tokens))
    return Qwen2VLForConditionalGeneration(config), _qwen_processor(Qwen2VLProcessor, Qwen2VLVideoProcessor, tokens)


def _qwen3_vl(hidden: int, layers: int, vocabulary: int) -> tuple[Any, Any]:
    tokens = tokenizer(vocabulary)
    vision = {
        "depth": 3,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_heads": 2,
        "out_hidden_size": hidden,
        "num_position_embeddings": 64,
        "deepstack_visual_indexes": [0, 1],
    }
    text = {
        **_text(hidden, layers, vocabulary, tokens),
        "head_dim": hidden // 4,
        "rope_parameters": {**_qwen_rope(hidden), "mrope_interleaved": True},
    }
    config = Qwen3VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=False, **_qwen_ids(tokens))
    return Qwen3VLForConditionalGeneration(config), _qwen_processor(
        Qwen3VLProcessor, Qwen3VLVideoProcessor, tokens, patch=16
    )


def _llava_onevision(hidden: int, layers: int, vocabulary: int) -> tuple[Any, Any]:
    tokens = tokenizer(vocabulary)
    size, pinpoints = 28, [[28, 56], [56, 28], [56, 56]]
    vision = SiglipVisionConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=size,
        patch_size=14,
        vision_use_head=False,
    )
    config = LlavaOnevisionConfig(
        vision_config=vision,
        text_config=Qwen2Config(**_text(hidden, layers, vocabulary, tokens)),
        image_grid_pinpoints=pinpoints,
        **_ids(tokens, image_token_index="<image>", video_token_index="<video>"),
    )
    processor = LlavaOnevisionProcessor(
        LlavaOnevisionImageProcessor(size={"height": size, "width": size}, image_grid_pinpoints=pinpoints),
        tokens,
        LlavaOnevisionVideoProcessor(),
        num_image_tokens=4,
        vision_feature_select_strategy="full",
        chat_template=TEMPLATE.replace("IMAGE", "<image>"),
    )
    return LlavaOnevisionForConditionalGeneration(config), processor


def _internvl(hidden: int, layers: int, vocabulary: int) -> tuple[Any, Any]:
    tokens = tokenizer(
        vocabulary,
        start_image_token="<img>",
        end_image_token="</img>",
        context_image_token="<IMG_CONTEXT>",
        video_token="<video>",
    )
    vision = InternVLVisionConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=[28, 28],
        patch_size=[7, 7],
    )
    config = InternVLConfig(
        vision_config=vision,
        text_config=Qwen2Config(**_text(hidden, layers, vocabulary, tokens)),
        image_seq_length=4,
        **_ids(tokens, image_token_id="<IMG_CONTEXT>"),
    )
    processor = InternVLProcessor(
        GotOcr2ImageProcessor(size={"height": 28, "width": 28}, crop_to_patches=True, max_patches=4),
        tokens,
        InternVLVideoProcessor(),
        image_seq_length=4,
        chat_template=TEMPLATE.replace("IMAGE", "<IMG_CONTEXT>"),
    )
    return InternVLForConditionalGeneration(config), processor


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
