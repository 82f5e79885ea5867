"""What was used in a span of time, for advice: of all, or of what a scope sees.

Of all, costs are worked out from the metered time of workers, by the rule that bills are made by (`pipeline.domain.shares`),
and not read from the ledger: all the statements about that are here. To a scope its cost is what it was charged: what that
cost the installation is the installation's to know.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, Row, TextClause, text

from pipeline.domain.tiers import Tier
from pipeline.ports.access import Scope
from pipeline.ports.usage import BatchesUsage, PoolUsage, Usage, VariantWord, WorkUsage
from storage.database import Database
from storage.scopes import scope_arguments, scoped

#: Packs of a variant in a place, before what one in ten reached says anything.
_PACKS_MIN: Final = 20
#: A batch of so few rows fills no pack.
_TINY_ROWS_MAX: Final = 20

_SHARED: Final = """
    leases AS MATERIALIZED (
        SELECT DISTINCT pack_id, lease_token FROM batches JOIN parts ON batch_id = batches.id
         WHERE IN_SCOPE AND created_at >= :since AND created_at < :until),
    shared AS (
        -- Laterals, because each lease has its few rows by an index: joined, leases and tokens look unlike each other to
        -- the planner, and it expects one row where there are thousands.
        -- Others' batches in the same packs bear their part of the time, and are left out after it.
        SELECT leases.*, packs.model, packs.variant, workers.pool, workers.market, batch_id, tenant_id, batches.tier,
               batches.endpoint, source_file_id, retry_of, batches.created_at, deadline_at, completed_at,
               row_count, input_tokens, output_tokens, share, paid.micros AS cost_micros, busy_us * share AS busy_us
          FROM leases JOIN packs ON packs.id = leases.pack_id
         CROSS JOIN LATERAL (
               SELECT min(worker_id) AS worker_id, sum(cost_micros) AS cost_micros, sum(stop_us - start_us) AS busy_us
                 FROM worker_intervals AS spans
                WHERE spans.pack_id = leases.pack_id AND spans.lease_token = leases.lease_token) AS spent
          JOIN workers ON workers.id = spent.worker_id AND workers.currency = :currency
         CROSS JOIN LATERAL (
               SELECT *, coalesce(weight / nullif(sum(weight) OVER (), 0), row_count / nullif(sum(row_count) OVER (), 0), 1) AS share
                 FROM (SELECT batch_id, sum(rows_succeeded + rows_errored) AS row_count,
                              sum(input_tokens) AS input_tokens, sum(output_tokens) AS output_tokens,
                              sum(packs.row_picoseconds::numeric * (rows_succeeded + rows_errored)
                                  + packs.input_token_picoseconds::numeric * input_tokens
                                  + packs.output_token_picoseconds::numeric * output_tokens) AS weight
                         FROM parts WHERE parts.pack_id = leases.pack_id AND parts.lease_token = leases.lease_token
                        GROUP BY batch_id) AS done) AS parted
         CROSS JOIN LATERAL (PAID) AS paid
          JOIN batches ON batches.id = batch_id
         WHERE IN_SCOPE AND batches.created_at >= :since AND batches.created_at < :until)
"""

_COST: Final = "SELECT spent.cost_micros * share AS micros"
_CHARGE: Final = """
    SELECT coalesce(sum(charged_micros), 0) AS micros FROM transactions JOIN entries ON transaction_id = transactions.id
     WHERE transactions.pack_id = leases.pack_id AND transactions.lease_token = leases.lease_token
       AND entries.batch_id = parted.batch_id"""

_WORKS = f"""
    WITH {_SHARED},
    runs AS (
        SELECT variant, pool, market, sum(input_tokens + output_tokens) * 1000000 / sum(busy_us) AS tokens_per_second
          FROM shared GROUP BY pack_id, lease_token, variant, pool, market HAVING sum(busy_us) > 0),
    speeds AS (
        SELECT variant, pool, market, percentile_cont(0.9) WITHIN GROUP (ORDER BY tokens_per_second) AS reachable
          FROM runs GROUP BY variant, pool, market HAVING count(*) >= :packs_min)
    SELECT tier, model, variant, pool, market, count(DISTINCT pack_id) AS packs, sum(row_count) AS row_count,
           sum(input_tokens) AS input_tokens, sum(output_tokens) AS output_tokens, round(sum(busy_us)) AS busy_us,
           round(sum(cost_micros)) AS cost_micros, round(sum(slot_steps_busy * share)) AS slot_steps_busy,
           round(sum(slot_steps * share)) AS slot_steps, round(sum(tokens_prefilled * share)) AS tokens_prefilled,
           round(sum(tokens_cached * share)) AS tokens_cached, min(reachable) AS reachable
      FROM shared LEFT JOIN attempts USING (pack_id, lease_token)
      LEFT JOIN speeds USING (variant, pool, market)
     GROUP BY tier, model, variant, pool, market ORDER BY cost_micros DESC, tier, model, variant, pool, market
