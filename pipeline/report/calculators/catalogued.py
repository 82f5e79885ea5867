"""Prices of a catalogue as calculators take them.

What a catalogue's rows must have is said here and nothing is imported, so that whoever has one hands it in.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final, Protocol

from pipeline.report.calculators.fields import NAME_PATTERN
from pipeline.report.calculators.gpus import gpus
from pipeline.report.calculators.offers import MARKETS, ApiPrice, Offer

_PICOS_PER_MICRO: Final = 10**6
#: Of a catalogue's prices: an hour of an instance type, a token of an external API.
_HOUR: Final = "hour"
_INPUT: Final = "input_token"
_OUTPUT: Final = "output_token"
_BATCH: Final = "batch"


class PricedItem(Protocol):
    """What has a price."""

    @property
    def provider(self) -> str:
        """Return whose it is."""

    @property
    def name(self) -> str:
        """Return the instance type, or the model of an API."""

    @property
    def unit(self) -> str:
        """Return what the price is for one of."""

    @property
    def market(self) -> str:
        """Return on what terms."""

    @property
    def region(self) -> str | None:
        """Return where; None: anywhere."""

    @property
    def zone(self) -> str | None:
        """Return where in the region; None: anywhere there."""


class CataloguePrice(Protocol):
    """One price, in millionths of a micro-unit."""

    @property
    def item(self) -> PricedItem:
        """Return what has it."""

    @property
    def unit_price_picos(self) -> int:
        """Return what one of it takes."""


class InstanceHardware(Protocol):
    """What is in an instance type."""

    @property
    def gpu(self) -> str | None:
        """Return the kind of its GPUs."""

    @property
    def gpu_count(self) -> int:
        """Return how many it has."""

    @property
    def gpu_memory_gib(self) -> int:
        """Return the memory of one, as its maker counts."""


def offers_from(
    prices: Iterable[CataloguePrice],
    hardware: Mapping[tuple[str, str], InstanceHardware],
    *,
    provider: str,
    region: str,
) -> tuple[Offer, ...]:
    """Return a region's instances as offers, the cheapest first: of those with the same GPUs in a market the cheapest one.

    Instances whose GPU is not in the table are left out. Fractions of a micro-unit are rounded, halves to the even one.
    """
    best: dict[tuple[str, int, str], Offer] = {}
    for price in prices:
        item = price.item
        inside = hardware.get((item.provider, item.name))
        gpu = None if inside is None else _gpu_name(inside)
        is_there = (item.provider, item.region, item.zone, item.unit) == (provider, region, None, _HOUR)
        if not is_there or inside is None or gpu is None or item.market not in MARKETS:
            continue
        offer = Offer(
            name=item.name,
            gpu=gpu,
            gpus=inside.gpu_count,
            market=str(item.market),
            price_micros_per_hour=round(price.unit_price_picos / _PICOS_PER_MICRO),
        )
        key = (offer.gpu, offer.gpus, offer.market)
        best[key] = min(best.get(key, offer), offer, key=_rank)
    return tuple(sorted(best.values(), key=_rank))


def apis_from(prices: Iterable[CataloguePrice]) -> tuple[ApiPrice, ...]:
    """Return APIs that write and have batch prices, the cheapest first."""
    found: dict[str, dict[str, int]] = {}
    for price in prices:
        item = price.item
        if item.market == _BATCH and item.unit in {_INPUT, _OUTPUT}:
            # A pico a token is a micro-unit a million tokens.
            found.setdefault(f"{item.name} (batch)", {})[str(item.unit)] = price.unit_price_picos
    apis = [
        ApiPrice(name=name, price_micros_per_million_input=of[_INPUT], price_micros_per_million_output=of[_OUTPUT])
        for name, of in found.items()
        # What has no price for output writes none: embeddings.
        if of.keys() == {_INPUT, _OUTPUT} and of[_OUTPUT] and re.fullmatch(NAME_PATTERN, name)
    ]
    return tuple(
        sorted(
            apis, key=lambda api: (api.price_micros_per_million_input + api.price_micros_per_million_output, api.name)
        )
    )


def _rank(offer: Offer) -> tuple[int, str, str]:
    return offer.price_micros_per_hour, offer.name, offer.market


def _gpu_name(inside: InstanceHardware) -> str | None:
    """Return the name of its GPU here, where some have their memory in it; None: it has none, or one not known here."""
    names = (f"{inside.gpu}-{inside.gpu_memory_gib}GB", str(inside.gpu))
    return next(
        (name for name in names if name in gpus() and gpus()[name].memory_gb == inside.gpu_memory_gib), None
    ) or (str(inside.gpu) if inside.gpu in gpus() else None)
