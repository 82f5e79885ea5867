"""Rentals in Postgres: machines that were asked for, launched, refused, stopped; and the workers that they run.

A rental is written before its provider is asked. From the moment that it costs something its worker has a row, in state
`requested`, so that every second of the machine is somebody's: the worker's boot begins with it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, Row, text

from pipeline.domain.costs.amounts import COST_NAMES, Amounts
from pipeline.domain.costs.prices import Market
from pipeline.domain.costs.rate_card import Offer
from pipeline.domain.ids import WorkerId
from pipeline.domain.lifecycle import IntervalKind, RentalState, WorkerEnd, WorkerState
from pipeline.ports.fleet import FleetReason, Launched, PoolStanding, Refused, Stop
from pipeline.ports.packs import Interval
from storage.database import Database
from storage.epochs import guard_epoch
from storage.ledger import record_overhead
from storage.wakeups import send_wakeup
from storage.workers import enter_state

_REQUEST = text("""
    INSERT INTO rentals (worker_id, pool, offer, provider, market, reason, ends_by)
    VALUES (:worker_id, :pool, :offer, :provider, :market, :reason, clock_timestamp() + :lifetime)
    ON CONFLICT (worker_id) DO NOTHING
""")

_OPEN = text("""
    SELECT rentals.worker_id, rentals.pool, rentals.offer, rentals.provider, rentals.market, rentals.state,
           rentals.requested_at, rentals.launched_at, rentals.ends_by, rentals.provider_id, rentals.stop_reason,
           workers.state AS worker_state, CASE WHEN workers.state <> 'requested' THEN heartbeat_at END AS heard_at, clock_timestamp() AS now
      FROM rentals LEFT JOIN workers ON workers.id = rentals.worker_id
     WHERE rentals.state NOT IN ('gone', 'refused') ORDER BY requested_at, worker_id
""")

_LAUNCHED = text("""
    UPDATE rentals SET state = 'launched', launched_at = least(CAST(:launched_at AS timestamptz), clock_timestamp()), provider_id = :provider_id
     WHERE worker_id = :worker_id AND state = 'requested'
    RETURNING pool, market, launched_at
""")

_ADD_WORKER = text("""
    INSERT INTO workers (id, pool, market, host, pid, state, variants, rate_micros_per_hour, list_rate_micros_per_hour,
                         contracted_rate_micros_per_hour, billed_rate_micros_per_hour, on_demand_rate_micros_per_hour,
                         currency, provider, instance_type, region, zone, provider_id, started_at)
    VALUES (:worker_id, :pool, :market, '', 0, 'requested', '{}', :effective_micros, :list_micros, :contracted_micros,
            :billed_micros, :on_demand_micros, :currency, :provider, :instance_type, :region, :zone, :provider_id, :launched_at)
    ON CONFLICT (id) DO NOTHING
""")

_REFUSED = text("""
    UPDATE rentals SET state = 'refused', refusal = :kind, message = :message, ended_at = clock_timestamp()
     WHERE worker_id = :worker_id AND state = 'requested'
""")

_ASK_TO_STOP = text("""
    UPDATE rentals SET stop_reason = :reason, stop_asked_at = clock_timestamp()
     WHERE worker_id = :worker_id AND stop_reason IS NULL AND state NOT IN ('gone', 'refused')
""")

_TELL_WORKER = text("UPDATE workers SET must_stop = true WHERE id = :worker_id AND state NOT IN ('stopped', 'lost')")

#: A request that was not launched and is not wanted any more. A machine whose provider is being asked for it this moment
#: is one that nobody knows, then, and is stopped as such.
_WITHDRAW = text("""
    UPDATE rentals SET state = 'gone', ended_at = clock_timestamp()
     WHERE state = 'requested' AND stop_reason IS NOT NULL AND worker_id = ANY(:worker_ids)
