"""What is stored of why one pack stands where it stands."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection, text

from pipeline.domain.errors import NotFoundError
from pipeline.domain.ids import BatchId, PackId, TenantId, WorkerId
from pipeline.domain.lifecycle import AttemptOutcome, BatchState, PackState
from pipeline.domain.tiers import Tier
from pipeline.ports.explain import AttemptFacts, PackFacts, PackLine, PackShare, Waiting

_PACK: Final = text("SELECT * FROM packs WHERE id = :pack_id")

_SHARES: Final = text("""
    SELECT slices.batch_id, batches.tenant_id, batches.state, batches.paused_at,
           sum((SELECT sum(upper(span) - lower(span)) FROM unnest(slices.rows) AS span)) AS row_count
      FROM pack_slices AS slices JOIN batches ON batches.id = slices.batch_id
     WHERE slices.pack_id = :pack_id
     GROUP BY slices.batch_id, batches.tenant_id, batches.state, batches.paused_at
     ORDER BY slices.batch_id
""")

_DONE: Final = text("""
    SELECT coalesce(sum(rows_succeeded + rows_errored), 0) FROM parts WHERE pack_id = :pack_id
""")

_ATTEMPTS: Final = text("""
    SELECT lease_token, worker_id, host, attempts.started_at, attempts.ended_at, outcome, error, rows_asked
      FROM attempts LEFT JOIN workers ON workers.id = attempts.worker_id
     WHERE pack_id = :pack_id ORDER BY lease_token
""")

_CHILDREN: Final = text("SELECT id FROM packs WHERE parent_id = :pack_id ORDER BY id")

_AHEAD: Final = text("""
    -- What no live worker serves is passed over by them all.
    SELECT count(*) AS packs, coalesce(sum(predicted_seconds), 0) AS seconds, min(created_at) AS since
      FROM packs
     WHERE pool = :pool AND state IN ('ready', 'retryable') AND NOT is_convicted
       AND (ordinal, id) < (CAST(:ordinal AS float), :pack_id) AND packs.id NOT IN (SELECT id FROM paused_packs)
       AND EXISTS (
        SELECT FROM workers WHERE workers.pool = packs.pool AND workers.state NOT IN ('stopped', 'lost', 'draining')
           AND NOT must_stop AND jsonb_exists(workers.variants, packs.variant))
""")

_LINES: Final = """
    SELECT packs.id, packs.state = 'leased' AS is_leased, host, predicted_seconds, failures + unreads AS failures,
           CASE WHEN packs.state = 'leased' THEN leased_at ELSE packs.created_at END AS since
      FROM packs LEFT JOIN workers ON workers.id = packs.lease_worker_id
     WHERE packs.state IN ('ready', 'retryable', 'leased') AND {which}
     ORDER BY packs.state <> 'leased', ordinal, packs.id LIMIT :limit
"""
_LINES_OF_POOL: Final = text(_LINES.format(which="packs.pool = :subject"))
_LINES_OF_BATCH: Final = text(
    _LINES.format(which="packs.id IN (SELECT pack_id FROM pack_slices WHERE batch_id = :subject)")
)
#: Packs that a list names.
_LINES_MAX: Final = 10


def read_lines(
    connection: Connection, *, pool: str | None = None, batch_id: BatchId | None = None
) -> tuple[PackLine, ...]:
    """Return the first packs that run or wait, of a pool or of a batch."""
    statement = _LINES_OF_BATCH if pool is None else _LINES_OF_POOL
    found = connection.execute(statement, {"subject": pool or batch_id, "limit": _LINES_MAX})
    return tuple(
        PackLine(
            pack_id=PackId(row.id),
            is_leased=row.is_leased,
            host=row.host,
            predicted_seconds=row.predicted_seconds,
            since=row.since,
            failures=row.failures,
        )
        for row in found
    )


def read_pack(connection: Connection, pack_id: PackId) -> PackFacts:
    """Return what is known of a pack, or raise `NotFoundError`."""
    own = {"pack_id": pack_id}
    row = connection.execute(_PACK, own).one_or_none()
    if row is None:
        raise NotFoundError(
            f"there is no pack {pack_id}", hint="`nightrate explain POOL` names the first that run and wait"
        )
    ahead = connection.execute(_AHEAD, {**own, "pool": row.pool, "ordinal": row.ordinal}).one()
    return PackFacts(
        pack_id=pack_id,
        pool=row.pool,
        model=row.model,
        variant=row.variant,
        tier=Tier(row.tier),
        state=PackState(row.state),
        predicted_seconds=row.predicted_seconds,
        created_at=row.created_at,
        available_at=row.available_at,
        ended_at=row.ended_at,
        lease_expires_at=row.lease_expires_at,
        worker_id=row.lease_worker_id and WorkerId(row.lease_worker_id),
        is_suspect=row.is_suspect,
        is_convicted=row.is_convicted,
        failures=row.failures,
        unreads=row.unreads,
        parent_id=row.parent_id and PackId(row.parent_id),
        children=tuple(PackId(child) for child in connection.execute(_CHILDREN, own).scalars()),
        shares=_shares(connection, pack_id),
        rows_done=int(connection.execute(_DONE, own).scalar_one()),
        attempts=_attempts(connection, pack_id),
        ahead=Waiting(packs=ahead.packs, seconds=float(ahead.seconds), since=ahead.since),
    )


def _shares(connection: Connection, pack_id: PackId) -> tuple[PackShare, ...]:
    return tuple(
        PackShare(
            batch_id=BatchId(row.batch_id),
            tenant_id=TenantId(row.tenant_id),
            rows=int(row.row_count),
            is_paused=row.paused_at is not None,
            is_live=row.state == BatchState.IN_PROGRESS,
        )
        for row in connection.execute(_SHARES, {"pack_id": pack_id})
    )


def _attempts(connection: Connection, pack_id: PackId) -> tuple[AttemptFacts, ...]:
    return tuple(
        AttemptFacts(
            lease_token=row.lease_token,
            worker_id=row.worker_id and WorkerId(row.worker_id),
            host=row.host,
            started_at=row.started_at,
            ended_at=row.ended_at,
            outcome=row.outcome and AttemptOutcome(row.outcome),
            error=row.error,
            rows_asked=row.rows_asked,
        )
        for row in connection.execute(_ATTEMPTS, {"pack_id": pack_id})
    )
