"""Admission: whether a batch may enter on the condition that its deadline is promised, and what would be accepted.

A quote decides nothing: it keeps away what would be refused anyway, with a counter-offer. Whether a deadline is
promised the cycle alone says, of one snapshot, so that two batches are never promised the same seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.domain.tiers import Tier
from pipeline.ports.quotes import TierQuote


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """Terms that would be accepted now in one tier."""

    tier: Tier
    #: The shortest window that could be promised, in seconds, where the asked one cannot be; None: the asked one can.
    window_seconds: float | None
    #: The least budget that covers the quoted upper cost, where the asked one does not; None: the asked one does.
    budget_micros: int | None
    currency: str

    @property
    def is_as_asked(self) -> bool:
        """Say whether nothing but the tier would have to change."""
        return self.window_seconds is None and self.budget_micros is None


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """What a batch is told before it is submitted."""

    #: None: no live worker serves the model to the asked tier.
    asked: Offer | None
    #: The other tiers that would do with no more changes than that.
    others: tuple[Offer, ...]

    @property
    def is_likely(self) -> bool:
        """Say whether the batch would be accepted as asked now."""
        return self.asked is not None and self.asked.is_as_asked


def judge_admission(quotes: Sequence[TierQuote], *, tier: Tier, budget_micros: int | None) -> Admission:
    """Return whether the asked tier would accept the batch as it was quoted, and what tiers would accept."""
    offers = {quote.tier: offer for quote in quotes if (offer := _offer(quote, budget_micros)) is not None}
    asked = offers.get(tier)
    others = tuple(
        offer
        for offer in offers.values()
        if offer.tier is not tier and (offer.is_as_asked or asked is None or _is_nearer(offer, asked))
    )
    return Admission(asked=asked, others=others)


def _offer(quote: TierQuote, budget_micros: int | None) -> Offer | None:
    if quote.variant is None or quote.cost_micros is None or quote.promise_seconds is None:
        return None
    upper = quote.cost_micros[1]
    return Offer(
        tier=quote.tier,
        window_seconds=None if quote.can_promise else quote.promise_seconds,
        budget_micros=None if budget_micros is None or upper <= budget_micros else upper,
        currency=quote.currency,
    )


def _is_nearer(offer: Offer, asked: Offer) -> bool:
    """Say whether an offer is nearer to what was asked in one way, and in no way further from it."""
    mine = (offer.window_seconds or 0.0, offer.budget_micros or 0)
    theirs = (asked.window_seconds or 0.0, asked.budget_micros or 0)
    return mine != theirs and mine[0] <= theirs[0] and mine[1] <= theirs[1]
