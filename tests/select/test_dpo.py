"""Pairs are what `trl dpo` trains on: literally, with a checkpoint that nobody trained."""

import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from answering import picture, row
from rich.console import Console

from trl_onevision.engine import Sampling, Server
from trl_onevision.select.measure import Rewards
from trl_onevision.select.rows import Rows
from trl_onevision.select.run import REPLIES, Wanted, select


@pytest.mark.slow
@pytest.mark.parametrize("with_image", [(1, 1, 2, 1), (1, 0, 2, 0)], ids=["images", "mixed"])
def test_trl_dpo_takes_a_step_on_pairs(checkpoint, server, data, tmp_path, with_image):
    rows = [row(n, 0.5, [picture(n)] * of) for n, of in enumerate(with_image)]
    output = tmp_path / "out"
    engine = Server(server.url, "m", Sampling(k=8), output / REPLIES)
    rewards = Rewards.named(["trl_onevision.rewards.accuracy_reward"])
    summary = select(Rows(data(rows)), engine, rewards, output, Wanted(pairs=True), Console(quiet=True))
    assert summary.pairs == 4
    command = [sys.executable, "-m", "trl.cli.main", "dpo", "--model_name_or_path", str(checkpoint)]
    options = {
        "dataset_name": output / "pairs",
        "output_dir": tmp_path / "dpo",
        "max_steps": 2,
        "per_device_train_batch_size": 4,
        "logging_steps": 1,
        "use_cpu": "true",
        "bf16": "false",
        "dtype": "float32",
        "report_to": "none",
        "max_length": 1024,
        "learning_rate": 1e-3,
    }
    words = [str(word) for name, value in options.items() for word in (f"--{name}", value)]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([*command, *words], env=environment, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    losses = [float(loss) for loss in re.findall(r"'loss': '?([\d.]+)", done.stdout)]
    assert losses[0] == pytest.approx(math.log(2), abs=1e-3) and losses[1] < losses[0]
