"""`list` and `show`: batches as they stand."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.entrypoints.cli.counter import Counter, at_counter
from pipeline.entrypoints.cli.exits import ExitCode
from pipeline.entrypoints.cli.options import AsJson, BatchIdArgument
from pipeline.entrypoints.cli.talk import print_document, print_facts, print_line, print_table, say


@at_counter
def list_batches(
    counter: Counter,
    *,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="How many, newest first.")] = 20,
    state: Annotated[list[str] | None, typer.Option("--state", help="Only in this state; repeatable.")] = None,
    as_json: AsJson = False,
) -> int:
    """List batches, newest first."""
    from pipeline.domain.errors import UsageError
    from pipeline.domain.lifecycle import BatchState
    from pipeline.entrypoints.cli.documents import batch_document, rows_done
    from pipeline.entrypoints.cli.figures import count, moment, money

    try:
        states = [BatchState(name) for name in state or ()]
    except ValueError as error:
        raise UsageError(f"{error}", hint=f"states are {', '.join(BatchState)}") from error
    with counter.desk() as desk:
        views = desk.list(limit=limit, states=states)
    if as_json:
        print_document([batch_document(view) for view in views])
        return ExitCode.OK
    if not views:
        say("There are no batches." if not states else "There are no batches in that state.")
        return ExitCode.OK
    heads = ("ID", "STATE", "MODEL", "TIER", "ROWS", "FAILED", "CHARGED", "SUBMITTED")
    rows = [
        (
            view.batch_id,
            str(view.state),
            ", ".join(view.models) or "-",
            str(view.tier),
            f"{count(rows_done(view))}/{count(view.rows_total)}",
            count(view.rows_failed if view.rows_failed is not None else view.rows_errored + view.rows_refused),
            money(view.cost_micros, view.currency),
            moment(view.created_at),
        )
        for view in views
    ]
    print_table(heads, rows, right=("ROWS", "FAILED", "CHARGED"))
    return ExitCode.OK


@at_counter
def show(counter: Counter, batch_id: BatchIdArgument, *, as_json: AsJson = False) -> int:
    """Show all that is known of a batch."""
    from pipeline.entrypoints.cli.documents import batch_document, batch_facts, error_lines
    from pipeline.entrypoints.cli.metering import meters_document, meters_facts

    with counter.desk() as desk:
        view = desk.get(batch_id)
        meters = desk.meters(batch_id)
    if as_json:
        print_document(batch_document(view) | {"meters": meters_document(meters)})
        return ExitCode.OK
    print_facts(batch_facts(view) | meters_facts(meters))
    for line in error_lines(view):
        print_line(line)
    return ExitCode.OK
