"""vLLM samples under the tokens that are trained on, with an image encoder as new as the rest of the weights.

TRL hands a colocated engine prompts in which the processor has expanded each image's placeholder already. The engine
expands it once more, and samples from another prompt than the one that is trained on
([issue 6294](https://github.com/huggingface/trl/issues/6294)); and it keeps the embeddings of an image over an update
of the weights ([issue 7198](https://github.com/huggingface/trl/issues/7198)). Both are mended at the engine's door.
Where TRL does so itself one day there is nothing left to mend: a collapsed prompt stays as it is, and so does an empty
cache.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby, takewhile
from typing import Any

from PIL import Image

from trl_onevision.grpo.freeze import trains_vision


@dataclass(frozen=True)
class ImageTokens:
    """How an image is written: `before`, `token_id` for each of its features, `after`; and `written` by the template.

    The first is what the processor makes of the second, and so does vLLM.
    """

    token_id: int
    before: tuple[int, ...]
    after: tuple[int, ...]
    written: tuple[int, ...]

    @classmethod
    def of(cls, processor: Any, token_id: int, **options: Any) -> ImageTokens:
        """Learn it from a conversation with one image; `options` are those of `apply_chat_template`."""
        content = [{"type": "image", "image": Image.new("RGB", (64, 64))}, {"type": "text", "text": "?"}]
        chat = [[{"role": "user", "content": content}]]
        text = processor.apply_chat_template(chat, tokenize=False, **options)[0]
        expanded = processor.apply_chat_template(chat, tokenize=True, return_dict=True, **options)["input_ids"][0]
        return cls.between(processor.tokenizer(text, add_special_tokens=False)["input_ids"], expanded, token_id)

    @classmethod
    def between(cls, template: list[int], expanded: list[int], token_id: int) -> ImageTokens:
        """Read it off one prompt with one image, as the template wrote it and as the processor expanded it.

        Raises `ValueError` where an image is written in several pieces.

        Example: 1 and 2 are text, 7 and 8 what InternVL puts around an image.

        ```python
        >>> ImageTokens.between([1, 9, 2], [1, 7, 9, 9, 9, 8, 2], token_id=9)
        ImageTokens(token_id=9, before=(7,), after=(8,), written=(9,))

        ```
        """
        first, last = expanded.index(token_id), len(expanded) - 1 - expanded[::-1].index(token_id)
        if any(token != token_id for token in expanded[first : last + 1]):
            raise ValueError(
                "vllm_mode: colocate cannot be held to the prompts that are trained on: this processor writes an "
                "image in several pieces, each of which vLLM takes for an image. Use transformers' generate."
            )
        head = _in_common(template[:-1], expanded[:first])
        tail = _in_common(template[:head:-1], expanded[:last:-1])
        return cls(
            token_id,
            before=tuple(expanded[head:first]),
            after=tuple(expanded[last + 1 : len(expanded) - tail]),
            written=tuple(template[head : len(template) - tail]),
        )

    def collapse(self, ids: list[int], images: int) -> list[int]:
        """The prompt as the template wrote it, from one with `images` expanded images; else what is given.

        Raises `ValueError` where some images, but not all, stand side by side, and could be told apart by no token.

        Example:

        ```python
        >>> qwen, internvl = ImageTokens(9, (), (), (9,)), ImageTokens(9, (7,), (8,), (9,))
        >>> qwen.collapse([1, 9, 9, 9, 2, 9, 9], images=2), qwen.collapse([1, 9, 2, 9], images=2)
        ([1, 9, 2, 9], [1, 9, 2, 9])
        >>> qwen.collapse([1, 9, 9, 9, 9, 2], images=2), internvl.collapse([1, 7, 9, 9, 8, 2], images=1)
        ([1, 9, 9, 2], [1, 9, 2])

        ```
        """
        runs, stop = [], 0
        for is_image, run in groupby(ids, key=self.token_id.__eq__):
            start, stop = stop, stop + len(list(run))
            if is_image:
                runs.append((start, stop))
        side_by_side = len(runs) == 1
        if len(runs) != images and not side_by_side:
            if ids.count(self.token_id) == images:
                return ids
            raise ValueError(
                f"A prompt has {images} images in {len(runs)} places: vLLM cannot be told which tokens are whose. Put "
                "all images of a prompt side by side, or text between each and the next."
            )
        for start, stop in reversed(runs):
            start, stop = start - len(self.before), stop + len(self.after)
            around = ids[max(start, 0) :][: len(self.before)], ids[stop - len(self.after) : stop]
            if around == (list(self.before), list(self.after)):
                ids = [*ids[:start], *self.written * (images if side_by_side else 1), *ids[stop:]]
        return ids


def make_exact(trainer: Any, token_id: int) -> None:
    """Make TRL's `VLLMGeneration` sample a completion under the tokens and the weights that it is trained under."""
    engine = trainer.vllm_generation
    engine.sync_weights = _and_no_stale_images(engine.sync_weights, trainer)
    if engine.mode == "colocate":
        image = ImageTokens.of(
            trainer.processing_class, token_id, chat_template=trainer.chat_template, **trainer.chat_template_kwargs
        )
        engine.llm.generate = _from_collapsed_prompts(engine.llm.generate, image)


