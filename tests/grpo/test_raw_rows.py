"""Raw rows of a known dataset train as they are."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, Features, load_dataset
from datasets import Image as ImageFeature
from PIL import Image

from trl_onevision import OneVisionGRPOConfig, OneVisionGRPOTrainer
from trl_onevision.data import Conversion, adapter_for, convert_row, validate_row
from trl_onevision.grpo import raw_rows
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


def test_a_row_that_no_check_foresaw_is_left_out_too(
    raw: Dataset, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def validate(row: dict[str, Any], purpose: str) -> None:
        if row["id"] == raw["id"][0]:
            raise TypeError("a surprise")

    whole = len(adapt(raw))
    monkeypatch.setattr("trl_onevision.data.convert.validate_row", validate)
    assert len(adapt(Dataset.from_list(raw.to_list()))) == whole - 1
    assert f"row {raw['id'][0]!r}, column 'row': cannot be converted; found TypeError: 'a surprise'" in caplog.text


def test_processes_share_the_work_without_waiting_at_a_barrier(raw: Dataset, tmp_path: Path) -> None:
    """Two processes that could not even meet at one: each row is converted once, and both have all."""
    raw.to_parquet(tmp_path / "raw.parquet")
    script = [sys.executable, str(Path(__file__).with_name("adapt_once.py")), str(tmp_path / "raw.parquet")]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "LOCAL_WORLD_SIZE": "2"}
    processes = [
        subprocess.Popen(
            [*script, str(tmp_path / "cache"), str(tmp_path / "converted")],
            env={**environment, "LOCAL_RANK": rank},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in "01"
    ]
    adapted = [json.loads(process.communicate(timeout=300)[0]) for process in processes]
    assert adapted[0] == adapted[1] == adapt(raw)["id"][:]
    assert sorted((tmp_path / "converted").read_text().split()) == sorted(raw["id"][:])


def test_every_shard_is_in_its_place_whichever_comes_first(raw: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = adapt(raw)["id"][:]
    monkeypatch.setattr(raw_rows, "SHARD", 1)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    for rank in "0123":
        monkeypatch.setenv("LOCAL_RANK", rank)
        assert adapt(raw)["id"][:] == expected


@pytest.mark.parametrize("owned", [True, False])
def test_rows_that_an_environment_owns_are_its_own(
    raw: Dataset, tmp_path: Path, caplog: pytest.LogCaptureFixture, owned: bool
) -> None:
    class Environment:
        def reset(self, **row: Any) -> None:
            return None

    args = OneVisionGRPOConfig(output_dir=str(tmp_path), bf16=False, use_cpu=True, report_to="none")
    given = {"environment_factory": Environment} if owned else {}
    with pytest.raises((OSError, ValueError), match="no-such-model"):
        OneVisionGRPOTrainer(str(tmp_path / "no-such-model"), accuracy_reward, args, raw, **given)
    assert ("adapting them" in caplog.text) is not owned


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
