"""Prints the table of docs/synthesize.md: every task, its levels, and what answers at random earn."""

from trl_onevision.data.synthesize import find, names

if __name__ == "__main__":
    print("| task | level | | chance |\n| --- | --- | --- | --- |")  # noqa: T201
    for name in names():
        task = find(name)
        for level, description in enumerate(task.LEVELS, start=1):
            shown = f"`{name}`" if level == 1 else ""
            print(f"| {shown} | {level} | {description} | {task.chance(level):.3f} |")  # noqa: T201
