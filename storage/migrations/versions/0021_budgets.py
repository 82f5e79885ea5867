"""Keep budgets of tenants and projects, and count charges by the month they are posted in."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None

_REASONS = (
    "queued", "running", "no_worker", "user_paused", "held", "budget_reached", "project_budget_reached",
    "tenant_budget_reached", "all_packed", "bad_input", "quota_reached", "deadline_passed", "user_cancelled",
    "all_committed", "results_lost", "promise_declined",
)  # fmt: skip
_ACTIONS = (
    "organization.created", "organization.updated", "project.created", "project.updated", "project.archived",
    "api_key.created", "api_key.updated", "api_key.deleted", "file.created", "file.deleted", "batch.created",
    "batch.changed", "batch.paused", "batch.resumed", "batch.cancelled", "webhook.created", "webhook.updated",
    "webhook.deleted", "budget.created", "budget.updated", "budget.deleted", "budget.topped_up",
)  # fmt: skip
_TYPES = (
    "'batch.in_progress', 'batch.progress', 'batch.completed', 'batch.failed', 'batch.expired', 'batch.cancelled',"
    " 'budget.alert', 'budget.reached'"
)
_NOW = sa.text("clock_timestamp()")


def upgrade() -> None:
    _widen()
    factors = sa.Column("charge_factors", postgresql.JSONB(astext_type=sa.Text()), nullable=True)
    op.add_column("batches", factors, schema="nightrate")
    _date_packs()
    _create_budgets()
    _create_top_ups()
    _create_notices()
    _create_charges()
    op.execute(sa.text(Path(__file__).with_name("0021_budgets.sql").read_text(encoding="utf-8").replace(":", r"\:")))


def _widen() -> None:
    _check("batches", "reason", f"reason IN ({_listed(_REASONS)})")
    _check("decisions", "reason", f"reason IN ({_listed(_REASONS)})")
    _check("audit_log", "action", f"action IN ({_listed(_ACTIONS)})")
    _check("webhooks", "event_types", f"cardinality(event_types) > 0 AND event_types <@ ARRAY[{_TYPES}]::varchar[]")
    _check("webhook_events", "type", f"type IN ({_TYPES}, 'webhook.test')")
    _check("webhook_events", "batch", "(batch_id IS NOT NULL) = (type LIKE 'batch.%')")


def _listed(words: tuple[str, ...]) -> str:
    return ", ".join(f"'{word}'" for word in words)


def _check(table: str, what: str, condition: str) -> None:
    name = op.f(f"ck_{table}_{what}")
    op.drop_constraint(name, table, schema="nightrate")
    op.create_check_constraint(name, table, condition, schema="nightrate")


def _date_packs() -> None:
    op.add_column("packs", sa.Column("month", sa.Date(), nullable=True), schema="nightrate")
    op.execute("UPDATE nightrate.packs SET month = CAST(date_trunc('month', created_at AT TIME ZONE 'UTC') AS date)")
    default = sa.text("CAST(date_trunc('month', clock_timestamp() AT TIME ZONE 'UTC') AS date)")
    op.alter_column("packs", "month", nullable=False, server_default=default, schema="nightrate")


def _create_budgets() -> None:
    op.create_table(
        "budgets",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("tenant_id", sa.String(), nullable=False),
        sa.Column("project_id", sa.String(), nullable=True),
        sa.Column("period", sa.String(), nullable=False),
        sa.Column("amount_micros", sa.BigInteger(), nullable=False),
        sa.Column("alert_shares_ppm", postgresql.ARRAY(sa.BIGINT()), nullable=False),
        sa.Column("core_tiers", postgresql.ARRAY(sa.String()), nullable=False),
        sa.Column("core_share_ppm", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=_NOW, nullable=False),
        sa.CheckConstraint("period IN ('month', 'total')", name=op.f("ck_budgets_period")),
        sa.CheckConstraint("amount_micros >= 0", name=op.f("ck_budgets_amount")),
        sa.CheckConstraint(
            "0 < ALL(alert_shares_ppm) AND 1000000 >= ALL(alert_shares_ppm)", name=op.f("ck_budgets_alert_shares")
        ),
        sa.CheckConstraint(
            "core_tiers <@ ARRAY['urgent', 'standard', 'bulk', 'nightly']::varchar[]",
            name=op.f("ck_budgets_core_tiers"),
        ),
        sa.CheckConstraint("core_share_ppm BETWEEN 1 AND 1000000", name=op.f("ck_budgets_core_share")),
        sa.ForeignKeyConstraint(["tenant_id"], ["nightrate.tenants.id"], name=op.f("fk_budgets_tenant_id")),
        sa.ForeignKeyConstraint(
            ["tenant_id", "project_id"],
            ["nightrate.projects.tenant_id", "nightrate.projects.id"],
            name=op.f("fk_budgets_tenant_id_project_id"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_budgets")),
        schema="nightrate",
    )
    for name, column, condition in (
        ("uq_budgets_of_tenant", "tenant_id", "project_id IS NULL"),
        ("uq_budgets_of_project", "project_id", "project_id IS NOT NULL"),
    ):
        where = sa.text(condition)
        op.create_index(name, "budgets", [column, "period"], unique=True, schema="nightrate", postgresql_where=where)
    op.create_index("ix_budgets_tenant_id", "budgets", ["tenant_id"], schema="nightrate")


def _create_top_ups() -> None:
    op.create_table(
        "budget_top_ups",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("budget_id", sa.String(), nullable=False),
        sa.Column("period_start", sa.Date(), nullable=False),
        sa.Column("amount_micros", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=_NOW, nullable=False),
        sa.CheckConstraint("amount_micros > 0", name=op.f("ck_budget_top_ups_amount")),
        sa.CheckConstraint("extract(day FROM period_start) = 1", name=op.f("ck_budget_top_ups_period_start")),
        sa.ForeignKeyConstraint(
            ["budget_id"], ["nightrate.budgets.id"], name=op.f("fk_budget_top_ups_budget_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_budget_top_ups")),
        schema="nightrate",
    )
    op.create_index("ix_budget_top_ups_period", "budget_top_ups", ["budget_id", "period_start"], schema="nightrate")


def _create_notices() -> None:
    op.create_table(
        "budget_notices",
        sa.Column("budget_id", sa.String(), nullable=False),
        sa.Column("period_start", sa.Date(), nullable=False),
        sa.Column("limit_micros", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("mark", sa.String(), nullable=False),
        sa.Column("share_ppm", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("spent_micros", sa.BigInteger(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), server_default=_NOW, nullable=False),
        sa.CheckConstraint("mark IN ('share', 'non_core_paused', 'reached')", name=op.f("ck_budget_notices_mark")),
        sa.ForeignKeyConstraint(
            ["budget_id"], ["nightrate.budgets.id"], name=op.f("fk_budget_notices_budget_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint(
            "budget_id", "period_start", "limit_micros", "mark", "share_ppm", name=op.f("pk_budget_notices")
        ),
        schema="nightrate",
    )


def _create_charges() -> None:
    op.create_table(
        "charges_by_month",
        sa.Column("tenant_id", sa.String(), nullable=False),
        sa.Column("month", sa.Date(), nullable=False),
        sa.Column("project_id", sa.String(), nullable=False),
        sa.Column("slot", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("charged_micros", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("extract(day FROM month) = 1", name=op.f("ck_charges_by_month_month")),
        sa.ForeignKeyConstraint(["tenant_id"], ["nightrate.tenants.id"], name=op.f("fk_charges_by_month_tenant_id")),
        sa.ForeignKeyConstraint(
            ["tenant_id", "project_id"],
            ["nightrate.projects.tenant_id", "nightrate.projects.id"],
            name=op.f("fk_charges_by_month_tenant_id_project_id"),
        ),
        sa.PrimaryKeyConstraint("tenant_id", "month", "project_id", "slot", name=op.f("pk_charges_by_month")),
        schema="nightrate",
    )
