"""Prices as JSON and as lines of a table: the same facts, for programs and for people."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from pipeline.app.pricing import Standing
from pipeline.domain.costs.prices import Item, Price, PriceUnit, price_text
from pipeline.entrypoints.cli.figures import duration, moment


def price_document(price: Price, now: datetime, *, confirmed_at: datetime | None = None) -> dict[str, object]:
    """Return one price, and how old it is."""
    picos = price.unit_price_picos
    return {
        **_item_document(price.item),
        "price": None if picos is None else price_text(picos),
        "unit_price_picos": picos,
        "currency": price.currency,
        "effective_at": price.effective_at.isoformat(),
        "source": str(price.source),
        "origin": price.origin,
        "as_of": price.as_of.isoformat(),
        "age_seconds": max(0, round((now - (confirmed_at or price.as_of)).total_seconds())),
    }


def standing_document(standing: Standing, now: datetime) -> dict[str, object]:
    """Return an item with what holds and what is to come."""
    return {
        **_item_document(standing.item),
        "holds": None
        if standing.price is None
        else price_document(standing.price, now, confirmed_at=standing.confirmed_at),
        "scheduled": [price_document(price, now) for price in standing.scheduled],
    }


def _item_document(item: Item) -> dict[str, object]:
    return {
        "provider": item.provider,
        "name": item.name,
        "unit": str(item.unit),
        "market": str(item.market),
        "region": item.region,
        "zone": item.zone,
    }


def price_rows(standing: Standing, now: datetime) -> list[tuple[str, ...]]:
    """Return an item's lines: what holds, and what is to come."""
    item = standing.item
    place = (item.provider, item.name, str(item.market), item.region or "any", item.zone or "any")
    rows: list[tuple[str, ...]] = []
    if (price := standing.price) is not None:
        age = duration(max(0.0, (now - (standing.confirmed_at or price.as_of)).total_seconds()))
        rows.append((*place, amount_text(price), str(item.unit), str(price.source), age))
    for price in standing.scheduled:
        until = f"{price.source} from {moment(price.effective_at)}"
        rows.append((*place, amount_text(price), str(item.unit), until, ""))
    return rows


SUMMARY_HEADS: Final = ("PROVIDER", "FAMILY", "MARKET", "FOR", "NAMES", "PRICES", "FROM", "TO", "AGE")


def summary_rows(found: Sequence[Standing], now: datetime) -> list[tuple[str, ...]]:
    """Return a line for each family of a provider: how many prices hold, the lowest, the highest, the ages."""
    groups: dict[tuple[str, str, str, str], list[tuple[Price, datetime, str]]] = defaultdict(list)
    for each in found:
        if (price := each.price) is not None and price.unit_price_picos is not None:
            item = each.item
            key = item.provider, _family_of(item), str(item.market), str(item.unit)
            groups[key].append((price, each.confirmed_at or price.as_of, item.name))
    rows: list[tuple[str, ...]] = []
    for key, prices in sorted(groups.items()):
        ordered = sorted((price for price, _, _ in prices), key=lambda price: price.unit_price_picos or 0)
        ages = sorted(max(0.0, (now - at).total_seconds()) for _, at, _ in prices)
        youngest, oldest = duration(ages[0]), duration(ages[-1])
        names = len({name for _, _, name in prices})
        age = youngest if youngest == oldest else f"{youngest} to {oldest}"
        rows.append((*key, str(names), str(len(prices)), amount_text(ordered[0]), amount_text(ordered[-1]), age))
    return rows


def _family_of(item: Item) -> str:
    # Tokens and bytes sent have no families, and a provider has many models and regions.
    match item.unit:
        case PriceUnit.GB:
            return "transfer"
        case PriceUnit.INPUT_TOKEN | PriceUnit.CACHED_INPUT_TOKEN | PriceUnit.OUTPUT_TOKEN:
            return "models"
        case _:
            return item.name.partition(".")[0]


def amount_text(price: Price) -> str:
    """Return a price with its currency."""
    return "-" if price.unit_price_picos is None else f"{price_text(price.unit_price_picos)} {price.currency}"
