"""The calculators by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from pipeline.report.calculators import buy_or_make, model_cost, roi, tco, whatif


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Calculator:
    """One calculator, and how a sheet works out the same."""

    name: str
    title: str
    summary: str
    inputs: type
    result: type
    calculate: Callable[[Any], Any]
    #: Of answers, and of columns of tables, by public names; `[column]` is the cell beside, `{table.column}` all of it.
    formulas: Mapping[str, str]
    row_formulas: Mapping[str, Mapping[str, str]]


CALCULATORS: Final[Mapping[str, Calculator]] = MappingProxyType(
    {
        each.name: each
        for each in (
            Calculator(
                name="model",
                title="Cost of a model",
                summary="What a model costs per token, request and month on a table of hardware.",
                inputs=model_cost.ModelCostInputs,
                result=model_cost.ModelCost,
                calculate=model_cost.model_cost,
                formulas=model_cost.FORMULAS,
                row_formulas=model_cost.ROW_FORMULAS,
            ),
            Calculator(
                name="tco",
                title="Own servers or the cloud",
                summary="What servers cost to own over a horizon, and the same ones in the cloud.",
                inputs=tco.TcoInputs,
                result=tco.Tco,
                calculate=tco.tco,
                formulas=tco.FORMULAS,
                row_formulas=tco.ROW_FORMULAS,
            ),
            Calculator(
                name="roi",
                title="Return on moving",
                summary="What moving from an API, idle GPUs or another scheduler to Nightrate returns.",
                inputs=roi.RoiInputs,
                result=roi.Roi,
                calculate=roi.roi,
                formulas=roi.FORMULAS,
                row_formulas=roi.ROW_FORMULAS,
            ),
            Calculator(
                name="whatif",
                title="What if",
                summary="A month priced again under other tiers, more spot or another variant.",
                inputs=whatif.WhatIfInputs,
                result=whatif.WhatIf,
                calculate=whatif.what_if,
                formulas=whatif.FORMULAS,
                row_formulas=whatif.ROW_FORMULAS,
            ),
            Calculator(
                name="buy-or-make",
                title="Buy or make",
                summary="A month's tokens from public batch APIs or made here, and from which volume making pays.",
                inputs=buy_or_make.BuyOrMakeInputs,
                result=buy_or_make.BuyOrMake,
                calculate=buy_or_make.buy_or_make,
                formulas=buy_or_make.FORMULAS,
                row_formulas=buy_or_make.ROW_FORMULAS,
            ),
        )
    }
)
