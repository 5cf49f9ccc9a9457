"""A file is replaced whole or not at all."""

import json
from pathlib import Path

import pytest

from trl_onevision.json_file import read_json, write_json


def test_a_full_disk_leaves_the_previous_file_and_nothing_beside_it(tmp_path, monkeypatch):
    path = tmp_path / "run.json"
    write_json(path, {"a": 1})

    def half(self, text, **options):
        with self.open("w") as file:
            file.write(text[:3])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", half)
    with pytest.raises(OSError, match="No space"):
        write_json(path, {"a": 2})
    assert json.loads(path.read_text()) == {"a": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["run.json"]


@pytest.mark.parametrize("text", ["", "{", "[1]", "3"])
def test_what_is_no_object_is_named_with_what_to_do(tmp_path, text):
    path = tmp_path / "run.json"
    assert read_json(path) == {}
    path.write_text(text)
    with pytest.raises(ValueError, match=r"run.json: found no JSON object \(.*--output"):
        read_json(path)
