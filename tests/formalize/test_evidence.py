"""Text that was rendered is read again where it stands; boxes come in pixels from any finder."""

import string
import sys

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from trl_onevision.formalize.evidence import find_objects, object_finder, read_text, text_reader

pytest.importorskip("rapidocr", reason="rapidocr is in the extra `formalize`")

LINES = ["R1 = 220 ohm", "Total sales 2024", "V = 12.5 V", "Answer: 42", "Mean of 17 runs", "Open daily 9-17"]


def distance(a, b):
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        row, before = [i], row
        for j, y in enumerate(b, 1):
            row.append(min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (x != y)))
    return row[-1]


@pytest.mark.parametrize(
    ("size", "ink", "ground"), [(24, "black", "white"), (32, "navy", "#ffffe0"), (48, "white", "#333")]
)
def test_rendered_lines_are_read_where_they_stand(size, ink, ground):
    font = ImageFont.load_default(size)
    image = Image.new("RGB", (size * 16, size * 2 * len(LINES) + 40), ground)
    draw = ImageDraw.Draw(image)
    places = []
    for index, line in enumerate(LINES):
        at = (20 + 7 * index, 20 + size * 2 * index)
        draw.text(at, line, font=font, fill=ink)
        alone = Image.new("L", image.size)
        ImageDraw.Draw(alone).text(at, line, font=font, fill=255)
        rows, columns = np.nonzero(np.asarray(alone) > 96)
        places.append([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
    found = read_text(image)
    assert len(found) == len(LINES)
    errors = sum(distance(line["text"], wanted) for line, wanted in zip(found, LINES, strict=True))
    assert errors / sum(map(len, LINES)) <= 0.02, [line["text"] for line in found]
    for line, place in zip(found, places, strict=True):
        assert np.abs(np.subtract(line["bbox_2d"], place)).max() <= 3, (line, place)


def test_an_image_without_text_has_none():
    assert read_text(Image.new("RGB", (64, 64), "white")) == []


def test_the_pipeline_of_transformers_gives_boxes_in_pixels(monkeypatch):
    def detect(image, candidate_labels, threshold):
        assert candidate_labels == ["a red ball."]
        box = {"xmin": -3, "ymin": 2, "xmax": image.width + 5, "ymax": 20}
        return [{"box": box, "label": "a red ball.", "score": 0.9}]

    from trl_onevision.formalize import evidence

    monkeypatch.setattr(evidence, "_detector", lambda model: detect)
    assert find_objects(Image.new("RGB", (50, 40)), ["A red ball"], model="any/one") == [
        {"bbox_2d": [0.0, 2.0, 50.0, 20.0], "label": "A red ball"}
    ]


def test_a_reader_of_ones_own_lies_in_the_folder_that_the_command_is_started_from(tmp_path, monkeypatch):
    (tmp_path / "my_reader.py").write_text("def read(image): return []")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", sys.path[:])
    assert text_reader("my_reader.read")(None) == []


def test_readers_and_finders_go_by_name_or_by_dotted_path():
    assert text_reader("string.capwords") is string.capwords
    assert object_finder("string.capwords") is string.capwords
    assert object_finder("owner/checkpoint").keywords == {"model": "owner/checkpoint"}
    assert object_finder("server") is None
