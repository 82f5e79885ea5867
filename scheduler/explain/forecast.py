"""Forecasts: what is likely to become of what is queued now, on the workers that live now."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import numpy as np

from pipeline.domain.ids import BatchId
from pipeline.domain.tiers import Tier
from pipeline.ports.cycle import Backlog, PoolView
from pipeline.ports.explain import PoolFacts, Scheduling
from scheduler.explain.turns import Before, Contender, Line
from scheduler.lineup import Lineup
from scheduler.nominate import refusals_of
from scheduler.outlook import Outlook
from scheduler.packing import seconds_target
from scheduler.policy import Policy
from scheduler.prediction.predictions import Predictions
from scheduler.promises import Promises
from scheduler.purses import Purses
from scheduler.routing import Routes

_US: Final = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """A batch's place in the line of the pool where its next pack starts soonest."""

    pool: str
    workers: int
    before: Before
    #: Packs published and not leased: they go first whatever comes.
    packs_waiting: int
    #: Other batches that compete there, by tier, the most first.
    others: tuple[tuple[Tier, int], ...]
    #: Its deadline was promised and time is short: it goes before all others.
    is_pressing: bool
    #: Until a worker takes its next pack, about.
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Prospect:
    """What is likely to become of one batch; times are seconds from now unless they are instants."""

    #: Predicted worker-seconds of its rows without a result, and the workers that may run them.
    seconds_left: float
    workers: int
    #: Where and when its next pack starts; None: it competes for none now.
    turn: Turn | None
    #: When it ends at the soonest and at the latest, if nothing comes and no worker goes.
    finish_seconds: tuple[float, float]
    #: The first deadline that could be promised now.
    promisable_at: datetime | None
    #: When it must start to be safe, where it is held back.
    start_by: datetime | None
    #: What finishing it costs, about, and in which currency.
    cost_micros: int
    currency: str
    #: Whether the speed was measured or is assumed.
    is_measured: bool
    #: Its packs in flight may cost all that is left of its budget, so nothing new starts until one has ended.
    waits_for_budget: bool


