"""Draw, look, draw again: a tool that shows what a source draws, and the reward for the last drawing (after RRVF)."""

from __future__ import annotations

import json
from typing import Any

from trl_onevision.answers.extract import answer_block
from trl_onevision.environments.settings import positive
from trl_onevision.rewards.render import RenderReward
from trl_onevision.rewards.render_source import Refused, read_drawing
from trl_onevision.rewards.renderer import render


class Render:
    """A tool `render(source)` that shows what SVG or Vega-Lite draws, for rows of the task `render`.

    >>> environment = Render()
    >>> disc = '<svg viewBox="0 0 9 9"><circle cx="4" cy="4" r="3"/></svg>'
    >>> environment.reset(solution=json.dumps({"language": "svg", "source": disc}), task="render")
    >>> environment.render("<svg viewBox='0 0 9 9'/>")[0]["image"].size, environment.likeness()
    ((336, 336), 0.0)
    >>> _ = environment.render(disc)
    >>> environment.likeness()
    1.0

    Args:
        side: Pixels of the longer side of what is shown.
        calls: How many calls a rollout has.
        seconds: How long a drawing may take.

    RRVF (arXiv 2507.20766) has the loop, with matplotlib that runs as code; here nothing does: a source is read,
    bounded, and drawn in a process that is killed where it must be (`trl_onevision.rewards.render`). What cannot be
    drawn is an error that the model reads.
    """

    def __init__(self, side: int = 336, calls: int = 4, seconds: float = 5.0) -> None:
        positive("Render", side=side, calls=calls, seconds=seconds)
        self.side, self.calls, self.seconds = side, calls, seconds
        self._reward = RenderReward(seconds=seconds)
        self._row: dict[str, Any] = {}
        self._last: str | None = None
        self._left = 0

    def reset(self, solution: Any = None, task: Any = None, id: Any = None, **row: Any) -> None:
        """Begin with the drawing of a row; the prompt stays as it is."""
        self._row = {"solution": solution, "task": task, "id": id}
        self._last, self._left = None, self.calls

    def render(self, source: str) -> list[dict[str, Any]]:
        """Draw a source and look at the drawing. The last call is the answer.

        Args:
            source: The whole source: an <svg> element, or a Vega-Lite specification in JSON.
        """
        if self._left <= 0:
            raise ValueError(f"All {self.calls} calls are used; the last one counts.")
        self._left -= 1
        # A specification may come as an object, a source in what an answer stands in
        self._last = answer_block(source if isinstance(source, str) else json.dumps(source))
        try:
            image = render(read_drawing(self._last), self.side, self.seconds)
        except Refused as error:
            raise ValueError(f"Not drawn: {error}") from error
        if image is None:
            raise ValueError(f"Not drawn: no drawing within {self.seconds:g} seconds.")
        return [{"type": "image", "image": image}]

    def likeness(self) -> float | None:
        """What `render_reward` pays for the source of the last call: 0 where there was none, or it drew nothing."""
        columns: dict[str, Any] = {name: [value] for name, value in self._row.items()}
        (paid,) = self._reward(completions=[self._last or ""], **columns)
        return paid


def drawn_reward(environments: list[Any] | None = None, **columns: Any) -> list[float | None]:
    """Pay what `render_reward` pays for the source of a rollout's last call of `Render`, 0 where it made none.

    >>> disc = '<svg viewBox="0 0 9 9"><circle cx="4" cy="4" r="3"/></svg>'
    >>> environment = Render()
    >>> environment.reset(solution=json.dumps({"language": "svg", "source": disc}), task="render")
    >>> _ = environment.render(disc)
    >>> drawn_reward(completions=[[]], environments=[environment])
    [1.0]

    The last and not the best: a rollout that is paid for the best of its drawings learns to guess in as many
    directions as it has calls, and not to look at what it drew. What is written outside of calls does not count. In
    [0, 1]; `None` for rows of another task.
    """
    if environments is None:
        raise ValueError(
            "drawn_reward reads what was drawn: it needs `environment: trl_onevision.environments.Render`."
        )
    return [environment.likeness() if isinstance(environment, Render) else None for environment in environments]
