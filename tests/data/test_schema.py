"""The contract: what validate_row accepts and how it names what it does not; what write_dataset writes."""

import json
import struct
import subprocess
import sys
import zlib
from io import BytesIO

import pytest
from datasets import Image as ImageFeature
from datasets import List, load_dataset
from PIL import Image

from trl_onevision.data import OutputExists, RowError, validate_row, write_dataset

GRPO = {
    "prompt": [{"role": "user", "content": "Which colour?"}],
    "images": [Image.new("RGB", (84, 56), "red")],
    "solution": "red",
    "task": "text",
    "choices": None,
    "key_steps": None,
    "id": "row-1",
    "source": "drawn",
}
SFT = {
    "prompt": GRPO["prompt"],
    "completion": [{"role": "assistant", "content": "<think>…</think><answer>red</answer>"}],
    "images": GRPO["images"],
    "id": "row-1",
    "source": "drawn",
}
IMAGE, TEXT = {"type": "image"}, {"type": "text", "text": "Which?"}


def boxes(*corners: object) -> dict:
    return {"task": "boxes", "solution": json.dumps([{"bbox_2d": c, "label": "a"} for c in corners])}


def bomb() -> bytes:
    """A small file that says of itself that it is an image of 900 megapixels."""
    buffer = BytesIO()
    Image.new("L", (1, 1)).save(buffer, "PNG")
    header = b"IHDR" + struct.pack(">II", 30_000, 30_000) + buffer.getvalue()[24:29]
    return buffer.getvalue()[:12] + header + struct.pack(">I", zlib.crc32(header)) + buffer.getvalue()[33:]


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"prompt": [{"role": "system", "content": "Think."}, {"role": "user", "content": [IMAGE, TEXT]}]},
        {"images": [], "prompt": [{"role": "user", "content": [TEXT]}]},
        {"task": "choice", "choices": ["red", "blue"], "solution": "A"},
        {"task": "choice", "choices": ["red", "blue"], "solution": "blue"},
        {"task": "choice", "choices": ["red", "blue", "green"], "solution": '["A", "green"]'},
        {"task": "choice", "solution": "C"},
        {"task": "set", "solution": '["red", "blue"]'},
        boxes([0, 0, 84, 56], [1.5, 2, 3, 4]),
        {"task": "boxes", "solution": "[]"},
        {"task": "points", "solution": '[{"point_2d": [4, 5], "label": "ear"}]'},
        {"task": "action", "solution": '{"action": "click", "bbox_2d": [0, 0, 10, 10]}'},
        {"task": "span", "solution": "[1.0, 2.5]"},
        {"key_steps": [["6/3 = 2", "6 divided by 3 equals 2"], ["two"]]},
    ],
)
def test_rows_that_keep_the_contract(change):
    validate_row(GRPO | change)


