"""A recurring batch and its firings as JSON and as lines."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, tzinfo

from pipeline.domain.cron import preview
from pipeline.domain.lifecycle import BatchState
from pipeline.domain.limits import DELIVERY_TRIES_MAX
from pipeline.domain.path_fields import render
from pipeline.domain.recurring import CATCH_UPS, OVERLAPS
from pipeline.entrypoints.cli.documents import Document
from pipeline.entrypoints.cli.figures import counted, moment, money
from pipeline.ports.recurring import FiringView, RecurringTerms, RecurringView


def recurring_document(
    terms: RecurringTerms, view: RecurringView | None, history: Sequence[FiringView], *, now: datetime, upcoming: int
) -> Document:
    """Return all that is known; money in micro-units, instants in ISO 8601. No view: it was not created."""
    return {
        "id": view and view.recurring_id,
        "name": terms.name,
        "cron": terms.cron,
        "zone": terms.zone,
        "input": terms.input_template,
        "output": terms.output_template,
        "endpoint": terms.endpoint and str(terms.endpoint),
        "tier": str(terms.tier),
        "completion_window": terms.completion_window,
        "budget_micros": terms.budget_micros,
        "metadata": terms.metadata,
        "overlap": str(terms.overlap),
        "catch_up": str(terms.catch_up),
        "catch_up_max": terms.catch_up_max,
        "paused_at": view and view.paused_at and view.paused_at.isoformat(),
        "created_at": view and view.created_at.isoformat(),
        "next": [_upcoming_document(terms, at) for at in _upcoming(terms, view, now, upcoming)],
        "firings": [firing_document(firing) for firing in history],
    }


def firing_document(firing: FiringView) -> Document:
    """Return what became of a firing."""
    return {
        "scheduled_at": firing.scheduled_at.isoformat(),
        "is_manual": firing.is_manual,
        "outcome": firing.outcome and str(firing.outcome),
        "reason": firing.reason,
        "batch_id": firing.batch_id,
        "batch_state": firing.batch_state and str(firing.batch_state),
        "tries": firing.tries,
        "retry_at": firing.retry_at and firing.retry_at.isoformat(),
        "output": firing.output_path,
        "delivered_at": firing.delivered_at and firing.delivered_at.isoformat(),
        "delivery_tries": firing.delivery_tries,
        "delivery_trouble": firing.delivery_trouble,
    }


def recurring_facts(view: RecurringView, now: datetime, upcoming: int) -> dict[str, str]:
    """Return a recurring batch as names and values for people."""
    terms = view.terms
    facts = {
        "recurring": terms.name,
        "cron, zone": f"{terms.cron}, {terms.zone}",
        "input": terms.input_template,
        "output": terms.output_template or "none; `nightrate results` has them",
        "endpoint": str(terms.endpoint or "the first line's"),
        "tier, window": f"{terms.tier}, {terms.completion_window}",
        "overlap": f"{terms.overlap}: {OVERLAPS[terms.overlap]}",
        "catch up": f"{terms.catch_up}: {CATCH_UPS[terms.catch_up]}",
    }
    if terms.budget_micros is not None:
        facts["budget"] = money(terms.budget_micros)
    facts |= {f"note {key}": value for key, value in (terms.metadata or {}).items()}
    facts["created"] = moment(view.created_at)
    if view.paused_at is not None:
        return facts | {"paused": moment(view.paused_at)}
    instants = _upcoming(terms, view, now, upcoming)
    return facts | {f"next {number}": _line(terms, at) for number, at in enumerate(instants, 1)}


def upcoming_lines(terms: RecurringTerms, now: datetime, number: int) -> list[str]:
    """Return the next firings, a line each: when, and with which files."""
    return [_line(terms, at) for at in _upcoming(terms, None, now, number)]


def history_rows(view: RecurringView, history: Sequence[FiringView]) -> list[tuple[str, ...]]:
    """Return the firings for a table: when, outcome, batch, results, why."""
    zone = view.terms.schedule.zone
    return [
        (
            shown(firing.scheduled_at, zone) + (" by hand" if firing.is_manual else ""),
            outcome_words(firing),
            firing.batch_id or "-",
            _results(firing),
            firing.delivery_trouble or firing.reason or "",
        )
        for firing in history
    ]


def outcome_words(firing: FiringView) -> str:
    """Return what became of a firing, in a few words."""
    if firing.batch_state is not None:
        return f"{firing.outcome}, {firing.batch_state}"
    if firing.outcome is not None:
        return str(firing.outcome)
    return f"waits after {counted(firing.tries, 'failure')}" if firing.tries else "waits"


def shown(at: datetime, zone: tzinfo) -> str:
    """Return an instant in a zone, with what the zone calls itself then."""
    return at.astimezone(zone).strftime("%Y-%m-%d %H:%M:%S %Z" if at.second else "%Y-%m-%d %H:%M %Z")


def _upcoming(terms: RecurringTerms, view: RecurringView | None, now: datetime, number: int) -> Sequence[datetime]:
    if view is not None and view.paused_at is not None:
        return ()
    # What has come and was not looked at yet comes next, too.
    after = now if view is None else view.next_at - timedelta(microseconds=1)
    return preview(terms.schedule, after, number)


def _upcoming_document(terms: RecurringTerms, at: datetime) -> Document:
    zone = terms.schedule.zone
    return {
        "at": at.isoformat(),
        "local": at.astimezone(zone).isoformat(),
        "input": render(terms.input_template, at, zone),
        "output": terms.output_template and render(terms.output_template, at, zone),
    }


def _line(terms: RecurringTerms, at: datetime) -> str:
    zone = terms.schedule.zone
    files = render(terms.input_template, at, zone)
    if terms.output_template is not None:
        files += f" -> {render(terms.output_template, at, zone)}"
    there, everywhere = shown(at, zone), shown(at, UTC)
    return f"{there}  {files}" if there == everywhere else f"{there} ({everywhere})  {files}"


def _results(firing: FiringView) -> str:
    if firing.output_path is None:
        return "-"
    if firing.delivered_at is not None:
        return "none" if firing.batch_state is BatchState.FAILED else firing.output_path
    return "given up" if firing.delivery_tries >= DELIVERY_TRIES_MAX else "not yet"
