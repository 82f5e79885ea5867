"""What the scheduler process does to packs and workers that others left behind.

Finding and acting are separate calls, as they are separate transactions: between the two the world
moves on, so each act looks again.
"""

from __future__ import annotations

from pipeline.domain.ids import BatchId, PackId, WorkerId
from pipeline.domain.lifecycle import AttemptOutcome, IntervalKind, PackState, WorkerState
from pipeline.ports.packs import Interval, PackLease
from tests.simulation.model import ModelStore
from tests.simulation.records import WorkerRecord

_GONE = frozenset({WorkerState.STOPPED, WorkerState.LOST})


class SchedulerStore(ModelStore):
    """The whole protocol: what workers call and what the scheduler calls."""

    def rescue(self, now_us: int) -> None:
        """Find and act in one go."""
        self.now_us = now_us
        for pack_id, lease_token in self.expired():
            self.rescue_pack(pack_id, lease_token)
        for worker_id in self.silent():
            self.declare_lost(worker_id)

    def expired(self) -> list[tuple[PackId, int]]:
        """Return packs whose lease ran out, each with the token that did."""
        now_us = self.now_us
        return [
            (pack.pack_id, pack.lease_token)
            for pack in self.packs.values()
            if pack.state is PackState.LEASED and pack.lease_expires_at < now_us
        ]

    def rescue_pack(self, pack_id: PackId, lease_token: int) -> bool:
        """End the attempt as lost; False when it is not to be rescued any more."""
        pack = self.packs[pack_id]
        if pack.state is not PackState.LEASED:
            return False
        if self.layers.rescue_names_token and pack.lease_token != lease_token:
            return False
        if self.layers.rescue_rechecks_expiry and pack.lease_expires_at >= self.now_us:
            return False
        if self.layers.rescue_finishes:
            self.end_attempt(pack, AttemptOutcome.LEASE_LOST)
        else:
            self._move(pack, PackState.RETRYABLE)
        return True

    def silent(self) -> list[WorkerId]:
        """Return workers that gave no sign of life for too long."""
        return [worker.worker_id for worker in self.workers.values() if self._is_silent(worker)]

    def _is_silent(self, worker: WorkerRecord) -> bool:
        return worker.state not in _GONE and worker.seen_at + self.silence_us < self.now_us

    def declare_lost(self, worker_id: WorkerId) -> bool:
        """Mark the worker lost, end its leases and close its life; False when it is alive after all."""
        worker = self.workers[worker_id]
        if worker.state in _GONE or (self.layers.lost_rechecks_silence and not self._is_silent(worker)):
            return False
        if self.layers.lost_ends_leases:
            for pack in list(self.packs.values()):
                if pack.state is PackState.LEASED and pack.lease_worker == worker_id:
                    self.end_attempt(pack, AttemptOutcome.LEASE_LOST)
        worker.state = WorkerState.LOST
        worker.was_lost = True
        self.workers_open -= 1
        if self.layers.closes_tail and worker.uptime_us > worker.metered_until_us:
            tail = Interval(kind=IntervalKind.LOST, start_us=worker.metered_until_us, stop_us=worker.uptime_us)
            self.charge_overhead(worker, tail)
        return True

    def held(self) -> list[PackId]:
        """Return packs whose one row is convicted and waits for its error."""
        return [pack.pack_id for pack in self.packs.values() if pack.is_held]

    def lease_held(self, pack_id: PackId) -> PackLease | None:
        """Lease a convicted pack for the convictor, or return None when it is held no more."""
        pack = self.packs[pack_id]
        asked = self.rows_left(pack.rows)
        if not pack.is_held or not asked:
            return None
        return self._grant(pack, None, asked)

    def withdraw(self, batch_id: BatchId) -> None:
        """Start no more rows of the batch, and discard the waiting packs that this empties."""
        self.batches[batch_id].is_withdrawn = True
        if not self.layers.sweeps_withdrawn:
            return
        for pack in self.packs.values():
            if pack.state in {PackState.READY, PackState.RETRYABLE} and not self.rows_left(pack.rows):
                pack.is_held = False
                self._move(pack, PackState.DISCARDED)

    def seal(self, batch_id: BatchId) -> bool:
        """Fix the parts that a withdrawn batch's files are made from; False while rows are running."""
        if self.layers.seal_waits and any(
            self.shards[shard_id].batch.batch_id == batch_id
            for pack in self.packs.values()
            if pack.state is PackState.LEASED and pack.attempt is not None
            for shard_id in pack.attempt.asked
        ):
            return False
        self.batches[batch_id].is_sealed = True
        return True
