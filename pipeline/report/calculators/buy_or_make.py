"""Buy tokens from somebody's API, or make them: what a month costs either way, and from which volume making pays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal
from typing import Final

from pipeline.report.calculators.fields import Kind, amount_of, count, exactly, micros, name, rows, shown
from pipeline.report.calculators.offers import ApiPrice

_MILLION: Final = 10**6
_TOKENS_MAX: Final = 10**15
_WORKED_OUT: Final = "assumed; `nightrate cost calc model` works it out"


@dataclass(frozen=True, slots=True, kw_only=True)
class Making:
    """A way to make tokens: what a million takes, and what a month takes whatever runs."""

    name: str = name("Name")
    price_micros_per_million_input: int = amount_of("0", "Input", unit="USD/1M tokens")
    price_micros_per_million_output: int = amount_of("0", "Output", unit="USD/1M tokens")
    fixed_micros_per_month: int = amount_of("0", "Fixed", unit="USD/month")


@dataclass(frozen=True, slots=True, kw_only=True)
class BuyOrMakeInputs:
    """A workload, who sells it and how it could be made."""

    input_tokens_per_month: int = count(
        2_000_000_000, "Input in a month", unit="tokens", source="assumed", high=_TOKENS_MAX
    )
    output_tokens_per_month: int = count(
        500_000_000, "Output in a month", unit="tokens", source="assumed", high=_TOKENS_MAX
    )
    own_micros_per_million_input: int = amount_of("0.05", "Making, input", unit="USD/1M", source=_WORKED_OUT)
    own_micros_per_million_output: int = amount_of("0.40", "Making, output", unit="USD/1M", source=_WORKED_OUT)
    own_micros_per_month: int = amount_of(
        "150", "Making, whatever runs", unit="USD/month", source="assumed: database, object store, one small machine"
    )
    apis: tuple[ApiPrice, ...] = rows(ApiPrice, "APIs and their batch prices", source="given, or the price catalogue")
    makings: tuple[Making, ...] = rows(Making, "Other ways to make", source="given")


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One way to have the month's tokens."""

    rank: int = shown(Kind.COUNT, "Rank")
    name: str = shown(Kind.NAME, "Name")
    kind: str = shown(Kind.NAME, "Kind")
    price_micros_per_million_input: int = shown(Kind.AMOUNT, "Input", "USD/1M")
    price_micros_per_million_output: int = shown(Kind.AMOUNT, "Output", "USD/1M")
    fixed_micros_per_month: int = shown(Kind.AMOUNT, "Fixed", "USD/month")
    cost_micros_per_month: int = shown(Kind.AMOUNT, "Month", "USD")
    cost_micros_per_million: int | None = shown(Kind.AMOUNT, "All in, blended", "USD/1M")
    #: Of a purchase: against the cheapest making; of a making: against the cheapest purchase. Same mix of input and output.
    break_even_tokens_per_month: int | None = shown(Kind.COUNT, "Making is cheaper from", "tokens/month")


@dataclass(frozen=True, slots=True, kw_only=True)
class BuyOrMake:
    """The options, the cheapest first."""

    tokens_per_month: int = shown(Kind.COUNT, "Tokens in a month")
    cheapest: str = shown(Kind.NAME, "Cheapest")
    verdict: str = shown(Kind.NAME, "Buy or make")
    saving_micros_per_month: int | None = shown(
        Kind.AMOUNT, "Saved against the cheapest of the other kind", "USD/month"
    )
    options: tuple[Option, ...] = shown(Kind.ROWS, "Options", row=Option)


FORMULAS: Final[Mapping[str, str]] = {"tokens_per_month": "input_tokens_per_month+output_tokens_per_month"}
ROW_FORMULAS: Final[Mapping[str, Mapping[str, str]]] = {
    "options": {
        "cost_per_month": "(input_tokens_per_month*[price_per_million_input]+output_tokens_per_month*"
        "[price_per_million_output])/1000000+[fixed_per_month]",
        "cost_per_million": 'IF(tokens_per_month=0,"no tokens",[cost_per_month]/tokens_per_month*1000000)',
    }
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Way:
    name: str
    kind: str
    input_price: int
    output_price: int
    fixed: int


@exactly
def buy_or_make(inputs: BuyOrMakeInputs) -> BuyOrMake:
    """Return the options ranked; money is rounded once, at the end."""
    ways = _ways(inputs)
    tokens = inputs.input_tokens_per_month + inputs.output_tokens_per_month
    costs = {way: _variable(inputs, way) + way.fixed for way in ways}
    ranked = sorted(ways, key=lambda way: (costs[way], way.name))
    best = {kind: next((way for way in ranked if way.kind == kind), None) for kind in ("buy", "make")}
    other = best["buy" if ranked[0].kind == "make" else "make"]
    options = tuple(
        Option(
            rank=rank,
            name=way.name,
            kind=way.kind,
            price_micros_per_million_input=way.input_price,
            price_micros_per_million_output=way.output_price,
            fixed_micros_per_month=way.fixed,
            cost_micros_per_month=micros(costs[way]),
            cost_micros_per_million=micros(costs[way] * _MILLION / tokens) if tokens else None,
            break_even_tokens_per_month=_break_even(
                inputs, buy=way if way.kind == "buy" else best["buy"], make=way if way.kind == "make" else best["make"]
            ),
        )
        for rank, way in enumerate(ranked, start=1)
    )
    return BuyOrMake(
        tokens_per_month=tokens,
        cheapest=ranked[0].name,
        verdict=ranked[0].kind,
        saving_micros_per_month=None if other is None else micros(costs[other] - costs[ranked[0]]),
        options=options,
    )


def _ways(inputs: BuyOrMakeInputs) -> list[_Way]:
    own = Making(
        name="Nightrate",
        price_micros_per_million_input=inputs.own_micros_per_million_input,
        price_micros_per_million_output=inputs.own_micros_per_million_output,
        fixed_micros_per_month=inputs.own_micros_per_month,
    )
    bought = [
        _Way(
            name=api.name,
            kind="buy",
            input_price=api.price_micros_per_million_input,
            output_price=api.price_micros_per_million_output,
            fixed=0,
        )
        for api in inputs.apis
    ]
    made = [
        _Way(
            name=each.name,
            kind="make",
            input_price=each.price_micros_per_million_input,
            output_price=each.price_micros_per_million_output,
            fixed=each.fixed_micros_per_month,
        )
        for each in (own, *inputs.makings)
    ]
    return [*bought, *made]


def _variable(inputs: BuyOrMakeInputs, way: _Way) -> Decimal:
    tokens = inputs.input_tokens_per_month * way.input_price + inputs.output_tokens_per_month * way.output_price
    return Decimal(tokens) / _MILLION


def _break_even(inputs: BuyOrMakeInputs, *, buy: _Way | None, make: _Way | None) -> int | None:
    """Return the tokens of a month from which making costs no more than buying; None: at no volume, or none to compare."""
    tokens = inputs.input_tokens_per_month + inputs.output_tokens_per_month
    if buy is None or make is None or not tokens:
        return None
    saved = (_variable(inputs, buy) - _variable(inputs, make)) / tokens
    if not make.fixed and saved >= 0:
        return 0
    if saved <= 0 or make.fixed > saved * _TOKENS_MAX:
        return None
    return int((make.fixed / saved).to_integral_value(ROUND_CEILING))
