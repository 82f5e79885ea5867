"""Plans as in a price list: what a tenant may have in a month, at once, and how fast.

A plan says no, and may have a price of its own; it never changes what a batch costs or how the scheduler weighs it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from enum import StrEnum
from fractions import Fraction
from types import MappingProxyType
from typing import Final

from pipeline.domain.costs.charging import PAR_PPM
from pipeline.domain.costs.tariffs import Tariff
from pipeline.domain.ids import DEFAULT_TENANT, TenantId
from pipeline.domain.limits import FILE_LINES_MAX, TOKEN_PRICE_PICOS_MAX
from pipeline.domain.rates import Rate
from pipeline.domain.tiers import Tier

#: The best first.
TIERS: Final = (Tier.URGENT, Tier.STANDARD, Tier.BULK, Tier.NIGHTLY)
_DECEMBER: Final = 12

assert set(TIERS) == set(Tier)


class RouteClass(StrEnum):
    """Kinds of requests to the API; each has a rate of its own."""

    READS = "reads"
    WRITES = "writes"
    UPLOADS = "uploads"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a tenant may have; None: as much as it likes."""

    name: str
    #: Rows that run, in a calendar month (UTC).
    requests_per_month: int | None = None
    #: Input and output, in a calendar month (UTC).
    tokens_per_month: int | None = None
    #: The best tier it may have; those below are its as well.
    tier_ceiling: Tier = Tier.URGENT
    #: Requests to the API: reads and writes each have this rate.
    requests_per_minute: int | None = None
    #: Of them, at once after a rest. None: a minute's.
    burst: int | None = None
    uploads_per_minute: int | None = None
    #: Estimated tokens of batches that were admitted and have not ended, for each model.
    enqueued_tokens_max: int | None = None
    #: Batches that have not ended.
    batches_live_max: int | None = None
    #: Lines of one batch's file.
    rows_max: int | None = None
    #: Millionths of the tier's price that are charged.
    price_ppm: int = PAR_PPM

    @property
    def tiers(self) -> tuple[Tier, ...]:
        """Return the tiers it may have, the best first."""
        return TIERS[TIERS.index(self.tier_ceiling) :]

    @property
    def tier_by_default(self) -> Tier:
        """Return the tier of batches that name none: the standard one, or the best below it."""
        return Tier.STANDARD if Tier.STANDARD in self.tiers else self.tier_ceiling

    @property
    def has_quotas(self) -> bool:
        """Say whether a batch that is admitted has to fit into what is left of something."""
        return (self.requests_per_month, self.tokens_per_month, self.enqueued_tokens_max) != (None, None, None)

    def rate_of(self, route_class: RouteClass) -> Rate | None:
        """Return how fast such requests may come; None: as fast as they like."""
        if route_class is RouteClass.UPLOADS:
            per_minute, burst = self.uploads_per_minute, None
        else:
            per_minute, burst = self.requests_per_minute, self.burst
        return None if per_minute is None else Rate(per_minute=per_minute, burst=burst or per_minute)


BUILT_IN: Final[Mapping[str, Plan]] = MappingProxyType(
    {
        plan.name: plan
        for plan in (
            Plan(
                name="free",
                requests_per_month=10_000,
                tokens_per_month=5_000_000,
                tier_ceiling=Tier.BULK,
                requests_per_minute=600,
                burst=300,
                uploads_per_minute=20,
                enqueued_tokens_max=2_000_000,
                batches_live_max=20,
                rows_max=10_000,
            ),
            Plan(
                name="paid",
                requests_per_month=10_000_000,
                tokens_per_month=5_000_000_000,
                tier_ceiling=Tier.STANDARD,
                requests_per_minute=6_000,
                burst=1_000,
                uploads_per_minute=300,
                enqueued_tokens_max=500_000_000,
                batches_live_max=500,
                rows_max=1_000_000,
            ),
            Plan(
                name="vip",
                requests_per_month=None,
                tokens_per_month=100_000_000_000,
                tier_ceiling=Tier.URGENT,
                requests_per_minute=60_000,
                burst=5_000,
                uploads_per_minute=1_000,
                enqueued_tokens_max=10_000_000_000,
                batches_live_max=5_000,
                rows_max=FILE_LINES_MAX,
            ),
            Plan(name="unlimited"),
        )
    }
)
#: What a plan may be called.
PLAN_NAME: Final = "^[a-z0-9][a-z0-9_-]{0,62}$"
#: Of tenants that were given none.
DEFAULT_PLAN: Final = "free"
#: Of the tenant that the command line works for.
OWN_PLAN: Final = "unlimited"


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantTerms:
    """What the settings say of one tenant."""

    #: Instead of the plan that is stored; None: that one.
    plan: str | None = None
    #: Fields of `Plan` that are its own.
    own: Mapping[str, int | Tier | None] = field(default_factory=dict)


