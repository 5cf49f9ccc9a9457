"""What pages, README and recipes' headers say to type is what the commands take, and links lead somewhere."""

import re
import shlex
from importlib import import_module
from pathlib import Path

import pytest
import typer
from accelerate.commands.launch import launch_command_parser

from trl_onevision.cli import app
from trl_onevision.data.adapters import ADAPTERS
from trl_onevision.recipes import recipe_folder

CHECKOUT = Path(__file__).parents[1]
PAGES = [CHECKOUT / "README.md", *sorted((CHECKOUT / "docs").glob("*.md"))]
RECIPES = sorted(recipe_folder().glob("*.yaml"))


def commands(program):
    """Every command of a program, with where it stands: those of a recipe's header and of a page's blocks for bash."""
    for file in [*PAGES, *RECIPES]:
        text = file.read_text()
        blocks = re.findall(r"```bash\n(.*?)```", text, re.DOTALL) if file in PAGES else [text.split("\n\n")[0]]
        for block in blocks:
            whole = re.sub(r"\\\n#? *", "", block).replace("$seed", "0")
            for command in re.findall(rf"^(?:#  |.*(?:&&|do))? *({program} [^&;\n]*)", whole, re.MULTILINE):
                yield file.name, shlex.split(command, comments=True)


OURS, TRLS = list(commands("trl-onevision")), list(commands("trl (?:sft|grpo|dpo)"))


@pytest.mark.parametrize(("file", "words"), OURS, ids=[f"{file}: {' '.join(words[1:4])}" for file, words in OURS])
def test_a_command_has_the_arguments_that_it_is_shown_with(file, words):
    group = typer.main.get_command(app)
    _, command, rest = group.resolve_command(typer.Context(group), words[1:])
    given = command.make_context(command.name, rest).params
    if command.name == "prepare":  # a file of one's own, or a dataset whose place is known
        known = given["dataset"] in ADAPTERS and ADAPTERS[given["dataset"]].source
        assert known or given["source"], "names no source, and none is known"


@pytest.mark.parametrize(("file", "words"), TRLS, ids=[f"{file}: {' '.join(words[1:4])}" for file, words in TRLS])
def test_a_command_of_trl_has_options_that_trl_or_accelerate_knows(file, words):
    parsers = import_module(f"trl.scripts.{words[1]}").make_parser(), launch_command_parser()
    known = {action.dest for parser in parsers for action in parser._actions} | {"config", "accelerate_config"}
    assert {word.removeprefix("--") for word in words if word.startswith("--")} <= known


def test_the_commands_are_found():
    assert len(OURS) > 60 and len(TRLS) > 30


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_link_leads_somewhere(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        path, _, anchor = link.partition("#")
        if path.startswith("http"):
            continue
        target = page.parent / path if path else page
        assert target.is_file(), link
        headings = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE) if anchor else []
        assert not anchor or anchor in [re.sub(r"[^\w -]", "", h).lower().replace(" ", "-") for h in headings], link


@pytest.mark.parametrize("listing", ["README.md", "docs/index.md", ".mkdocs.yml"])
def test_every_page_is_listed(listing):
    text = (CHECKOUT / listing).read_text()
    assert [page.name for page in PAGES[1:] if page.name != "index.md" and page.name not in text] == []
