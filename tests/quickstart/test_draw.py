"""The sheet of samples takes whatever a model says."""

import warnings

import pytest
from PIL import Image

from trl_onevision.quickstart.digits import rows
from trl_onevision.quickstart.draw import draw_samples


@pytest.mark.parametrize("said", ["$x_{$", "\x13\x00\n\t", "<answer>[0,0,1</answer>", ""])
def test_any_answer_is_drawn_without_a_warning(tmp_path, said):
    held_out = list(rows("held-out", 4))
    path = tmp_path / "samples.png"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw_samples(held_out, [{"after": said}] * len(held_out), path)
    with Image.open(path) as picture:
        picture.verify()
