"""Options of `nightrate cost` that several of its commands share, and how they are read."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.domain.errors import UsageError
from pipeline.domain.ids import TenantId
from pipeline.ports.cost_reports import Period

if TYPE_CHECKING:  # keeps `nightrate --help` light
    from pipeline.app.stack import Stack

FromOption = Annotated[
    str | None,
    typer.Option("--from", metavar="DAY", help="First day, UTC, such as 2026-11-01. Default: the first of this month."),
]
ToOption = Annotated[
    str | None, typer.Option("--to", metavar="DAY", help="Last day, UTC, and of the period. Default: today.")
]
#: Older than any of our journals, and so far that nobody means it.
_YEAR_MIN = 2000
_DAYS_MAX = 10 * 366


def check_tenant(stack: Stack, tenant: str | None) -> None:
    """Raise `NotFoundError` where a tenant is named that is not there, so that a slip is no empty answer."""
    from storage.tenants import TenantRepository

    if tenant is not None:
        TenantRepository(stack.database).tenant(TenantId(tenant))


def period_of(first: str | None, last: str | None, *, today: date | None = None) -> Period:
    """Return the days from the first to the last, both among them; raises `UsageError`."""
    today = today or datetime.now(UTC).date()
    until = (today if last is None else day_of(last, "--to")) + timedelta(days=1)
    start = until.replace(day=1) if first is None else day_of(first, "--from")
    if first is None:
        start = (until - timedelta(days=1)).replace(day=1)
    if start >= until:
        raise UsageError(
            f"--from {start} is after --to {until - timedelta(days=1)}", hint="--from 2026-11-01 --to 2026-11-30"
        )
    if (until - start).days > _DAYS_MAX:
        raise UsageError(f"{start} to {until} is more than ten years", hint="ask for fewer days")
    return Period(first=start, until=until)


def day_of(text: str, option: str) -> date:
    """Return a day as people write it; raises `UsageError`."""
    try:
        day = date.fromisoformat(text)
    except ValueError:
        raise UsageError(f"{option} {text!r} is not a day", hint=f"{option} 2026-11-01") from None
    if not _YEAR_MIN <= day.year < _YEAR_MIN + 1000:
        raise UsageError(f"{option} {text!r} is not a day of ours", hint=f"{option} 2026-11-01")
    return day


def last_month(today: date) -> Period:
    """Return the days of the month before today's."""
    until = today.replace(day=1)
    return Period(first=(until - timedelta(days=1)).replace(day=1), until=until)


def month_of(text: str) -> Period:
    """Return the days of a month such as 2026-11; raises `UsageError`."""
    try:
        first = datetime.strptime(text, "%Y-%m").replace(tzinfo=UTC).date()
    except ValueError:
        raise UsageError(f"{text!r} is not a month", hint="--month 2026-11") from None
    return Period(first=first, until=(first + timedelta(days=32)).replace(day=1))
