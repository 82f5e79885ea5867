"""The scheduler's side of Postgres: who leads, what a cycle sees, what it writes.

Every write names the epoch its scheduler leads in, so a deposed one's are refused.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from datetime import timedelta
from types import TracebackType
from typing import Final

import orjson
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from pipeline.domain.endpoints import Endpoint
from pipeline.domain.errors import ConflictError, LeaseLostError, NotLeaderError
from pipeline.domain.ids import BatchId, PackId, TenantId
from pipeline.domain.lifecycle import AttemptOutcome
from pipeline.domain.retry import Verdict
from pipeline.domain.tiers import Tier
from pipeline.ports.cycle import Backlog, CyclePlan, FairTag, OpenShard, PackDraft, PoolView, Snapshot, Standing
from storage.database import Database
from storage.multiranges import to_literal
from storage.packs import finish_attempt
from storage.workers import declare_lost

#: Shards a snapshot carries for each batch: enough for one cycle's packs, whatever the batch's size.
_SHARDS_A_BATCH: Final = 64
#: Work intervals that a model's speed is measured over.
_SPEED_INTERVALS: Final = 32
_LEADER_LOCK: Final = 0x4E_52_4C_44

_ELECT = text("""
    INSERT INTO leadership (epoch, holder) VALUES (1, :holder)
    ON CONFLICT (singleton) DO UPDATE SET epoch = leadership.epoch + 1, holder = :holder, elected_at = now()
    RETURNING epoch
""")

_BACKLOGS = text("""
    SELECT batches.id, tenant_id, tier, endpoint, budget_micros, created_at, deadline_at,
           coalesce((SELECT sum(amount_micros) FROM ledger WHERE batch_id = batches.id), 0) AS spent_micros,
           (SELECT coalesce(sum(rows_packed - rows_succeeded - rows_errored), 0) FROM shards
             WHERE batch_id = batches.id AND rows_succeeded + rows_errored < rows_total) AS rows_in_flight
      FROM batches
     WHERE state = 'in_progress'
       AND EXISTS (SELECT FROM shards WHERE batch_id = batches.id AND rows_packed < rows_total)
     ORDER BY created_at, id
""")

_OPEN_SHARDS = text("""
    -- Intake puts one model in a file, so the first shards of a batch stand for all of its backlog.
    SELECT open.* FROM unnest(CAST(:batch_ids AS text[])) AS wanted (batch_id),
      LATERAL (SELECT batch_id, id, shard_no, model, rows_total, rows_packed, input_tokens_estimated,
                      output_tokens_estimated
                 FROM shards WHERE shards.batch_id = wanted.batch_id AND rows_packed < rows_total
                ORDER BY shard_no LIMIT :shards_a_batch) AS open
""")

_POOLS = text("""
    SELECT pool, count(DISTINCT workers.id) AS workers, array_agg(DISTINCT served.model) AS models,
           (SELECT count(*) FROM packs WHERE packs.pool = workers.pool AND state IN ('ready', 'retryable')
               AND NOT is_convicted) AS packs_waiting
      FROM workers, jsonb_array_elements_text(models) AS served (model)
     WHERE state NOT IN ('stopped', 'lost', 'draining') AND NOT must_stop
     GROUP BY pool ORDER BY pool
""")

_SPEEDS = text("""
    SELECT measured.model, sum(tokens) / (sum(stop_us - start_us) / 1e6) AS tokens_per_second
      FROM (SELECT DISTINCT model FROM shards WHERE rows_packed < rows_total) AS wanted,
      LATERAL (SELECT model, tokens, stop_us, start_us FROM worker_intervals
                WHERE kind = 'work' AND worker_intervals.model = wanted.model
                ORDER BY created_at DESC LIMIT :intervals) AS measured
     GROUP BY measured.model HAVING sum(tokens) > 0
""")

_ADD_PACK = text("""
    INSERT INTO packs (id, pool, model, endpoint, tier, state, ordinal, predicted_seconds)
    VALUES (:pack_id, :pool, :model, :endpoint, :tier, 'ready', :ordinal, :predicted_seconds)
