"""The whole installation at a glance: workers, queue, batches, who leads, and the schema's version."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from sqlalchemy import Connection, text

from pipeline.domain.ids import WorkerId
from pipeline.domain.lifecycle import BatchState, PackState, WorkerState
from storage.database import Database

_WORKERS = text("""
    SELECT workers.id, pool, host, pid, state, variants,
           extract(epoch FROM clock_timestamp() - started_at) AS uptime_seconds,
           extract(epoch FROM clock_timestamp() - heartbeat_at) AS silent_seconds,
           latest.variant
      FROM workers
      LEFT JOIN LATERAL (
        -- What it last loaded or ran is what it holds.
        SELECT variant FROM worker_intervals
         WHERE worker_intervals.worker_id = workers.id AND variant IS NOT NULL
         ORDER BY start_us DESC LIMIT 1) AS latest ON true
     WHERE state NOT IN ('stopped', 'lost')
     ORDER BY pool, started_at, workers.id
""")

_PACKS = text("""
    SELECT state, count(*) AS packs, sum(predicted_seconds) AS predicted_seconds
      FROM packs WHERE state NOT IN ('committed', 'discarded') GROUP BY state
""")

_BATCHES = text("SELECT state, count(*) AS batches FROM batches GROUP BY state")

_LEADER = text("SELECT holder FROM leadership")

_HAS_VERSION = text("SELECT to_regclass('nightrate.alembic_version') IS NOT NULL")
_VERSION = text("SELECT version_num FROM nightrate.alembic_version")
_CLOCK = text("SELECT clock_timestamp()")

_VERSIONS_FOLDER = Path(__file__).parent / "migrations" / "versions"


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerView:
    """One live worker."""

    worker_id: WorkerId
    pool: str
    host: str
    pid: int
    state: WorkerState
    #: The variant it last ran; None before the first.
    variant: str | None
    variants: tuple[str, ...]
    uptime_seconds: float
    #: Since its last heartbeat.
    silent_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueView:
    """Packs in one state, and the work predicted for them."""

    state: PackState
    packs: int
    predicted_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """Everything at one instant."""

    workers: tuple[WorkerView, ...]
    queue: tuple[QueueView, ...]
    batches: dict[BatchState, int]
    #: Host and process of the scheduler that leads, or led last; None before the first.
    leader: str | None


def overview(database: Database) -> Overview:
    """Return the installation as it stands."""
    return database.run(_overview)


def schema_versions(database: Database) -> tuple[str | None, str]:
    """Return the schema version the database has and the one this release wants, without loading Alembic."""

    def found(connection: Connection) -> str | None:
        if not connection.execute(_HAS_VERSION).scalar_one():
            return None
        version: str | None = connection.execute(_VERSION).scalar_one_or_none()
        return version

    wanted = max(path.stem.partition("_")[0] for path in _VERSIONS_FOLDER.glob("[0-9]*.py"))
    return database.run(found), wanted


def clock(database: Database) -> datetime:
    """Return the time on the database's clock, which leases and deadlines go by."""
    now: datetime = database.run(lambda connection: connection.execute(_CLOCK).scalar_one())
    return now


def _overview(connection: Connection) -> Overview:
    return Overview(
        workers=tuple(
            WorkerView(
                worker_id=WorkerId(row.id),
                pool=row.pool,
                host=row.host,
                pid=row.pid,
                state=WorkerState(row.state),
                variant=row.variant,
                variants=tuple(sorted(row.variants)),
                uptime_seconds=float(row.uptime_seconds),
                silent_seconds=float(row.silent_seconds),
            )
            for row in connection.execute(_WORKERS)
        ),
        queue=tuple(
            QueueView(state=PackState(row.state), packs=row.packs, predicted_seconds=float(row.predicted_seconds))
            for row in connection.execute(_PACKS)
        ),
        batches={BatchState(row.state): row.batches for row in connection.execute(_BATCHES)},
        leader=connection.execute(_LEADER).scalar_one_or_none(),
    )
