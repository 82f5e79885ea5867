"""Tiers: priority classes, each with a weight, a default window and a margin of accuracy."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final


class Tier(StrEnum):
    """How much of a contended fleet a batch gets."""

    URGENT = "urgent"
    STANDARD = "standard"
    BULK = "bulk"
    NIGHTLY = "nightly"


#: Shares of a contended pool, relative to one another: an urgent batch gets twice a standard one's.
WEIGHTS: Final[Mapping[Tier, int]] = MappingProxyType({Tier.URGENT: 8, Tier.STANDARD: 4, Tier.BULK: 2, Tier.NIGHTLY: 1})

DEFAULT_WINDOWS: Final[Mapping[Tier, str]] = MappingProxyType(
    {Tier.URGENT: "1h", Tier.STANDARD: "24h", Tier.BULK: "24h", Tier.NIGHTLY: "24h"}
)

#: How much worse than the reference a variant may answer and still serve the tier, in percentage points of accuracy.
ACCURACY_MARGIN_POINTS: Final[Mapping[Tier, float]] = MappingProxyType(
    {Tier.URGENT: 1.0, Tier.STANDARD: 1.0, Tier.BULK: 2.0, Tier.NIGHTLY: 3.0}
)

assert set(WEIGHTS) == set(DEFAULT_WINDOWS) == set(ACCURACY_MARGIN_POINTS) == set(Tier)
