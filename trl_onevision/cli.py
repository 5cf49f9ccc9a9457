"""The `trl-onevision` command; training itself is `trl sft` and `trl grpo`."""

from typing import Any

import typer
from typer.core import TyperGroup

from trl_onevision.bench.command import bench_command
from trl_onevision.check import check_command
from trl_onevision.data.prepare import prepare_command
from trl_onevision.data.synthesize.command import synthesize_command
from trl_onevision.formalize.command import formalize_command
from trl_onevision.quickstart.run import quickstart_command
from trl_onevision.recipes import recipes_command
from trl_onevision.select.command import select_command
from trl_onevision.stages import stages_command


class TwoWords(TyperGroup):
    """A group whose commands may have names of two words: `prepare synthesize` beside `prepare DATASET`."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that the first two words name, else the first."""
        two = " ".join(args[:2])
        return super().resolve_command(ctx, [two, *args[2:]] if two in self.commands else args)


app = typer.Typer(
    cls=TwoWords,
    help="Multimodal reasoning RL on TRL. Train with `trl sft` and `trl grpo` on a recipe of this package.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("quickstart")(quickstart_command)
app.command("recipes")(recipes_command)
app.command("check")(check_command)
app.command("prepare")(prepare_command)
app.command("prepare synthesize")(synthesize_command)
app.command("select")(select_command)
app.command("stages")(stages_command)
app.command("bench")(bench_command)
app.command("formalize")(formalize_command)
