"""`trl-onevision select`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from trl_onevision.console import fail
from trl_onevision.select.keep import PRESETS, Order, band


def select_command(
    data: Annotated[str, typer.Argument(help="A folder that `prepare` wrote, or a dataset id with TRL's columns.")],
    output: Annotated[Path, typer.Option(help="The folder of this run; the same command goes on with it.")],
    model: Annotated[
        str | None, typer.Option(help="A checkpoint's folder, a hub id, or the server's name for it.")
    ] = None,
    server: Annotated[
        str | None, typer.Option(help="Ask an OpenAI-compatible server instead: http://127.0.0.1:8000/v1")
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(help="A recipe for `trl grpo`: its rewards and weights, its length and temperature.")
    ] = None,
    rewards: Annotated[
        str | None, typer.Option(help="Instead of a recipe's, dotted paths: my_module.reward,my_module.other")
    ] = None,
    correct: Annotated[
        str | None,
        typer.Option(
            help="The rewards that say what is right, the first that scores a row. Default: those with a gold."
        ),
    ] = None,
    pass_at: Annotated[float, typer.Option(help="What such a reward pays at least for a right answer.")] = 0.5,
    k: Annotated[int | None, typer.Option("--k", min=2, help="Answers a row. Default: the preset's, or 8.")] = None,
    keep: Annotated[
        str | None, typer.Option(help="Keep rows with a pass rate in LOW:HIGH, both included, as 0.1:0.9.")
    ] = None,
    preset: Annotated[str | None, typer.Option(help=f"A paper's rule: {', '.join(PRESETS)}.")] = None,
    blind: Annotated[bool, typer.Option("--blind", help="Ask again with grey in the place of each image.")] = False,
    order: Annotated[Order | None, typer.Option(help="Write easy rows first, or hard ones.")] = None,
    pairs: Annotated[
        bool, typer.Option("--pairs", help="Write the best and the worst answer to each row for `trl dpo`.")
    ] = False,
    random_control: Annotated[
        bool, typer.Option("--random-control", help="Write as many rows at random, as the split `random`.")
    ] = False,
    max_new_tokens: Annotated[
        int | None, typer.Option(min=1, help="Length at which an answer is cut. Default: the recipe's, or 1024.")
    ] = None,
    temperature: Annotated[float | None, typer.Option(help="Default: the recipe's, or 1.")] = None,
    extra: Annotated[
        str | None,
        typer.Option(help="With --server, what else a request holds, as YAML; {} for none. Default: no top-k."),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Rows at a time; with --server, requests.")] = 8,
    dtype: Annotated[str, typer.Option(help="bfloat16, float16 or float32.")] = "bfloat16",
    seed: Annotated[int, typer.Option(min=0, help="Of the answers and of the random control.")] = 0,
    split: Annotated[str, typer.Option(help="The split to read.")] = "train",
    limit: Annotated[int | None, typer.Option(min=1, help="The first rows only.")] = None,
) -> None:
    """Keep the rows that a model can learn from: those that it answers right at times.

    Answers are kept as they come: the same command goes on where it was stopped, and asks for what failed.
    """
    import yaml

    from trl_onevision.engine import EngineError, Local, Sampling, Server
    from trl_onevision.select.measure import Rewards, read_recipe
    from trl_onevision.select.rows import Rows, SelectError
    from trl_onevision.select.run import REPLIES, Wanted, claim, select

    try:
        if preset is not None and preset not in PRESETS:
            raise ValueError(f"--preset {preset!r}: unknown; expected one of {', '.join(PRESETS)}")
        if model is None:
            raise ValueError("name a checkpoint with --model, or with --server too the server's name for one")
        if (recipe is None) == (rewards is None):
            raise ValueError("say what scores the answers: either --recipe FILE or --rewards my_module.reward")
        paper = PRESETS[preset] if preset else None
        settings: dict[str, Any] = read_recipe(recipe) if recipe else {"reward_funcs": _listed(rewards)}
        judged = Rewards.named(
            settings["reward_funcs"], settings.get("reward_weights"), _listed(correct) or None, pass_at
        )
        rules = [paper.rule] if paper else []
        rules += [band(keep)] if keep else []
        sampling = Sampling(
            k=k or (paper.k if paper else 8),
            blind=blind or (paper is not None and paper.blind),
            temperature=settings.get("temperature", 1.0) if temperature is None else temperature,
            max_new_tokens=max_new_tokens or settings.get("max_completion_length") or 1024,
            batch_size=batch_size,
            dtype=dtype,
            seed=seed,
        )
        claim(output)
        cache = output / REPLIES
        more = None if extra is None else yaml.safe_load(extra)
        engine = Server(server, model, sampling, cache, more) if server else Local(model, sampling, cache)
        wanted = Wanted(rules, order, pairs, random_control, seed)
        summary = select(Rows(data, split, limit), engine, judged, output, wanted)
    except (SelectError, EngineError, ImportError, ValueError, OSError) as error:
        fail(error)
    typer.echo(f"{summary.kept:,} rows in {output}. A recipe reads them as `dataset_name: {output}`.")
    if order is not None:
        typer.echo("In this order only with `shuffle_dataset: false`.")
    if summary.pairs:
        typer.echo(f"{summary.pairs:,} pairs: `trl dpo --dataset_name {output / 'pairs'}`.")


def _listed(text: str | None) -> list[str]:
    return [part.strip() for part in (text or "").split(",") if part.strip()]
