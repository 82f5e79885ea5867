"""The settings of what is charged."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Literal, get_args
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from pipeline.domain.costs.charging import PAR_PPM
from pipeline.domain.costs.tariffs import (
    DAYS,
    MULTIPLIER_MAX,
    Elasticity,
    Hours,
    Tariff,
    TokenPrices,
    minute_of,
)
from pipeline.domain.money import MICROS_PER_UNIT
from pipeline.domain.tiers import Tier


def _check_clock(clock: str) -> str:
    minute_of(clock)
    return clock


def _check_zone(zone: str) -> str:
    try:
        ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"{zone!r} is not a time zone such as Europe/Berlin") from None
    return zone


Multiplier = Annotated[Decimal, Field(ge=0, le=MULTIPLIER_MAX, decimal_places=6)]
TokenPrice = Annotated[Decimal, Field(ge=0, le=100_000, decimal_places=6)]


def ppm_of(multiplier: Decimal) -> int:
    """Return a multiplier in millionths."""
    return int(multiplier * PAR_PPM)


_Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
assert get_args(_Day) == DAYS


class TokenPriceSettings(BaseModel):
    """What tokens of a model are charged, in `currency` per million."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    input_per_million: TokenPrice
    output_per_million: TokenPrice


class HoursSettings(BaseModel):
    """Hours of the week with a price of their own."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    days: list[_Day] = Field(default=list(get_args(_Day)), description="On which they begin. Default: all.")
    start: Annotated[str, AfterValidator(_check_clock)] = Field(alias="from", description="Such as 22:00.")
    stop: Annotated[str, AfterValidator(_check_clock)] = Field(
        alias="to", description="Such as 06:00; before `from`, it is the next day's."
    )
    multiplier: Multiplier


class ElasticitySettings(BaseModel):
    """A price by how much of the fleet is free when a batch is submitted."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    floor: Multiplier = Field(description="While all workers are free.")
    ceiling: Multiplier = Field(description="While none is.")

    @model_validator(mode="after")
    def _rise(self) -> ElasticitySettings:
        if self.floor > self.ceiling:
            raise ValueError("the floor is above the ceiling")
        return self


class TariffSettings(BaseModel):
    """What is charged besides by tier, plan and token: by the hour, and by how busy the fleet is."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    zone: Annotated[str, AfterValidator(_check_zone)] = Field(
        default="UTC", description="Time zone of the hours, such as Europe/Berlin."
    )
    hours: list[HoursSettings] = Field(default_factory=list, description="The first that has a time counts.")
    fleet: ElasticitySettings | None = None


def tariff_of(
    tiers: Mapping[Tier, Decimal], settings: TariffSettings, prices: Mapping[str, TokenPriceSettings]
) -> Tariff:
    """Return what is charged by these settings."""
    elastic = settings.fleet
    return Tariff(
        tiers={tier: ppm_of(multiplier) for tier, multiplier in tiers.items()},
        hours=tuple(
            Hours(
                days=frozenset(DAYS.index(day) for day in each.days),
                start_minute=minute_of(each.start),
                stop_minute=minute_of(each.stop),
                multiplier_ppm=ppm_of(each.multiplier),
            )
            for each in settings.hours
        ),
        zone=settings.zone,
        elasticity=None
        if elastic is None
        else Elasticity(floor_ppm=ppm_of(elastic.floor), ceiling_ppm=ppm_of(elastic.ceiling)),
        # A millionth of a unit per million tokens is a pico a token.
        prices={
            model: TokenPrices(
                input_picos=int(each.input_per_million * MICROS_PER_UNIT),
                output_picos=int(each.output_per_million * MICROS_PER_UNIT),
            )
            for model, each in prices.items()
        },
    )
