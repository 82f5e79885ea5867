"""The tables of prices, and of when providers were asked for them."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import CheckConstraint, Identity, Index, UniqueConstraint, func, text
from sqlalchemy.orm import Mapped, mapped_column

from pipeline.domain.costs.prices import Market, PriceSource, PriceUnit
from storage.base import Base, one_of


class PriceRow(Base):
    """What somebody said that one unit of an item costs from an instant on; append-only."""

    __tablename__ = "prices"
    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    provider: Mapped[str]
    #: What it is of depends on the unit: see `pipeline.domain.costs.prices`.
    name: Mapped[str]
    unit: Mapped[str]
    market: Mapped[str]
    #: Empty: any.
    region: Mapped[str]
    zone: Mapped[str]
    currency: Mapped[str]
    source: Mapped[str]
    effective_at: Mapped[datetime]
    #: Counts how often the source said something else of the same instant; the last holds.
    revision: Mapped[int]
    #: NULL: the source says nothing any more.
    unit_price_picos: Mapped[int | None]
    as_of: Mapped[datetime]
    origin: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    __table_args__ = (
        one_of("unit", PriceUnit),
        one_of("market", Market),
        one_of("source", PriceSource),
        CheckConstraint("currency ~ '^[A-Z]{3}$'", name="currency"),
        CheckConstraint("unit_price_picos BETWEEN 0 AND 10000000000000000", name="unit_price_picos"),
        CheckConstraint("zone = '' OR region <> ''", name="zone_has_region"),
        CheckConstraint("revision >= 0", name="revision"),
        # Also the way to what holds: the last word of each source for each item of a name.
        UniqueConstraint(
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
    )


class PriceRefreshRow(Base):
    """One question to a provider, and how many prices it answered; append-only."""

    __tablename__ = "price_refreshes"
    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    provider: Mapped[str]
    name: Mapped[str]
    market: Mapped[str]
    region: Mapped[str]
    asked_at: Mapped[datetime]
    prices: Mapped[int]
    __table_args__ = (
        one_of("market", Market),
        CheckConstraint("prices >= 0", name="prices"),
        Index("ix_price_refreshes_last", "name", "provider", "market", "region", text("asked_at DESC")),
    )
