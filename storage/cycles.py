"""The scheduler's side of Postgres: who leads, what a cycle sees, what it writes.

Every write names the epoch its scheduler leads in, so a deposed one's are refused.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import date, timedelta
from functools import partial
from types import TracebackType
from typing import Final, Self

import orjson
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from pipeline.domain.errors import ConflictError
from pipeline.domain.ids import BatchId, PackId, TenantId, WorkerId
from pipeline.domain.retry import Verdict
from pipeline.ports.cycle import CyclePlan, FairTag, Learned, PackDraft, Snapshot, Standing
from storage.admissions import answer
from storage.backlogs import BacklogMirror
from storage.budgets import tell
from storage.changes import ChangeCursor, Look
from storage.database import Database, unavailable
from storage.epochs import guard_epoch
from storage.predictions import read_predictions, settle
from storage.rescue import declare_lost, expired_leases, rescue_pack, silent_workers
from storage.snapshots import read_snapshot

#: Held by whoever leads.
LEADER_LOCK: Final = 0x4E_52_4C_44

_ELECT = text("""
    INSERT INTO leadership (epoch, holder) VALUES (1, :holder)
    ON CONFLICT (singleton) DO UPDATE SET epoch = leadership.epoch + 1, holder = :holder, elected_at = now()
    RETURNING epoch
""")

_ADD_PACKS = text("""
    INSERT INTO packs (id, pool, model, variant, endpoint, tier, state, ordinal, predicted_seconds,
                       month, row_picoseconds, input_token_picoseconds, output_token_picoseconds)
    SELECT id, pool, model, variant, endpoint, tier, 'ready', ordinal, predicted_seconds,
           coalesce(CAST(:month AS date), CAST(date_trunc('month', clock_timestamp() AT TIME ZONE 'UTC') AS date)),
           row_picoseconds, input_token_picoseconds, output_token_picoseconds
      FROM unnest(CAST(:id AS text[]), CAST(:pool AS text[]), CAST(:model AS text[]), CAST(:variant AS text[]),
                  CAST(:endpoint AS text[]), CAST(:tier AS text[]), CAST(:ordinal AS float[]),
                  CAST(:predicted_seconds AS float[]), CAST(:row_picoseconds AS bigint[]),
                  CAST(:input_token_picoseconds AS bigint[]), CAST(:output_token_picoseconds AS bigint[]))
        AS wanted (id, pool, model, variant, endpoint, tier, ordinal, predicted_seconds,
                   row_picoseconds, input_token_picoseconds, output_token_picoseconds)
""")

_ADD_SLICES = text("""
    INSERT INTO pack_slices (pack_id, batch_id, shard_id, rows, predicted_seconds, reserved_micros)
    SELECT pack_id, batch_id, shard_id, int4multirange(int4range(row_start, row_stop)), predicted_seconds, reserved_micros
      FROM unnest(CAST(:pack_id AS text[]), CAST(:batch_id AS text[]), CAST(:shard_id AS bigint[]),
                  CAST(:row_start AS int[]), CAST(:row_stop AS int[]), CAST(:predicted_seconds AS float[]),
                  CAST(:reserved_micros AS bigint[]))
        AS wanted (pack_id, batch_id, shard_id, row_start, row_stop, predicted_seconds, reserved_micros)
""")

_TAKE_ROWS = text("""
    WITH wanted AS MATERIALIZED (
        SELECT shards.id, row_stop
          FROM unnest(CAST(:shard_id AS bigint[]), CAST(:row_start AS int[]), CAST(:row_stop AS int[]))
            AS wanted (shard_id, row_start, row_stop)
          JOIN shards ON shards.id = shard_id AND rows_packed = row_start
         ORDER BY shards.id FOR NO KEY UPDATE OF shards)
    UPDATE shards SET rows_packed = row_stop FROM wanted WHERE shards.id = wanted.id RETURNING shards.id
""")

_STAND = text("""
    -- Locked in the order of ids, as leases do, so that the two cannot deadlock.
    WITH stand AS MATERIALIZED (
        SELECT batches.id, wanted.reason
          FROM unnest(CAST(:batch_ids AS text[]), CAST(:reasons AS text[])) AS wanted (batch_id, reason)
          JOIN batches ON batches.id = wanted.batch_id
         WHERE batches.state = 'in_progress' AND batches.reason IS DISTINCT FROM wanted.reason
         ORDER BY batches.id FOR NO KEY UPDATE OF batches),
    changed AS (
        UPDATE batches SET reason = stand.reason, reason_at = clock_timestamp()
          FROM stand WHERE batches.id = stand.id
        RETURNING batches.id, batches.reason)
    INSERT INTO decisions (batch_id, reason, epoch) SELECT id, reason, :epoch FROM changed
