"""Why things stand where they stand, as far as it is stored: the facts that explanations are made of.

Every question is answered from one snapshot of the database, so that its facts fit together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final, TypeVar

from sqlalchemy import Connection, Row, text

from pipeline.domain.errors import NotFoundError
from pipeline.domain.ids import BatchId, PackId, WorkerId
from pipeline.domain.lifecycle import WorkerState
from pipeline.domain.reasons import Reason
from pipeline.ports.explain import BatchFacts, Decided, PackFacts, PoolFacts, Scheduling, Waiting, WorkerFacts
from storage.backlogs import BacklogMirror
from storage.batch_facts import read_batch
from storage.cycles import LEADER_LOCK
from storage.database import Database
from storage.pack_facts import read_lines, read_pack
from storage.predictions import read_predictions
from storage.snapshots import read_snapshot

_Found = TypeVar("_Found")

_LEADER: Final = text("""
    -- An advisory lock of one number is told as its two halves.
    SELECT clock_timestamp() AS now, (SELECT holder FROM leadership) AS leader,
           EXISTS (SELECT FROM pg_locks JOIN pg_database ON pg_database.oid = pg_locks.database
                    WHERE locktype = 'advisory' AND granted AND datname = current_database() AND objsubid = 1
                      AND classid = CAST(CAST(:lock AS bigint) >> 32 AS oid)
                      AND objid = CAST(CAST(:lock AS bigint) & 4294967295 AS oid)) AS has_leader
""")

_WORKERS: Final = text("""
    SELECT workers.id, pool, host, state, must_stop, variants, started_at, held.packs, held.busy_since,
           extract(epoch FROM clock_timestamp() - heartbeat_at) AS silent_seconds
      FROM workers,
      LATERAL (SELECT count(*) AS packs, min(leased_at) AS busy_since
                 FROM packs WHERE packs.state = 'leased' AND lease_worker_id = workers.id) AS held
     WHERE state NOT IN ('stopped', 'lost')
     ORDER BY pool, started_at, workers.id
""")

_PACKS: Final = text("""
    SELECT pool, variant, state = 'leased' AS is_leased, paused.id IS NOT NULL AS is_paused, count(*) AS packs,
           sum(predicted_seconds) AS seconds, min(coalesce(CASE WHEN state = 'leased' THEN leased_at END, created_at)) AS since
      FROM packs LEFT JOIN paused_packs AS paused USING (id)
     WHERE state IN ('ready', 'retryable', 'leased') AND NOT is_convicted
     GROUP BY 1, 2, 3, 4
""")

_POOLS_OF_LATE: Final = text("""
    SELECT DISTINCT pool FROM workers WHERE ended_at > clock_timestamp() - interval '1 day' ORDER BY pool
""")

_IS_POOL: Final = text("""
    SELECT EXISTS (SELECT FROM workers WHERE pool = :pool) OR EXISTS (SELECT FROM packs WHERE pool = :pool)
""")

_LAST: Final = text("""
    SELECT wanted.pool, (SELECT max(ended_at) FROM packs WHERE packs.pool = wanted.pool) AS pack_at,
           (SELECT max(ended_at) FROM workers WHERE workers.pool = wanted.pool) AS worker_at
      FROM unnest(CAST(:pools AS text[])) AS wanted (pool)
""")

_UNFINISHED: Final = text("""
    -- The worst first: in the order of their reasons as it is given, then who is due first.
    SELECT id FROM batches
     WHERE state IN ('validating', 'in_progress', 'finalizing', 'cancelling')
     ORDER BY state <> 'in_progress', array_position(CAST(:worst_first AS text[]), reason) NULLS LAST, deadline_at, id
     LIMIT :limit
""")

_HOW_MANY: Final = text("""
    SELECT count(*) FROM batches WHERE state IN ('validating', 'in_progress', 'finalizing', 'cancelling')
