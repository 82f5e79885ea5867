"""Let a model have variants: the registry, and which variant runs a pack."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_NOW = sa.text("now()")
_CLOCK = sa.text("clock_timestamp()")


def upgrade() -> None:
    _create_variants()
    _create_qualifications()
    _create_tunings()
    _widen_work()


def _create_variants() -> None:
    op.create_table(
        "variants",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("label", sa.String(), nullable=False),
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("revision", sa.String(), nullable=False),
        sa.Column("recipe", sa.String(), nullable=False),
        sa.Column("engine", sa.String(), nullable=False),
        sa.Column("device", sa.String(), nullable=True),
        sa.Column("options", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=_NOW, nullable=False),
        sa.Column("removed_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "recipe IN ('native', 'float32', 'bfloat16', 'float16', 'int8_weights', 'int8', 'float8', 'int4_weights')",
            name=op.f("ck_variants_recipe"),
        ),
        sa.CheckConstraint(
            "engine IN ('auto', 'torch', 'openvino', 'vllm', 'encoder', 'echo')", name=op.f("ck_variants_engine")
        ),
        sa.CheckConstraint("device IN ('cpu', 'cuda')", name=op.f("ck_variants_device")),
        sa.CheckConstraint(
            "name = CASE WHEN label = '' THEN model ELSE model || '@' || label END", name=op.f("ck_variants_name")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_variants")),
        schema="nightrate",
    )
    op.create_index(
        "uq_variants_live",
        "variants",
        ["name"],
        unique=True,
        schema="nightrate",
        postgresql_where=sa.text("removed_at IS NULL"),
    )


def _create_qualifications() -> None:
    op.create_table(
        "qualifications",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("variant", sa.String(), nullable=False),
        sa.Column("tier", sa.String(), nullable=False),
        sa.Column("verdict", sa.String(), nullable=False),
        sa.Column("gate_key", sa.String(), nullable=True),
        sa.Column("reference", sa.String(), nullable=True),
        sa.Column("relative_cost", sa.Float(), nullable=True),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("report", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=_CLOCK, nullable=False),
        sa.CheckConstraint("tier IN ('urgent', 'standard', 'bulk', 'nightly')", name=op.f("ck_qualifications_tier")),
        sa.CheckConstraint(
            "verdict IN ('accepted', 'rejected', 'undecided', 'allowed')", name=op.f("ck_qualifications_verdict")
        ),
        sa.CheckConstraint("relative_cost > 0", name=op.f("ck_qualifications_relative_cost")),
        sa.CheckConstraint("reason <> ''", name=op.f("ck_qualifications_explained")),
        sa.CheckConstraint(
            "verdict IN ('allowed', 'rejected') OR gate_key IS NOT NULL", name=op.f("ck_qualifications_measured")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_qualifications")),
        schema="nightrate",
    )
    op.create_index(
        "ix_qualifications_variant",
        "qualifications",
        ["variant", "tier", sa.literal_column("id DESC")],
        unique=False,
        schema="nightrate",
    )


def _create_tunings() -> None:
    op.create_table(
        "tunings",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("variant", sa.String(), nullable=False),
        sa.Column("gate_key", sa.String(), nullable=False),
        sa.Column("device", sa.String(), nullable=False),
        sa.Column("options", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("figures", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=_CLOCK, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tunings")),
        sa.UniqueConstraint("variant", "gate_key", "device", name=op.f("uq_tunings_variant_gate_key_device")),
        schema="nightrate",
    )


def _widen_work() -> None:
    """Add the variant beside the model wherever work is named; what ran so far ran on references."""
    op.add_column("packs", sa.Column("variant", sa.String(), nullable=True), schema="nightrate")
    op.execute("UPDATE nightrate.packs SET variant = model")
    op.alter_column("packs", "variant", nullable=False, schema="nightrate")
    op.create_check_constraint(
        op.f("ck_packs_variant"),
        "packs",
        "variant = model OR starts_with(variant, model || '@')",
        schema="nightrate",
    )
    op.alter_column("workers", "models", new_column_name="variants", schema="nightrate")
    op.execute("""
        UPDATE nightrate.workers SET variants = coalesce(
            (SELECT jsonb_object_agg(name, '') FROM jsonb_array_elements_text(variants) AS served (name)), '{}')
    """)
    op.add_column("worker_intervals", sa.Column("variant", sa.String(), nullable=True), schema="nightrate")
    op.drop_index("ix_worker_intervals_speed", table_name="worker_intervals", schema="nightrate")
    op.create_index(
        "ix_worker_intervals_speed",
        "worker_intervals",
        ["variant", sa.literal_column("created_at DESC")],
        unique=False,
        schema="nightrate",
        postgresql_where=sa.text("kind = 'work'"),
    )
