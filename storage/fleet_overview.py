"""The fleet as people look at it: what each pool is to have and has, the machines there are, and how offers answered."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import text

from pipeline.domain.ids import WorkerId
from pipeline.domain.lifecycle import RentalState, WorkerState
from pipeline.ports.fleet import FleetReason, RefusalKind
from storage.database import Database

_POOLS = text("""
    SELECT pool, wanted, on_demand_wanted, reason, work_seconds, since, decided_at FROM pools_wanted ORDER BY pool
""")

_MACHINES = text("""
    SELECT coalesce(rentals.worker_id, workers.id) AS worker_id, coalesce(rentals.pool, workers.pool) AS pool, offer,
           rentals.provider_id, rentals.state AS rental_state, workers.state AS worker_state, must_stop, rentals.reason,
           stop_reason, coalesce(launched_at, requested_at, started_at) AS since, rate_micros_per_hour, currency,
           (SELECT count(*) FROM packs WHERE packs.state = 'leased' AND lease_worker_id = workers.id) AS packs
      FROM (SELECT * FROM rentals WHERE state NOT IN ('gone', 'refused')) AS rentals
      FULL JOIN (SELECT * FROM workers WHERE state NOT IN ('stopped', 'lost')) AS workers ON workers.id = rentals.worker_id
     ORDER BY 2, since, 1
""")

_OFFERS = text("""
    SELECT offer, count(*) AS asked, count(launched_at) AS launched, count(refusal) AS refused,
           count(*) FILTER (WHERE end_cause IN ('interrupted', 'lost')) AS taken,
           (array_agg(refusal ORDER BY requested_at DESC) FILTER (WHERE refusal IS NOT NULL))[1] AS last_refusal,
           (array_agg(message ORDER BY requested_at DESC) FILTER (WHERE refusal IS NOT NULL))[1] AS last_message,
           max(rentals.ended_at) FILTER (WHERE refusal IS NOT NULL) AS refused_at
      FROM rentals LEFT JOIN workers ON workers.id = rentals.worker_id
     WHERE requested_at > clock_timestamp() - interval '1 day'
     GROUP BY offer ORDER BY offer
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolWanted:
    """What a pool is to have by the last decision."""

    pool: str
    wanted: int
    on_demand_wanted: int
    reason: FleetReason
    work_seconds: float
    #: Since when it is so, and when it was decided last.
    since: datetime
    decided_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetMachine:
    """A machine that was asked for, a worker that nobody of ours started, or both."""

    worker_id: WorkerId
    pool: str
    #: None: nobody of ours started it.
    offer: str | None
    provider_id: str | None
    rental_state: RentalState | None
    worker_state: WorkerState | None
    is_leaving: bool
    #: Why it was asked for, and why it is to go.
    reason: FleetReason | None
    stop_reason: FleetReason | None
    since: datetime
    #: None: it costs nothing yet.
    rate_micros_per_hour: int | None
    currency: str | None
    packs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OfferAnswers:
    """How an offer answered in the last day."""

    offer: str
    asked: int
    launched: int
    refused: int
    #: Machines that went without being told to.
    taken: int
    last_refusal: RefusalKind | None
    last_message: str | None
    refused_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetOverview:
    """All of it, as one read found it."""

    now: datetime
    pools: tuple[PoolWanted, ...]
    machines: tuple[FleetMachine, ...]
    offers: tuple[OfferAnswers, ...]


def fleet_overview(database: Database) -> FleetOverview:
    """Return what is known of the fleet."""
    now, pools, machines, offers = database.run(
        lambda connection: (
            connection.execute(text("SELECT clock_timestamp()")).scalar_one(),
            connection.execute(_POOLS).all(),
            connection.execute(_MACHINES).all(),
            connection.execute(_OFFERS).all(),
        )
    )
    return FleetOverview(
        now=now,
        pools=tuple(PoolWanted(**{**row._asdict(), "reason": FleetReason(row.reason)}) for row in pools),
        machines=tuple(
            FleetMachine(
                worker_id=WorkerId(row.worker_id),
                pool=row.pool,
                offer=row.offer,
                provider_id=row.provider_id,
                rental_state=row.rental_state and RentalState(row.rental_state),
                worker_state=row.worker_state and WorkerState(row.worker_state),
                is_leaving=bool(row.must_stop) or row.stop_reason is not None,
                reason=row.reason and FleetReason(row.reason),
                stop_reason=row.stop_reason and FleetReason(row.stop_reason),
                since=row.since,
                rate_micros_per_hour=row.rate_micros_per_hour,
                currency=row.currency,
                packs=row.packs,
            )
            for row in machines
        ),
        offers=tuple(
            OfferAnswers(**{**row._asdict(), "last_refusal": row.last_refusal and RefusalKind(row.last_refusal)})
            for row in offers
        ),
    )
