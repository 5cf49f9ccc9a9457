"""Answers of a checkpoint on this machine: sampled, the same wherever a run was stopped, and no two alike."""

import os

import pytest
from answering import picture, row
from rich.console import Console

from trl_onevision.engine import EngineError, Local, Sampling
from trl_onevision.select.measure import Rewards
from trl_onevision.select.rows import Rows
from trl_onevision.select.run import REPLIES, select

REWARDS = Rewards.named(["trl_onevision.rewards.accuracy_reward"])


def engine(checkpoint, output):
    sampling = Sampling(k=3, blind=True, max_new_tokens=6, batch_size=4, dtype="float32")
    return Local(str(checkpoint), sampling, output / REPLIES)


def test_a_run_that_is_stopped_anywhere_ends_with_the_same_answers(checkpoint, data, tmp_path, monkeypatch):
    folder = data([row(n, 1.0, [picture(n)] * (n % 3)) for n in range(10)])
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    select(Rows(folder), engine(checkpoint, whole), REWARDS, whole, console=Console(quiet=True))
    for kept in (1, 0, 2):  # of five batches
        made = engine(checkpoint, stopped)
        sample = made._sample

        def stop(*given, kept=kept, sample=sample, done=[]):  # noqa: B006 -- a list of its own for each
            if len(done) == kept:
                raise KeyboardInterrupt
            done.append(given)
            sample(*given)

        monkeypatch.setattr(made, "_sample", stop)
        with pytest.raises(EngineError, match="what was answered is kept"):
            select(Rows(folder), made, REWARDS, stopped, console=Console(quiet=True))
    select(Rows(folder), engine(checkpoint, stopped), REWARDS, stopped, console=Console(quiet=True))
    assert (stopped / "answers.jsonl").read_bytes() == (whole / "answers.jsonl").read_bytes()

    found = [answer.text for row in _measured(folder, checkpoint, whole) for answer in row.answers]
    assert len(set(found)) > 0.9 * len(found) == 27


def _measured(folder, checkpoint, output):
    from trl_onevision.select.measure import measured

    return measured(Rows(folder), engine(checkpoint, output), REWARDS, {})


def test_weights_that_changed_are_another_model(checkpoint, data, tmp_path):
    rows = Rows(data([row(1, 1.0)]))
    select(rows, made := engine(checkpoint, tmp_path / "out"), REWARDS, tmp_path / "out", console=Console(quiet=True))
    assert made.replies(rows.asked(0)) is not None
    os.utime(checkpoint / "model.safetensors")
    assert engine(checkpoint, tmp_path / "out").replies(rows.asked(0)) is None


def test_what_is_no_checkpoint_is_named(data, tmp_path):
    with pytest.raises(ValueError, match=r"--model .*nothing: cannot be loaded as a model"):
        out = tmp_path / "out"
        select(Rows(data([row(1, 1.0)])), engine(tmp_path / "nothing", out), REWARDS, out)
