"""Tariffs: what tenants are charged for what batches cost, as the price list has it.

A batch gets its terms when it is submitted and keeps them: a multiplier, which is a product of factors by name, and where
its model has a price per token, that price times the multiplier instead of a multiple of the cost.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from math import prod
from types import MappingProxyType
from typing import Final
from zoneinfo import ZoneInfo

from pipeline.domain.costs.charging import PAR_PPM, ChargeTerms
from pipeline.domain.figures import money
from pipeline.domain.money import amount
from pipeline.domain.tiers import Tier

#: A hundred times the cost is a typing error.
MULTIPLIER_MAX: Final = 100
DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_MINUTES_A_DAY: Final = 24 * 60
_NO_TIERS: Final[Mapping[Tier, int]] = MappingProxyType({})
_NO_PRICES: Final[Mapping[str, TokenPrices]] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenPrices:
    """What a token costs of a model, in 10^-12 of a unit: a millionth of a unit per million tokens."""

    input_picos: int
    output_picos: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Hours:
    """Some hours of the week with a factor of their own, such as night electricity's."""

    #: 0 is Monday: when the hours begin.
    days: frozenset[int]
    #: Of the day, the first and the one after the last; past midnight where they run backwards, all day where equal.
    start_minute: int
    stop_minute: int
    multiplier_ppm: int

    def has(self, local: datetime) -> bool:
        """Say whether a local time is in these hours."""
        minute, day = local.hour * 60 + local.minute, local.weekday()
        if self.start_minute < self.stop_minute:
            return day in self.days and self.start_minute <= minute < self.stop_minute
        began_today = day in self.days and minute >= self.start_minute
        return began_today or ((day - 1) % len(DAYS) in self.days and minute < self.stop_minute)


@dataclass(frozen=True, slots=True, kw_only=True)
class Elasticity:
    """A factor by how much of the fleet is free: the floor when all of it is, the ceiling when nothing is."""

    floor_ppm: int
    ceiling_ppm: int

    def multiplier_ppm(self, free_share: float) -> int:
        """Return the factor; `free_share` is of the live workers those without a pack."""
        assert 0 <= free_share <= 1
        return round(self.ceiling_ppm - (self.ceiling_ppm - self.floor_ppm) * free_share)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tariff:
    """What is charged; as it comes, what it cost."""

    tiers: Mapping[Tier, int] = field(default_factory=lambda: _NO_TIERS)
    #: The first that has a time counts.
    hours: tuple[Hours, ...] = ()
    #: In which the hours are told: a name such as `Europe/Berlin`.
    zone: str = "UTC"
    elasticity: Elasticity | None = None
    #: By model.
    prices: Mapping[str, TokenPrices] = field(default_factory=lambda: _NO_PRICES)

    def factors(self, *, tier: Tier, plan_ppm: int, at: datetime, free_share: float) -> dict[str, int]:
        """Return the factors of a batch that is submitted then, in millionths by name: those that change anything."""
        local = at.astimezone(ZoneInfo(self.zone))
        hours = next((each.multiplier_ppm for each in self.hours if each.has(local)), PAR_PPM)
        fleet = PAR_PPM if self.elasticity is None else self.elasticity.multiplier_ppm(free_share)
        found = {"tier": self.tiers.get(tier, PAR_PPM), "plan": plan_ppm, "hours": hours, "fleet": fleet}
        return {name: ppm for name, ppm in found.items() if ppm != PAR_PPM}

    def terms(self, factors: Mapping[str, int], model: str | None) -> ChargeTerms:
        """Return what is charged by these factors; of a model that is not known yet, as if it had no prices."""
        multiplier = multiplier_of(factors)
        prices = None if model is None else self.prices.get(model)
        if prices is None:
            return ChargeTerms(multiplier_ppm=multiplier)
        return ChargeTerms(
            multiplier_ppm=multiplier,
            input_token_picos=prices.input_picos * multiplier // PAR_PPM,
            output_token_picos=prices.output_picos * multiplier // PAR_PPM,
        )


def multiplier_of(factors: Mapping[str, int]) -> int:
    """Return the product of factors in millionths, rounded down."""
    return prod(factors.values()) // PAR_PPM ** (len(factors) - 1) if factors else PAR_PPM


def minute_of(clock: str) -> int:
    """Return the minute of the day of a clock time such as `22:30`; raises `ValueError`. `24:00` is the day's end."""
    hour, colon, minute = clock.partition(":")
    if not (colon and hour.isdecimal() and minute.isdecimal() and int(minute) < 60):  # noqa: PLR2004 -- minutes
        raise ValueError(f"{clock!r} is not a time of day such as 22:30")
    found = int(hour) * 60 + int(minute)
    if found > _MINUTES_A_DAY:
        raise ValueError(f"{clock!r} is past the end of the day")
    return found % _MINUTES_A_DAY


def price_document(terms: ChargeTerms, factors: Mapping[str, int]) -> dict[str, object]:
    """Return what is charged as a document has it: amounts as decimals, of tokens per million."""
    by_token = terms.input_token_picos is not None and terms.output_token_picos is not None
    return {
        "multiplier": amount(terms.multiplier_ppm),
        "factors": {name: amount(ppm) for name, ppm in factors.items()},
        # A pico a token is a millionth of a unit per million tokens.
        "input_per_million": amount(terms.input_token_picos or 0) if by_token else None,
        "output_per_million": amount(terms.output_token_picos or 0) if by_token else None,
    }


def price_sentence(terms: ChargeTerms, factors: Mapping[str, int], currency: str) -> str:
    """Return what is charged, and how that came about, as people read it."""
    product = " x ".join(f"{name} {amount(ppm)}" for name, ppm in factors.items())
    why = f" ({product})" if factors else ""
    if terms.input_token_picos is not None and terms.output_token_picos is not None:
        prices = f"{money(terms.input_token_picos, currency)} in, {money(terms.output_token_picos, currency)} out"
        return f"{prices}, per million tokens{why}"
    return f"{amount(terms.multiplier_ppm)} of its cost{why}" if factors else "its cost"


def tariff_document(tariff: Tariff) -> dict[str, object]:
    """Return a tariff as a document has it."""
    elastic = tariff.elasticity
    return {
        "tiers": {str(tier): amount(tariff.tiers.get(tier, PAR_PPM)) for tier in Tier},
        "zone": tariff.zone,
        "hours": [
            {
                "days": " ".join(DAYS[day] for day in sorted(each.days)),
                "from": _clock(each.start_minute),
                "to": _clock(each.stop_minute),
                "multiplier": amount(each.multiplier_ppm),
            }
            for each in tariff.hours
        ],
        "fleet": elastic and {"floor": amount(elastic.floor_ppm), "ceiling": amount(elastic.ceiling_ppm)},
        "tokens": {
            model: {"input_per_million": amount(each.input_picos), "output_per_million": amount(each.output_picos)}
            for model, each in tariff.prices.items()
        },
    }


def _clock(minute: int) -> str:
    return f"{minute // 60:02d}:{minute % 60:02d}"
