"""Print the table of the rewards, as `docs/rewards.md` holds it: `python -m trl_onevision.rewards`."""

import inspect
import sys
from collections.abc import Iterator

from trl_onevision import rewards

# What TRL passes by itself, or this package only if it is there, is no column that a dataset has to bring.
GIVEN = {"self", "completions", "completion_ids", "prompts", "log_extra", "log_metric", "trainer_state"}


def table() -> Iterator[str]:
    """Yield the lines of a Markdown table: a reward, its class, what it pays, the columns that it reads."""
    yield "| reward | class | what it pays | columns |"
    yield "|---|---|---|---|"
    ready = {name: value for name in rewards.__all__ if not inspect.isclass(value := getattr(rewards, name))}
    kinds = {type(value) for value in ready.values()}
    others = [value for name in rewards.__all__ if inspect.isclass(value := getattr(rewards, name))]
    yield from (_line("", kind) for kind in others if kind not in kinds)
    yield from (_line(f"`{name}`", type(value)) for name, value in ready.items())


def _line(name: str, kind: type) -> str:
    pays = (inspect.getdoc(kind) or "").split("\n\n")[0].replace("\n", " ").replace("|", "\\|")
    asked = inspect.signature(kind.__call__).parameters
    named = [name for name, column in asked.items() if name not in GIVEN and column.kind is not column.VAR_KEYWORD]
    columns = [*named, *getattr(kind, "columns", ())]
    return f"| {name} | `{kind.__name__}` | {pays} | {', '.join(f'`{column}`' for column in columns)} |"


if __name__ == "__main__":
    sys.stdout.write("\n".join(table()) + "\n")
