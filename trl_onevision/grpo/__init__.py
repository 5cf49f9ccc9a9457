"""The trainer: a group costs one prompt, not G. The only place that imports trl."""
