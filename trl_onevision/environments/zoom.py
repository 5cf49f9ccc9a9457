"""Crop and look again: a tool that shows a part of an image enlarged, and a bonus for answers that it led to."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, get_args

from PIL import Image

from trl_onevision.data.images import decode_image
from trl_onevision.environments.settings import positive
from trl_onevision.rewards import accuracy_reward
from trl_onevision.rewards.frames import Frame, frame_scale


class Zoom:
    """A tool `zoom(box, image)` that shows a part of an image of the row, enlarged.

    >>> environment = Zoom(frame="norm1000")
    >>> environment.reset(images=[Image.new("RGB", (400, 300))], originals=[Image.new("RGB", (4000, 3000))])
    >>> picture, text = environment.zoom([500, 500, 600, 600])
    >>> picture["image"].size, text["text"]
    ((517, 387), 'Image 1 from (500, 500) to (600, 600), 12.9 times as large.')

    Args:
        frame: What the numbers of a box mean: `pixel` of the image in the prompt as it is stored (Qwen2.5-VL),
            `norm1000` (Qwen3-VL), `norm1`, …, as in `IoUReward`.
        calls: How many calls a rollout has.
        pixels: The most pixels of what is shown.
        share: The largest share of an image that a part may have: who sees all of it has not looked closer.

    A row's column `originals` holds its images at full resolution where those of the prompt were reduced
    (`trl-onevision prepare … --originals`); without it, what is shown has no more detail than the prompt. A part is
    clipped to the image, and widened to `SMALLEST` pixels a side and to no more than `ELONGATED` times as long as
    wide. Anything else in a call is an error that the model reads, and costs a call too.
    """

    SMALLEST = 28
    ELONGATED = 8

    def __init__(
        self, frame: Frame = "pixel", calls: int = 4, pixels: int = 256 * 28 * 28, share: float = 0.5
    ) -> None:
        if frame not in get_args(Frame):
            raise ValueError(f"Zoom: frame {frame!r} is not one of {', '.join(get_args(Frame))}.")
        positive("Zoom", calls=calls, pixels=pixels, share=share)
        self.frame, self.calls, self.pixels, self.share = frame, calls, pixels, share
        self._left = 0

    def reset(self, images: Any = None, originals: Any = None, **row: Any) -> None:
        """Begin with the images of a row; the prompt stays as it is."""
        self._images = list(images or [])
        self._originals = list(originals or self._images)
        if len(self._images) != len(self._originals):
            raise ValueError(
                f"Zoom: row {row.get('id')!r} has {len(self._images)} images and {len(self._originals)} originals; "
                "expected one for each."
            )
        self._left = self.calls

    def zoom(self, box: list[float], image: int = 1) -> list[dict[str, Any]]:
        """Look closer at a part of an image of the question.

        Args:
            box: The part as [x1, y1, x2, y2], in the coordinates of boxes in the image of the question.
            image: Which image, counted from 1.
        """
        if self._left <= 0:
            raise ValueError(f"All {self.calls} calls are used. Answer with what you have seen.")
        self._left -= 1
        if isinstance(image, bool) or not isinstance(image, int) or not 1 <= image <= len(self._images):
            raise ValueError(f"image must be a number from 1 to {len(self._images)}.")
        if not (isinstance(box, list | tuple) and len(box) == 4 and all(map(_is_number, box))):
            raise ValueError("box must be four numbers: [x1, y1, x2, y2].")
        original = decode_image(self._originals[image - 1])
        part = self._part(box, self._images[image - 1].size, original.size)
        scale = math.sqrt(self.pixels / ((part[2] - part[0]) * (part[3] - part[1])))
        size = max(1, int((part[2] - part[0]) * scale)), max(1, int((part[3] - part[1]) * scale))
        shown = original.resize(size, Image.Resampling.BICUBIC, box=part)
        times = scale * original.width / self._images[image - 1].width
        corners = f"({box[0]:g}, {box[1]:g}) to ({box[2]:g}, {box[3]:g})"
        text = f"Image {image} from {corners}, {times:.1f} times as large."
        return [{"type": "image", "image": shown}, {"type": "text", "text": text}]

    def _part(
        self, box: Sequence[float], size: tuple[int, int], original: tuple[int, int]
    ) -> tuple[float, float, float, float]:
        """A box of the model as a part of the original."""
        sides = []
        x, y = frame_scale(self.frame, "norm1", size)
        for low, high, factor in ((box[0], box[2], x), (box[1], box[3], y)):
            low, high = (min(max(float(value) * factor, 0.0), 1.0) for value in (low, high))
            if not low < high:
                raise ValueError("box must hold a part of the image: x1 < x2 and y1 < y2, inside of it.")
            sides.append((low, high))
        (x1, x2), (y1, y2) = sides
        if (x2 - x1) * (y2 - y1) > self.share:
            raise ValueError(f"box must hold {self.share:.0%} of the image at most: the rest is seen already.")
        width, height = (x2 - x1) * original[0], (y2 - y1) * original[1]
        wide, high = (
            max(width, self.SMALLEST, height / self.ELONGATED),
            max(height, self.SMALLEST, width / self.ELONGATED),
        )
        left, right = _widened(x1 * original[0], x2 * original[0], wide, original[0])
        top, bottom = _widened(y1 * original[1], y2 * original[1], high, original[1])
        return left, top, right, bottom


def _widened(low: float, high: float, length: float, whole: int) -> tuple[float, float]:
    """An interval of the given length around another's middle, moved and cut to fit into the whole.

    >>> _widened(0, 2, 10, 100), _widened(40, 60, 30, 100), _widened(1, 2, 30, 20)
    ((0.0, 10.0), (35.0, 65.0), (0.0, 20.0))
    """
    length = float(min(length, whole))
    start = min(max((low + high - length) / 2, 0.0), whole - length)
    return start, start + length


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e9


class ZoomReward:
    """Pay 1 for an answer that is right and was given after a look: after a tool had shown an image.

    >>> look = {"role": "tool", "name": "zoom", "content": [{"type": "image", "image": Image.new("RGB", (8, 8))}]}
    >>> say = {"role": "assistant", "content": "<answer>7</answer>"}
    >>> zoom_reward([[say], [look, say], [say, look]], solution=["7"] * 3)
    [0.0, 1.0, 0.0]

    A bonus beside the reward for the answer. Calls that are paid for themselves are made for the pay (DeepEyes,
    arXiv 2505.14362), and calls that are never paid die out; here a wrong answer earns nothing however often it
    looked, a call that failed is no look, and a second look earns no more than one. What is said before the last look
    does not count: `by` reads what follows it. A look elsewhere than at what the answer needs is paid too, where
    the answer is right: nothing in a row says where to look.

    Args:
        by: The reward that says what is right: what earns 1 or more.

    Returns 0 or 1; `None` where `by` gives `None`.
    """

    def __init__(self, by: Callable[..., Sequence[float | None]] | None = None, *, name: str = "zoom_reward") -> None:
        self.by = by or accuracy_reward
        self.__name__ = name

    def __call__(
        self,
        completions: Sequence[Any],
        log_extra: Any = None,
        log_metric: Callable[[str, float], None] | None = None,
        **columns: Any,
    ) -> list[float | None]:
        after = [_after_look(completion) for completion in completions]
        paid = self.by(completions=[said or "" for said in after], **columns)
        if log_metric is not None and after:
            log_metric(f"{self.__name__}/looked", sum(said is not None for said in after) / len(after))
        return [
            None if value is None else float(said is not None and value >= 1)
            for value, said in zip(paid, after, strict=True)
        ]


def _after_look(completion: Any) -> list[Any] | None:
    """The messages after the last image that a tool showed, None where none did."""
    messages = completion if isinstance(completion, list) else []
    looks = [place for place, message in enumerate(messages) if _shows_image(message)]
    return messages[looks[-1] + 1 :] if looks else None


def _shows_image(message: Any) -> bool:
    content = message.get("content") if isinstance(message, dict) and message.get("role") == "tool" else None
    return isinstance(content, list) and any(
        isinstance(part, dict) and part.get("type") == "image" for part in content
    )


zoom_reward = ZoomReward()
