"""Keep which plan a tenant has, and what its batches take of it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

_REASONS = (
    "queued", "running", "no_worker", "user_paused", "held", "budget_reached", "all_packed", "bad_input", "quota_reached",
    "deadline_passed", "user_cancelled", "all_committed", "results_lost", "promise_declined",
)  # fmt: skip

#: The one way by which reservations shrink. It is a trigger so that no statement that ends a batch, now or later, can
#: forget it, and so that it happens in the very transaction: a batch that has ended holds nothing, one that has not holds
#: all. Its shards and parts are final by then, for a batch ends only once no lease could still commit a row of it.
_SETTLE = """
    CREATE FUNCTION nightrate.settle_quota_v1() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        UPDATE nightrate.quota_reservations
           SET settled_at = clock_timestamp(),
               rows = coalesce((SELECT sum(rows_succeeded + rows_errored) FROM nightrate.shards
                                 WHERE batch_id = NEW.id), 0),
               tokens = coalesce((SELECT sum(input_tokens + output_tokens) FROM nightrate.parts
                                   WHERE batch_id = NEW.id), 0)
         WHERE batch_id = NEW.id AND settled_at IS NULL;
        RETURN NULL;
    END $$
"""
_SETTLE_ON = """
    CREATE TRIGGER batches_settle_quota AFTER UPDATE OF state ON nightrate.batches FOR EACH ROW
        WHEN (NEW.state IN ('completed', 'failed', 'expired', 'cancelled') AND OLD.state <> NEW.state)
        EXECUTE FUNCTION nightrate.settle_quota_v1()
"""


def upgrade() -> None:
    _give_plans()
    _create_reservations()
    reasons = ", ".join(f"'{reason}'" for reason in _REASONS)
    for table in ("batches", "decisions"):
        name = op.f(f"ck_{table}_reason")
        op.drop_constraint(name, table, schema="nightrate")
        op.create_check_constraint(name, table, f"reason IN ({reasons})", schema="nightrate")
    op.create_index(
        "ix_batches_live_of_tenant",
        "batches",
        ["tenant_id"],
        schema="nightrate",
        postgresql_where=sa.text("state IN ('validating', 'in_progress', 'finalizing', 'cancelling')"),
    )


def _give_plans() -> None:
    op.add_column(
        "tenants",
        sa.Column("plan", sa.String(), server_default=sa.text("'free'"), nullable=False),
        schema="nightrate",
    )
    op.create_check_constraint(
        op.f("ck_tenants_plan"), "tenants", "plan ~ '^[a-z0-9][a-z0-9_-]{0,62}$'", schema="nightrate"
    )
    # The command line's own. Nobody's doing: the audit log hears nothing of it.
    op.execute("ALTER TABLE nightrate.tenants DISABLE TRIGGER USER")
    op.execute("UPDATE nightrate.tenants SET plan = 'unlimited' WHERE id = 'tnt_default'")
    op.execute("ALTER TABLE nightrate.tenants ENABLE TRIGGER USER")


def _create_reservations() -> None:
    op.create_table(
        "quota_reservations",
        sa.Column("batch_id", sa.String(), nullable=False),
        sa.Column("tenant_id", sa.String(), nullable=False),
        sa.Column("month", sa.Date(), nullable=False),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("rows", sa.BigInteger(), nullable=False),
        sa.Column("tokens", sa.BigInteger(), nullable=False),
        sa.Column("rows_reserved", sa.BigInteger(), nullable=False),
        sa.Column("tokens_reserved", sa.BigInteger(), nullable=False),
        sa.Column(
            "reserved_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column("settled_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("rows >= 0 AND rows <= rows_reserved", name=op.f("ck_quota_reservations_rows")),
        sa.CheckConstraint("tokens >= 0 AND tokens_reserved >= 0", name=op.f("ck_quota_reservations_tokens")),
        sa.CheckConstraint(
            "settled_at IS NOT NULL OR rows = rows_reserved AND tokens = tokens_reserved",
            name=op.f("ck_quota_reservations_whole_until_settled"),
        ),
        sa.CheckConstraint("extract(day FROM month) = 1", name=op.f("ck_quota_reservations_month")),
        sa.ForeignKeyConstraint(["batch_id"], ["nightrate.batches.id"], name=op.f("fk_quota_reservations_batch_id")),
        sa.ForeignKeyConstraint(["tenant_id"], ["nightrate.tenants.id"], name=op.f("fk_quota_reservations_tenant_id")),
        sa.PrimaryKeyConstraint("batch_id", name=op.f("pk_quota_reservations")),
        schema="nightrate",
    )
    op.create_index(
        "ix_quota_reservations_month",
        "quota_reservations",
        ["tenant_id", "month"],
        schema="nightrate",
        postgresql_include=["rows", "tokens"],
    )
    op.create_index(
        "ix_quota_reservations_open",
        "quota_reservations",
        ["tenant_id", "model"],
        schema="nightrate",
        postgresql_include=["tokens_reserved"],
        postgresql_where=sa.text("settled_at IS NULL"),
    )
    op.execute(_SETTLE)
    op.execute(_SETTLE_ON)
