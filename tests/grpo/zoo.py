"""Further families of transformers as small random models: one builder each, by the name of its `model_type`.

Classes are looked up when a model is built: not every version of transformers has all of them.
"""

from __future__ import annotations

from typing import Any

import transformers as hf
from tiny import TEMPLATE, _ids, _qwen_ids, _qwen_processor, _qwen_rope, _text, tokenizer

SIGLIP = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}


def _build(family: str, processor: Any, **config: Any) -> tuple[Any, Any]:
    return hf.AutoModelForImageTextToText.from_config(hf.AutoConfig.for_model(family, **config)), processor


def _template(image: str) -> str:
    return TEMPLATE.replace("IMAGE", image)


def _llama(hidden: int, layers: int, vocabulary: int, tokens: Any, model_type: str = "llama") -> dict[str, Any]:
    return {"model_type": model_type, **_text(hidden, layers, vocabulary, tokens)}


# Vision and language


def llava(hidden: int, layers: int, vocabulary: int) -> tuple[Any, Any]:
    tokens = tokenizer(vocabulary)
    processor = hf.LlavaProcessor(
        hf.LlavaImageProcessor(size={"height": 28, "width": 28}, crop_size={"height": 28, "width": 28}),
        tokens,
        patch_size=14,
        vision_feature_select_strategy="full",
        chat_template=_template("<image>"),
    )
    return _build(
        "llava",
        processor,
        vision_config={"model_type": "siglip_vision_model", "vision_use_head": False, **SIGLIP},
        text_config=_llama(hidden, layers, vocabulary, tokens),
        vision_feature_select_strategy="full",
        vision_feature_layer=-1,
        **_ids(tokens, image_token_index="<image>"),
    )


def llava_next(hidden: int, layers: int, vocabulary: int) -> tuple[Any, Any]:
    tokens = tokenizer(vocabulary)
    pinpoints = [[28, 56], [56, 28], [56, 56]]
    size = {"height": 28, "width": 28}
    processor = hf.LlavaNextProcessor(
        hf.LlavaNextImageProcessor(size={"shortest_edge": 28}, crop_size=size, image_grid_pinpoints=pinpoints),
        tokens,
        patch_size=14,
        vision_feature_select_strategy="full",
        chat_template=_template("<image>"),
    )
    return _build(
        "llava_next",
        processor,
        vision_config={"model_type": "siglip_vision_model", "vision_use_head": False, **SIGLIP},
        text_config=_llama(hidden, layers, vocabulary, tokens, "mistral") | {"sliding_window": None},
        image_grid_pinpoints=pinpoints,
        vision_feature_select_strategy="full",
        vision_feature_layer=-1,
        **_ids(tokens, image_token_index="<image>"),
    )


def mistral3(hidden: int, layers: int, vocabulary: int) -> tuple[Any, Any]:
    tokens = tokenizer(vocabulary, ("[IMG]", "[IMG_BREAK]", "[IMG_END]"))
    processor = hf.PixtralProcessor(
        hf.PixtralImageProcessor(size={"longest_edge": 56}, patch_size={"height": 14, "width": 14}),
        tokens,
        patch_size=14,
        spatial_merge_size=2,
        chat_template=_template("[IMG]"),
    )
    vision = {k: v for k, v in SIGLIP.items() if k != "image_size"}
    return _build(
        "mistral3",
        processor,
        vision_config={"model_type": "pixtral", **vision, "image_size": 56},
        text_config=_llama(hidden, layers, vocabulary, tokens, "mistral") | {"sliding_window": None},
        spatial_merge_size=2,
        tie_word_embeddings=False,
        **_ids(tokens, image_token_index="[IMG]"),
    )


IDEFICS = ("<fake_token_around_image>", "<end_of_utterance>", "<global-img>")


