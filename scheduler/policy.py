"""The policy: the numbers that the cycle's decisions turn on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Final

from pipeline.domain.ids import TenantId
from pipeline.domain.limits import PACK_ROWS_MAX, PACK_SLICES_MAX
from pipeline.domain.tiers import WEIGHTS, Tier

_MAY_BE_ZERO: Final = frozenset({"pack_fixed_seconds", "top_up_lead_seconds", "promise_margin_seconds"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How large packs are and how far ahead of the workers they are published."""

    #: Predicted work of a full pack. Short packs lose little to a crash and let an urgent batch in
    #: soon; long ones cost fewer leases.
    pack_seconds_target: float = 10.0
    #: The same for a model without a measurement, where the prediction may be wrong by far: a short
    #: pack brings the measurement early.
    first_pack_seconds: float = 2.0
    #: Assumed of what a pack takes beyond its rows, at most, as long as packs that ended do not tell.
    pack_fixed_seconds: float = 2.0
    #: Packs published and not yet leased, for each live worker of a pool: one to start at once and
    #: one to read while the first runs. What is published can no longer be overtaken.
    packs_ahead_per_worker: int = 2
    #: Assumed of a model without a measurement, whatever engine runs it.
    default_tokens_per_second: float = 500.0
    #: How far ahead of its turn a batch may be and still fill up another batch's pack. It widens the
    #: fairness bound by twice itself, and only for batches that fill up.
    top_up_lead_seconds: float = 10.0
    #: Rows of a full pack whatever they cost. An engine is fast only with its slots full, so a pack
    #: sized by a speed measured on few rows would be small, run slowly, and shrink the next one.
    pack_rows_min: int = 128
    pack_rows_max: int = PACK_ROWS_MAX
    #: What a prediction is multiplied by where being late is worse than being early.
    cost_upper_factor: float = 1.5
    #: Share of a pool's time that may be promised to deadlines, so that the rest still moves.
    promised_share: float = 0.7
    #: What is promised is to be done so long before its deadline: a lost worker's last pack waits for its
    #: lease to end, and then runs again.
    promise_margin_seconds: float = 60.0
    #: Deadlines looked at in one cycle; the others wait for the next.
    promises_a_cycle: int = 200
    pack_slices_max: int = PACK_SLICES_MAX
    #: Shares of a contended pool, relative to one another: of tiers, and of the tenants of a tier. Tenants that are
    #: not named weigh 1.
    tier_weights: Mapping[Tier, float] = field(default_factory=lambda: WEIGHTS)
    tenant_weights: Mapping[TenantId, float] = field(default_factory=dict)
    #: The share of a pool's workers that a tenant may have at once, however idle the others are.
    tenant_limits: Mapping[TenantId, float] = field(default_factory=dict)
    #: The pools that a tenant's rows may run in, of tenants whose rows may not run everywhere.
    tenant_pools: Mapping[TenantId, frozenset[str]] = field(default_factory=dict)
    #: In what time a debt of a tenant or tier without rows halves: what was used long ago counts for less.
    debt_half_life_seconds: float = 6 * 3600.0

    def __post_init__(self) -> None:
        """Refuse values that no cycle can work with."""
        for each in fields(self):
            value = getattr(self, each.name)
            values = value.values() if isinstance(value, Mapping) else (value,)
            if each.name not in {*_MAY_BE_ZERO, "tenant_pools"} and any(number <= 0 for number in values):
                raise ValueError(f"{each.name} must be positive")
        if self.promised_share > 1 or any(limit > 1 for limit in self.tenant_limits.values()):
            raise ValueError("promised_share and tenant_limits must not exceed 1")
        if min(getattr(self, name) for name in _MAY_BE_ZERO) < 0:
            raise ValueError(f"{' and '.join(sorted(_MAY_BE_ZERO))} must not be negative")
        if self.pack_rows_min > self.pack_rows_max:
            raise ValueError("pack_rows_min must not exceed pack_rows_max")
        if self.pack_rows_max > PACK_ROWS_MAX or self.pack_slices_max > PACK_SLICES_MAX:
            raise ValueError("a policy may tighten the limits on packs, not widen them")

    def tier_weight(self, tier: Tier) -> float:
        """Return a tier's share of a contended pool, relative to the other tiers' weights."""
        return float(self.tier_weights[tier])

    def tenant_weight(self, tenant_id: TenantId) -> float:
        """Return a tenant's share of its tier, relative to the other tenants' weights."""
        return float(self.tenant_weights.get(tenant_id, 1.0))

    def may_run(self, tenant_id: TenantId, pool: str) -> bool:
        """Say whether a tenant's rows may run in a pool."""
        allowed = self.tenant_pools.get(tenant_id)
        return allowed is None or pool in allowed

    def packs_of_tenant_max(self, tenant_id: TenantId, *, workers: int) -> float:
        """Return how many packs a tenant may have on their way in a pool; one at least."""
        return max(1.0, self.tenant_limits.get(tenant_id, math.inf) * workers)

    def weights_of(self, tier: Tier, tenant_id: TenantId) -> tuple[float, float, float]:
        """Return the weights of a tier, of a tenant in it, and of each of that tenant's batches."""
        return self.tier_weight(tier), self.tenant_weight(tenant_id), 1.0


def floored(weights: Mapping[Tier, float], floors: Mapping[Tier, float]) -> dict[Tier, float]:
    """Return weights by which each tier has its floor of a pool that all contend for, and the others share the rest.

    Floors are shares, no more than 1 together; the others keep their proportions.
    """
    found = dict(weights)
    whole = sum(weights.values())
    at_floor: set[Tier] = set()
    while True:
        rest = whole * (1 - sum(floors[tier] for tier in at_floor))
        free = sum(weight for tier, weight in weights.items() if tier not in at_floor)
        found = {
            tier: whole * floors[tier] if tier in at_floor else rest * weight / free for tier, weight in weights.items()
        }
        below = {tier for tier, floor in floors.items() if found[tier] < whole * floor - 1e-9 * whole}
        if not below:
            return {tier: max(weight, 1e-9 * whole) for tier, weight in found.items()}
        at_floor |= below
