"""The tables of the fleet: machines that were asked for, and how many workers each pool is to have."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import CheckConstraint, Index, Integer, func, text
from sqlalchemy.orm import Mapped, mapped_column

from pipeline.domain.lifecycle import RentalState
from pipeline.ports.fleet import FleetReason, RefusalKind
from storage.base import Base, one_of


class RentalRow(Base):
    """A machine that was asked for, from before it is launched until its provider has it no more.

    It is written before the provider is asked, so that whatever is launched is known here; its worker has a row of its own
    from the moment that it costs something.
    """

    __tablename__ = "rentals"
    worker_id: Mapped[str] = mapped_column(primary_key=True)
    pool: Mapped[str]
    offer: Mapped[str]
    #: What starts and stops it.
    provider: Mapped[str]
    market: Mapped[str]
    state: Mapped[str] = mapped_column(server_default="requested")
    #: Why it was asked for.
    reason: Mapped[str]
    requested_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    #: When it must be gone, whatever happens.
    ends_by: Mapped[datetime]
    launched_at: Mapped[datetime | None]
    #: As its provider's bill names it.
    provider_id: Mapped[str | None]
    #: Why it is to go, and since when.
    stop_reason: Mapped[str | None]
    stop_asked_at: Mapped[datetime | None]
    refusal: Mapped[str | None]
    #: In the provider's words.
    message: Mapped[str | None]
    ended_at: Mapped[datetime | None]
    __table_args__ = (
        one_of("state", RentalState),
        one_of("reason", FleetReason),
        one_of("stop_reason", FleetReason),
        one_of("refusal", RefusalKind),
        CheckConstraint("market IN ('spot', 'on_demand')", name="market"),
        CheckConstraint("(state IN ('gone', 'refused')) = (ended_at IS NOT NULL)", name="ended"),
        CheckConstraint("(state = 'refused') = (refusal IS NOT NULL)", name="refused"),
        CheckConstraint("(provider_id IS NULL) = (launched_at IS NULL)", name="launched"),
        CheckConstraint("state NOT IN ('launched', 'stopping') OR launched_at IS NOT NULL", name="costs"),
        CheckConstraint("(stop_reason IS NULL) = (stop_asked_at IS NULL)", name="stop"),
        Index("ix_rentals_open", "pool", postgresql_where=text("state NOT IN ('gone', 'refused')")),
        # What an offer did lately: whether it can be had is learned from it.
        Index("ix_rentals_offer", "offer", "requested_at"),
    )


class PoolWantedRow(Base):
    """How many workers a pool is to have by the last decision, and why."""

    __tablename__ = "pools_wanted"
    pool: Mapped[str] = mapped_column(primary_key=True)
    wanted: Mapped[int] = mapped_column(Integer)
    on_demand_wanted: Mapped[int] = mapped_column(Integer)
    reason: Mapped[str]
    #: Predicted worker-seconds of the work that is placed there.
    work_seconds: Mapped[float]
    decided_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    #: Since when it is this number for this reason.
    since: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    __table_args__ = (
        one_of("reason", FleetReason),
        CheckConstraint("wanted >= on_demand_wanted AND on_demand_wanted >= 0", name="wanted"),
    )
