"""Calculations with the prices that this installation knows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from pipeline.domain.errors import UsageError
from pipeline.report.calculators.catalogue import Calculator
from pipeline.report.calculators.fields import ROWS_MAX, fields_of, read
from pipeline.report.calculators.offers import ApiPrice, Offer


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceBook:
    """Prices for calculations that name none."""

    offers: tuple[Offer, ...] = ()
    apis: tuple[ApiPrice, ...] = ()


def known_prices() -> PriceBook:
    """Return the prices that are known here: none, until there is a price catalogue to read them from."""
    return PriceBook()


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