""")

_PRESS = text("""
    -- One that is being leased this moment goes first anyway.
    WITH pressing AS MATERIALIZED (
        SELECT packs.id, least_ordinal
          FROM packs, LATERAL (
            SELECT min(wanted.ordinal) AS least_ordinal
              FROM pack_slices AS slices
              JOIN unnest(CAST(:batch_ids AS text[]), CAST(:ordinals AS float[])) AS wanted (batch_id, ordinal)
                ON wanted.batch_id = slices.batch_id
             WHERE slices.pack_id = packs.id) AS wanted
         WHERE state IN ('ready', 'retryable') AND least_ordinal < packs.ordinal
           FOR NO KEY UPDATE OF packs SKIP LOCKED)
    UPDATE packs SET ordinal = least_ordinal FROM pressing WHERE packs.id = pressing.id
""")

_ADVANCE = """
    -- Done: no shard has a row without a result. Overdue: the deadline has passed.
    WITH ended AS MATERIALIZED (
        SELECT id FROM batches
         WHERE state = 'in_progress' AND (deadline_at <= clock_timestamp() OR {may_be_done} NOT EXISTS (
                SELECT FROM shards WHERE shards.batch_id = batches.id AND rows_succeeded + rows_errored < rows_total))
         ORDER BY id FOR NO KEY UPDATE),
    advanced AS (
        UPDATE batches SET state = 'finalizing', finalizing_at = clock_timestamp(), claim_expires_at = NULL,
               claim_failures = 0, claim_error = NULL,
               reason = CASE WHEN EXISTS (
                    SELECT FROM shards WHERE shards.batch_id = batches.id
                       AND rows_succeeded + rows_errored < rows_total)
                    THEN 'deadline_passed' ELSE 'all_committed' END,
               reason_at = clock_timestamp()
          FROM ended WHERE batches.id = ended.id
        RETURNING batches.id, batches.reason)
    INSERT INTO decisions (batch_id, reason, epoch) SELECT id, reason, :epoch FROM advanced RETURNING batch_id
"""
_ADVANCE_ALL = text(_ADVANCE.format(may_be_done=""))
_ADVANCE_SOME = text(_ADVANCE.format(may_be_done="batches.id = ANY(:batch_ids) AND"))

_DISCARD_WITHDRAWN = text("""
    -- Waiting packs that a withdrawn batch left without rows. One that is being leased this moment is
    -- stepped over: the lease sees the same, and the next cycle looks again.
    WITH empty AS MATERIALIZED (
        SELECT id FROM packs
         WHERE state IN ('ready', 'retryable')
           AND EXISTS (
            SELECT FROM pack_slices AS slices JOIN batches ON batches.id = slices.batch_id
             WHERE slices.pack_id = packs.id AND batches.state <> 'in_progress')
           AND NOT EXISTS (
            SELECT FROM pack_slices AS slices JOIN batches ON batches.id = slices.batch_id
             WHERE slices.pack_id = packs.id AND batches.state = 'in_progress'
               AND NOT slices.rows <@ coalesce(
                   (SELECT range_agg(done.rows) FROM part_slices AS done
                     WHERE done.shard_id = slices.shard_id AND done.rows && slices.rows),
                   '{}'::int4multirange))
           FOR NO KEY UPDATE SKIP LOCKED)
    UPDATE packs SET state = 'discarded', ended_at = clock_timestamp() FROM empty WHERE packs.id = empty.id
""")

_REROUTE = text("""
    -- Packs whose variant no worker of their pool serves, where one serves the reference.
    WITH stranded AS MATERIALIZED (
        SELECT id FROM packs
         WHERE state IN ('ready', 'retryable') AND variant <> model
           AND NOT EXISTS (
            SELECT FROM workers WHERE workers.pool = packs.pool AND workers.state NOT IN ('stopped', 'lost', 'draining')
               AND jsonb_exists(workers.variants, packs.variant))
           AND EXISTS (
            SELECT FROM workers WHERE workers.pool = packs.pool AND workers.state NOT IN ('stopped', 'lost', 'draining')
               AND jsonb_exists(workers.variants, packs.model))
           FOR NO KEY UPDATE SKIP LOCKED)
    UPDATE packs SET variant = model, hinted_at = NULL FROM stranded WHERE packs.id = stranded.id
