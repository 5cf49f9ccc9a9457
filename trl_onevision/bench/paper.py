"""What the paper reports (R1-Onevision, arXiv 2503.10615): percent right, overall, by level and by category.

Its answers were extracted by GPT-4o-mini and compared by a judge.
"""

ROWS = 942
LEVELS = ("Junior High School", "High School", "College", "Social Test")
CATEGORIES = ("Math", "Physics", "Chemistry", "Biology", "Deduction")

MODELS: dict[str, tuple[float, ...]] = {
    "Gemini-2.0-Flash": (59.1, 56.0, 65.9, 61.2, 39.8, 52.3, 64.4, 74.3, 67.2, 39.8),
    "GPT-4o": (49.6, 51.3, 56.2, 45.3, 26.5, 41.3, 52.5, 71.4, 63.4, 26.5),
    "R1-Onevision-7B": (36.2, 40.1, 39.5, 27.6, 26.5, 33.0, 30.2, 49.5, 53.0, 26.5),
    "Qwen2.5-VL-7B": (32.1, 33.8, 37.1, 25.3, 19.4, 31.5, 27.3, 39.0, 47.0, 19.4),
}
"""Each model's average, then a figure for each of `LEVELS` and `CATEGORIES`."""

AVERAGES = {
    "Claude-3.5": 52.1,
    "Qwen2.5-VL-72B": 52.0,
    "InternVL2.5-8B-MPO": 32.5,
    "MiniCPM-o-2.6": 30.4,
    "Qwen2-VL-7B": 30.0,
    "DeepSeek-VL2": 29.8,
    "InternVL2.5-8B": 29.5,
}
"""Models of which the average alone is known."""


def column_of(name: str, names: tuple[str, ...]) -> str | None:
    """The paper's name for a level or category of the data, which may be longer or shorter, or `None`.

    >>> column_of("mathematics", CATEGORIES), column_of("Junior High", LEVELS), column_of("Law", CATEGORIES)
    ('Math', 'Junior High School', None)
    """
    given = " ".join(name.casefold().replace("_", " ").split())
    near = [known for known in names if known.casefold().startswith(given) or given.startswith(known.casefold())]
    return near[0] if len(near) == 1 and given else None
