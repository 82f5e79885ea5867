"""Packs in Postgres: leases by fencing token, commits in one transaction.

Lock order in every transaction here is pack, then batches by id, then shards by id, then worker, so
that no two of them can deadlock.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import timedelta
from typing import Final

from sqlalchemy import Connection, TextClause, text

from pipeline.domain.endpoints import Endpoint
from pipeline.domain.errors import LeaseLostError
from pipeline.domain.ids import BatchId, PackId, TenantId, WorkerId, new_pack_id
from pipeline.domain.lifecycle import AttemptOutcome
from pipeline.domain.money import split_by_weight
from pipeline.domain.ranges import count_rows, halve
from pipeline.domain.retry import Verdict, judge
from pipeline.ports.meters import AttemptMeters
from pipeline.ports.packs import Conviction, LeasedSlice, PackLease, WorkCommit
from storage.commits import OWN, commit_parts
from storage.database import Database
from storage.meters import record_meters
from storage.multiranges import from_value, to_literal
from storage.wakeups import send_wakeup
from storage.workers import prove_alive

_NEXT = text("""
    -- Rows that others lock are stepped over: two workers never wait for one another here.
    SELECT id, model, variant, endpoint, failures > 0 OR is_suspect AS has_failed,
           CAST(extract(epoch FROM clock_timestamp() - available_at) * 1000000 AS bigint) AS waited_us
      FROM packs
     WHERE pool = :pool AND state IN ('ready', 'retryable') AND NOT is_convicted
       AND variant = ANY(:variants) AND available_at <= clock_timestamp() AND packs.id NOT IN (SELECT id FROM paused_packs)
     ORDER BY ordinal, id LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED
""")

_NEXT_WARM = text("""
    -- The first of what the worker need not load, unless what is first of all has a much better claim.
    SELECT id, model, variant, endpoint, failures > 0 OR is_suspect AS has_failed,
           CAST(extract(epoch FROM clock_timestamp() - available_at) * 1000000 AS bigint) AS waited_us
      FROM packs
     WHERE pool = :pool AND state IN ('ready', 'retryable') AND NOT is_convicted
       AND variant = ANY(:warm) AND available_at <= clock_timestamp() AND packs.id NOT IN (SELECT id FROM paused_packs)
       AND ordinal <= :window_seconds + (
            SELECT ordinal FROM packs
             WHERE pool = :pool AND state IN ('ready', 'retryable') AND NOT is_convicted
               AND variant = ANY(:variants) AND available_at <= clock_timestamp()
               AND packs.id NOT IN (SELECT id FROM paused_packs)
             ORDER BY ordinal, id LIMIT 1)
     ORDER BY ordinal, id LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED
""")

_NEXT_CONVICTED = text("""
    SELECT id, model, variant, endpoint, true AS has_failed, 0 AS waited_us FROM packs
     WHERE is_convicted AND state IN ('ready', 'retryable')
     ORDER BY id LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED
""")

_HOLD_BATCHES = text("""
    -- A batch that ends from here on waits for this lease, and then finalizing waits for the pack:
    -- else rows leased at that moment would be committed after the files were written.
    SELECT id FROM batches
     WHERE id IN (SELECT batch_id FROM pack_slices WHERE pack_id = :pack_id) AND state = 'in_progress'
     ORDER BY id FOR SHARE
""")

_GRANT = text("""
    WITH granted AS (
        UPDATE packs
           SET state = 'leased', lease_token = lease_token + 1, lease_worker_id = :worker_id,
               lease_expires_at = clock_timestamp() + :lease_for, leased_at = clock_timestamp()
         WHERE id = :pack_id
        RETURNING id, lease_token, lease_worker_id)
    INSERT INTO attempts (pack_id, lease_token, worker_id, rows_asked)
    SELECT id, lease_token, lease_worker_id, :rows_asked FROM granted
    RETURNING lease_token
""")

_DISCARD = text("UPDATE packs SET state = 'discarded', ended_at = clock_timestamp() WHERE id = :pack_id")

_ROWS_LEFT = text("""
    -- The pack's rows less those that have a result; rows of withdrawn batches are nobody's work.
    SELECT * FROM (
        SELECT batches.tenant_id, slices.batch_id, slices.shard_id, shards.shard_no, shards.object_key,
               shards.sha256,
               slices.rows - coalesce(
                   (SELECT range_agg(done.rows) FROM part_slices AS done
                     WHERE done.shard_id = slices.shard_id AND done.rows && slices.rows),
                   '{}'::int4multirange) AS rows_left
          FROM pack_slices AS slices
          JOIN batches ON batches.id = slices.batch_id
          JOIN shards ON shards.id = slices.shard_id
         WHERE slices.pack_id = :pack_id AND batches.state = 'in_progress'
         ORDER BY slices.id) AS left_over
     WHERE NOT isempty(rows_left)
