"""The fleet of a simulation: pools, how fast their workers really are, and what goes wrong with them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Final, Protocol

from pipeline.domain.tiers import Tier
from pipeline.ports.cycle import Serving, WorkSize

_MICROS: Final = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """What a worker really takes; the scheduler has to find it out."""

    row_seconds: float = 0.0
    input_tokens_per_second: float = 5000.0
    output_tokens_per_second: float = 500.0

    def seconds(self, size: WorkSize) -> float:
        """Return how long so much work takes a worker that nothing disturbs."""
        return (
            size.rows * self.row_seconds
            + size.input_tokens / self.input_tokens_per_second
            + size.output_tokens / self.output_tokens_per_second
        )


class Pacing(Protocol):
    """How long work takes a worker."""

    def seconds(self, size: WorkSize) -> float:
        """Return how long so much work takes a worker that nothing disturbs."""


class Disturbance(Protocol):
    """What packs are longer or shorter by."""

    def factor(self, random: Random) -> float:
        """Return what a pack's seconds are multiplied by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Absence:
    """A time in which one worker of a pool is gone."""

    worker: int
    from_seconds: float
    to_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """Workers of one kind."""

    name: str
    workers: int
    #: What each variant served really takes.
    speeds: Mapping[str, Pacing]
    servings: tuple[Serving, ...]
    rate_micros_per_hour: int = _MICROS
    absences: tuple[Absence, ...] = ()

    @classmethod
    def of_model(cls, name: str, *, workers: int, model: str, speed: Speed | None = None, **others: object) -> Pool:
        """Return a pool that serves one model's reference."""
        serving = Serving(variant=model, model=model, tiers=frozenset(Tier))
        speeds = {model: speed or Speed()}
        return cls(name=name, workers=workers, speeds=speeds, servings=(serving,), **others)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """What makes packs take longer or shorter than they should."""

    #: Standard deviation of the logarithm of a pack's seconds.
    spread: float = 0.1
    #: Or instead: seconds are off by up to this share, evenly.
    even: float = 0.0
    #: Share of packs that run on a straggler, and how many times longer they take.
    straggling: float = 0.0
    straggling_factor: float = 3.0

    def factor(self, random: Random) -> float:
        """Return what a pack's seconds are multiplied by."""
        factor = random.uniform(1 - self.even, 1 + self.even) if self.even else math.exp(random.gauss(0, self.spread))
        return factor * self.straggling_factor if random.random() < self.straggling else factor


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """All pools, and their trouble."""

    pools: tuple[Pool, ...]
    trouble: Disturbance = field(default_factory=Trouble)
    #: How long a lease of a lost worker stands before its pack can run again.
    lease_seconds: float = 30.0


def random_absences(*, workers: int, share: float, mean_seconds: float, hours: float, seed: int) -> tuple[Absence, ...]:
    """Return absences of each of so many workers, each gone for this share of the time, at random."""
    random = Random(seed)  # noqa: S311 -- a simulation, not a secret
    found: list[Absence] = []
    for worker in range(workers):
        at_seconds = random.expovariate(share / mean_seconds / (1 - share))
        while at_seconds < hours * 3600:
            gone = random.expovariate(1 / mean_seconds)
            found.append(Absence(worker=worker, from_seconds=at_seconds, to_seconds=at_seconds + gone))
            at_seconds += gone + random.expovariate(share / mean_seconds / (1 - share))
    return tuple(found)
