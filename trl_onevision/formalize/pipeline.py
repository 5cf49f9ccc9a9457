"""One row through all stages: what is asked of which server, what is done here, and what it cost."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from io import BytesIO

from PIL import Image

from trl_onevision.chat import FAIR_TRIAL, BudgetSpent, Chat, Line, NoReply, Reply, Request
from trl_onevision.data.convert import BoxFrame
from trl_onevision.data.prompts import PROMPTS
from trl_onevision.data.rows import Asked
from trl_onevision.data.schema import RowError
from trl_onevision.formalize import execute, prompts, stages
from trl_onevision.formalize.check import check
from trl_onevision.formalize.evidence import ObjectFinder, TextReader
from trl_onevision.formalize.stages import Ask, Rejected, Row
from trl_onevision.rewards import AccuracyReward


class FormalizeError(RuntimeError):
    """The run cannot go on; the message says why and what to do."""


@dataclass(frozen=True)
class Plan:
    """How rows are made. `votes` is (m, k): of k samples of the reasoning, m must agree with the gold, or each other.

    `server_boxes` asks the vision server for boxes, in `box_frame`; `objects` finds them here.
    """

    vision: Chat
    reason: Chat
    text: TextReader | None = None
    objects: ObjectFinder | None = None
    server_boxes: bool = False
    box_frame: BoxFrame = "norm1000"
    votes: tuple[int, int] = (1, 1)

    @property
    def asks(self) -> dict[str, Ask]:
        """The stages that ask a model, in their order."""
        every = [
            Ask("kind", "vision", stages.kind_request, stages.kind_accept),
            Ask("boxes", "vision", stages.boxes_request, partial(stages.boxes_accept, self.box_frame)),
            Ask("formal", "vision", stages.formal_request, stages.formal_accept),
            Ask("repair", "vision", stages.repair_request, stages.formal_accept),
            Ask("reason", "reason", partial(stages.reason_request, self.votes[1]), stages.reason_accept),
            Ask("rewrite", "reason", stages.rewrite_request, stages.rewrite_accept),
            Ask("verify", "reason", stages.verify_request, stages.verify_accept),
        ]
        return {ask.name: ask for ask in every if ask.name != "boxes" or self.server_boxes}


@dataclass
class Tally:
    """What a run did: requests by stage, and what became of the rows."""

    asked: Counter[str] = field(default_factory=Counter)
    cached: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    rejected: Counter[str] = field(default_factory=Counter)
    accepted: int = 0
    prompt_tokens: Counter[str] = field(default_factory=Counter)  # of this run, by server
    completion_tokens: Counter[str] = field(default_factory=Counter)
    first_failure: str = ""

    def fail(self, stage: str, error: NoReply, patience: int) -> None:
        """Count a failure; where nothing but failures came, the run ends."""
        self.failed[stage] += 1
        self.first_failure = self.first_failure or str(error)
        if not self.asked and not self.cached and self.failed.total() >= patience:
            raise FormalizeError(
                f"no reply to the first {patience} requests, the first: {self.first_failure}. Check that the server "
                "is up and has the model; the same command asks again."
            )


class Pipeline:
    """The stages with their servers open."""

    def __init__(self, plan: Plan, lines: dict[str, Line], tally: Tally) -> None:
        self.plan, self.lines, self.tally = plan, lines, tally
        self.patience = max(FAIR_TRIAL, plan.vision.max_concurrency)
        self.accuracy = AccuracyReward()
        # Evidence and parsers: as many at a time as there are cores.
        self.pool = ThreadPoolExecutor(os.cpu_count() or 1)
        asks = {name: partial(self._ask, ask) for name, ask in plan.asks.items()}

        def here(work: Callable[[Row], Row]) -> Callable[[Row], Awaitable[Row]]:
            return partial(self._here, work)

        self.steps: list[Callable[[Row], Awaitable[Row]]] = [
            asks["kind"],
            here(self._gather),
            *([asks["boxes"]] if "boxes" in asks else []),
            asks["formal"],
            here(_checked),
            asks["repair"],
            here(_passed),
            here(self._consistent),
            asks["reason"],
            here(self._settled),
            asks["rewrite"],
            here(self._still_right),
            asks["verify"],
        ]

    async def run(self, row: Row) -> tuple[Row, Rejected | None]:
        """The row as far as it came, and why no further."""
        for step in self.steps:
            try:
                row = await step(row)
            except Rejected as rejected:
                return row, rejected
        return row, None

    async def _ask(self, ask: Ask, row: Row) -> Row:
        requests = ask.request(row)
        if not requests:
            return row
        line = self.lines[ask.server]
        replies = await asyncio.gather(*(self._reply(ask, line, request) for request in requests))
        read, said = Counter(row.prompt_tokens), Counter(row.completion_tokens)
        read[ask.server] += sum(reply.prompt_tokens for reply in replies)
        said[ask.server] += sum(reply.completion_tokens for reply in replies)
        requests_so_far = row.requests + len(replies)
        row = replace(row, requests=requests_so_far, prompt_tokens=dict(read), completion_tokens=dict(said))
        return ask.accept(row, replies)

    async def _reply(self, ask: Ask, line: Line, request: Request) -> Reply:
        try:
            reply = await line.ask(request)
        except BudgetSpent:
            raise
        except NoReply as error:
            self.tally.fail(ask.name, error, self.patience)
            raise Rejected(ask.name, f"no reply: {error}") from error
        if reply.cached:
            self.tally.cached[ask.name] += 1
        else:
            self.tally.asked[ask.name] += 1
            self.tally.prompt_tokens[ask.server] += reply.prompt_tokens
            self.tally.completion_tokens[ask.server] += reply.completion_tokens
        return reply

    async def _here(self, work: Callable[[Row], Row], row: Row) -> Row:
        return await asyncio.get_running_loop().run_in_executor(self.pool, work, row)

    def _gather(self, row: Row) -> Row:
        """Text and objects, where the kind wants them."""
        kind = prompts.KINDS[row.kind]
        read = self.plan.text if kind.ocr else None
        find = self.plan.objects if kind.boxes and row.objects else None
        if read is None and find is None:
            return row
        with Image.open(BytesIO(row.image)) as image:
            ocr = read(image) if read else []
            boxes = find(image, list(row.objects)) if find else []
        return replace(row, ocr=tuple(ocr), boxes=stages.checked_boxes(boxes, "pixel", row.size) if boxes else ())

    def _consistent(self, row: Row) -> Row:
        """Where the formal text itself can answer, its answer is the gold."""
        if row.solution is None:
            return row
        said = execute.answer(row.language, row.formal, row.question)
        if said is None:
            return row
        if not self._right(f"Answer: {said}", row):
            raise Rejected(
                "consistency", f"the {row.language} contradicts the gold: it says {said}, the gold is {row.solution}"
            )
        return replace(row, verdicts=(*row.verdicts, f"the {row.language} answers {said}"))

    def _settled(self, row: Row) -> Row:
        """The first draft that closes with the right answer, where enough do."""
        least, samples = self.plan.votes
        if row.solution is not None:
            right = [draft for draft in row.drafts if self._right(draft, row)]
            if len(right) < least:
                found = f"{len(right)} of {samples} close" if samples > 1 else "does not close"
                raise Rejected("answer", f"{found} with the gold: {row.solution}")
            return replace(row, reasoning=right[0], verdicts=(*row.verdicts, "right answer"))
        if samples == 1:
            raise Rejected("answer", "no gold, and no vote (--votes) in its place")
        return self._voted(row, least)

    def _voted(self, row: Row, least: int) -> Row:
        for draft in row.drafts:
            try:
                gold = Asked(row.id, PROMPTS["plain"], "", row.question, images=[]).solved(draft, "grpo")
            except RowError:
                continue
            voted = replace(row, solution=gold["solution"], task=gold["task"], choices=gold["choices"])
            if (agree := sum(self._right(other, voted) for other in row.drafts)) >= least:
                return replace(voted, reasoning=draft, verdicts=(*row.verdicts, f"{agree} votes"))
        raise Rejected("answer", f"no {least} of {self.plan.votes[1]} samples agree")

    def _still_right(self, row: Row) -> Row:
        if not self._right(row.rewritten, row):
            raise Rejected("answer", f"the rewrite does not close with the gold: {row.solution}")
        return row

    def _right(self, text: str, row: Row) -> bool:
        (score,) = self.accuracy([text], solution=[row.solution], task=[row.task], choices=[row.choices], id=[row.id])
        if score is None:
            raise Rejected("answer", f"a gold of task {row.task!r} cannot be compared with a closing answer")
        return score == 1


def _checked(row: Row) -> Row:
    fault = check(row.language, row.formal)
    return replace(row, fault=fault, verdicts=() if fault else (f"{row.language} parses",))


def _passed(row: Row) -> Row:
    """What did not parse at first must after its one retry."""
    row = row if row.verdicts else _checked(row)
    if row.fault is not None:
        raise Rejected("parse", row.fault)
    return row
