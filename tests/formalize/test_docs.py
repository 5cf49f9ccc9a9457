"""The commands of docs/formalize.md, as they stand there: a scripted server, a tiny model, one step."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

from datasets import load_dataset

sys.path.append(str(Path(__file__).parent))

import scripted

from trl_onevision.quickstart.model import build_model, build_processor

PAGE = Path(__file__).parents[2] / "docs" / "formalize.md"
STEP = "--use_cpu true --max_steps 1 --gradient_accumulation_steps 1 --per_device_train_batch_size 2"


def test_the_commands_lead_from_images_to_a_checkpoint(models, tmp_path):
    rows = scripted.charts(["", "leak", "", "wrong answer", "", ""])
    players = models(rows)
    scripted.write(rows, tmp_path / "charts")
    processor = build_processor()
    for part in (processor, build_model(processor)):
        part.save_pretrained(tmp_path / "tiny")
    (block,) = re.findall(r"^```bash\n(.*?)^```", PAGE.read_text(), re.M | re.S)
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "HF_HUB_OFFLINE": "1"}
    lines = block.splitlines()
    assert [line.split()[1] for line in lines] == ["formalize", "formalize", "prepare", "prepare", "recipes", "sft"]
    for line in lines:
        here = re.sub(r"http://127\.0\.0\.1:\d+/v1", players.server.url, line)
        more = f" --model_name_or_path tiny {STEP}" if line.startswith("trl sft") else ""
        done = subprocess.run(
            shlex.split(here + more), cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, f"{here}{more}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    assert len(players.received) == len(set(players.received))
    assert len(load_dataset(str(tmp_path / "data" / "charts-sft"), split="train")) == 4
    assert len(load_dataset(str(tmp_path / "data" / "charts-grpo"), split="train")) == 4
    assert list((tmp_path / "runs" / "charts-sft").glob("**/model.safetensors"))