""")

_MET = text("""
    SELECT state, metered_until_us,
           greatest(CAST(extract(epoch FROM clock_timestamp() - started_at) * 1000000 AS bigint), 1) AS lived_us
      FROM workers WHERE id = :worker_id FOR NO KEY UPDATE
""")

_LIVED = text("UPDATE workers SET uptime_us = greatest(uptime_us, :lived_us) WHERE id = :worker_id")

_TO_STOP = text("""
    UPDATE rentals SET state = 'stopping' WHERE worker_id = ANY(:worker_ids) AND state = 'launched'
""")

_GONE = text("""
    UPDATE rentals SET state = 'gone', ended_at = clock_timestamp()
     WHERE worker_id = ANY(:worker_ids) AND state IN ('launched', 'stopping')
""")

_WANT = text("""
    INSERT INTO pools_wanted AS kept (pool, wanted, on_demand_wanted, reason, work_seconds)
    VALUES (:pool, :wanted, :on_demand_wanted, :reason, :work_seconds)
    ON CONFLICT (pool) DO UPDATE SET
        wanted = excluded.wanted, on_demand_wanted = excluded.on_demand_wanted, reason = excluded.reason,
        work_seconds = excluded.work_seconds, decided_at = clock_timestamp(),
        since = CASE WHEN (kept.wanted, kept.reason) = (excluded.wanted, excluded.reason) THEN kept.since
                     ELSE clock_timestamp() END
