"""Prices as calculators take them: whoever has them hands them in."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Final

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
