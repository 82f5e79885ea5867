"""Give analysts a schema of their own: views of what was had and what it cost, on sums that are kept by hour."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None

_VIEWS = Path(__file__).resolve().parents[2] / "views"
#: In the order in which they need one another.
_INNER = ("lines_v1", "sums_v1", "day_sums_v1")
_OUTER = (
    "charges_v1",
    "hourly_v1",
    "daily_v1",
    "batches_v1",
    "unit_costs_v1",
    "utilisation_v1",
    "spot_v1",
    "labels_v1",
    "budget_burn_v1",
)
_DAILY = (
    "day",
    "batch_id",
    "kind",
    "pool",
    "market",
    "provider",
    "instance_type",
    "region",
    "model",
    "variant",
    "tier",
    "category",
    "currency",
)
_KNOWN = frozenset({"hour", "day", "kind", "category", "transaction_kind", "currency"})
_AMOUNTS = ("list", "contracted", "effective", "billed", "on_demand", "charged")


def upgrade() -> None:
    _create_tables()
    _run(Path(__file__).with_name("0022_pending.sql"))
    for name in _INNER:
        _run(_VIEWS / f"{name}.sql")
    op.execute("CREATE SCHEMA cost")
    op.execute("COMMENT ON SCHEMA cost IS 'What was had and what it cost, for analysts: see docs/analytics.md.'")
    for name in _OUTER:
        _run(_VIEWS / f"{name}.sql")
    _run(Path(__file__).with_name("0022_analyst.sql"))


def _run(path: Path) -> None:
    op.execute(sa.text(path.read_text(encoding="utf-8").replace(":", r"\:")))


def _create_tables() -> None:
    hourly = ("hour", "day", *_DAILY[1:8], "zone", *_DAILY[8:12], "transaction_kind", "method", "currency")
    _create_sums("cost_hours", hourly)
    op.create_index("ix_cost_hours_day", "cost_hours", ["day"], schema="nightrate")
    _create_sums("cost_days", _DAILY)
    op.create_table(
        "cost_pending",
        sa.Column("transaction_id", sa.BigInteger(), nullable=False, autoincrement=False),
        sa.ForeignKeyConstraint(
            ["transaction_id"], ["nightrate.transactions.id"], name=op.f("fk_cost_pending_transaction_id")
        ),
        sa.PrimaryKeyConstraint("transaction_id", name=op.f("pk_cost_pending")),
        schema="nightrate",
    )
    _create_versions()


def _create_sums(table: str, dimensions: tuple[str, ...]) -> None:
    kinds: dict[str, sa.types.TypeEngine[Any]] = {"hour": sa.DateTime(timezone=True), "day": sa.Date()}
    op.create_table(
        table,
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        *(sa.Column(name, kinds.get(name, sa.String()), nullable=name not in _KNOWN) for name in dimensions),
        *(sa.Column(f"{name}_micros", sa.BigInteger(), nullable=False) for name in _AMOUNTS),
        *(
            sa.Column(name, sa.BigInteger(), nullable=False)
            for name in ("row_count", "input_tokens", "output_tokens", "worker_us")
        ),
        sa.ForeignKeyConstraint(["batch_id"], ["nightrate.batches.id"], name=op.f(f"fk_{table}_batch_id")),
        sa.PrimaryKeyConstraint("id", name=op.f(f"pk_{table}")),
        sa.UniqueConstraint(*dimensions, name=op.f(f"uq_{table}"), postgresql_nulls_not_distinct=True),
        schema="nightrate",
    )
    op.create_index(f"ix_{table}_batch_id", table, ["batch_id"], schema="nightrate")


def _create_versions() -> None:
    op.create_table(
        "cost_day_versions",
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column(
            "changed_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column("exported_version", sa.BigInteger(), nullable=True),
        sa.Column("exported_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("version > 0", name=op.f("ck_cost_day_versions_version")),
        sa.CheckConstraint("exported_version BETWEEN 1 AND version", name=op.f("ck_cost_day_versions_exported")),
        sa.CheckConstraint(
            "(exported_version IS NULL) = (exported_at IS NULL)", name=op.f("ck_cost_day_versions_exported_when")
        ),
        sa.PrimaryKeyConstraint("day", name=op.f("pk_cost_day_versions")),
        schema="nightrate",
    )
