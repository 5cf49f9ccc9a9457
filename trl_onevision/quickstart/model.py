"""A Qwen2.5-VL of about a million parameters: real architecture and processor, random weights, a small tokenizer."""

import json
from collections.abc import Iterable

import torch
from tokenizers import Regex, Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel, Sequence, Split
from tokenizers.trainers import BpeTrainer
from transformers import (
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2Tokenizer,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
)
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

from trl_onevision.quickstart.digits import rows

SPECIAL_TOKENS = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
]

TAGS = ["<think>", "</think>", "<answer>", "</answer>"]
"""Whole tokens, as a reasoning model has them: three or four fewer in a completion of a dozen."""

CHAT_TEMPLATE = """\
{%- for message in messages -%}
<|im_start|>{{ message['role'] + '\n' }}
{%- if message['content'] is string -%}
{{ message['content'] }}
{%- else -%}
{%- for block in message['content'] -%}
{%- if block['type'] == 'image' -%}<|vision_start|><|image_pad|><|vision_end|>
{%- else -%}{{ block['text'] }}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
<|im_end|>{{ '\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}<|im_start|>assistant{{ '\n' }}{%- endif -%}"""
"""Qwen's turns without its default system message, which would only cost a small model tokens."""


def build_tokenizer(texts: Iterable[str]) -> Qwen2Tokenizer:
    """A Qwen2 tokenizer, digits apart as in the original, whose few merges are learned from `texts`.

    >>> tokenizer = build_tokenizer(["Locate the digit 4.", "Locate the digit 2."])
    >>> tokenizer.tokenize("Locate 42")
    ['Locate', 'Ġ', '4', '2']
    """
    tokenizer = Tokenizer(BPE())
    split = Split(Regex(PRETOKENIZE_REGEX), behavior="isolated")
    tokenizer.pre_tokenizer = Sequence([split, ByteLevel(add_prefix_space=False, use_regex=False)])
    trainer = BpeTrainer(
        vocab_size=384, special_tokens=SPECIAL_TOKENS, initial_alphabet=ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    learned = json.loads(tokenizer.to_str())["model"]
    made = Qwen2Tokenizer(
        vocab=learned["vocab"],
        merges=[tuple(pair) for pair in learned["merges"]],  # type: ignore[misc]  # annotated as text, needed as pairs
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens=SPECIAL_TOKENS[1:],
    )
    made.add_tokens(TAGS)  # not special ones, which decoding leaves out
    return made


def build_processor() -> Qwen2_5_VLProcessor:
    """Qwen2.5-VL's processor with a tokenizer learned from the quickstart's own sentences.

    >>> build_processor().tokenizer.tokenize("<|image_pad|>Locate the digit 7.")
    ['<|image_pad|>', 'Locate', 'Ġthe', 'Ġdigit', 'Ġ', '7', '.']
    """
    turns = [turn["content"] for row in rows("sft", 64) for turn in row["prompt"] + row["completion"]]
    return Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(min_pixels=28 * 28, max_pixels=512 * 28 * 28),
        tokenizer=build_tokenizer([*turns, "user\nassistant\n"]),
        video_processor=Qwen2VLVideoProcessor(),
        chat_template=CHAT_TEMPLATE,
    )


def build_model(processor: Qwen2_5_VLProcessor, seed: int = 0) -> Qwen2_5_VLForConditionalGeneration:
    """Qwen2.5-VL at a width that trains on a CPU in minutes, with random weights drawn from `seed`."""
    token_id = processor.tokenizer.convert_tokens_to_ids
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(processor.tokenizer),
            "hidden_size": 128,
            "intermediate_size": 384,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 1024,
            # The columns of an image turn with the lowest frequencies. At the usual base of a million, the few columns
            # here are one and the same to the model, and it cannot say where a digit is.
            "rope_parameters": {"rope_type": "default", "rope_theta": 2.0, "mrope_section": [4, 6, 6]},
            "bos_token_id": None,
            "eos_token_id": token_id("<|im_end|>"),
            "pad_token_id": token_id("<|endoftext|>"),
            # The usual 0.02 is for wide models; at this width it learns far slower.
            "initializer_range": 0.08,
        },
        vision_config={
            "depth": 2,
            "hidden_size": 96,
            "intermediate_size": 192,
            "num_heads": 4,
            "out_hidden_size": 128,
            "fullatt_block_indexes": [1],
            "initializer_range": 0.08,
        },
        image_token_id=token_id("<|image_pad|>"),
        video_token_id=token_id("<|video_pad|>"),
        vision_start_token_id=token_id("<|vision_start|>"),
        vision_end_token_id=token_id("<|vision_end|>"),
        tie_word_embeddings=True,
    )
    torch.manual_seed(seed)
    return Qwen2_5_VLForConditionalGeneration(config)
