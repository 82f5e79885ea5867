"""The scheduler's policy, as the settings have it."""

from __future__ import annotations

from pipeline.config import Settings
from pipeline.domain.errors import UsageError
from pipeline.domain.ids import TenantId
from pipeline.domain.tiers import WEIGHTS, Tier
from scheduler.policy import Policy, floored


def policy_of(settings: Settings) -> Policy:
    """Return the policy, or raise `UsageError` where the tiers' floors leave nothing for the others."""
    weights: dict[Tier, float] = dict(WEIGHTS)
    weights |= {tier: terms.weight for tier, terms in settings.tiers.items() if terms.weight is not None}
    floors = {tier: terms.floor for tier, terms in settings.tiers.items()}
    if sum(floors.values()) > 1:
        raise UsageError(f"tiers: the floors are {sum(floors.values()):g} together", hint="floors are 1 at most in all")
    return Policy(
        pack_seconds_target=settings.pack_seconds,
        tier_weights=floored(weights, floors),
        tenant_weights={TenantId(tenant): terms.weight for tenant, terms in settings.tenants.items()},
        tenant_limits={
            TenantId(tenant): terms.limit for tenant, terms in settings.tenants.items() if terms.limit is not None
        },
        tenant_pools={
            TenantId(tenant): frozenset(
                name for name, pool in settings.rate_card.pools.items() if pool.region in terms.regions
            )
            for tenant, terms in settings.tenants.items()
            if terms.regions is not None
        },
        debt_half_life_seconds=settings.debt_half_life_hours * 3600,
    )
