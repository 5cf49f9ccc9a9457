"""What the model would not see, or not as it was meant, is named before anything is trained on it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
from compare import OURS, assert_same, update
from datasets import Dataset, IterableDataset
from tiny import completions

from trl_onevision import OneVisionGRPOConfig, OneVisionGRPOTrainer
from trl_onevision.grpo.guards import refuse_unseen


def asks(*blocks: dict[str, Any], role: str = "user", **columns: Any) -> dict[str, Any]:
    return {"prompt": [{"role": role, "content": [*blocks, {"type": "text", "text": "What happens?"}]}], **columns}


def config(folder: Path) -> OneVisionGRPOConfig:
    return OneVisionGRPOConfig(output_dir=str(folder), bf16=False, use_cpu=True, report_to="none")


@pytest.mark.parametrize("kind", ["video", "audio", "image_url", "input_audio"])
@pytest.mark.parametrize("role", ["user", "system"])
def test_a_block_that_is_not_scored_is_refused_before_a_model_is_loaded(kind: str, role: str, tmp_path: Path) -> None:
    rows = [asks()] * 1500 + [asks({"type": kind}, role=role)]
    with pytest.raises(ValueError, match=rf"train_dataset: a prompt holds a block of type '{kind}'.*trained without"):
        OneVisionGRPOTrainer("no/such-model", tiny.reward, config(tmp_path), Dataset.from_list(rows))


def test_a_video_is_to_be_given_as_frames() -> None:
    with pytest.raises(ValueError, match=r"Give frames of it as images.*in the column 'images'"):
        refuse_unseen({"test": Dataset.from_list([asks({"type": "video"})])}, "eval_dataset", owned=False)


def test_contents_that_are_text_or_blocks_are_looked_through_too() -> None:
    row = asks({"type": "video"})
    row["prompt"].append({"role": "assistant", "content": "Nothing."})
    mixed = Dataset.from_list([row], on_mixed_types="use_json")
    with pytest.raises(ValueError, match="block of type 'video'"):
        refuse_unseen(mixed, "train_dataset", owned=False)


@pytest.mark.parametrize("column", ["video", "videos", "audios"])
def test_a_column_that_no_model_is_given_is_refused_where_it_holds_something(column: str) -> None:
    empty: list[Any] = [asks(**{column: None}), asks(**{column: []})]
    refuse_unseen(Dataset.from_list(empty), "train_dataset", owned=False)
    filled = Dataset.from_list([*empty, asks(**{column: ["cat"]})])
    with pytest.raises(ValueError, match=f"train_dataset: the column '{column}' holds something.*needs another name"):
        refuse_unseen(filled, "train_dataset", owned=False)
    refuse_unseen(filled, "train_dataset", owned=True)


def test_raw_rows_are_not_adapted_without_their_video(tmp_path: Path) -> None:
    """As the columns `problem` and `solution`, of a dataset of text, would be."""
    rows = Dataset.from_list([{"problem": "When is it red?", "solution": "From 1 to 2.", "video": "a.mp4"}])
    with pytest.raises(ValueError, match=r"train_dataset: the column 'video' holds something.*prepare NAME --columns"):
        OneVisionGRPOTrainer("no/such-model", tiny.reward, config(tmp_path), rows)


def test_rows_without_a_prompt_are_refused_before_a_model_is_loaded(tmp_path: Path) -> None:
    rows = Dataset.from_list([{"question": "How many?", "label": "3"}] * 8)
    with pytest.raises(ValueError, match=r"no column 'prompt'; it has question, label.*--columns prompt="):
        OneVisionGRPOTrainer("no/such-model", tiny.reward, config(tmp_path), rows)


@pytest.mark.parametrize("rows", [0, 1])
def test_fewer_rows_than_a_generation_takes_are_refused(make: Callable[..., Any], rows: int) -> None:
    """TRL makes no batch of them: it takes no step with `max_steps`, and asks for `max_steps` without."""
    settings = {"num_generations": 4, "per_device_train_batch_size": 8, "gradient_accumulation_steps": 1}
    trainer = make(**OURS, data=tiny.dataset(2).select(range(rows)), **settings)
    with pytest.raises(ValueError, match=f"train_dataset has {rows} rows, and a generation takes 2: .* 8 / .* 4"):
        trainer.train()


def test_text_images_and_other_columns_pass() -> None:
    image = {"type": "image", "text": None}
    rows = [asks(image, role="system", images=[b""], task="video", type="video")]
    for data in (Dataset.from_list(rows), tiny.dataset(2), Dataset.from_dict({"prompt": ["A video?"]}), [1], None):
        refuse_unseen(data, "train_dataset", owned=False)


@pytest.mark.parametrize("row", [asks({"type": "video"}, id="v-7"), asks(id="v-7", videos=["cat.mp4"])])
def test_a_row_of_a_stream_is_refused_when_it_comes(make: Callable[..., Any], row: dict[str, Any]) -> None:
    trainer = make(**OURS, data=IterableDataset.from_generator(lambda: iter([row] * 8)), max_steps=1)
    with pytest.raises(ValueError, match=r"row 'v-7': .*'videos?'"):
        trainer.train()


def attention_of(trainer: Any, attention: str) -> Any:
    trainer.model.set_attn_implementation(attention)
    return trainer


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_an_attention_set_after_construction_scores_as_trl_does_and_says_so(
    make: Callable[..., Any], caplog: pytest.LogCaptureFixture, attention: str
) -> None:
    given = completions([5, 9, 3, 12, 7, 1, 2, 16])
    stock = update(attention_of(make(given=given), attention))
    with caplog.at_level(logging.WARNING):
        ours = update(attention_of(make(**OURS, given=given), attention))
    assert_same(ours, stock)
    said = [r.getMessage() for r in caplog.records if "after construction" in r.getMessage()]
    assert said == [
        f"As in TRL, each completion has its own scoring (attn_implementation was set to '{attention}' after "
        "construction)."
    ]
