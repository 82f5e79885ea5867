"""`retry`: what a batch left without a success, once more."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.entrypoints.cli.counter import Counter, at_counter
from pipeline.entrypoints.cli.options import AsJson, BatchIdArgument, BudgetOption, IdempotencyOption
from pipeline.entrypoints.cli.submit import follow_talking, tell_submitted
from pipeline.entrypoints.cli.talk import print_line

if TYPE_CHECKING:  # the stores are imported by the commands that open them
    from pipeline.ports.batches import BatchView


@at_counter
def retry(
    counter: Counter,
    batch_id: BatchIdArgument,
    *,
    window: Annotated[
        str | None, typer.Option("--window", help="Time to finish in, such as 24h. Default: the batch's own.")
    ] = None,
    tier: Annotated[str | None, typer.Option("--tier", help="Default: the batch's own.")] = None,
    max_cost: BudgetOption = None,
    idempotency_key: IdempotencyOption = None,
    wait: Annotated[bool, typer.Option("--wait", help="Follow the new batch until it ends.")] = False,
    as_json: AsJson = False,
) -> int:
    """Run the rows of an ended batch again that have no success; the new batch's id goes to stdout."""
    from pipeline.domain.windows import parse_window
    from pipeline.entrypoints.cli.detaching import detachable
    from pipeline.entrypoints.cli.figures import micros_of
    from pipeline.entrypoints.cli.submission import check_text, tier_of
    from pipeline.ports.batches import RetryOrder

    if window is not None:
        parse_window(window)
    check_text(idempotency_key or "")
    order = RetryOrder(
        idempotency_key=idempotency_key,
        completion_window=window,
        tier=None if tier is None else tier_of(tier),
        budget_micros=None if max_cost is None else micros_of(max_cost),
    )
    with detachable() as watched, counter.desk() as desk:

        def created(view: BatchView) -> None:
            watched.batch_id = view.batch_id
            if not as_json:
                print_line(view.batch_id)

        view = desk.retry(batch_id, order, on_created=created)
        if wait and not view.state.is_terminal:
            view = follow_talking(desk, view.batch_id)
    return tell_submitted(view, as_json=as_json)
