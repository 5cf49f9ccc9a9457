"""Raw rows of a known dataset train as they are."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, Features, load_dataset
from datasets import Image as ImageFeature
from PIL import Image

from trl_onevision import OneVisionGRPOTrainer
from trl_onevision.data import Conversion, adapter_for, convert_row, validate_row
from trl_onevision.grpo.collator import keep_encoded
from trl_onevision.grpo.raw_rows import adapt
from trl_onevision.rewards import accuracy_reward

FIXTURES = Path(__file__).parents[1] / "data" / "fixtures"


@pytest.fixture
def raw() -> Dataset:
    return load_dataset("parquet", data_files=str(FIXTURES / "r1_onevision.parquet"), split="train")


def test_rows_become_what_prepare_writes(raw: Dataset) -> None:
    adapted = adapt(raw)
    assert 0 < len(adapted) <= len(raw)
    by_id = {row["id"]: row for row in raw}
    adapter = adapter_for(raw.column_names)
    assert adapter is not None
    for row in adapted:
        validate_row(row, "grpo")
        expected = convert_row(by_id[row["id"]], adapter, Conversion(purpose="grpo"))
        assert [row[name] for name in ("solution", "task", "source")] == [
            expected[name] for name in ("solution", "task", "source")
        ]


def test_a_stream_is_adapted_as_it_comes(raw: Dataset) -> None:
    whole = [row["id"] for row in adapt(raw)]
    assert [row["id"] for row in adapt(raw.to_iterable_dataset())] == whole


def test_broken_rows_are_left_out_with_their_id(raw: Dataset, caplog: pytest.LogCaptureFixture) -> None:
    rows = raw.to_list()
    rows[0] = rows[0] | {"id": "broken-7", "image": "not an image"}
    adapted = adapt(Dataset.from_list(rows))
    assert "broken-7" not in adapted["id"]
    assert "broken-7" in caplog.text


def test_no_row_left_is_an_error_before_training(raw: Dataset) -> None:
    rows = [row | {"image": "not an image"} for row in raw.to_list()]
    with pytest.raises(ValueError, match="None of 6 raw rows could be used as rows of r1-onevision"):
        adapt(Dataset.from_list(rows))


def test_decoded_image_columns_keep_the_bytes_of_their_files(raw: Dataset) -> None:
    buffer = BytesIO()
    Image.effect_noise((56, 56), 64).convert("RGB").save(buffer, format="JPEG")
    picture = {"bytes": buffer.getvalue(), "path": None}
    rows = [row | {"image": picture} for row in raw.to_list()]
    pictures = Dataset.from_list(rows, features=Features(raw.features | {"image": ImageFeature()}))
    adapted = keep_encoded(adapt(pictures))
    assert len(adapted) == len(adapt(raw))
    assert all(row["images"] == [picture] for row in adapted)


def test_prepared_rows_are_left_alone() -> None:
    rows = Dataset.from_list([{"prompt": "2 + 2 = ?", "solution": "4"}])
    assert adapt(rows) is rows


def test_the_trainer_takes_raw_rows(make: Callable[..., Any], raw: Dataset) -> None:
    trainer = make(kind=OneVisionGRPOTrainer, data=raw, rewards=accuracy_reward, max_steps=1)
    trainer.train()
    assert "rewards/accuracy_reward/mean" in trainer.state.log_history[0]
