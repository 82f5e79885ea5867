"""Promises: which deadlines the live workers can be held to, pool by pool."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np

from pipeline.domain.ids import BatchId
from pipeline.domain.promises import Promise
from pipeline.ports.cycle import PoolView, Reach, Snapshot
from scheduler.columns import Flags, Floats, Integers
from scheduler.deadlines import Book, Capacity
from scheduler.lineup import Lineup
from scheduler.outlook import Outlook
from scheduler.policy import Policy


@dataclass(frozen=True, slots=True, kw_only=True)
class Pressing:
    """Who must go before all others in one pool, the first due first."""

    places: Integers
    #: So many packs of theirs may do so now.
    packs: float
    #: Their packs that wait already must do so too.
    is_dire: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pool:
    """What one pool is good for, and what was promised of it."""

    #: All of the pool's time.
    capacity: Capacity
    packs_pressing: int
    #: Worker-seconds that each backlog asks of it; NaN where the pool does not run it.
    asked: Floats
    #: Of the part of its time that may be promised; the rest stays for those without a promise.
    book: Book
    #: What it can be brought to; and of that, the part that may be promised: asked before something is.
    reachable: Capacity
    reach: Book

    def enter(self, place: int, seconds: float) -> None:
        """Promise a backlog so many seconds."""
        self.book.enter(place, seconds)
        if self.reach is not self.book:
            self.reach.enter(place, seconds)

    def strike(self, place: int) -> None:
        """Take that back."""
        self.book.strike(place)
        if self.reach is not self.book:
            self.reach.strike(place)


class Promises:
    """The books of all pools, for one cycle.

    A backlog that several pools may run asks each for a share of its seconds in proportion to their workers.
    """

    def __init__(self, snapshot: Snapshot, lineup: Lineup, outlook: Outlook, policy: Policy) -> None:
        """Enter what was promised before, but for batches that cannot run now: their time is no one's to keep."""
        self._lineup = lineup
        self._policy = policy
        pools = [pool for pool in snapshot.pools if pool.workers_promised_on]
        workers = sum(
            (outlook.is_served(lineup, pool.pool) * float(pool.workers_promised_on) for pool in pools),
            np.zeros(len(lineup)),
        )
        made = lineup.with_promise(Promise.MADE) & ~lineup.is_paused
        self._pools: dict[str, _Pool] = {}
        self._refused: list[tuple[BatchId, int | None]] = []
        for pool in pools:
            seconds = outlook.seconds_left(lineup, pool.pool)
            asked = seconds * (pool.workers_promised_on / np.where(workers > 0, workers, math.nan))
            capacity = _capacity_of(pool, snapshot.now_us, policy)
            book = self._book(capacity, made, asked)
            # What was promised is pressed for with what there is; what can be promised is another question.
            reachable = _reachable_of(capacity, pool.reach)
            reach = book if reachable is capacity else self._book(reachable, made, asked)
            self._pools[pool.pool] = _Pool(
                capacity=capacity,
                packs_pressing=pool.packs_pressing,
                asked=asked,
                book=book,
                reachable=reachable,
                reach=reach,
            )

    def answers(self) -> tuple[tuple[BatchId, Promise], ...]:
        """Answer those who ask, the oldest first, and enter what is promised.

        Who no pool can run is not answered, but for those that must be promised now or not at all.
        """
        lineup = self._lineup
        asking = np.flatnonzero(lineup.with_promise(Promise.PENDING) & ~lineup.is_paused)
        by_age = asking[np.argsort(lineup.created_at_us[asking], kind="stable")]
        parts: dict[BatchId, list[int]] = {}
        # A batch of several models has its backlogs next to each other, or nearly: nobody else is as old.
        for place in by_age.tolist():
            parts.setdefault(lineup[place].batch_id, []).append(place)
            if len(parts) > self._policy.promises_a_cycle:
                break
        heard = islice(parts.items(), self._policy.promises_a_cycle)
        return tuple(
            (batch_id, self._answer(places))
            for batch_id, places in heard
            if all(map(self._is_served, places)) or self._lineup[places[0]].must_promise
        )

    @property
    def refused(self) -> tuple[tuple[BatchId, int | None], ...]:
        """Return who had to be promised and was not, each with the first deadline that could have been."""
        return tuple(self._refused)

    def pressing(self, pool: str) -> Pressing:
        """Return those that must go first in this pool now."""
        held = self._pools[pool]
        workers = held.capacity.workers
        short_seconds = workers * held.capacity.pack_seconds
        # Measured on what was promised of the pool: put off until it needs every worker, promised work would be
        # late with the next one that is lost.
        places = held.book.pressing(short_seconds=short_seconds)
        if held.book.is_short(held.capacity, short_seconds=short_seconds):
            return Pressing(places=places, packs=math.inf, is_dire=True)
        # While all workers together could still catch up, it goes on at the pace that was promised. A faster one
        # would make room for more promises, and those for more, until nobody else had a turn.
        packs = math.ceil(workers * self._policy.promised_share) - held.packs_pressing
        return Pressing(places=places, packs=packs, is_dire=False)

    def can_wait(self) -> Flags:
        """Return which can be held back a little longer and still be done in time, as far as can be told."""
        is_served = np.zeros(len(self._lineup), dtype=np.bool_)
        is_short = np.zeros(len(self._lineup), dtype=np.bool_)
        for pool in self._pools.values():
            slack = pool.reachable.seconds_until(self._lineup.deadline_at_us) - pool.asked
            # Not a number where the pool does not run it, and nothing is short then.
            is_short |= slack <= pool.capacity.workers * pool.capacity.pack_seconds
            is_served |= ~np.isnan(pool.asked)
        return is_served & ~is_short

    def can_promise(self, place: int) -> bool:
        """Say whether a backlog's deadline can be promised beside what was; True where no pool would be asked."""
        return all(pool.reach.can_promise(place, seconds) for pool, seconds in self._asked(place))

    def earliest(self, place: int) -> int | None:
        """Return the first deadline that could be promised to a backlog, or None while no worker serves it.

        In microseconds since the Unix epoch.
        """
        found = [pool.reach.earliest(seconds) for pool, seconds in self._asked(place)]
        return max((deadline for deadline in found if deadline is not None), default=None)

    def _book(self, capacity: Capacity, made: Flags, asked: Floats) -> Book:
        book = Book(self._lineup.deadline_at_us, capacity.of_share(self._policy.promised_share))
        book.enter_all(made & ~np.isnan(asked), np.nan_to_num(asked))
        return book

    def _answer(self, places: list[int]) -> Promise:
        """Answer one batch, which has a backlog for each of its models."""
        for entered, place in enumerate(places):
            if not self._is_served(place) or not self.can_promise(place):
                for before in places[:entered]:
                    for pool, _ in self._asked(before):
                        pool.strike(before)
                if self._lineup[place].must_promise:
                    self._refused.append((self._lineup[place].batch_id, self._earliest_of(places)))
                return Promise.DECLINED
            for pool, seconds in self._asked(place):
                pool.enter(place, seconds)
        return Promise.MADE

    def _earliest_of(self, places: list[int]) -> int | None:
        found = [self.earliest(place) for place in places]
        return None if None in found else max(each for each in found if each is not None)

    def _is_served(self, place: int) -> bool:
        return bool(self._asked(place))

    def _asked(self, place: int) -> list[tuple[_Pool, float]]:
        """Return the pools that may run a backlog, each with the seconds it asks of them."""
        asked = [(pool, float(pool.asked[place])) for pool in self._pools.values()]
        return [(pool, seconds) for pool, seconds in asked if not math.isnan(seconds)]


def _capacity_of(pool: PoolView, now_us: int, policy: Policy) -> Capacity:
    return Capacity(
        now_us=now_us,
        workers=pool.workers,
        pack_seconds=policy.pack_seconds_target,
        margin_seconds=policy.promise_margin_seconds,
    )


def _reachable_of(capacity: Capacity, reach: Reach | None) -> Capacity:
    """Return what the pool is good for that can be brought to more workers."""
    if reach is None:
        return capacity
    return replace(capacity, workers_later=reach.workers, later_seconds=reach.after_seconds)
