"""Weeks of batches and workers, written straight into the tables."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import text

from pipeline.domain.ids import new_batch_id, new_pack_id, new_worker_id
from storage.database import Database

RATE = 3_600_000
HOUR_US = 3_600_000_000

_BATCHES = text("""
    INSERT INTO batches (id, tenant_id, project_id, state, reason, endpoint, completion_window, tier, input_file_id,
                         rows_total, rows_completed, rows_failed, created_at, deadline_at, in_progress_at, finalizing_at,
                         completed_at)
    SELECT :prefix || n, :tenant_id, :project_id, 'completed', 'all_committed', '/v1/chat/completions', '24h', :tier, 'file_0',
           1, 1, 0, at, at + interval '1 day', at, at, at
      FROM generate_series(1, cardinality(CAST(:tokens AS bigint[]))) AS n,
           LATERAL (SELECT :start + (n - 1) * interval '1 hour' + interval '10 min' AS at)
""")
_SHARDS = text("""
    INSERT INTO shards (batch_id, shard_no, model, object_key, sha256, size_bytes, rows_total, rows_packed, rows_succeeded,
                        input_tokens_estimated, output_tokens_estimated)
    SELECT :prefix || n, 0, :model, :prefix || n, '', 1, 1, 1, 1, tokens - tokens / 3, tokens / 3
      FROM unnest(CAST(:tokens AS bigint[])) WITH ORDINALITY AS hours (tokens, n)
""")
_WORKER = text("""
    INSERT INTO workers (id, pool, market, host, pid, state, variants, rate_micros_per_hour, list_rate_micros_per_hour,
                         contracted_rate_micros_per_hour, billed_rate_micros_per_hour, on_demand_rate_micros_per_hour,
                         currency, started_at, uptime_us, metered_until_us, ended_at, end_cause)
    VALUES (:worker_id, 'local', 'spot', 'h', 1, 'stopped', '{}', :rate, :rate, :rate, :rate, :rate, 'USD', :start, :life_us,
            :life_us, :stop, 'stopped')
""")
_PACKS = text("""
    INSERT INTO packs (id, pool, model, variant, endpoint, tier, state, ordinal, predicted_seconds, lease_token, ended_at,
                       settled_at)
    SELECT :prefix || n, 'local', :model, :model, '/v1/chat/completions', :tier, 'committed', n, 1, 1, now(), now()
      FROM generate_series(1, :hours) AS n
""")
_ATTEMPTS = text("""
    INSERT INTO attempts (pack_id, lease_token, outcome, ended_at, rows_asked)
    SELECT :prefix || n, 1, 'succeeded', now(), 1 FROM generate_series(1, :hours) AS n
""")
_PARTS = text("""
    INSERT INTO parts (id, batch_id, pack_id, lease_token, object_key, sha256, size_bytes, rows_succeeded, rows_errored,
                       input_tokens, output_tokens)
    SELECT :pack_prefix || 'part' || n, :prefix || n, :pack_prefix || n, 1, :pack_prefix || n, '', 1, 1, 0,
           tokens - tokens / 3, tokens / 3
      FROM unnest(CAST(:tokens AS bigint[])) WITH ORDINALITY AS hours (tokens, n)
""")
_INTERVALS = text(
    """
    INSERT INTO worker_intervals (worker_id, start_us, stop_us, kind, pack_id, lease_token, model, variant, tokens,
                                  rate_micros_per_hour, cost_micros, created_at)
    SELECT :worker_id, start_us, stop_us, kind, CASE WHEN kind = 'work' THEN :prefix || n END,
           CASE WHEN kind = 'work' THEN 1 END, :model, :model, CASE WHEN kind = 'work' THEN tokens ELSE 0 END, :rate,
           div(:rate::numeric * stop_us, 3600000000) - div(:rate::numeric * start_us, 3600000000),
           CAST(:start AS timestamptz) + stop_us * interval '1 microsecond'
      FROM unnest(CAST(:tokens AS bigint[])) WITH ORDINALITY AS hours (tokens, n),
           LATERAL (VALUES ('work', (n - 1) * 3600000000, (n - 1) * 3600000000 + 1800000000),
                           ('idle', (n - 1) * 3600000000 + 1800000000, n * 3600000000)) AS halves (kind, start_us, stop_us)
