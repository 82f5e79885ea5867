"""`run`: the main job in one command, from a file of requests to its results and its bill."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.entrypoints.cli.exits import exit_code_of
from pipeline.entrypoints.cli.options import (
    AsJson,
    BudgetOption,
    EndpointOption,
    ForceOption,
    HoldOption,
    IdempotencyOption,
    InputFile,
    LabelOption,
    MetaOption,
    OutputOption,
    TierOption,
    WindowOption,
    WorkersOption,
)
from pipeline.entrypoints.cli.talk import say

if TYPE_CHECKING:  # the stores are imported by the commands that open them
    from pipeline.entrypoints.cli.detaching import Watched
    from pipeline.entrypoints.cli.result_files import Targets
    from pipeline.ports.batches import BatchView
    from pipeline.ports.desk import Terms

ErrorsOption = Annotated[Path | None, typer.Option("--errors", help="Where the failed rows go.")]


def run(  # noqa: PLR0913 -- a parameter for each option
    file: InputFile,
    *,
    output: OutputOption = None,
    errors: ErrorsOption = None,
    force: ForceOption = False,
    endpoint: EndpointOption = None,
    window: WindowOption = None,
    tier: TierOption = "standard",
    max_cost: BudgetOption = None,
    labels: LabelOption = None,
    meta: MetaOption = None,
    idempotency_key: IdempotencyOption = None,
    hold_until: HoldOption = None,
    workers: WorkersOption = None,
    as_json: AsJson = False,
) -> int:
    """Run a file of requests from start to end: results beside the file, and what they cost."""
    from pipeline.entrypoints.cli.detaching import detachable
    from pipeline.entrypoints.cli.result_files import targets_of
    from pipeline.entrypoints.cli.submission import parse_terms

    terms = parse_terms(
        tier=tier,
        window=window,
        max_cost=max_cost,
        labels=labels,
        meta=meta,
        idempotency_key=idempotency_key,
        hold_until=hold_until,
    )
    targets = targets_of(file, output=output, errors=errors, force=force)
    with detachable() as watched:
        view = _run(file, endpoint, terms, targets, watched, workers=workers, as_json=as_json)
    return exit_code_of(view)


def _run(
    file: str,
    endpoint: str | None,
    terms: Terms,
    targets: Targets,
    watched: Watched,
    *,
    workers: int | None,
    as_json: bool,
) -> BatchView:
    from pipeline.app.desk import LocalDesk
    from pipeline.entrypoints.cli.connection import connected
    from pipeline.entrypoints.cli.following import follow, talking_display
    from pipeline.entrypoints.cli.inputs import opened_input
    from pipeline.entrypoints.cli.own_stack import guard_of, stack_up
    from pipeline.entrypoints.cli.summary import summarize

    began_at = datetime.now(UTC)

    def created(view: BatchView) -> None:
        watched.batch_id = view.batch_id
        say(f"batch {view.batch_id}")

    with (
        opened_input(file, endpoint=endpoint) as source,
        stack_up(watched, workers) as settings,
        connected(settings) as stack,
    ):
        desk = LocalDesk(stack)
        view = desk.submit(source.path, source.endpoint, terms, on_created=created)
        check = guard_of(stack).check if watched.owns_stack else None
        with talking_display() as display:
            view = follow(partial(desk.get, view.batch_id), display, check=check)
        written = targets.write(desk, view)
        # On a stack of our own all overhead since we began is ours; on a shared one, what fell beside the batch.
        since = began_at if watched.owns_stack else view.created_at
        summarize(stack, view, written, overhead_since=since, as_json=as_json)
    return view