""")

_FORGET_POOLS = text("DELETE FROM pools_wanted WHERE pool <> ALL(:pools)")


@dataclass(frozen=True, slots=True, kw_only=True)
class RentalRequest:
    """A machine to ask for."""

    worker_id: WorkerId
    pool: str
    offer: str
    provider: str
    market: Market
    reason: FleetReason
    #: After this it is gone, whatever happens.
    lifetime: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class Rental:
    """A machine that was asked for and is not gone, with what is known of its worker."""

    worker_id: WorkerId
    pool: str
    offer: str
    provider: str
    market: Market
    state: RentalState
    requested_at: datetime
    launched_at: datetime | None
    ends_by: datetime
    provider_id: str | None
    stop_reason: FleetReason | None
    #: None: it has not cost anything yet.
    worker_state: WorkerState | None
    #: Its worker's last sign of life; None: there was none.
    heard_at: datetime | None
    #: By the database's clock, when this was read.
    now: datetime


class RentalRepository:
    """What the leading scheduler knows of machines, and tells of them."""

    def __init__(self, database: Database, *, epoch: int) -> None:
        """Write as the leader of that epoch."""
        self._database = database
        self._epoch = epoch

    def plan(self, requests: Sequence[RentalRequest], stops: Sequence[Stop], standings: Sequence[PoolStanding]) -> None:
        """Write down what was decided, all or nothing; raises `NotLeaderError` when deposed.

        Workers that are to stop drain from their next heartbeat on.
        """

        def work(connection: Connection) -> None:
            guard_epoch(connection, self._epoch)
            for request in sorted(requests, key=lambda each: each.worker_id):
                connection.execute(_REQUEST, _arguments_of(request))
            _ask_to_stop(connection, stops)
            for standing in standings:
                connection.execute(
                    _WANT,
                    {
                        "pool": standing.pool,
                        "wanted": standing.wanted,
                        "on_demand_wanted": standing.on_demand_wanted,
                        "reason": standing.reason,
                        "work_seconds": standing.work_seconds,
                    },
                )
            connection.execute(_FORGET_POOLS, {"pools": [standing.pool for standing in standings]})

        self._database.run(work)

    def ask_to_stop(self, stops: Sequence[Stop]) -> None:
        """Have these workers drain from their next heartbeat on."""
        self._database.run(lambda connection: _ask_to_stop(connection, stops))

    def open(self) -> list[Rental]:
        """Return all that are not gone, the oldest first."""
        return [_rental_of(row) for row in self._database.run(lambda connection: connection.execute(_OPEN).all())]

    def launched(self, launched: Launched, offer: Offer, rates: Amounts, *, currency: str) -> None:
        """Record a machine that costs `rates` an hour from now on, and its worker; repeating it changes nothing."""

        def work(connection: Connection) -> None:
            told = {
                "worker_id": launched.worker_id,
                "launched_at": launched.launched_at,
                "provider_id": launched.provider_id,
            }
            row = connection.execute(_LAUNCHED, told).one_or_none()
            if row is None:
                return
            connection.execute(
                _ADD_WORKER,
                {
                    **told,
                    **{name: getattr(rates, name) for name in COST_NAMES},
                    "launched_at": row.launched_at,
                    "pool": row.pool,
                    "market": row.market,
                    "currency": currency,
                    "provider": offer.provider,
                    "instance_type": offer.instance_type,
                    "region": offer.region,
                    "zone": launched.zone or offer.zone,
                },
            )

        self._database.run(work)

    def refused(self, refused: Refused) -> None:
        """Record that there is no such machine."""
        told = {"worker_id": refused.worker_id, "kind": refused.kind, "message": refused.message[:2000]}
        self._database.run(lambda connection: connection.execute(_REFUSED, told))

    def end_worker(self, worker_id: WorkerId, kind: IntervalKind, end: WorkerEnd) -> bool:
        """End a worker that never appeared, its whole life an overhead of that kind; say whether it was one."""

        def work(connection: Connection) -> bool:
            met = connection.execute(_MET, {"worker_id": worker_id}).one_or_none()
            if met is None or met.state != WorkerState.REQUESTED:
                return False
            connection.execute(_LIVED, {"worker_id": worker_id, "lived_us": met.lived_us})
            record_overhead(connection, worker_id, Interval(kind=kind, start_us=0, stop_us=met.lived_us))
            state = WorkerState.LOST if end is WorkerEnd.LOST else WorkerState.STOPPED
            enter_state(connection, worker_id, state, end=end)
            return True

        return self._database.run(work)

    def stopping(self, worker_ids: Collection[WorkerId]) -> None:
        """Record that these machines are to go; their workers have ended."""
        self._database.run(lambda connection: connection.execute(_TO_STOP, {"worker_ids": list(worker_ids)}))

    def gone(self, worker_ids: Collection[WorkerId]) -> None:
        """Record that their providers have these machines no more."""

        def work(connection: Connection) -> None:
            connection.execute(_GONE, {"worker_ids": list(worker_ids)})
            send_wakeup(connection)

        self._database.run(work)


def _ask_to_stop(connection: Connection, stops: Sequence[Stop]) -> None:
    for stop in sorted(stops, key=lambda each: each.worker_id):
        connection.execute(_ASK_TO_STOP, {"worker_id": stop.worker_id, "reason": stop.reason})
        connection.execute(_TELL_WORKER, {"worker_id": stop.worker_id})
    connection.execute(_WITHDRAW, {"worker_ids": [stop.worker_id for stop in stops]})


def _arguments_of(request: RentalRequest) -> Mapping[str, object]:
    return {
        "worker_id": request.worker_id,
        "pool": request.pool,
        "offer": request.offer,
        "provider": request.provider,
        "market": request.market,
        "reason": request.reason,
        "lifetime": request.lifetime,
    }


def _rental_of(row: Row[tuple[object, ...]]) -> Rental:
    return Rental(
        worker_id=WorkerId(row.worker_id),
        pool=row.pool,
        offer=row.offer,
        provider=row.provider,
        market=Market(row.market),
        state=RentalState(row.state),
        requested_at=row.requested_at,
        launched_at=row.launched_at,
        ends_by=row.ends_by,
        provider_id=row.provider_id,
        stop_reason=row.stop_reason and FleetReason(row.stop_reason),
        worker_state=row.worker_state and WorkerState(row.worker_state),
        heard_at=row.heard_at,
        now=row.now,
    )
