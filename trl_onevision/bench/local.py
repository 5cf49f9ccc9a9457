"""A checkpoint that answers in batches on this machine: the engine of `bench`, of `select` and of the quickstart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple


class Said(NamedTuple):
    """What a model said, in how many tokens, and whether it came to an end by itself."""

    text: str
    tokens: int
    finished: bool


class Checkpoint:
    """A model for images and text with its processor, which pads on the left."""

    def __init__(self, network: Any, processor: Any) -> None:
        self.network, self.processor = network, processor
        end = network.generation_config.eos_token_id
        self.ends = set(end) if isinstance(end, list) else {end}

    @classmethod
    def load(cls, model: str, dtype: str) -> Checkpoint:
        """From a folder or a hub id, onto a GPU where there is one.

        Raises `ValueError` where `model` cannot be loaded as a model for images and text.
        """
        import torch
        from transformers import AutoModelForImageTextToText, AutoProcessor

        try:
            processor = AutoProcessor.from_pretrained(model, padding_side="left")
            network = AutoModelForImageTextToText.from_pretrained(model, dtype=getattr(torch, dtype)).eval()
        except (OSError, ValueError) as error:
            raise ValueError(f"--model {model}: cannot be loaded as a model for images and text: {error}") from error
        return cls(network.to("cuda" if torch.cuda.is_available() else "cpu"), processor)

    def answer(self, conversations: Sequence[Any], max_new_tokens: int, **decoding: Any) -> list[Said]:
        """Answers to conversations whose image blocks hold PIL images; `decoding` goes to `generate`.

        With `num_return_sequences=k`, the `k` answers of a conversation stand beside each other.
        """
        import torch

        inputs = self.processor.apply_chat_template(
            list(conversations),
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            processor_kwargs={"padding": True, "return_tensors": "pt"},
        ).to(self.network.device)
        with torch.inference_mode():
            sequences = self.network.generate(**inputs, max_new_tokens=max_new_tokens, **decoding)
        answered = sequences[:, inputs["input_ids"].shape[1] :]
        texts = self.processor.batch_decode(answered, skip_special_tokens=True)
        return [self._said(ids, text) for ids, text in zip(answered.tolist(), texts, strict=True)]

    def _said(self, ids: list[int], text: str) -> Said:
        end = next((place for place, token in enumerate(ids) if token in self.ends), None)
        return Said(text, len(ids) if end is None else end + 1, end is not None)
