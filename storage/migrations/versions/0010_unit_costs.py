"""Keep with each pack what its rows were predicted to cost, and with each charge what it was worked out from."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _keep_unit_costs()
    _keep_what_shares_are_made_of()


def _keep_unit_costs() -> None:
    # Packs that are on their way are split by tokens alike, as when they were made.
    for name, default in (("row", "0"), ("input_token", "1"), ("output_token", "1")):
        column = sa.Column(f"{name}_picoseconds", sa.BigInteger(), nullable=False, server_default=default)
        op.add_column("packs", column, schema="nightrate")
    op.create_check_constraint(
        op.f("ck_packs_unit_costs"),
        "packs",
        "least(row_picoseconds, input_token_picoseconds, output_token_picoseconds) >= 0"
        " AND greatest(row_picoseconds, input_token_picoseconds, output_token_picoseconds) > 0",
        schema="nightrate",
    )


def _keep_what_shares_are_made_of() -> None:
    # What was charged before stays as it is: no rule's name, and by tokens.
    op.add_column("worker_intervals", sa.Column("split_rule", sa.String(), nullable=True), schema="nightrate")
    op.create_check_constraint(
        op.f("ck_worker_intervals_split_rule"),
        "worker_intervals",
        "split_rule IN ('predicted_cost_v1')",
        schema="nightrate",
    )
    op.create_check_constraint(
        op.f("ck_worker_intervals_work_is_split"),
        "worker_intervals",
        "kind = 'work' OR split_rule IS NULL",
        schema="nightrate",
    )
    for name in ("row_count", "input_tokens", "output_tokens"):
        column = sa.Column(name, sa.BigInteger(), nullable=False, server_default="0")
        op.add_column("ledger", column, schema="nightrate")
    op.create_check_constraint(
        op.f("ck_ledger_work"), "ledger", "least(row_count, input_tokens, output_tokens) >= 0", schema="nightrate"
    )
