"""Clips in training: each decoded, preprocessed and encoded once a group, and scored as TRL scores its frames."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import tiny
import torch
from compare import ONE_BATCH, OURS, assert_same, logps, update
from datasets import load_dataset
from transformers import Qwen2VLImageProcessor

sys.path.append(str(Path(__file__).parents[1]))

import clips

from trl_onevision.data import Conversion, PixelGrid, Sampling, convert_row, videos, write_dataset
from trl_onevision.data.columns import columns_adapter
from trl_onevision.grpo.ask import AskPolicy
from trl_onevision.rewards.temporal import TemporalReward, with_shuffled_frames

FRAMES = 16
GIVEN = tiny.completions([5, 9, 3, 16, 7, 7, 12, 1])


@pytest.fixture(scope="module")
def clip_rows(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Two rows of sixteen frames, as `prepare` writes them, and how often a clip was opened for them."""
    folder, opened = tmp_path_factory.mktemp("clips"), list[str]()
    adapter = columns_adapter("prompt=q,video=v,solution=a", task="span")
    conversion = Conversion(prompt="plain", grid=PixelGrid(28, 784, 3136), sampling=Sampling(4, FRAMES))
    real, rows = videos._frames, []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(videos, "_frames", lambda clip: opened.append(clip.name) or real(clip))
        for number in range(2):

            def paint(index: int, time: float, first: int = number * FRAMES) -> Any:
                return clips.counter(first + index, time)

            path = clips.write(folder / f"{number}.mp4", [n / 4 for n in range(FRAMES)], paint)
            raw = {"id": str(number), "q": "When is it red?", "v": str(path), "a": [1 + number, 3]}
            rows.append(convert_row(raw, adapter, conversion))
    assert len(opened) == 2 and [len(row["images"]) for row in rows] == [FRAMES] * 2
    write_dataset(rows, folder / "data")
    return load_dataset(str(folder / "data"), split="train", cache_dir=str(folder / "cache"))


