"""What decisions about the fleet are made on: work left, workers, how long they took to start, what offers did lately."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Connection, text

from pipeline.domain.costs.prices import Market
from pipeline.domain.ids import WorkerId
from pipeline.domain.lifecycle import RentalState, WorkerEnd, WorkerState
from pipeline.ports.cycle import Backlog, Learned
from pipeline.ports.fleet import RefusalKind, WorkerStanding
from storage.backlogs import BacklogMirror, epoch_us
from storage.database import Database
from storage.predictions import read_predictions

#: Starts of a pool that its cold start is learned from.
_STARTS_SEEN: Final = 50

_WORKERS = text("""
    SELECT coalesce(workers.id, rentals.worker_id) AS worker_id, coalesce(workers.pool, rentals.pool) AS pool, offer,
           coalesce(workers.state, 'requested') AS state, coalesce(requested_at, started_at) AS requested_at,
           coalesce(launched_at, started_at) AS launched_at, ends_by,
           variants, must_stop IS TRUE OR stop_reason IS NOT NULL AS is_leaving,
           CASE WHEN workers.id IS NULL OR EXISTS (
                SELECT FROM packs WHERE state = 'leased' AND lease_worker_id = workers.id) THEN NULL
                ELSE started_at + coalesce(done.stop_us, 0) * interval '1 microsecond' END AS idle_since
      FROM (SELECT * FROM workers WHERE state NOT IN ('stopped', 'lost')) AS workers
      FULL JOIN (SELECT * FROM rentals WHERE state IN ('requested', 'launched')) AS rentals
        ON rentals.worker_id = workers.id
      LEFT JOIN LATERAL (
        -- The end of the last span that was not idle.
        SELECT stop_us FROM worker_intervals WHERE worker_intervals.worker_id = workers.id AND kind <> 'idle'
         ORDER BY start_us DESC LIMIT 1) AS done ON true
     -- A machine whose worker has ended is on its way out.
     WHERE workers.id IS NOT NULL OR rentals.state = 'requested'
     ORDER BY 5, 1
""")

_STARTS = text("""
    -- From its launch until it was ready for its first pack: boot, and the first load.
    SELECT started.pool, started.booted_us + coalesce(loaded.load_us, 0) AS start_us
      FROM unnest(CAST(:pools AS text[])) AS wanted (pool),
      LATERAL (SELECT workers.pool, workers.id, worker_intervals.stop_us AS booted_us
                 FROM workers JOIN worker_intervals ON worker_id = workers.id AND start_us = 0 AND kind = 'boot'
                WHERE workers.pool = wanted.pool AND workers.state <> 'requested'
                ORDER BY started_at DESC LIMIT :starts) AS started
      LEFT JOIN LATERAL (
        SELECT stop_us - start_us AS load_us FROM worker_intervals
         WHERE worker_id = started.id AND kind = 'load' ORDER BY start_us LIMIT 1) AS loaded ON true
""")

_RENTED = text("""
    SELECT offer, rentals.market, requested_at, launched_at, rentals.ended_at, rentals.state, refusal, end_cause
      FROM rentals LEFT JOIN workers ON workers.id = rentals.worker_id
     WHERE requested_at > clock_timestamp() - :back ORDER BY requested_at
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rented:
    """What came of one request: what offers are worth is learned from these."""

    offer: str
    market: Market
    requested_at: datetime
    launched_at: datetime | None
    ended_at: datetime | None
    state: RentalState
    refusal: RefusalKind | None
    end: WorkerEnd | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetFacts:
    """What is stored that a decision about the fleet is made on."""

    now: datetime
    backlogs: tuple[Backlog, ...]
    workers: tuple[WorkerStanding, ...]
    #: By pool: the variants that its live workers serve.
    served: dict[str, set[str]]
    #: By pool: seconds from launch to ready, the last starts'.
    start_seconds: dict[str, list[float]]
    rented: tuple[Rented, ...]
    learned: tuple[Learned, ...]


class FleetRepository:
    """Reads the facts again and again; of batches only those that may have changed."""

    def __init__(self, database: Database, *, rented_back: timedelta) -> None:
        """Look at requests for machines as far back as `rented_back`."""
        self._database = database
        self._rented_back = rented_back
        self._mirror = BacklogMirror()

    def facts(self, pools: Sequence[str]) -> FleetFacts:
        """Return what is known now of these pools and of all work."""

        def work(connection: Connection) -> FleetFacts:
            backlogs = self._mirror.read(connection)
            workers, served = _read_workers(connection)
            starts: dict[str, list[float]] = {pool: [] for pool in pools}
            for row in connection.execute(_STARTS, {"pools": list(pools), "starts": _STARTS_SEEN}):
                starts[row.pool].append(row.start_us / 1e6)
            return FleetFacts(
                now=connection.execute(text("SELECT clock_timestamp()")).scalar_one(),
                backlogs=backlogs,
                workers=workers,
                served=served,
                start_seconds=starts,
                rented=_read_rented(connection, self._rented_back),
                learned=read_predictions(connection),
            )

        return self._database.run(work)


def _read_workers(connection: Connection) -> tuple[tuple[WorkerStanding, ...], dict[str, set[str]]]:
    rows = connection.execute(_WORKERS).all()
    served: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        served[row.pool] |= set(row.variants or ())
    standings = tuple(
        WorkerStanding(
            worker_id=WorkerId(row.worker_id),
            pool=row.pool,
            offer=row.offer,
            # One that was told to leave takes nothing new.
            state=WorkerState.DRAINING if row.is_leaving else WorkerState(row.state),
            requested_at_us=epoch_us(row.requested_at),
            launched_at_us=None if row.launched_at is None else epoch_us(row.launched_at),
            ends_by_us=None if row.ends_by is None else epoch_us(row.ends_by),
            idle_since_us=None if row.idle_since is None else epoch_us(row.idle_since),
        )
        for row in rows
    )
    return standings, dict(served)


def _read_rented(connection: Connection, back: timedelta) -> tuple[Rented, ...]:
    return tuple(
        Rented(
            offer=row.offer,
            market=Market(row.market),
            requested_at=row.requested_at,
            launched_at=row.launched_at,
            ended_at=row.ended_at,
            state=RentalState(row.state),
            refusal=row.refusal and RefusalKind(row.refusal),
            end=row.end_cause and WorkerEnd(row.end_cause),
        )
        for row in connection.execute(_RENTED, {"back": back})
    )
