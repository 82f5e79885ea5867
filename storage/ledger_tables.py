"""The tables of record: what time cost and who pays, who led, and what was decided."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, Identity, Index, func, text
from sqlalchemy.orm import Mapped, mapped_column

from pipeline.domain.lifecycle import IntervalKind
from pipeline.domain.reasons import Reason
from pipeline.domain.shares import SplitRule
from pipeline.ports.cycle import LearnedKind
from storage.base import Base, one_of
from storage.tables import BatchRow, PackRow, WorkerRow


class IntervalRow(Base):
    """A span of a worker's life with its price; spans follow one another without a gap."""

    __tablename__ = "worker_intervals"
    worker_id: Mapped[str] = mapped_column(ForeignKey(WorkerRow.id), primary_key=True)
    start_us: Mapped[int] = mapped_column(primary_key=True)
    stop_us: Mapped[int]
    kind: Mapped[str]
    pack_id: Mapped[str | None] = mapped_column(ForeignKey(PackRow.id))
    lease_token: Mapped[int | None]
    model: Mapped[str | None]
    variant: Mapped[str | None]
    tokens: Mapped[int] = mapped_column(server_default="0")
    rate_micros_per_hour: Mapped[int]
    cost_micros: Mapped[int]
    #: How its price was split over batches; none where no batch pays, and where tokens did before there were rules.
    split_rule: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    __table_args__ = (
        one_of("kind", IntervalKind),
        CheckConstraint("0 <= start_us AND start_us < stop_us", name="forward"),
        # The telescoping price of pipeline.domain.money.metered_cost_micros, checked by the database.
        CheckConstraint(
            "cost_micros = div(rate_micros_per_hour::numeric * stop_us, 3600000000)"
            " - div(rate_micros_per_hour::numeric * start_us, 3600000000)",
            name="price",
        ),
        CheckConstraint("(kind = 'work') = (pack_id IS NOT NULL)", name="work_has_pack"),
        one_of("split_rule", SplitRule),
        CheckConstraint("kind = 'work' OR split_rule IS NULL", name="work_is_split"),
        Index("ix_worker_intervals_speed", "variant", text("created_at DESC"), postgresql_where=text("kind = 'work'")),
        Index("ix_worker_intervals_pack_id", "pack_id", postgresql_where=text("pack_id IS NOT NULL")),
    )


class LeadershipRow(Base):
    """Which scheduler leads; each write of a scheduler names the epoch it leads in."""

    __tablename__ = "leadership"
    singleton: Mapped[bool] = mapped_column(primary_key=True, server_default="true")
    epoch: Mapped[int]
    holder: Mapped[str]
    elected_at: Mapped[datetime] = mapped_column(server_default=func.now())
    #: The fair queue's memory between cycles, as `scheduler` wrote it.
    fair_tags: Mapped[list[Any]] = mapped_column(server_default="[]")
    __table_args__ = (CheckConstraint("singleton", name="one_row"),)


class PredictionRow(Base):
    """What the scheduler learned: seconds of a variant in a pool, or tokens of a model for a template."""

    __tablename__ = "predictions"
    kind: Mapped[str] = mapped_column(primary_key=True)
    subject: Mapped[str] = mapped_column(primary_key=True)
    detail: Mapped[str] = mapped_column(primary_key=True)
    #: As `scheduler.prediction` wrote it.
    state: Mapped[dict[str, Any]]
    updated_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    __table_args__ = (one_of("kind", LearnedKind), Index("ix_predictions_updated_at", "updated_at"))


class DecisionRow(Base):
    """Why a batch came to stand where it stands: one row for each change of reason."""

    __tablename__ = "decisions"
    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    batch_id: Mapped[str] = mapped_column(ForeignKey(BatchRow.id))
    reason: Mapped[str]
    epoch: Mapped[int | None]
    decided_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    __table_args__ = (one_of("reason", Reason), Index("ix_decisions_batch_id", "batch_id", "id"))
