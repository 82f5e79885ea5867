"""How long runs of spot capacity last by their age, and outages, learned per pool and shrunk to the fleet's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

#: First age, in ticks, of each bucket; the last one is open. Hazards fall with age, so buckets widen with it.
AGE_EDGES: Final = (1, 2, 3, 4, 6, 9, 13, 19, 28, 42, 63, 95)
BUCKETS: Final = len(AGE_EDGES)
#: A pool never seen to end, or never to stay, may still do so: what can happen must not be ruled out.
HAZARD_MIN: Final = 1e-4
HAZARD_MAX: Final = 1 - 1e-4
#: Candidates for how many ends the fleet's word counts for; the likeliest is taken.
_STRENGTHS: Final = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0)
#: Of the fleet's own prior: half an end in as many ticks as the mean hazard asks for.
_FLEET_PRIOR_ENDS: Final = 0.5


def bucket_of(age_ticks: int) -> int:
    """Return the bucket of an age; a run's first tick has age 1, and what is younger counts as that."""
    return max(0, int(np.searchsorted(AGE_EDGES, age_ticks, side="right")) - 1)


@dataclass(slots=True)
class Exposure:
    """Ticks at risk and ends, by age: what a survival estimate is made of. Censored runs are at risk and do not end."""

    at_risk: list[float] = field(default_factory=list)
    ended: list[float] = field(default_factory=list)

    def tick(self, age_ticks: int, *, ends: bool) -> None:
        """Count one tick at this age, after which the run ended or was still there."""
        while len(self.at_risk) < age_ticks:
            self.at_risk.append(0.0)
            self.ended.append(0.0)
        self.at_risk[age_ticks - 1] += 1.0
        self.ended[age_ticks - 1] += float(ends)

    def run(self, length_ticks: int, *, is_censored: bool) -> None:
        """Count a run of this many ticks; one that is censored was still there when last seen."""
        for age in range(1, length_ticks):
            self.tick(age, ends=False)
        if length_ticks > 0 and not is_censored:
            self.tick(length_ticks, ends=True)

    def by_bucket(self) -> tuple[Floats, Floats]:
        """Return ticks at risk and ends of each bucket of age."""
        at_risk, ended = np.zeros(BUCKETS), np.zeros(BUCKETS)
        buckets = [bucket_of(age) for age in range(1, len(self.at_risk) + 1)]
        np.add.at(at_risk, buckets, self.at_risk)
        np.add.at(ended, buckets, self.ended)
        return at_risk, ended


def nelson_aalen(exposure: Exposure) -> tuple[Floats, Floats]:
    """Return the cumulative hazard and exp(-it), the survival, after each age from 1 tick on."""
    at_risk, ended = np.array(exposure.at_risk, dtype=float), np.array(exposure.ended, dtype=float)
    steps = np.divide(ended, at_risk, out=np.zeros_like(ended), where=at_risk > 0)
    cumulative: Floats = np.cumsum(steps)
    return cumulative, np.asarray(np.exp(-cumulative))


@dataclass(slots=True)
class PoolHistory:
    """What was seen of one pool, tick by tick, and what is so now.

    What goes on when watching starts, or starts again, is counted from the first look on: its age is at least that.
    """

    runs: Exposure = field(default_factory=Exposure)
    outages: Exposure = field(default_factory=Exposure)
    is_available: bool | None = None
    #: Ticks since availability last changed, or was first looked at.
    age_ticks: int = 0

    def observe(self, is_available: bool | None) -> None:  # noqa: FBT001 - the observation itself
        """Take in the next tick: capacity was there, was not, or (None) nobody looked."""
        if is_available is None:
            self.is_available, self.age_ticks = None, 0
            return
        before = self.is_available
        if before is not None:
            kind = self.runs if before else self.outages
            kind.tick(self.age_ticks, ends=before != is_available)
        self.age_ticks = self.age_ticks + 1 if before == is_available else 1
        self.is_available = is_available

    @classmethod
    def of(cls, trace: Sequence[bool | None] | NDArray[np.bool_]) -> PoolHistory:
        """Return the history of a pool whose ticks were these, in order."""
        made = cls()
        for each in trace:
            made.observe(None if each is None else bool(each))
        return made


