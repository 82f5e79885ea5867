"""A worker's life in spans, and what each span costs whom."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pipeline.domain.errors import ConflictError, LeaseLostError
from pipeline.domain.ids import BatchId, WorkerId
from pipeline.domain.lifecycle import IntervalKind, WorkerState
from pipeline.domain.money import metered_cost_micros
from pipeline.domain.shares import UnitCosts
from pipeline.ports.packs import Interval
from tests.simulation.layers import Layers
from tests.simulation.records import Span, WorkerRecord

OVERHEAD: Final = "overhead:"

#: Worker, start of the span, account, and 0 (more only where a mutant lets an entry in twice).
EntryKey = tuple[WorkerId, int, str, int]


class Meter:
    """Workers, their spans and the ledger."""

    def __init__(self, layers: Layers) -> None:
        self.layers = layers
        self.workers: dict[WorkerId, WorkerRecord] = {}
        self.ledger: dict[EntryKey, int] = {}
        #: Workers in a state that some edge leaves.
        self.workers_open = 0

    def meter(self, worker_id: WorkerId, interval: Interval) -> None:
        if interval.kind is IntervalKind.WORK:
            raise ConflictError("work is recorded with the parts that pay for it")
        worker = self.workers[worker_id]
        if interval.stop_us <= worker.metered_until_us:
            return
        start_us = interval.start_us
        if worker.state is WorkerState.LOST:
            if interval.kind is not IntervalKind.LATE:
                raise LeaseLostError("a lost worker's time is late, whatever it did")
            if self.layers.clips_late:
                start_us = max(start_us, worker.metered_until_us)
        self.charge_overhead(worker, Interval(kind=interval.kind, start_us=start_us, stop_us=interval.stop_us))

    def charge_work(
        self,
        worker: WorkerRecord,
        interval: Interval,
        works: Mapping[BatchId, tuple[int, int, int]],
        unit_costs: UnitCosts,
    ) -> None:
        """Record a span and split its cost over batches by what their rows cost."""
        cost = self._append(worker, interval)
        shares = unit_costs.split(cost, works)
        if not self.layers.splits_exactly:
            weights = unit_costs.weights(works.values())
            shares = {batch: cost * weight // sum(weights) for batch, weight in zip(works, weights, strict=True)}
        for batch_id, micros in shares.items():
            self._enter(worker, interval.start_us, batch_id, micros)

    def charge_overhead(self, worker: WorkerRecord, interval: Interval) -> None:
        """Record a span that no batch pays for."""
        cost = self._append(worker, interval)
        self._enter(worker, interval.start_us, OVERHEAD + interval.kind, cost)

    def _append(self, worker: WorkerRecord, interval: Interval) -> int:
        if self.layers.guards_interval and interval.start_us != worker.metered_until_us:
            raise ConflictError(f"span starts at {interval.start_us}, life is metered to {worker.metered_until_us}")
        worker.spans.append(Span(interval.kind, interval.start_us, interval.stop_us))
        worker.metered_until_us = max(worker.metered_until_us, interval.stop_us)
        return metered_cost_micros(worker.rate_micros_per_hour, interval.start_us, interval.stop_us)

    def _enter(self, worker: WorkerRecord, start_us: int, account: str, micros: int) -> None:
        copy = 0
        while (worker.worker_id, start_us, account, copy) in self.ledger:
            if self.layers.keys_ledger:
                return
            copy += 1
        self.ledger[worker.worker_id, start_us, account, copy] = micros
        worker.charged_micros += micros
