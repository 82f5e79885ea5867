"""The tables of the registry: variants, what the gate said of them, what was tuned, how they do in production.

Whoever imports this module has all tables above it in `Base.metadata`, too.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, Identity, Index, Integer, UniqueConstraint, func, text
from sqlalchemy.orm import Mapped, mapped_column

from pipeline.domain.gates import GateVerdict
from pipeline.domain.models import DeviceClass, EngineKind, Recipe
from pipeline.domain.shadow import SampleState
from pipeline.domain.tiers import Tier
from storage import journal_tables
from storage.base import Base, one_of
from storage.tables import BatchRow, PartRow, ShardRow

assert journal_tables.EntryRow.metadata is Base.metadata


class VariantRow(Base):
    """One way of running a model. A removed one stays, because packs and verdicts name it."""

    __tablename__ = "variants"
    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    #: MODEL, or MODEL@LABEL.
    name: Mapped[str]
    model: Mapped[str]
    label: Mapped[str]
    source: Mapped[str]
    revision: Mapped[str]
    recipe: Mapped[str]
    engine: Mapped[str]
    device: Mapped[str | None]
    options: Mapped[dict[str, Any]]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    removed_at: Mapped[datetime | None]
    __table_args__ = (
        one_of("recipe", Recipe),
        one_of("engine", EngineKind),
        one_of("device", DeviceClass),
        CheckConstraint("name = CASE WHEN label = '' THEN model ELSE model || '@' || label END", name="name"),
        Index("uq_variants_live", "name", unique=True, postgresql_where=text("removed_at IS NULL")),
    )


class QualificationRow(Base):
    """One verdict: append-only, the last one of a (variant, gate key, tier) holds."""

    __tablename__ = "qualifications"
    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    variant: Mapped[str]
    tier: Mapped[str]
    verdict: Mapped[str]
    #: NULL: said by a person, whatever the variant becomes.
    gate_key: Mapped[str | None]
    reference: Mapped[str | None]
    #: Device time a token takes, relative to the reference.
    relative_cost: Mapped[float | None]
    reason: Mapped[str]
    report: Mapped[dict[str, Any]]
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    __table_args__ = (
        one_of("tier", Tier),
        one_of("verdict", GateVerdict),
        CheckConstraint("relative_cost > 0", name="relative_cost"),
        CheckConstraint("reason <> ''", name="explained"),
        CheckConstraint("verdict IN ('allowed', 'rejected') OR gate_key IS NOT NULL", name="measured"),
        Index("ix_qualifications_variant", "variant", "tier", text("id DESC")),
    )


class TuningRow(Base):
    """The engine options found best for a variant on one kind of device."""

    __tablename__ = "tunings"
    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    variant: Mapped[str]
    gate_key: Mapped[str]
    device: Mapped[str]
    options: Mapped[dict[str, Any]]
    figures: Mapped[dict[str, Any]]
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    __table_args__ = (UniqueConstraint("variant", "gate_key", "device"),)


class ShadowSampleRow(Base):
    """A row that ran on a variant and is to be judged by the reference: where it lies and what was found, never what it says."""

    __tablename__ = "shadow_samples"
    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    model: Mapped[str]
    variant: Mapped[str]
    gate_key: Mapped[str]
    batch_id: Mapped[str] = mapped_column(ForeignKey(BatchRow.id))
    shard_id: Mapped[int] = mapped_column(ForeignKey(ShardRow.id))
    position: Mapped[int] = mapped_column(Integer)
    part_id: Mapped[str] = mapped_column(ForeignKey(PartRow.id))
    line_no: Mapped[int] = mapped_column(Integer)
    state: Mapped[str] = mapped_column(server_default="waiting")
    #: The loss, as a share of 1, and over how many tokens.
    x: Mapped[float | None]
    tokens: Mapped[int | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    #: Somebody is at it until then.
    claimed_until: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]
    __table_args__ = (
        one_of("state", SampleState),
        # No row is judged twice.
        UniqueConstraint("shard_id", "position"),
        CheckConstraint("x BETWEEN -1 AND 1", name="x"),
        CheckConstraint("(state = 'judged') = (x IS NOT NULL AND tokens IS NOT NULL)", name="judged"),
        CheckConstraint("(state = 'waiting') = (ended_at IS NULL)", name="ended"),
        Index("ix_shadow_samples_waiting", "model", text("id DESC"), postgresql_where=text("state = 'waiting'")),
        Index("ix_shadow_samples_ended", "ended_at", postgresql_where=text("state <> 'waiting'")),
    )


class WatchRow(Base):
    """What was seen of a variant in production since it was let run: one sequential test for each gate key and tier."""

    __tablename__ = "watches"
    variant: Mapped[str] = mapped_column(primary_key=True)
    gate_key: Mapped[str] = mapped_column(primary_key=True)
    tier: Mapped[str] = mapped_column(primary_key=True)
    #: As `pipeline.domain.shadow.Watch` writes it.
    watch: Mapped[dict[str, Any]]
    began_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    seen_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    __table_args__ = (one_of("tier", Tier),)
