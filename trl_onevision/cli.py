"""The `trl-onevision` command; training itself is `trl sft` and `trl grpo`."""

import typer

from trl_onevision.bench.command import bench_command
from trl_onevision.check import check_command
from trl_onevision.data.prepare import prepare_command
from trl_onevision.quickstart.run import quickstart_command
from trl_onevision.recipes import recipes_command

app = typer.Typer(
    help="Multimodal reasoning RL on TRL. Train with `trl sft` and `trl grpo` on a recipe of this package.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("quickstart")(quickstart_command)
app.command("recipes")(recipes_command)
app.command("check")(check_command)
app.command("prepare")(prepare_command)
app.command("bench")(bench_command)
