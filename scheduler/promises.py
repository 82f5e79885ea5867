"""Promises: which deadlines the live workers can be held to, pool by pool."""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import islice

from pipeline.domain.ids import BatchId
from pipeline.domain.promises import Promise
from pipeline.domain.tiers import Tier
from pipeline.ports.cycle import Backlog, PoolView, Snapshot
from scheduler.deadlines import Capacity, Claim, can_promise, due, earliest_deadline, pressing, slacks
from scheduler.outlook import Outlook
from scheduler.policy import Policy


@dataclass(slots=True, kw_only=True)
class Book:
    """One pool's promises: what was promised, in order of the deadlines, and what the pool is good for."""

    #: All of the pool's time.
    capacity: Capacity
    #: The part of it that may be promised; the rest stays for those without a promise.
    promisable: Capacity
    claims: list[Claim]


class Promises:
    """The books of all pools, for one cycle.

    A backlog that several pools may run asks each for a share of its seconds in proportion to their workers.
    """

    def __init__(self, snapshot: Snapshot, outlook: Outlook, policy: Policy) -> None:
        """Enter what was promised before, but for batches that cannot run now: their time is no one's to keep."""
        self._outlook = outlook
        self._policy = policy
        self._pools: dict[str, PoolView] = {pool.pool: pool for pool in snapshot.pools if pool.workers > 0}
        #: What each batch asks of each pool for one of its models, once it was worked out.
        self._claims: dict[tuple[BatchId, str, Tier], dict[str, Claim]] = {}
        self._books = {name: _book_of(pool, snapshot.now_us, policy) for name, pool in self._pools.items()}
        made = [each for each in snapshot.backlogs if each.promise is Promise.MADE and not each.is_paused]
        # The first due first, so that each is entered behind those before it.
        for backlog in sorted(made, key=lambda backlog: (backlog.deadline_at_us, backlog.batch_id)):
            self._enter(backlog)

    def answers(self, backlogs: Iterable[Backlog]) -> tuple[tuple[BatchId, Promise], ...]:
        """Answer those who ask, the oldest first, and enter what is promised; who no pool can run is not answered."""
        asking: dict[BatchId, list[Backlog]] = {}
        for backlog in sorted(backlogs, key=lambda backlog: (backlog.created_at_us, backlog.batch_id)):
            if backlog.promise is Promise.PENDING and not backlog.is_paused:
                asking.setdefault(backlog.batch_id, []).append(backlog)
        heard = islice(asking.items(), self._policy.promises_a_cycle)
        return tuple((batch_id, self._answer(parts)) for batch_id, parts in heard if all(map(self._claims_of, parts)))

    def pressing(self, pool: str) -> tuple[Claim, ...]:
        """Return the claims that must go first in this pool now, the first due first."""
        # Measured on what was promised of the pool: put off until it needs every worker, promised work would be
        # late with the next one that is lost.
        book = self._books[pool]
        short_seconds = book.capacity.workers * book.capacity.pack_seconds
        return tuple(pressing(book.claims, book.promisable, short_seconds=short_seconds))

    def can_wait(self, backlog: Backlog) -> bool:
        """Say whether the backlog can be held back a little longer and still be done in time, as far as can be told."""
        claims = self._claims_of(backlog)
        for pool, claim in claims.items():
            capacity = self._books[pool].capacity
            (slack,) = slacks([claim], capacity)
            if slack <= capacity.workers * capacity.pack_seconds:
                return False
        return bool(claims)

    def earliest(self, backlog: Backlog) -> int | None:
        """Return the first deadline that could be promised to the backlog, or None while no worker serves it.

        In microseconds since the Unix epoch.
        """
        found = [
            earliest_deadline(claim.seconds, self._books[pool].claims, self._books[pool].promisable)
            for pool, claim in self._claims_of(backlog).items()
        ]
        known = [deadline for deadline in found if deadline is not None]
        return max(known, default=None)

    def _answer(self, backlogs: list[Backlog]) -> Promise:
        """Answer one batch, for which there is a backlog for each of its models."""
        for entered, backlog in enumerate(backlogs):
            if not self.can_promise(backlog):
                for before in backlogs[:entered]:
                    self._strike(before)
                return Promise.DECLINED
            self._enter(backlog)
        return Promise.MADE

    def can_promise(self, backlog: Backlog) -> bool:
        """Say whether the backlog's deadline can be promised beside what was; True where no pool would be asked."""
        return all(
            can_promise(claim, self._books[pool].claims, self._books[pool].promisable)
            for pool, claim in self._claims_of(backlog).items()
        )

    def _strike(self, backlog: Backlog) -> None:
        for pool, claim in self._claims_of(backlog).items():
            self._books[pool].claims.remove(claim)

    def _enter(self, backlog: Backlog) -> None:
        for pool, claim in self._claims_of(backlog).items():
            insort(self._books[pool].claims, claim, key=due)

    def _claims_of(self, backlog: Backlog) -> dict[str, Claim]:
        """Return what the backlog asks of each pool that may run it."""
        key = backlog.batch_id, backlog.model, backlog.tier
        claims = self._claims.get(key)
        if claims is None:
            claims = self._claims[key] = self._worked_out(backlog)
        return claims

    def _worked_out(self, backlog: Backlog) -> dict[str, Claim]:
        serving = [pool for pool, _ in self._outlook.places_of(backlog)]
        workers = sum(self._pools[pool].workers for pool in serving)
        return {
            pool: Claim(
                batch_id=backlog.batch_id,
                deadline_at_us=backlog.deadline_at_us,
                seconds=self._outlook.seconds_left(backlog, pool) * (self._pools[pool].workers / workers),
            )
            for pool in serving
        }


def _book_of(pool: PoolView, now_us: int, policy: Policy) -> Book:
    capacity = Capacity(
        now_us=now_us,
        workers=pool.workers,
        pack_seconds=policy.pack_seconds_target,
        margin_seconds=policy.promise_margin_seconds,
    )
    return Book(
        capacity=capacity, promisable=replace(capacity, workers=pool.workers * policy.promised_share), claims=[]
    )