@dataclass(frozen=True, slots=True, kw_only=True)
class Survival:
    """Chance per tick that a run, or an outage, of an age bucket ends with that tick."""

    run_hazards: Floats
    outage_hazards: Floats
    #: Chance that, as a run ends, another pool has capacity at once, whose run is then of this bucket of age.
    elsewhere: float = 0.0
    elsewhere_bucket: int = 0

    def left_ticks(self, age_ticks: int, *, is_available: bool, horizon_ticks: int = 100_000) -> float:
        """Return how many more ticks a run (or an outage) of this age is expected to last, the present one included."""
        return _left(self.run_hazards if is_available else self.outage_hazards, age_ticks, horizon_ticks)

    def age_weights(self, *, is_available: bool) -> Floats:
        """Return how likely each bucket of age is of a run (or an outage) met at a random time."""
        hazards = self.run_hazards if is_available else self.outage_hazards
        weights, alive = np.zeros(BUCKETS), 1.0
        for bucket in range(BUCKETS):
            stays = 1 - hazards[bucket]
            ticks = np.inf if bucket + 1 == BUCKETS else AGE_EDGES[bucket + 1] - AGE_EDGES[bucket]
            weights[bucket] = alive * (1 - stays**ticks) / (1 - stays)
            alive *= stays**ticks
        return np.asarray(weights / weights.sum())

    def residual_ticks(self, *, is_available: bool) -> float:
        """Return how many more ticks a run (or an outage) of unknown age is expected to last."""
        lasts = [self.left_ticks(age, is_available=is_available) for age in AGE_EDGES]
        return float(self.age_weights(is_available=is_available) @ lasts)

    @property
    def availability(self) -> float:
        """Share of time that capacity is there, in the long run."""
        up, down = self.left_ticks(1, is_available=True), self.left_ticks(1, is_available=False)
        return up / (up + down)


def _left(hazards: Floats, age_ticks: int, horizon_ticks: int) -> float:
    total, alive, age, seen = 0.0, 1.0, max(1, age_ticks), 0
    for bucket in range(bucket_of(age), BUCKETS):
        stop = AGE_EDGES[bucket + 1] if bucket + 1 < BUCKETS else age + horizon_ticks
        ticks = min(stop - age, horizon_ticks - seen)
        if ticks <= 0:
            break
        stays = 1.0 - float(hazards[bucket])
        # The sum of alive * stays^i over the bucket's ticks, each counted as it begins.
        total += alive * (1 - stays**ticks) / (1 - stays)
        alive *= stays**ticks
        age, seen = stop, seen + ticks
    return total


def fit(histories: Mapping[str, PoolHistory]) -> tuple[Survival, dict[str, Survival]]:
    """Return the fleet's survival, and each pool's own shrunk to it.

    A pool's hazards are the fleet's times a frailty of its own (how much more often it is lost at any age), and then its
    buckets' own; both are Gamma-Poisson means, whose strengths are the likeliest ones given all pools.
    """
    names = list(histories)
    runs = _shrunk([histories[name].runs for name in names])
    outages = _shrunk([histories[name].outages for name in names])
    fleet = Survival(run_hazards=runs[0], outage_hazards=outages[0])
    pools = {
        name: Survival(run_hazards=run, outage_hazards=outage)
        for name, run, outage in zip(names, runs[1], outages[1], strict=True)
    }
    return fleet, pools


def _shrunk(exposures: Sequence[Exposure]) -> tuple[Floats, list[Floats]]:
    counts = [each.by_bucket() for each in exposures]
    at_risk = np.array([each[0] for each in counts]).reshape(len(counts), BUCKETS)
    ended = np.array([each[1] for each in counts]).reshape(len(counts), BUCKETS)
    fleet = _fleet_hazards(at_risk.sum(axis=0), ended.sum(axis=0))
    expected = at_risk * fleet
    frailty_strength = _strength(ended.sum(axis=1), expected.sum(axis=1))
    frailty = (ended.sum(axis=1) + frailty_strength) / (expected.sum(axis=1) + frailty_strength)
    expected = expected * frailty[:, None]
    strength = _strength(ended.ravel(), expected.ravel())
    hazards = fleet * frailty[:, None] * (ended + strength) / (expected + strength)
    return fleet, list(np.clip(hazards, HAZARD_MIN, HAZARD_MAX))


def _fleet_hazards(at_risk: Floats, ended: Floats) -> Floats:
    # Where nothing was seen, the hazard of the nearest younger bucket stands; by default once in twelve ticks.
    mean = (ended.sum() + _FLEET_PRIOR_ENDS) / (at_risk.sum() + 12 * _FLEET_PRIOR_ENDS)
    hazards = np.zeros(BUCKETS)
    prior = mean
    for bucket in range(BUCKETS):
        prior = (ended[bucket] + _FLEET_PRIOR_ENDS) / (at_risk[bucket] + _FLEET_PRIOR_ENDS / prior)
        hazards[bucket] = prior
    return np.clip(hazards, HAZARD_MIN, HAZARD_MAX)


def _strength(ended: Floats, expected: Floats) -> float:
    """Return the shape of the Gamma prior of mean 1 under which these counts are likeliest (negative binomial)."""
    from math import lgamma

    def likelihood(shape: float) -> float:
        total = 0.0
        for count, mean in zip(ended, expected, strict=True):
            if mean > 0:
                total += lgamma(count + shape) - lgamma(shape) + shape * np.log(shape / (shape + mean))
                total += count * np.log(mean / (shape + mean))
        return total

    return max(_STRENGTHS, key=likelihood)
