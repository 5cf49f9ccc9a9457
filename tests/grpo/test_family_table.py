"""The table of docs/families.md: every cell is what a run of a small model gives.

`FAMILY_TABLE=write pytest tests/grpo/test_family_table.py -m "slow or not slow"` writes the rows anew.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
import transformers
from compare import OURS, assert_same, logps, update
from packaging.version import Version
from peft import LoraConfig
from test_families import FURTHER, GIVEN, settings
from trl import GRPOTrainer, SFTConfig, SFTTrainer
from trl import chat_template_utils as templates

from trl_onevision.grpo.environment import give_tools

DOCS = Path(__file__).parents[2] / "docs" / "families.md"
COLUMNS = ("SFT", "GRPO", "processed once", "prefilled once", "packed", "liger", "LoRA", "mixed rows", "tools", "vLLM")
# What TRL 1.16 fails on has a row too
VISION = (*tiny.FAMILIES, *FURTHER, "paligemma", "kimi_k25", "minicpmv4_6")
LANGUAGE = ("llama", "mistral", "qwen2", "qwen3")
ESSENTIAL = ("qwen2_5_vl", "gemma3", "qwen3")
# The published templates that TRL has a copy of and can read tool calls of; of two families, this package's
TOOL_TEMPLATES = {
    "qwen2_vl": templates.qwen2_5_vl_chat_template,
    "qwen2_5_vl": templates.qwen2_5_vl_chat_template,
    "gemma4": templates.gemma4_v5_chat_template,
    "lfm2_vl": templates.lfm2_2_5_vl_chat_template,
    "llama": templates.llama3_1_chat_template,
    "qwen2": templates.qwen2_5_chat_template,
    "qwen3": templates.qwen3_chat_template,
    "qwen3_5": templates.qwen3_5_think_chat_template,
    "qwen3_vl": templates.qwen3_vl_chat_template,
    "qwen3_vl_moe": templates.qwen3_vl_chat_template,
}
# PEFT cannot wrap the linear layers of Gemma 4's vision tower, which have the same names
PROJECTIONS = {"gemma4": r".*language_model.*\.[qv]_proj"}


class Row:
    """One family's cells; each is asked for by the name of its column."""

    def __init__(self, make: Callable[..., Any], family: str, directory: Path) -> None:
        self.make, self.family, self.directory = make, family, directory
        self.looks = family in VISION
        self.data = {} if self.looks else {"data": tiny.dataset(2, text_rows=(0, 1)).remove_columns("images")}
        if family == "paligemma":
            self.data = {"data": tiny.dataset(1), "num_generations": 8}

    def trainer(self, kind: dict[str, Any], **others: Any) -> Any:
        return self.make(**kind, **settings(self.family, **{**self.data, **others}))

    def updates_as_trl(self, options: dict[str, Any], prepare: Callable[[Any], None] = bool, **others: Any) -> Any:
        """Our trainer after an update that is TRL's; an error where it is not."""
        torch.manual_seed(5)
        ours = self.trainer({**OURS, "options": options}, given=GIVEN, **others)
        prepare(ours)
        result = update(ours)
        torch.manual_seed(5)
        assert_same(result, update(self.trainer({}, given=GIVEN, **others)))
        return ours

    def sft(self) -> str:
        model, processor = tiny.build(self.family)
        rows = tiny.dataset(2) if self.looks else self.data["data"]
        answer = [[{"role": "assistant", "content": "Noise."}]] * len(rows)
        arguments = SFTConfig(
            output_dir=str(self.directory),
            max_steps=1,
            use_cpu=True,
            bf16=False,
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
            gradient_checkpointing=False,
            max_length=None,
        )
        data = rows.remove_columns("solution").add_column("completion", answer)
        trainer = SFTTrainer(model, args=arguments, train_dataset=data, processing_class=processor)
        loss = trainer.train().training_loss
        return "yes" if 0 < loss < 100 else "no"

    def grpo(self) -> str:
        update(self.trainer({}, given=GIVEN))
        return "yes"

    def processed_once(self) -> str:
        seen: list[int] = []

        def count(trainer: Any) -> None:
            if not self.looks:
                return
            images = trainer.processing_class.image_processor
            preprocess = images.preprocess
            images.preprocess = lambda given, *args, **kwargs: (
                seen.append(len(flat(given))) or preprocess(given, *args, **kwargs)
            )

        ours = self.updates_as_trl({"share_prompt": False}, count)
        once = ours._sharing.processing is None
        assert not (self.looks and once) or seen == [8 // ours.num_generations]
        return "yes" if once else "no"

    def prefilled_once(self) -> str:
        batches, passes = [], []
        for kind in (OURS, {}):
            trainer, rows = self.trainer(kind, max_completion_length=4), []
            trainer.model.get_output_embeddings().register_forward_hook(
                lambda module, args, output, rows=rows: rows.append(len(output))
            )
            torch.manual_seed(7)
            batches.append(trainer._generate_and_score_completions(next(iter(trainer.get_train_dataloader()))))
            passes.append(rows)
        assert torch.equal(batches[0]["completion_ids"], batches[1]["completion_ids"])
        return "yes" if passes[0][0] == 8 // trainer.num_generations else "no"

    def packed(self) -> str:
        return "yes" if self.updates_as_trl({"share_prompt": True})._sharing.scoring is None else "no"

    def liger(self) -> str:
        try:
            self.updates_as_trl({"share_prompt": True, "loss": "liger"})
        except ValueError as error:
            assert "loss: liger cannot honour" in str(error)
            return "no"
        return "yes"

    def lora(self) -> str:
        projections = PROJECTIONS.get(self.family, r".*\.[qv]_proj")
        adapter = LoraConfig(r=4, lora_dropout=0.0, target_modules=projections, init_lora_weights=False)
        self.updates_as_trl({"share_prompt": True}, peft_config=adapter)
        return "yes"

    def mixed_rows(self) -> str:
        if not self.looks:
            return "–"
        data = tiny.dataset(2, text_rows=(1,))
        # As TRL alone: each half by itself
        mixed = settings(self.family, given=GIVEN, shuffle_dataset=False) | {"data": data, "num_generations": 4}
        try:
            found, _ = logps(self.make(**OURS, **mixed))
            for rows, half in (
                (slice(4), tiny.dataset(1)),
                (slice(4, 8), tiny.dataset(2, text_rows=(0, 1)).select([1])),
            ):
                alone = {**mixed, "given": GIVEN[rows], "data": half, "per_device_train_batch_size": 4}
                expected, _ = logps(self.make(**alone))
                assert (found[rows, : expected.size(1)] - expected).abs().max() < 1e-5
        except ValueError as error:
            assert "`images` are expected" in str(error)  # by PaliGemma's processor, of every row
            return "no"
        return "yes"

    def tools(self) -> str:
        if self.family not in TOOL_TEMPLATES:
            return "no template"
        results = []
        for kind in ({**OURS, "options": {"share_prompt": True}}, {}):
            tooled = with_tool(kind.get("kind", GRPOTrainer), self, TOOL_TEMPLATES[self.family])
            trainer = self.trainer({**kind, "kind": tooled}, max_completion_length=256)
            results.append(update(trainer))
            assert not kind or trainer._sharing.processing is None
            assert results[-1].metrics["tools/call_frequency"] == 2 / 8
            assert results[-1].metrics["tools/failure_frequency"] == 0
        assert_same(*results)
        return "yes"

    def vllm(self) -> str:
        """Whether vLLM has the architecture, under this name but for underscores; not run where there is no vLLM."""
        try:
            from vllm import ModelRegistry
        except ImportError:
            return committed(self.family).get("vLLM", "not run")
        name = type(tiny.build(self.family)[0]).__name__.replace("_", "")
        return "known" if name in {known.replace("_", "") for known in ModelRegistry.get_supported_archs()} else "no"

    def why_not(self) -> str:
        """What our trainer says that it does not share."""
        trainer = self.trainer({**OURS, "options": {"share_prompt": "auto"}}, given=GIVEN)
        trainer._generate_and_score_completions(next(iter(trainer.get_train_dataloader())))
        return trainer._sharing.describe()


def flat(images: Any) -> list[Any]:
    return [image for item in images for image in flat(item)] if isinstance(images, (list, tuple)) else [images]


def look() -> list[dict[str, Any]]:
    """Look at it from nearby."""
    return [{"type": "image", "image": tiny.picture(9)}, {"type": "text", "text": "From nearby."}]


def measure() -> str:
    """Measure it."""
    return "Three."


def with_tool(kind: type, row: Row, template: str) -> type:
    """The trainer class with a tool that the first and the last completion call, as the template writes it."""
    tool = look if row.looks else measure

    class WithTool(kind):  # type: ignore[misc, valid-type]
        def __init__(self, *args: Any, processing_class: Any, **kwargs: Any) -> None:
            processing_class.chat_template = template
            give_tools(processing_class)
            super().__init__(*args, processing_class=processing_class, tools=[tool], **kwargs)
            ask = [{"role": "user", "content": [{"type": "text", "text": "Ask."}] if row.looks else "Ask."}]
            call = {"type": "function", "function": {"name": tool.__name__, "arguments": {}}}
            content = [{"type": "text", "text": ""}] if row.looks else ""
            answer = {"role": "assistant", "content": content, "tool_calls": [call]}
            render = processing_class.apply_chat_template
            before = render(ask, add_generation_prompt=True, tokenize=False)
            self.call = self._tokenizer(render([*ask, answer], tokenize=False)[len(before) :])["input_ids"]

        def _generate_single_turn(self, prompt_ids: list, *args: Any, **kwargs: Any) -> tuple[list, None]:
            if len(prompt_ids) < 8:  # the turn after the tool's
                return GIVEN[: len(prompt_ids)], None
            return [self.call, *GIVEN[1:7], self.call], None

    return WithTool


def committed(family: str) -> dict[str, str]:
    """The family's cells in the table as it stands."""
    found = re.search(rf"^\| {family} \|.*$", DOCS.read_text(encoding="utf-8"), re.MULTILINE)
    cells = [cell.strip() for cell in found.group(0).strip("|").split("|")] if found else []
    return dict(zip(("family", *COLUMNS, "why not"), cells, strict=bool(cells)))


def cells(row: Row) -> dict[str, str]:
    """The row of the table, by column."""
    found = {"family": row.family}
    for column in COLUMNS:
        run = getattr(row, column.lower().replace(" ", "_"))
        if column in ("SFT", "GRPO"):  # TRL alone
            try:
                found[column] = run()
            except Exception:
                found[column] = "fails"
        else:
            found[column] = run() if found["GRPO"] == "yes" or column == "vLLM" else "–"
    return found | {"why not": row.why_not() if found["GRPO"] == "yes" else ""}


@pytest.mark.skipif(Version(transformers.__version__) < Version("5.24"), reason="the table is of 5.24")
@pytest.mark.parametrize(
    "family",
    [name if name in ESSENTIAL else pytest.param(name, marks=pytest.mark.slow) for name in (*VISION, *LANGUAGE)],
)
def test_a_row_of_the_table_is_what_the_family_does(make: Callable[..., Any], tmp_path: Path, family: str) -> None:
    found = cells(Row(make, family, tmp_path))
    if os.environ.get("FAMILY_TABLE") == "write":
        write(found)
    assert found == committed(family)


def write(row: dict[str, str]) -> None:
    """Put a row in the place of the one that stands in the table, or at its end."""
    text, line = DOCS.read_text(encoding="utf-8"), "| " + " | ".join(row.values()) + " |"
    old = re.search(rf"^\| {row['family']} \|.*$", text, re.MULTILINE)
    if old is None:
        text = text.replace("\n\n<!-- end of the table -->", f"\n{line}\n\n<!-- end of the table -->")
    else:
        text = text.replace(old.group(0), line)
    DOCS.write_text(text, encoding="utf-8")
