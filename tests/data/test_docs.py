"""The tables of docs/data.md are generated from the code: run this file as a script to write them anew."""

import re
from pathlib import Path

from trl_onevision.data.adapters import ADAPTERS
from trl_onevision.data.prompts import PROMPTS
from trl_onevision.data.schema import CONTRACT

PAGE = Path(__file__).parents[2] / "docs" / "data.md"


def table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [header, tuple("---" for _ in header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def contract_table() -> str:
    rows = [(f"`{column}`", f"`{kind.replace('|', 'or')}`", text) for column, (kind, text) in CONTRACT.items()]
    return table(("column", "type", "meaning"), rows)


def adapters_table() -> str:
    rows = []
    for adapter in ADAPTERS.values():
        columns = ", ".join(f"`{column}`" for column in sorted(adapter.columns)) or "by name"
        prompts = ", ".join(f"{purpose} (`{prompt}`)" for purpose, prompt in adapter.prompts.items())
        source, licence = adapter.source or "files", adapter.license or "not known"
        rows.append((f"`{adapter.name}`", source, licence, columns, prompts))
    return table(("name", "source", "licence", "recognised by", "for (prompt)"), rows)


def prompts_table() -> str:
    return table(("prompt", "source"), [(f"`{name}`", prompt.source) for name, prompt in sorted(PROMPTS.items())])


def generated(page: str) -> str:
    for name, text in (("contract", contract_table()), ("adapters", adapters_table()), ("prompts", prompts_table())):
        mark = f"<!-- {name}: generated -->"
        page, count = re.subn(rf"{mark}\n(\n\|[^\n]*(\n\|[^\n]*)*\n)?", lambda _: f"{mark}\n\n{text}\n", page)  # noqa: B023
        assert count == 1, f"{PAGE}: found {count} marks {mark}, expected one"
    return page


def test_the_tables_are_those_of_the_code():
    page = PAGE.read_text(encoding="utf-8")
    assert page == generated(page), (
        f"{PAGE} is out of date: run `python {Path(__file__).name}` in {Path(__file__).parent}"
    )


if __name__ == "__main__":
    PAGE.write_text(generated(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