def _idefics(family: str, hidden: int, layers: int, vocabulary: int) -> tuple[Any, Any]:
    tokens = tokenizer(vocabulary, IDEFICS)
    pixels = {"size": {"longest_edge": 56}, "max_image_size": {"longest_edge": 56}}
    given = {"image_seq_len": 4, "chat_template": _template("<image>")}
    if family == "idefics3":
        processor: Any = hf.Idefics3Processor(hf.Idefics3ImageProcessor(**pixels), tokens, **given)
    else:
        video = hf.SmolVLMVideoProcessor()
        processor = hf.SmolVLMProcessor(hf.SmolVLMImageProcessor(**pixels), tokens, video, **given)
    return _build(
        family,
        processor,
        vision_config={**SIGLIP, "image_size": 56},
        text_config=_llama(hidden, layers, vocabulary, tokens),
        scale_factor=2,
        **_ids(tokens, image_token_id="<image>"),
    )


def idefics3(hidden: int, layers: int, vocabulary: int) -> tuple[Any, Any]:
    return _idefics("idefics3", hidden, layers, vocabulary)


def smolvlm(hidden: int, layers: int, vocabulary: int) -> tuple[Any, Any]:
    return _idefics("smolvlm", hidden, layers, vocabulary)


def qwen3_5(hidden: int, layers: int, vocabulary: int) -> tuple[Any, Any]:
    tokens = tokenizer(vocabulary)
    vision = {
        "depth": 2,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_heads": 2,
        "out_hidden_size": hidden,
        "num_position_embeddings": 64,
    }
    rope = {**_qwen_rope(hidden), "mrope_interleaved": True, "partial_rotary_factor": 1.0}
    text = {
        **_text(hidden, 2, vocabulary, tokens),
        "head_dim": hidden // 4,
        "rope_parameters": rope,
        "linear_key_head_dim": 8,
        "linear_value_head_dim": 8,
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 4,
        "layer_types": ["linear_attention", "full_attention"],
    }
    processor = _qwen_processor(hf.Qwen3VLProcessor, hf.Qwen3VLVideoProcessor, tokens, patch=16)
    return _build("qwen3_5", processor, text_config=text, vision_config=vision, **_qwen_ids(tokens))


def qwen3_vl_moe(hidden: int, layers: int, vocabulary: int) -> tuple[Any, Any]:
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
        "moe_intermediate_size": 32,
        "num_experts": 4,
        "num_experts_per_tok": 2,
    }
    processor = _qwen_processor(hf.Qwen3VLProcessor, hf.Qwen3VLVideoProcessor, tokens, patch=16)
    return _build("qwen3_vl_moe", processor, text_config=text, vision_config=vision, **_qwen_ids(tokens))


