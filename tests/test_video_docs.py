"""The walk-through of docs/video.md, as it stands there: clips, rows, and a step of `trl grpo` with a tiny model."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

from datasets import load_dataset

from trl_onevision.quickstart.model import build_model, build_processor

PAGE = Path(__file__).parents[1] / "docs" / "video.md"
STEP = "--model_name_or_path tiny --use_cpu true --bf16 false --max_steps 1 --max_completion_length 8"


def test_the_walk_through_leads_from_clips_to_a_step(tmp_path):
    processor = build_processor()
    for part in (processor, build_model(processor)):
        part.save_pretrained(tmp_path / "tiny")
    text = PAGE.read_text().split("## What a row holds")[0]
    for name, block in re.findall(r"^```(?:python|yaml)\n# (\S+)\n(.*?)^```", text, re.M | re.S):
        (tmp_path / name).write_text(block)
    (block,) = re.findall(r"^```bash\n(.*?)^```", text, re.M | re.S)
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "HF_HUB_OFFLINE": "1"}
    for line in block.splitlines():
        command = shlex.split(f"{line} {STEP}" if line.startswith("trl grpo") else line)
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, f"{line}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    rows = load_dataset(str(tmp_path / "data" / "red-square"), split="train", cache_dir=str(tmp_path / "cache"))
    assert len(rows) == 16
    row = rows[1]
    texts = [block["text"] for block in row["prompt"][0]["content"] if block["type"] == "text"]
    assert texts[:8] == [f"<{n / 2:.1f} seconds>" for n in range(8)] and len(row["images"]) == 8
    assert texts[8].startswith("When is the square red? First output")
    assert (json.loads(row["solution"]), row["duration"]) == ([{"start": 1.0, "end": 4.0}], 4.0)
    (state,) = (tmp_path / "runs" / "red-square").glob("checkpoint-1/trainer_state.json")
    assert "rewards/span_reward/mean" in json.loads(state.read_text())["log_history"][0]
