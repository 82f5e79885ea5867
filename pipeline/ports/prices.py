"""Prices as they pass between providers, the database and the command line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from pipeline.domain.costs.prices import Market, Price
from pipeline.domain.errors import NightrateError


class PriceFeedError(NightrateError):
    """The provider's prices cannot be had now; a later try may succeed."""

    code = "price_feed_unavailable"
    retryable = True


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceQuestion:
    """What a provider is asked at once: one instance type in one region, on some terms."""

    provider: str
    instance_type: str
    market: Market
    region: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Refresh:
    """One question that was asked, and how many prices were the answer."""

    question: PriceQuestion
    asked_at: datetime
    prices: int


class PriceFeed(Protocol):
    """A provider that can be asked for its prices."""

    def ask(self, question: PriceQuestion, *, since: datetime, now: datetime) -> Sequence[Price]:
        """Return the prices in force at `since` and all changes up to `now`; none where there is no such thing.

        Raises:
            UsageError: There are no credentials, or they do not allow it, or there is no such region.
            PriceFeedError: The provider could not be reached or was overloaded.
        """
        ...
