"""Which chart an answer is best shown by."""

from __future__ import annotations

from typing import Final

from pipeline.report.calculators.buy_or_make import BuyOrMake
from pipeline.report.calculators.charts import BARS_MAX, Bar, bars, lines
from pipeline.report.calculators.fields import Kind
from pipeline.report.calculators.figures import figure
from pipeline.report.calculators.model_cost import ModelCost
from pipeline.report.calculators.roi import Roi
from pipeline.report.calculators.tco import Tco
from pipeline.report.calculators.whatif import WhatIf

_SWINGS_SHOWN: Final = 10


def picture(result: object) -> tuple[str, str]:
    """Return a caption and the chart; no chart where there is nothing to show."""
    match result:
        case ModelCost():
            fitting = [row for row in result.hardware if row.cost_micros_per_million is not None]
            items = [_bar(f"{row.name}, {row.market}", row.cost_micros_per_million or 0) for row in fitting]
            return _of("A million tokens, input and output blended", items)
        case Tco():
            series = [
                ("Own", [month.own_micros for month in result.months]),
                ("Cloud", [month.cloud_micros for month in result.months]),
            ]
            caption = "Spent by the end of each month, nothing discounted, nothing sold"
            return caption, lines(caption, series, unit="mo")
        case Roi():
            caption = "Worth today with each input 20 % less and 20 % more; the line is as it stands"
            swings = [
                Bar(
                    label=swing.name.replace("_", " "),
                    start_micros=swing.npv_low_micros,
                    stop_micros=swing.npv_high_micros,
                    is_second=swing.npv_high_micros < swing.npv_low_micros,
                    text=figure(Kind.AMOUNT, swing.swing_micros),
                )
                for swing in result.sensitivity[:_SWINGS_SHOWN]
            ]
            return caption, bars(caption, swings, mark_micros=result.present_value_micros)
        case WhatIf():
            items = []
            for tier in result.tiers:
                items.append(_bar(f"{tier.tier}, now", tier.cost_now_micros))
                items.append(_bar(f"{tier.tier}, then", tier.cost_then_micros, is_second=True))
            return _of("What each tier costs in the month", items)
        case BuyOrMake():
            items = [
                _bar(option.name, option.cost_micros_per_month, is_second=option.kind == "make")
                for option in result.options
            ]
            return _of("What the month costs; making stands apart by its colour", items)
        case _:
            raise AssertionError(f"no chart for {type(result).__name__}")


def _bar(label: str, micros: int, *, is_second: bool = False) -> Bar:
    return Bar(label=label, stop_micros=micros, is_second=is_second, text=figure(Kind.AMOUNT, micros))


def _of(caption: str, items: list[Bar]) -> tuple[str, str]:
    told = caption if len(items) <= BARS_MAX else f"{caption}: the first {BARS_MAX}"
    return told, bars(told, items)