def _and_no_stale_images(sync_weights: Callable[[], None], trainer: Any) -> Callable[[], None]:
    """`sync_weights`, with the engine's embeddings of images thrown away where other weights would give others."""
    engine, trained = trainer.vllm_generation, True  # a tower that is frozen now may have moved since the last push

    def sync() -> None:
        nonlocal trained
        sync_weights()
        before, trained = trained, trains_vision(trainer._base_model(trainer.model))
        if not (before or trained):
            return
        if engine.mode == "colocate":
            engine.llm.llm_engine.reset_encoder_cache()
        elif engine.accelerator.is_main_process:
            client = engine.vllm_client
            client.session.post(f"{client.base_url}/reset_encoder_cache").raise_for_status()

    return sync


def _from_collapsed_prompts(generate: Callable[..., list[Any]], image: ImageTokens) -> Callable[..., list[Any]]:
    """`LLM.generate`, which expands images that are expanded already and is sent each of G copies, without both."""

    def exact(prompts: Any, sampling_params: Any = None, **kwargs: Any) -> list[Any]:
        if not (isinstance(prompts, list) and all(isinstance(p, dict) and "prompt_token_ids" in p for p in prompts)):
            return generate(prompts, sampling_params, **kwargs)  # not TRL's
        groups = [[prompt] for prompt in prompts]
        if _may_repeat(sampling_params):
            groups = [list(group) for _, group in groupby(prompts, key=_identity)]
            sampling_params = [_repeat(sampling_params, len(group)) for group in groups]
        requests = [_collapse(group[0], image) for group in groups]
        answers = generate(requests, sampling_params, **kwargs)
        outputs = []
        for group, request, answer in zip(groups, requests, answers, strict=True):
            if request is not group[0]:
                _check_seen(group[0]["prompt_token_ids"], answer.prompt_token_ids)
            outputs += [answer] if len(group) == 1 else [_with_one(answer, output) for output in answer.outputs]
        return outputs

    return exact


def _may_repeat(params: Any) -> bool:
    """Whether a request for n completions is n requests for one: not where each draws from one and the same seed."""
    return not isinstance(params, Sequence) and params.n == 1 and params.sampling_type.name == "RANDOM"


def _in_common(a: list[int], b: list[int]) -> int:
    """How many elements two lists have in common, counted from their start."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(a, b, strict=False)))


def _repeat(params: Any, n: int) -> Any:
    repeated = copy.copy(params)
    repeated.n = n
    return repeated


def _with_one(answer: Any, output: Any) -> Any:
    one = copy.copy(answer)
    one.outputs = [output]
    return one


def _images(prompt: dict[str, Any]) -> list[Any]:
    images = (prompt.get("multi_modal_data") or {}).get("image", [])
    return images if isinstance(images, list) else [images]


def _identity(prompt: dict[str, Any]) -> tuple[list[int], list[int]]:
    return prompt["prompt_token_ids"], [id(image) for image in _images(prompt)]


def _collapse(prompt: dict[str, Any], image: ImageTokens) -> dict[str, Any]:
    ids, images = prompt["prompt_token_ids"], _images(prompt)
    collapsed = image.collapse(ids, len(images)) if images else ids
    return prompt if collapsed == ids else {**prompt, "prompt_token_ids": collapsed}


def _check_seen(sent: list[int], seen: list[int]) -> None:
    if list(sent) != list(seen):
        raise ValueError(
            f"vLLM made {len(seen)} tokens of a prompt that is trained on as {len(sent)}: its processor expands the "
            "images otherwise than the trainer's. It reads its own from the folder of the model: save the trainer's "
            "there (processing_class.save_pretrained). Some families' images vLLM always cuts in its own way; there, "
            "use transformers' generate."
        )