""")

_ADD_SLICE = text("""
    INSERT INTO pack_slices (pack_id, batch_id, shard_id, rows)
    VALUES (:pack_id, :batch_id, :shard_id, CAST(:rows AS int4multirange))
""")

_TAKE_ROWS = text("UPDATE shards SET rows_packed = :row_stop WHERE id = :shard_id AND rows_packed = :row_start")

_STAND = text("""
    WITH changed AS (
        UPDATE batches SET reason = stand.reason, reason_at = clock_timestamp()
          FROM unnest(CAST(:batch_ids AS text[]), CAST(:reasons AS text[])) AS stand (batch_id, reason)
         WHERE batches.id = stand.batch_id AND batches.state = 'in_progress'
           AND batches.reason IS DISTINCT FROM stand.reason
        RETURNING batches.id, batches.reason)
    INSERT INTO decisions (batch_id, reason, epoch) SELECT id, reason, :epoch FROM changed
""")

_ADVANCE = text("""
    -- Done: no shard has a row without a result. Overdue: the deadline has passed.
    WITH ended AS (
        UPDATE batches SET state = 'finalizing', finalizing_at = clock_timestamp(), claim_expires_at = NULL,
               reason = CASE WHEN is_done THEN 'all_committed' ELSE 'deadline_passed' END,
               reason_at = clock_timestamp()
          FROM (SELECT id, NOT EXISTS (
                        SELECT FROM shards WHERE shards.batch_id = batches.id
                           AND rows_succeeded + rows_errored < rows_total) AS is_done,
                       deadline_at <= clock_timestamp() AS is_overdue
                  FROM batches WHERE state = 'in_progress') AS judged
         WHERE batches.id = judged.id AND batches.state = 'in_progress' AND (is_done OR is_overdue)
        RETURNING batches.id, batches.reason)
    INSERT INTO decisions (batch_id, reason, epoch) SELECT id, reason, :epoch FROM ended RETURNING batch_id
""")

_DISCARD_WITHDRAWN = text("""
    UPDATE packs SET state = 'discarded', ended_at = clock_timestamp()
     WHERE state IN ('ready', 'retryable') AND NOT EXISTS (
        SELECT FROM pack_slices AS slices JOIN batches ON batches.id = slices.batch_id
         WHERE slices.pack_id = packs.id AND batches.state = 'in_progress')
""")

_EXPIRED = text("""
    SELECT id, lease_token FROM packs WHERE state = 'leased' AND lease_expires_at < clock_timestamp() ORDER BY id
""")

_DUE_HINTS = text("""
    -- The packs table is its own outbox: a hint that was lost is due again.
    UPDATE packs SET hinted_at = clock_timestamp()
     WHERE state IN ('ready', 'retryable') AND NOT is_convicted AND available_at <= clock_timestamp()
       AND (hinted_at IS NULL OR hinted_at < clock_timestamp() - :again_after)
    RETURNING id, pool
