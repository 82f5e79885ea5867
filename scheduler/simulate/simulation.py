"""The simulation: events in the order of their times, and the real cycle whenever something has changed."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import count
from random import Random
from typing import Final

from pipeline.domain.ids import BatchId, PackId
from pipeline.domain.limits import SHARD_ROWS_MAX
from pipeline.domain.sketches import bucket_of
from pipeline.ports.cycle import (
    PRESSING_ORDINAL_MAX,
    EndedPack,
    EndedShare,
    FairTag,
    OpenShard,
    PoolView,
    SliceDraft,
    Snapshot,
    WorkSize,
)
from scheduler.cycle import decide
from scheduler.policy import Policy
from scheduler.prediction.predictions import Predictions
from scheduler.simulate.arrivals import Arrival
from scheduler.simulate.fleet import Fleet, Pool
from scheduler.simulate.record import BatchRecord, PackRecord, Record
from scheduler.simulate.state import MICROSECONDS, SimulatedBatch, SimulatedPack, SimulatedWorker

#: What changes within this time is decided on together, as by the scheduler's process.
_CYCLE_SECONDS: Final = 0.1


class Simulation:
    """One run of arrivals through a fleet under a policy."""

    def __init__(
        self,
        arrivals: Iterable[Arrival],
        fleet: Fleet,
        policy: Policy,
        *,
        seed: int,
        predictions: Predictions | None = None,
        fair_tags: tuple[FairTag, ...] = (),
        cycle_seconds: float = _CYCLE_SECONDS,
    ) -> None:
        """Make ready; equal arguments give equal runs.

        `predictions` and `fair_tags` are what is remembered at the start; the former learn on. What changes within
        `cycle_seconds` is decided on together.
        """
        self._fleet = fleet
        self._policy = policy
        self._cycle_seconds = cycle_seconds
        self._random = Random(seed)  # noqa: S311 -- a simulation, not a secret
        self.predictions = predictions or Predictions()
        self._numbers = count()
        self._shard_ids = count(1)
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._now = 0.0
        self._cycle_at = -math.inf
        self._is_cycle_due = False
        self._batches: dict[BatchId, SimulatedBatch] = {}
        #: Those that have neither ended nor expired.
        self._open: dict[BatchId, SimulatedBatch] = {}
        self._is_over = False
        self._workers = [SimulatedWorker(pool, number) for pool in fleet.pools for number in range(pool.workers)]
        self._waiting: dict[str, list[tuple[float, int, SimulatedPack]]] = {pool.name: [] for pool in fleet.pools}
        self._ended: list[EndedPack] = []
        self._tags = fair_tags
        self._ordinal_max = 0.0
        self.record = Record(workers={pool.name: pool.workers for pool in fleet.pools})
        for arrival in arrivals:
            self._at(arrival.at_seconds, lambda arrival=arrival: self._arrive(arrival))  # type: ignore[misc]
        for worker in self._workers:
            for absence in worker.pool.absences:
                if absence.worker == worker.number:
                    self._at(absence.from_seconds, lambda worker=worker: self._leave(worker))  # type: ignore[misc]
                    self._at(absence.to_seconds, lambda worker=worker: self._return(worker))  # type: ignore[misc]

    def run(self, *, until_seconds: float = math.inf, until_end_of: BatchId | None = None) -> Record:
        """Run until nothing more happens, or `until_seconds`, or one batch has ended; return what happened."""
        while self._events and self._events[0][0] <= until_seconds and not self._has_ended(until_end_of):
            if self._is_over:
                break
            self._now, _, happen = heapq.heappop(self._events)
            happen()
        self.record.seconds = min(self._now, until_seconds)
        self.record.batches = [_record_of(batch) for batch in self._batches.values()]
        return self.record

    def _has_ended(self, batch_id: BatchId | None) -> bool:
        batch = None if batch_id is None else self._batches.get(batch_id)
        return batch is not None and not batch.is_open

    # --- events --------------------------------------------------------------------------------

    def _at(self, seconds: float, happen: Callable[[], None]) -> None:
        heapq.heappush(self._events, (seconds, next(self._numbers), happen))

    def _changed(self) -> None:
        """Let the cycle look, soon and once."""
        if not self._is_cycle_due:
            self._is_cycle_due = True
            self._at(max(self._now, self._cycle_at + self._cycle_seconds), self._cycle)

    def _arrive(self, arrival: Arrival) -> None:
        batch = SimulatedBatch(arrival, list(self._shards_of(arrival)))
        self._batches[arrival.batch_id] = self._open[arrival.batch_id] = batch
        self._at(arrival.at_seconds + arrival.window_seconds, lambda: self._expire(arrival.batch_id))
        if arrival.hold_until_seconds is not None:
            self._at(arrival.hold_until_seconds, self._changed)
        self._changed()

    def _expire(self, batch_id: BatchId) -> None:
        batch = self._batches[batch_id]
        if batch.is_open:
            batch.ended_at, batch.is_expired = self._now, True
            del self._open[batch_id]
            self._changed()

    def _leave(self, worker: SimulatedWorker) -> None:
        worker.is_here = False
        pack, worker.pack = worker.pack, None
        if pack is not None:
            share = (self._now - worker.began_at) / (worker.ends_at - worker.began_at)
            self._do(pack, worker, rows=math.floor(share * sum(part.row_stop - part.row_start for part in pack.left)))
            worker.run_no += 1
            self._at(self._now + self._fleet.lease_seconds, lambda: self._put_back(pack))
        self._changed()

    def _return(self, worker: SimulatedWorker) -> None:
        worker.is_here = True
        self._lease()
        self._changed()

    def _put_back(self, pack: SimulatedPack) -> None:
        self._wait(pack)
        self._lease()
        self._changed()

    def _end(self, worker: SimulatedWorker, run_no: int) -> None:
        if run_no != worker.run_no or worker.pack is None:
            return
        pack, worker.pack = worker.pack, None
        self._do(pack, worker, rows=None)
        self._settle(pack)
        self._lease()
        self._changed()

    # --- the cycle -----------------------------------------------------------------------------

    def _cycle(self) -> None:
        self._is_cycle_due, self._cycle_at = False, self._now
        ended, self._ended = tuple(self._ended), []
        plan = decide(self._snapshot(ended), self._policy, self._new_pack_id, self.predictions)
        self.predictions.stored()
        self._tags = plan.fair_tags
        self.record.cycles += 1
        for batch_id, promise in plan.promises:
            self._batches[batch_id].promise = promise
            self._batches[batch_id].seen = None
        for standing in plan.standings:
            self._batches[standing.batch_id].reason = standing.reason
            self._batches[standing.batch_id].seen = None
        self._press(dict(plan.pressing))
        for draft in plan.packs:
            self._ordinal_max = max(self._ordinal_max, draft.ordinal)
            for part in draft.slices:
                self._take(part)
            self._wait(SimulatedPack(draft, list(draft.slices), self._now))
        self._lease()

    def _snapshot(self, ended: tuple[EndedPack, ...]) -> Snapshot:
        return Snapshot(
            now_us=round(self._now * MICROSECONDS),
            backlogs=tuple(batch.backlog() for batch in self._open.values()),
            pools=tuple(self._pool_view(pool) for pool in self._fleet.pools),
            tokens_per_second={},
            virtual_seconds=self._ordinal_max,
            fair_tags=self._tags,
            ended=ended,
        )

    def _pool_view(self, pool: Pool) -> PoolView:
        return PoolView(
            pool=pool.name,
            workers=sum(worker.is_here for worker in self._workers if worker.pool is pool),
            servings=pool.servings,
            packs_waiting=len(self._waiting[pool.name]),
            packs_pressing=sum(ordinal < PRESSING_ORDINAL_MAX for ordinal in self._ordinals(pool.name)),
        )

    def _ordinals(self, pool: str) -> Iterable[float]:
        """Return the ordinals of the packs that have not ended."""
        yield from (ordinal for ordinal, _, _ in self._waiting[pool])
        yield from (each.pack.ordinal for each in self._workers if each.pool.name == pool and each.pack is not None)

    def _press(self, ordinals: Mapping[BatchId, float]) -> None:
        for waiting in self._waiting.values() if ordinals else ():
            for place, (ordinal, number, pack) in enumerate(waiting):
                pressed = [ordinals[part.batch_id] for part in pack.left if part.batch_id in ordinals]
                waiting[place] = (min([ordinal, *pressed]), number, pack)
            heapq.heapify(waiting)

    def _take(self, part: SliceDraft) -> None:
        batch = self._batches[part.batch_id]
        batch.rows_packed += part.row_stop - part.row_start
        batch.seen = None
        shard = batch.shards[batch.shard_at]
        assert shard.shard_id == part.shard_id, "shards are packed in order"
        batch.shards[batch.shard_at] = replace(shard, rows_packed=part.row_stop)
        if part.row_stop == shard.rows_total:
            batch.shard_at += 1

    def _wait(self, pack: SimulatedPack) -> None:
        heapq.heappush(self._waiting[pack.draft.pool], (pack.draft.ordinal, next(self._numbers), pack))

    def _lease(self) -> None:
        for worker in self._workers:
            waiting = self._waiting[worker.pool.name]
            while worker.is_here and worker.pack is None and waiting:
                ordinal, _, pack = heapq.heappop(waiting)
                pack.ordinal = ordinal
                pack.left = [part for part in pack.left if self._batches[part.batch_id].is_open]
                if pack.left:
                    self._begin(worker, pack)
                else:
                    self._settle(pack)

    def _begin(self, worker: SimulatedWorker, pack: SimulatedPack) -> None:
        speed = worker.pool.speeds[pack.draft.variant]
        seconds = sum(speed.seconds(self._actual(part)) for part in pack.left)
        pack.attempts += 1
        worker.pack, worker.began_at = pack, self._now
        worker.ends_at = self._now + max(1e-6, seconds * self._fleet.trouble.factor(self._random))
        worker.run_no += 1
        for part in pack.left:
            batch = self._batches[part.batch_id]
            batch.started_at = self._now if batch.started_at is None else batch.started_at
        self._at(worker.ends_at, lambda run_no=worker.run_no: self._end(worker, run_no))  # type: ignore[misc]

    # --- what came of it -----------------------------------------------------------------------

    def _do(self, pack: SimulatedPack, worker: SimulatedWorker, *, rows: int | None) -> None:
        """Give results to the first `rows` rows of the pack that have none (None: to all), and book the time."""
        is_whole = _rows_of(pack.left) == _rows_of(pack.draft.slices)
        left: list[SliceDraft] = []
        room = math.inf if rows is None else rows
        works: dict[BatchId, tuple[float, float, float]] = {}
        for part in pack.left:
            done = round(min(room, part.row_stop - part.row_start))
            room -= done
            size = self._batches[part.batch_id].actual(done)
            rows_before, inputs, outputs = works.get(part.batch_id, (0.0, 0.0, 0.0))
            works[part.batch_id] = (
                rows_before + size.rows,
                inputs + size.input_tokens,
                outputs + size.output_tokens,
            )
            pack.done[part.batch_id] = pack.done.get(part.batch_id, 0) + done
            self._finish_rows(part.batch_id, done)
            if done < part.row_stop - part.row_start:
                left.append(replace(part, row_start=part.row_start + done))
        pack.left = left
        seconds = self._now - worker.began_at
        pack.seconds += seconds
        weights = pack.draft.unit_costs.weights(works.values())
        whole = sum(weights)
        self.record.packs.append(
            PackRecord(
                pack_id=pack.draft.pack_id,
                pool=worker.pool.name,
                worker=worker.number,
                tier=pack.draft.tier,
                packed_at=pack.packed_at,
                from_seconds=worker.began_at,
                to_seconds=self._now,
                predicted_seconds=pack.draft.predicted_seconds,
                is_lost=rows is not None,
                is_whole=rows is None and is_whole,
                shares=tuple(
                    (self._batches[batch].arrival.tenant_id, batch, seconds * weight / whole)
                    for batch, weight in zip(works, weights, strict=True)
                    if whole
                ),
                rows=tuple(round(rows_done) for rows_done, _, _ in works.values()) if whole else (),
            )
        )

    def _finish_rows(self, batch_id: BatchId, rows: int) -> None:
        batch = self._batches[batch_id]
        batch.rows_done += rows
        batch.seen = None
        if batch.is_open and batch.rows_done == batch.arrival.estimated.rows:
            batch.ended_at = self._now
            del self._open[batch_id]

    def _settle(self, pack: SimulatedPack) -> None:
        """Tell the next cycle of a pack that ended."""
        predicted: dict[BatchId, float] = {}
        for part in pack.draft.slices:
            predicted[part.batch_id] = predicted.get(part.batch_id, 0.0) + part.predicted_seconds
        self._ended.append(
            EndedPack(
                pack_id=pack.draft.pack_id,
                pool=pack.draft.pool,
                model=pack.draft.model,
                variant=pack.draft.variant,
                tier=pack.draft.tier,
                seconds=pack.seconds,
                is_clean=pack.attempts == 1 and sum(pack.done.values()) == _rows_of(pack.draft.slices),
                unit_costs=pack.draft.unit_costs,
                shares=tuple(self._share_of(batch, seconds, pack) for batch, seconds in predicted.items()),
            )
        )

    def _share_of(self, batch_id: BatchId, predicted_seconds: float, pack: SimulatedPack) -> EndedShare:
        batch, rows = self._batches[batch_id], pack.done.get(batch_id, 0)
        actual = batch.actual(rows)
        return EndedShare(
            tenant_id=batch.arrival.tenant_id,
            batch_id=batch_id,
            template=batch.arrival.template,
            predicted_seconds=predicted_seconds,
            estimated=batch.estimated(rows),
            actual=actual,
            lengths={str(bucket_of(round(actual.output_tokens / rows))): float(rows)} if rows else {},
        )

    def _actual(self, part: SliceDraft) -> WorkSize:
        return self._batches[part.batch_id].actual(part.row_stop - part.row_start)

    def _shards_of(self, arrival: Arrival) -> Iterable[OpenShard]:
        rows = round(arrival.estimated.rows)
        for number, start in enumerate(range(0, rows, SHARD_ROWS_MAX)):
            held = min(SHARD_ROWS_MAX, rows - start)
            share = held / rows
            yield OpenShard(
                shard_id=next(self._shard_ids),
                shard_no=number,
                rows_total=held,
                rows_packed=0,
                input_tokens=round(arrival.estimated.input_tokens * share),
                output_tokens=round(arrival.estimated.output_tokens * share),
                template=arrival.template,
            )

    def _new_pack_id(self) -> PackId:
        return PackId(f"pack_{next(self._numbers):09d}")


def _rows_of(slices: Sequence[SliceDraft]) -> int:
    return sum(part.row_stop - part.row_start for part in slices)


def _record_of(batch: SimulatedBatch) -> BatchRecord:
    arrival = batch.arrival
    return BatchRecord(
        batch_id=arrival.batch_id,
        tenant_id=arrival.tenant_id,
        tier=arrival.tier,
        rows=round(arrival.estimated.rows),
        rows_done=batch.rows_done,
        arrived_at=arrival.at_seconds,
        deadline_at=arrival.at_seconds + arrival.window_seconds,
        started_at=batch.started_at,
        ended_at=batch.ended_at,
        is_expired=batch.is_expired,
        promise=batch.promise,
    )
