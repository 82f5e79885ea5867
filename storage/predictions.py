"""What packs took, for the cycle that has not heard of it, and what it learned from that."""

from __future__ import annotations

from typing import Final

import orjson
from sqlalchemy import Connection, text

from pipeline.domain.ids import BatchId, PackId, TenantId
from pipeline.domain.sketches import LengthSketch
from pipeline.domain.tiers import Tier
from pipeline.ports.cycle import CyclePlan, EndedPack, EndedShare, Learned, LearnedKind, WorkSize
from storage.ledger import unit_costs_of

#: Packs that one cycle settles; the others wait for the next.
_PACKS_A_CYCLE: Final = 256
#: Predictions kept, those that changed last: templates come and go.
_PREDICTIONS_MAX: Final = 10_000

_ENDED: Final = text("""
    SELECT id, pool, model, variant, tier,
           (SELECT coalesce(sum(stop_us - start_us), 0) / 1e6 FROM worker_intervals
             WHERE worker_intervals.pack_id = packs.id) AS seconds,
           state = 'committed' AND parent_id IS NULL AND lease_token = 1 AS is_clean,
           row_picoseconds, input_token_picoseconds, output_token_picoseconds
      FROM packs WHERE ended_at IS NOT NULL AND settled_at IS NULL
     ORDER BY ended_at LIMIT :limit
""")

_SHARES: Final = text("""
    SELECT work.pack_id, tenant_id, work.batch_id, template, sum(predicted_seconds) AS predicted_seconds,
           sum(rows) AS rows, sum(input_tokens) AS input_tokens, sum(output_tokens) AS output_tokens,
           sum(input_tokens_estimated * rows / CAST(shards.rows_total AS float)) AS input_estimated,
           sum(output_tokens_estimated * rows / CAST(shards.rows_total AS float)) AS output_estimated,
           array_agg(output_lengths) AS output_lengths
      FROM (SELECT pack_id, batch_id, shard_id, predicted_seconds, 0 AS rows, 0 AS input_tokens, 0 AS output_tokens,
                   CAST('{}' AS jsonb) AS output_lengths
              FROM pack_slices WHERE pack_id = ANY(:pack_ids)
            UNION ALL
            SELECT parts.pack_id, parts.batch_id, done.shard_id, 0, held.rows, done.input_tokens, done.output_tokens,
                   done.output_lengths
              FROM parts JOIN part_slices AS done ON done.part_id = parts.id,
              LATERAL (SELECT sum(upper(span) - lower(span)) AS rows FROM unnest(done.rows) AS span) AS held
             WHERE parts.pack_id = ANY(:pack_ids)) AS work
      JOIN shards ON shards.id = work.shard_id JOIN batches ON batches.id = work.batch_id
     GROUP BY work.pack_id, tenant_id, work.batch_id, template
     ORDER BY work.pack_id, work.batch_id, template
""")

_SETTLE: Final = text("UPDATE packs SET settled_at = clock_timestamp() WHERE id = ANY(:pack_ids)")

_LEARN: Final = text("""
    INSERT INTO predictions (kind, subject, detail, state) VALUES (:kind, :subject, :detail, CAST(:state AS jsonb))
    ON CONFLICT (kind, subject, detail) DO UPDATE SET state = EXCLUDED.state, updated_at = clock_timestamp()
""")

_FORGET: Final = text("""
    DELETE FROM predictions WHERE updated_at < (
        SELECT updated_at FROM predictions ORDER BY updated_at DESC OFFSET :kept LIMIT 1)
""")


def read_ended(connection: Connection) -> tuple[EndedPack, ...]:
    """Return packs that ended and that no cycle has settled, the first ones first."""
    rows = connection.execute(_ENDED, {"limit": _PACKS_A_CYCLE}).all()
    shares: dict[str, list[EndedShare]] = {row.id: [] for row in rows}
    for row in connection.execute(_SHARES, {"pack_ids": list(shares)}) if rows else ():
        count = float(row.rows)
        shares[row.pack_id].append(
            EndedShare(
                tenant_id=TenantId(row.tenant_id),
                batch_id=BatchId(row.batch_id),
                template=row.template,
                predicted_seconds=float(row.predicted_seconds),
                estimated=WorkSize(
                    rows=count, input_tokens=float(row.input_estimated), output_tokens=float(row.output_estimated)
                ),
                actual=WorkSize(
                    rows=count, input_tokens=float(row.input_tokens), output_tokens=float(row.output_tokens)
                ),
                lengths=LengthSketch.merged(row.output_lengths).as_plain(),
            )
        )
    return tuple(
        EndedPack(
            pack_id=PackId(row.id),
            pool=row.pool,
            model=row.model,
            variant=row.variant,
            tier=Tier(row.tier),
            seconds=float(row.seconds),
            is_clean=row.is_clean,
            shares=tuple(shares[row.id]),
            unit_costs=unit_costs_of(row),
        )
        for row in rows
    )


def settle(connection: Connection, plan: CyclePlan) -> None:
    """Record that the plan's packs are settled, and what was learned from them."""
    if plan.settled:
        connection.execute(_SETTLE, {"pack_ids": list(plan.settled)})
    if plan.learned:
        entries = [
            {
                "kind": learned.kind,
                "subject": learned.subject,
                "detail": learned.detail,
                "state": orjson.dumps(learned.state).decode(),
            }
            for learned in plan.learned
        ]
        connection.execute(_LEARN, entries)
        connection.execute(_FORGET, {"kept": _PREDICTIONS_MAX})


def read_predictions(connection: Connection) -> tuple[Learned, ...]:
    """Return everything that was learned and not forgotten."""
    rows = connection.execute(text("SELECT kind, subject, detail, state FROM predictions"))
    return tuple(
        Learned(kind=LearnedKind(row.kind), subject=row.subject, detail=row.detail, state=row.state) for row in rows
    )