@pytest.mark.parametrize(
    ("change", "column", "message"),
    [
        ({"prompt": "Which colour?"}, "prompt", "not messages; found .Which colour[?]., expected a non-empty list"),
        ({"prompt": []}, "prompt", "not messages"),
        ({"prompt": [{"role": "human", "content": "?"}]}, "prompt", "role one of"),
        (
            {"prompt": [{"role": "user", "content": [{"type": "video"}]}]},
            "prompt",
            "unknown block; found {'type': 'vid",
        ),
        ({"prompt": [{"role": "user", "content": None}]}, "prompt", "unknown block"),
        ({"prompt": SFT["completion"]}, "prompt", "no question; found a last message by 'assistant'"),
        ({"prompt": [{"role": "user", "content": [TEXT]}]}, "prompt", "found 0 image blocks and 1 images"),
        ({"prompt": [{"role": "user", "content": [IMAGE, IMAGE, TEXT]}]}, "prompt", "found 2 image blocks and 1"),
        ({"images": None}, "images", "wrong type; found None, expected a list of images"),
        ({"images": [b"rubbish"]}, "images", "not an image; found bytes, 7 long"),
        ({"images": [bomb()]}, "images", "not an image; found bytes"),
        ({"images": [{"bytes": None, "path": "a.png"}]}, "images", "not an image"),
        ({"solution": ""}, "solution", "no gold answer"),
        ({"solution": 3}, "solution", "no gold answer; found 3, expected a non-empty string"),
        ({"task": "maths"}, "task", "unknown task; found 'maths', expected one of math, choice"),
        ({"choices": ["a", "b"]}, "choices", "options without a choice"),
        (
            {"choices": [str(n) for n in range(12)], "task": "choice", "solution": "L"},
            "solution",
            "gold is no option; found 'L', expected a letter of ABCDEFGHIJ",
        ),
        ({"task": "choice", "choices": ["a"], "solution": "A"}, "choices", "not options"),
        ({"task": "choice", "choices": ["a", "b"], "solution": "C"}, "solution", "gold is no option; found 'C'"),
        ({"task": "choice", "choices": ["a", "b"], "solution": '["A", "C"]'}, "solution", "gold is no option"),
        ({"key_steps": ["two"]}, "key_steps", "not key steps"),
        ({"key_steps": [[]]}, "key_steps", "not key steps"),
        ({"task": "boxes", "solution": "[1, 2"}, "solution", "not JSON"),
        ({"task": "boxes", "solution": "{}"}, "solution", "not boxes"),
        ({"task": "masks", "solution": "left"}, "solution", "not JSON"),
        (boxes([1, 2, 3]), "solution", "not a box"),
        (boxes([1, 2, 3, None]), "solution", "not a box"),
        (boxes([5, 2, 3, 4]), "solution", "empty box"),
        (boxes([1, 2, 300, 40]), "solution", r"box outside the image; found \[1, 2, 300, 40\] in an image of 84x56"),
        ({"task": "masks", "solution": "1" * 5000}, "solution", "not JSON; found .*Exceeds the limit"),
        ({"task": "masks", "solution": "[" * 100_000}, "solution", "not JSON"),
        ({"id": ""}, "id", "no name"),
        ({"id": "a\ud800"}, "id", r"not Unicode text; found 'a\\ud800', expected no half of a surrogate pair"),
        ({"solution": "x" * 99 + "\udcff"}, "solution", r"not Unicode text; found 'x{20}\\udcff'"),
        ({"prompt": [{"role": "user", "content": "\ud800?"}]}, "prompt", "not Unicode text"),
        ({"prompt": [{"role": "user", "content": [IMAGE, TEXT | {"text": "\ud800"}]}]}, "prompt", "not Unicode text"),
        ({"task": "choice", "choices": ["a", "\ud800"], "solution": "A"}, "choices", "not Unicode text"),
        ({"key_steps": [["\ud800"]]}, "key_steps", "not Unicode text"),
        ({"source": 3}, "source", "no name"),
    ],
)
def test_a_broken_row_is_named_with_its_column(change, column, message):
    with pytest.raises(RowError, match=message) as caught:
        validate_row(GRPO | change)
    assert caught.value.column == column
    assert str(caught.value).startswith(f"row {str((GRPO | change)['id'])!r}, column {column!r}")
    str(caught.value).encode()


@pytest.mark.parametrize("column", ["prompt", "images", "solution", "task", "id", "source"])
def test_a_missing_column_is_named(column):
    with pytest.raises(RowError, match=f"column '{column}': missing column"):
        validate_row({key: value for key, value in GRPO.items() if key != column})


@pytest.mark.parametrize(
    ("completion", "message"),
    [("text", "not messages"), (GRPO["prompt"], "wrong roles"), ([{"role": "assistant", "content": " "}], "empty")],
)
def test_sft_rows(completion, message):
    validate_row(SFT, "sft")
    with pytest.raises(RowError, match=message):
        validate_row(SFT | {"completion": completion}, "sft")


