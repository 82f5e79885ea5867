"""`submit`, `watch` and `cancel`: a batch on a stack that stays up."""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.entrypoints.cli.counter import Counter, at_counter
from pipeline.entrypoints.cli.exits import ExitCode, exit_code_of
from pipeline.entrypoints.cli.options import (
    AsJson,
    BatchIdArgument,
    BudgetOption,
    EndpointOption,
    HoldOption,
    IdempotencyOption,
    InputFile,
    LabelOption,
    MetaOption,
    PriorityOption,
    TierOption,
    WindowOption,
)
from pipeline.entrypoints.cli.talk import print_document, print_line, say

if TYPE_CHECKING:  # the stores are imported by the commands that open them
    from pipeline.ports.batches import BatchView
    from pipeline.ports.desk import Desk


@at_counter
def submit(  # noqa: PLR0913 -- a parameter for each option
    counter: Counter,
    file: InputFile,
    *,
    endpoint: EndpointOption = None,
    window: WindowOption = None,
    tier: TierOption = "standard",
    max_cost: BudgetOption = None,
    labels: LabelOption = None,
    meta: MetaOption = None,
    idempotency_key: IdempotencyOption = None,
    hold_until: HoldOption = None,
    priority: PriorityOption = None,
    promise: Annotated[
        bool,
        typer.Option(
            "--promise",
            help="Accept it only if its deadline is promised and its cost is likely within --max-cost; else say what would be.",
        ),
    ] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Follow the batch until it ends.")] = False,
    as_json: AsJson = False,
) -> int:
    """Submit a file of requests; its batch id goes to stdout."""
    from pipeline.entrypoints.cli.admission import await_promise, check_admission
    from pipeline.entrypoints.cli.detaching import detachable
    from pipeline.entrypoints.cli.inputs import opened_input
    from pipeline.entrypoints.cli.submission import parse_terms

    terms = parse_terms(
        tier=tier,
        window=window,
        max_cost=max_cost,
        labels=labels,
        meta=meta,
        idempotency_key=idempotency_key,
        hold_until=hold_until,
        priority=priority,
    )
    with detachable() as watched, opened_input(file, endpoint=endpoint) as source, counter.desk() as desk:

        def created(view: BatchView) -> None:
            watched.batch_id = view.batch_id
            if not as_json and not promise:
                print_line(view.batch_id)

        if promise:
            check_admission(desk, source, terms)
        view = desk.submit(source.path, source.endpoint, terms, on_created=created, must_promise=promise)
        if promise:
            view = await_promise(desk, view)
        if promise and not as_json:
            print_line(view.batch_id)
        if wait and not view.state.is_terminal:
            view = follow_talking(desk, view.batch_id)
    return tell_submitted(view, as_json=as_json)


@at_counter
def watch(counter: Counter, batch_id: BatchIdArgument, *, as_json: AsJson = False) -> int:
    """Follow a batch until it ends; Ctrl-C stops looking, not the batch."""
    from pipeline.entrypoints.cli.detaching import detachable
    from pipeline.entrypoints.cli.documents import error_lines
    from pipeline.entrypoints.cli.following import JsonDisplay, follow, lines_as_data, talking_display

    with detachable() as watched, counter.desk() as desk:
        watched.batch_id = batch_id
        look = partial(desk.get, batch_id)
        if as_json:
            view = follow(look, JsonDisplay())
        elif not sys.stdout.isatty():
            view = follow(look, lines_as_data())
        else:
            with talking_display() as display:
                view = follow(look, display)
    for line in error_lines(view):
        say(line)
    return exit_code_of(view)


@at_counter
def cancel(counter: Counter, batch_id: BatchIdArgument, *, as_json: AsJson = False) -> int:
    """Cancel a batch: what runs may finish, nothing new starts, finished rows keep their results."""
    from pipeline.entrypoints.cli.documents import batch_document

    with counter.desk() as desk:
        view = desk.cancel(batch_id)
    say(f"{batch_id} is {view.state}; `nightrate results {batch_id}` will have the rows that finished.")
    if as_json:
        print_document(batch_document(view))
    return ExitCode.OK


def follow_talking(desk: Desk, batch_id: str) -> BatchView:
    """Follow a batch until it ends, on stderr."""
    from pipeline.entrypoints.cli.following import follow, talking_display

    with talking_display() as display:
        return follow(partial(desk.get, batch_id), display)


def tell_submitted(view: BatchView, *, as_json: bool) -> int:
    """Say what became of a batch that was handed in, and return how the command ends."""
    from pipeline.entrypoints.cli.documents import batch_document, error_lines, why
    from pipeline.entrypoints.cli.figures import counted

    if as_json:
        print_document(batch_document(view))
    if view.state.is_terminal:
        say(f"{view.batch_id} {view.state}: {why(view)}")
        for line in error_lines(view):
            say(line)
        return exit_code_of(view)
    say(f"{counted(view.rows_total, 'request')} accepted; `nightrate watch {view.batch_id}` follows them.")
    return ExitCode.OK
