"""`pause`, `resume` and `change`: steering a batch on its way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from pipeline.entrypoints.cli.counter import Counter, at_counter
from pipeline.entrypoints.cli.exits import ExitCode
from pipeline.entrypoints.cli.options import AsJson, BatchIdArgument, HoldOption, PriorityOption
from pipeline.entrypoints.cli.talk import print_document, say

if TYPE_CHECKING:  # the stores are imported by the commands that open them
    from pipeline.ports.batches import BatchView, Kept, Steering

_Value = TypeVar("_Value")


@at_counter
def pause(counter: Counter, batch_id: BatchIdArgument, *, as_json: AsJson = False) -> int:
    """Pause a batch: what runs finishes, nothing new starts, and the window goes on."""
    from pipeline.entrypoints.cli.figures import moment
    from pipeline.ports.batches import Steering

    view = _steer(counter, batch_id, Steering(is_paused=True), as_json=as_json)
    say(f"{batch_id} is paused; `nightrate resume {batch_id}` before {moment(view.deadline_at)}, when its window ends.")
    return ExitCode.OK


@at_counter
def resume(counter: Counter, batch_id: BatchIdArgument, *, as_json: AsJson = False) -> int:
    """Let a paused batch go on."""
    from pipeline.ports.batches import Steering

    _steer(counter, batch_id, Steering(is_paused=False), as_json=as_json)
    say(f"{batch_id} goes on.")
    return ExitCode.OK


@at_counter
def change(  # noqa: PLR0913 -- a parameter for each option
    counter: Counter,
    batch_id: BatchIdArgument,
    *,
    tier: Annotated[str | None, typer.Option("--tier", help="For rows not packed yet.")] = None,
    deadline: Annotated[
        str | None, typer.Option("--deadline", metavar="WHEN", help="2026-11-21T22:00, 22:00, or 90m from now.")
    ] = None,
    max_cost: Annotated[
        str | None,
        typer.Option("--max-cost", metavar="AMOUNT", help="Start nothing new past this charge; `none` for no bound."),
    ] = None,
    hold_until: HoldOption = None,
    priority: PriorityOption = None,
    labels: Annotated[
        list[str] | None,
        typer.Option(
            "--label",
            metavar="KEY=VALUE",
            help="Replaces the labels it has, whatever it cost before too; `none` for none.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> int:
    """Change a batch on its way: its tier, priority, deadline, budget, labels, or when it may start."""
    from pipeline.domain.errors import UsageError
    from pipeline.entrypoints.cli.documents import batch_facts
    from pipeline.entrypoints.cli.talk import print_facts

    if priority is None and not any((tier, deadline, max_cost, hold_until, labels)):
        raise UsageError(
            "nothing to change", hint="give --tier, --priority, --deadline, --max-cost, --hold-until or --label"
        )
    steering = replace(_steering(tier, deadline, max_cost, hold_until, priority), labels=_labels(labels))
    view = _steer(counter, batch_id, steering, as_json=as_json)
    if not as_json:
        print_facts(batch_facts(view))
    return ExitCode.OK


def _steering(
    tier: str | None, deadline: str | None, max_cost: str | None, hold_until: str | None, priority: int | None
) -> Steering:
    from pipeline.entrypoints.cli.figures import micros_of
    from pipeline.entrypoints.cli.submission import moment_of, tier_of
    from pipeline.ports.batches import KEPT, Steering

    return Steering(
        priority=priority,
        tier=None if tier is None else tier_of(tier),
        deadline_at=None if deadline is None else moment_of(deadline, option="--deadline"),
        budget_micros=KEPT if max_cost is None else _unless_none(max_cost, micros_of),
        hold_until=KEPT
        if hold_until is None
        else _unless_none(hold_until, lambda text: moment_of(text, option="--hold-until")),
    )


def _labels(labels: list[str] | None) -> dict[str, str] | Kept | None:
    from pipeline.entrypoints.cli.submission import parse_pairs
    from pipeline.ports.batches import KEPT

    if not labels:
        return KEPT
    return None if labels == ["none"] else parse_pairs(labels, option="--label")


def _unless_none(text: str, parse: Callable[[str], _Value]) -> _Value | None:
    return None if text == "none" else parse(text)


def _steer(counter: Counter, batch_id: str, steering: Steering, *, as_json: bool) -> BatchView:
    from pipeline.entrypoints.cli.documents import batch_document

    with counter.desk() as desk:
        view = desk.steer(batch_id, steering)
    if as_json:
        print_document(batch_document(view))
    return view
