"""What a cycle of the scheduler sees of Postgres: backlogs, pools, speeds, in a handful of reads."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Final

from sqlalchemy import Connection, text

from pipeline.domain.ids import TenantId
from pipeline.ports.cycle import PRESSING_ORDINAL_MAX, FairTag, PoolView, Snapshot
from storage.backlogs import BacklogMirror, epoch_us
from storage.budgets import month_now, read_standings
from storage.predictions import read_ended
from storage.servings import read_last_words, servings_of

#: Work intervals that a variant's speed is measured over.
_SPEED_INTERVALS: Final = 32

_POOLS = text("""
    -- Packs that no live worker can serve, and paused ones, do not count as waiting: they would take up the room of
    -- others.
    SELECT pool, workers, served, rate_micros_per_hour, currency,
           (SELECT count(*) FROM packs WHERE packs.pool = live.pool AND state IN ('ready', 'retryable')
               AND ordinal < :pressing_below)
           + (SELECT count(*) FROM packs WHERE packs.pool = live.pool AND state = 'leased' AND ordinal < :pressing_below)
             AS packs_pressing, (
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

_PACKS_OF_TENANTS = text("""
    -- Of a pack of several tenants each has the part that its predicted seconds are of the pack's.
    SELECT pool, held.tenant_id, sum(coalesce(held.predicted_seconds / nullif(moving.predicted_seconds, 0), 1)) AS packs
      FROM (SELECT id, pool, predicted_seconds FROM packs WHERE state IN ('ready', 'retryable')
            UNION ALL SELECT id, pool, predicted_seconds FROM packs WHERE state = 'leased') AS moving,
      LATERAL (SELECT tenant_id, predicted_seconds FROM pack_slices JOIN batches ON batches.id = pack_slices.batch_id
                WHERE pack_id = moving.id OFFSET 0) AS held
     WHERE held.tenant_id = ANY(:tenants)
     GROUP BY pool, held.tenant_id
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


def read_snapshot(
    connection: Connection,
    mirror: BacklogMirror,
    *,
    fair_tags: tuple[FairTag, ...] | None = None,
    limited: Collection[TenantId] = (),
) -> Snapshot:
    """Return all batches with rows to run, the pools, and the memory of the last cycle, where it is not given.

    The packs of the `limited` tenants are counted.
    """
    # First: what ended after it was read is settled next time, when the backlogs have what it did.
    ended = read_ended(connection)
    backlogs = mirror.read(connection)
    month = month_now(connection)
    budgets = read_standings(connection, mirror.reserved, month)
    fleet = _read_fleet(connection, limited)
    if fair_tags is None:
        memory = connection.execute(text("SELECT fair_tags FROM leadership")).scalar_one_or_none()
        fair_tags = tuple(FairTag(**(tag | {"path": tuple(tag["path"])})) for tag in memory or ())
    return replace(fleet, backlogs=backlogs, ended=ended, fair_tags=fair_tags, budgets=budgets, month=month)


def _read_fleet(connection: Connection, limited: Collection[TenantId]) -> Snapshot:
    live = connection.execute(_POOLS, {"pressing_below": PRESSING_ORDINAL_MAX}).all()
    packs: dict[str, dict[TenantId, float]] = {}
    for row in connection.execute(_PACKS_OF_TENANTS, {"tenants": sorted(limited)}) if limited else ():
        packs.setdefault(row.pool, {})[TenantId(row.tenant_id)] = float(row.packs)
    variants = sorted({variant for row in live for variant, _key in row.served})
    words = read_last_words(connection, variants) if variants else ()
    pools = tuple(
        PoolView(
            pool=row.pool,
            workers=row.workers,
            servings=servings_of([(variant, key) for variant, key in row.served], words),
            packs_waiting=row.packs_waiting,
            rate_micros_per_hour=row.rate_micros_per_hour,
            currency=row.currency,
            packs_pressing=row.packs_pressing,
            packs_of_tenants=packs.get(row.pool, {}),
        )
        for row in live
    )
    speeds = connection.execute(_SPEEDS, {"variants": variants, "intervals": _SPEED_INTERVALS})
    now = connection.execute(_CLOCK).one()
    return Snapshot(
        now_us=epoch_us(now.now),
        backlogs=(),
        pools=pools,
        tokens_per_second={row.variant: float(row.tokens_per_second) for row in speeds},
        virtual_seconds=now.ordinal,
    )
