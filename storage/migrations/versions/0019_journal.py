"""Put a journal of balanced transactions in the ledger's place, and tell what workers cost in five ways."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

_KINDS = "kind IN ('boot', 'load', 'work', 'idle', 'drain', 'shadow', 'late', 'lost', 'preempted', 'retried', 'probe')"
_AMOUNTS = ("list", "contracted", "effective", "billed", "on_demand", "charged")


def upgrade() -> None:
    _price_workers()
    _price_batches()
    _add_kinds()
    _create_transactions()
    _create_entries()
    op.execute(sa.text(Path(__file__).with_name("0019_journal.sql").read_text(encoding="utf-8").replace(":", r"\:")))


def _price_workers() -> None:
    for name in ("list", "contracted", "billed", "on_demand"):
        column = f"{name}_rate_micros_per_hour"
        op.add_column("workers", sa.Column(column, sa.BigInteger(), nullable=True), schema="nightrate")
        op.execute(f"UPDATE nightrate.workers SET {column} = rate_micros_per_hour")  # noqa: S608 -- names of this file
        op.alter_column("workers", column, nullable=False, schema="nightrate")
    for name in ("provider", "instance_type", "region", "zone", "end_cause"):
        op.add_column("workers", sa.Column(name, sa.String(), nullable=True), schema="nightrate")
    op.execute("UPDATE nightrate.workers SET end_cause = state WHERE ended_at IS NOT NULL")
    op.create_check_constraint(
        op.f("ck_workers_rates"),
        "workers",
        "least(list_rate_micros_per_hour, contracted_rate_micros_per_hour, billed_rate_micros_per_hour,"
        " on_demand_rate_micros_per_hour) >= 0",
        schema="nightrate",
    )
    op.create_check_constraint(
        op.f("ck_workers_end_cause"), "workers", "end_cause IN ('stopped', 'interrupted', 'lost')", schema="nightrate"
    )
    op.create_check_constraint(
        op.f("ck_workers_ended_by"), "workers", "(end_cause IS NOT NULL) = (ended_at IS NOT NULL)", schema="nightrate"
    )


def _price_batches() -> None:
    multiplier = sa.Column("charge_multiplier_ppm", sa.BigInteger(), nullable=False, server_default="1000000")
    op.add_column("batches", multiplier, schema="nightrate")
    for name in ("input_token_price_picos", "output_token_price_picos"):
        op.add_column("batches", sa.Column(name, sa.BigInteger(), nullable=True), schema="nightrate")
    op.create_check_constraint(
        op.f("ck_batches_charge"),
        "batches",
        "least(charge_multiplier_ppm, input_token_price_picos, output_token_price_picos) >= 0"
        " AND (input_token_price_picos IS NULL) = (output_token_price_picos IS NULL)",
        schema="nightrate",
    )


def _add_kinds() -> None:
    op.drop_constraint(op.f("ck_worker_intervals_kind"), "worker_intervals", schema="nightrate")
    op.create_check_constraint(op.f("ck_worker_intervals_kind"), "worker_intervals", _KINDS, schema="nightrate")


def _create_transactions() -> None:
    op.create_table(
        "transactions",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("category", sa.String(), nullable=False),
        sa.Column("period_start", sa.DateTime(timezone=True), nullable=False),
        sa.Column("period_stop", sa.DateTime(timezone=True), nullable=False),
        sa.Column("worker_id", sa.String(), nullable=True),
        sa.Column("start_us", sa.BigInteger(), nullable=True),
        sa.Column("pack_id", sa.String(), nullable=True),
        sa.Column("lease_token", sa.BigInteger(), nullable=True),
        sa.Column("reverses_id", sa.BigInteger(), nullable=True),
        sa.Column("method", sa.String(), nullable=True),
        sa.Column("source", sa.String(), nullable=True),
        sa.Column("detail", postgresql.JSONB(astext_type=sa.Text()), server_default="{}", nullable=False),
        sa.Column("currency", sa.String(), nullable=False),
        sa.Column(
            "posted_by",
            sa.BigInteger(),
            server_default=sa.text("CAST(CAST(pg_current_xact_id() AS text) AS bigint)"),
            nullable=False,
        ),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.CheckConstraint(
            "kind IN ('accrual', 'settlement', 'allocation', 'adjustment', 'reversal')",
            name=op.f("ck_transactions_kind"),
        ),
        sa.CheckConstraint(
            "category IN ('compute', 'storage', 'network', 'external_api')", name=op.f("ck_transactions_category")
        ),
        sa.CheckConstraint("period_start <= period_stop", name=op.f("ck_transactions_forward")),
        sa.CheckConstraint("(kind = 'reversal') = (reverses_id IS NOT NULL)", name=op.f("ck_transactions_reverses")),
        sa.CheckConstraint(
            "start_us IS NULL OR (kind = 'accrual' AND category = 'compute')", name=op.f("ck_transactions_interval")
        ),
        sa.ForeignKeyConstraint(["worker_id"], ["nightrate.workers.id"], name=op.f("fk_transactions_worker_id")),
        sa.ForeignKeyConstraint(["pack_id"], ["nightrate.packs.id"], name=op.f("fk_transactions_pack_id")),
        sa.ForeignKeyConstraint(
            ["reverses_id"], ["nightrate.transactions.id"], name=op.f("fk_transactions_reverses_id")
        ),
        sa.ForeignKeyConstraint(
            ["worker_id", "start_us"],
            ["nightrate.worker_intervals.worker_id", "nightrate.worker_intervals.start_us"],
            name=op.f("fk_transactions_worker_id_start_us"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_transactions")),
        sa.UniqueConstraint("key", name=op.f("uq_transactions_key")),
        sa.UniqueConstraint("reverses_id", name=op.f("uq_transactions_reverses_id")),
        sa.UniqueConstraint("worker_id", "start_us", name=op.f("uq_transactions_worker_id_start_us")),
        schema="nightrate",
    )
    op.create_index(
        "ix_transactions_pack_id",
        "transactions",
        ["pack_id"],
        schema="nightrate",
        postgresql_where=sa.text("pack_id IS NOT NULL"),
    )
    op.create_index("ix_transactions_period_start", "transactions", ["period_start"], schema="nightrate")


def _create_entries() -> None:
    op.create_table(
        "entries",
        sa.Column("transaction_id", sa.BigInteger(), nullable=False),
        sa.Column("line", sa.BigInteger(), nullable=False),
        sa.Column("account", sa.String(), nullable=False),
        sa.Column("batch_id", sa.String(), nullable=True),
        *(sa.Column(f"{name}_micros", sa.BigInteger(), nullable=False) for name in _AMOUNTS),
        *(
            sa.Column(name, sa.BigInteger(), server_default="0", nullable=False)
            for name in ("row_count", "input_tokens", "output_tokens")
        ),
        sa.CheckConstraint("line >= 0", name=op.f("ck_entries_line")),
        sa.CheckConstraint("account ~ '^(batch|overhead|supplier|revenue):.'", name=op.f("ck_entries_account")),
        sa.CheckConstraint(
            "batch_id IS NOT DISTINCT FROM CASE WHEN account LIKE 'batch:%' THEN substr(account, 7) END",
            name=op.f("ck_entries_batch"),
        ),
        sa.CheckConstraint("account ~ '^(batch|revenue):' OR charged_micros = 0", name=op.f("ck_entries_charged")),
        sa.ForeignKeyConstraint(
            ["transaction_id"], ["nightrate.transactions.id"], name=op.f("fk_entries_transaction_id")
        ),
        sa.ForeignKeyConstraint(["batch_id"], ["nightrate.batches.id"], name=op.f("fk_entries_batch_id")),
        sa.PrimaryKeyConstraint("transaction_id", "line", name=op.f("pk_entries")),
        schema="nightrate",
    )
    op.create_index(
        "ix_entries_batch_id",
        "entries",
        ["batch_id"],
        schema="nightrate",
        postgresql_where=sa.text("batch_id IS NOT NULL"),
        postgresql_include=["effective_micros", "charged_micros"],
    )
