"""What a rule over zones knows: their survival, what was seen of them since, and what follows from both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from scheduler.fleet.jobs import Job, Moment
from scheduler.fleet.survival import AGE_EDGES, Floats, Survival
from scheduler.fleet.zones import Market, Sightings, Situation

#: Ages in ticks that are told apart; the last bucket's hazard is one.
_AGES: Final = AGE_EDGES[-1]


@dataclass(slots=True, kw_only=True)
class Watcher:
    """What a policy over zones is made of: job, market, what is known of pools, and what was seen since."""

    job: Job
    market: Market
    survivals: Mapping[str, Survival]
    sightings: dict[str, Sightings] = field(default_factory=dict)
    outlooks: dict[str, Outlook] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Start watching every zone."""
        for zone in self.market.zones:
            self.sightings.setdefault(zone.name, Sightings())
            self.outlooks.setdefault(zone.name, Outlook.of(self.survivals[zone.name]))

    def observe(self, zone: str, tick: int, *, is_available: bool) -> None:
        """Take in a look at a zone."""
        self.sightings[zone].observe(tick, is_available=is_available)

    def moment(self, situation: Situation, *, is_available: bool, age_ticks: int = 1) -> Moment:
        """Return the situation as if of one zone."""
        return Moment(
            tick=situation.tick,
            work_left_seconds=situation.work_left_seconds,
            mode=situation.running.mode,
            startup_left_seconds=situation.startup_left_seconds,
            is_available=is_available,
            age_ticks=age_ticks,
        )

    def life_ticks(self, zone: str, tick: int) -> float:
        """Return how long spot in a zone is expected to last from now on, should it be there."""
        outlook = self.outlooks[zone]
        if self.sightings[zone].seen_tick is None:
            return outlook.usual_life
        return float(outlook.lives[min(self.run_age(zone, tick), _AGES) - 1])

    def run_age(self, zone: str, tick: int) -> int:
        """Return how old a zone's run is, should it be there."""
        seen, outlook = self.sightings[zone], self.outlooks[zone]
        if seen.seen_tick is None:
            return outlook.usual_age
        # Where it was gone when last seen, a run that is there now began since, half-way for all one knows.
        return seen.age_ticks(tick) if seen.is_available else max(1, (tick - seen.seen_tick + 1) // 2)

    def chance(self, zone: str, tick: int) -> float:
        """Return how likely spot is there now: as it was last seen, and ever more as it usually is."""
        seen, outlook = self.sightings[zone], self.outlooks[zone]
        if seen.seen_tick is None:
            return outlook.availability
        age = min(max(seen.seen_tick - seen.since_tick + 1, 1), _AGES) - 1
        lasts = (outlook.lives if seen.is_available else outlook.outages)[age]
        forgotten = 1 - float(np.exp(-(tick - seen.seen_tick) / lasts))
        return (1 - forgotten) * seen.is_available + forgotten * outlook.availability


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """What follows from a pool's survival, worked out once: ticks left of runs and outages by age, and of usual ones."""

    lives: Floats
    outages: Floats
    usual_life: float
    usual_age: int
    availability: float

    @classmethod
    def of(cls, survival: Survival) -> Outlook:
        """Return the outlook of a pool."""
        ages = range(1, _AGES + 1)
        return cls(
            lives=np.array([survival.left_ticks(age, is_available=True) for age in ages]),
            outages=np.array([survival.left_ticks(age, is_available=False) for age in ages]),
            usual_life=survival.residual_ticks(is_available=True),
            usual_age=AGE_EDGES[int(np.searchsorted(np.cumsum(survival.age_weights(is_available=True)), 0.5))],
            availability=survival.availability,
        )
