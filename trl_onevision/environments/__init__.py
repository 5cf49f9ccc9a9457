"""Environments that a recipe can name: what a rollout sees besides its row, as TRL's `environment_factory` takes them.

Plain classes that import neither torch nor TRL: `reset` begins a rollout, every other public method is a tool.
"""

from trl_onevision.environments.render import Render, drawn_reward
from trl_onevision.environments.synthesize import Synthesize
from trl_onevision.environments.zoom import Zoom, ZoomReward, zoom_reward

__all__ = ["Render", "Synthesize", "Zoom", "ZoomReward", "drawn_reward", "zoom_reward"]
