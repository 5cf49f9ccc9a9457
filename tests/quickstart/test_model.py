"""The quickstart's model is Qwen2.5-VL as transformers and TRL load it, only small."""

import torch
import yaml
from transformers import AutoModelForImageTextToText, AutoProcessor
from trl.data_utils import prepare_multimodal_messages

from trl_onevision.quickstart.digits import rows
from trl_onevision.quickstart.evaluate import answer
from trl_onevision.quickstart.run import MAX_NEW_TOKENS
from trl_onevision.recipes import recipe_path


def test_about_a_million_parameters(checkpoint):
    model = AutoModelForImageTextToText.from_pretrained(checkpoint)
    assert type(model).__name__ == "Qwen2_5_VLForConditionalGeneration"
    assert 1e6 < model.num_parameters() < 2e6


def test_images_reach_the_model_without_another_resize(checkpoint):
    processor = AutoProcessor.from_pretrained(checkpoint)
    for row in rows("grpo", 9):
        image = row["images"][0]
        grid = processor.image_processor(images=[image], return_tensors="pt")["image_grid_thw"][0].tolist()
        assert grid == [1, image.height // 14, image.width // 14]


def test_turns_decode_to_what_was_written(checkpoint):
    processor = AutoProcessor.from_pretrained(checkpoint)
    for row in rows("held-out", 9):
        text = row["completion"][0]["content"]
        assert processor.tokenizer.decode(processor.tokenizer(text).input_ids) == text


def test_the_worked_answers_and_their_end_fit_in_what_may_be_generated(checkpoint):
    tokenizer = AutoProcessor.from_pretrained(checkpoint).tokenizer
    longest = max(len(tokenizer(row["completion"][0]["content"]).input_ids) + 1 for row in rows("held-out", 600))
    recipe = yaml.safe_load(recipe_path("quickstart-grpo").read_text())
    assert longest == MAX_NEW_TOKENS == recipe["max_completion_length"]


def test_batched_answers_equal_single_ones(checkpoint):
    held_out = list(rows("held-out", 4))  # images of several sizes: prompts are padded on the left
    together = next(iter(answer(checkpoint, held_out, max_new_tokens=8)))
    assert together == [next(iter(answer(checkpoint, [row], max_new_tokens=8)))[0] for row in held_out]


def test_the_image_changes_the_logits(checkpoint):
    processor = AutoProcessor.from_pretrained(checkpoint)
    model = AutoModelForImageTextToText.from_pretrained(checkpoint).eval()
    three, other = list(rows("held-out", 12))[1::3][:2]
    logits = []
    for image in (three["images"][0], other["images"][0]):
        messages = [prepare_multimodal_messages(three["prompt"], [image])]
        inputs = processor.apply_chat_template(
            messages, tokenize=True, return_dict=True, processor_kwargs={"return_tensors": "pt"}
        )
        with torch.inference_mode():
            logits.append(model(**inputs).logits[0, -1])
    assert not torch.allclose(*logits)
