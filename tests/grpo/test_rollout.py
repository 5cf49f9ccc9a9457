"""One decode, one preprocess and one prefill a prompt, with the completions that TRL generates."""

from __future__ import annotations

import base64
import functools
import threading
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import datasets
import pytest
import tiny
import torch
from compare import OURS, assert_same, update
from peft import LoraConfig
from PIL import Image
from tiny import completions
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from transformers import Qwen2VLImageProcessor
from trl import GRPOTrainer

from trl_onevision.data.schema import RowError
from trl_onevision.grpo.collator import GroupCollator, decode_rows, keep_encoded


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Counts every image that is decoded and every image that is preprocessed."""
    seen = {"decoded": 0, "preprocessed": 0}
    decode, preprocess = datasets.Image.decode_example, Qwen2VLImageProcessor.preprocess

    def counted_decode(self: Any, *args: Any, **kwargs: Any) -> Any:
        seen["decoded"] += 1
        return decode(self, *args, **kwargs)

    def counted_preprocess(self: Any, images: Any, *args: Any, **kwargs: Any) -> Any:
        seen["preprocessed"] += len([image for row in images for image in (row if isinstance(row, list) else [row])])
        return preprocess(self, images, *args, **kwargs)

    monkeypatch.setattr(datasets.Image, "decode_example", counted_decode)
    monkeypatch.setattr(Qwen2VLImageProcessor, "preprocess", counted_preprocess)
    return seen


def test_an_image_is_decoded_and_preprocessed_once_an_optimizer_step(
    make: Callable[..., Any], counts: dict[str, int]
) -> None:
    settings = {"data": tiny.dataset(4), "per_device_train_batch_size": 2, "gradient_accumulation_steps": 8}
    ours = make(**OURS, given=completions([3] * 16), beta=0.1, **settings)
    stock = make(given=completions([3] * 16), **settings)
    counts.update(decoded=0, preprocessed=0)
    update(stock)
    # 8 micro-steps of 16 rows, and `datasets` decodes the first image of a list twice; two passes over 16 rows.
    assert counts == {"decoded": 2 * 8 * 16, "preprocessed": 2 * 16}
    counts.update(decoded=0, preprocessed=0)
    update(ours)
    assert counts == {"decoded": 4, "preprocessed": 4}


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_one_prefill_a_prompt_generates_what_trl_generates(make: Callable[..., Any], family: str) -> None:
    generated = []
    for settings in (OURS, {}):
        trainer = make(**settings, family=family, max_completion_length=12)
        torch.manual_seed(7)
        batch = trainer._generate_and_score_completions(next(iter(trainer.get_train_dataloader())))
        generated.append((batch["completion_ids"], batch["prompt_ids"]))
    assert torch.equal(generated[0][0], generated[1][0])
    assert torch.equal(generated[0][1], generated[1][1])


def without_cache(model: Any) -> None:
    """As in a checkpoint that was trained with gradient checkpointing, and has no generation_config.json."""
    model.generation_config.use_cache = False


@pytest.mark.parametrize(
    "setting",
    [
        {"data": tiny.dataset(2, text_rows=(0, 1))},
        {"peft_config": LoraConfig(r=4, lora_dropout=0.0, target_modules=["q_proj"], init_lora_weights=False)},
        {"cache_implementation": "static", "options": {"share_prompt": "auto"}},
        {"gradient_checkpointing": True},
        {"generation_kwargs": {"do_sample": False}, "repetition_penalty": 1.2},
        {"data": tiny.dataset(2, per_row=2), "pad_to_multiple_of": 8},
        {"generation_kwargs": {"use_cache": False, "do_sample": False}},
        {"generation_kwargs": {"num_beams": 2, "do_sample": False}},
        {"generation_kwargs": {"cache_implementation": "static", "do_sample": False}},
        {"prepare": without_cache},
    ],
    ids=lambda setting: "-".join(map(str, setting.values())) if "generation_kwargs" in setting else "-".join(setting),
)
def test_settings_of_generation_hold(make: Callable[..., Any], setting: dict[str, Any]) -> None:
    stock_setting = {key: value for key, value in setting.items() if key != "options"}
    generated = []
    for settings in ({**OURS, **setting}, stock_setting):
        trainer = make(**settings)
        torch.manual_seed(7)
        generated.append(trainer._generate_and_score_completions(next(iter(trainer.get_train_dataloader()))))
    assert torch.equal(generated[0]["completion_ids"], generated[1]["completion_ids"])


@pytest.fixture
def mesh() -> Iterator[DeviceMesh]:
    """A mesh of this process alone: parameters are sharded, though into one shard."""
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
def test_sharded_weights_are_gathered_for_the_prefill(make: Callable[..., Any], mesh: DeviceMesh, lora: bool) -> None:
    """Under FSDP2 only a call of the outermost model gathers what no layer holds: embeddings, last norm, head."""
    generated = []
    for shard in (False, True):
        peft_config = LoraConfig(r=4, target_modules=["q_proj"], init_lora_weights=False) if lora else None
        torch.manual_seed(5)
        trainer = make(**OURS, peft_config=peft_config, max_completion_length=6)
        if shard:
            for layer in trainer._base_model(trainer.model).get_decoder().layers:
                fully_shard(layer, mesh=mesh)
            fully_shard(trainer.model, mesh=mesh)
            register_fsdp_forward_method(trainer.model, "generate")
        torch.manual_seed(7)
        for _ in range(2):  # the second finds the model's methods as the first did
            generated.append(trainer._generate_and_score_completions(next(iter(trainer.get_train_dataloader()))))
    for plain, sharded in zip(generated[:2], generated[2:], strict=True):
        assert torch.equal(plain["completion_ids"], sharded["completion_ids"])
    assert "generate" in vars(trainer.model)


def test_prefill_runs_a_prompt_once(make: Callable[..., Any]) -> None:
    seen = []
    for settings in (OURS, {}):
        trainer = make(**settings, max_completion_length=4)
        tower = trainer.model.base_model.visual
        hook = tower.register_forward_hook(lambda module, args, output: seen.append(args[0].shape[0]))
        trainer._generate_and_score_completions(next(iter(trainer.get_train_dataloader())))
        hook.remove()
    assert seen[1] == 4 * seen[0]


def test_twenty_steps_log_what_trl_logs(make: Callable[..., Any]) -> None:
    logs = []
    for settings in (OURS, {}):
        trainer = make(**settings, data=tiny.dataset(8), max_steps=20, max_completion_length=12)
        trainer.train()
        logs.append(trainer.state.log_history[:-1])
    assert len(logs[1]) == 20
    for name in ("reward", "loss", "grad_norm", "completions/mean_length"):
        ours, stock = (torch.tensor([step[name] for step in log]) for log in logs)
        assert stock.std() > 0
        assert (ours - stock).abs().max() < 1e-3 * stock.abs().max(), name
        assert (ours - stock).mean().abs() < 1e-4 * stock.abs().max(), name


def test_images_of_every_form_are_one_picture(tmp_path: Path) -> None:
    image = tiny.picture(3)
    encoded = tiny.png(image)
    path = tmp_path / "image.png"
    path.write_bytes(encoded)
    text = base64.b64encode(encoded).decode()
    forms = [encoded, str(path), path, text, f"data:image/png;base64,{text}", {"bytes": encoded, "path": None}, image]
    row = decode_rows([{"images": forms, "image": encoded, "solution": text}])[0]
    assert all(decoded.tobytes() == image.tobytes() for decoded in [*row["images"], row["image"]])
    assert row["solution"] == text


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("images", ["photos/cat.png"]),
        ("image", "photos/cat.png"),
        ("image", {"path": "photos/cat.png", "bytes": None}),
        ("images", [b"no image"]),
    ],
)
def test_an_image_that_cannot_be_read_is_named_with_its_row_and_column(column: str, value: Any) -> None:
    with pytest.raises(
        RowError, match=rf"row 'r7', column '{column}': (missing file|unreadable image); found"
    ) as error:
        decode_rows([{"id": "r7", column: value}])
    assert "--" not in str(error.value)
    assert "photos/cat.png" in str(error.value) or column == "images"


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """A web address that an image can be fetched from."""
    (tmp_path / "cat.png").write_bytes(tiny.png(tiny.picture(3)))
    handler = functools.partial(SimpleHTTPRequestHandler, directory=tmp_path)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/cat.png"
        server.shutdown()


@pytest.mark.parametrize("share", [True, False])
def test_an_image_on_the_web_is_trls_to_fetch(make: Callable[..., Any], address: str, share: bool) -> None:
    rows = [{"prompt": [{"role": "user", "content": "What is it?"}], "images": [address]}] * 2
    given = completions([5, 9, 3, 12, 7, 1, 2, 16])
    stock = update(make(given=given, data=datasets.Dataset.from_list(rows)))
    ours = update(
        make(**{**OURS, "options": {"share_prompt": share}}, given=given, data=datasets.Dataset.from_list(rows))
    )
    assert_same(ours, stock)


def test_a_batch_without_an_image_says_so_with_an_empty_list() -> None:
    for rows in ([{"image": None}], [{"images": None}, {"images": None}], [{"images": []}]):
        assert [row["images"] for row in decode_rows(rows)] == [[]] * len(rows)
    assert decode_rows([{"prompt": "How many?"}]) == [{"prompt": "How many?"}]
    mixed = decode_rows([{"image": None}, {"image": tiny.png(tiny.picture(1))}])
    assert ["images" in row for row in mixed] == [False, False]


@pytest.mark.parametrize("column", ["image", "images"])
def test_rows_without_an_image_fill_a_batch_of_their_own(make: Callable[..., Any], column: str) -> None:
    data = tiny.dataset(2)
    data = data.add_column(column + "_", [None, None]).remove_columns("images").rename_column(column + "_", column)
    ours, stock = make(**OURS, data=data), make(data=tiny.dataset(2, text_rows=(0, 1)))
    batches = [t._generate_and_score_completions(next(iter(t.get_train_dataloader()))) for t in (ours, stock)]
    assert batches[0]["prompt_ids"].shape == batches[1]["prompt_ids"].shape
    assert "pixel_values" not in batches[0]


def test_a_transform_and_a_mode_of_the_users_own_are_kept(make: Callable[..., Any]) -> None:
    seen: list[Any] = []

    def look(completions: list[Any], images: list[Any], **kwargs: Any) -> list[float]:
        seen.append([(image.mode, image.size) for row in images for image in row])
        return [float(i % 2) for i in range(len(completions))]

    def half(batch: dict[str, Any]) -> dict[str, Any]:
        return batch | {"images": [[image.resize((56, 28)) for image in images] for images in batch["images"]]}

    grey = tiny.dataset(2).cast_column("images", datasets.List(datasets.Image(mode="L")))
    for data in (grey, tiny.dataset(2).with_transform(half)):
        for kind in (OURS, {}):
            trainer = make(**kind, data=data, rewards=look, max_completion_length=2, shuffle_dataset=False)
            trainer._generate_and_score_completions(next(iter(trainer.get_train_dataloader())))
        assert seen[-1] == seen[-2]


@pytest.mark.parametrize("family", ["internvl", "llava_onevision"])
def test_a_row_without_an_image_may_be_in_any_place(make: Callable[..., Any], family: str) -> None:
    for text_row in (0, 1):
        data = tiny.dataset(2, text_rows=(text_row,))
        trainer = make(**OURS, family=family, data=data, shuffle_dataset=False, max_completion_length=2)
        batch = trainer._generate_and_score_completions(next(iter(trainer.get_train_dataloader())))
        assert [count > 0 for count in batch["num_images"]].index(True) == (4 if text_row == 0 else 0)


def test_datasets_keep_their_images_encoded_and_nothing_else_changes() -> None:
    data = tiny.dataset(2)
    kept = keep_encoded({"train": data})["train"]
    assert isinstance(kept[0]["images"][0], dict)
    assert isinstance(data[0]["images"][0], Image.Image)
    assert kept["prompt"][:] == data["prompt"][:]
    assert keep_encoded([1, 2]) == [1, 2]


def test_copies_are_collapsed_by_content() -> None:
    rows = [{"prompt": "a", "images": [bytes([n])]} for n in (0, 0, 1, 1, 0)]
    collapsed = GroupCollator()(rows)
    assert collapsed == rows
    assert [len({id(row["images"]) for row in collapsed})] == [3]


def test_completions_are_logged_in_the_order_of_rows(make: Callable[..., Any]) -> None:
    given = completions([3] * 8)
    ours, stock = make(**OURS, given=given), make(given=given)
    for trainer in (ours, stock):
        assert isinstance(trainer, GRPOTrainer)
        update(trainer)
    for key in ("completion", "advantages"):
        assert list(ours._logs[key]) == list(stock._logs[key])
    assert len(ours._logs["prompt"]) == len(stock._logs["prompt"]) == 8


@pytest.mark.parametrize("streamed, workers", [(True, 0), (False, 2)])
def test_streams_and_loader_workers_decode_once_too(
    make: Callable[..., Any], counts: dict[str, int], streamed: bool, workers: int
) -> None:
    data = tiny.dataset(4)
    settings = {"per_device_train_batch_size": 8, "given": completions([3] * 16), "max_steps": 2}
    ours = make(
        **OURS, **settings, data=data.to_iterable_dataset() if streamed else data, dataloader_num_workers=workers
    )
    counts.update(decoded=0, preprocessed=0)
    ours.train()
    # Two steps, and a generation batch of four prompts for each
    assert counts == {"decoded": 8, "preprocessed": 8}
