"""Create the tables of the main job."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    # btree_gist lets one exclusion constraint compare a shard id and a multirange of its rows.
    op.execute("CREATE EXTENSION IF NOT EXISTS btree_gist WITH SCHEMA public")
    op.create_table(
        "leadership",
        sa.Column("singleton", sa.Boolean(), server_default="true", nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("holder", sa.String(), nullable=False),
        sa.Column("elected_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("fair_tags", postgresql.JSONB(astext_type=sa.Text()), server_default="[]", nullable=False),
        sa.CheckConstraint("singleton", name=op.f("ck_leadership_one_row")),
        sa.PrimaryKeyConstraint("singleton", name=op.f("pk_leadership")),
        schema="nightrate",
    )
    op.create_table(
        "rates",
        sa.Column("pool", sa.String(), nullable=False),
        sa.Column("market", sa.String(), nullable=False),
        sa.Column("effective_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("rate_micros_per_hour", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.String(), nullable=False),
        sa.CheckConstraint("market IN ('spot', 'on_demand')", name=op.f("ck_rates_market")),
        sa.CheckConstraint("rate_micros_per_hour >= 0", name=op.f("ck_rates_rate")),
        sa.PrimaryKeyConstraint("pool", "market", "effective_at", name=op.f("pk_rates")),
        schema="nightrate",
    )
    op.create_table(
        "tenants",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tenants")),
        schema="nightrate",
    )
    op.create_table(
        "workers",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("pool", sa.String(), nullable=False),
        sa.Column("market", sa.String(), nullable=False),
        sa.Column("host", sa.String(), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("models", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("rate_micros_per_hour", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.String(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("heartbeat_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("uptime_us", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("metered_until_us", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("must_stop", sa.Boolean(), server_default="false", nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("(state IN ('stopped', 'lost')) = (ended_at IS NOT NULL)", name=op.f("ck_workers_ended")),
        sa.CheckConstraint("market IN ('spot', 'on_demand')", name=op.f("ck_workers_market")),
        sa.CheckConstraint(
            "state IN ('requested', 'booting', 'loading', 'ready', 'draining', 'stopped', 'lost')",
            name=op.f("ck_workers_state"),
        ),
        sa.CheckConstraint("rate_micros_per_hour >= 0", name=op.f("ck_workers_rate")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_workers")),
        schema="nightrate",
    )
    op.create_index(
        "ix_workers_live",
        "workers",
        ["pool"],
        unique=False,
        schema="nightrate",
        postgresql_where=sa.text("state NOT IN ('stopped', 'lost')"),
    )
    op.create_table(
        "files",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("tenant_id", sa.String(), nullable=False),
        sa.Column("purpose", sa.String(), nullable=False),
        sa.Column("filename", sa.String(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.String(), nullable=False),
        sa.Column("object_key", sa.String(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("purpose IN ('batch', 'batch_output')", name=op.f("ck_files_purpose")),
        sa.CheckConstraint("sha256 ~ '^[0-9a-f]{64}$'", name=op.f("ck_files_sha256")),
        sa.CheckConstraint("size_bytes >= 0", name=op.f("ck_files_size")),
        sa.ForeignKeyConstraint(["tenant_id"], ["nightrate.tenants.id"], name=op.f("fk_files_tenant_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_files")),
        sa.UniqueConstraint("object_key", name=op.f("uq_files_object_key")),
        sa.UniqueConstraint("tenant_id", "id", name=op.f("uq_files_tenant_id_id")),
        schema="nightrate",
    )
    op.create_table(
        "packs",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("pool", sa.String(), nullable=False),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("endpoint", sa.String(), nullable=False),
        sa.Column("tier", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("ordinal", sa.Double(), nullable=False),
        sa.Column("predicted_seconds", sa.Double(), nullable=False),
        sa.Column("lease_token", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("lease_worker_id", sa.String(), nullable=True),
        sa.Column("lease_expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("available_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("failures", sa.Integer(), server_default="0", nullable=False),
        sa.Column("lone_failures", sa.Integer(), server_default="0", nullable=False),
        sa.Column("unreads", sa.Integer(), server_default="0", nullable=False),
        sa.Column("is_suspect", sa.Boolean(), server_default="false", nullable=False),
        sa.Column("is_convicted", sa.Boolean(), server_default="false", nullable=False),
        sa.Column("last_error", sa.String(), nullable=True),
        sa.Column("parent_id", sa.String(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("hinted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("leased_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("(state = 'leased') = (lease_expires_at IS NOT NULL)", name=op.f("ck_packs_lease")),
        sa.CheckConstraint(
            "(state IN ('committed', 'discarded')) = (ended_at IS NOT NULL)", name=op.f("ck_packs_ended")
        ),
        sa.CheckConstraint(
            "endpoint IN ('/v1/chat/completions', '/v1/completions', '/v1/embeddings', "
            "'/v1/score', '/v1/rerank', '/v1/classify')",
            name=op.f("ck_packs_endpoint"),
        ),
        sa.CheckConstraint(
            "state IN ('ready', 'leased', 'retryable', 'committed', 'discarded')", name=op.f("ck_packs_state")
        ),
        sa.CheckConstraint("tier IN ('urgent', 'standard', 'bulk', 'nightly')", name=op.f("ck_packs_tier")),
        sa.ForeignKeyConstraint(["lease_worker_id"], ["nightrate.workers.id"], name=op.f("fk_packs_lease_worker_id")),
        sa.ForeignKeyConstraint(["parent_id"], ["nightrate.packs.id"], name=op.f("fk_packs_parent_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_packs")),
        schema="nightrate",
    )
    op.create_index(
        "ix_packs_convicted",
        "packs",
        ["id"],
        unique=False,
        schema="nightrate",
        postgresql_where=sa.text("is_convicted AND state IN ('ready', 'retryable')"),
    )
    op.create_index(
        "ix_packs_lease_worker",
        "packs",
        ["lease_worker_id"],
        unique=False,
        schema="nightrate",
        postgresql_where=sa.text("state = 'leased'"),
    )
    op.create_index(
        "ix_packs_leased",
        "packs",
        ["lease_expires_at"],
        unique=False,
        schema="nightrate",
        postgresql_where=sa.text("state = 'leased'"),
    )
    op.create_index("ix_packs_ordinal", "packs", ["ordinal"], unique=False, schema="nightrate")
    op.create_index(
        "ix_packs_waiting",
        "packs",
        ["pool", "ordinal", "id"],
        unique=False,
        schema="nightrate",
        postgresql_where=sa.text("state IN ('ready', 'retryable')"),
    )
    op.create_table(
        "attempts",
        sa.Column("pack_id", sa.String(), nullable=False),
        sa.Column("lease_token", sa.BigInteger(), nullable=False),
        sa.Column("worker_id", sa.String(), nullable=True),
        sa.Column(
            "started_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("outcome", sa.String(), nullable=True),
        sa.Column("error", sa.String(), nullable=True),
        sa.Column("rows_asked", sa.Integer(), nullable=False),
        sa.Column("engine", sa.String(), nullable=True),
        sa.Column("engine_version", sa.String(), nullable=True),
        sa.Column("fingerprint", sa.String(), nullable=True),
        sa.Column("device", sa.String(), nullable=True),
        sa.Column("engine_steps", sa.BigInteger(), nullable=True),
        sa.Column("slot_steps_busy", sa.BigInteger(), nullable=True),
        sa.Column("slot_steps", sa.BigInteger(), nullable=True),
        sa.Column("tokens_prefilled", sa.BigInteger(), nullable=True),
        sa.Column("tokens_cached", sa.BigInteger(), nullable=True),
        sa.Column("tokens_generated", sa.BigInteger(), nullable=True),
        sa.Column("tokens_padding", sa.BigInteger(), nullable=True),
        sa.Column("engine_us", sa.BigInteger(), nullable=True),
        sa.Column("bubble_us", sa.BigInteger(), nullable=True),
        sa.Column("cpu_us", sa.BigInteger(), nullable=True),
        sa.Column("memory_peak_bytes", sa.BigInteger(), nullable=True),
        sa.Column("device_memory_max_bytes", sa.BigInteger(), nullable=True),
        sa.Column("energy_millijoules", sa.BigInteger(), nullable=True),
        sa.Column("energy_source", sa.String(), nullable=True),
        sa.Column("device_utilisation_mean_percent", sa.Integer(), nullable=True),
        sa.Column("device_utilisation_max_percent", sa.Integer(), nullable=True),
        sa.Column("device_power_mean_milliwatts", sa.Integer(), nullable=True),
        sa.Column("device_power_max_milliwatts", sa.Integer(), nullable=True),
        sa.Column("device_temperature_mean_celsius", sa.Integer(), nullable=True),
        sa.Column("device_temperature_max_celsius", sa.Integer(), nullable=True),
        sa.CheckConstraint("rows_asked > 0", name=op.f("ck_attempts_not_empty")),
        sa.CheckConstraint(
            "energy_source IN ('nvml_counter', 'nvml_power', 'rapl')", name=op.f("ck_attempts_energy_source")
        ),
        sa.CheckConstraint("(energy_source IS NULL) = (energy_millijoules IS NULL)", name=op.f("ck_attempts_energy")),
        sa.CheckConstraint(
            "least(engine_steps, slot_steps_busy, slot_steps, tokens_prefilled, tokens_cached, tokens_generated, tokens_padding, engine_us, bubble_us, cpu_us, memory_peak_bytes, device_memory_max_bytes, energy_millijoules, device_utilisation_mean_percent, device_utilisation_max_percent, device_power_mean_milliwatts, device_power_max_milliwatts) >= 0",
            name=op.f("ck_attempts_meters"),
        ),
        sa.CheckConstraint(
            "outcome IN ('succeeded', 'failed', 'preempted', 'lease_lost', 'unread', 'cancelled')",
            name=op.f("ck_attempts_outcome"),
        ),
        sa.CheckConstraint("(outcome IS NULL) = (ended_at IS NULL)", name=op.f("ck_attempts_ended")),
        sa.ForeignKeyConstraint(["pack_id"], ["nightrate.packs.id"], name=op.f("fk_attempts_pack_id")),
        sa.ForeignKeyConstraint(["worker_id"], ["nightrate.workers.id"], name=op.f("fk_attempts_worker_id")),
        sa.PrimaryKeyConstraint("pack_id", "lease_token", name=op.f("pk_attempts")),
        schema="nightrate",
    )
    op.create_index(
        "uq_attempts_open",
        "attempts",
        ["pack_id"],
        unique=True,
        schema="nightrate",
        postgresql_where=sa.text("outcome IS NULL"),
    )
    op.create_table(
        "batches",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("tenant_id", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=True),
        sa.Column("reason_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("endpoint", sa.String(), nullable=False),
        sa.Column("completion_window", sa.String(), nullable=False),
        sa.Column("tier", sa.String(), nullable=False),
        sa.Column("budget_micros", sa.BigInteger(), nullable=True),
        sa.Column("metadata", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("idempotency_key", sa.String(), nullable=True),
        sa.Column("input_file_id", sa.String(), nullable=False),
        sa.Column("output_file_id", sa.String(), nullable=True),
        sa.Column("error_file_id", sa.String(), nullable=True),
        sa.Column("errors", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("errors_total", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("claim_token", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("claim_expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("claim_failures", sa.Integer(), server_default="0", nullable=False),
        sa.Column("claim_error", sa.String(), nullable=True),
        sa.Column("refusals_key", sa.String(), nullable=True),
        sa.Column("refusals_sha256", sa.String(), nullable=True),
        sa.Column("rows_total", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("rows_duplicate", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("rows_refused", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("rows_completed", sa.BigInteger(), nullable=True),
        sa.Column("rows_failed", sa.BigInteger(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("deadline_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("in_progress_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finalizing_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("completed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("failed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("expired_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("cancelling_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("cancelled_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "endpoint IN ('/v1/chat/completions', '/v1/completions', '/v1/embeddings', "
            "'/v1/score', '/v1/rerank', '/v1/classify')",
            name=op.f("ck_batches_endpoint"),
        ),
        sa.CheckConstraint(
            "reason IN ('queued', 'running', 'no_worker', 'budget_reached', 'all_packed', 'bad_input', 'deadline_passed', 'user_cancelled', 'all_committed', 'results_lost')",
            name=op.f("ck_batches_reason"),
        ),
        sa.CheckConstraint("state <> 'cancelled' OR cancelled_at IS NOT NULL", name=op.f("ck_batches_cancelled_at")),
        sa.CheckConstraint("state <> 'cancelling' OR cancelling_at IS NOT NULL", name=op.f("ck_batches_cancelling_at")),
        sa.CheckConstraint("state <> 'completed' OR completed_at IS NOT NULL", name=op.f("ck_batches_completed_at")),
        sa.CheckConstraint("state <> 'expired' OR expired_at IS NOT NULL", name=op.f("ck_batches_expired_at")),
        sa.CheckConstraint("state <> 'failed' OR errors IS NOT NULL", name=op.f("ck_batches_failure_explained")),
        sa.CheckConstraint("state <> 'failed' OR failed_at IS NOT NULL", name=op.f("ck_batches_failed_at")),
        sa.CheckConstraint("state <> 'finalizing' OR finalizing_at IS NOT NULL", name=op.f("ck_batches_finalizing_at")),
        sa.CheckConstraint(
            "state <> 'in_progress' OR in_progress_at IS NOT NULL", name=op.f("ck_batches_in_progress_at")
        ),
        sa.CheckConstraint(
            "state IN ('validating', 'failed', 'in_progress', 'finalizing', 'completed', 'expired', 'cancelling', 'cancelled')",
            name=op.f("ck_batches_state"),
        ),
        sa.CheckConstraint(
            "state NOT IN ('completed', 'expired') OR (rows_completed + rows_failed = rows_total) IS TRUE",
            name=op.f("ck_batches_every_row"),
        ),
        sa.CheckConstraint("tier IN ('urgent', 'standard', 'bulk', 'nightly')", name=op.f("ck_batches_tier")),
        sa.CheckConstraint("budget_micros > 0", name=op.f("ck_batches_budget")),
        sa.CheckConstraint("deadline_at > created_at", name=op.f("ck_batches_deadline")),
        sa.CheckConstraint("rows_duplicate + rows_refused <= rows_total", name=op.f("ck_batches_rows")),
        sa.ForeignKeyConstraint(["error_file_id"], ["nightrate.files.id"], name=op.f("fk_batches_error_file_id")),
        sa.ForeignKeyConstraint(["output_file_id"], ["nightrate.files.id"], name=op.f("fk_batches_output_file_id")),
        sa.ForeignKeyConstraint(
            ["tenant_id", "input_file_id"],
            ["nightrate.files.tenant_id", "nightrate.files.id"],
            name=op.f("fk_batches_tenant_id_input_file_id"),
        ),
        sa.ForeignKeyConstraint(["tenant_id"], ["nightrate.tenants.id"], name=op.f("fk_batches_tenant_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_batches")),
        sa.UniqueConstraint("tenant_id", "idempotency_key", name=op.f("uq_batches_tenant_id_idempotency_key")),
        schema="nightrate",
    )
    op.create_index(
        "ix_batches_listing",
        "batches",
        [sa.literal_column("created_at DESC"), sa.literal_column("id DESC")],
        unique=False,
        schema="nightrate",
    )
    op.create_index(
        "ix_batches_listing_by_state",
        "batches",
        ["state", sa.literal_column("created_at DESC"), sa.literal_column("id DESC")],
        unique=False,
        schema="nightrate",
    )
    op.create_index(
        "ix_batches_live",
        "batches",
        ["state", "deadline_at"],
        unique=False,
        schema="nightrate",
        postgresql_where=sa.text("state IN ('validating', 'in_progress', 'finalizing', 'cancelling')"),
    )
    op.create_table(
        "worker_intervals",
        sa.Column("worker_id", sa.String(), nullable=False),
        sa.Column("start_us", sa.BigInteger(), nullable=False),
        sa.Column("stop_us", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("pack_id", sa.String(), nullable=True),
        sa.Column("lease_token", sa.BigInteger(), nullable=True),
        sa.Column("model", sa.String(), nullable=True),
        sa.Column("tokens", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("rate_micros_per_hour", sa.BigInteger(), nullable=False),
        sa.Column("cost_micros", sa.BigInteger(), nullable=False),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.CheckConstraint("(kind = 'work') = (pack_id IS NOT NULL)", name=op.f("ck_worker_intervals_work_has_pack")),
        sa.CheckConstraint(
            "kind IN ('boot', 'load', 'work', 'idle', 'drain', 'late', 'lost')", name=op.f("ck_worker_intervals_kind")
        ),
        sa.CheckConstraint("0 <= start_us AND start_us < stop_us", name=op.f("ck_worker_intervals_forward")),
        sa.CheckConstraint(
            "cost_micros = div(rate_micros_per_hour::numeric * stop_us, 3600000000) - div(rate_micros_per_hour::numeric * start_us, 3600000000)",
            name=op.f("ck_worker_intervals_price"),
        ),
        sa.ForeignKeyConstraint(["pack_id"], ["nightrate.packs.id"], name=op.f("fk_worker_intervals_pack_id")),
        sa.ForeignKeyConstraint(["worker_id"], ["nightrate.workers.id"], name=op.f("fk_worker_intervals_worker_id")),
        sa.PrimaryKeyConstraint("worker_id", "start_us", name=op.f("pk_worker_intervals")),
        schema="nightrate",
    )
    op.create_index(
        "ix_worker_intervals_speed",
        "worker_intervals",
        ["model", sa.literal_column("created_at DESC")],
        unique=False,
        schema="nightrate",
        postgresql_where=sa.text("kind = 'work'"),
    )
    op.create_table(
        "decisions",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("batch_id", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=True),
        sa.Column(
            "decided_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.CheckConstraint(
            "reason IN ('queued', 'running', 'no_worker', 'budget_reached', 'all_packed', 'bad_input', 'deadline_passed', 'user_cancelled', 'all_committed', 'results_lost')",
            name=op.f("ck_decisions_reason"),
        ),
        sa.ForeignKeyConstraint(["batch_id"], ["nightrate.batches.id"], name=op.f("fk_decisions_batch_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_decisions")),
        schema="nightrate",
    )
    op.create_index("ix_decisions_batch_id", "decisions", ["batch_id", "id"], unique=False, schema="nightrate")
    op.create_table(
        "ledger",
        sa.Column("worker_id", sa.String(), nullable=False),
        sa.Column("start_us", sa.BigInteger(), nullable=False),
        sa.Column("account", sa.String(), nullable=False),
        sa.Column("batch_id", sa.String(), nullable=True),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("tokens", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("amount_micros", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.String(), nullable=False),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.CheckConstraint("(kind = 'work') = (batch_id IS NOT NULL)", name=op.f("ck_ledger_work_is_charged")),
        sa.CheckConstraint("account = coalesce(batch_id, 'overhead:' || kind)", name=op.f("ck_ledger_account")),
        sa.CheckConstraint(
            "kind IN ('boot', 'load', 'work', 'idle', 'drain', 'late', 'lost')", name=op.f("ck_ledger_kind")
        ),
        sa.CheckConstraint("amount_micros >= 0", name=op.f("ck_ledger_amount")),
        sa.ForeignKeyConstraint(["batch_id"], ["nightrate.batches.id"], name=op.f("fk_ledger_batch_id")),
        sa.ForeignKeyConstraint(
            ["worker_id", "start_us"],
            ["nightrate.worker_intervals.worker_id", "nightrate.worker_intervals.start_us"],
            name=op.f("fk_ledger_worker_id_start_us"),
        ),
        sa.PrimaryKeyConstraint("worker_id", "start_us", "account", name=op.f("pk_ledger")),
        schema="nightrate",
    )
    op.create_index(
        "ix_ledger_batch_id",
        "ledger",
        ["batch_id"],
        unique=False,
        schema="nightrate",
        postgresql_where=sa.text("batch_id IS NOT NULL"),
    )
    op.create_table(
        "parts",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("batch_id", sa.String(), nullable=False),
        sa.Column("pack_id", sa.String(), nullable=False),
        sa.Column("lease_token", sa.BigInteger(), nullable=False),
        sa.Column("object_key", sa.String(), nullable=False),
        sa.Column("sha256", sa.String(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("rows_succeeded", sa.Integer(), nullable=False),
        sa.Column("rows_errored", sa.Integer(), nullable=False),
        sa.Column("input_tokens", sa.BigInteger(), nullable=False),
        sa.Column("output_tokens", sa.BigInteger(), nullable=False),
        sa.Column(
            "committed_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.CheckConstraint("input_tokens >= 0 AND output_tokens >= 0", name=op.f("ck_parts_tokens")),
        sa.CheckConstraint("rows_succeeded + rows_errored > 0", name=op.f("ck_parts_not_empty")),
        sa.ForeignKeyConstraint(["batch_id"], ["nightrate.batches.id"], name=op.f("fk_parts_batch_id")),
        sa.ForeignKeyConstraint(
            ["pack_id", "lease_token"],
            ["nightrate.attempts.pack_id", "nightrate.attempts.lease_token"],
            name=op.f("fk_parts_pack_id_lease_token"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_parts")),
        sa.UniqueConstraint("object_key", name=op.f("uq_parts_object_key")),
        schema="nightrate",
    )
    op.create_index("ix_parts_batch_id", "parts", ["batch_id"], unique=False, schema="nightrate")
    op.create_index("ix_parts_pack_id", "parts", ["pack_id"], unique=False, schema="nightrate")
    op.create_table(
        "rosters",
        sa.Column("batch_id", sa.String(), nullable=False),
        sa.Column("roster_no", sa.Integer(), nullable=False),
        sa.Column("object_key", sa.String(), nullable=False),
        sa.Column("sha256", sa.String(), nullable=False),
        sa.Column("rows", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["batch_id"], ["nightrate.batches.id"], name=op.f("fk_rosters_batch_id")),
        sa.PrimaryKeyConstraint("batch_id", "roster_no", name=op.f("pk_rosters")),
        sa.UniqueConstraint("object_key", name=op.f("uq_rosters_object_key")),
        schema="nightrate",
    )
    op.create_table(
        "shards",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("batch_id", sa.String(), nullable=False),
        sa.Column("shard_no", sa.Integer(), nullable=False),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("object_key", sa.String(), nullable=False),
        sa.Column("sha256", sa.String(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("rows_total", sa.Integer(), nullable=False),
        sa.Column("rows_packed", sa.Integer(), server_default="0", nullable=False),
        sa.Column("rows_succeeded", sa.Integer(), server_default="0", nullable=False),
        sa.Column("rows_errored", sa.Integer(), server_default="0", nullable=False),
        sa.Column("input_tokens_estimated", sa.BigInteger(), nullable=False),
        sa.Column("output_tokens_estimated", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("rows_packed BETWEEN 0 AND rows_total", name=op.f("ck_shards_packed")),
        sa.CheckConstraint("rows_succeeded + rows_errored <= rows_packed", name=op.f("ck_shards_done")),
        sa.CheckConstraint("rows_succeeded >= 0 AND rows_errored >= 0", name=op.f("ck_shards_counts")),
        sa.CheckConstraint("rows_total > 0", name=op.f("ck_shards_not_empty")),
        sa.ForeignKeyConstraint(["batch_id"], ["nightrate.batches.id"], name=op.f("fk_shards_batch_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_shards")),
        sa.UniqueConstraint("batch_id", "shard_no", name=op.f("uq_shards_batch_id_shard_no")),
        sa.UniqueConstraint("object_key", name=op.f("uq_shards_object_key")),
        schema="nightrate",
    )
    op.create_index(
        "ix_shards_undone",
        "shards",
        ["batch_id"],
        unique=False,
        schema="nightrate",
        postgresql_where=sa.text("rows_succeeded + rows_errored < rows_total"),
    )
    op.create_index(
        "ix_shards_unpacked",
        "shards",
        ["batch_id", "shard_no"],
        unique=False,
        schema="nightrate",
        postgresql_where=sa.text("rows_packed < rows_total"),
    )
    op.create_table(
        "pack_slices",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("pack_id", sa.String(), nullable=False),
        sa.Column("batch_id", sa.String(), nullable=False),
        sa.Column("shard_id", sa.BigInteger(), nullable=False),
        sa.Column("rows", postgresql.INT4MULTIRANGE(), nullable=False),
        postgresql.ExcludeConstraint(
            (sa.column("shard_id"), "="), (sa.column("rows"), "&&"), using="gist", name="ex_pack_slices_row_in_one_pack"
        ),
        sa.CheckConstraint("NOT isempty(rows)", name=op.f("ck_pack_slices_not_empty")),
        sa.ForeignKeyConstraint(["batch_id"], ["nightrate.batches.id"], name=op.f("fk_pack_slices_batch_id")),
        sa.ForeignKeyConstraint(["pack_id"], ["nightrate.packs.id"], name=op.f("fk_pack_slices_pack_id")),
        sa.ForeignKeyConstraint(["shard_id"], ["nightrate.shards.id"], name=op.f("fk_pack_slices_shard_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_pack_slices")),
        schema="nightrate",
    )
    op.create_index("ix_pack_slices_batch_id", "pack_slices", ["batch_id"], unique=False, schema="nightrate")
    op.create_index("ix_pack_slices_pack_id", "pack_slices", ["pack_id"], unique=False, schema="nightrate")
    op.create_table(
        "part_slices",
        sa.Column("part_id", sa.String(), nullable=False),
        sa.Column("shard_id", sa.BigInteger(), nullable=False),
        sa.Column("rows", postgresql.INT4MULTIRANGE(), nullable=False),
        postgresql.ExcludeConstraint(
            (sa.column("shard_id"), "="),
            (sa.column("rows"), "&&"),
            using="gist",
            name="ex_part_slices_one_result_a_row",
        ),
        sa.CheckConstraint("NOT isempty(rows)", name=op.f("ck_part_slices_not_empty")),
        sa.ForeignKeyConstraint(["part_id"], ["nightrate.parts.id"], name=op.f("fk_part_slices_part_id")),
        sa.ForeignKeyConstraint(["shard_id"], ["nightrate.shards.id"], name=op.f("fk_part_slices_shard_id")),
        sa.PrimaryKeyConstraint("part_id", "shard_id", name=op.f("pk_part_slices")),
        schema="nightrate",
    )
    op.execute(sa.text(Path(__file__).with_name("0001_guards.sql").read_text(encoding="utf-8")))
