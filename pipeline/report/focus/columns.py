"""The columns of a FOCUS export, by version, in the order in which they are written."""

from __future__ import annotations

from enum import StrEnum
from types import MappingProxyType
from typing import Final


class FocusVersion(StrEnum):
    """A version of the specification."""

    V1_2 = "1.2"
    V1_3 = "1.3"


class FocusKind(StrEnum):
    """What a column holds."""

    TEXT = "text"
    DECIMAL = "decimal"
    TIME = "time"
    #: An object, written as text.
    JSON = "json"


_T, _D, _AT, _J = FocusKind.TEXT, FocusKind.DECIMAL, FocusKind.TIME, FocusKind.JSON
_BOTH: Final = {
    "AvailabilityZone": _T,
    "BilledCost": _D,
    "BillingAccountId": _T,
    "BillingAccountName": _T,
    "BillingAccountType": _T,
    "BillingCurrency": _T,
    "BillingPeriodEnd": _AT,
    "BillingPeriodStart": _AT,
    "ChargeCategory": _T,
    "ChargeClass": _T,
    "ChargeDescription": _T,
    "ChargeFrequency": _T,
    "ChargePeriodEnd": _AT,
    "ChargePeriodStart": _AT,
    "ConsumedQuantity": _D,
    "ConsumedUnit": _T,
    "ContractedCost": _D,
    "ContractedUnitPrice": _D,
    "EffectiveCost": _D,
    "InvoiceId": _T,
    "InvoiceIssuerName": _T,
    "ListCost": _D,
    "ListUnitPrice": _D,
    "PricingCategory": _T,
    "PricingQuantity": _D,
    "PricingUnit": _T,
    # 1.3 calls these two deprecated, and has them still.
    "ProviderName": _T,
    "PublisherName": _T,
    "RegionId": _T,
    "RegionName": _T,
    "ResourceId": _T,
    "ResourceName": _T,
    "ResourceType": _T,
    "ServiceCategory": _T,
    "ServiceName": _T,
    "ServiceSubcategory": _T,
    "SkuId": _T,
    "SkuMeter": _T,
    "SkuPriceDetails": _J,
    "SkuPriceId": _T,
    "SubAccountId": _T,
    "SubAccountName": _T,
    "SubAccountType": _T,
    "Tags": _J,
}
_NEW_IN_1_3: Final = {
    "AllocatedMethodDetails": _J,
    "AllocatedMethodId": _T,
    "AllocatedResourceId": _T,
    "AllocatedResourceName": _T,
    "AllocatedTags": _J,
    "HostProviderName": _T,
    "ServiceProviderName": _T,
}
#: Ours, which the specification has no columns for.
_OWN: Final = {
    "x_InputTokens": _D,
    "x_Method": _T,
    "x_Model": _T,
    "x_OnDemandCost": _D,
    "x_OutputTokens": _D,
    "x_Pool": _T,
    "x_ProjectId": _T,
    "x_Requests": _D,
    "x_TenantCharge": _D,
    "x_Tier": _T,
    "x_TransactionKind": _T,
    "x_Variant": _T,
    "x_WasteKind": _T,
}

COLUMNS: Final = MappingProxyType(
    {
        FocusVersion.V1_2: MappingProxyType({**dict(sorted(_BOTH.items())), **_OWN}),
        FocusVersion.V1_3: MappingProxyType({**dict(sorted({**_BOTH, **_NEW_IN_1_3}.items())), **_OWN}),
    }
)
#: Decimals of whatever is written: of costs six, of quantities nine, of prices twelve.
DECIMALS_MAX: Final = 12
