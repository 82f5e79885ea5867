"""`[rate_card]` in nightrate.toml: what is contracted with providers, what pools are made of, which disks are kept."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pipeline.domain.costs.billing_rules import BILLING_RULES, BillingRule, rule_of
from pipeline.domain.costs.prices import Market
from pipeline.domain.costs.rate_card import Commitment, Discount, Offer
from pipeline.domain.costs.volumes import Volume
from pipeline.domain.limits import RATE_MICROS_PER_HOUR_MAX
from pipeline.domain.money import MICROS_PER_UNIT

_RATE_MAX: Final = Decimal(RATE_MICROS_PER_HOUR_MAX) / MICROS_PER_UNIT
#: As providers write instance types, regions, zones.
_WORD: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"
_PROVIDER: Final = r"^[a-z0-9][a-z0-9_-]{0,62}$"
_POOL: Final = r"^[a-z0-9][a-z0-9-]{0,62}$"

_Word = Annotated[str, Field(pattern=_WORD)]
_Provider = Annotated[str, Field(pattern=_PROVIDER)]
_Rate = Annotated[Decimal, Field(ge=0, le=_RATE_MAX, decimal_places=6)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DiscountSettings(_Table):
    """What was negotiated off a provider's list prices."""

    provider: _Provider
    family: _Word | None = Field(default=None, description="An instance family or type. Default: all.")
    market: Literal["spot", "on_demand"] | None = Field(default=None, description="Default: both.")
    discount_ppm: Annotated[int, Field(ge=0, le=1_000_000)] = Field(description="Millionths off: 120000 is 12 %.")


class CommitmentSettings(_Table):
    """On-demand use that is paid for whether it is used or not."""

    provider: _Provider
    family: _Word | None = Field(default=None, description="An instance family or type. Default: all.")
    region: _Word | None = Field(default=None, description="Default: all.")
    workers: Annotated[int, Field(ge=1)] | None = Field(default=None, description="Covered at once. Default: all.")
    rate_per_hour: _Rate = Field(description="All that is paid for it, spread over the hours of one worker.")


class PoolSettings(_Table):
    """What the workers of a pool run on, and what they cost."""

    provider: _Provider | None = None
    instance_type: _Word | None = None
    region: _Word | None = None
    zone: _Word | None = Field(default=None, description="Best by its id, such as use1-az1.")
    rate_per_hour: _Rate | None = Field(default=None, description="A fixed price, whatever prices say.")
    billing_rule: str | None = Field(default=None, description="Default: the provider's for Linux.")

    @model_validator(mode="after")
    def _make_sense(self) -> PoolSettings:
        if (self.provider is None) != (self.instance_type is None):
            raise ValueError("provider and instance_type go together")
        if self.zone is not None and self.region is None:
            raise ValueError("a zone needs its region")
        if self.billing_rule is not None and self.billing_rule not in BILLING_RULES:
            raise ValueError(f"there is no billing rule {self.billing_rule!r}, but {', '.join(BILLING_RULES)}")
        return self


class VolumeSettings(_Table):
    """A disk that is paid for whether a machine runs on it or not."""

    provider: _Provider
    kind: _Word = Field(description="Its class, as the provider prices it, such as gp3.")
    gb: Annotated[Decimal, Field(gt=0, le=1_000_000, decimal_places=3)] = Field(description="Of 2^30 bytes each.")
    region: _Word | None = None
    since: date = Field(description="The first day that it is paid for, UTC.")
    until: date | None = Field(default=None, description="The first day without it. Default: it is kept.")

    @model_validator(mode="after")
    def _make_sense(self) -> VolumeSettings:
        if self.until is not None and self.until < self.since:
            raise ValueError("until comes before since")
        return self


class RateCardSettings(_Table):
    """Contracts with providers, and pools."""

    discounts: tuple[DiscountSettings, ...] = ()
    commitments: tuple[CommitmentSettings, ...] = ()
    pools: dict[Annotated[str, Field(pattern=_POOL)], PoolSettings] = Field(default_factory=dict)
    volumes: dict[Annotated[str, Field(pattern=_POOL)], VolumeSettings] = Field(default_factory=dict)

    def contracted(self) -> list[Discount]:
        """Return what was negotiated."""
        return [
            Discount(
                provider=each.provider,
                family=each.family,
                market=None if each.market is None else Market(each.market),
                discount_ppm=each.discount_ppm,
            )
            for each in self.discounts
        ]

    def committed(self) -> list[Commitment]:
        """Return what was committed to."""
        return [
            Commitment(
                provider=each.provider,
                family=each.family,
                region=each.region,
                workers=each.workers,
                rate_micros_per_hour=int(each.rate_per_hour * MICROS_PER_UNIT),
            )
            for each in self.commitments
        ]

    def kept_volumes(self) -> list[Volume]:
        """Return the volumes, by name."""
        return [
            Volume(
                name=name,
                provider=each.provider,
                kind=each.kind,
                region=each.region,
                size_bytes=int(each.gb * 1024**3),
                since=each.since,
                until=each.until,
            )
            for name, each in sorted(self.volumes.items())
        ]

    def offer_of(self, pool: str, market: str) -> Offer:
        """Return what a worker of that pool runs on, as far as it is known."""
        terms = self.pools.get(pool, PoolSettings())
        return Offer(
            market=Market(market),
            provider=terms.provider,
            instance_type=terms.instance_type,
            region=terms.region,
            zone=terms.zone,
            fixed_micros_per_hour=None if terms.rate_per_hour is None else int(terms.rate_per_hour * MICROS_PER_UNIT),
        )

    def billing_rule_of(self, pool: str, provider: str | None) -> BillingRule:
        """Return how workers of that pool are billed: by the pool's rule, or else by that of the provider they came from."""
        named = self.pools.get(pool, PoolSettings()).billing_rule
        return rule_of(provider) if named is None else BILLING_RULES[named]