def test_written_rows_come_back_through_plain_load_dataset(tmp_path):
    text_only = GRPO | {"images": [], "id": "row-2", "prompt": [{"role": "user", "content": "6 x 7?"}]}
    two = GRPO | {
        "id": "row-3",
        "images": GRPO["images"] * 2,
        "task": "choice",
        "choices": ["a", "b"],
        "solution": "B",
    }
    folder = write_dataset([GRPO, text_only, two], tmp_path / "out")
    loaded = load_dataset(str(folder), split="train", cache_dir=str(tmp_path / "cache"))
    assert loaded.features["images"] == List(ImageFeature())
    assert [len(row["images"]) for row in loaded] == [1, 0, 2]
    assert loaded[0]["images"][0].getpixel((0, 0)) == (255, 0, 0)
    kinds = [[block["type"] for block in row["prompt"][0]["content"]] for row in loaded]
    assert kinds == [["image", "text"], ["text"], ["image", "image", "text"]]
    assert loaded[2]["choices"] == ["a", "b"] and loaded[0]["choices"] is None
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "CMYK", "I;16"])
def test_pil_images_of_every_mode_are_written_as_rgb(tmp_path, mode):
    folder = write_dataset([GRPO | {"images": [Image.new(mode, (84, 56))]}], tmp_path / "out")
    assert load_dataset(str(folder), split="train", cache_dir=str(tmp_path / "cache"))[0]["images"][0].mode == "RGB"


def test_trl_fills_the_written_image_blocks(tmp_path):
    from trl.data_utils import prepare_multimodal_messages

    folder = write_dataset([SFT], tmp_path / "out", purpose="sft", split="test")
    row = load_dataset(str(folder), split="test", cache_dir=str(tmp_path / "cache"))[0]
    filled = prepare_multimodal_messages(row["prompt"], images=row["images"])
    assert filled[0]["content"][0]["image"].size == (84, 56)


def test_a_bad_row_leaves_no_folder_and_a_used_folder_is_left_alone(tmp_path):
    with pytest.raises(RowError, match="row 'row-9'"):
        write_dataset([GRPO, GRPO | {"id": "row-9", "solution": ""}], tmp_path / "out")
    assert not list(tmp_path.iterdir())
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "thesis.tex").write_text("…")
    with pytest.raises(OutputExists, match=r"holds thesis.tex, expected a new or empty folder. Nothing was changed"):
        write_dataset([GRPO], tmp_path / "used")
    assert (tmp_path / "used" / "thesis.tex").read_text() == "…"
    with pytest.raises(ValueError, match="no row to write"):
        write_dataset([], tmp_path / "none")


def test_many_rows_become_numbered_shards_in_order(tmp_path, monkeypatch):
    monkeypatch.setattr("trl_onevision.data.writer.SHARD_ROWS", 4)
    folder = write_dataset([GRPO | {"id": str(index)} for index in range(10)], tmp_path / "out")
    assert [path.name for path in sorted(folder.glob("data/*"))] == [
        f"train-0000{index}-of-00003.parquet" for index in range(3)
    ]
    loaded = load_dataset(str(folder), split="train", cache_dir=str(tmp_path / "cache"))
    assert loaded["id"][:] == [str(index) for index in range(10)]


def test_importing_data_loads_neither_torch_nor_trl_nor_datasets():
    code = (
        "import sys, trl_onevision.data, trl_onevision.data.prepare, trl_onevision.data.convert\n"
        "print([name for name in ('torch', 'trl', 'transformers', 'datasets') if name in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("difficulty", "hard"),
        ("duration", float("nan")),
        ("uncertainty", True),
        ("visual_facts", "one"),
        ("visual_facts", [1]),
    ],
)
def test_what_rewards_read_besides_is_checked(column, value):
    row = {
        "prompt": [{"role": "user", "content": "?"}], "images": [], "solution": "1", "task": "number", "id": "1",
        "source": "x",
    }  # fmt: skip
    validate_row(row)
    with pytest.raises(RowError, match=column):
        validate_row({**row, column: value})


def test_what_rewards_read_besides_is_written_and_read(tmp_path):
    given = {"difficulty": 2.0, "uncertainty": 0.5, "duration": 12.5, "visual_facts": ["a clock"]}
    row = {
        "prompt": [{"role": "user", "content": "?"}], "images": [], "solution": "1", "task": "number", "id": "1",
        "source": "x",
    }  # fmt: skip
    write_dataset([row | given, row], tmp_path / "rows")
    first, second = load_dataset(str(tmp_path / "rows"), split="train", cache_dir=str(tmp_path / "cache"))
    assert {column: first[column] for column in given} == given
    assert all(second[column] is None for column in given)
