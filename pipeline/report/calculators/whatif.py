"""A month priced again under another mix of tiers, another share of spot, another variant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from pipeline.domain.money import split_by_weight
from pipeline.domain.tiers import Tier
from pipeline.report.calculators.fields import Kind, amount_of, count, exactly, micros, percent, shown

_MILLION: Final = 10**6
_HUNDRED: Final = Decimal(100)
_PATIENT: Final = "assumed: who can wait can wait for spot"
_PRICED: Final = "assumed"
_TOKENS_MAX: Final = 10**15


@dataclass(frozen=True, slots=True, kw_only=True)
class WhatIfInputs:
    """A month as it was, and what would be otherwise."""

    urgent_tokens: int = count(50_000_000, "Urgent, this month", unit="tokens", source="assumed", high=_TOKENS_MAX)
    standard_tokens: int = count(400_000_000, "Standard, this month", unit="tokens", source="assumed", high=_TOKENS_MAX)
    bulk_tokens: int = count(350_000_000, "Bulk, this month", unit="tokens", source="assumed", high=_TOKENS_MAX)
    nightly_tokens: int = count(200_000_000, "Nightly, this month", unit="tokens", source="assumed", high=_TOKENS_MAX)
    on_demand_micros_per_million: int = amount_of(
        "0.30",
        "Cost on demand, reference variant",
        unit="USD/1M",
        source="assumed; `nightrate cost calc model` works it out",
    )
    spot_discount_percent: Decimal = percent(
        "67", "Spot under on demand", source="AWS p5.48xlarge, use1-az3: 55.04 and 18.16 USD/h"
    )
    spot_lost_percent: Decimal = percent("5", "Work lost on spot and done again", source="assumed")
    urgent_reach_percent: Decimal = percent("0", "Urgent work that spot may take", source=_PATIENT)
    standard_reach_percent: Decimal = percent("60", "Standard work that spot may take", source=_PATIENT)
    bulk_reach_percent: Decimal = percent("90", "Bulk work that spot may take", source=_PATIENT)
    nightly_reach_percent: Decimal = percent("100", "Nightly work that spot may take", source=_PATIENT)
    urgent_charge_percent: Decimal = percent(
        "200", "Urgent, charged of the standard price", source=_PRICED, high="10000"
    )
    standard_charge_percent: Decimal = percent(
        "100", "Standard, charged of the standard price", source=_PRICED, high="10000"
    )
    bulk_charge_percent: Decimal = percent("70", "Bulk, charged of the standard price", source=_PRICED, high="10000")
    nightly_charge_percent: Decimal = percent(
        "50", "Nightly, charged of the standard price", source=_PRICED, high="10000"
    )
    price_micros_per_million: int = amount_of("0.40", "Standard price", unit="USD/1M", source="assumed")
    spot_percent: Decimal = percent("50", "Of what spot may take, on spot now", source="assumed")
    relative_cost_percent: Decimal = percent(
        "100", "Time of a token now, of the reference's", source="the reference variant", low="1", high="1000"
    )
    new_urgent_parts: int = count(0, "Urgent, then", unit="parts", source="all four 0: as now", high=1_000_000)
    new_standard_parts: int = count(0, "Standard, then", unit="parts", source="all four 0: as now", high=1_000_000)
    new_bulk_parts: int = count(0, "Bulk, then", unit="parts", source="all four 0: as now", high=1_000_000)
    new_nightly_parts: int = count(0, "Nightly, then", unit="parts", source="all four 0: as now", high=1_000_000)
    new_spot_percent: Decimal = percent("90", "Of what spot may take, on spot then", source="assumed")
    new_relative_cost_percent: Decimal = percent(
        "100",
        "Time of a token then, of the reference's",
        source="the reference variant; `nightrate models show` tells a variant's",
        low="1",
        high="1000",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class TierChange:
    """A tier now and then."""

    tier: str = shown(Kind.NAME, "Tier")
    tokens_now: int = shown(Kind.COUNT, "Tokens now")
    tokens_then: int = shown(Kind.COUNT, "Tokens then")
    cost_now_micros: int = shown(Kind.AMOUNT, "Cost now", "USD")
    cost_then_micros: int = shown(Kind.AMOUNT, "Cost then", "USD")
    charged_now_micros: int = shown(Kind.AMOUNT, "Charged now", "USD")
    charged_then_micros: int = shown(Kind.AMOUNT, "Charged then", "USD")


@dataclass(frozen=True, slots=True, kw_only=True)
class WhatIf:
    """The month now and then."""

    cost_now_micros: int = shown(Kind.AMOUNT, "Cost now", "USD/month")
    cost_then_micros: int = shown(Kind.AMOUNT, "Cost then", "USD/month")
    saving_micros: int = shown(Kind.AMOUNT, "Saved", "USD/month")
    saving_percent: Decimal | None = shown(Kind.NUMBER, "Saved, of the cost now", "%")
    charged_now_micros: int = shown(Kind.AMOUNT, "Charged now", "USD/month")
    charged_then_micros: int = shown(Kind.AMOUNT, "Charged then", "USD/month")
    margin_now_micros: int = shown(Kind.AMOUNT, "Left over now", "USD/month")
    margin_then_micros: int = shown(Kind.AMOUNT, "Left over then", "USD/month")
    tiers: tuple[TierChange, ...] = shown(Kind.ROWS, "Tier by tier", row=TierChange)


def _sum_formula(columns: str) -> str:
    return f"SUM({{tiers.{columns}}})"


FORMULAS: Final[Mapping[str, str]] = {
    "cost_now": _sum_formula("cost_now"),
    "cost_then": _sum_formula("cost_then"),
    "saving": "cost_now-cost_then",
    "saving_percent": 'IF(cost_now=0,"nothing to save",saving/cost_now*100)',
    "charged_now": _sum_formula("charged_now"),
    "charged_then": _sum_formula("charged_then"),
    "margin_now": "charged_now-cost_now",
    "margin_then": "charged_then-cost_then",
}
#: Of the tier in the row: the four inputs of a kind side by side.
_REACH: Final = '(IF([tier]="urgent",urgent_reach_percent,IF([tier]="standard",standard_reach_percent,IF([tier]="bulk",bulk_reach_percent,nightly_reach_percent)))/100)'
_CHARGE: Final = _REACH.replace("_reach_", "_charge_")
_SPOT: Final = "(1-(1-spot_discount_percent/100)*(1+spot_lost_percent/100))"
ROW_FORMULAS: Final[Mapping[str, Mapping[str, str]]] = {
    "tiers": {
        "cost_now": f"[tokens_now]/1000000*on_demand_per_million*relative_cost_percent/100*(1-spot_percent/100*{_REACH}*{_SPOT})",
        "cost_then": f"[tokens_then]/1000000*on_demand_per_million*new_relative_cost_percent/100*(1-new_spot_percent/100*{_REACH}*{_SPOT})",
        "charged_now": f"[tokens_now]/1000000*price_per_million*{_CHARGE}",
        "charged_then": f"[tokens_then]/1000000*price_per_million*{_CHARGE}",
    }
}


@exactly
def what_if(inputs: WhatIfInputs) -> WhatIf:
    """Return the month now and then: tier by tier rounded to the micro-unit, and summed."""
    now = _of_tiers(inputs, "{}_tokens")
    parts = _of_tiers(inputs, "new_{}_parts")
    then = split_by_weight(sum(now), parts) if any(parts) else now
    tiers = tuple(_change(inputs, *each) for each in zip(Tier, now, then, strict=True))
    cost_now, cost_then = (
        sum(getattr(tier, name) for tier in tiers) for name in ("cost_now_micros", "cost_then_micros")
    )
    charged_now, charged_then = (
        sum(getattr(tier, name) for tier in tiers) for name in ("charged_now_micros", "charged_then_micros")
    )
    return WhatIf(
        cost_now_micros=cost_now,
        cost_then_micros=cost_then,
        saving_micros=cost_now - cost_then,
        saving_percent=Decimal(cost_now - cost_then) / cost_now * 100 if cost_now else None,
        charged_now_micros=charged_now,
        charged_then_micros=charged_then,
        margin_now_micros=charged_now - cost_now,
        margin_then_micros=charged_then - cost_then,
        tiers=tiers,
    )


def _of_tiers(inputs: WhatIfInputs, name: str) -> Sequence[int]:
    return [getattr(inputs, name.format(tier)) for tier in Tier]


def _change(inputs: WhatIfInputs, tier: Tier, now: int, then: int) -> TierChange:
    charge: Decimal = getattr(inputs, f"{tier}_charge_percent") / _HUNDRED
    price = Decimal(inputs.price_micros_per_million) / _MILLION
    return TierChange(
        tier=str(tier),
        tokens_now=now,
        tokens_then=then,
        cost_now_micros=micros(now * _token_cost(inputs, tier, inputs.spot_percent, inputs.relative_cost_percent)),
        cost_then_micros=micros(
            then * _token_cost(inputs, tier, inputs.new_spot_percent, inputs.new_relative_cost_percent)
        ),
        charged_now_micros=micros(now * price * charge),
        charged_then_micros=micros(then * price * charge),
    )


def _token_cost(inputs: WhatIfInputs, tier: Tier, spot_percent: Decimal, relative_percent: Decimal) -> Decimal:
    """Return what a token of the tier costs, in micro-units."""
    reach: Decimal = getattr(inputs, f"{tier}_reach_percent") / _HUNDRED
    on_spot = spot_percent / _HUNDRED * reach
    saved = 1 - (1 - inputs.spot_discount_percent / _HUNDRED) * (1 + inputs.spot_lost_percent / _HUNDRED)
    whole = Decimal(inputs.on_demand_micros_per_million) / _MILLION * relative_percent / _HUNDRED
    return whole * (1 - on_spot * saved)
