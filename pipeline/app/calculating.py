"""Calculations with the prices that this installation knows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Final

from pipeline.domain.costs import catalogue
from pipeline.domain.errors import UsageError
from pipeline.report.calculators.catalogue import Calculator
from pipeline.report.calculators.catalogued import apis_from, offers_from
from pipeline.report.calculators.fields import ROWS_MAX, fields_of, read
from pipeline.report.calculators.offers import ApiPrice, Offer

_REGION: Final = "us-east-1"


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceBook:
    """Prices for calculations that name none."""

    offers: tuple[Offer, ...] = ()
    apis: tuple[ApiPrice, ...] = ()


@cache
def known_prices() -> PriceBook:
    """Return what the catalogue says of AWS's GPUs in its largest region and of external APIs; any other is to be given."""
    known = catalogue.load()
    return PriceBook(
        offers=offers_from(known.prices, known.hardware, provider="aws", region=_REGION),
        apis=apis_from(known.prices),
    )


def inputs_from(calculator: Calculator, written: Mapping[str, str], book: PriceBook) -> object:
    """Return inputs as people wrote them, or raise `UsageError` naming the first that makes no sense."""
    inputs, problems = read(calculator.inputs, written)
    if problems:
        name, said = next(iter(problems.items()))
        raise UsageError(f"{name}: {said}")
    return with_prices(inputs, book)


def with_prices(inputs: Any, book: PriceBook) -> object:  # noqa: ANN401 -- one of the calculators' inputs
    """Return inputs with the known prices where they name none."""
    known: dict[str, Any] = {"offers": book.offers[:ROWS_MAX], "apis": book.apis[:ROWS_MAX]}
    missing = {
        each.name: known[each.name]
        for each in fields_of(type(inputs))
        if each.name in known and not getattr(inputs, each.name)
    }
    return replace(inputs, **missing)