_NO_TERMS: Final = TenantTerms()


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanBook:
    """The price list: all plans by name, what single tenants have instead, and what is charged."""

    plans: Mapping[str, Plan] = field(default_factory=lambda: BUILT_IN)
    tenants: Mapping[TenantId, TenantTerms] = field(default_factory=dict)
    tariff: Tariff = field(default_factory=Tariff)

    @property
    def charges_cost(self) -> bool:
        """Say whether every batch whose tokens have no price is charged what it cost."""
        tariff = self.tariff
        has_factors = tariff.tiers or tariff.hours or tariff.elasticity is not None
        own = (terms.own.get("price_ppm", PAR_PPM) for terms in self.tenants.values())
        prices = (*(plan.price_ppm for plan in self.plans.values()), *own)
        return not has_factors and all(ppm == PAR_PPM for ppm in prices)

    @property
    def multiplier_most(self) -> Fraction:
        """Return the largest multiplier that any batch can get."""
        tariff = self.tariff
        own = (int(str(terms.own.get("price_ppm", PAR_PPM))) for terms in self.tenants.values())
        elastic = tariff.elasticity
        factors = (
            [PAR_PPM, *tariff.tiers.values()],
            [*(plan.price_ppm for plan in self.plans.values()), *own],
            [PAR_PPM, *(hours.multiplier_ppm for hours in tariff.hours)],
            [PAR_PPM] if elastic is None else [elastic.floor_ppm, elastic.ceiling_ppm],
        )
        return math.prod((Fraction(max(each), PAR_PPM) for each in factors), start=Fraction(1))

    def check_prices(self) -> None:
        """Raise `ValueError` where a price of tokens could come to charges that no ledger holds."""
        for model, prices in self.tariff.prices.items():
            dearest = max(prices.input_picos, prices.output_picos) * self.multiplier_most
            if dearest > TOKEN_PRICE_PICOS_MAX:
                raise ValueError(
                    f"prices.{model}: with all multipliers a million tokens may come to {float(dearest / 10**6):,.0f}; "
                    f"at most {TOKEN_PRICE_PICOS_MAX // 10**6:,} can be charged"
                )

    def plan_of(self, tenant_id: TenantId, stored: str) -> Plan:
        """Return what a tenant may have, whose stored plan is `stored`.

        A plan that the price list knows no more gives what a new tenant has, except that the installation's own tenant is
        never shut out of it.
        """
        terms = self.tenants.get(tenant_id, _NO_TERMS)
        fallback = OWN_PLAN if tenant_id == DEFAULT_TENANT else DEFAULT_PLAN
        plan = self.plans.get(terms.plan or stored) or self.plans[fallback]
        # The names are fields of `Plan`: whoever reads the settings sees to it.
        return replace(plan, **terms.own) if terms.own else plan  # type: ignore[arg-type] # each field takes its own kind


BUILT_IN_BOOK: Final = PlanBook()


@dataclass(frozen=True, slots=True, kw_only=True)
class Used:
    """What a tenant has taken of its quotas; what is reserved counts as taken."""

    requests: int
    tokens: int
    #: Of one model.
    enqueued_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a batch that is to be admitted would take."""

    tenant_id: TenantId
    tier: Tier
    model: str
    #: Lines of its file.
    rows_total: int
    #: Distinct rows that would run, and what they are expected to take.
    requests: int
    tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why a batch is not admitted, as its errors have it."""

    code: str
    message: str


def refuse_terms(plan: Plan, wanted: Wanted) -> Refusal | None:
    """Return why a batch cannot be had on this plan at all, or None."""
    if wanted.tier not in plan.tiers:
        return Refusal(code="tier_not_allowed", message=tier_sentence(plan, wanted.tier))
    if plan.rows_max is not None and wanted.rows_total > plan.rows_max:
        return Refusal(
            code="too_many_requests_in_batch",
            message=f"The file has {wanted.rows_total} requests; a batch on the plan '{plan.name}' has {plan.rows_max} at most.",
        )
    return None


def refuse_quota(plan: Plan, wanted: Wanted, used: Used, *, now: datetime) -> Refusal | None:
    """Return why a batch does not fit into what is left, or None: what just fits is admitted."""
    limit = plan.enqueued_tokens_max
    if limit is not None and used.enqueued_tokens + wanted.tokens > limit:
        return Refusal(
            code="token_limit_exceeded",
            message=f"Enqueued token limit reached for {wanted.model} in organization {wanted.tenant_id}. "
            f"Limit: {limit:,} enqueued tokens. "
            "Please try again once some in_progress batches have been completed.",
        )
    months = (
        ("request", plan.requests_per_month, used.requests, wanted.requests),
        ("token", plan.tokens_per_month, used.tokens, wanted.tokens),
    )
    for noun, limit, taken, asked in months:
        if limit is not None and taken + asked > limit:
            left = max(limit - taken, 0)
            return Refusal(
                code=f"monthly_{noun}_limit_exceeded",
                message=f"Monthly {noun} limit reached in organization {wanted.tenant_id}: the batch needs {asked:,} {noun}s, "
                f"{left:,} of {limit:,} are left. The month turns at {next_month(now):%Y-%m-%dT%H:%M:%SZ}.",
            )
    return None


def tier_sentence(plan: Plan, tier: Tier) -> str:
    """Return what is said of a tier that a plan does not have."""
    allowed = ", ".join(f"'{each}'" for each in plan.tiers)
    return f"The plan '{plan.name}' does not have the tier '{tier}'. Allowed values: {allowed}."


def month_of(now: datetime) -> date:
    """Return the first day of the month (UTC) that an instant is in."""
    return now.astimezone(UTC).date().replace(day=1)


def next_month(now: datetime) -> datetime:
    """Return when the month (UTC) after that of `now` begins."""
    first = month_of(now)
    is_last = first.month == _DECEMBER
    return datetime(first.year + is_last, 1 if is_last else first.month + 1, 1, tzinfo=UTC)
