"""What a cycle of the scheduler sees of Postgres: backlogs, pools, speeds, in a handful of reads."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from sqlalchemy import Connection, text

from pipeline.domain.endpoints import Endpoint
from pipeline.domain.ids import BatchId, TenantId
from pipeline.domain.promises import Promise
from pipeline.domain.tiers import Tier
from pipeline.ports.cycle import Backlog, FairTag, OpenShard, PoolView, Snapshot, WorkSize
from storage.offers import offers_of, read_last_words
from storage.predictions import read_ended

#: Shards a snapshot carries for each batch: enough for one cycle's packs, whatever the batch's size.
_SHARDS_A_BATCH: Final = 64
#: Work intervals that a variant's speed is measured over.
_SPEED_INTERVALS: Final = 32

_BACKLOGS = text("""
    SELECT batches.id, tenant_id, tier, endpoint, budget_micros, created_at, deadline_at, hold_until, promise,
           paused_at IS NOT NULL AS is_paused,
           coalesce((SELECT sum(amount_micros) FROM ledger WHERE batch_id = batches.id), 0) AS spent_micros,
           undone.*
      FROM batches,
      LATERAL (SELECT coalesce(sum(rows_packed - rows_succeeded - rows_errored), 0) AS rows_in_flight, min(model) AS model,
                      sum(rows_total - rows_succeeded - rows_errored) AS rows_left,
                      sum(input_tokens_estimated
                          * (1 - (rows_succeeded + rows_errored) / CAST(rows_total AS float))) AS input_tokens_left,
                      sum(output_tokens_estimated
                          * (1 - (rows_succeeded + rows_errored) / CAST(rows_total AS float))) AS output_tokens_left
                 FROM shards WHERE batch_id = batches.id AND rows_succeeded + rows_errored < rows_total) AS undone
     WHERE state = 'in_progress' AND undone.model IS NOT NULL
     ORDER BY created_at, id
""")

_OPEN_SHARDS = text("""
    -- Intake puts one model in a file, so the first shards of a batch stand for all of its backlog.
    SELECT open.* FROM unnest(CAST(:batch_ids AS text[])) AS wanted (batch_id),
      LATERAL (SELECT batch_id, id, shard_no, model, rows_total, rows_packed, input_tokens_estimated,
                      output_tokens_estimated, template
                 FROM shards WHERE shards.batch_id = wanted.batch_id AND rows_packed < rows_total
                ORDER BY shard_no LIMIT :shards_a_batch) AS open
""")

_POOLS = text("""
    -- Packs that no live worker can serve, and paused ones, do not count as waiting: they would take up the room of
    -- others.
    SELECT pool, workers, served, rate_micros_per_hour, currency, (
            SELECT count(*) FROM packs WHERE packs.pool = live.pool AND state IN ('ready', 'retryable')
               AND NOT is_convicted AND packs.variant = ANY(live.variants) AND packs.id NOT IN (SELECT id FROM paused_packs)) AS packs_waiting
      FROM (SELECT pool, count(DISTINCT workers.id) AS workers, array_agg(DISTINCT named.variant) AS variants,
                   max(rate_micros_per_hour) AS rate_micros_per_hour, min(currency) AS currency,
                   jsonb_agg(DISTINCT jsonb_build_array(named.variant, named.gate_key)) AS served
              FROM workers, jsonb_each_text(workers.variants) AS named (variant, gate_key)
             WHERE state NOT IN ('stopped', 'lost', 'draining') AND NOT must_stop
             GROUP BY pool) AS live
     ORDER BY pool
""")

_SPEEDS = text("""
    SELECT measured.variant, sum(tokens) / (sum(stop_us - start_us) / 1e6) AS tokens_per_second
      FROM unnest(CAST(:variants AS text[])) AS wanted (variant),
      LATERAL (SELECT variant, tokens, stop_us, start_us FROM worker_intervals
                WHERE kind = 'work' AND worker_intervals.variant = wanted.variant
                ORDER BY created_at DESC LIMIT :intervals) AS measured
     GROUP BY measured.variant HAVING sum(tokens) > 0
""")

_CLOCK = text("SELECT clock_timestamp() AS now, (SELECT coalesce(max(ordinal), 0) FROM packs) AS ordinal")


def read_snapshot(connection: Connection) -> Snapshot:
    """Return all batches with rows to run, the pools, and the memory of the last cycle."""
    rows = connection.execute(_BACKLOGS).all()
    # A batch whose rows are all in packs is here too: whether these wait for a worker is to be known.
    shards: dict[tuple[str, str], list[OpenShard]] = {(row.id, row.model): [] for row in rows}
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
                template=shard.template,
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
            created_at_us=_epoch_us(by_id[batch_id].created_at),
            deadline_at_us=_epoch_us(by_id[batch_id].deadline_at),
            promise=Promise(by_id[batch_id].promise),
            hold_until_us=by_id[batch_id].hold_until and _epoch_us(by_id[batch_id].hold_until),
            is_paused=by_id[batch_id].is_paused,
            left=WorkSize(
                rows=float(by_id[batch_id].rows_left),
                input_tokens=float(by_id[batch_id].input_tokens_left),
                output_tokens=float(by_id[batch_id].output_tokens_left),
            ),
            spent_micros=int(by_id[batch_id].spent_micros),
            budget_micros=by_id[batch_id].budget_micros,
            shards=tuple(opened),
            rows_in_flight=int(by_id[batch_id].rows_in_flight),
        )
        for (batch_id, model), opened in shards.items()
    )
    return _with_fleet(connection, backlogs)


def _with_fleet(connection: Connection, backlogs: tuple[Backlog, ...]) -> Snapshot:
    live = connection.execute(_POOLS).all()
    variants = sorted({variant for row in live for variant, _key in row.served})
    words = read_last_words(connection, variants) if variants else ()
    pools = tuple(
        PoolView(
            pool=row.pool,
            workers=row.workers,
            offers=offers_of([(variant, key) for variant, key in row.served], words),
            packs_waiting=row.packs_waiting,
            rate_micros_per_hour=row.rate_micros_per_hour,
            currency=row.currency,
        )
        for row in live
    )
    speeds = connection.execute(_SPEEDS, {"variants": variants, "intervals": _SPEED_INTERVALS})
    now = connection.execute(_CLOCK).one()
    memory = connection.execute(text("SELECT fair_tags FROM leadership")).scalar_one_or_none()
    return Snapshot(
        now_us=_epoch_us(now.now),
        backlogs=backlogs,
        pools=pools,
        tokens_per_second={row.variant: float(row.tokens_per_second) for row in speeds},
        virtual_seconds=now.ordinal,
        ended=read_ended(connection),
        fair_tags=tuple(FairTag(**(tag | {"path": tuple(tag["path"])})) for tag in memory or ()),
    )


def _epoch_us(at: datetime) -> int:
    return int(at.timestamp() * 1_000_000)