def counted(trainer: Any, monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Counts the frames that are decoded, preprocessed and encoded by the vision tower."""
    seen = {"decoded": 0, "preprocessed": 0, "encoded": 0, "passes": 0}
    decode, preprocess = datasets.Image.decode_example, Qwen2VLImageProcessor.preprocess

    def decoded(self: Any, *args: Any, **kwargs: Any) -> Any:
        seen["decoded"] += 1
        return decode(self, *args, **kwargs)

    def preprocessed(self: Any, images: Any, *args: Any, **kwargs: Any) -> Any:
        seen["preprocessed"] += len([image for row in images for image in (row if isinstance(row, list) else [row])])
        return preprocess(self, images, *args, **kwargs)

    def encoded(module: Any, args: Any, kwargs: Any) -> None:
        grid = kwargs.get("grid_thw", args[1] if len(args) > 1 else None)
        seen["encoded"] += len(grid)
        seen["passes"] += 1

    monkeypatch.setattr(datasets.Image, "decode_example", decoded)
    monkeypatch.setattr(Qwen2VLImageProcessor, "preprocess", preprocessed)
    trainer.model.base_model.visual.register_forward_pre_hook(encoded, with_kwargs=True)
    return seen


@pytest.mark.parametrize("family", ["qwen3_vl", "qwen2_5_vl"])
def test_a_clip_is_decoded_and_encoded_once_a_group(
    make: Callable[..., Any], clip_rows: Any, family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One step of the trainer: a prefill and a policy pass, each over the frames of two prompts."""
    trainer = make(**OURS, family=family, data=clip_rows, **ONE_BATCH, max_steps=1, max_completion_length=4)
    seen = counted(trainer, monkeypatch)
    trainer.train()
    assert trainer.state.global_step == 1
    assert seen == {"decoded": 2 * FRAMES, "preprocessed": 2 * FRAMES, "encoded": 2 * 2 * FRAMES, "passes": 2}


@pytest.mark.parametrize("family", ["qwen3_vl", "qwen2_5_vl"])
def test_frames_are_scored_as_trl_scores_them(make: Callable[..., Any], clip_rows: Any, family: str) -> None:
    trainers = [make(**kind, family=family, data=clip_rows, given=GIVEN, **ONE_BATCH) for kind in (OURS, {})]
    (our_logps, our_entropies), (their_logps, their_entropies) = map(logps, trainers)
    mask = their_logps != 0
    assert mask.any() and (our_logps - their_logps).abs().max() < 1e-5
    assert ((our_entropies - their_entropies) * mask).abs().max() < 1e-5
    trainers = [make(**kind, family=family, data=clip_rows, given=GIVEN, **ONE_BATCH) for kind in (OURS, {})]
    assert_same(update(trainers[0]), update(trainers[1]))


def test_the_times_are_those_that_qwen3_vls_processor_writes() -> None:
    _, processor = tiny.build("qwen3_vl")
    frames = np.zeros((8, 3, 64, 64), np.uint8)
    metadata = {"fps": 2.0, "frames_indices": list(range(8)), "total_num_frames": 8, "duration": 4.0}
    ids = processor(
        text=["<|video_pad|>"], videos=[frames], video_metadata=[metadata], do_sample_frames=False, return_tensors="pt"
    )["input_ids"][0]
    native = re.sub(r"(<\|video_pad\|>)+", "FRAME", processor.tokenizer.decode(ids))
    # Two frames are one to it, and have the time between theirs
    stored = videos.StoredVideo([None] * 4, [0.25, 1.25, 2.25, 3.25], 4.0)  # type: ignore[list-item]
    frame = "<|vision_start|>FRAME<|vision_end|>"
    assert native == "".join(block.get("text") or frame for block in stored.content())


def test_the_policy_answers_a_shuffled_clip_from_one_processing_and_one_prefill(
    make: Callable[..., Any], clip_rows: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    greedy = {"generation_kwargs": {"do_sample": False}, "max_completion_length": 4}
    trainer = make(**OURS, family="qwen3_vl", data=clip_rows, **ONE_BATCH, **greedy)
    row = clip_rows[0]
    content = [dict(block) for block in row["prompt"][0]["content"]]
    frames = iter(row["images"])
    for block in content:
        if block["type"] == "image":
            block["image"] = next(frames)
    shuffled = with_shuffled_frames([{"role": "user", "content": content}], seed="")
    ask = AskPolicy(trainer)
    (alone,) = ask([shuffled])
    seen = counted(trainer, monkeypatch)
    assert ask([shuffled, None, shuffled, shuffled]) == [alone, None, alone, alone]
    assert (seen["preprocessed"], seen["encoded"], seen["passes"]) == (FRAMES, FRAMES, 1)


def test_a_step_with_the_temporal_reward(make: Callable[..., Any], clip_rows: Any) -> None:
    """The bonus of a step is the formula's, on what the policy answered in and out of order."""
    answered: dict[str, list[float]] = {}

    def accuracy(completions: list[Any], **columns: Any) -> list[float]:
        """What the reward asks about, and the two sets of answers apart: eight in order, four shuffled."""
        scores = [float(len(str(one)) % 2) for one in completions]
        answered["ordered" if len(completions) == 8 else "shuffled"] = scores
        return scores

    reward = TemporalReward(accuracy=accuracy)
    trainer = make(**OURS, family="qwen3_vl", data=clip_rows, rewards=[accuracy, reward], **ONE_BATCH)
    trainer.model.train()
    batch = trainer._generate_and_score_completions(next(iter(trainer.get_train_dataloader())))
    assert len(answered["shuffled"]) == 4
    expected = []
    for group in range(2):
        ordered = answered["ordered"][4 * group :][:4]
        shuffled = answered["shuffled"][2 * group :][:2]
        passes = sum(ordered) / 4 >= 0.8 * sum(shuffled) / 2
        expected += [score + 0.3 * (passes and score > 0.1) for score in ordered]
    rewards = torch.tensor(expected).reshape(2, 4)
    advantages = ((rewards - rewards.mean(1, keepdim=True)) / (rewards.std(1, keepdim=True) + 1e-4)).flatten()
    assert torch.allclose(batch["advantages"], advantages, atol=1e-3)
    assert trainer._metrics["train"]["rewards/temporal_reward/mean"]
