"""Keep prices with the instant that they hold from and who said them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None

_MARKETS = "market IN ('on_demand', 'spot', 'reserved', 'batch')"


def upgrade() -> None:
    _create_prices()
    op.create_table(
        "price_refreshes",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("provider", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("market", sa.String(), nullable=False),
        sa.Column("region", sa.String(), nullable=False),
        sa.Column("asked_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("prices", sa.BigInteger(), nullable=False),
        sa.CheckConstraint(_MARKETS, name=op.f("ck_price_refreshes_market")),
        sa.CheckConstraint("prices >= 0", name=op.f("ck_price_refreshes_prices")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_price_refreshes")),
        schema="nightrate",
    )
    op.create_index(
        "ix_price_refreshes_last",
        "price_refreshes",
        ["name", "provider", "market", "region", sa.text("asked_at DESC")],
        schema="nightrate",
    )
    for table in ("prices", "price_refreshes"):
        op.execute(
            f"CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON nightrate.{table} "
            "FOR EACH STATEMENT EXECUTE FUNCTION nightrate.refuse_change_v1()"
        )


def _create_prices() -> None:
    op.create_table(
        "prices",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("provider", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("unit", sa.String(), nullable=False),
        sa.Column("market", sa.String(), nullable=False),
        sa.Column("region", sa.String(), nullable=False),
        sa.Column("zone", sa.String(), nullable=False),
        sa.Column("currency", sa.String(), nullable=False),
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("effective_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("unit_price_picos", sa.BigInteger(), nullable=True),
        sa.Column("as_of", sa.DateTime(timezone=True), nullable=False),
        sa.Column("origin", sa.String(), nullable=False),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.CheckConstraint(
            "unit IN ('hour', 'gb_month', 'request', 'gb', 'input_token', 'cached_input_token', 'output_token')",
            name=op.f("ck_prices_unit"),
        ),
        sa.CheckConstraint(_MARKETS, name=op.f("ck_prices_market")),
        sa.CheckConstraint("source IN ('override', 'refreshed', 'catalogue')", name=op.f("ck_prices_source")),
        sa.CheckConstraint("currency ~ '^[A-Z]{3}$'", name=op.f("ck_prices_currency")),
        sa.CheckConstraint("unit_price_picos BETWEEN 0 AND 10000000000000000", name=op.f("ck_prices_unit_price_picos")),
        sa.CheckConstraint("zone = '' OR region <> ''", name=op.f("ck_prices_zone_has_region")),
        sa.CheckConstraint("revision >= 0", name=op.f("ck_prices_revision")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_prices")),
        sa.UniqueConstraint(
            "name",
            "provider",
            "unit",
            "market",
            "region",
            "zone",
            "currency",
            "source",
            "effective_at",
            "revision",
            name="uq_prices_word",
        ),
        schema="nightrate",
    )
