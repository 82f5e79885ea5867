"""Sightings: what requests for machines tell of an offer's capacity, as the ticks that survival is learned from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scheduler.fleet.survival import PoolHistory, Survival, fit

_US = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """A stretch of time in which capacity was seen to be there, or seen not to be."""

    from_us: int
    to_us: int
    is_available: bool


def history_of(sightings: Sequence[Sighting], *, from_us: int, now_us: int, tick_seconds: float) -> PoolHistory:
    """Return an offer's history tick by tick; of ticks without a sighting nobody knows.

    A tick in which both was seen is one without capacity: a machine that runs is there for sure, and one that was taken or
    refused meanwhile says more about the next.
    """
    tick_us = round(tick_seconds * _US)
    ticks: list[bool | None] = [None] * max(0, (now_us - from_us) // tick_us)
    for sighting in sorted(sightings, key=lambda each: not each.is_available):
        first = max(0, (sighting.from_us - from_us) // tick_us)
        last = min(len(ticks) - 1, (max(sighting.from_us, sighting.to_us - 1) - from_us) // tick_us)
        for tick in range(first, last + 1):
            ticks[tick] = sighting.is_available
    return PoolHistory.of(ticks)


def learned(
    sightings: Mapping[str, Sequence[Sighting]], *, from_us: int, now_us: int, tick_seconds: float
) -> dict[str, Survival]:
    """Return the survival of each offer that was seen at all, shrunk to that of all of them."""
    histories = {
        offer: history_of(seen, from_us=from_us, now_us=now_us, tick_seconds=tick_seconds)
        for offer, seen in sightings.items()
    }
    seen = {offer: history for offer, history in histories.items() if history.runs.at_risk or history.outages.at_risk}
    return fit(seen)[1] if seen else {}