def glm46v(hidden: int, layers: int, vocabulary: int) -> tuple[Any, Any]:
    special = ("<|image|>", "<|video|>", "<|begin_of_image|>", "<|end_of_image|>")
    tokens = tokenizer(vocabulary, (*special, "<|begin_of_video|>", "<|end_of_video|>"))
    vision = {
        "depth": 2,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_heads": 2,
        "out_hidden_size": hidden,
        "image_size": 56,
    }
    pairs = hidden // 8
    section = [pairs - 2 * (pairs // 3), pairs // 3, pairs // 3]
    text = {
        **_text(hidden, layers, vocabulary, tokens),
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 10000.0,
            "mrope_section": section,
            "partial_rotary_factor": 1.0,
        },
    }
    pixels = hf.Glm46VImageProcessor(size={"shortest_edge": 28 * 28, "longest_edge": 28 * 28 * 64})
    image = "<|begin_of_image|><|image|><|end_of_image|>"
    processor = hf.Glm46VProcessor(pixels, tokens, hf.Glm46VVideoProcessor(), chat_template=_template(image))
    return _build(
        "glm46v",
        processor,
        text_config=text,
        vision_config=vision,
        **_ids(
            tokens,
            image_token_id="<|image|>",
            video_token_id="<|video|>",
            image_start_token_id="<|begin_of_image|>",
            image_end_token_id="<|end_of_image|>",
            video_start_token_id="<|begin_of_video|>",
            video_end_token_id="<|end_of_video|>",
        ),
    )


def gemma3(hidden: int, layers: int, vocabulary: int) -> tuple[Any, Any]:
    special = ("<start_of_image>", "<end_of_image>", "<image_soft_token>")
    names = dict(zip(("boi_token", "eoi_token", "image_token"), special, strict=True))
    tokens = tokenizer(vocabulary, special, **names)
    processor = hf.Gemma3Processor(
        hf.Gemma3ImageProcessor(size={"height": 28, "width": 28}),
        tokens,
        image_seq_length=4,
        chat_template=_template("<start_of_image>"),
    )
    text = {
        **_text(hidden, layers, vocabulary, tokens),
        "head_dim": hidden // 4,
        "query_pre_attn_scalar": hidden // 4,
        "sliding_window": 16,
        "layer_types": ["sliding_attention", "full_attention"],
    }
    return _build(
        "gemma3",
        processor,
        text_config=text,
        vision_config={"model_type": "siglip_vision_model", "vision_use_head": False, **SIGLIP, "patch_size": 7},
        mm_tokens_per_image=4,
        **_ids(
            tokens,
            boi_token_index="<start_of_image>",
            eoi_token_index="<end_of_image>",
            image_token_index="<image_soft_token>",
        ),
    )


def gemma4(hidden: int, layers: int, vocabulary: int) -> tuple[Any, Any]:
    special = ("<|image>", "<image|>", "<|image|>", "<|video|>", "<|audio>", "<audio|>", "<|audio|>")
    names = ("boi_token", "eoi_token", "image_token", "video_token", "boa_token", "eoa_token", "audio_token")
    tokens = tokenizer(vocabulary, special, **dict(zip(names, special, strict=True)))
    processor = hf.Gemma4Processor(
        hf.Gemma4AudioFeatureExtractor(),
        hf.Gemma4ImageProcessor(patch_size=4, max_soft_tokens=70, pooling_kernel_size=3),
        tokens,
        hf.Gemma4VideoProcessor(),
        image_seq_length=70,
        chat_template=_template("<|image|>"),
    )
    text = {
        **_text(hidden, layers, vocabulary, tokens),
        "head_dim": hidden // 4,
        "global_head_dim": hidden // 4,
        "sliding_window": 16,
        "layer_types": ["sliding_attention", "full_attention"],
        "vocab_size_per_layer_input": vocabulary,
        "hidden_size_per_layer_input": 8,
    }
    vision = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "patch_size": 4,
        "position_embedding_size": 256,
    }
    return _build(
        "gemma4",
        processor,
        text_config=text,
        vision_config=vision,
        audio_config=None,
        **_ids(
            tokens,
            boi_token_id="<|image>",
            eoi_token_id="<image|>",
            image_token_id="<|image|>",
            video_token_id="<|video|>",
            boa_token_id="<|audio>",
            eoa_token_index="<audio|>",
            audio_token_id="<|audio|>",
        ),
    )


def paligemma(hidden: int, layers: int, vocabulary: int) -> tuple[Any, Any]:
    tokens = tokenizer(vocabulary, image_token="<image>")
    tokens.bos_token = "<|im_start|>"
    pixels = hf.SiglipImageProcessor(size={"height": 28, "width": 28})
    pixels.image_seq_length = 4
    processor = hf.PaliGemmaProcessor(pixels, tokens, chat_template=_template("<image>"))
    return _build(
        "paligemma",
        processor,
        vision_config={"model_type": "siglip_vision_model", "vision_use_head": False, **SIGLIP},
        text_config={
            "model_type": "gemma",
            **_text(hidden, layers, vocabulary, tokens),
            "head_dim": hidden // 4,
        },
        projection_dim=hidden,
        **_ids(tokens, image_token_index="<image>"),
    )


def lfm2_vl(hidden: int, layers: int, vocabulary: int) -> tuple[Any, Any]:
    tokens = tokenizer(vocabulary, ("<|image_start|>", "<|image_end|>", "<|img_thumbnail|>"))
    processor = hf.Lfm2VlProcessor(
        hf.Lfm2VlImageProcessor(
            tile_size=32, min_image_tokens=1, max_image_tokens=4, encoder_patch_size=8, max_tiles=4, min_tiles=2
        ),
        tokens,
        chat_template=_template("<image>"),
    )
    return _build(
        "lfm2_vl",
        processor,
        text_config={
            "model_type": "lfm2",
            **_text(hidden, layers, vocabulary, tokens),
            "layer_types": ["conv", "full_attention"],
            "block_auto_adjust_ff_dim": False,
        },
        vision_config={
            "model_type": "siglip2_vision_model",
            **{key: value for key, value in SIGLIP.items() if key != "image_size"},
            "patch_size": 8,
            "num_patches": 16,
            "vision_use_head": False,
        },
        projector_hidden_size=32,
        **_ids(tokens, image_token_id="<image>"),
    )


