"""Deadlines: how much time the promised ones leave, and which more can be promised.

The demand-bound test of earliest-deadline-first scheduling (S. Baruah, L. Rosier, R. Howell, 1990) for divisible
work on G equal workers. With packs of at most b seconds, a list of claims is feasible when for each deadline d

    sum of the claims' seconds due by d  <=  G * (d - now - 2b)

because a worker is free within b, earliest-deadline-first keeps all of them busy with due work, and the last pack
ends within another b. What the right side has over the left is the claim's slack.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from pipeline.domain.ids import BatchId

_US: Final = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What one batch asks of a pool before its deadline."""

    batch_id: BatchId
    deadline_at_us: int
    #: Upper bound of the worker-seconds that its rows without a result take.
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """What a pool can be relied on for."""

    now_us: int
    #: Workers, a fraction where some of their time is kept for others.
    workers: float
    #: Longest pack.
    pack_seconds: float
    #: How long before its deadline work is to be done.
    margin_seconds: float = 0.0

    def seconds_until(self, deadline_at_us: int) -> float:
        """Return the worker-seconds to be had before a deadline; negative once it is too near for a pack."""
        return self.workers * ((deadline_at_us - self.now_us) / _US - self.lost_seconds)

    @property
    def lost_seconds(self) -> float:
        """Return the part of the time until a deadline that cannot be counted on."""
        return 2 * self.pack_seconds + self.margin_seconds


def is_overdue(deadline_at_us: int, *, now_us: int) -> bool:
    """Say whether a deadline has been reached; both are microseconds since the Unix epoch."""
    return now_us >= deadline_at_us


def due(claim: Claim) -> tuple[int, BatchId]:
    """Return the key by which claims are in order of their deadlines."""
    return claim.deadline_at_us, claim.batch_id


def by_deadline(claims: Iterable[Claim]) -> list[Claim]:
    """Return the claims in the order in which they are due."""
    return sorted(claims, key=due)


def slacks(claims: Sequence[Claim], capacity: Capacity) -> list[float]:
    """Return the slack in worker-seconds of each of `claims`, which are in order of their deadlines.

    Claims due at the same instant have the slack of the last of them.
    """
    found: list[float] = []
    asked = 0.0
    for claim in claims:
        asked += claim.seconds
        found.append(capacity.seconds_until(claim.deadline_at_us) - asked)
    for index in range(len(claims) - 2, -1, -1):
        if claims[index].deadline_at_us == claims[index + 1].deadline_at_us:
            found[index] = found[index + 1]
    return found


def pressing(claims: Sequence[Claim], capacity: Capacity, *, short_seconds: float) -> list[Claim]:
    """Return the claims that must go before everything else now, the first due first.

    They are those due by the last deadline whose slack is no more than `short_seconds`. With a pack on every worker for
    that, and looked at again before the next pack, no slack is below zero that was not before.
    """
    last = max((index for index, slack in enumerate(slacks(claims, capacity)) if slack <= short_seconds), default=-1)
    return list(claims[: last + 1])


def earliest_deadline(seconds: float, claims: Sequence[Claim], capacity: Capacity) -> int | None:
    """Return the first deadline by which so many more seconds can be promised beside `claims`.

    In microseconds since the Unix epoch; None where there is no worker. `claims` are in order of their deadlines.
    """
    if capacity.workers <= 0:
        return None
    spare = slacks(claims, capacity)
    # A claim that the newcomer would make late must be due before it.
    first = 1 + max((index for index, slack in enumerate(spare) if slack < seconds), default=-1)
    asked = sum(claim.seconds for claim in claims[:first])
    after_us = claims[first - 1].deadline_at_us + 1 if first else capacity.now_us
    for claim in (*claims[first:], None):
        wanted = capacity.lost_seconds + (asked + seconds) / capacity.workers
        deadline_at_us = max(after_us, capacity.now_us + int(-(-wanted * _US // 1)))
        if claim is None or deadline_at_us < claim.deadline_at_us:
            return deadline_at_us
        asked += claim.seconds
        after_us = claim.deadline_at_us
    raise AssertionError("the last turn has returned")


def can_promise(newcomer: Claim, claims: Sequence[Claim], capacity: Capacity) -> bool:
    """Say whether the newcomer and all of `claims`, which are in order of their deadlines, can be done in time."""
    if capacity.workers <= 0:
        return False
    place = bisect_right(claims, due(newcomer), key=due)
    asked = 0.0
    for claim in claims[:place]:
        asked += claim.seconds
    # Those due before the newcomer lose nothing by it, and of those due at one instant the last has least.
    last = newcomer
    for claim in claims[place:]:
        asked += last.seconds
        if claim.deadline_at_us != last.deadline_at_us and capacity.seconds_until(last.deadline_at_us) < asked:
            return False
        last = claim
    return capacity.seconds_until(last.deadline_at_us) >= asked + last.seconds