""")

_END_ATTEMPT = text("""
    UPDATE attempts SET outcome = :outcome, error = :error, ended_at = clock_timestamp()
     WHERE pack_id = :pack_id AND lease_token = :lease_token
    RETURNING rows_asked
""")

_END_PACK = text("""
    UPDATE packs SET state = CAST(:state AS text), lease_worker_id = NULL, lease_expires_at = NULL,
           failures = :failures, lone_failures = :lone_failures, unreads = :unreads, is_convicted = :is_convicted,
           last_error = coalesce(:error, last_error),
           available_at = clock_timestamp() + :pause, hinted_at = NULL,
           ended_at = CASE WHEN CAST(:state AS text) IN ('committed', 'discarded') THEN clock_timestamp() END
     WHERE id = :pack_id
""")

_LAST_ENDED = text("""
    SELECT outcome, error FROM attempts WHERE pack_id = :pack_id AND worker_id IS NOT NULL
       AND outcome IN ('failed', 'lease_lost', 'unread')
     ORDER BY lease_token DESC LIMIT 1
""")

_ADD_CHILD = text("""
    INSERT INTO packs (id, pool, model, variant, endpoint, tier, state, ordinal, predicted_seconds, unreads, is_suspect,
                       parent_id, month, row_picoseconds, input_token_picoseconds, output_token_picoseconds)
    SELECT :child_id, pool, model, variant, endpoint, tier, 'ready', ordinal, predicted_seconds / 2, :unreads, true,
           id, month, row_picoseconds, input_token_picoseconds, output_token_picoseconds
      FROM packs WHERE id = :parent_id
""")

_ADD_SLICE = text("""
    INSERT INTO pack_slices (pack_id, batch_id, shard_id, rows, predicted_seconds, reserved_micros)
    VALUES (:pack_id, :batch_id, :shard_id, CAST(:rows AS int4multirange), :predicted_seconds, :reserved_micros)
""")

_STILL_RESERVED = text("""
    -- What the pack has cost a batch so far is in the ledger; only the rest is still kept of its budget.
    SELECT batch_id, greatest(0, sum(reserved_micros) - (
            SELECT coalesce(sum(charged_micros), 0)
              FROM transactions JOIN entries ON transaction_id = transactions.id
             WHERE pack_id = :pack_id AND entries.batch_id = pack_slices.batch_id)) AS micros
      FROM pack_slices WHERE pack_id = :pack_id GROUP BY batch_id
