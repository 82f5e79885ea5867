"""Keep the machines that were asked for, and how many workers each pool is to have."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None

_REASONS = (
    "deadline, forecast, warm, cheap, floor, idle, surplus, replaced, lifetime, no_work, slack, quota, capacity, spend"
)

_WHY_BATCHES_WAIT = (
    "queued, running, no_worker, worker_coming, user_paused, held, budget_reached, project_budget_reached, "
    "tenant_budget_reached, all_packed, bad_input, quota_reached, deadline_passed, user_cancelled, all_committed, "
    "results_lost, promise_declined"
)


def _one_of(column: str, words: str) -> str:
    listed = ", ".join(f"'{word}'" for word in words.split(", "))
    return f"{column} IN ({listed})"


def upgrade() -> None:
    _create_rentals()
    op.create_table(
        "pools_wanted",
        sa.Column("pool", sa.String(), nullable=False),
        sa.Column("wanted", sa.Integer(), nullable=False),
        sa.Column("on_demand_wanted", sa.Integer(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("work_seconds", sa.Float(), nullable=False),
        *(
            sa.Column(name, sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False)
            for name in ("decided_at", "since")
        ),
        sa.CheckConstraint(_one_of("reason", _REASONS), name=op.f("ck_pools_wanted_reason")),
        sa.CheckConstraint("wanted >= on_demand_wanted AND on_demand_wanted >= 0", name=op.f("ck_pools_wanted_wanted")),
        sa.PrimaryKeyConstraint("pool", name=op.f("pk_pools_wanted")),
        schema="nightrate",
    )
    for table in ("batches", "decisions"):
        name = op.f(f"ck_{table}_reason")
        op.drop_constraint(name, table, schema="nightrate")
        op.create_check_constraint(name, table, _one_of("reason", _WHY_BATCHES_WAIT), schema="nightrate")
    # What a scaler outside reads, such as KEDA: stable, whatever becomes of the tables.
    op.execute("CREATE VIEW nightrate.workers_wanted AS SELECT pool, wanted FROM nightrate.pools_wanted")


def _create_rentals() -> None:
    op.create_table(
        "rentals",
        *(
            sa.Column(name, sa.String(), nullable=False)
            for name in ("worker_id", "pool", "offer", "provider", "market")
        ),
        sa.Column("state", sa.String(), server_default="requested", nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column(
            "requested_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column("ends_by", sa.DateTime(timezone=True), nullable=False),
        sa.Column("launched_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("provider_id", sa.String(), nullable=True),
        sa.Column("stop_reason", sa.String(), nullable=True),
        sa.Column("stop_asked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("refusal", sa.String(), nullable=True),
        sa.Column("message", sa.String(), nullable=True),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            _one_of("state", "requested, launched, stopping, gone, refused"), name=op.f("ck_rentals_state")
        ),
        sa.CheckConstraint(_one_of("reason", _REASONS), name=op.f("ck_rentals_reason")),
        sa.CheckConstraint(_one_of("stop_reason", _REASONS), name=op.f("ck_rentals_stop_reason")),
        sa.CheckConstraint(_one_of("refusal", "capacity, quota, throttled, rejected"), name=op.f("ck_rentals_refusal")),
        sa.CheckConstraint("market IN ('spot', 'on_demand')", name=op.f("ck_rentals_market")),
        sa.CheckConstraint("(state IN ('gone', 'refused')) = (ended_at IS NOT NULL)", name=op.f("ck_rentals_ended")),
        sa.CheckConstraint("(state = 'refused') = (refusal IS NOT NULL)", name=op.f("ck_rentals_refused")),
        sa.CheckConstraint("(provider_id IS NULL) = (launched_at IS NULL)", name=op.f("ck_rentals_launched")),
        sa.CheckConstraint(
            "state NOT IN ('launched', 'stopping') OR launched_at IS NOT NULL", name=op.f("ck_rentals_costs")
        ),
        sa.CheckConstraint("(stop_reason IS NULL) = (stop_asked_at IS NULL)", name=op.f("ck_rentals_stop")),
        sa.PrimaryKeyConstraint("worker_id", name=op.f("pk_rentals")),
        schema="nightrate",
    )
    op.create_index(
        "ix_rentals_open",
        "rentals",
        ["pool"],
        schema="nightrate",
        postgresql_where=sa.text("state NOT IN ('gone', 'refused')"),
    )
    op.create_index("ix_rentals_offer", "rentals", ["offer", "requested_at"], schema="nightrate")
