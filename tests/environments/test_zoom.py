"""Zoom shows what the original has at the box, and nothing that a call says makes it show more or fail otherwise."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from trl_onevision.environments import Zoom, ZoomReward, zoom_reward
from trl_onevision.rewards import iou_reward


def marked(size: tuple[int, int], box: tuple[float, float, float, float]) -> Image.Image:
    """White, with a red box given in shares of the size."""
    image = Image.new("RGB", size, "white")
    corners = [value * size[index % 2] for index, value in enumerate(box)]
    ImageDraw.Draw(image).rectangle((corners[0], corners[1], corners[2] - 1, corners[3] - 1), fill="red")
    return image


@pytest.mark.parametrize(
    ("frame", "box"),
    [("pixel", [100, 60, 180, 120]), ("norm1000", [250, 200, 450, 400]), ("norm1", [0.25, 0.2, 0.45, 0.4])],
)
def test_the_box_is_read_in_its_frame_and_cut_out_of_the_original(frame: Any, box: list[float]) -> None:
    red = (0.25, 0.2, 0.45, 0.4)
    environment = Zoom(frame=frame)
    environment.reset(images=[marked((400, 300), red)], originals=[marked((2000, 1500), red)])
    shown, text = environment.zoom(box)
    pixels = np.asarray(shown["image"])
    assert (pixels[9:-9, 9:-9] == (255, 0, 0)).all()  # Pillow's filter looks a little over the edge
    assert environment.zoom([value * 1.1 for value in box])[0]["image"].getpixel((5, 5)) == (255, 0, 0)
    assert environment.zoom([value * 0.9 for value in box])[0]["image"].getpixel((5, 5)) == (255, 255, 255)
    assert shown["image"].width / shown["image"].height == pytest.approx(4 / 3, abs=0.01)
    assert environment.pixels * 0.98 < pixels.shape[0] * pixels.shape[1] <= environment.pixels
    assert "6.5 times as large" in text["text"] or frame != "pixel"


def test_a_part_has_the_detail_of_the_original_and_without_one_that_of_the_image() -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (800, 800, 3), dtype=np.uint8))
    small = noise.resize((200, 200), Image.Resampling.BICUBIC)
    environment = Zoom(pixels=100 * 100)
    environment.reset(images=[small], originals=[noise])
    shown = environment.zoom([50, 50, 75, 75])[0]["image"].crop((0, 0, 100, 100))
    expected = noise.resize((100, 100), Image.Resampling.BICUBIC, box=(200, 200, 300, 300))
    assert np.abs(np.asarray(shown, int) - np.asarray(expected, int)).max() <= 1
    buffer = BytesIO()
    noise.save(buffer, format="PNG")
    environment.reset(images=[small], originals=[{"bytes": buffer.getvalue(), "path": None}])  # as our trainer has it
    assert np.array_equal(environment.zoom([50, 50, 75, 75])[0]["image"].crop((0, 0, 100, 100)), shown)
    environment.reset(images=[small])
    blurred = environment.zoom([50, 50, 75, 75])[0]["image"]
    assert np.asarray(blurred, float).std() < 0.7 * np.asarray(expected, float).std()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({"box": [0, 0, 300, 300]}, "50% of the image at most"),
        ({"box": [10, 10, 10, 20]}, "x1 < x2 and y1 < y2"),
        ({"box": [500, 500, 600, 600]}, "x1 < x2 and y1 < y2, inside"),
        ({"box": [1, 2, 3]}, "four numbers"),
        ({"box": "1, 2, 3, 4"}, "four numbers"),
        ({"box": [1, 2, 3, True]}, "four numbers"),
        ({"box": [0, 0, float("nan"), 4]}, "four numbers"),
        ({"box": [0, 0, 10**400, 4]}, "four numbers"),
        ({"box": [0, 0, 9, 9], "image": 2}, "from 1 to 1"),
        ({"box": [0, 0, 9, 9], "image": True}, "from 1 to 1"),
        ({"box": [0, 0, 9, 9], "image": "first"}, "from 1 to 1"),
    ],
)
def test_what_cannot_be_shown_is_said_and_costs_a_call(call: dict[str, Any], message: str) -> None:
    environment = Zoom(calls=2)
    environment.reset(images=[Image.new("RGB", (400, 400))])
    with pytest.raises(ValueError, match=message):
        environment.zoom(**call)
    environment.zoom([0, 0, 20, 20])
    with pytest.raises(ValueError, match="All 2 calls are used"):
        environment.zoom([0, 0, 20, 20])
    environment.reset(images=[Image.new("RGB", (400, 400))])
    environment.zoom([0, 0, 20, 20])


NUMBERS = st.floats(allow_nan=True) | st.integers() | st.integers(-5, 1200)
LEAF = st.none() | st.booleans() | NUMBERS | st.text(max_size=5)
JSON = LEAF | st.lists(LEAF, max_size=5) | st.dictionaries(st.text(max_size=5), LEAF, max_size=2)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    box=st.lists(NUMBERS, min_size=4, max_size=4) | JSON,
    image=st.just(1) | JSON,
    size=st.tuples(*[st.integers(1, 900)] * 2),
)
def test_nothing_that_is_said_shows_more_than_it_may(box: Any, image: Any, size: tuple[int, int]) -> None:
    environment = Zoom(frame="norm1000", pixels=784)
    environment.reset(images=[Image.new("RGB", size)])
    try:
        shown, _ = environment.zoom(box, image)
    except ValueError:
        return
    width, height = shown["image"].size
    assert width * height <= 784
    # As elongated as it may be, or as the image itself is
    assert max(width, height) <= 1.2 * max(Zoom.ELONGATED, max(size) / min(size)) * min(width, height) + 1


def test_rows_that_cannot_be_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match="row 'a' has 1 images and 2 originals"):
        Zoom().reset(images=[1], originals=[1, 2], id="a")
    with pytest.raises(ValueError, match="frame 'norm10' is not one of pixel, norm1000"):
        Zoom(frame="norm10")  # type: ignore[arg-type]
    environment = Zoom()
    environment.reset(solution="7")
    with pytest.raises(ValueError, match="from 1 to 0"):
        environment.zoom([0, 0, 1, 1])


IMAGE = {"role": "tool", "name": "zoom", "content": [{"type": "image"}]}
FAILED = {"role": "tool", "name": "zoom", "content": "{'error': 'box must be four numbers'}"}
RIGHT, WRONG = ({"role": "assistant", "content": f"<answer>{answer}</answer>"} for answer in (7, 8))


@pytest.mark.parametrize(
    ("completion", "paid"),
    [
        ([RIGHT], 0),
        ([RIGHT, IMAGE], 0),
        ([RIGHT, IMAGE, WRONG], 0),
        ([RIGHT, IMAGE, {"role": "assistant", "content": ""}], 0),
        ([WRONG, IMAGE, RIGHT], 1),
        ([WRONG, IMAGE, IMAGE, RIGHT], 1),
        ([WRONG, IMAGE, RIGHT, IMAGE], 0),
        ([WRONG, IMAGE, WRONG, FAILED, RIGHT], 1),
        ([WRONG, FAILED, RIGHT], 0),
        ([{**RIGHT, "content": "<tool_response><|vision_start|></tool_response><answer>7</answer>"}], 0),
        ([{"role": "user", "content": [{"type": "image"}]}, RIGHT], 0),
        ("<answer>7</answer>", 0),
        ([], 0),
    ],
)
def test_a_look_pays_where_a_right_answer_follows_it(completion: Any, paid: float) -> None:
    assert zoom_reward([completion], solution=["7"]) == [paid]


def test_another_reward_may_say_what_is_right_and_on_which_rows() -> None:
    reward = ZoomReward(iou_reward, name="zoomed")
    gold = '[{"bbox_2d": [0, 0, 10, 10], "label": "a"}]'
    said = [[IMAGE, {"role": "assistant", "content": f"<answer>[0, 0, {side}, 10]</answer>"}] for side in (10, 9)]
    logged: dict[str, float] = {}
    columns = {"solution": [gold, gold, "7"], "task": ["boxes", "boxes", "number"]}
    paid = reward([*said, [RIGHT]], log_metric=logged.__setitem__, **columns)
    assert paid == [1.0, 0.0, None]
    assert logged == {"zoomed/looked": pytest.approx(2 / 3)}