"""  # noqa: S608 -- nothing but the text above

#: Where the work ran, and how full packs of all tenants were, is the installation's to know.
_WORKS_OF_SCOPE = f"""
    WITH {_SHARED}
    SELECT tier, model, variant, '' AS pool, '' AS market, count(DISTINCT pack_id) AS packs,
           sum(row_count) AS row_count, sum(input_tokens) AS input_tokens, sum(output_tokens) AS output_tokens,
           round(sum(busy_us)) AS busy_us, round(sum(cost_micros)) AS cost_micros, NULL AS slot_steps_busy,
           NULL AS slot_steps, NULL AS tokens_prefilled, NULL AS tokens_cached, NULL AS reachable
      FROM shared GROUP BY tier, model, variant ORDER BY cost_micros DESC, tier, model, variant
"""  # noqa: S608 -- nothing but the text above

_BATCHES = f"""
    WITH {_SHARED},
    costs AS (
        SELECT batch_id, model, tenant_id, tier, endpoint, source_file_id, retry_of, created_at, deadline_at, completed_at,
               sum(cost_micros) AS cost_micros, sum(row_count) AS row_count, sum(input_tokens + output_tokens) AS tokens
          FROM shared WHERE completed_at IS NOT NULL
         GROUP BY batch_id, model, tenant_id, tier, endpoint, source_file_id, retry_of, created_at, deadline_at, completed_at),
    told AS (
        SELECT costs.*, extract(epoch FROM deadline_at - completed_at) / extract(epoch FROM deadline_at - costs.created_at) AS unused,
               sha256 IS NOT NULL AND retry_of IS NULL AND 1 < row_number() OVER (
                   PARTITION BY costs.tenant_id, sha256, endpoint, model ORDER BY costs.created_at, batch_id) AS is_repeated
          FROM costs LEFT JOIN files ON files.id = source_file_id)
    SELECT tier, model, count(*) AS batches, sum(tokens) AS tokens, round(sum(cost_micros)) AS cost_micros,
           100 * percentile_cont(0.1) WITHIN GROUP (ORDER BY unused) AS window_unused_percent,
           count(*) FILTER (WHERE row_count <= :tiny_rows_max) AS tiny_batches,
           coalesce(sum(tokens) FILTER (WHERE row_count <= :tiny_rows_max), 0) AS tiny_tokens,
           coalesce(round(sum(cost_micros) FILTER (WHERE row_count <= :tiny_rows_max)), 0) AS tiny_cost_micros,
           count(*) FILTER (WHERE is_repeated) AS repeated_batches,
           coalesce(round(sum(cost_micros) FILTER (WHERE is_repeated)), 0) AS repeated_cost_micros
      FROM told GROUP BY tier, model ORDER BY tier, model
"""  # noqa: S608 -- nothing but the text above

_VARIANTS = text("""
    SELECT tier, split_part(variant, '@', 1) AS model, variant, relative_cost
      FROM (SELECT DISTINCT ON (variant, tier) * FROM qualifications ORDER BY variant, tier, id DESC) AS last_words
     WHERE verdict IN ('accepted', 'allowed') AND relative_cost IS NOT NULL
       AND EXISTS (SELECT FROM variants WHERE name = variant AND removed_at IS NULL)
     ORDER BY variant, tier
""")

_POOLS = text("""
    WITH there AS (
        SELECT id, pool, market, started_at, coalesce(ended_at, :until) AS gone_at FROM workers
         WHERE started_at < :until AND coalesce(ended_at, :until) > :since AND currency = :currency),
    times AS (
        SELECT pool, market, sum(stop_us - start_us) AS life_us, sum(cost_micros) AS cost_micros,
               coalesce(sum(stop_us - start_us) FILTER (WHERE kind = 'idle'), 0) AS idle_us,
               coalesce(sum(cost_micros) FILTER (WHERE kind = 'idle'), 0) AS idle_cost_micros
          FROM there JOIN worker_intervals ON worker_id = there.id
         WHERE worker_intervals.created_at >= :since AND worker_intervals.created_at < :until
         GROUP BY pool, market),
    hours AS (
        SELECT generate_series(greatest(:since, (SELECT min(started_at) FROM there)),
                               CAST(:until AS timestamptz) - interval '1 h', interval '1 h') AS at),
    alive AS (
        SELECT pool, market, at,
               (SELECT count(*) FROM there
                 WHERE (there.pool, there.market) = (times.pool, times.market)
                   AND started_at <= at AND gone_at >= at + interval '1 h') AS workers
          FROM times CROSS JOIN hours),
    always AS (
        SELECT pool, market, count(*) AS hours, percentile_disc(0.1) WITHIN GROUP (ORDER BY workers) AS workers
          FROM alive GROUP BY pool, market)
    SELECT times.*, coalesce(hours, 0) AS hours, coalesce(workers, 0) AS workers_always_on
      FROM times LEFT JOIN always USING (pool, market) ORDER BY pool, market
