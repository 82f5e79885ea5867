"""An hour of a resource and an account as a row of FOCUS.

Costs are the journal's, to the micro-unit. Quantities are hours of workers, rounded to 9 decimals; unit prices are cost over
quantity, rounded to 12: price times quantity is the cost, to less than a micro-unit.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal, localcontext
from types import MappingProxyType
from typing import Any, Final

import orjson

from pipeline.domain.costs.transactions import CostCategory, TransactionKind
from pipeline.report.focus.columns import COLUMNS, FocusVersion

_MICRO: Final = Decimal("0.000001")
_QUANTITY: Final = Decimal("0.000000001")
_PRICE: Final = Decimal("0.000000000001")
_US_PER_HOUR: Final = 3_600_000_000
_US: Final = "Nightrate"
_WORK: Final = "work"
_SHARED: Final = "shared"
_CORRECTIONS: Final = frozenset({TransactionKind.SETTLEMENT, TransactionKind.REVERSAL, TransactionKind.ADJUSTMENT})
_PRICING: Final = MappingProxyType({"spot": "Dynamic", "on_demand": "Standard"})
#: Category, subcategory and name of the service.
_SERVICES: Final = MappingProxyType(
    {
        CostCategory.COMPUTE: ("Compute", "Virtual Machines", "Batch inference workers"),
        CostCategory.STORAGE: ("Storage", "Object Storage", "Batch files and results"),
        CostCategory.NETWORK: ("Networking", "Other (Networking)", "Data transfer"),
        CostCategory.EXTERNAL_API: ("AI and Machine Learning", "Generative AI", "External inference API"),
    }
)


def focus_row(hour: Mapping[str, Any], version: FocusVersion, *, account: str = "nightrate") -> dict[str, object]:
    """Return an hour's row by column: None, text, `Decimal` or an aware `datetime`.

    `account` is what the installation is called in it: the billing account.
    """
    category = CostCategory(hour["category"])
    kind = TransactionKind(hour["transaction_kind"])
    is_correction = kind in _CORRECTIONS
    found = {
        **_when(hour["hour"], hour["hour_stop"]),
        **_costs(hour),
        **_pricing(hour, category, is_correction=is_correction),
        **_where(hour, category),
        **_whose(hour, account),
        **_own(hour),
        "ChargeCategory": "Adjustment" if kind is TransactionKind.ADJUSTMENT else "Usage",
        "ChargeClass": "Correction" if is_correction else None,
        "ChargeDescription": _description(hour, kind),
        "ChargeFrequency": "Usage-Based",
        "BillingCurrency": hour["currency"],
    }
    if version is FocusVersion.V1_3:
        found |= _allocated(hour) | {"HostProviderName": hour["provider"] or _US, "ServiceProviderName": _US}
    return {name: found[name] for name in COLUMNS[version]}


def units(micros: int) -> Decimal:
    """Return micro-units as units, with six decimals."""
    return Decimal(micros).scaleb(-6).quantize(_MICRO)


def _when(start: datetime, stop: datetime) -> dict[str, object]:
    month = start.replace(day=1, hour=0)
    return {
        "ChargePeriodStart": start,
        "ChargePeriodEnd": stop,
        "BillingPeriodStart": month,
        "BillingPeriodEnd": (month + timedelta(days=32)).replace(day=1),
    }


def _costs(hour: Mapping[str, Any]) -> dict[str, object]:
    return {
        "ListCost": units(hour["list_micros"]),
        "ContractedCost": units(hour["contracted_micros"]),
        "EffectiveCost": units(hour["effective_micros"]),
        "BilledCost": units(hour["billed_micros"]),
    }


def _pricing(hour: Mapping[str, Any], category: CostCategory, *, is_correction: bool) -> dict[str, object]:
    machine = hour["instance_type"] or hour["pool"] or str(category)
    market, region = hour["market"] or "any", hour["region"] or "any"
    sku: dict[str, object] = {
        "SkuId": machine,
        "SkuPriceId": f"{machine}/{market}/{region}",
        "SkuMeter": "Worker hours" if category is CostCategory.COMPUTE else str(category),
        "SkuPriceDetails": _json({"x_InstanceType": hour["instance_type"], "x_Market": hour["market"]}),
        "PricingCategory": _PRICING.get(hour["market"], "Other"),
    }
    if is_correction:
        # What is trued up has no quantity of its own: the hours are in the row that it corrects.
        unpriced = ("PricingQuantity", "ConsumedQuantity", "ListUnitPrice", "ContractedUnitPrice")
        return {**sku, **dict.fromkeys((*unpriced, "PricingUnit", "ConsumedUnit"))}
    quantity = (Decimal(hour["worker_us"]) / _US_PER_HOUR).quantize(_QUANTITY, ROUND_HALF_EVEN)
    unit = "Hours"
    if not quantity:
        # Not by time; a cost that is given back is a negative quantity, because prices are never negative.
        quantity, unit = Decimal(-1 if hour["list_micros"] < 0 else 1), "Unit"
    return {
        **sku,
        "PricingQuantity": quantity,
        "PricingUnit": unit,
        "ConsumedQuantity": quantity,
        "ConsumedUnit": unit,
        "ListUnitPrice": _price(hour["list_micros"], quantity),
        "ContractedUnitPrice": _price(hour["contracted_micros"], quantity),
    }


def _price(micros: int, quantity: Decimal) -> Decimal:
    with localcontext(prec=60):
        return (units(micros) / quantity).quantize(_PRICE, ROUND_HALF_EVEN)


def _where(hour: Mapping[str, Any], category: CostCategory) -> dict[str, object]:
    service_category, subcategory, name = _SERVICES[category]
    resource = hour["worker_id"] or hour["pool"]
    is_worker = hour["worker_id"] is not None
    return {
        "ServiceCategory": service_category,
        "ServiceSubcategory": subcategory,
        "ServiceName": name,
        "ProviderName": hour["provider"] or _US,
        "PublisherName": hour["provider"] or _US,
        "RegionId": hour["region"],
        "RegionName": hour["region"],
        "AvailabilityZone": hour["zone"],
        "ResourceId": resource,
        "ResourceName": resource,
        "ResourceType": None if resource is None else "Worker" if is_worker else "Pool",
    }


def _whose(hour: Mapping[str, Any], account: str) -> dict[str, object]:
    tags = {"nightrate/project": hour["project_id"], "nightrate/model": hour["model"], "nightrate/tier": hour["tier"]}
    return {
        "BillingAccountId": account,
        "BillingAccountName": account,
        "BillingAccountType": "Installation",
        "InvoiceId": None,
        "InvoiceIssuerName": hour["provider"] or _US,
        "SubAccountId": hour["tenant_id"],
        "SubAccountName": hour["tenant_name"],
        "SubAccountType": None if hour["tenant_id"] is None else "Tenant",
        "Tags": _json(tags),
    }


def _own(hour: Mapping[str, Any]) -> dict[str, object]:
    return {
        "x_InputTokens": Decimal(hour["input_tokens"]),
        "x_OutputTokens": Decimal(hour["output_tokens"]),
        "x_Requests": Decimal(hour["row_count"]),
        "x_TenantCharge": units(hour["charged_micros"]),
        "x_OnDemandCost": units(hour["on_demand_micros"]),
        "x_Method": hour["method"],
        "x_Model": hour["model"],
        "x_Variant": hour["variant"],
        "x_Pool": hour["pool"],
        "x_ProjectId": hour["project_id"],
        "x_Tier": hour["tier"],
        "x_TransactionKind": hour["transaction_kind"],
        "x_WasteKind": None if hour["kind"] in {_WORK, _SHARED} else hour["kind"],
    }


def _allocated(hour: Mapping[str, Any]) -> dict[str, object]:
    is_split = hour["method"] is not None and hour["project_id"] is not None
    return {
        "AllocatedMethodId": hour["method"] if is_split else None,
        # How much of the whole a row is of differs from span to span within its hour.
        "AllocatedMethodDetails": None,
        "AllocatedResourceId": hour["project_id"] if is_split else None,
        "AllocatedResourceName": hour["project_id"] if is_split else None,
        "AllocatedTags": None,
    }


def _description(hour: Mapping[str, Any], kind: TransactionKind) -> str:
    if hour["kind"] == _WORK:
        what = f"Inference of {hour['model'] or 'no model'}"
    elif hour["kind"] == _SHARED:
        what = "Share of overhead"
    else:
        what = f"Overhead: {hour['kind']}"
    suffix = "" if kind is TransactionKind.ACCRUAL else f" ({kind})"
    return f"{what} in {hour['pool'] or 'no pool'}{suffix}"


def _json(values: Mapping[str, object]) -> str | None:
    said = {name: value for name, value in values.items() if value is not None}
    return orjson.dumps(said, option=orjson.OPT_SORT_KEYS).decode() if said else None
