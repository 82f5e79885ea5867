"""Route: which variant of a model a pool runs a tier's rows on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pipeline.domain.tiers import Tier
from pipeline.ports.cycle import PoolView, Serving


@dataclass(frozen=True, slots=True)
class Routes:
    """The variant for each pool, model and tier that has one; made once a cycle."""

    variants: dict[tuple[str, str, Tier], str]

    @classmethod
    def over(cls, pools: Iterable[PoolView]) -> Routes:
        """Return the routes of these pools; one that has no workers and can be brought to none has none."""
        variants: dict[tuple[str, str, Tier], str] = {}
        for pool in pools:
            # The dearest first, so that the cheapest is what stays.
            for serving in sorted(pool.servings, key=_preference, reverse=True) if pool.workers_promised_on else ():
                variants.update({(pool.pool, serving.model, tier): serving.variant for tier in serving.tiers})
        return cls(variants)

    def variant_for(self, model: str, tier: Tier, pool: str) -> str | None:
        """Return what runs the tier's rows in this pool, or None when nothing there may."""
        return self.variants.get((pool, model, tier))


def _preference(serving: Serving) -> tuple[float, str]:
    return serving.relative_cost, serving.variant
