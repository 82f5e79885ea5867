"""Return on moving from something else to Nightrate, and what it hangs on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, Final

from pipeline.report.calculators.fields import (
    Described,
    Kind,
    amount_of,
    choice,
    count,
    exactly,
    fields_of,
    micros,
    percent,
    shown,
)
from pipeline.report.calculators.value import (
    ANNUITY_FORMULA,
    HOURS_PER_MONTH,
    RATE_FORMULA,
    annuity,
    monthly_rate,
    months_formula,
    months_until,
)

_MILLION: Final = 10**6
_HUNDRED: Final = Decimal(100)
_ASSUMED: Final = "assumed"
#: By how much the tornado moves each input.
_SWING_PERCENT: Final = 20
FROM: Final = ("api_list", "api_batch", "always_on", "other_scheduler")


@dataclass(frozen=True, slots=True, kw_only=True)
class RoiInputs:
    """What is paid today, and what Nightrate would cost."""

    moving_from: str = choice("api_batch", "Moving from", FROM, source=_ASSUMED)
    input_tokens_per_month: int = count(2_000_000_000, "Input in a month", unit="tokens", source=_ASSUMED, high=10**15)
    output_tokens_per_month: int = count(500_000_000, "Output in a month", unit="tokens", source=_ASSUMED, high=10**15)
    api_micros_per_million_input: int = amount_of(
        "0.30", "API, input at list price", unit="USD/1M", source="Gemini 2.5 Flash, November 2026"
    )
    api_micros_per_million_output: int = amount_of(
        "2.50", "API, output at list price", unit="USD/1M", source="Gemini 2.5 Flash, November 2026"
    )
    batch_discount_percent: Decimal = percent(
        "50", "API, off for batches", source="most public batch APIs, November 2026"
    )
    gpus_always_on: int = count(8, "GPUs that are always on", source=_ASSUMED, high=1_000_000)
    gpu_micros_per_hour: int = amount_of(
        "6.88", "One of them", unit="USD/h", source="AWS p5.4xlarge on demand, us-east-1, January 2026"
    )
    other_micros_per_month: int = amount_of("10000", "Other scheduler, all it takes", unit="USD/month", source=_ASSUMED)
    own_micros_per_million_input: int = amount_of(
        "0.05", "Nightrate, input", unit="USD/1M", source="assumed; `nightrate cost calc model` works it out"
    )
    own_micros_per_million_output: int = amount_of(
        "0.40", "Nightrate, output", unit="USD/1M", source="assumed; `nightrate cost calc model` works it out"
    )
    own_micros_per_month: int = amount_of(
        "150", "Nightrate, whatever runs", unit="USD/month", source="assumed: database, object store, one small machine"
    )
    one_off_micros: int = amount_of("5000", "Move, once", unit="USD", source="assumed: a week of an engineer")
    horizon_months: int = count(24, "Horizon", unit="months", source=_ASSUMED, low=1, high=120)
    discount_percent_per_year: Decimal = percent("8", "Discount rate", source="assumed cost of capital")


@dataclass(frozen=True, slots=True, kw_only=True)
class Swing:
    """What an input does to the present value."""

    name: str = shown(Kind.NAME, "Input")
    npv_low_micros: int = shown(Kind.AMOUNT, "Worth at 20 % less", "USD")
    npv_high_micros: int = shown(Kind.AMOUNT, "Worth at 20 % more", "USD")
    swing_micros: int = shown(Kind.AMOUNT, "Apart", "USD")


@dataclass(frozen=True, slots=True, kw_only=True)
class Roi:
    """Whether it pays."""

    before_micros_per_month: int = shown(Kind.AMOUNT, "Today", "USD/month")
    after_micros_per_month: int = shown(Kind.AMOUNT, "With Nightrate", "USD/month")
    saving_micros_per_month: int = shown(Kind.AMOUNT, "Saved", "USD/month")
    payback_months: int | None = shown(Kind.COUNT, "Months until the move is paid back")
    total_micros: int = shown(Kind.AMOUNT, "Saved over the horizon, the move taken off", "USD")
    rate_percent_per_month: Decimal = shown(Kind.NUMBER, "Discount rate of a month", "%")
    present_value_micros: int = shown(Kind.AMOUNT, "Worth today", "USD")
    roi_percent: Decimal | None = shown(Kind.NUMBER, "Return on the move", "%")
    sensitivity: tuple[Swing, ...] = shown(Kind.ROWS, "What it hangs on, each input 20 % less and more", row=Swing)


_API: Final = "(input_tokens_per_month*api_per_million_input+output_tokens_per_month*api_per_million_output)/1000000"
FORMULAS: Final[Mapping[str, str]] = {
    "before_per_month": f'IF(moving_from="api_list",{_API},IF(moving_from="api_batch",{_API}*(1-batch_discount_percent/100),'
    f'IF(moving_from="always_on",gpus_always_on*gpu_per_hour*{HOURS_PER_MONTH},other_per_month)))',
    "after_per_month": "(input_tokens_per_month*own_per_million_input+output_tokens_per_month*own_per_million_output)"
    "/1000000+own_per_month",
    "saving_per_month": "before_per_month-after_per_month",
    "payback_months": months_formula("one_off", "saving_per_month"),
    "total": "saving_per_month*horizon_months-one_off",
    "rate_percent_per_month": f"({RATE_FORMULA})*100",
    "present_value": f"saving_per_month*{ANNUITY_FORMULA}-one_off",
    "roi_percent": 'IF(one_off=0,"no cost",total/one_off*100)',
}
ROW_FORMULAS: Final[Mapping[str, Mapping[str, str]]] = {"sensitivity": {"swing": "ABS([npv_high]-[npv_low])"}}


@exactly
def roi(inputs: RoiInputs) -> Roi:
    """Return whether the move pays; money is rounded once, at the end."""
    before, after = _before(inputs), _after(inputs)
    saving = before - after
    total = saving * inputs.horizon_months - inputs.one_off_micros
    swings = [_swing(inputs, each) for each in fields_of(RoiInputs) if each.spec.kind is not Kind.CHOICE]
    moved = sorted((swing for swing in swings if swing.swing_micros), key=lambda swing: -swing.swing_micros)
    return Roi(
        before_micros_per_month=micros(before),
        after_micros_per_month=micros(after),
        saving_micros_per_month=micros(saving),
        payback_months=months_until(Decimal(inputs.one_off_micros), saving),
        total_micros=micros(total),
        rate_percent_per_month=monthly_rate(inputs.discount_percent_per_year) * 100,
        present_value_micros=micros(_npv(inputs)),
        roi_percent=total / inputs.one_off_micros * 100 if inputs.one_off_micros else None,
        sensitivity=tuple(moved),
    )


def _before(inputs: RoiInputs) -> Decimal:
    api = Decimal(
        inputs.input_tokens_per_month * inputs.api_micros_per_million_input
        + inputs.output_tokens_per_month * inputs.api_micros_per_million_output
    )
    match inputs.moving_from:
        case "api_list":
            return api / _MILLION
        case "api_batch":
            return api / _MILLION * (1 - inputs.batch_discount_percent / _HUNDRED)
        case "always_on":
            return Decimal(inputs.gpus_always_on * inputs.gpu_micros_per_hour * HOURS_PER_MONTH)
        case _:
            return Decimal(inputs.other_micros_per_month)


def _after(inputs: RoiInputs) -> Decimal:
    tokens = (
        inputs.input_tokens_per_month * inputs.own_micros_per_million_input
        + inputs.output_tokens_per_month * inputs.own_micros_per_million_output
    )
    return Decimal(tokens) / _MILLION + inputs.own_micros_per_month


def _npv(inputs: RoiInputs) -> Decimal:
    rate = monthly_rate(inputs.discount_percent_per_year)
    saving = _before(inputs) - _after(inputs)
    return saving * annuity(rate, inputs.horizon_months) - inputs.one_off_micros


def _swing(inputs: RoiInputs, described: Described) -> Swing:
    low, high = (micros(_npv(_moved(inputs, described, by))) for by in (-_SWING_PERCENT, _SWING_PERCENT))
    return Swing(name=described.public, npv_low_micros=low, npv_high_micros=high, swing_micros=abs(high - low))


def _moved(inputs: RoiInputs, described: Described, by_percent: int) -> RoiInputs:
    """Return the inputs with one of them moved, no further than it goes."""
    value = Decimal(getattr(inputs, described.name)) * (100 + by_percent) / 100
    if described.spec.kind is not Kind.AMOUNT:
        value = min(max(value, described.spec.low), described.spec.high)
    moved: dict[str, Any] = {described.name: value if described.spec.kind is Kind.NUMBER else micros(value)}
    return replace(inputs, **moved)
