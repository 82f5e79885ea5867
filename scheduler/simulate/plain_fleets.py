"""The plainest fleets, which others are measured against: so many workers, whatever comes."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.domain.lifecycle import WorkerState
from pipeline.ports.fleet import FleetPlan, FleetReason, FleetView, PoolStanding, Start


@dataclass(frozen=True, slots=True, kw_only=True)
class Fixed:
    """Keeps so many workers of one offer, from the first moment on."""

    offer: str
    workers: int

    @property
    def name(self) -> str:
        """What reports call it."""
        return f"fixed_{self.workers}"

    def decide(self, view: FleetView) -> FleetPlan:
        """Start what is missing; nothing is stopped."""
        live = sum(each.offer == self.offer and each.state is not WorkerState.DRAINING for each in view.workers)
        starts = (Start(offer=self.offer, count=self.workers - live, reason=FleetReason.WARM),)
        return FleetPlan(
            starts=starts if live < self.workers else (),
            standings=tuple(
                PoolStanding(pool=pool.pool, wanted=self.workers, reason=FleetReason.WARM) for pool in view.pools
            ),
        )
