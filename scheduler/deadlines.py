"""Deadlines: how much time the promised ones leave, and which more can be promised.

The demand-bound test of earliest-deadline-first scheduling (S. Baruah, L. Rosier, R. Howell, 1990) for divisible
work on G equal workers. With packs of at most b seconds, a list of claims is feasible when for each deadline d

    sum of the claims' seconds due by d  <=  G * (d - now - 2b)

because a worker is free within b, earliest-deadline-first keeps all of them busy with due work, and the last pack
ends within another b. What the right side has over the left is the claim's slack.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final, overload

import numpy as np

from scheduler.columns import Flags, Floats, Integers

_US: Final = 1_000_000


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
    #: As many as this, instead, from so many seconds on: what the pool can be brought to.
    workers_later: float = 0.0
    later_seconds: float = 0.0

    @overload
    def seconds_until(self, deadline_at_us: int) -> float: ...
    @overload
    def seconds_until(self, deadline_at_us: Integers) -> Floats: ...

    def seconds_until(self, deadline_at_us: int | Integers) -> float | Floats:
        """Return the worker-seconds to be had before a deadline; negative once it is too near for a pack."""
        left = (deadline_at_us - self.now_us) / _US - self.lost_seconds
        # Either those that are there, or those that are waited for: no more is counted on than one of the two gives.
        return np.maximum(self.workers * left, self.workers_later * (left - self.later_seconds))

    @property
    def is_any(self) -> bool:
        """Say whether there are workers, or can be."""
        return self.workers > 0 or self.workers_later > 0

    def wanted_seconds(self, seconds: Floats) -> Floats:
        """Return how long from now so many worker-seconds take, all that is lost included."""
        found = [
            after + seconds / workers
            for workers, after in ((self.workers, 0.0), (self.workers_later, self.later_seconds))
            if workers > 0
        ]
        soonest: Floats = np.minimum.reduce(found)
        return self.lost_seconds + soonest

    def of_share(self, share: float) -> Capacity:
        """Return the same of a part of the workers."""
        return replace(self, workers=self.workers * share, workers_later=self.workers_later * share)

    @property
    def lost_seconds(self) -> float:
        """Return the part of the time until a deadline that cannot be counted on."""
        return 2 * self.pack_seconds + self.margin_seconds


def is_overdue(deadlines_us: Integers, *, now_us: int) -> Flags:
    """Say which deadlines have been reached; all are microseconds since the Unix epoch."""
    return now_us >= deadlines_us


class Book:
    """The claims on one pool: how many worker-seconds are promised by when, and the slack that each leaves.

    A claim is known by its place among all deadlines that may be asked about, the first due first; claims due at one
    instant are in any order. Places without a claim ask for nothing.
    """

    def __init__(self, deadlines_us: Integers, capacity: Capacity) -> None:
        """Promise nothing yet; `deadlines_us` are in order."""
        self._deadlines_us = deadlines_us
        self._capacity = capacity
        self._until = capacity.seconds_until(deadlines_us)
        self._seconds = np.zeros(len(deadlines_us))
        self._is_claimed = np.zeros(len(deadlines_us), dtype=np.bool_)
        #: Of claims due at one instant the last has the slack of all; infinite where nothing is claimed.
        self._slack = np.full(len(deadlines_us), math.inf)

    def enter_all(self, is_claimed: Flags, seconds: Floats) -> None:
        """Enter a claim of `seconds` at each place that has one."""
        self._is_claimed |= is_claimed
        self._seconds += np.where(is_claimed, seconds, 0.0)
        self._slack = np.where(self._is_claimed, self._until - np.cumsum(self._seconds), math.inf)

    def enter(self, place: int, seconds: float) -> None:
        """Enter one claim."""
        self._is_claimed[place] = True
        self._seconds[place] = seconds
        self._slack[place + 1 :] -= seconds
        self._slack[place] = self._until[place] - self._seconds[: place + 1].sum()

    def strike(self, place: int) -> None:
        """Take a claim back."""
        self._slack[place + 1 :] += self._seconds[place]
        self._slack[place] = math.inf
        self._seconds[place] = 0.0
        self._is_claimed[place] = False

    def slacks(self) -> Floats:
        """Return the slack in worker-seconds of each claim, the first due first."""
        places = np.flatnonzero(self._is_claimed)
        deadlines, slack = self._deadlines_us[places], self._slack[places]
        # The last that is due no later.
        return slack[np.searchsorted(deadlines, deadlines, side="right") - 1] if len(places) else slack

    def can_promise(self, place: int, seconds: float) -> bool:
        """Say whether a claim at a place that has none, and all others, can be done in time."""
        if not self._capacity.is_any:
            return False
        # Those due before it lose nothing by it.
        own = float(self._until[place] - self._seconds[:place].sum())
        return min(own, float(self._slack[place:].min())) >= seconds

    def pressing(self, *, short_seconds: float) -> Integers:
        """Return the places of the claims that must go before everything else now, the first due first.

        They are those due by the last deadline whose slack is no more than `short_seconds`. With a pack on every worker
        for that, and looked at again before the next pack, no slack is below zero that was not before.
        """
        short = np.flatnonzero(self._slack <= short_seconds)
        last = short[-1] + 1 if len(short) else 0
        return np.flatnonzero(self._is_claimed[:last])

    def is_short(self, capacity: Capacity, *, short_seconds: float) -> bool:
        """Say whether any claim's slack would be no more than `short_seconds` if the pool were good for `capacity`."""
        claimed = np.flatnonzero(self._is_claimed)
        asked = self._until[claimed] - self._slack[claimed]
        slack = capacity.seconds_until(self._deadlines_us[claimed]) - asked
        return bool((slack <= short_seconds).any())

    def earliest(self, seconds: float) -> int | None:
        """Return the first deadline by which so many more seconds can be promised beside the claims.

        In microseconds since the Unix epoch; None where there is no worker.
        """
        capacity = self._capacity
        if not capacity.is_any:
            return None
        short = np.flatnonzero(self._slack < seconds)
        # A claim that the newcomer would make late must be due before it.
        first = int(short[-1]) + 1 if len(short) else 0
        later = first + np.flatnonzero(self._is_claimed[first:])
        # Before each of the claims that are due later, and after them all.
        asked = self._seconds[:first].sum() + np.concatenate(([0.0], np.cumsum(self._seconds[later])))
        wanted = capacity.wanted_seconds(asked + seconds)
        soonest_us = int(self._deadlines_us[first - 1]) + 1 if first else capacity.now_us
        after_us = np.append(soonest_us, self._deadlines_us[later])
        found_us = np.maximum(after_us, capacity.now_us + np.ceil(wanted * _US).astype(np.int64))
        fits = np.append(found_us[:-1] < self._deadlines_us[later], True)
        return int(found_us[np.argmax(fits)])