""")


class UsageRepository:
    """Reads what was used; writes nothing."""

    def __init__(self, database: Database) -> None:
        """Read from `database`."""
        self._database = database

    def usage(self, scope: Scope | None, *, since: datetime, until: datetime, currency: str) -> Usage:
        """Return what batches submitted in the span cost or were charged, and with no scope what its workers did.

        Work that was paid for in another currency is left out.
        """
        span = {"since": since, "until": until, "currency": currency}

        def look(connection: Connection) -> Usage:
            works = _rows(connection, _WORKS if scope is None else _WORKS_OF_SCOPE, scope, span)
            batches = _rows(connection, _BATCHES, scope, span)
            words = connection.execute(_VARIANTS).all() if scope is None else ()
            pools = connection.execute(_POOLS, span).all() if scope is None else ()
            return Usage(
                since=since,
                until=until,
                currency=currency,
                works=tuple(map(_work, works)),
                batches=tuple(map(_batches, batches)),
                variants=tuple(map(_word, words)),
                pools=tuple(map(_pool, pools)),
            )

        return self._database.run(look, is_look=True)


def _rows(connection: Connection, statement: str, scope: Scope | None, span: dict[str, Any]) -> list[Row[Any]]:
    bounds = {"packs_min": _PACKS_MIN, "tiny_rows_max": _TINY_ROWS_MAX}
    asked = {name: value for name, value in (span | bounds).items() if f":{name}" in statement}
    return list(
        connection.execute(_statement(statement, scope), asked | ({} if scope is None else scope_arguments(scope)))
    )


def _statement(statement: str, scope: Scope | None) -> TextClause:
    if scope is None:
        return text(statement.replace("PAID", _COST).replace("IN_SCOPE", "true"))
    return scoped(statement.replace("PAID", _CHARGE))


def _work(row: Row[Any]) -> WorkUsage:
    return WorkUsage(
        tier=Tier(row.tier),
        model=row.model,
        variant=row.variant,
        pool=row.pool,
        market=row.market,
        packs=int(row.packs),
        rows=int(row.row_count),
        input_tokens=int(row.input_tokens),
        output_tokens=int(row.output_tokens),
        busy_us=int(row.busy_us),
        cost_micros=int(row.cost_micros),
        slot_steps_busy=_whole(row.slot_steps_busy),
        slot_steps=_whole(row.slot_steps),
        tokens_prefilled=_whole(row.tokens_prefilled),
        tokens_cached=_whole(row.tokens_cached),
        reachable_tokens_per_second=None if row.reachable is None else float(row.reachable),
    )


def _batches(row: Row[Any]) -> BatchesUsage:
    return BatchesUsage(
        tier=Tier(row.tier),
        model=row.model,
        batches=int(row.batches),
        tokens=int(row.tokens),
        cost_micros=int(row.cost_micros),
        window_unused_percent=None if row.window_unused_percent is None else float(row.window_unused_percent),
        tiny_batches=int(row.tiny_batches),
        tiny_tokens=int(row.tiny_tokens),
        tiny_cost_micros=int(row.tiny_cost_micros),
        repeated_batches=int(row.repeated_batches),
        repeated_cost_micros=int(row.repeated_cost_micros),
    )


def _word(row: Row[Any]) -> VariantWord:
    return VariantWord(
        tier=Tier(row.tier), model=row.model, variant=row.variant, relative_cost=float(row.relative_cost)
    )


def _pool(row: Row[Any]) -> PoolUsage:
    return PoolUsage(
        pool=row.pool,
        market=row.market,
        life_us=int(row.life_us),
        idle_us=int(row.idle_us),
        cost_micros=int(row.cost_micros),
        idle_cost_micros=int(row.idle_cost_micros),
        hours=int(row.hours),
        workers_always_on=int(row.workers_always_on),
    )


def _whole(value: object) -> int | None:
    return None if value is None else int(str(value))
