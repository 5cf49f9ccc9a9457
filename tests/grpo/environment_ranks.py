"""Trains on rollouts that take other numbers of turns on each process, and prints what the main one logs."""

from __future__ import annotations

import sys
from typing import Any

import tiny
from ranks import leave, say
from trl.chat_template_utils import qwen2_5_vl_chat_template

from trl_onevision import OneVisionGRPOConfig, OneVisionGRPOTrainer

LOOK = '<tool_call>\n{"name": "zoom", "arguments": {"box": [0, 0, 28, 28]}}\n</tool_call>'
LOOKS = [2, 1, 0, 1, 0, 0, 0, 0]  # of each rollout: on two processes, all of the first one's


class Looks:
    """Each rollout looks as often as it is to, and then says a letter of its own."""

    turn = 0

    def _generate_single_turn(self, prompt_ids: list, *args: Any, **kwargs: Any) -> tuple[list, None]:
        self.turn = self.turn + 1 if kwargs else 0  # TRL names what it gives in the turns after the first
        rows = self.args.per_device_train_batch_size
        start = rows * self.accelerator.process_index
        places = [place for place in range(start, start + rows) if LOOKS[place] >= self.turn]
        texts = [LOOK if LOOKS[place] > self.turn else chr(97 + place) for place in places]
        assert len(texts) == len(prompt_ids)
        return [self._tokenizer(f"{text}<|im_end|>")["input_ids"] for text in texts], None


def train(folder: str, rows: int) -> list[dict[str, Any]]:
    """The log of two steps on so many rollouts a process."""
    model, processor = tiny.build("qwen2_5_vl")
    processor.chat_template = qwen2_5_vl_chat_template
    config = OneVisionGRPOConfig(
        output_dir=folder,
        use_cpu=True,
        bf16=False,
        report_to="none",
        per_device_train_batch_size=rows,
        num_generations=4,
        max_completion_length=700,
        max_steps=2,
        logging_steps=1,
        learning_rate=0.1,
        optim="sgd",
        save_strategy="no",
        disable_tqdm=True,
        shuffle_dataset=False,
        environment={"trl_onevision.environments.Zoom": {"pixels": 3136}},
    )
    kind = type("OneVisionGRPOTrainer", (Looks, OneVisionGRPOTrainer), {})
    trainer = kind(model, tiny.reward, config, tiny.dataset(4), processing_class=processor)
    trainer.train()
    return trainer.state.log_history[:-1]


if __name__ == "__main__":
    say(train(sys.argv[1], rows=4))
    leave()