""".replace(":rate::numeric", "CAST(:rate AS numeric)")
)
_TRANSACTIONS = text("""
    INSERT INTO transactions (key, kind, category, period_start, period_stop, worker_id, start_us, pack_id, lease_token, currency)
    SELECT worker_id || start_us, 'accrual', 'compute', CAST(:start AS timestamptz) + start_us * interval '1 microsecond',
           CAST(:start AS timestamptz) + stop_us * interval '1 microsecond', worker_id, start_us, pack_id, lease_token, 'USD'
      FROM worker_intervals WHERE worker_id = :worker_id
""")
#: Tenants pay twice what it costs.
_ENTRIES = text("""
    INSERT INTO entries (transaction_id, line, account, batch_id, list_micros, contracted_micros, effective_micros, billed_micros,
                         on_demand_micros, charged_micros)
    SELECT id, line, account, batch_id, cost, cost, cost, cost, cost, charged
      FROM transactions JOIN worker_intervals AS spans USING (worker_id, start_us),
      LATERAL (SELECT :prefix || start_us / 3600000000 + 1 AS batch) AS own,
      LATERAL (VALUES (0, CASE WHEN spans.kind = 'work' THEN 'batch:' || batch ELSE 'overhead:idle' END,
                       CASE WHEN spans.kind = 'work' THEN batch END, cost_micros,
                       CASE WHEN spans.kind = 'work' THEN 2 * cost_micros ELSE 0 END),
                      (1, 'supplier:local', NULL, -cost_micros, 0),
                      (2, 'revenue:standard', NULL, 0, CASE WHEN spans.kind = 'work' THEN -2 * cost_micros ELSE 0 END))
           AS lines (line, account, batch_id, cost, charged)
     WHERE worker_id = :worker_id
""")
#: As the trigger would.
_PENDING = text("""
    INSERT INTO cost_pending (transaction_id) SELECT id FROM transactions WHERE worker_id = :worker_id
""")


def write_hours(
    database: Database,
    start: datetime,
    tokens: Sequence[int],
    *,
    tenant_id: str = "tnt_default",
    project_id: str = "proj_default",
    tier: str = "standard",
    model: str = "echo",
) -> None:
    """Write an hourly batch of so many tokens, each run by one worker in the first half of its hour; it idles then.

    Neither triggers nor foreign keys are asked: this is history, and it is consistent by construction.
    """
    batch, pack, worker = new_batch_id(), new_pack_id(), new_worker_id()
    given = {
        "prefix": f"{batch}_", "tenant_id": tenant_id, "project_id": project_id, "tier": tier, "model": model,
        "tokens": [int(each) for each in tokens], "start": start,
    }  # fmt: skip
    hours = len(tokens)
    packs = {"prefix": f"{pack}_", "hours": hours, "model": model, "tier": tier}
    life = {
        "worker_id": worker,
        "rate": RATE,
        "start": start,
        "stop": start + timedelta(hours=hours),
        "life_us": hours * HOUR_US,
    }
    with database.engine.begin() as connection:
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        for statement, arguments in (
            (_BATCHES, given),
            (_SHARDS, given),
            (_WORKER, life),
            (_PACKS, packs),
            (_ATTEMPTS, packs),
            (_PARTS, {**given, "pack_prefix": f"{pack}_"}),
            (_INTERVALS, {**given, "prefix": f"{pack}_", "worker_id": worker, "rate": RATE}),
            (_TRANSACTIONS, life),
            (_ENTRIES, {**given, "worker_id": worker}),
            (_PENDING, life),
        ):
            named = {name: value for name, value in arguments.items() if f":{name}" in statement.text}
            connection.execute(statement, named)