""")


class Leadership:
    """One scheduler's term: held by an advisory lock, known by its epoch."""

    def __init__(self, database: Database, connection: Connection, epoch: int) -> None:
        """Use `Leadership.stand` instead."""
        self._database = database
        self._connection = connection
        self.epoch = epoch

    @classmethod
    def stand(cls, database: Database, holder: str) -> Leadership | None:
        """Become the leader, or return None while another process is."""
        connection = database.engine.connect()
        taken = connection.execute(text("SELECT pg_try_advisory_lock(:lock)"), {"lock": _LEADER_LOCK}).scalar_one()
        if not taken:
            connection.close()
            return None
        epoch = connection.execute(_ELECT, {"holder": holder}).scalar_one()
        connection.commit()
        return cls(database, connection, epoch)

    def is_held(self) -> bool:
        """Say whether the session that holds the lock is still alive."""
        try:
            self._connection.execute(text("SELECT 1"))
            self._connection.commit()
        except DBAPIError:
            return False
        return True

    def __enter__(self) -> Leadership:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let go of the lock by closing its session."""
        self._connection.invalidate()
        self._connection.close()


class CycleRepository:
    """What the leading scheduler reads and writes."""

    def __init__(self, database: Database, *, silence: timedelta) -> None:
        """Declare workers lost after `silence` without a heartbeat."""
        self._database = database
        self._silence = silence

    def snapshot(self) -> Snapshot:
        """Return everything one cycle decides on."""
        return self._database.run(_snapshot)

    def dispatch(self, epoch: int, plan: CyclePlan) -> None:
        """Write the plan's packs and standings, all or nothing.

        Raises `NotLeaderError` when deposed, `ConflictError` when the world moved on since the
        snapshot (the next cycle will see it).
        """

        def work(connection: Connection) -> None:
            _guard(connection, epoch)
            if plan.packs:
                _hold_batches(connection, {part.batch_id for pack in plan.packs for part in pack.slices})
                _add_packs(connection, plan.packs)
                remember = text("UPDATE leadership SET fair_tags = CAST(:fair_tags AS jsonb)")
                tags = orjson.dumps([asdict(tag) for tag in plan.fair_tags]).decode()
                connection.execute(remember, {"fair_tags": tags})
            _stand(connection, epoch, plan.standings)

        # Once, not until it works: after a lost answer the same plan is refused by rows_packed.
        with self._database.transaction() as connection:
            work(connection)

    def advance_batches(self, epoch: int) -> int:
        """Move batches that are done or overdue to finalizing; return how many."""

        def work(connection: Connection) -> int:
            _guard(connection, epoch)
            ended = len(connection.execute(_ADVANCE, {"epoch": epoch}).all())
            connection.execute(_DISCARD_WITHDRAWN)
            return ended

        return self._database.run(work)

    def rescue(self, epoch: int) -> dict[PackId, Verdict]:
        """End the attempts whose lease expired and the lives of silent workers."""

        def expired(connection: Connection) -> list[tuple[PackId, int]]:
            _guard(connection, epoch)
            return [(PackId(row.id), row.lease_token) for row in connection.execute(_EXPIRED)]

        verdicts = {}
        for pack_id, lease_token in self._database.run(expired):
            try:
                verdicts[pack_id] = self._database.run(
                    lambda connection, pack_id=pack_id, lease_token=lease_token: _rescue_one(  # type: ignore[misc] # mypy cannot infer defaulted lambdas
                        connection, pack_id, lease_token
                    )
                )
            except LeaseLostError:
                continue  # Its worker renewed or finished it after all.
        self._database.run(lambda connection: declare_lost(connection, self._silence))
        return verdicts

    def due_hints(self, *, again_after: timedelta) -> list[tuple[PackId, str]]:
        """Return waiting packs (id, pool) whose hint was never sent or is older than `again_after`."""

        def work(connection: Connection) -> list[tuple[PackId, str]]:
            return [(PackId(row.id), row.pool) for row in connection.execute(_DUE_HINTS, {"again_after": again_after})]

        return self._database.run(work)


def _guard(connection: Connection, epoch: int) -> None:
    leads = text("SELECT 1 FROM leadership WHERE epoch = :epoch FOR SHARE")
    if connection.execute(leads, {"epoch": epoch}).one_or_none() is None:
        raise NotLeaderError(f"epoch {epoch} is over")


def _rescue_one(connection: Connection, pack_id: PackId, lease_token: int) -> Verdict:
    # Looked at again under the row lock: a heartbeat may have come in between.
    still = text("""
        SELECT 1 FROM packs WHERE id = :pack_id AND lease_token = :lease_token AND state = 'leased'
           AND lease_expires_at < clock_timestamp() FOR NO KEY UPDATE
    """)
    if connection.execute(still, {"pack_id": pack_id, "lease_token": lease_token}).one_or_none() is None:
        raise LeaseLostError(f"lease {lease_token} of {pack_id} is alive or has ended")
    return finish_attempt(connection, pack_id, lease_token, AttemptOutcome.LEASE_LOST, "the worker went silent")


def _snapshot(connection: Connection) -> Snapshot:
    rows = connection.execute(_BACKLOGS).all()
    shards: dict[tuple[str, str], list[OpenShard]] = {}
    arguments = {"batch_ids": [row.id for row in rows], "shards_a_batch": _SHARDS_A_BATCH}
    for shard in connection.execute(_OPEN_SHARDS, arguments) if rows else ():
        shards.setdefault((shard.batch_id, shard.model), []).append(
            OpenShard(
                shard_id=shard.id,
                shard_no=shard.shard_no,
                rows_total=shard.rows_total,
                rows_packed=shard.rows_packed,
                input_tokens=shard.input_tokens_estimated,
                output_tokens=shard.output_tokens_estimated,
            )
        )
    by_id = {row.id: row for row in rows}
    backlogs = tuple(
        Backlog(
            tenant_id=TenantId(by_id[batch_id].tenant_id),
            batch_id=BatchId(batch_id),
            tier=Tier(by_id[batch_id].tier),
            model=model,
            endpoint=Endpoint(by_id[batch_id].endpoint),
            created_at_us=int(by_id[batch_id].created_at.timestamp() * 1_000_000),
            deadline_at_us=int(by_id[batch_id].deadline_at.timestamp() * 1_000_000),
            spent_micros=int(by_id[batch_id].spent_micros),
            budget_micros=by_id[batch_id].budget_micros,
            shards=tuple(opened),
            rows_in_flight=int(by_id[batch_id].rows_in_flight),
        )
        for (batch_id, model), opened in shards.items()
    )
    return _with_fleet(connection, backlogs)


def _with_fleet(connection: Connection, backlogs: tuple[Backlog, ...]) -> Snapshot:
    pools = tuple(
        PoolView(pool=row.pool, workers=row.workers, models=frozenset(row.models), packs_waiting=row.packs_waiting)
        for row in connection.execute(_POOLS)
    )
    speeds = connection.execute(_SPEEDS, {"intervals": _SPEED_INTERVALS})
    clock = text("SELECT clock_timestamp() AS now, (SELECT coalesce(max(ordinal), 0) FROM packs) AS ordinal")
    now = connection.execute(clock).one()
    memory = connection.execute(text("SELECT fair_tags FROM leadership")).scalar_one_or_none()
    return Snapshot(
        now_us=int(now.now.timestamp() * 1_000_000),
        backlogs=backlogs,
        pools=pools,
        tokens_per_second={row.model: float(row.tokens_per_second) for row in speeds},
        virtual_seconds=now.ordinal,
        fair_tags=tuple(FairTag(**(tag | {"path": tuple(tag["path"])})) for tag in memory or ()),
    )


def _hold_batches(connection: Connection, batch_ids: set[BatchId]) -> None:
    # A batch that is withdrawn from here on waits for this transaction, and then sees its packs.
    held = text("SELECT id FROM batches WHERE id = ANY(:ids) AND state = 'in_progress' ORDER BY id FOR SHARE")
    if len(connection.execute(held, {"ids": sorted(batch_ids)}).all()) != len(batch_ids):
        raise ConflictError("a batch was withdrawn since the snapshot")


def _add_packs(connection: Connection, packs: Iterable[PackDraft]) -> None:
    for pack in packs:
        connection.execute(
            _ADD_PACK,
            {
                "pack_id": pack.pack_id,
                "pool": pack.pool,
                "model": pack.model,
                "endpoint": pack.endpoint,
                "tier": pack.tier,
                "ordinal": pack.ordinal,
                "predicted_seconds": pack.predicted_seconds,
            },
        )
        for part in pack.slices:
            rows = {"shard_id": part.shard_id, "row_start": part.row_start, "row_stop": part.row_stop}
            if connection.execute(_TAKE_ROWS, rows).rowcount != 1:
                raise ConflictError(f"rows of shard {part.shard_id} were packed since the snapshot")
            connection.execute(
                _ADD_SLICE,
                {
                    "pack_id": pack.pack_id,
                    "batch_id": part.batch_id,
                    "shard_id": part.shard_id,
                    "rows": to_literal(((part.row_start, part.row_stop),)),
                },
            )


def _stand(connection: Connection, epoch: int, standings: tuple[Standing, ...]) -> None:
    if standings:
        connection.execute(
            _STAND,
            {
                "batch_ids": [standing.batch_id for standing in standings],
                "reasons": [str(standing.reason) for standing in standings],
                "epoch": epoch,
            },
        )
