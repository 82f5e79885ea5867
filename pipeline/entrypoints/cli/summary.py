"""What a run did, in numbers: rows, speed, and the bill."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from pipeline.domain.lifecycle import BatchState
from pipeline.entrypoints.cli.documents import batch_document, error_lines, why
from pipeline.entrypoints.cli.figures import count, duration, money, price_per_million, rate
from pipeline.entrypoints.cli.talk import print_document, say
from storage.costs import CostRepository, OverheadTime

if TYPE_CHECKING:  # the stores are imported by the commands that open them
    from pipeline.app.stack import Stack
    from pipeline.entrypoints.cli.result_files import Written
    from pipeline.ports.batches import BatchView


def summarize(stack: Stack, view: BatchView, written: Written, *, overhead_since: datetime, as_json: bool) -> None:
    """Say what the run did; with `as_json` as one document on stdout."""
    costs = CostRepository(stack.database)
    cost = costs.batch_cost(view.batch_id)
    overhead = costs.overhead_since(overhead_since)
    seconds, running_seconds = _seconds(view)
    speed = view.output_tokens / running_seconds if running_seconds else 0.0
    if as_json:
        document = batch_document(view) | {
            "cost_micros": cost.amount_micros,
            "cost_micros_per_million_tokens": price_per_million(
                cost.amount_micros, view.input_tokens + view.output_tokens
            ),
            "overhead": [
                {
                    "kind": str(item.kind),
                    "seconds": round(item.duration_us / 1e6, 3),
                    "cost_micros": item.amount_micros,
                }
                for item in overhead
            ],
            "duration_seconds": round(seconds, 3),
            "output_tokens_per_second": round(speed, 1),
            "output_path": written.output and str(written.output.absolute()),
            "errors_path": written.errors and str(written.errors.absolute()),
        }
        print_document(document)
    facts = {
        "result": f"{view.state}: {why(view)}",
        "rows": f"{count(view.rows_completed or 0)} ok, {count(view.rows_failed or 0)} failed",
        "duplicates": f"{count(view.rows_duplicate)} collapsed",
        "tokens": f"{count(view.input_tokens)} in, {count(view.output_tokens)} out, {rate(speed)} out/s",
        "duration": duration(seconds),
        "cost": _cost(view, cost.amount_micros),
        "charged": money(view.cost_micros, view.currency),
        "overhead": _overhead(overhead, view.currency),
    }
    if written.output:
        facts["output"] = str(written.output)
    if written.errors:
        facts["errors"] = str(written.errors)
    for name, value in facts.items():
        say(f"{name.ljust(10)}  {value}")
    for line in error_lines(view):
        say(line)


def _seconds(view: BatchView) -> tuple[float, float]:
    """Return how long the batch took in all, and how long its rows ran."""
    ended_at = view.entered_at[view.state]
    started_at = view.entered_at.get(BatchState.IN_PROGRESS, ended_at)
    stopped_at = view.entered_at.get(BatchState.FINALIZING, ended_at)
    return (ended_at - view.created_at).total_seconds(), (stopped_at - started_at).total_seconds()


def _cost(view: BatchView, amount_micros: int) -> str:
    per_million = price_per_million(amount_micros, view.input_tokens + view.output_tokens)
    amount = money(amount_micros, view.currency)
    return amount if per_million is None else f"{amount}, {money(per_million, view.currency)} per 1M tokens"


def _overhead(overhead: list[OverheadTime], currency: str) -> str:
    total = sum(item.amount_micros for item in overhead)
    parts = ", ".join(f"{item.kind} {money(item.amount_micros, currency)}" for item in overhead)
    return money(total, currency) + (f" ({parts})" if parts else "")
