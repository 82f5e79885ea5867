"""A seeded month: tenants, batches and a journal of a million entries, posted in big statements past every trigger.

The simulator would take hours for as much; this keeps what the database holds (spans without gap, balanced transactions,
prices that telescope) and draws the rest: which batch had a span, how many rows, how many tokens.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from tests.services import connect

#: Of each hour: what spans of a worker's life are, and how often of 1,000.
_STATEMENTS = (
    """
    INSERT INTO nightrate.tenants (id, name) SELECT 'tnt_m' || n, 'Tenant ' || n FROM generate_series(0, :tenants - 1) AS n
    """,
    """
    INSERT INTO nightrate.projects (id, tenant_id, name, is_default)
    SELECT 'proj_m' || n || '_' || p, 'tnt_m' || n, 'project ' || p, p = 0
      FROM generate_series(0, :tenants - 1) AS n, generate_series(0, 2) AS p
    """,
    """
    INSERT INTO nightrate.batches (id, tenant_id, project_id, state, endpoint, completion_window, tier, budget_micros,
                                   charge_multiplier_ppm, labels, input_file_id, rows_total, created_at, deadline_at,
                                   in_progress_at)
    SELECT 'batch_m' || lpad(n::text, 6, '0'), 'tnt_m' || tenant, 'proj_m' || tenant || '_' || :draw(n, 2) % 3,
           'in_progress', '/v1/chat/completions', '24h', (ARRAY['urgent', 'standard', 'bulk', 'nightly'])[1 + n / 4 % 4],
           CASE WHEN n % 3 = 0 THEN 5000000 + :draw(n, 4) % 20000000 END, 1000000 + 250000 * (:draw(n, 5) % 3),
           jsonb_build_object('team', 'team-' || :draw(n, 6) % 12, 'env', (ARRAY['prod', 'test'])[1 + :draw(n, 7) % 2]),
           'x', 4000, at, at + interval '1 day', at
      FROM generate_series(0, :batches - 1) AS n,
           LATERAL (SELECT :draw(n, 1) % :tenants AS tenant,
                           CAST(:start AS timestamptz) + n * (interval '1 microsecond' * :month_us) / :batches AS at) AS drawn
    """,
    """
    INSERT INTO nightrate.shards (batch_id, shard_no, model, object_key, sha256, size_bytes, rows_total,
                                  input_tokens_estimated, output_tokens_estimated)
    SELECT id, 0, 'model-' || right(id, 6)::int % 4, id, '', 1, 4000, 1, 1 FROM nightrate.batches
     WHERE id LIKE 'batch_m%'
    """,
    """
    INSERT INTO nightrate.packs (id, pool, model, variant, endpoint, tier, state, ordinal, predicted_seconds, ended_at)
    SELECT 'pack_' || batches.id, 'pool-' || CAST(right(batches.id, 6) AS int) % 4, model, model || '@int8', batches.endpoint, tier, 'committed', 1, 1, created_at
      FROM nightrate.batches JOIN nightrate.shards ON batch_id = batches.id WHERE batches.id LIKE 'batch_m%'
    """,
    """
    INSERT INTO nightrate.workers (id, pool, market, host, pid, state, variants, rate_micros_per_hour,
                                   list_rate_micros_per_hour, contracted_rate_micros_per_hour,
                                   billed_rate_micros_per_hour, on_demand_rate_micros_per_hour, currency, provider,
                                   instance_type, region, zone, started_at)
    SELECT 'wrk_m' || n, 'pool-' || n % 4, CASE WHEN is_spot THEN 'spot' ELSE 'on_demand' END, 'h', n, 'ready', '{}',
           rate * 95 / 100, rate, rate * 97 / 100, rate * 96 / 100, CASE WHEN is_spot THEN rate * 3 ELSE rate END, 'USD', 'aws',
           'g6.' || (1 + n % 4) || 'xlarge', 'us-east-1', 'us-east-1' || (ARRAY['a', 'b'])[1 + n % 2], CAST(:start AS timestamptz)
      FROM generate_series(0, :workers - 1) AS n,
           LATERAL (SELECT n % 4 < 3 AS is_spot, 300000 + 10000 * (:draw(n, 9) % 50) AS rate) AS drawn
    """,
    """
    -- Spans of a day, by worker: cut at seconds that are drawn, so that they follow one another. The drawn ones have ids
    -- of their own, for all that is posted of them.
    CREATE TABLE nightrate.drawn_spans (
        worker int, number int, start_us bigint, stop_us bigint, kind text, first_batch int, second_batch int)
    """,
)
_DAY = (
    "TRUNCATE nightrate.drawn_spans",
    """
    INSERT INTO nightrate.drawn_spans
    SELECT worker, number, start_us, stop_us,
           CASE WHEN luck < 80 THEN 'work' WHEN luck < 91 THEN 'idle' WHEN luck < 95 THEN 'load'
                WHEN luck < 97 THEN 'preempted' WHEN luck < 99 THEN 'retried' ELSE 'late' END,
           -- A pool is of one kind of machine and has batches of its own: every fourth, and of these the latest.
           greatest(0, latest / 4 - :draw(seed, 22) % 7) * 4 + worker % 4,
           -- What shares a pack is of one model and one tier: the sixteenth before it, or that before.
           CASE WHEN :draw(seed, 23) % 10 < 3 AND latest > 60
                THEN (latest / 4 - :draw(seed, 22) % 7) * 4 + worker % 4 - 16 * (1 + :draw(seed, 24) % 2) END
      FROM (SELECT worker, number, worker * 100000 + number AS seed,
                   CAST(number AS bigint) * :span_us + CASE WHEN number = 0 THEN 0 ELSE :draw(worker * 100000 + number, 20) % (:span_us / 3) END
                       AS start_us,
                   CAST(number + 1 AS bigint) * :span_us + :draw(worker * 100000 + number + 1, 20) % (:span_us / 3) AS stop_us
              FROM generate_series(0, :workers - 1) AS worker,
                   generate_series(:day * :spans_a_day, (:day + 1) * :spans_a_day - 1) AS number) AS cut,
           LATERAL (SELECT :draw(seed, 21) % 100 AS luck,
                           least(:batches - 4, start_us * :batches / :month_us) AS latest) AS drawn
     ORDER BY worker, number
    """,
    """
    INSERT INTO nightrate.worker_intervals (worker_id, start_us, stop_us, kind, pack_id, lease_token, model, variant, tokens,
                                            rate_micros_per_hour, cost_micros, split_rule)
    SELECT workers.id, start_us, stop_us, kind, packs.id, CASE WHEN packs.id IS NOT NULL THEN 1 END, packs.model, packs.variant, 0,
           rate_micros_per_hour,
           div(rate_micros_per_hour::numeric * stop_us, 3600000000) - div(rate_micros_per_hour::numeric * start_us, 3600000000),
           CASE WHEN packs.id IS NOT NULL THEN 'predicted_cost_v1' END
      FROM nightrate.drawn_spans JOIN nightrate.workers ON workers.id = 'wrk_m' || worker
      LEFT JOIN nightrate.packs ON kind = 'work' AND packs.id = 'pack_batch_m' || lpad(first_batch::text, 6, '0')
     ORDER BY worker, number
    """,
    """
    INSERT INTO nightrate.transactions (key, kind, category, period_start, period_stop, worker_id, start_us, pack_id,
                                        lease_token, method, currency)
    SELECT 'interval:' || spans.worker_id || ':' || spans.start_us, 'accrual', 'compute',
           started_at + spans.start_us * interval '1 microsecond', started_at + spans.stop_us * interval '1 microsecond',
           spans.worker_id, spans.start_us, pack_id, lease_token, split_rule, currency
      FROM nightrate.drawn_spans JOIN nightrate.workers ON workers.id = 'wrk_m' || worker
      JOIN nightrate.worker_intervals AS spans ON spans.worker_id = workers.id AND spans.start_us = drawn_spans.start_us
     ORDER BY spans.start_us
    """,
    """
    INSERT INTO nightrate.entries (transaction_id, line, account, batch_id, list_micros, contracted_micros, effective_micros,
                                   billed_micros, on_demand_micros, charged_micros, row_count, input_tokens, output_tokens)
    WITH priced AS (
        SELECT transactions.id, drawn_spans.*, workers.pool,
               worker * 100000 + number AS seed,
               div(list_rate_micros_per_hour::numeric * stop_us, 3600000000) - div(list_rate_micros_per_hour::numeric * drawn_spans.start_us, 3600000000) AS list,
               div(contracted_rate_micros_per_hour::numeric * stop_us, 3600000000) - div(contracted_rate_micros_per_hour::numeric * drawn_spans.start_us, 3600000000) AS contracted,
               div(rate_micros_per_hour::numeric * stop_us, 3600000000) - div(rate_micros_per_hour::numeric * drawn_spans.start_us, 3600000000) AS effective,
               div(billed_rate_micros_per_hour::numeric * stop_us, 3600000000) - div(billed_rate_micros_per_hour::numeric * drawn_spans.start_us, 3600000000) AS billed,
               div(on_demand_rate_micros_per_hour::numeric * stop_us, 3600000000) - div(on_demand_rate_micros_per_hour::numeric * drawn_spans.start_us, 3600000000) AS on_demand
          FROM nightrate.drawn_spans JOIN nightrate.workers ON workers.id = 'wrk_m' || worker
          JOIN nightrate.transactions ON transactions.worker_id = workers.id AND transactions.start_us = drawn_spans.start_us),
    shared AS (
        -- One batch has all of it; of two, the second has two fifths, rounded down.
        SELECT id, seed, 0 AS place, first_batch AS batch,
               CASE WHEN second_batch IS NULL THEN list ELSE list - div(list * 2, 5) END AS list,
               CASE WHEN second_batch IS NULL THEN contracted ELSE contracted - div(contracted * 2, 5) END AS contracted,
               CASE WHEN second_batch IS NULL THEN effective ELSE effective - div(effective * 2, 5) END AS effective,
               CASE WHEN second_batch IS NULL THEN billed ELSE billed - div(billed * 2, 5) END AS billed,
               CASE WHEN second_batch IS NULL THEN on_demand ELSE on_demand - div(on_demand * 2, 5) END AS on_demand
          FROM priced WHERE kind = 'work'
        UNION ALL
        SELECT id, seed, 1, second_batch, div(list * 2, 5), div(contracted * 2, 5), div(effective * 2, 5), div(billed * 2, 5), div(on_demand * 2, 5)
          FROM priced WHERE kind = 'work' AND second_batch IS NOT NULL),
    charged AS (
        SELECT shared.*, batches.id AS batch_id, batches.tier, div(effective * charge_multiplier_ppm, 1000000) AS charge
          FROM shared JOIN nightrate.batches ON batches.id = 'batch_m' || lpad(batch::text, 6, '0')),
    lines AS (
        SELECT id, place, 'batch:' || batch_id AS account, batch_id, list, contracted, effective, billed, on_demand, charge,
               40 + :draw(seed, 30 + place) % 42 AS rows_had,
               (40 + :draw(seed, 30 + place) % 42) * (200 + :draw(seed, 31) % 600) AS inputs,
               (40 + :draw(seed, 30 + place) % 42) * (50 + :draw(seed, 32) % 250) AS outputs
          FROM charged
        UNION ALL
        SELECT id, 2, 'overhead:' || kind, NULL, list, contracted, effective, billed, on_demand, 0, 0, 0, 0 FROM priced WHERE kind <> 'work'
        UNION ALL
        SELECT id, 3, 'supplier:' || pool, NULL, -list, -contracted, -effective, -billed, -on_demand, 0, 0, 0, 0 FROM priced
        UNION ALL
        SELECT id, 4, 'revenue:' || tier, NULL, 0, 0, 0, 0, 0, -sum(charge), 0, 0, 0 FROM charged GROUP BY id, tier)
    SELECT id, row_number() OVER (PARTITION BY id ORDER BY place, account) - 1, account, batch_id, list, contracted, effective,
           billed, on_demand, charge, rows_had, inputs, outputs
      FROM lines
    """,
    """
    -- What is trued up a day later: every worker's day, by some micro-units.
    WITH posted AS (
        INSERT INTO nightrate.transactions (key, kind, category, period_start, period_stop, worker_id, source, currency)
        SELECT 'settlement:wrk_m' || n || ':' || :day, 'settlement', 'compute', at, at + interval '1 day', 'wrk_m' || n,
               'spot prices', 'USD'
          FROM generate_series(0, :workers - 1) AS n,
               LATERAL (SELECT CAST(:start AS timestamptz) + :day * interval '1 day' AS at) AS began
        RETURNING id, worker_id)
    INSERT INTO nightrate.entries (transaction_id, line, account, list_micros, contracted_micros, effective_micros,
                                   billed_micros, on_demand_micros, charged_micros)
    SELECT posted.id, line, CASE line WHEN 0 THEN 'overhead:rounding' ELSE 'supplier:' || pool END,
           sign * micros, sign * micros, sign * micros, sign * micros, 0, 0
      FROM posted JOIN nightrate.workers ON workers.id = worker_id,
           LATERAL (VALUES (0, 1), (1, -1)) AS lines (line, sign),
           LATERAL (SELECT :draw(posted.id, 40) % 2000 - 1000 AS micros) AS drawn
    """,
    """
    WITH posted AS (
        INSERT INTO nightrate.transactions (key, kind, category, period_start, period_stop, source, currency)
        SELECT 'storage:' || :day, 'accrual', 'storage', at, at + interval '1 day', 'a price list', 'USD'
          FROM (SELECT CAST(:start AS timestamptz) + :day * interval '1 day' AS at) AS began
        RETURNING id)
    INSERT INTO nightrate.entries (transaction_id, line, account, list_micros, contracted_micros, effective_micros,
                                   billed_micros, on_demand_micros, charged_micros)
    SELECT id, line, account, sign * 2300000, sign * 2300000, sign * 2300000, sign * 2300000, sign * 2300000, 0
      FROM posted, (VALUES (0, 'overhead:storage', 1), (1, 'supplier:s3', -1)) AS lines (line, account, sign)
    """,
)
_LAST = ("DROP TABLE nightrate.drawn_spans", "VACUUM (ANALYZE)")


@dataclass(frozen=True, kw_only=True)
class Month:
    """What to draw."""

    first: date = date(2026, 11, 1)
    days: int = 30
    tenants: int = 10
    batches: int = 5_000
    workers: int = 40
    #: A million entries in thirty days.
    spans_a_day: int = 276
    seed: int = 1


def fill(url: str, month: Month, *, tell: Callable[[str], None] = lambda _: None) -> None:
    """Fill an empty, migrated database."""
    day_us = 86_400_000_000
    values = {
        "tenants": month.tenants,
        "batches": month.batches,
        "workers": month.workers,
        "start": f"'{datetime.combine(month.first, datetime.min.time(), UTC).isoformat()}'",
        "month_us": month.days * day_us,
        "span_us": day_us // month.spans_a_day,
        "spans_a_day": month.spans_a_day,
    }
    with connect(url) as connection:
        connection.execute("SET timezone TO 'UTC'")
        with connection.transaction():
            for statement in _STATEMENTS:
                connection.execute(_written(statement, values, month.seed))
        for number in range(month.days):
            # A day a transaction: what it adds to a row of a worker is walked through again and again until it ends.
            with connection.transaction():
                for statement in _DAY:
                    connection.execute(_written(statement, {**values, "day": number}, month.seed))
            if number == 0:
                connection.execute("ANALYZE")
            tell(f"{month.first + timedelta(days=number)} is posted")
        for statement in _LAST:
            connection.execute(statement)  # type: ignore[arg-type]


def _written(statement: str, values: dict[str, object], seed: int) -> str:
    # Numbers of ours: a parameter could not stand for a function's seed, nor in all of these places.
    statement = re.sub(
        r":draw\(((?:[^()]|\([^()]*\))*), (\d+(?: \+ place)?)\)",
        lambda found: f"(hashint8extended({found[1]}, {seed * 1000} + {found[2]}) & 2147483647)",
        statement,
    )
    names = "|".join(sorted(values, key=len, reverse=True))
    return re.sub(rf"(?<!:):({names})\b", lambda found: str(values[found[1]]), statement)