class Forecast:
    """All prospects of one moment."""

    def __init__(self, seen: Scheduling, policy: Policy) -> None:
        """Expect of what was seen what the cycle would."""
        snapshot = seen.snapshot
        self._seen = seen
        self._policy = policy
        self._routes = Routes.over(snapshot.pools)
        self._outlook = Outlook(snapshot, self._routes, Predictions.recalled(seen.learned), policy)
        self._lineup = Lineup.of(snapshot.backlogs)
        self._promises = Promises(snapshot, self._lineup, self._outlook, policy)
        #: Upper bounds of each backlog's seconds where they are least.
        self._bounds = self._outlook.seconds_anywhere(self._lineup)
        self._views: dict[str, PoolView] = {pool.pool: pool for pool in snapshot.pools if pool.workers > 0}
        self._facts: dict[str, PoolFacts] = {facts.pool: facts for facts in seen.pools}
        self._places: dict[BatchId, list[int]] = {}
        for place, backlog in enumerate(self._lineup):
            self._places.setdefault(backlog.batch_id, []).append(place)
        can_wait = self._promises.can_wait()
        self._purses = Purses(self._lineup, self._outlook, snapshot.budgets)
        refusals = refusals_of(
            self._lineup,
            self._outlook,
            now_us=snapshot.now_us,
            can_wait=can_wait,
            purses=self._purses,
        )
        competing = np.flatnonzero((refusals < 0) & ~self._purses.is_waiting & ~self._lineup.must_promise)
        self._candidates: list[Backlog] = [self._lineup[place] for place in competing.tolist()]
        self._lines = {name: self._line_of(name) for name in self._views}

    @property
    def tier_weights(self) -> Mapping[Tier, float]:
        """Return the shares of a contended pool that tiers have, relative to one another."""
        return self._policy.tier_weights

    def line(self, pool: str) -> Line | None:
        """Return who competes for a pool's packs; None for a pool without workers."""
        return self._lines.get(pool)

    def batch(self, batch_id: BatchId) -> Prospect | None:
        """Return a batch's prospect; None where no pool can run it or it has nothing left to run."""
        mine = self._places.get(batch_id, [])
        backlogs: list[Backlog] = [self._lineup[place] for place in mine]
        pools = {pool: variant for each in backlogs for pool, variant in self._outlook.places_of(each.model, each.tier)}
        if not pools:
            return None
        workers = sum(self._views[pool].workers for pool in pools)
        seconds = sum(self._seconds_anywhere(backlog) for backlog in backlogs)
        deadline_us = backlogs[0].deadline_at_us
        bound = float(self._bounds[mine].sum())
        lost = 3 * self._policy.pack_seconds_target + self._policy.promise_margin_seconds + bound / workers
        rate = max(self._views[pool].rate_micros_per_hour for pool in pools)
        return Prospect(
            seconds_left=seconds,
            workers=workers,
            turn=self._turn_of(batch_id, list(pools)),
            finish_seconds=self._finish(seconds, list(pools), workers),
            promisable_at=self._promisable_at(mine),
            start_by=_instant(deadline_us - round(lost * _US)),
            cost_micros=self._charge(backlogs, cost_micros=seconds * rate / 3600),
            currency=next(self._views[pool].currency for pool in pools),
            is_measured=all(self._outlook.is_measured(variant, pool) for pool, variant in pools.items()),
            waits_for_budget=bool(self._purses.is_waiting[mine].any()),
        )

    def _charge(self, backlogs: list[Backlog], *, cost_micros: float) -> int:
        terms = backlogs[0].terms
        sizes = [self._outlook.expected_size(each) for each in backlogs]
        return terms.charge_micros(
            effective_micros=round(cost_micros),
            input_tokens=round(sum(size.input_tokens for size in sizes)),
            output_tokens=round(sum(size.output_tokens for size in sizes)),
        )

    def workers_wanted(self, pool: str) -> tuple[int, int]:
        """Return how many workers would meet the deadlines of all batches that the pool may run, and how many none could."""
        view, policy = self._views.get(pool), self._policy
        if view is None:
            return 0, 0
        lost_us = round((2 * policy.pack_seconds_target + policy.promise_margin_seconds) * _US)
        asked, wanted, hopeless = 0.0, 0.0, 0
        seconds = self._outlook.seconds_left(self._lineup, pool)
        # The lineup is in order of deadlines.
        for place in np.flatnonzero(~np.isnan(seconds) & ~self._lineup.is_paused).tolist():
            backlog: Backlog = self._lineup[place]
            left_us = backlog.deadline_at_us - self._seen.snapshot.now_us - lost_us
            if left_us <= 0:
                hopeless += 1
                continue
            asked += float(seconds[place])
            wanted = max(wanted, asked / (policy.promised_share * left_us / _US))
        return math.ceil(wanted), hopeless

    def room(self, pool: str) -> int:
        """Return how many packs the pool would take at once: two a worker are published ahead."""
        view = self._views.get(pool)
        if view is None:
            return 0
        return max(0, view.workers * self._policy.packs_ahead_per_worker - view.packs_waiting)

    def _line_of(self, pool: str) -> Line:
        served = (each for each in self._candidates if self._variant(each, pool) is not None)
        return Line(pool, [self._contender(each, pool) for each in served], self._seen.snapshot.fair_tags, self._policy)

    def _contender(self, backlog: Backlog, pool: str) -> Contender:
        variant = self._variant(backlog, pool)
        assert variant is not None, "the pool runs it"
        seconds = self._seconds(backlog, pool)
        target = seconds_target(self._policy, is_measured=self._outlook.is_measured(variant, pool))
        rows = max(1.0, backlog.left.rows)
        return Contender(
            batch_id=backlog.batch_id,
            tenant_id=backlog.tenant_id,
            tier=backlog.tier,
            deadline_at_us=backlog.deadline_at_us,
            created_at_us=backlog.created_at_us,
            seconds=seconds * _share_unpacked(backlog),
            # So many rows make a pack whatever they cost.
            pack_seconds=max(target, seconds / rows * self._policy.pack_rows_min),
            priority=backlog.priority,
        )

    def _seconds(self, backlog: Backlog, pool: str) -> float:
        """Return the worker-seconds that a batch's rows without a result are expected to take in a pool."""
        variant = self._variant(backlog, pool)
        assert variant is not None, "the pool runs it"
        return self._outlook.seconds_expected(backlog, variant, pool)

    def _seconds_anywhere(self, backlog: Backlog) -> float:
        places = self._outlook.places_of(backlog.model, backlog.tier)
        return min((self._seconds(backlog, pool) for pool, _ in places), default=0.0)

    def _variant(self, backlog: Backlog, pool: str) -> str | None:
        if not self._policy.may_run(backlog.tenant_id, pool):
            return None
        return self._routes.variant_for(backlog.model, backlog.tier, pool)

    def _turn_of(self, batch_id: BatchId, pools: Sequence[str]) -> Turn | None:
        turns = [turn for pool in pools if (turn := self._turn_in(batch_id, pool)) is not None]
        return min(turns, key=lambda turn: (turn.seconds, turn.pool), default=None)

    def _turn_in(self, batch_id: BatchId, pool: str) -> Turn | None:
        line = self._lines[pool]
        me = next((each for each in line.contenders if each.batch_id == batch_id), None)
        if me is None:
            return None
        pressing = [self._lineup[place].batch_id for place in self._promises.pressing(pool).places.tolist()]
        is_pressing = batch_id in pressing
        first = pressing[: pressing.index(batch_id)] if is_pressing else pressing
        urgent = [each for each in line.contenders if each.batch_id in set(first) - {batch_id}]
        before = _promised(urgent) if is_pressing else line.before(me)
        if urgent and not is_pressing:
            before = max(before, _promised(urgent), key=lambda each: each.seconds)
        workers, facts = self._views[pool].workers, self._facts.get(pool)
        queued = 0.0 if facts is None else facts.waiting.seconds
        return Turn(
            pool=pool,
            workers=workers,
            before=before,
            packs_waiting=self._views[pool].packs_waiting,
            others=_by_tier([each for each in line.contenders if each is not me]),
            is_pressing=is_pressing,
            seconds=(before.seconds + queued) / workers,
        )

    def _finish(self, seconds: float, pools: Sequence[str], workers: int) -> tuple[float, float]:
        everything = {each.batch_id: each.seconds for pool in pools for each in self._lines[pool].contenders}
        facts = [self._facts[pool] for pool in pools if pool in self._facts]
        packed = sum(each.waiting.seconds + each.leased.seconds for each in facts)
        pack = min(seconds, self._policy.pack_seconds_target)
        soonest = max(seconds / workers, pack)
        return soonest, max(soonest, max(seconds, sum(everything.values()) + packed) / workers) + pack

    def _promisable_at(self, places: Sequence[int]) -> datetime | None:
        found = [self._promises.earliest(place) for place in places]
        known = [deadline_us for deadline_us in found if deadline_us is not None]
        return _instant(max(known)) if len(known) == len(found) and known else None


def _promised(urgent: Sequence[Contender]) -> Before:
    return Before(seconds=sum(each.seconds for each in urgent), batches=len(urgent), tiers=_by_tier(urgent))


def _by_tier(contenders: Sequence[Contender]) -> tuple[tuple[Tier, int], ...]:
    counts: dict[Tier, int] = {}
    for each in contenders:
        counts[each.tier] = counts.get(each.tier, 0) + 1
    return tuple(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _share_unpacked(backlog: Backlog) -> float:
    return max(0.0, 1 - backlog.rows_in_flight / backlog.left.rows) if backlog.left.rows > 0 else 0.0


def _instant(us: int) -> datetime:
    return datetime.fromtimestamp(us / _US, tz=UTC)