def kimi_k25(hidden: int, layers: int, vocabulary: int) -> tuple[Any, Any]:
    tokens = tokenizer(
        vocabulary, ("<|media_pad|>", "<|kimi_k25_video_placeholder|>", "<|media_begin|>", "<|media_end|>")
    )
    image = "<|media_begin|><|media_pad|><|media_end|>"
    processor = hf.Kimi_K25Processor(
        hf.Kimi_K25ImageProcessor(), tokens, hf.Kimi_K25VideoProcessor(), chat_template=_template(image)
    )
    text = {
        "model_type": "deepseek_v3",
        **_text(hidden, layers, vocabulary, tokens),
        "num_key_value_heads": 4,
        "moe_intermediate_size": 32,
        "n_routed_experts": 4,
        "num_experts_per_tok": 2,
        "n_group": 1,
        "topk_group": 1,
        "n_shared_experts": 1,
        "first_k_dense_replace": 1,
        "kv_lora_rank": 16,
        "q_lora_rank": 16,
        "qk_rope_head_dim": 8,
        "qk_nope_head_dim": 8,
        "v_head_dim": 8,
    }
    vision = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "pos_emb_height": 8,
        "pos_emb_width": 8,
    }
    return _build(
        "kimi_k25",
        processor,
        text_config=text,
        vision_config=vision,
        projection_hidden_size=32,
        **_ids(
            tokens,
            image_token_id="<|media_pad|>",
            video_token_id="<|kimi_k25_video_placeholder|>",
            vision_start_token_id="<|media_begin|>",
            vision_end_token_id="<|media_end|>",
        ),
    )


def minicpmv4_6(hidden: int, layers: int, vocabulary: int) -> tuple[Any, Any]:
    special = (
        "<|image|>",
        "<|video|>",
        "<image_start>",
        "<image_end>",
        "<slice>",
        "</slice>",
        "<image_id>",
        "</image_id>",
    )
    names = (
        "image",
        "video",
        "image_start",
        "image_end",
        "slice_start",
        "slice_end",
        "image_id_start",
        "image_id_end",
    )
    tokens = tokenizer(vocabulary, special, **{f"{n}_token": word for n, word in zip(names, special, strict=True)})
    pixels = {"scale_resolution": 56, "patch_size": 14, "max_slice_nums": 2}
    processor = hf.MiniCPMV4_6Processor(
        hf.MiniCPMV4_6ImageProcessor(**pixels),
        hf.MiniCPMV4_6VideoProcessor(),
        tokens,
        chat_template=_template("<|image|>"),
    )
    model, _ = qwen3_5(hidden, layers, vocabulary)
    return _build(
        "minicpmv4_6",
        processor,
        text_config=model.config.text_config.to_dict(),
        vision_config={**SIGLIP, "image_size": 56, "insert_layer_id": 1},
        insert_layer_id=1,
        **_ids(tokens, image_token_id="<|image|>", video_token_id="<|video|>"),
    )


# Language alone


def _causal(family: str, hidden: int, layers: int, vocabulary: int, **config: Any) -> tuple[Any, Any]:
    tokens = tokenizer(vocabulary)
    tokens.chat_template = TEMPLATE
    text = {**_text(hidden, layers, vocabulary, tokens), **config}
    return hf.AutoModelForCausalLM.from_config(hf.AutoConfig.for_model(family, **text)), tokens


def qwen2(hidden: int, layers: int, vocabulary: int) -> tuple[Any, Any]:
    return _causal("qwen2", hidden, layers, vocabulary)


def qwen3(hidden: int, layers: int, vocabulary: int) -> tuple[Any, Any]:
    return _causal("qwen3", hidden, layers, vocabulary, head_dim=hidden // 4)


def llama(hidden: int, layers: int, vocabulary: int) -> tuple[Any, Any]:
    return _causal("llama", hidden, layers, vocabulary)


def mistral(hidden: int, layers: int, vocabulary: int) -> tuple[Any, Any]:
    return _causal("mistral", hidden, layers, vocabulary, sliding_window=None)
