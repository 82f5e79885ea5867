"""A seeded month in the database: what the simulator recorded, as a journal of a million entries.

Batches, packs, machines' lives and who had what of each span are the simulation's; prices, labels and budgets are drawn. It
is posted in big statements past every trigger, so that it keeps what the database holds: spans without gap, balanced
transactions, prices that telescope.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta

from pipeline.domain.ids import PackId
from pipeline.domain.tiers import DEFAULT_WINDOWS
from scheduler.simulate.record import PackRecord
from tests.bench.machine_lives import MICROSECONDS
from tests.bench.simulated_month import Month, Simulated
from tests.services import connect

_STAGES = (
    (
        "CREATE TABLE nightrate.drawn_batches (number int, id text, tenant text, tier text, completion_window text, model text, rows int, at_us bigint,"
        " window_us bigint)"
    ),
    (
        "CREATE TABLE nightrate.drawn_packs (id text, pool text, tier text, batch_id text, predicted_seconds float8, packed_us bigint,"
        " ended_us bigint, attempts int)"
    ),
    (
        "CREATE TABLE nightrate.drawn_lives (number int, pool text, place int, started_us bigint, until_us bigint, is_over bool,"
        " is_lost bool)"
    ),
    (
        "CREATE TABLE nightrate.drawn_spans (day int, life int, start_us bigint, stop_us bigint, kind text, pack_id text,"
        " lease_token int)"
    ),
    (
        "CREATE TABLE nightrate.drawn_parts (day int, life int, start_us bigint, place int, batch_id text, from_us bigint, to_us bigint,"
        " whole_us bigint, row_count int, input_tokens bigint, output_tokens bigint)"
    ),
)
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
    SELECT id, tenant, 'proj_' || substr(tenant, 5) || '_' || :draw(number, 2) % 3, 'in_progress', '/v1/chat/completions',
           completion_window, tier, CASE WHEN number % 3 = 0 THEN 5000000 + :draw(number, 4) % 20000000 END,
           1000000 + 250000 * (:draw(number, 5) % 3),
           jsonb_build_object('team', 'team-' || :draw(number, 6) % 12, 'env', (ARRAY['prod', 'test'])[1 + :draw(number, 7) % 2]),
           'x', rows, at, at + window_us * interval '1 microsecond', at
      FROM nightrate.drawn_batches, LATERAL (SELECT CAST(:start AS timestamptz) + at_us * interval '1 microsecond' AS at) AS came
     ORDER BY number
    """,
    """
    INSERT INTO nightrate.shards (batch_id, shard_no, model, object_key, sha256, size_bytes, rows_total,
                                  input_tokens_estimated, output_tokens_estimated)
    SELECT id, 0, model, id, '', 1, rows, 1, 1 FROM nightrate.drawn_batches ORDER BY number
    """,
    """
    INSERT INTO nightrate.packs (id, pool, model, variant, endpoint, tier, state, ordinal, predicted_seconds, lease_token,
                                 created_at, ended_at)
    SELECT drawn_packs.id, pool, model, model || '@int8', '/v1/chat/completions', drawn_packs.tier,
           CASE WHEN ended_us IS NULL THEN 'retryable' ELSE 'committed' END, 1, predicted_seconds, attempts,
           CAST(:start AS timestamptz) + packed_us * interval '1 microsecond',
           CAST(:start AS timestamptz) + ended_us * interval '1 microsecond'
      FROM nightrate.drawn_packs JOIN nightrate.drawn_batches ON drawn_batches.id = batch_id
     ORDER BY drawn_packs.id
    """,
    """
    INSERT INTO nightrate.workers (id, pool, market, host, pid, state, variants, rate_micros_per_hour,
                                   list_rate_micros_per_hour, contracted_rate_micros_per_hour,
                                   billed_rate_micros_per_hour, on_demand_rate_micros_per_hour, currency, provider,
                                   instance_type, region, zone, started_at)
    SELECT 'wrk_m' || number, pool, CASE WHEN is_spot THEN 'spot' ELSE 'on_demand' END, 'h', number, 'ready', '{}',
           rate * 95 / 100, rate, rate * 97 / 100, rate * 96 / 100, CASE WHEN is_spot THEN rate * 3 ELSE rate END, 'USD', 'aws',
           'g6.' || (1 + right(pool, 1)::int) || 'xlarge', 'us-east-1', 'us-east-1' || (ARRAY['a', 'b'])[1 + place % 2],
           CAST(:start AS timestamptz) + started_us * interval '1 microsecond'
      FROM nightrate.drawn_lives,
           LATERAL (SELECT pool <> :on_demand_pool AS is_spot, 300000 + 10000 * (:draw(number, 9) % 50) AS rate) AS drawn
     ORDER BY number
    """,
    "CREATE INDEX ON nightrate.drawn_spans (day)",
    "CREATE INDEX ON nightrate.drawn_parts (day)",
)
_DAY = (
    """
    INSERT INTO nightrate.worker_intervals (worker_id, start_us, stop_us, kind, pack_id, lease_token, model, variant, tokens,
                                            rate_micros_per_hour, cost_micros, split_rule)
    SELECT workers.id, start_us, stop_us, kind, packs.id, spans.lease_token, packs.model, packs.variant, 0,
           rate_micros_per_hour,
           div(rate_micros_per_hour::numeric * stop_us, 3600000000) - div(rate_micros_per_hour::numeric * start_us, 3600000000),
           CASE WHEN packs.id IS NOT NULL THEN 'predicted_cost_v1' END
      FROM nightrate.drawn_spans AS spans JOIN nightrate.workers ON workers.id = 'wrk_m' || life
      LEFT JOIN nightrate.packs ON packs.id = spans.pack_id
     WHERE day = :day ORDER BY life, start_us
    """,
    """
    INSERT INTO nightrate.transactions (key, kind, category, period_start, period_stop, worker_id, start_us, pack_id,
                                        lease_token, method, currency)
    SELECT 'interval:' || workers.id || ':' || start_us, 'accrual', 'compute',
           started_at + start_us * interval '1 microsecond', started_at + stop_us * interval '1 microsecond',
           workers.id, start_us, pack_id, lease_token, CASE WHEN pack_id IS NOT NULL THEN 'predicted_cost_v1' END, currency
      FROM nightrate.drawn_spans JOIN nightrate.workers ON workers.id = 'wrk_m' || life
     WHERE day = :day ORDER BY started_at + start_us * interval '1 microsecond', life
    """,
    """
    INSERT INTO nightrate.entries (transaction_id, line, account, batch_id, list_micros, contracted_micros, effective_micros,
                                   billed_micros, on_demand_micros, charged_micros, row_count, input_tokens, output_tokens)
    WITH priced AS (
        SELECT transactions.id, spans.life, spans.start_us, spans.kind, workers.pool,
               div(list_rate_micros_per_hour::numeric * spans.stop_us, 3600000000) - div(list_rate_micros_per_hour::numeric * spans.start_us, 3600000000) AS list,
               div(contracted_rate_micros_per_hour::numeric * spans.stop_us, 3600000000) - div(contracted_rate_micros_per_hour::numeric * spans.start_us, 3600000000) AS contracted,
               div(rate_micros_per_hour::numeric * spans.stop_us, 3600000000) - div(rate_micros_per_hour::numeric * spans.start_us, 3600000000) AS effective,
               div(billed_rate_micros_per_hour::numeric * spans.stop_us, 3600000000) - div(billed_rate_micros_per_hour::numeric * spans.start_us, 3600000000) AS billed,
               div(on_demand_rate_micros_per_hour::numeric * spans.stop_us, 3600000000) - div(on_demand_rate_micros_per_hour::numeric * spans.start_us, 3600000000) AS on_demand
          FROM nightrate.drawn_spans AS spans JOIN nightrate.workers ON workers.id = 'wrk_m' || life
          JOIN nightrate.transactions ON transactions.worker_id = workers.id AND transactions.start_us = spans.start_us
         WHERE day = :day),
    shared AS (
        -- Parts telescope, too: together they are the span, to the micro-unit.
        SELECT id, place, batch_id, row_count, input_tokens, output_tokens,
               div(list * to_us, whole_us) - div(list * from_us, whole_us) AS list,
               div(contracted * to_us, whole_us) - div(contracted * from_us, whole_us) AS contracted,
               div(effective * to_us, whole_us) - div(effective * from_us, whole_us) AS effective,
               div(billed * to_us, whole_us) - div(billed * from_us, whole_us) AS billed,
               div(on_demand * to_us, whole_us) - div(on_demand * from_us, whole_us) AS on_demand
          FROM priced JOIN nightrate.drawn_parts AS parts ON parts.day = :day AND parts.life = priced.life AND parts.start_us = priced.start_us),
    charged AS (
        SELECT shared.*, batches.tier, div(effective * charge_multiplier_ppm, 1000000) AS charge
          FROM shared JOIN nightrate.batches ON batches.id = batch_id),
    lines AS (
        SELECT id, place, 'batch:' || batch_id AS account, batch_id, list, contracted, effective, billed, on_demand, charge,
               row_count, input_tokens, output_tokens
          FROM charged
        UNION ALL
        SELECT id, 1000, 'overhead:late', NULL, sum(list), sum(contracted), sum(effective), sum(billed), sum(on_demand), 0, 0, 0, 0
          FROM shared WHERE batch_id IS NULL GROUP BY id
        UNION ALL
        SELECT id, 1000, 'overhead:' || kind, NULL, list, contracted, effective, billed, on_demand, 0, 0, 0, 0 FROM priced WHERE kind <> 'work'
        UNION ALL
        SELECT id, 1001, 'supplier:' || pool, NULL, -list, -contracted, -effective, -billed, -on_demand, 0, 0, 0, 0 FROM priced
        UNION ALL
        SELECT id, 1002, 'revenue:' || tier, NULL, 0, 0, 0, 0, 0, -sum(charge), 0, 0, 0 FROM charged GROUP BY id, tier)
    SELECT id, row_number() OVER (PARTITION BY id ORDER BY place, account) - 1, account, batch_id, list, contracted, effective,
           billed, on_demand, charge, row_count, input_tokens, output_tokens
      FROM lines
    """,
    """
    -- What is trued up a day later: every worker's day, by some micro-units.
    WITH posted AS (
        INSERT INTO nightrate.transactions (key, kind, category, period_start, period_stop, worker_id, source, currency)
        SELECT 'settlement:wrk_m' || life || ':' || :day, 'settlement', 'compute', at, at + interval '1 day', 'wrk_m' || life,
               'spot prices', 'USD'
          FROM (SELECT DISTINCT life FROM nightrate.drawn_spans WHERE day = :day ORDER BY life) AS lived,
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
_LAST = (
    """
    UPDATE nightrate.workers SET uptime_us = until_us, heartbeat_at = started_at + until_us * interval '1 microsecond'
      FROM nightrate.drawn_lives WHERE id = 'wrk_m' || number
    """,
    """
    UPDATE nightrate.workers SET ended_at = heartbeat_at, end_cause = 'interrupted', state = CASE WHEN is_lost THEN 'lost' ELSE 'stopped' END
      FROM nightrate.drawn_lives WHERE id = 'wrk_m' || number AND is_over
    """,
    "DROP TABLE nightrate.drawn_batches, nightrate.drawn_packs, nightrate.drawn_lives, nightrate.drawn_spans, nightrate.drawn_parts",
    "VACUUM (ANALYZE)",
)


def fill(url: str, month: Month, simulated: Simulated, *, tell: Callable[[str], None] = lambda _: None) -> None:
    """Fill an empty, migrated database."""
    values = {
        "tenants": month.tenants,
        "start": f"'{datetime.combine(month.first, datetime.min.time(), UTC).isoformat()}'",
        "on_demand_pool": f"'pool-{month.pools - 1}'",
    }
    with connect(url) as connection:
        connection.execute("SET timezone TO 'UTC'")
        with connection.transaction():
            for statement in _STAGES:
                connection.execute(statement)  # type: ignore[arg-type]
            for table, rows in tables_of(simulated).items():
                with connection.cursor().copy(f"COPY nightrate.{table} FROM STDIN") as copy:  # type: ignore[arg-type]
                    for row in rows:
                        copy.write_row(row)
            for statement in _STATEMENTS:
                connection.execute(_written(statement, values, month.seed))
        connection.execute("ANALYZE")
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


def tables_of(simulated: Simulated) -> dict[str, Iterable[Sequence[object]]]:
    """Return what the simulation says, row by row."""
    return {
        "drawn_batches": _batches(simulated),
        "drawn_packs": _packs(simulated),
        "drawn_lives": (
            (number, life.pool, life.worker, life.started_us, life.until_us, life.is_over, life.is_lost)
            for number, life in enumerate(simulated.lives)
        ),
        "drawn_spans": (
            (life.day_of(span), number, span.start_us, span.stop_us, span.kind.value, span.pack_id, span.lease_token)
            for number, life in enumerate(simulated.lives)
            for span in life.spans
        ),
        "drawn_parts": _parts(simulated),
    }


def _batches(simulated: Simulated) -> Iterator[Sequence[object]]:
    for number, arrival in enumerate(simulated.arrivals):
        yield (
            number,
            arrival.batch_id,
            arrival.tenant_id,
            arrival.tier.value,
            DEFAULT_WINDOWS[arrival.tier],
            arrival.model,
            round(arrival.estimated.rows),
            round(arrival.at_seconds * MICROSECONDS),
            round(arrival.window_seconds * MICROSECONDS),
        )


def _packs(simulated: Simulated) -> Iterator[Sequence[object]]:
    # The last attempt at a pack says where it stands; one that left nobody anything to pay names no batch.
    attempts: dict[PackId, list[PackRecord]] = {}
    for pack in simulated.record.packs:
        attempts.setdefault(pack.pack_id, []).append(pack)
    for pack_id, tries in attempts.items():
        last, batch_id = tries[-1], next((batch for each in tries for _, batch, _ in each.shares), None)
        if batch_id is not None:
            yield (
                pack_id,
                last.pool,
                last.tier.value,
                batch_id,
                last.predicted_seconds,
                round(last.packed_at * MICROSECONDS),
                None if last.is_lost else round(last.to_seconds * MICROSECONDS),
                len(tries),
            )


def _parts(simulated: Simulated) -> Iterator[Sequence[object]]:
    for number, life in enumerate(simulated.lives):
        for span in life.spans:
            whole, at = sum(part.weight_us for part in span.parts), 0
            for place, part in enumerate(span.parts):
                yield (
                    life.day_of(span),
                    number,
                    span.start_us,
                    place,
                    part.batch_id,
                    at,
                    at + part.weight_us,
                    whole,
                    part.rows,
                    part.input_tokens,
                    part.output_tokens,
                )
                at += part.weight_us


def _written(statement: str, values: dict[str, object], seed: int) -> str:
    # Numbers of ours: a parameter could not stand for a function's seed, nor in all of these places.
    statement = re.sub(
        r":draw\(((?:[^()]|\([^()]*\))*), (\d+(?: \+ place)?)\)",
        lambda found: f"(hashint8extended({found[1]}, {seed * 1000} + {found[2]}) & 2147483647)",
        statement,
    )
    names = "|".join(sorted(values, key=len, reverse=True))
    return re.sub(rf"(?<!:):({names})\b", lambda found: str(values[found[1]]), statement)
