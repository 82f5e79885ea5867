"""Tiers: priority classes, each with a weight and a default window."""

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

assert set(WEIGHTS) == set(DEFAULT_WINDOWS) == set(Tier)
