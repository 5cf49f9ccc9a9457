"""`trl-onevision bench`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trl_onevision.console import fail
from trl_onevision.data.prompts import PROMPTS


def bench_command(
    data: Annotated[Path, typer.Option(help="The benchmark as published: r1-onevision.tsv.")],
    output: Annotated[Path, typer.Option(help="The folder of this run; an unfinished one is gone on with.")],
    model: Annotated[
        str | None, typer.Option(help="A checkpoint's folder, a hub id, or the server's name for it.")
    ] = None,
    server: Annotated[
        str | None, typer.Option(help="Ask an OpenAI-compatible server instead: http://127.0.0.1:8000/v1")
    ] = None,
    predictions: Annotated[
        Path | None, typer.Option(help="Score this file (JSONL, TSV, CSV: index, completion) and run no model.")
    ] = None,
    prompt: Annotated[str, typer.Option(help=f"One of {', '.join(sorted(PROMPTS))}.")] = "think-answer",
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Length at which an answer is cut.")] = 4096,
    repetition_penalty: Annotated[float, typer.Option(help="1.0 for none.")] = 1.05,
    max_pixels: Annotated[int, typer.Option(min=784, help="Larger images are reduced.")] = 12_845_056,
    batch_size: Annotated[int, typer.Option(min=1, help="Rows at a time; with --server, requests.")] = 8,
    dtype: Annotated[str, typer.Option(help="bfloat16, float16 or float32.")] = "bfloat16",
    judge: Annotated[str | None, typer.Option(help="A model that judges the answers beside the rules.")] = None,
    judge_url: Annotated[str | None, typer.Option(help="The judge's OpenAI-compatible server.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="The first rows only.")] = None,
) -> None:
    """Answer R1-Onevision-Bench with a model, score by rule, and write a table, JSON, Markdown and a heat map.

    Answers are kept as they come: the same command goes on where it was stopped.
    """
    from trl_onevision.bench.answer import BenchError
    from trl_onevision.bench.run import bench
    from trl_onevision.bench.tsv import TsvError
    from trl_onevision.chat import Chat
    from trl_onevision.engine import EngineError, Sampling

    try:
        if judge_url is not None and judge is None:
            raise BenchError("--judge-url is the server of a judge: name its model with --judge, or leave both out.")
        sampling = Sampling(1, False, 0.0, repetition_penalty, max_new_tokens, batch_size, dtype)
        bench(
            data,
            output,
            model=model,
            server=server,
            predictions=predictions,
            prompt=prompt,
            max_pixels=max_pixels,
            sampling=sampling,
            judge=Chat(judge, judge_url) if judge else None,
            limit=limit,
        )
    except (BenchError, EngineError, TsvError, ValueError, OSError) as error:
        fail(error)
    typer.echo(f"{output}/report.md, results.json, heatmap.png, scores.jsonl, predictions.jsonl")