""")

_DUE_HINTS = text("""
    -- The packs table is its own outbox: a hint that was lost is due again. A pack that is being leased
    -- this moment needs none.
    WITH due AS MATERIALIZED (
        SELECT id FROM packs
         WHERE state IN ('ready', 'retryable') AND NOT is_convicted AND available_at <= clock_timestamp()
           AND (hinted_at IS NULL OR hinted_at < clock_timestamp() - :again_after) AND packs.id NOT IN (SELECT id FROM paused_packs)
           FOR NO KEY UPDATE SKIP LOCKED)
    UPDATE packs SET hinted_at = clock_timestamp() FROM due WHERE packs.id = due.id
    RETURNING packs.id, packs.pool
""")


class Leadership:
    """One scheduler's term: held by an advisory lock, known by its epoch."""

    def __init__(self, database: Database, connection: Connection, epoch: int) -> None:
        """Use `Leadership.stand` instead."""
        self._database = database
        self._connection = connection
        self._is_lost = False
        self.epoch = epoch

    @classmethod
    def stand(cls, database: Database, holder: str) -> Leadership | None:
        """Become the leader, or return None while another process is."""
        try:
            connection = database.engine.connect()
            try:
                return cls._elected(database, connection, holder)
            except BaseException:
                # Back in the pool it would keep a lock that nobody knows of.
                connection.invalidate()
                connection.close()
                raise
        except DBAPIError as error:
            raise unavailable(error) from error

    @classmethod
    def _elected(cls, database: Database, connection: Connection, holder: str) -> Leadership | None:
        taken = connection.execute(text("SELECT pg_try_advisory_lock(:lock)"), {"lock": LEADER_LOCK}).scalar_one()
        if not taken:
            connection.close()
            return None
        epoch = connection.execute(_ELECT, {"holder": holder}).scalar_one()
        connection.commit()
        return cls(database, connection, epoch)

    def is_held(self) -> bool:
        """Say whether the session that holds the lock is still alive."""
        if self._is_lost:
            # SQLAlchemy would reconnect, and the new session holds nothing.
            return False
        try:
            self._connection.execute(text("SELECT 1"))
            self._connection.commit()
        except DBAPIError:
            self._is_lost = True
        return not self._is_lost

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let go of the lock by closing its session."""
        self._connection.invalidate()
        self._connection.close()


class CycleRepository:
    """What the leading scheduler reads and writes."""

    def __init__(self, database: Database, *, silence: timedelta, limited: Collection[TenantId] = ()) -> None:
        """Declare workers lost after `silence` without a heartbeat; count the packs of the `limited` tenants."""
        self._database = database
        self._silence = silence
        self._limited = limited
        self._mirror = BacklogMirror()
        #: Its own: a batch that changed after it was looked at here and before it was read there would be missed.
        self._advances = ChangeCursor()
        #: As they were stored last; None: to be read.
        self._fair_tags: tuple[FairTag, ...] | None = None

    def snapshot(self) -> Snapshot:
        """Return everything one cycle decides on."""
        seen = self._database.run(
            lambda connection: read_snapshot(connection, self._mirror, fair_tags=self._fair_tags, limited=self._limited)
        )
        self._fair_tags = seen.fair_tags
        return seen

    def predictions(self) -> tuple[Learned, ...]:
        """Return what was learned so far, by whoever led."""
        return self._database.run(read_predictions)

    def dispatch(self, epoch: int, plan: CyclePlan) -> None:
        """Write the plan's packs and standings, all or nothing.

        Raises `NotLeaderError` when deposed, `ConflictError` when the world moved on since the
        snapshot (the next cycle will see it).
        """

        def work(connection: Connection) -> None:
            guard_epoch(connection, epoch)
            if plan.pressing:
                _press(connection, plan.pressing)
            if plan.packs:
                _hold_batches(connection, {part.batch_id for pack in plan.packs for part in pack.slices})
                _add_packs(connection, plan.packs, plan.month)
            if plan.packs or plan.settled:
                remember = text("UPDATE leadership SET fair_tags = CAST(:fair_tags AS jsonb)")
                tags = orjson.dumps(plan.fair_tags).decode()
                connection.execute(remember, {"fair_tags": tags})
                settle(connection, plan)
            _stand(connection, epoch, plan.standings)
            answer(connection, epoch, plan)
            tell(connection, plan.notices)

        # Until it is known to be stored, what is remembered may not be what is stored.
        before, self._fair_tags = self._fair_tags, None
        # Once, not until it works: after a lost answer the same plan is refused by rows_packed.
        with self._database.transaction() as connection:
            work(connection)
        self._fair_tags = plan.fair_tags if plan.packs or plan.settled else before

    def advance_batches(self, epoch: int) -> int:
        """Move batches that are done or overdue to finalizing; return how many."""

        def work(connection: Connection) -> tuple[Look, int]:
            guard_epoch(connection, epoch)
            look = self._advances.look(connection)
            if look.batch_ids is None:
                return look, len(connection.execute(_ADVANCE_ALL, {"epoch": epoch}).all())
            some = {"epoch": epoch, "batch_ids": list(look.batch_ids)}
            return look, len(connection.execute(_ADVANCE_SOME, some).all())

        look, ended = self._database.run(work)
        self._advances.saw(look)
        self._tidy(epoch)
        return ended

    def _tidy(self, epoch: int) -> None:
        def work(connection: Connection) -> None:
            guard_epoch(connection, epoch)
            connection.execute(_DISCARD_WITHDRAWN)
            connection.execute(_REROUTE)

        self._database.run(work)

    def rescue(self, epoch: int) -> dict[PackId, Verdict]:
        """End the attempts whose lease expired and the lives of silent workers."""

        def look(connection: Connection) -> tuple[list[tuple[PackId, int]], list[WorkerId]]:
            guard_epoch(connection, epoch)
            return expired_leases(connection), silent_workers(connection, self._silence)

        leases, workers = self._database.run(look)
        verdicts: dict[PackId, Verdict] = {}
        for pack_id, lease_token in leases:
            verdict = self._database.run(partial(rescue_pack, pack_id=pack_id, lease_token=lease_token))
            if verdict is not None:
                verdicts[pack_id] = verdict
        for worker_id in workers:
            verdicts |= self._database.run(partial(declare_lost, worker_id=worker_id, silence=self._silence))
        return verdicts

    def due_hints(self, *, again_after: timedelta) -> list[tuple[PackId, str]]:
        """Return waiting packs (id, pool) whose hint was never sent or is older than `again_after`."""

        def work(connection: Connection) -> list[tuple[PackId, str]]:
            return [(PackId(row.id), row.pool) for row in connection.execute(_DUE_HINTS, {"again_after": again_after})]

        return self._database.run(work)


def _hold_batches(connection: Connection, batch_ids: set[BatchId]) -> None:
    # A batch that is withdrawn from here on waits for this transaction, and then sees its packs.
    held = text("SELECT id FROM batches WHERE id = ANY(:ids) AND state = 'in_progress' ORDER BY id FOR SHARE")
    if len(connection.execute(held, {"ids": sorted(batch_ids)}).all()) != len(batch_ids):
        raise ConflictError("a batch was withdrawn since the snapshot")


def _add_packs(connection: Connection, packs: Sequence[PackDraft], month: date | None) -> None:
    connection.execute(
        _ADD_PACKS,
        {
            "month": month,
            "id": [pack.pack_id for pack in packs],
            **{
                name: [getattr(pack, name) for pack in packs]
                for name in ("pool", "model", "variant", "endpoint", "tier", "ordinal", "predicted_seconds")
            },
            **{
                name: [getattr(pack.unit_costs, name) for pack in packs]
                for name in ("row_picoseconds", "input_token_picoseconds", "output_token_picoseconds")
            },
        },
    )
    slices = [(pack, part) for pack in packs for part in pack.slices]
    # Packs take the rows of a shard one behind the other.
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    for _, part in slices:
        if last.setdefault(part.shard_id, part.row_start) != part.row_start:
            raise ConflictError(f"rows of shard {part.shard_id} are not packed in order")
        first.setdefault(part.shard_id, part.row_start)
        last[part.shard_id] = part.row_stop
    wanted = {"shard_id": list(first), "row_start": list(first.values()), "row_stop": [last[shard] for shard in first]}
    taken = set(connection.execute(_TAKE_ROWS, wanted).scalars())
    if missing := sorted(first.keys() - taken):
        raise ConflictError(f"rows of shard {missing[0]} were packed since the snapshot")
    connection.execute(
        _ADD_SLICES,
        {
            "pack_id": [pack.pack_id for pack, _ in slices],
            **{
                name: [getattr(part, name) for _, part in slices]
                for name in ("batch_id", "shard_id", "row_start", "row_stop", "predicted_seconds", "reserved_micros")
            },
        },
    )


def _press(connection: Connection, pressing: Sequence[tuple[BatchId, float]]) -> None:
    arguments = {"batch_ids": [batch for batch, _ in pressing], "ordinals": [ordinal for _, ordinal in pressing]}
    connection.execute(_PRESS, arguments)


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
