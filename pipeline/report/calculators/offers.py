"""Prices as calculators take them: whoever has them hands them in."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import Final, Protocol

from pipeline.report.calculators.fields import amount_of, choice, count, name, number
from pipeline.report.calculators.gpus import gpus

_SPEED_MIN: Final = Decimal("0.001")
MARKETS: Final = ("spot", "on_demand", "reserved")


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """An instance type in a market, at a price; its speeds, where they were measured."""

    name: str = name("Name")
    gpu: str = choice("H100", "GPU", tuple(gpus()))
    gpus: int = count(1, "GPUs", low=1, high=64)
    market: str = choice("on_demand", "Market", MARKETS)
    price_micros_per_hour: int = amount_of("0", "Price", unit="USD/h")
    #: Of the whole instance, reading only and writing only; under a thousandth: not measured, and estimated from the
    #: GPU's figures.
    input_tokens_per_second: Decimal = number("0", "Input speed", unit="tokens/s", high="100000000")
    output_tokens_per_second: Decimal = number("0", "Output speed", unit="tokens/s", high="100000000")

    @property
    def is_measured(self) -> bool:
        """Say whether both speeds are known."""
        return min(self.input_tokens_per_second, self.output_tokens_per_second) >= _SPEED_MIN


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiPrice:
    """What somebody else's API takes for a million tokens."""

    name: str = name("Name")
    price_micros_per_million_input: int = amount_of("0", "Input", unit="USD/1M tokens")
    price_micros_per_million_output: int = amount_of("0", "Output", unit="USD/1M tokens")


class PricedInstance(Protocol):
    """What `offers_from` needs of a catalogue's row."""

    @property
    def instance_type(self) -> str:
        """Return its name."""

    @property
    def gpu(self) -> str:
        """Return its GPU, as the GPU table names it."""

    @property
    def gpus(self) -> int:
        """Return how many it has."""

    @property
    def market(self) -> str:
        """Return `spot`, `on_demand` or `reserved`."""

    @property
    def price_micros_per_hour(self) -> int:
        """Return its price."""


def offers_from(catalogue: Iterable[PricedInstance]) -> tuple[Offer, ...]:
    """Return a catalogue's instances as offers, cheapest first; those whose GPU is not in the table are left out."""
    found = [
        Offer(
            name=row.instance_type,
            gpu=row.gpu,
            gpus=row.gpus,
            market=row.market,
            price_micros_per_hour=row.price_micros_per_hour,
        )
        for row in catalogue
        if row.gpu in gpus() and row.market in MARKETS
    ]
    return tuple(sorted(found, key=lambda offer: (offer.price_micros_per_hour, offer.name, offer.market)))
