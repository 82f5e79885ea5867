"""What is left of a plan, limit by limit: the same for the API and the command line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from pipeline.domain.plans import RouteClass, next_month
from pipeline.domain.rates import Grant
from pipeline.ports.quotas import QuotaView


@dataclass(frozen=True, slots=True, kw_only=True)
class Headroom:
    """One limit, and where it stands."""

    name: str
    #: None: there is none.
    limit: int | None
    #: None: not known.
    used: int | None = None
    remaining: int | None = None
    #: The model that it is for; None: each, or all of them.
    model: str | None = None
    #: Of a rate.
    burst: int | None = None
    #: When nothing is used any more without anybody's doing; None: as batches end.
    resets_at: datetime | None = None


def headrooms(view: QuotaView, rates: Mapping[RouteClass, Grant]) -> list[Headroom]:
    """Return every limit of a tenant's plan; `rates` are those that are known."""
    plan, turns_at = view.plan, next_month(view.now)
    return [
        _counted("requests_per_month", plan.requests_per_month, view.requests, resets_at=turns_at),
        _counted("tokens_per_month", plan.tokens_per_month, view.tokens, resets_at=turns_at),
        *_enqueued(view),
        _counted("live_batches", plan.batches_live_max, view.batches_live),
        Headroom(name="requests_per_batch", limit=plan.rows_max, remaining=plan.rows_max),
        *(_rate(view, route_class, rates.get(route_class)) for route_class in RouteClass),
    ]


def _enqueued(view: QuotaView) -> Iterator[Headroom]:
    limit = view.plan.enqueued_tokens_max
    # Every model that is not named below has all of it.
    yield _counted("enqueued_tokens", limit, 0)
    for model, tokens in view.enqueued_tokens:
        yield _counted("enqueued_tokens", limit, tokens, model=model)


def _counted(
    name: str, limit: int | None, used: int, *, model: str | None = None, resets_at: datetime | None = None
) -> Headroom:
    remaining = None if limit is None else max(limit - used, 0)
    return Headroom(name=name, limit=limit, used=used, remaining=remaining, model=model, resets_at=resets_at)


def _rate(view: QuotaView, route_class: RouteClass, grant: Grant | None) -> Headroom:
    name, rate = f"{route_class}_per_minute", view.plan.rate_of(route_class)
    if rate is None:
        return Headroom(name=name, limit=None)
    if grant is None:
        return Headroom(name=name, limit=rate.per_minute, burst=rate.burst)
    return Headroom(
        name=name,
        limit=rate.per_minute,
        burst=rate.burst,
        used=rate.burst - grant.remaining,
        remaining=grant.remaining,
        resets_at=view.now + timedelta(microseconds=grant.reset_us),
    )
