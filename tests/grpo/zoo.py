"""Families of transformers as small random models: one builder each, by the name of its `model_type`.

Classes are looked up when a model is built: not every version of transformers has all of them.
"""

from __future__ import annotations

from typing import Any

import transformers as hf
from tiny import tokenizer

TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}IMAGE{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
VIT = {"hidden_size": 32, "intermediate_size": 64}
QWEN_VIT = {**VIT, "depth": 2, "num_heads": 2}
SIGLIP = {**VIT, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 28, "patch_size": 14}
SIGLIP_TOWER = {"model_type": "siglip_vision_model", "vision_use_head": False, **SIGLIP}
SIDE = {"height": 28, "width": 28}
PINPOINTS = [[28, 56], [56, 28], [56, 56]]


def text(hidden: int, layers: int, vocabulary: int, tokens: Any, **more: Any) -> dict[str, Any]:
    """The config of a language model, and `more` of it."""
    return {
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 8192,
        "hidden_size": hidden,
        "intermediate_size": 2 * hidden,
        "vocab_size": vocabulary,
        "bos_token_id": None,
        "eos_token_id": tokens.eos_token_id,
        "pad_token_id": tokens.pad_token_id,
        **more,
    }


def _ids(tokens: Any, **names: str) -> dict[str, int]:
    return {key: tokens.convert_tokens_to_ids(word) for key, word in names.items()}


def _build(family: str, processor: Any, **config: Any) -> tuple[Any, Any]:
    return hf.AutoModelForImageTextToText.from_config(hf.AutoConfig.for_model(family, **config)), processor


def _template(image: str) -> str:
    return TEMPLATE.replace("IMAGE", image)


# Qwen's vision and language, and what shares its positions


def qwen_ids(tokens: Any) -> dict[str, int]:
    """The tokens that stand for and around images and videos, as Qwen's configs name them."""
    return _ids(
        tokens,
        image_token_id="<|image_pad|>",
        video_token_id="<|video_pad|>",
        vision_start_token_id="<|vision_start|>",
        vision_end_token_id="<|vision_end|>",
    )


def _rope(hidden: int, **more: Any) -> dict[str, Any]:
    pairs = hidden // 8  # of a head of hidden / 4
    section = [pairs - 2 * (pairs // 3), pairs // 3, pairs // 3]
    return {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": section, **more}


def _qwen_processor(processor: type, video: type, tokens: Any, patch: int = 14) -> Any:
    size = {"shortest_edge": (2 * patch) ** 2, "longest_edge": 4096 * (2 * patch) ** 2}
    template = _template("<|vision_start|><|image_pad|><|vision_end|>")
    return processor(hf.Qwen2VLImageProcessor(patch_size=patch, size=size), tokens, video(), chat_template=template)


def _qwen2(family: str, processor: type, vision: dict[str, Any], *size: int, tie: bool) -> tuple[Any, Any]:
    tokens = tokenizer(size[2])
    return _build(
        family,
        _qwen_processor(processor, hf.Qwen2VLVideoProcessor, tokens),
        text_config=text(*size, tokens, rope_parameters=_rope(size[0])),
        vision_config=vision,
        tie_word_embeddings=tie,
        **qwen_ids(tokens),
    )


def qwen2_5_vl(hidden: int, layers: int, vocabulary: int) -> tuple[Any, Any]:
    vision = {**QWEN_VIT, "out_hidden_size": hidden, "fullatt_block_indexes": [1]}
    return _qwen2("qwen2_5_vl", hf.Qwen2_5_VLProcessor, vision, hidden, layers, vocabulary, tie=False)


def qwen2_vl(hidden: int, layers: int, vocabulary: int) -> tuple[Any, Any]:
    vision = {"depth": 2, "embed_dim": 32, "hidden_size": hidden, "num_heads": 2, "mlp_ratio": 2}
    return _qwen2("qwen2_vl", hf.Qwen2VLProcessor, vision, hidden, layers, vocabulary, tie=True)


def _qwen3(family: str, vision: dict[str, Any], rope: dict[str, Any], *size: int, **more: Any) -> tuple[Any, Any]:
    hidden, _, vocabulary = size
    tokens = tokenizer(vocabulary)
    rope = _rope(hidden, mrope_interleaved=True, **rope)
    return _build(
        family,
        _qwen_processor(hf.Qwen3VLProcessor, hf.Qwen3VLVideoProcessor, tokens, patch=16),
        text_config=text(*size, tokens, head_dim=hidden // 4, rope_parameters=rope, **more),
        vision_config={**QWEN_VIT, "out_hidden_size": hidden, "num_position_embeddings": 64, **vision},
        tie_word_embeddings=False,
        **qwen_ids(tokens),
    )


DEEPSTACK = {"depth": 3, "deepstack_visual_indexes": [0, 1]}


def qwen3_vl(hidden: int, layers: int, vocabulary: int) -> tuple[Any, Any]:
    return _qwen3("qwen3_vl", DEEPSTACK, {}, hidden, layers, vocabulary)


def qwen3_vl_moe(hidden: int, layers: int, vocabulary: int) -> tuple[Any, Any]:
    experts = {"moe_intermediate_size": 32, "num_experts": 4, "num_experts_per_tok": 2}
    return _qwen3("qwen3_vl_moe", DEEPSTACK, {}, hidden, layers, vocabulary, **experts)


def qwen3_5(hidden: int, layers: int, vocabulary: int) -> tuple[Any, Any]:
    linear = {"linear_key_head_dim": 8, "linear_value_head_dim": 8}
    linear |= {"linear_num_key_heads": 2, "linear_num_value_heads": 4}
    kinds = ["linear_attention", "full_attention"]
    rope = {"partial_rotary_factor": 1.0}
    return _qwen3("qwen3_5", {}, rope, hidden, 2, vocabulary, **linear, layer_types=kinds)


def glm46v(hidden: int, layers: int, vocabulary: int) -> tuple[Any, Any]:
    special = ("<|image|>", "<|video|>", "<|begin_of_image|>", "<|end_of_image|>")
    tokens = tokenizer(vocabulary, (*special, "<|begin_of_video|>", "<|end_of_video|>"))
    pixels = hf.Glm46VImageProcessor(size={"shortest_edge": 28 * 28, "longest_edge": 28 * 28 * 64})
    image = "<|begin_of_image|><|image|><|end_of_image|>"
    return _build(
        "glm46v",
        hf.Glm46VProcessor(pixels, tokens, hf.Glm46VVideoProcessor(), chat_template=_template(image)),
        text_config=text(hidden, layers, vocabulary, tokens, rope_parameters=_rope(hidden, partial_rotary_factor=1.0)),
        vision_config={**QWEN_VIT, "out_hidden_size": hidden, "image_size": 56},
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


# Other vision and language


def llava_onevision(hidden: int, layers: int, vocabulary: int) -> tuple[Any, Any]:
    tokens = tokenizer(vocabulary)
    return _build(
        "llava_onevision",
        hf.LlavaOnevisionProcessor(
            hf.LlavaOnevisionImageProcessor(size=SIDE, image_grid_pinpoints=PINPOINTS),
            tokens,
            hf.LlavaOnevisionVideoProcessor(),
            num_image_tokens=4,
            vision_feature_select_strategy="full",
            chat_template=_template("<image>"),
        ),
        vision_config=SIGLIP_TOWER,
        text_config=text(hidden, layers, vocabulary, tokens, model_type="qwen2"),
        image_grid_pinpoints=PINPOINTS,
        **_ids(tokens, image_token_index="<image>", video_token_index="<video>"),
    )


def internvl(hidden: int, layers: int, vocabulary: int) -> tuple[Any, Any]:
    special = {"start_image_token": "<img>", "end_image_token": "</img>", "context_image_token": "<IMG_CONTEXT>"}
    tokens = tokenizer(vocabulary, **special, video_token="<video>")
    return _build(
        "internvl",
        hf.InternVLProcessor(
            hf.GotOcr2ImageProcessor(size=SIDE, crop_to_patches=True, max_patches=4),
            tokens,
            hf.InternVLVideoProcessor(),
            image_seq_length=4,
            chat_template=_template("<IMG_CONTEXT>"),
        ),
        vision_config={**SIGLIP, "image_size": [28, 28], "patch_size": [7, 7]},
        text_config=text(hidden, layers, vocabulary, tokens, model_type="qwen2"),
        image_seq_length=4,
        **_ids(tokens, image_token_id="<IMG_CONTEXT>"),
    )


def llava(hidden: int, layers: int, vocabulary: int) -> tuple[Any, Any]:
    tokens = tokenizer(vocabulary)
    processor = hf.LlavaProcessor(
        hf.LlavaImageProcessor(size=SIDE, crop_size=SIDE),
        tokens,
        patch_size=14,
        vision_feature_select_strategy="full",
        chat_template=_template("<image>"),
    )
    return _build(
        "llava",
        processor,
        vision_config=SIGLIP_TOWER,
        text_config=text(hidden, layers, vocabulary, tokens, model_type="llama"),
        vision_feature_select_strategy="full",
        vision_feature_layer=-1,
        **_ids(tokens, image_token_index="<image>"),
    )


def llava_next(hidden: int, layers: int, vocabulary: int) -> tuple[Any, Any]:
    tokens = tokenizer(vocabulary)
    processor = hf.LlavaNextProcessor(
        hf.LlavaNextImageProcessor(size={"shortest_edge": 28}, crop_size=SIDE, image_grid_pinpoints=PINPOINTS),
        tokens,
        patch_size=14,
        vision_feature_select_strategy="full",
        chat_template=_template("<image>"),
    )
    return _build(
        "llava_next",
        processor,
        vision_config=SIGLIP_TOWER,
        text_config=text(hidden, layers, vocabulary, tokens, model_type="mistral", sliding_window=None),
        image_grid_pinpoints=PINPOINTS,
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
        text_config=text(hidden, layers, vocabulary, tokens, model_type="mistral", sliding_window=None),
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
        text_config=text(hidden, layers, vocabulary, tokens, model_type="llama"),
        scale_factor=2,
        **_ids(tokens, image_token_id="<image>"),
    )


def idefics3(hidden: int, layers: int, vocabulary: int) -> tuple[Any, Any]:
    return _idefics("idefics3", hidden, layers, vocabulary)


def smolvlm(hidden: int, layers: int, vocabulary: int) -> tuple[Any, Any]:
    return _idefics("smolvlm", hidden, layers, vocabulary)


def gemma3(hidden: int, layers: int, vocabulary: int) -> tuple[Any, Any]:
    special = ("<start_of_image>", "<end_of_image>", "<image_soft_token>")
    names = dict(zip(("boi_token", "eoi_token", "image_token"), special, strict=True))
    tokens = tokenizer(vocabulary, special, **names)
    processor = hf.Gemma3Processor(
        hf.Gemma3ImageProcessor(size=SIDE),
        tokens,
        image_seq_length=4,
        chat_template=_template("<start_of_image>"),
    )
    return _build(
        "gemma3",
        processor,
        text_config=text(
            *(hidden, layers, vocabulary, tokens),
            head_dim=hidden // 4,
            query_pre_attn_scalar=hidden // 4,
            sliding_window=16,
            layer_types=["sliding_attention", "full_attention"],
        ),
        vision_config={**SIGLIP_TOWER, "patch_size": 7},
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
    return _build(
        "gemma4",
        processor,
        text_config=text(
            *(hidden, layers, vocabulary, tokens),
            head_dim=hidden // 4,
            global_head_dim=hidden // 4,
            sliding_window=16,
            layer_types=["sliding_attention", "full_attention"],
            vocab_size_per_layer_input=vocabulary,
            hidden_size_per_layer_input=8,
        ),
        vision_config={
            **{key: value for key, value in SIGLIP.items() if key != "image_size"},
            "num_key_value_heads": 2,
            "head_dim": 16,
            "patch_size": 4,
            "position_embedding_size": 256,
        },
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
    pixels = hf.SiglipImageProcessor(size=SIDE)
    pixels.image_seq_length = 4
    processor = hf.PaliGemmaProcessor(pixels, tokens, chat_template=_template("<image>"))
    return _build(
        "paligemma",
        processor,
        vision_config=SIGLIP_TOWER,
        text_config=text(hidden, layers, vocabulary, tokens, model_type="gemma", head_dim=hidden // 4),
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
        text_config=text(
            *(hidden, layers, vocabulary, tokens),
            model_type="lfm2",
            layer_types=["conv", "full_attention"],
            block_auto_adjust_ff_dim=False,
        ),
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
    experts = {"moe_intermediate_size": 32, "n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 1}
    experts |= {"topk_group": 1, "n_shared_experts": 1, "first_k_dense_replace": 1}
    latent = {"kv_lora_rank": 16, "q_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8}
    heads = {"num_hidden_layers": 2, "num_attention_heads": 2}
    return _build(
        "kimi_k25",
        processor,
        text_config=text(
            *(hidden, layers, vocabulary, tokens),
            model_type="deepseek_v3",
            num_key_value_heads=4,
            **experts,
            **latent,
        ),
        vision_config={**VIT, **heads, "pos_emb_height": 8, "pos_emb_width": 8},
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
    config = text(hidden, layers, vocabulary, tokens, **config)
    return hf.AutoModelForCausalLM.from_config(hf.AutoConfig.for_model(family, **config)), tokens


def qwen2(hidden: int, layers: int, vocabulary: int) -> tuple[Any, Any]:
    return _causal("qwen2", hidden, layers, vocabulary)


def qwen3(hidden: int, layers: int, vocabulary: int) -> tuple[Any, Any]:
    return _causal("qwen3", hidden, layers, vocabulary, head_dim=hidden // 4)


def llama(hidden: int, layers: int, vocabulary: int) -> tuple[Any, Any]:
    return _causal("llama", hidden, layers, vocabulary)


def mistral(hidden: int, layers: int, vocabulary: int) -> tuple[Any, Any]:
    return _causal("mistral", hidden, layers, vocabulary, sliding_window=None)