""")

_DECISIONS: Final = text("SELECT reason, decided_at FROM decisions WHERE batch_id = :batch_id ORDER BY id")


class FactsRepository:
    """Reads the facts."""

    def __init__(self, database: Database, *, lease_for: timedelta) -> None:
        """Read from `database`; a worker silent for half of `lease_for` has missed more than one heartbeat."""
        self._database = database
        self._silence_seconds = lease_for.total_seconds() / 2

    def batch(self, batch_id: str) -> tuple[BatchFacts, Scheduling]:
        """Return what is known of a batch, or raise `NotFoundError`."""
        return self._read(lambda connection: (read_batch(connection, BatchId(batch_id)), self._scheduling(connection)))

    def pack(self, pack_id: str) -> tuple[PackFacts, Scheduling]:
        """Return what is known of a pack, or raise `NotFoundError`."""
        return self._read(lambda connection: (read_pack(connection, PackId(pack_id)), self._scheduling(connection)))

    def pool(self, pool: str) -> tuple[PoolFacts, Scheduling]:
        """Return what is known of a pool, or raise `NotFoundError` for one that never had a worker or a pack."""

        def read(connection: Connection) -> tuple[PoolFacts, Scheduling]:
            if not connection.execute(_IS_POOL, {"pool": pool}).scalar_one():
                known = ", ".join(facts.pool for facts in self._scheduling(connection).pools)
                hint = f"pools are {known}" if known else "no pool has a worker"
                raise NotFoundError(
                    f"there is no pool {pool}", hint=f"{hint}; a batch begins with batch_ and a pack with pack_"
                )
            seen = self._scheduling(connection, pool)
            found = next(facts for facts in seen.pools if facts.pool == pool)
            return replace(found, packs=read_lines(connection, pool=pool)), seen

        return self._read(read)

    def unfinished(
        self, *, worst_first: Sequence[Reason], limit: int
    ) -> tuple[tuple[BatchFacts, ...], int, Scheduling]:
        """Return the worst `limit` batches that have not ended, how many there are in all, and what is scheduled."""
        arguments = {"worst_first": [str(reason) for reason in worst_first], "limit": limit}

        def read(connection: Connection) -> tuple[tuple[BatchFacts, ...], int, Scheduling]:
            found = connection.execute(_UNFINISHED, arguments).scalars().all()
            batches = tuple(read_batch(connection, BatchId(batch_id)) for batch_id in found)
            return batches, connection.execute(_HOW_MANY).scalar_one(), self._scheduling(connection)

        return self._read(read)

    def decisions(self, batch_id: str) -> tuple[Decided, ...]:
        """Return every reason that the batch had, the oldest first."""
        rows = self._read(lambda connection: connection.execute(_DECISIONS, {"batch_id": batch_id}).all())
        return tuple(Decided(reason=Reason(row.reason), decided_at=row.decided_at) for row in rows)

    def _scheduling(self, connection: Connection, *asked: str) -> Scheduling:
        leader = connection.execute(_LEADER, {"lock": LEADER_LOCK}).one()
        return Scheduling(
            now=leader.now,
            has_leader=leader.has_leader,
            leader=leader.leader,
            snapshot=read_snapshot(connection, BacklogMirror()),
            learned=read_predictions(connection),
            pools=_pools(connection, asked),
            silence_seconds=self._silence_seconds,
        )

    def _read(self, read: Callable[[Connection], _Found]) -> _Found:
        return self._database.run(read, is_look=True)


def _pools(connection: Connection, asked: Iterable[str]) -> tuple[PoolFacts, ...]:
    workers: dict[str, list[WorkerFacts]] = {}
    for row in connection.execute(_WORKERS):
        workers.setdefault(row.pool, []).append(_worker(row))
    packs: dict[str, list[Row[Any]]] = {}
    for row in connection.execute(_PACKS):
        packs.setdefault(row.pool, []).append(row)
    names = sorted({*asked, *workers, *packs, *connection.execute(_POOLS_OF_LATE).scalars()})
    last = {row.pool: row for row in connection.execute(_LAST, {"pools": names})}
    return tuple(
        _pool(name, workers.get(name, []), packs.get(name, []), last[name].pack_at, last[name].worker_at)
        for name in names
    )


def _worker(row: Row[Any]) -> WorkerFacts:
    return WorkerFacts(
        worker_id=WorkerId(row.id),
        pool=row.pool,
        host=row.host,
        state=WorkerState(row.state),
        must_stop=row.must_stop,
        variants=frozenset(row.variants),
        started_at=row.started_at,
        silent_seconds=float(row.silent_seconds),
        packs=row.packs,
        busy_since=row.busy_since,
    )


def _pool(
    name: str,
    workers: list[WorkerFacts],
    packs: list[Row[Any]],
    last_pack_at: datetime | None,
    last_worker_at: datetime | None,
) -> PoolFacts:
    served = {variant for worker in workers if worker.takes_packs for variant in worker.variants}
    kinds: Mapping[str, list[Row[Any]]] = {"leased": [], "paused": [], "stranded": [], "waiting": []}
    for row in packs:
        if row.is_leased:
            kinds["leased"].append(row)
        elif row.is_paused:
            kinds["paused"].append(row)
        else:
            kinds["waiting" if row.variant in served else "stranded"].append(row)
    return PoolFacts(
        pool=name,
        workers=tuple(workers),
        waiting=_sum(kinds["waiting"]),
        stranded=_sum(kinds["stranded"]),
        paused=_sum(kinds["paused"]),
        leased=_sum(kinds["leased"]),
        stranded_variants=tuple(sorted({row.variant for row in kinds["stranded"]})),
        last_pack_at=last_pack_at,
        last_worker_at=last_worker_at,
    )


def _sum(rows: Sequence[Row[Any]]) -> Waiting:
    return Waiting(
        packs=sum(row.packs for row in rows),
        seconds=float(sum(row.seconds for row in rows)),
        since=min((row.since for row in rows), default=None),
    )