""")

#: A pack that failed rests this long before its next attempt, so that a passing fault can pass. One whose
#: shard was not there rests twice as long each time.
_FAILURE_PAUSE: Final = timedelta(seconds=0.5)
_UNREAD_PAUSE_MAX: Final = timedelta(seconds=60)
#: How far behind the first pack, in the pool's virtual seconds, one may be that needs no loading and still be leased
#: before it: about what loading takes. Packs were charged when they were made, so shares stay as they are.
_WARM_WINDOW_SECONDS: Final = 30.0
#: Packs without rows that one call discards on the way to one it can lease.
_EMPTY_PACKS_MAX: Final = 64


class PackRepository:
    """`PackStore` on Postgres."""

    def __init__(self, database: Database, *, lease_for: timedelta) -> None:
        """Lease packs for `lease_for` on the database's clock."""
        self._database = database
        self._lease_for = lease_for

    def lease(
        self,
        worker_id: WorkerId,
        *,
        pool: str,
        variants: Collection[str],
        in_company: bool = False,
        warm: Collection[str] = (),
    ) -> PackLease | None:
        """Lease the pool's first waiting pack of one of `variants`, or return None when none waits.

        One of the `warm` variants, which the worker has loaded, goes before others that are not far ahead of it.
        With `in_company`, none is returned either where that pack has failed before. Raises `LeaseLostError` for a worker that is draining, stopped or lost.
        """
        arguments: dict[str, object] = {"pool": pool, "variants": list(variants)}

        # With nothing to choose between there is nothing to ask twice.
        choices = (_NEXT_WARM, _NEXT) if warm and set(variants) - set(warm) else (_NEXT,)
        if len(choices) > 1:
            arguments |= {"warm": list(warm), "window_seconds": _WARM_WINDOW_SECONDS}

        def work(connection: Connection) -> PackLease | None:
            lease = None
            for statement in choices:
                lease = lease or self._take(connection, statement, arguments, worker_id, in_company=in_company)
            # Last, because the worker's row is; a refusal here undoes the lease.
            prove_alive(connection, worker_id)
            return lease

        return self._database.run(work)

    def lease_convicted(self) -> Conviction | None:
        """Lease a pack whose rows are to be errored, with what they were convicted for."""

        def work(connection: Connection) -> Conviction | None:
            lease = self._take(connection, _NEXT_CONVICTED, {}, None, in_company=False)
            if lease is None:
                return None
            last = connection.execute(_LAST_ENDED, {"pack_id": lease.pack_id}).one()
            return Conviction(lease=lease, outcome=AttemptOutcome(last.outcome), error=last.error or "unknown")

        return self._database.run(work)

    def _take(
        self,
        connection: Connection,
        statement: TextClause,
        arguments: Mapping[str, object],
        worker_id: WorkerId | None,
        *,
        in_company: bool,
    ) -> PackLease | None:
        """Lease the statement's pack; one whose rows are all withdrawn is discarded and passed over."""
        for _ in range(_EMPTY_PACKS_MAX):
            found = connection.execute(statement, arguments).one_or_none()
            if found is None or (in_company and found.has_failed):
                # Not passed over: a worker that never runs out of packs would never come to this one.
                return None
            pack_id = PackId(found.id)
            connection.execute(_HOLD_BATCHES, {"pack_id": pack_id})
            slices = _rows_left(connection, pack_id)
            if slices:
                granted = {
                    "pack_id": pack_id,
                    "worker_id": worker_id,
                    "lease_for": self._lease_for,
                    "rows_asked": _count(slices),
                }
                return PackLease(
                    pack_id=pack_id,
                    lease_token=connection.execute(_GRANT, granted).scalar_one(),
                    model=found.model,
                    variant=found.variant,
                    endpoint=Endpoint(found.endpoint),
                    slices=slices,
                    has_failed=found.has_failed,
                    waited_us=found.waited_us,
                )
            connection.execute(_DISCARD, {"pack_id": pack_id})
        return None

    def commit(self, worker_id: WorkerId | None, commit: WorkCommit) -> None:
        """Record parts, counts, the worker's span and its charges in one transaction."""
        assert commit.parts, "a commit has something to commit"
        self._database.run(lambda connection: commit_parts(connection, worker_id, commit))

    def finish(
        self,
        pack_id: PackId,
        lease_token: int,
        outcome: AttemptOutcome,
        error: str | None = None,
        meters: AttemptMeters | None = None,
    ) -> Verdict:
        """End the attempt and say what became of the rows it left; raises `LeaseLostError` when late."""

        def work(connection: Connection) -> Verdict:
            verdict = finish_attempt(connection, pack_id, lease_token, outcome, error)
            if meters is not None:
                record_meters(connection, pack_id, lease_token, meters)
            return verdict

        return self._database.run(work)

    def meter(self, pack_id: PackId, lease_token: int, meters: AttemptMeters) -> None:
        """Record what an attempt used that another ended; no lock is needed, for nobody else has its token."""
        self._database.run(lambda connection: record_meters(connection, pack_id, lease_token, meters))


def finish_attempt(
    connection: Connection, pack_id: PackId, lease_token: int, outcome: AttemptOutcome, error: str | None
) -> Verdict:
    """End an attempt within the caller's transaction; see `PackRepository.finish`."""
    own = connection.execute(OWN, {"pack_id": pack_id, "lease_token": lease_token}).one_or_none()
    if own is None:
        raise LeaseLostError(f"lease {lease_token} of {pack_id} has ended")
    ended = {"pack_id": pack_id, "lease_token": lease_token, "outcome": outcome, "error": error}
    rows_asked = connection.execute(_END_ATTEMPT, ended).scalar_one()
    left = _rows_left(connection, pack_id)
    rows_left = _count(left)
    is_failure = outcome in {AttemptOutcome.FAILED, AttemptOutcome.LEASE_LOST}
    failures = own.failures + int(is_failure)
    lone_failures = own.lone_failures + int(is_failure and rows_asked == 1)
    unreads = own.unreads + int(outcome is AttemptOutcome.UNREAD)
    # What a row did in company proves nothing against it: the others may be done or withdrawn by now.
    blamed = lone_failures if rows_left == 1 else failures
    verdict = judge(
        outcome=outcome,
        rows_left=rows_left,
        failures=unreads if outcome is AttemptOutcome.UNREAD else blamed,
        is_suspect=own.is_suspect,
        shards_left=len({part.shard_id for part in left}),
    )
    if verdict is Verdict.BISECT:
        _bisect(connection, pack_id, left, unreads=unreads)
    state = {Verdict.DONE: "committed", Verdict.BISECT: "discarded"}.get(verdict, "retryable")
    connection.execute(
        _END_PACK,
        {
            "pack_id": pack_id,
            "state": state,
            "failures": failures,
            "lone_failures": lone_failures,
            "unreads": unreads,
            "is_convicted": verdict is Verdict.CONVICT,
            "error": error,
            "pause": _pause(outcome, unreads=unreads),
        },
    )
    send_wakeup(connection)
    return verdict


