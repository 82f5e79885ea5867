"""Prices of the catalogue as calculators take them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

from pipeline.domain.costs.catalogue import Hardware
from pipeline.domain.costs.prices import Market, Price, PriceUnit, rate_micros
from pipeline.report.calculators.fields import NAME_PATTERN
from pipeline.report.calculators.gpus import gpus
from pipeline.report.calculators.offers import MARKETS, ApiPrice, Offer

_TOKENS: Final = frozenset({PriceUnit.INPUT_TOKEN, PriceUnit.OUTPUT_TOKEN})


def offers_from(
    prices: Iterable[Price],
    hardware: Mapping[tuple[str, str], Hardware],
    *,
    provider: str,
    region: str,
) -> tuple[Offer, ...]:
    """Return a region's instances as offers, the cheapest first: of those with the same GPUs in a market the cheapest one.

    Instances whose GPU is not in the table are left out.
    """
    best: dict[tuple[str, int, str], Offer] = {}
    for price in prices:
        item = price.item
        inside = hardware.get((item.provider, item.name))
        gpu = None if inside is None else _gpu_name(inside)
        is_there = (item.provider, item.region, item.zone, item.unit) == (provider, region, None, PriceUnit.HOUR)
        if (
            not is_there
            or item.market not in MARKETS
            or inside is None
            or gpu is None
            or price.unit_price_picos is None
        ):
            continue
        offer = Offer(
            name=item.name,
            gpu=gpu,
            gpus=inside.gpu_count,
            market=str(item.market),
            price_micros_per_hour=rate_micros(price.unit_price_picos),
        )
        key = (offer.gpu, offer.gpus, offer.market)
        best[key] = min(best.get(key, offer), offer, key=_rank)
    return tuple(sorted(best.values(), key=_rank))


def apis_from(prices: Iterable[Price]) -> tuple[ApiPrice, ...]:
    """Return APIs that write and have batch prices, the cheapest first."""
    found: dict[str, dict[PriceUnit, int]] = {}
    for price in prices:
        item = price.item
        if item.market is Market.BATCH and item.unit in _TOKENS and price.unit_price_picos is not None:
            # A pico a token is a micro-unit a million tokens.
            found.setdefault(f"{item.name} (batch)", {})[item.unit] = price.unit_price_picos
    apis = [
        ApiPrice(
            name=name,
            price_micros_per_million_input=of[PriceUnit.INPUT_TOKEN],
            price_micros_per_million_output=of[PriceUnit.OUTPUT_TOKEN],
        )
        for name, of in found.items()
        # What has no price for output writes none: embeddings.
        if of.keys() == _TOKENS and of[PriceUnit.OUTPUT_TOKEN] and re.fullmatch(NAME_PATTERN, name)
    ]
    return tuple(
        sorted(
            apis, key=lambda api: (api.price_micros_per_million_input + api.price_micros_per_million_output, api.name)
        )
    )


def _rank(offer: Offer) -> tuple[int, str, str]:
    return offer.price_micros_per_hour, offer.name, offer.market


def _gpu_name(inside: Hardware) -> str | None:
    """Return the name of its GPU here, where some have their memory in it; None: it has none, or one not known here."""
    names = (f"{inside.gpu}-{inside.gpu_memory_gib}GB", str(inside.gpu))
    return next(
        (name for name in names if name in gpus() and gpus()[name].memory_gb == inside.gpu_memory_gib), None
    ) or (str(inside.gpu) if inside.gpu in gpus() else None)
