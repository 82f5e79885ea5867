"""The shapes of what is asked of and told about budgets."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from pipeline.domain.costs.budgets import ALERT_SHARES_MAX, BudgetPeriod
from pipeline.domain.tiers import Tier
from pipeline.entrypoints.http.schemas import Amount

_PLAIN = r"^[^\x00]*$"

Share = Annotated[float, Field(strict=True, ge=0.000001, le=1)]
AlertShares = Annotated[
    list[Share], Field(max_length=ALERT_SHARES_MAX, description="Shares of the limit that webhooks are told of.")
]
CoreTiers = Annotated[
    list[Tier], Field(max_length=len(Tier), description="Tiers that go on once `core_share` of the limit is used.")
]
CoreShare = Annotated[Share, Field(description="The share of the limit from which only `core_tiers` go on.")]
Id = Annotated[str, StringConstraints(strict=True, min_length=1, max_length=128, pattern=_PLAIN)]


class _Asked(BaseModel):
    model_config = ConfigDict(extra="forbid")


class SetBudget(_Asked):
    """A budget to be made, or to take the place of the one that its scope has for the period."""

    amount: Amount
    period: BudgetPeriod = BudgetPeriod.MONTH
    project_id: Annotated[Id | None, Field(description="Of which project; as it comes, of the organization.")] = None
    alert_shares: AlertShares | None = None
    core_tiers: CoreTiers | None = None
    core_share: CoreShare | None = None

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": {"amount": "250.00", "period": "month"}})


class ChangeBudget(_Asked):
    """What is to be changed; what is left out stays."""

    amount: Amount | None = None
    alert_shares: AlertShares | None = None
    core_tiers: CoreTiers | None = None
    core_share: CoreShare | None = None

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": {"amount": "300.00"}})


class TopUp(_Asked):
    """An amount to be added to a budget for its current period."""

    amount: Amount
    id: Annotated[
        str | None,
        StringConstraints(strict=True, pattern=r"^[A-Za-z0-9_-]{1,64}$"),
        Field(description="Of your own choice: what has it is added once, however often it is asked for."),
    ] = None

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": {"amount": "50.00"}})


class _Answered(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Notice(_Answered):
    """What was told of a budget in its current period."""

    mark: Literal["share", "non_core_paused", "reached"]
    share: float


class Budget(_Answered):
    """A budget in its current period. What is spent and reserved together is within the limit."""

    id: str
    object: Literal["organization.budget"]
    project_id: str | None
    period: BudgetPeriod
    #: The first day, UTC; null where it has no end.
    period_start: str | None
    amount: str
    #: Added for this period.
    added: str
    limit: str
    spent: str
    #: What packs in flight may still be charged.
    reserved: str
    left: str
    currency: str
    alert_shares: list[float]
    core_tiers: list[Tier]
    core_share: float
    told: list[Notice]


class BudgetList(_Answered):
    """All budgets."""

    object: Literal["list"]
    data: list[Budget]
    first_id: str | None
    last_id: str | None
    has_more: bool


class DeletedBudget(_Answered):
    """A budget that is gone."""

    id: str
    object: Literal["organization.budget"]
    deleted: Literal[True]