def _pause(outcome: AttemptOutcome, *, unreads: int) -> timedelta:
    if outcome is AttemptOutcome.UNREAD:
        return min(timedelta(seconds=_FAILURE_PAUSE.total_seconds() * 2.0 ** min(unreads, 10)), _UNREAD_PAUSE_MAX)
    return _FAILURE_PAUSE if outcome is AttemptOutcome.FAILED else timedelta()


def _rows_left(connection: Connection, pack_id: PackId) -> tuple[LeasedSlice, ...]:
    return tuple(
        LeasedSlice(
            tenant_id=TenantId(row.tenant_id),
            batch_id=BatchId(row.batch_id),
            shard_id=row.shard_id,
            shard_no=row.shard_no,
            object_key=row.object_key,
            sha256=row.sha256,
            ranges=from_value(row.rows_left),
        )
        for row in connection.execute(_ROWS_LEFT, {"pack_id": pack_id})
    )


def _count(slices: Iterable[LeasedSlice]) -> int:
    return sum(count_rows(part.ranges) for part in slices)


def _bisect(connection: Connection, pack_id: PackId, left: tuple[LeasedSlice, ...], *, unreads: int) -> None:
    reserved = _split_reserved(connection, pack_id, left)
    # The parent lets go of its rows first: the exclusion constraint allows a row one pack.
    given = text("DELETE FROM pack_slices WHERE pack_id = :pack_id RETURNING shard_id, predicted_seconds")
    seconds_of: dict[int, float] = {}
    for shard_id, seconds in connection.execute(given, {"pack_id": pack_id}):
        seconds_of[shard_id] = seconds_of.get(shard_id, 0.0) + seconds
    rows_of = {part.shard_id: count_rows(part.ranges) for part in left}
    batch_of = {part.shard_id: part.batch_id for part in left}
    for number, half in enumerate(halve([(part.shard_id, part.ranges) for part in left])):
        child_id = new_pack_id()
        connection.execute(_ADD_CHILD, {"child_id": child_id, "parent_id": pack_id, "unreads": unreads})
        connection.execute(
            _ADD_SLICE,
            [
                {
                    "pack_id": child_id,
                    "batch_id": batch_of[shard_id],
                    "shard_id": shard_id,
                    "rows": to_literal(ranges),
                    # What was charged for the shard's rows stays charged, for those that are left.
                    "predicted_seconds": seconds_of[shard_id] * count_rows(ranges) / rows_of[shard_id],
                    "reserved_micros": reserved[number, shard_id],
                }
                for shard_id, ranges in half
            ],
        )


def _split_reserved(
    connection: Connection, pack_id: PackId, left: tuple[LeasedSlice, ...]
) -> dict[tuple[int, int], int]:
    """Return what each half's slices keep of what the pack still has reserved, by rows, with nothing lost."""
    batch_of = {part.shard_id: part.batch_id for part in left}
    slices: dict[BatchId, list[tuple[tuple[int, int], int]]] = {}
    for number, half in enumerate(halve([(part.shard_id, part.ranges) for part in left])):
        for shard_id, ranges in half:
            slices.setdefault(batch_of[shard_id], []).append(((number, shard_id), count_rows(ranges)))
    found: dict[tuple[int, int], int] = {}
    for row in connection.execute(_STILL_RESERVED, {"pack_id": pack_id}):
        if keys := slices.get(BatchId(row.batch_id)):
            micros = split_by_weight(int(row.micros), [rows for _, rows in keys])
            found |= dict(zip((key for key, _ in keys), micros, strict=True))
    return found
