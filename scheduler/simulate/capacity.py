"""Capacity of an offer over time: recorded, made up, or without end."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from random import Random
from typing import Final

#: Shape of runs and outages that are made up: many short ones, and few that are very long.
_TAIL: Final = 1.5


@dataclass(frozen=True, slots=True)
class Capacity:
    """How many machines can be had at once, as steps: `counts[i]` from `times[i]` seconds on."""

    times: tuple[float, ...]
    counts: tuple[int, ...]

    def __post_init__(self) -> None:
        """Refuse steps that are out of order, or that do not begin with the simulation."""
        if not self.times or len(self.times) != len(self.counts) or self.times[0] != 0:
            raise ValueError("capacity has a count from second 0 on, and one for each later step")
        if any(before >= after for before, after in pairwise(self.times)) or min(self.counts) < 0:
            raise ValueError("steps of capacity are in order, and no count is below 0")

    def at(self, seconds: float) -> int:
        """Return how many machines there are at a moment; the last step holds for ever."""
        return self.counts[bisect_right(self.times, seconds) - 1]

    def drops(self) -> Iterator[tuple[float, int]]:
        """Yield when there come to be fewer, and how many are left then."""
        for (_, before), (at, after) in pairwise(zip(self.times, self.counts, strict=True)):
            if after < before:
                yield at, after

    @classmethod
    def of(cls, looks: Iterable[tuple[float, int]]) -> Capacity:
        """Return the capacity that these looks found, in order of their times; looks that find the same are one step.

        What the first look found held from the beginning.
        """
        times: list[float] = []
        counts: list[int] = []
        for at, found in looks:
            if not counts or counts[-1] != found:
                times.append(at if times else 0.0)
                counts.append(found)
        return cls(tuple(times), tuple(counts))

    @classmethod
    def tiled(cls, counts: Sequence[int], *, tick_seconds: float, until_seconds: float) -> Capacity:
        """Return recorded ticks, begun again from the first one as often as it takes."""
        ticks = int(until_seconds // tick_seconds) + 1
        return cls.of((tick * tick_seconds, counts[tick % len(counts)]) for tick in range(ticks))

    def __repr__(self) -> str:
        """Say how much it is on the whole."""
        return f"Capacity({len(self.times)} steps, {min(self.counts)} to {max(self.counts)})"


def made_up_capacity(
    *, workers: int, run_hours: float, outage_hours: float, until_seconds: float, seed: str
) -> Capacity:
    """Return runs and outages by a semi-Markov process with heavy tails; equal seeds give equal ones.

    Runs last `run_hours` on average and have a quarter of `workers` to all of them; nothing is there in an outage.
    """
    random = Random(seed)  # noqa: S311 -- a simulation, not a secret
    is_there = random.random() < run_hours / (run_hours + outage_hours)
    at, looks = 0.0, []
    while at <= until_seconds:
        looks.append((at, random.randint(max(1, workers // 4), workers) if is_there else 0))
        mean = (run_hours if is_there else outage_hours) * 3600
        # A Pareto of shape a, shifted to begin at 0, has the mean scale / (a - 1).
        at += max(1.0, mean * (_TAIL - 1) * (random.paretovariate(_TAIL) - 1))
        is_there = not is_there
    return Capacity.of(looks)
