"""The statements every cycle, lease and heartbeat runs, on tables that have been in use for a year.

What is nearly all history must not be read to find what is live: no statement here may scan a big table
in full, each must use the index made for it, and none may touch more pages than its answer deserves.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import TextClause, text

from pipeline.ports.cost_reports import ReportKey
from storage import (
    admissions,
    allocations,
    audit,
    backlogs,
    batch_statements,
    batch_views,
    budgets,
    changes,
    cost_reports,
    cost_sums,
    costs,
    cycles,
    files,
    invoices,
    meters,
    packs,
    prices,
    pricing,
    quotas,
    recurring_statements,
    rescue,
    reservations,
    retries,
    reuse,
    settlements,
    snapshots,
    uploads,
    variants,
    webhook_deliveries,
    webhooks,
    workers,
)
from tests.services import fresh_database
from tests.storage.world import World, open_world

ROWS = 50_000
#: Slices are dear to insert, because of their exclusion constraints; the last packs have them.
SLICES = 20_000
BIG = frozenset(
    {
        "batches",
        "shards",
        "packs",
        "pack_slices",
        "attempts",
        "parts",
        "part_slices",
        "worker_intervals",
        "transactions",
        "entries",
        "firings",
        "quota_reservations",
        "files",
        "uploads",
        "upload_parts",
        "audit_log",
        "webhook_events",
        "webhook_deliveries",
        "prices",
        "price_refreshes",
        "charges_by_month",
    }
)
#: Pages of 8 KiB that a statement for one thing may touch; a scan of the smallest big table is several hundred.
PAGES_MAX = 100

#: Batch n has shard n, pack n, part n, interval n, transaction n and its entries. The live ones are the last.
SEED = (
    # Neither triggers nor foreign keys: this is history, and it is consistent by construction.
    "SET LOCAL session_replication_role = replica",
    """
    INSERT INTO files (id, tenant_id, project_id, purpose, filename, size_bytes, sha256, object_key)
    VALUES ('file_0', 'tnt_default', 'proj_default', 'batch', 'x', 1, repeat('0', 64), 'file_0')
    """,
    """
    INSERT INTO files (id, tenant_id, project_id, purpose, filename, size_bytes, sha256, object_key, created_at, expires_at,
                       deleted_at, removed_at)
    SELECT 'file_' || lpad(n::text, 9, '0'), 'tnt_default', 'proj_default', 'batch', 'x', 1, repeat('0', 64), 'f' || n, at,
           CASE WHEN n > :rows - 10 THEN at ELSE at + interval '10 years' END,
           CASE WHEN n < :rows - 20 THEN at END, CASE WHEN n < :rows - 40 THEN at END
      FROM generate_series(1, :rows) AS n, LATERAL (SELECT now() - (:rows - n + 12) * interval '10 min' AS at)
    """,
    """
    INSERT INTO uploads (id, tenant_id, project_id, status, purpose, filename, mime_type, size_bytes, created_at, expires_at,
                         ended_at, cleared_at)
    SELECT 'upload_' || lpad(n::text, 9, '0'), 'tnt_default', 'proj_default',
           CASE WHEN n < :rows - 20 THEN 'cancelled' ELSE 'pending' END, 'batch', 'x', 'x', 1, at, at + interval '1 day',
           CASE WHEN n < :rows - 20 THEN at END, CASE WHEN n < :rows - 40 THEN at END
      FROM generate_series(1, :rows) AS n, LATERAL (SELECT now() - (:rows - n + 12) * interval '10 min' AS at)
    """,
    """
    INSERT INTO upload_parts (id, upload_id, object_key, size_bytes, sha256)
    SELECT 'upart_' || n, 'upload_' || lpad(n::text, 9, '0'), 'p' || n, 1, repeat('0', 64)
      FROM generate_series(1, :rows) AS n
    """,
    """
    INSERT INTO workers (id, pool, market, host, pid, state, variants, rate_micros_per_hour, list_rate_micros_per_hour,
                         contracted_rate_micros_per_hour, billed_rate_micros_per_hour, on_demand_rate_micros_per_hour,
                         currency, ended_at, end_cause)
    SELECT 'wrk_' || n, 'local', 'spot', 'h', 1, CASE WHEN n < 10 THEN 'ready' ELSE 'lost' END,
           '{"echo": ""}', 0, 0, 0, 0, 0, 'USD', CASE WHEN n < 10 THEN NULL ELSE now() END,
           CASE WHEN n < 10 THEN NULL ELSE 'lost' END
      FROM generate_series(0, 999) AS n
    """,
    """
    INSERT INTO batches (id, tenant_id, project_id, state, reason, endpoint, completion_window, tier, idempotency_key,
                         input_file_id, errors, rows_total, rows_completed, rows_failed, budget_micros, created_at,
                         deadline_at, in_progress_at, finalizing_at, completed_at, failed_at, expired_at, cancelling_at,
                         cancelled_at)
    SELECT 'batch_' || lpad(n::text, 9, '0'), 'tnt_default', 'proj_default', state, 'all_committed', '/v1/chat/completions', '24h',
           'standard', 'key_' || n, 'file_0', '[]', 10, 10, 0, CASE WHEN n % 2 = 0 THEN 1000 END,
           at, at + interval '1 day', at, at, at, at, at, at, at
      FROM generate_series(1, :rows) AS n,
           LATERAL (SELECT now() - (:rows - n) * interval '10 min' AS at,
                           CASE WHEN n > :rows - 10 THEN 'validating'
                                WHEN n > :rows - 90 THEN 'in_progress'
                                WHEN n > :rows - 95 THEN 'cancelling'
                                WHEN n > :rows - 100 THEN 'finalizing'
                                WHEN n % 20 = 0 THEN 'cancelled'
                                WHEN n % 33 = 0 THEN 'expired'
                                WHEN n % 50 = 0 THEN 'failed'
                                ELSE 'completed' END AS state) AS story
    """,
    """
    INSERT INTO quota_reservations (batch_id, tenant_id, month, model, rows, tokens, rows_reserved, tokens_reserved, settled_at)
    SELECT id, tenant_id, date_trunc('month', created_at), 'echo', 10, 20, 10, 20,
           CASE WHEN state NOT IN ('in_progress', 'finalizing', 'cancelling') THEN now() END
      FROM batches WHERE state <> 'validating'
    """,
    """
    INSERT INTO shards (batch_id, shard_no, model, object_key, sha256, size_bytes, rows_total, rows_packed,
                        rows_succeeded, input_tokens_estimated, output_tokens_estimated)
    SELECT id, 0, CASE WHEN id < 'batch_000025000' THEN 'chat' ELSE 'echo' END, id, '', 1, 10,
           -- Rows of cancelled and expired batches stay in no pack for ever.
           CASE WHEN state IN ('completed', 'finalizing') THEN 10 WHEN state = 'validating' THEN 0 ELSE 5 END,
           CASE WHEN state IN ('completed', 'finalizing') THEN 10 WHEN state = 'validating' THEN 0 ELSE 2 END, 1, 1
      FROM batches ORDER BY id
    """,
    """
    INSERT INTO packs (id, pool, model, variant, endpoint, tier, state, ordinal, predicted_seconds, lease_token, hinted_at,
                       lease_worker_id, lease_expires_at, is_convicted, ended_at, settled_at)
    SELECT 'pack_' || lpad(n::text, 9, '0'), CASE WHEN n % 3 = 0 THEN 'cheap' ELSE 'local' END, 'echo', 'echo',
           '/v1/chat/completions', 'standard', state, n, 1, 1, CASE WHEN n % 2 = 0 THEN now() END,
           CASE WHEN state = 'leased' THEN 'wrk_' || n % 10 END, CASE WHEN state = 'leased' THEN now() END,
           state = 'ready' AND n % 40 = 0, CASE WHEN state IN ('committed', 'discarded') THEN now() END,
           CASE WHEN state IN ('committed', 'discarded') AND n < :rows - 150 THEN now() END
      FROM generate_series(1, :rows) AS n,
           LATERAL (SELECT CASE WHEN n > :rows - 80 THEN 'ready' WHEN n > :rows - 100 THEN 'leased'
                                WHEN n % 20 = 0 THEN 'discarded' ELSE 'committed' END AS state) AS story
    """,
    """
    INSERT INTO pack_slices (pack_id, batch_id, shard_id, rows, reserved_micros)
    SELECT 'pack_' || lpad(n::text, 9, '0'), 'batch_' || lpad(n::text, 9, '0'), n, '{[0,5)}', 100
      FROM generate_series(:rows - :slices + 1, :rows) AS n
    """,
    """
    INSERT INTO attempts (pack_id, lease_token, outcome, ended_at, rows_asked)
    SELECT id, 1, CASE WHEN state <> 'leased' THEN 'succeeded' END, CASE WHEN state <> 'leased' THEN now() END, 5
      FROM packs
    """,
    """
    INSERT INTO parts (id, batch_id, pack_id, lease_token, object_key, sha256, size_bytes, rows_succeeded,
                       rows_errored, input_tokens, output_tokens)
    SELECT 'part_' || n, 'batch_' || lpad(n::text, 9, '0'), 'pack_' || lpad(n::text, 9, '0'), 1, 'p' || n, '', 1, 2, 0,
           1, 1
      FROM generate_series(1, :rows) AS n
    """,
    """
    INSERT INTO part_slices (part_id, shard_id, rows)
    SELECT 'part_' || n, n, '{[0,2)}' FROM generate_series(:rows - :slices + 1, :rows) AS n
    """,
    """
    INSERT INTO worker_intervals (worker_id, start_us, stop_us, kind, pack_id, model, variant, tokens, rate_micros_per_hour,
                                  cost_micros, created_at)
    SELECT 'wrk_' || n % 1000, n, n + 1, CASE WHEN n % 3 = 0 THEN 'idle' ELSE 'work' END,
           CASE WHEN n % 3 = 0 THEN NULL ELSE 'pack_' || lpad(n::text, 9, '0') END,
           CASE WHEN n % 2 = 0 THEN 'echo' ELSE 'chat' END, CASE WHEN n % 2 = 0 THEN 'echo' ELSE 'chat' END, 10, 0, 0, now() - (:rows - n) * interval '10 min'
      FROM generate_series(1, :rows) AS n
    """,
    """
    INSERT INTO transactions (key, kind, category, period_start, period_stop, worker_id, start_us, pack_id, currency)
    SELECT 'interval:' || worker_id || ':' || start_us, 'accrual', 'compute', created_at, created_at, worker_id, start_us,
           pack_id, 'USD'
      FROM worker_intervals ORDER BY start_us
    """,
    """
    INSERT INTO entries (transaction_id, line, account, batch_id, list_micros, contracted_micros, effective_micros,
                         billed_micros, on_demand_micros, charged_micros)
    SELECT id, line, account, CASE WHEN account LIKE 'batch:%' THEN substr(account, 7) END, 0, 0, 0, 0, 0, 0
      FROM transactions,
      LATERAL (VALUES (0, coalesce('batch:batch_' || substr(pack_id, 6), 'overhead:idle')), (1, 'supplier:local'))
           AS lines (line, account)
    """,
    "INSERT INTO cost_pending SELECT id FROM transactions ORDER BY id DESC LIMIT 100",
    """
    INSERT INTO recurring (id, tenant_id, name, cron, zone, input_template, tier, completion_window, overlap, catch_up,
                           catch_up_max, next_at)
    SELECT 'rec_' || n, 'tnt_default', 'r' || n, '* * * * *', 'UTC', '/in', 'standard', '24h', 'queue', 'last', 10, now()
      FROM generate_series(0, 9) AS n
    """,
    """
    INSERT INTO firings (recurring_id, scheduled_at, outcome, batch_id, output_path, delivered_at)
    SELECT 'rec_' || n % 10, now() - (:rows - n) * interval '1 min', CASE WHEN is_open THEN NULL ELSE 'submitted' END,
           CASE WHEN NOT is_open THEN 'batch_' || lpad(n::text, 9, '0') END, CASE WHEN NOT is_open THEN '/out/' || n END,
           CASE WHEN n < :rows - 120 THEN now() END
      FROM generate_series(1, :rows) AS n, LATERAL (SELECT n > :rows - 5 AS is_open) AS story
    """,
    """
    INSERT INTO audit_log (id, at, tenant_id, project_id, actor, action, object_id, details)
    SELECT 'audit_' || n, now() - (:rows - n) * interval '1 min', 'tnt_' || n % 2,
           CASE WHEN n % 1000 = 0 THEN 'proj_few' ELSE 'proj_many' END, 'cli', 'file.created', 'file_' || n, '{}'
      FROM generate_series(1, :rows) AS n
    """,
    """
    INSERT INTO webhooks (id, tenant_id, url, description, event_types, secret)
    SELECT 'whk_' || n, 'tnt_default', 'https://h.example/', '', ARRAY['batch.completed', 'batch.progress'], 's'
      FROM generate_series(0, 99) AS n
    """,
    """
    INSERT INTO webhook_events (id, tenant_id, project_id, type, batch_id, step, data, created_at)
    SELECT 'evt_' || lpad(n::text, 9, '0'), 'tnt_default', 'proj_default',
           CASE WHEN is_step THEN 'batch.progress' ELSE 'batch.completed' END, 'batch_' || lpad(n::text, 9, '0'),
           CASE WHEN is_step THEN 25 END, '{}', now() - (:rows - n) * interval '50 s'
      FROM generate_series(1, :rows) AS n, LATERAL (SELECT n % 2 = 0 AS is_step) AS story
    """,
    """
    INSERT INTO webhook_deliveries (webhook_id, event_id, tries, next_at, delivered_at, gave_up_at)
    SELECT 'whk_' || n % 100, 'evt_' || lpad(n::text, 9, '0'), 1, now(),
           CASE WHEN n < :rows - 200 AND n % 50 <> 0 THEN now() END,
           CASE WHEN n < :rows - 200 AND n % 50 = 0 THEN now() END
      FROM generate_series(1, :rows) AS n
    """,
    """
    INSERT INTO prices (provider, name, unit, market, region, zone, currency, source, effective_at, revision,
                        unit_price_picos, as_of, origin)
    SELECT 'aws', 'type_' || n % 500, 'hour', 'spot', 'us-east-1', 'use1-az' || n % 4, 'USD', 'refreshed',
           now() - (:rows - n) * interval '1 min', 0, n, now(), 'EC2 spot price history'
      FROM generate_series(1, :rows) AS n
    """,
    """
    INSERT INTO price_refreshes (provider, name, market, region, asked_at, prices)
    SELECT 'aws', 'type_' || n % 500, 'spot', 'us-east-1', now() - (:rows - n) * interval '1 min', 1
      FROM generate_series(1, :rows) AS n
    """,
    """
    INSERT INTO budgets (id, tenant_id, period, amount_micros, alert_shares_ppm, core_tiers, core_share_ppm)
    SELECT 'bud_' || n, 'tnt_' || n, 'month', 1000, '{}', '{}', 900000 FROM generate_series(0, 9) AS n
    """,
    # A year of five hundred tenants.
    """
    INSERT INTO charges_by_month (tenant_id, month, project_id, slot, charged_micros)
    SELECT 'tnt_' || n % 500, CAST(date_trunc('month', now() - n / 4000 * interval '1 month') AS date), 'proj_' || n % 500,
           n / 500 % 8, 100
      FROM generate_series(0, :rows - 2001) AS n
    """,
)

LIVE = f"batch_{ROWS - 50:09d}"
LIVE_PACK = f"pack_{ROWS - 50:09d}"
LEASED_PACK = f"pack_{ROWS - 90:09d}"
MINUTE = timedelta(minutes=1)
NOW = datetime(2100, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Case:
    name: str
    statement: TextClause
    indexes: frozenset[str]
    #: More for statements that touch everything that is live, or a page of a list.
    pages_max: int
    arguments: Mapping[str, object]


def case(name: str, statement: TextClause, indexes: str, pages_max: int = PAGES_MAX, **arguments: object) -> Case:
    return Case(name, statement, frozenset(indexes.split()), pages_max, arguments)


CASES = (
    case("lease", packs._NEXT, "ix_packs_waiting", pool="local", variants=["echo"]),
    case(
        "lease of what is loaded",
        packs._NEXT_WARM,
        "ix_packs_waiting",
        pool="local",
        variants=["echo", "chat"],
        warm=["echo"],
        window_seconds=30.0,
    ),
    case("lease of a convicted pack", packs._NEXT_CONVICTED, "ix_packs_convicted"),
    case("batches of a lease", packs._HOLD_BATCHES, "ix_pack_slices_pack_id pk_batches", pack_id=LIVE_PACK),
    case(
        "rows left",
        packs._ROWS_LEFT,
        "ix_pack_slices_pack_id pk_shards ex_part_slices_one_result_a_row",
        pack_id=LIVE_PACK,
    ),
    # All of one worker's life, of fifty intervals here; of an hour, six.
    case(
        "entries of a worker",
        settlements.POSTED,
        "uq_transactions_worker_id_start_us pk_entries",
        1000,
        worker_id="wrk_3",
        until_us=2**62,
    ),
    case(
        "spans of a worker",
        settlements.SPANS,
        "uq_transactions_worker_id_start_us|pk_worker_intervals pk_entries",
        1000,
        worker_id="wrk_3",
        from_us=0,
        until_us=2**62,
    ),
    case("settlements of a worker", settlements._NUMBER, "uq_transactions_worker_id_start_us", worker_id="wrk_3"),
    case(
        "an hour of a pool",
        allocations.HELD,
        "ix_transactions_period_start pk_entries",
        pool="local",
        hour=datetime.now(UTC) - timedelta(days=30),
        next_hour=datetime.now(UTC) - timedelta(days=30) + timedelta(hours=1),
    ),
    case(
        "allocations of an hour",
        allocations._NUMBER,
        "ix_transactions_period_start",
        pool="local",
        hour=datetime.now(UTC) - timedelta(days=30),
    ),
    case(
        "adjustments of a month",
        invoices.ADJUSTED,
        "ix_transactions_adjustments",
        start=datetime.now(UTC) - timedelta(days=30),
        stop=NOW,
    ),
    case(
        "adjustments that came in between",
        invoices.FOREIGN,
        "ix_transactions_adjustments",
        start=datetime.now(UTC) - timedelta(days=30),
        stop=NOW,
        after=0,
        keys=["bill:1"],
    ),
    case("what an attempt had", reuse.WORKED, "ix_transactions_pack_id", pack_id=LIVE_PACK, lease_token=1),
    case("expired leases", rescue._EXPIRED, "ix_packs_leased"),
    case("leases of a silent worker", rescue._HELD, "ix_packs_lease_worker", worker_id="wrk_3"),
    case(
        "renewal",
        workers._RENEW,
        "pk_packs",
        lease_for=MINUTE,
        pack_ids=[LEASED_PACK],
        tokens=[1],
        worker_id="wrk_3",
    ),
    case("withdrawn batches", workers._WITHDRAWN, "ix_pack_slices_pack_id pk_batches", pack_ids=[LEASED_PACK]),
    case("due hints", cycles._DUE_HINTS, "ix_packs_waiting", 1000, again_after=MINUTE),
    case("stranded packs", cycles._REROUTE, "ix_packs_waiting", 1500),
    case("packs of a variant", variants._RETURN, "ix_packs_waiting", 1500, variant="echo@int8", tiers=["bulk"]),
    case("withdrawn packs", cycles._DISCARD_WITHDRAWN, "ix_packs_waiting ix_pack_slices_pack_id", 1500),
    # The planner is free to read the whole index of undone shards, as for the backlogs below.
    case("advance", cycles._ADVANCE_ALL, "ix_batches_live|ix_batches_live_of_tenant ix_shards_undone", 1000, epoch=1),
    case(
        "advance of some",
        cycles._ADVANCE_SOME,
        "ix_batches_live|ix_batches_live_of_tenant ix_shards_undone",
        1000,
        epoch=1,
        batch_ids=[LIVE],
    ),
    case("promises", admissions._PROMISE, "pk_batches", 200, batch_ids=[LIVE], promises=["made"]),
    case("refusals", admissions._REFUSE, "pk_batches", 200, batch_ids=[LIVE], errors=["[]"], epoch=1),
    case("standings", cycles._STAND, "pk_batches", 200, batch_ids=[LIVE], reasons=["running"], epoch=1),
    case(
        "backlogs",
        backlogs._ALL,
        "ix_batches_live|ix_batches_live_of_tenant ix_shards_undone ix_entries_batch_id",
        1000,
    ),
    case(
        "backlogs of some",
        backlogs._SOME,
        "pk_batches ix_shards_undone ix_entries_batch_id",
        batch_ids=[LIVE],
    ),
    case("changed batches", changes._CHANGED, "ix_batches_changed_by", since=2**62),
    case("batches that move", changes._MOVING, "ix_packs_waiting ix_packs_leased ix_packs_unsettled", 1500),
    case(
        "reservations",
        reservations.RESERVED,
        "ix_packs_waiting ix_packs_leased ix_pack_slices_pack_id ix_transactions_pack_id pk_entries|ix_entries_batch_id",
        3000,
        tenant_id=None,
    ),
    case(
        "what a pack has reserved",
        packs._STILL_RESERVED,
        "ix_pack_slices_pack_id ix_transactions_pack_id pk_entries|ix_entries_batch_id",
        pack_id=LEASED_PACK,
    ),
    case(
        "budgets where they stand",
        budgets.STANDINGS,
        "pk_charges_by_month",
        200,
        month=datetime.now(UTC).date().replace(day=1),
        tenant_id=None,
        project_id=None,
        budget_id=None,
    ),
    case("the price of a batch", pricing._BATCH, "pk_batches uq_shards_batch_id_shard_no", batch_id=LIVE),
    case("what of the fleet is free", pricing.FREE_SHARE, "ix_packs_lease_worker|ix_packs_leased", 200),
    case("open shards", backlogs._OPEN_SHARDS, "ix_shards_unpacked", batch_ids=[LIVE], shards_a_batch=64),
    case("pools", snapshots._POOLS, "ix_packs_waiting", 1500, pressing_below=-1e9),
    case(
        "packs of tenants",
        snapshots._PACKS_OF_TENANTS,
        "ix_packs_waiting ix_packs_leased ix_pack_slices_pack_id",
        1500,
        tenants=["tnt_default"],
    ),
    case("speeds", snapshots._SPEEDS, "ix_worker_intervals_speed", variants=["echo", "chat"], intervals=32),
    case("highest ordinal", snapshots._CLOCK, "ix_packs_ordinal"),
    case(
        "claim",
        batch_statements.CLAIM,
        "ix_batches_live",
        states=["finalizing", "cancelling"],
        batch_id=None,
        claim_for=MINUTE,
    ),
    case("one batch", batch_views.ONE, "pk_batches ix_parts_batch_id ix_entries_batch_id", batch_id=LIVE),
    case("listing", batch_views.NEWEST, "ix_batches_listing ix_parts_batch_id ix_entries_batch_id", 400, limit=20),
    case(
        "listing by state",
        batch_views.NEWEST_IN,
        "ix_batches_listing_by_state",
        400,
        limit=20,
        states=["cancelling", "completed"],
    ),
    case(
        "a tenant's listing by state",
        batch_views.PAGE_IN,
        "ix_batches_of_tenant_by_state",
        400,
        limit=20,
        after=None,
        tenant_id="tnt_default",
        project_id=None,
        states=["cancelling", "completed"],
    ),
    case("a file to delete", files._DELETE, "", file_id="file_0", tenant_id="tnt_default", project_id=None),
    case(
        "a retry made before",
        retries.MADE,
        "uq_batches_tenant_id_idempotency_key",
        tenant_id="tnt_default",
        idempotency_key="key_7",
    ),
    case("a batch's bill", costs._BATCH_COST, "ix_entries_batch_id", batch_id=LIVE),
    case("what is to be summed up", cost_sums._SUM_UP, "pk_cost_pending pk_transactions pk_entries", 5000, limit=50),
    case(
        "a report with a hundred transactions pending",
        cost_reports._REPORTS[ReportKey.TENANT],
        "pk_transactions pk_entries",
        5000,
        first=date(2020, 1, 1),
        until=date(2100, 1, 1),
        tenant_id=None,
    ),
    case("recurring batches that are due", recurring_statements.DUE, "ix_firings_open", now=NOW, limit=100),
    case("open firings", recurring_statements.OPEN, "ix_firings_open uq_firings_batch_id", 1000, now=NOW, limit=100),
    case(
        "undelivered results",
        recurring_statements.UNDELIVERED,
        "ix_firings_undelivered pk_batches",
        1000,
        now=NOW,
        tries_max=12,
        limit=100,
    ),
    case("a history", recurring_statements.HISTORY, "pk_firings pk_batches", id="rec_3", limit=20),
    case("batches of a tenant that are live", quotas.LIVE, "ix_batches_live_of_tenant", tenant_id="tnt_default"),
    case(
        "what is used in a month",
        quotas.USED_IN_MONTH,
        "ix_quota_reservations_month",
        tenant_id="tnt_default",
        month=(datetime.now(UTC) - timedelta(days=40)).date().replace(day=1),
    ),
    case(
        "what a model has enqueued",
        quotas.ENQUEUED,
        "ix_quota_reservations_open",
        tenant_id="tnt_default",
        model="echo",
    ),
    case("what is enqueued", quotas.ENQUEUED_BY_MODEL, "ix_quota_reservations_open", tenant_id="tnt_default"),
    case("files that run out", files.EXPIRE, "ix_files_expiring ix_batches_source_file_id", 400),
    case("objects to remove", files.REMOVABLE, "ix_files_removable", 300, grace=timedelta(hours=1), limit=50),
    case("uploads that run out", uploads.EXPIRE, "ix_uploads_expiring", 300),
    case("uploads to clear", uploads.CLEARABLE, "ix_uploads_clearable", grace=timedelta(hours=1), limit=10),
    case("an upload's parts", uploads.SUMS, "ix_upload_parts_upload_id", upload_id="upload_000049990"),
    case(
        "a page of the audit log",
        audit.PAGE,
        "ix_audit_log_listing",
        tenant_id="tnt_0",
        after=None,
        after_at=None,
        limit=21,
    ),
    case(
        "a page of a project's audit log",
        audit.PAGE_OF_PROJECT,
        "ix_audit_log_of_project",
        tenant_id="tnt_0",
        project_id="proj_few",
        after="audit_9",
        after_at=NOW,
        limit=21,
    ),
    case(
        "webhooks that are due",
        webhook_deliveries.CLAIM,
        "ix_webhook_deliveries_due pk_webhook_events",
        1500,
        now=NOW,
        limit=16,
        busy_ids=["whk_3"],
        busy_counts=[2],
        each_max=4,
        claim_for=MINUTE,
    ),
    case(
        "a webhook's outcome",
        webhook_deliveries.RECORD,
        "ix_webhook_deliveries_event_id",
        webhook_id="whk_99",
        event_id=f"evt_{ROWS - 1:09d}",
        claim_token=0,
        tries=1,
        at=NOW,
        status=500,
        error="x",
        next_at=NOW,
    ),
    case(
        "progress that webhooks want",
        webhook_deliveries.PROGRESS,
        "ix_batches_live|ix_batches_of_tenant_by_state|ix_batches_live_of_tenant uq_shards_batch_id_shard_no uq_webhook_events_step",
        3000,
        steps=[25, 50, 75],
    ),
    case(
        "events told long ago",
        webhook_deliveries.SWEEP,
        "ix_webhook_events_created_at",
        5000,
        kept_for=timedelta(days=25),
        limit=200,
    ),
    case(
        "deliveries of a webhook",
        webhooks.PAGE_OF_DELIVERIES,
        "pk_webhook_deliveries pk_webhook_events",
        400,
        webhook_id="whk_3",
        after=f"evt_{ROWS // 2:09d}",
        limit=20,
    ),
    case(
        "prices in force",
        prices.IN_FORCE,
        "uq_prices_word",
        400,
        names=["type_3"],
        start=datetime.now(UTC) - timedelta(days=3),
        stop=NOW,
    ),
    case("when prices were asked", prices.LAST_ASKED, "ix_price_refreshes_last", names=["type_3", "type_4"]),
    case("a batch's meters", meters._OF_BATCH, "ix_parts_batch_id ix_parts_pack_id pk_attempts", batch_id=LIVE),
)


@pytest.fixture(scope="module")
def seasoned(template_url: str) -> Iterator[World]:
    with fresh_database(template_url) as url, open_world(url) as world:
        with world.database.transaction() as connection:
            for statement in SEED:
                counts = {
                    name: count for name, count in (("rows", ROWS), ("slices", SLICES)) if f":{name}" in statement
                }
                connection.execute(text(statement), counts)
        with world.database.engine.connect() as connection:
            alone = connection.execution_options(isolation_level="AUTOCOMMIT")
            # 300 rows a unit: every row is looked at, so that no plan hangs on the luck of a sample.
            alone.execute(text("SET default_statistics_target = 1000"))
            alone.execute(text("VACUUM (ANALYZE)"))
        yield world


def nodes(plan: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield plan
    children: Sequence[Mapping[str, Any]] = plan.get("Plans", ())
    for child in children:
        yield from nodes(child)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_what_is_live_is_found_without_reading_the_history(seasoned: World, case: Case) -> None:
    explain = text(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {case.statement.text}")
    with seasoned.database.engine.connect() as connection:
        (found,) = connection.execute(explain, case.arguments).scalar_one()
        connection.rollback()

    plan = list(nodes(found["Plan"]))
    pages = plan[0]["Shared Hit Blocks"] + plan[0]["Shared Read Blocks"]
    assert [
        node["Relation Name"] for node in plan if node["Node Type"] == "Seq Scan" and node["Relation Name"] in BIG
    ] == []
    used = {node["Index Name"] for node in plan if "Index Name" in node}
    # Where two are as good the planner is free to choose.
    assert [each for each in case.indexes if not used & set(each.split("|"))] == []
    assert pages < case.pages_max
