"""A small deterministic world: the scheduler's cycle, and around it pools, workers, batches and a virtual clock.

The cycle runs whenever something has changed. Workers take the waiting pack of the lowest ordinal. What packs really
take, who is lost and when, who comes, leaves and is steered is the scenario's to say. Everything is written down as
`Round`s, in the order in which it happened, for the properties to look at.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from random import Random
from typing import Final

from pipeline.domain.endpoints import Endpoint
from pipeline.domain.ids import BatchId, PackId, TenantId
from pipeline.ports.cycle import (
    PRESSING_ORDINAL_MAX,
    Backlog,
    CyclePlan,
    EndedPack,
    EndedShare,
    FairTag,
    OpenShard,
    PackDraft,
    PoolView,
    Serving,
    SliceDraft,
    Snapshot,
    WorkSize,
)
from scheduler.cycle import decide
from scheduler.policy import Policy
from scheduler.prediction.predictions import Predictions
from tests.scheduler.properties.cast import Batch, Dispatch, Path, Pool, Round

SECOND: Final = 1_000_000
START_US: Final = 1_700_000_000_000_000


@dataclass(slots=True, eq=False)
class _Pack:
    draft: PackDraft
    #: What it takes, drawn when it is made.
    seconds: float
    charged: dict[str, float]
    tokens: dict[str, float]
    #: What was set aside of each batch's budget for it.
    reserved_micros: dict[str, int]
    #: As it waits, or as it was leased with.
    ordinal: float = 0.0


@dataclass(slots=True, eq=False)
class _Worker:
    pool: Pool
    is_here: bool = True
    pack: _Pack | None = None
    #: Tells an end that was planned from one that came to nothing.
    run_no: int = 0


class World:
    """One run of batches through pools under a policy."""

    def __init__(  # noqa: PLR0913 -- a scenario, which each property says in full
        self,
        pools: Sequence[Pool],
        batches: Sequence[Batch],
        policy: Policy,
        *,
        speeds: Mapping[str, float],
        seed: int,
        noise: float = 0.0,
        settles: bool = False,
        lease_seconds: float = 5.0,
        predictions: Predictions | None = None,
    ) -> None:
        """Make ready; equal arguments give equal runs.

        `speeds` are tokens a second by variant, `noise` by how much of itself a pack may be longer or shorter. Without
        `settles` the scheduler is not told what packs took, and with `predictions` (by default none) it learns from it.
        """
        self.pools = {pool.name: pool for pool in pools}
        self.batches = {batch.name: batch for batch in batches}
        self.policy = policy
        self.rounds: list[Round] = []
        self.now = 0.0
        self._speeds, self._noise, self._settles = dict(speeds), noise, settles
        self._lease_seconds = lease_seconds
        self._predictions = predictions or Predictions().frozen()
        self._random = Random(seed)
        self._numbers = count()
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._workers = [_Worker(pool) for pool in pools for _ in range(pool.workers)]
        self._waiting: dict[str, list[tuple[float, int, _Pack]]] = {pool.name: [] for pool in pools}
        self._ended: list[EndedPack] = []
        self._tags: tuple[FairTag, ...] = ()
        self._ordinal_max = 0.0
        self._watchers: list[Callable[[], None]] = []
        for number, batch in enumerate(batches):
            batch.shard_id = number + 1
            self.plan(batch.at, lambda: None)
            self.plan(batch.deadline, lambda: None)
            if batch.hold_until is not None:
                self.plan(batch.hold_until, lambda: None)

    # --- what a scenario may say -----------------------------------------------------------------

    def plan(self, at: float, happen: Callable[[], None]) -> None:
        """Let something happen, and the cycle look after it."""
        heapq.heappush(self._events, (at, next(self._numbers), happen))

    def watch(self, look: Callable[[], None]) -> None:
        """Let something look on just after every cycle."""
        self._watchers.append(look)

    def lose(self, pool: str, *, at: float, until: float) -> None:
        """Let the pool's first worker be gone for a while, and its pack with it until the lease has ended."""
        worker = next(worker for worker in self._workers if worker.pool.name == pool)
        self.plan(at, lambda: self._leave(worker))
        self.plan(until, lambda: setattr(worker, "is_here", True))

    def run(self, until: float) -> World:
        """Run until then, and return the world."""
        while self._events and self._events[0][0] <= until:
            self.now = self._events[0][0]
            while self._events and self._events[0][0] <= self.now:
                heapq.heappop(self._events)[2]()
            self._cycle()
        return self

    # --- what a property may ask -----------------------------------------------------------------

    def variant_for(self, batch: Batch, pool: Pool) -> Serving | None:
        """Return the cheapest of the pool's offers that may run the batch."""
        fitting = (each for each in pool.servings if each.model == batch.model and batch.tier in each.tiers)
        return min(fitting, key=lambda each: (each.relative_cost, each.variant), default=None)

    def live(self, pool: str) -> int:
        """Return how many of the pool's workers are here."""
        return sum(worker.is_here for worker in self._workers if worker.pool.name == pool)

    def in_flight(self, batch: Batch) -> list[tuple[Pool, float]]:
        """Return the batch's share of the seconds of each pack that waits or runs, with the pool."""
        waiting = [pack for packs in self._waiting.values() for _, _, pack in packs]
        running = [worker.pack for worker in self._workers if worker.pack is not None]
        return [
            (self.pools[pack.draft.pool], pack.seconds * pack.tokens[batch.name] / sum(pack.tokens.values()))
            for pack in waiting + running
            if batch.name in pack.tokens
        ]

    # --- the cycle -------------------------------------------------------------------------------

    def _cycle(self) -> None:
        ended, self._ended = tuple(self._ended), []
        before = self._packable()
        plan = decide(self._snapshot(ended), self.policy, self._new_pack_id, self._predictions)
        self._tags = plan.fair_tags
        for batch_id, promise in plan.promises:
            self.batches[batch_id].promise = promise
        self._press(plan)
        dispatches = tuple(
            self._publish(draft, is_pressing=draft.ordinal < PRESSING_ORDINAL_MAX) for draft in plan.packs
        )
        after = self._packable()
        for look in self._watchers:
            look()
        self._lease()
        self.rounds.append(
            Round(
                at=self.now,
                before=before,
                after=after,
                dispatches=dispatches,
                corrections=tuple(
                    (pack.pool, self.batches[share.batch_id].path, _took(pack, share) - share.predicted_seconds)
                    for pack in ended
                    for share in pack.shares
                ),
                idle={
                    name: sum(each.is_here and each.pack is None for each in self._workers if each.pool.name == name)
                    for name in self.pools
                },
            )
        )

    def _snapshot(self, ended: tuple[EndedPack, ...]) -> Snapshot:
        """Return what the scheduler sees; the one place that knows a snapshot's form."""
        return Snapshot(
            now_us=_us(self.now),
            backlogs=tuple(self._backlog(each) for each in self.batches.values() if self._is_seen(each)),
            pools=tuple(
                PoolView(
                    pool=pool.name,
                    workers=self.live(pool.name),
                    servings=pool.servings,
                    packs_waiting=len(self._waiting[pool.name]),
                    packs_pressing=sum(pack.ordinal < PRESSING_ORDINAL_MAX for pack in self._open(pool.name)),
                    rate_micros_per_hour=pool.rate_micros_per_hour,
                )
                for pool in self.pools.values()
            ),
            tokens_per_second=self._speeds,
            virtual_seconds=self._ordinal_max,
            fair_tags=self._tags,
            ended=ended,
        )

    def reserved_micros(self, batch: Batch) -> int:
        """Return what is set aside for the batch's rows in packs that have not ended."""
        return sum(pack.reserved_micros.get(batch.name, 0) for pool in self.pools for pack in self._open(pool))

    def _open(self, pool: str) -> list[_Pack]:
        """Return the packs that have not ended."""
        leased = (worker.pack for worker in self._workers if worker.pool.name == pool)
        return [pack for _, _, pack in self._waiting[pool]] + [pack for pack in leased if pack is not None]

    def _backlog(self, batch: Batch) -> Backlog:
        rows_left = batch.rows - batch.rows_done
        return Backlog(
            tenant_id=TenantId(batch.tenant),
            batch_id=BatchId(batch.name),
            tier=batch.tier,
            model=batch.model,
            endpoint=Endpoint.CHAT_COMPLETIONS,
            created_at_us=_us(batch.at),
            deadline_at_us=_us(batch.deadline),
            promise=batch.promise,
            hold_until_us=None if batch.hold_until is None else _us(batch.hold_until),
            is_paused=batch.is_paused,
            priority=batch.priority,
            left=WorkSize(rows=rows_left, input_tokens=rows_left * batch.row_tokens, output_tokens=0),
            spent_micros=batch.spent_micros,
            budget_micros=batch.budget_micros,
            reserved_micros=self.reserved_micros(batch),
            shards=(
                OpenShard(
                    shard_id=batch.shard_id,
                    shard_no=0,
                    rows_total=batch.rows,
                    rows_packed=batch.rows_packed,
                    input_tokens=batch.rows * batch.row_tokens,
                    output_tokens=0,
                ),
            ),
            rows_in_flight=batch.rows_packed - batch.rows_done,
        )

    def _is_seen(self, batch: Batch) -> bool:
        return batch.at <= self.now < batch.deadline and not batch.is_away and batch.rows_done < batch.rows

    def _packable(self) -> dict[str, frozenset[Path]]:
        open_ones = [batch for batch in self.batches.values() if batch.can_be_packed(self.now)]
        return {
            pool.name: frozenset(
                batch.path for batch in open_ones if self.live(pool.name) and self.variant_for(batch, pool) is not None
            )
            for pool in self.pools.values()
        }

    def _press(self, plan: CyclePlan) -> None:
        pressing = dict(plan.pressing)
        for waiting in self._waiting.values():
            for place, (ordinal, number, pack) in enumerate(waiting):
                pressed = [pressing[BatchId(name)] for name in pack.tokens if BatchId(name) in pressing]
                pack.ordinal = min([ordinal, *pressed])
                waiting[place] = (pack.ordinal, number, pack)
            heapq.heapify(waiting)

    def _publish(self, draft: PackDraft, *, is_pressing: bool) -> Dispatch:
        charged: dict[str, float] = {}
        tokens: dict[str, float] = {}
        reserved: dict[str, int] = {}
        seconds = 0.0
        pool = self.pools[draft.pool]
        for part in draft.slices:
            batch = self.batches[part.batch_id]
            size = _rows(part) * batch.row_tokens
            assert batch.rows_packed == part.row_start < part.row_stop <= batch.rows
            batch.rows_packed = part.row_stop
            charged[batch.name] = charged.get(batch.name, 0.0) + part.predicted_seconds
            reserved[batch.name] = reserved.get(batch.name, 0) + part.reserved_micros
            tokens[batch.name] = tokens.get(batch.name, 0.0) + size * batch.cost_ratio
            seconds += size * batch.cost_ratio * pool.pace / self._speeds[draft.variant]
        took = seconds * self._random.uniform(1 - self._noise, 1 + self._noise)
        pack = _Pack(draft, took, charged, tokens, reserved)
        if not is_pressing:
            self._ordinal_max = max(self._ordinal_max, draft.ordinal)
        pack.ordinal = draft.ordinal
        heapq.heappush(self._waiting[draft.pool], (draft.ordinal, next(self._numbers), pack))
        charges = {self.batches[name].path: amount for name, amount in charged.items()}
        return Dispatch(pool=draft.pool, charges=charges, is_pressing=is_pressing)

    # --- the workers -----------------------------------------------------------------------------

    def _lease(self) -> None:
        for worker in self._workers:
            waiting = self._waiting[worker.pool.name]
            if worker.is_here and worker.pack is None and waiting:
                _, _, worker.pack = heapq.heappop(waiting)
                worker.run_no += 1
                ends_at = self.now + max(1e-3, worker.pack.seconds)
                self.plan(ends_at, lambda worker=worker, run_no=worker.run_no: self._end(worker, run_no))  # type: ignore[misc]

    def _end(self, worker: _Worker, run_no: int) -> None:
        if run_no != worker.run_no or worker.pack is None:
            return
        pack, worker.pack = worker.pack, None
        for part in pack.draft.slices:
            batch = self.batches[part.batch_id]
            batch.rows_done += _rows(part)
            if batch.rows_done == batch.rows:
                batch.ended_at = self.now
        rate = worker.pool.rate_micros_per_hour / 3600
        whole = sum(pack.tokens.values())
        for name, tokens in pack.tokens.items():
            self.batches[name].spent_micros += round(pack.seconds * rate * tokens / whole)
        if self._settles:
            self._ended.append(self._ended_pack(pack))

    def _ended_pack(self, pack: _Pack) -> EndedPack:
        sizes = {name: WorkSize(rows=0, input_tokens=0, output_tokens=0) for name in pack.tokens}
        for part in pack.draft.slices:
            size, batch = sizes[part.batch_id], self.batches[part.batch_id]
            tokens = size.input_tokens + _rows(part) * batch.row_tokens
            sizes[part.batch_id] = WorkSize(rows=size.rows + _rows(part), input_tokens=tokens, output_tokens=0)
        return EndedPack(
            pack_id=pack.draft.pack_id,
            pool=pack.draft.pool,
            model=pack.draft.model,
            variant=pack.draft.variant,
            tier=pack.draft.tier,
            seconds=pack.seconds,
            is_clean=True,
            shares=tuple(
                EndedShare(
                    tenant_id=TenantId(self.batches[name].tenant),
                    batch_id=BatchId(name),
                    template=0,
                    predicted_seconds=pack.charged[name],
                    estimated=sizes[name],
                    actual=replace(sizes[name], input_tokens=pack.tokens[name]),
                    lengths={},
                )
                for name in pack.tokens
            ),
        )

    def _leave(self, worker: _Worker) -> None:
        worker.is_here = False
        worker.run_no += 1
        pack, worker.pack = worker.pack, None
        if pack is not None:
            again = (pack.ordinal, next(self._numbers), pack)
            self.plan(self.now + self._lease_seconds, lambda: heapq.heappush(self._waiting[worker.pool.name], again))

    def _new_pack_id(self) -> PackId:
        return PackId(f"pack_{next(self._numbers):09d}")


def _took(pack: EndedPack, share: EndedShare) -> float:
    """Return the share's part of what the pack took: by tokens, as they were."""
    return pack.seconds * share.actual.input_tokens / sum(each.actual.input_tokens for each in pack.shares)


def _rows(part: SliceDraft) -> int:
    return part.row_stop - part.row_start


def _us(at: float) -> int:
    return START_US + round(at * SECOND)
