"""What a first user copies from the README is run: the recipe and the script."""

import re
import subprocess
import sys
from pathlib import Path

from trl_onevision.check import check_recipe

CHECKOUT = Path(__file__).parents[1]
README = (CHECKOUT / "README.md").read_text()
sys.path.append(str(CHECKOUT / "tests" / "grpo"))

# What the script leaves to its reader: a model and a data set that are here, and a size for a CPU
SMALL = "max_steps=1, max_completion_length=8, use_cpu=True, bf16=False, report_to='none'"


def block(language):
    (text,) = re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)
    return text


def test_the_recipe_trains_with_our_trainer(tmp_path):
    (tmp_path / "grpo.yaml").write_text(block("yaml"))
    verdict = check_recipe(tmp_path / "grpo.yaml", CHECKOUT)
    assert (verdict.errors, verdict.notes) == ([], [])
    assert verdict.trainer.startswith("OneVisionGRPOTrainer, with share_prompt='auto'")


def test_the_script_trains(tmp_path):
    import tiny

    model, processor = tiny.build("qwen2_5_vl")
    model.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    data = tiny.dataset(2).add_column("task", ["text", "text"])
    (tmp_path / "data" / "clevr").mkdir(parents=True)
    data.to_parquet(tmp_path / "data" / "clevr" / "train.parquet")
    script = block("python")
    for given, here in {
        "Qwen/Qwen2.5-VL-3B-Instruct": "model",
        "num_generations=8": f"num_generations=8, {SMALL}",
    }.items():
        assert given in script
        script = script.replace(given, here)
    run = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr[-2000:]
    assert "rewards/iou_reward/mean" in run.stdout
