"""The store's protocol in memory: leases, fenced commits, ends of attempts, heartbeats.

`ModelStore` is the twin of what Postgres implements, one method per transaction. Each guard is one
of the `Layers`. Metering is in `metering`, what the scheduler process does in `rescuing`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Final

from pipeline.domain.errors import ConflictError, LeaseLostError
from pipeline.domain.ids import BatchId, PackId, PartId, TenantId, WorkerId
from pipeline.domain.lifecycle import WORKER_EDGES, AttemptOutcome, PackState, WorkerEnd, WorkerState, advance
from pipeline.domain.ranges import halve
from pipeline.domain.retry import Verdict, judge
from pipeline.ports.cycle import PackDraft
from pipeline.ports.meters import AttemptMeters
from pipeline.ports.packs import LeasedSlice, PackLease, PartDraft, Renewal, WorkCommit, WorkerRegistration
from tests.simulation.layers import REAL, Layers
from tests.simulation.metering import Meter
from tests.simulation.records import (
    Attempt,
    Batch,
    Pack,
    Part,
    Rows,
    Shard,
    WorkerRecord,
    count,
    mask_of,
    ranges_of_mask,
)

_WAITING: Final = frozenset({PackState.READY, PackState.RETRYABLE})
_MAY_LEASE: Final = frozenset({WorkerState.READY, WorkerState.LOADING})
_MUST_STOP: Final = frozenset({WorkerState.DRAINING, WorkerState.STOPPED, WorkerState.LOST})
_SPENDING: Final = frozenset({AttemptOutcome.FAILED, AttemptOutcome.LEASE_LOST})


class ModelStore(Meter):
    """Packs, parts, workers and the ledger; `now_us` is the store's clock, moved by its owner."""

    def __init__(self, layers: Layers = REAL, *, lease_us: int = 3_000, silence_us: int = 4_000) -> None:
        super().__init__(layers)
        self.lease_us = lease_us
        self.silence_us = silence_us
        self.now_us = 0
        self.batches: dict[BatchId, Batch] = {}
        self.shards: dict[int, Shard] = {}
        self.packs: dict[PackId, Pack] = {}
        self.parts: dict[PartId, Part] = {}
        self.attempts: list[Attempt] = []
        #: Packs in a state that some edge leaves.
        self.packs_open = 0
        self._children = 0

    # --- what intake and the scheduler's cycle leave behind -------------------------------------

    def add_batch(self, tenant_id: TenantId, batch_id: BatchId) -> None:
        self.batches[batch_id] = Batch(batch_id, tenant_id)

    def add_shard(self, shard_id: int, batch_id: BatchId, shard_no: int, rows_total: int) -> None:
        self.shards[shard_id] = Shard(shard_id, self.batches[batch_id], shard_no, rows_total)

    def dispatch(self, draft: PackDraft) -> None:
        rows: Rows = {}
        for piece in draft.slices:
            rows[piece.shard_id] = rows.get(piece.shard_id, 0) | mask_of(((piece.row_start, piece.row_stop),))
        self._add_pack(
            Pack(draft.pack_id, draft.pool, draft.model, draft.endpoint, draft.ordinal, rows, draft.unit_costs)
        )

    def _add_pack(self, pack: Pack) -> None:
        assert pack.pack_id not in self.packs
        self.packs[pack.pack_id] = pack
        self.packs_open += 1

    # --- leases --------------------------------------------------------------------------------

    def lease(self, worker_id: WorkerId, *, pool: str, variants: Collection[str]) -> PackLease | None:
        worker = self.workers[worker_id]
        if self.layers.refuses_gone_workers and worker.state not in _MAY_LEASE:
            # Not None: one whose heartbeat died would look for packs for ever and never learn why.
            raise LeaseLostError(f"{worker_id} is {worker.state}")
        if self.layers.lease_is_life:
            worker.seen_at = self.now_us
        while (pack := self.first_waiting(pool, variants)) is not None:
            asked = self._rows_to_ask(pack)
            if asked or not self.layers.discards_empty:
                return self._grant(pack, worker_id, asked)
            self._move(pack, PackState.DISCARDED)
        return None

    def first_waiting(self, pool: str, variants: Collection[str]) -> Pack | None:
        """Return the waiting pack with the lowest (ordinal, id), or None."""
        first: Pack | None = None
        for pack in self.packs.values():
            if pack.state not in _WAITING or pack.is_held or pack.pool != pool or pack.model not in variants:
                continue
            if first is None or (pack.ordinal, pack.pack_id) < (first.ordinal, first.pack_id):
                first = pack
        return first

    def rows_left(self, rows: Rows) -> Rows:
        """Return those of `rows` that nobody committed and whose batch is not withdrawn."""
        left: Rows = {}
        for shard_id, mask in rows.items():
            shard = self.shards[shard_id]
            remaining = 0 if shard.batch.is_withdrawn else mask & ~shard.done
            if remaining:
                left[shard_id] = remaining
        return left

    def _rows_to_ask(self, pack: Pack) -> Rows:
        if self.layers.excludes_done and self.layers.excludes_withdrawn:
            return self.rows_left(pack.rows)
        asked: Rows = {}
        for shard_id, mask in pack.rows.items():
            shard = self.shards[shard_id]
            kept = mask & ~shard.done if self.layers.excludes_done else mask
            if kept and not (shard.batch.is_withdrawn and self.layers.excludes_withdrawn):
                asked[shard_id] = kept
        return asked

    def _grant(self, pack: Pack, worker_id: WorkerId | None, asked: Rows) -> PackLease:
        if self.layers.bumps_token:
            pack.lease_token += 1
        pack.state = PackState.LEASED
        pack.lease_worker = worker_id
        pack.lease_expires_at = self.now_us + self.lease_us
        pack.is_held = False
        pack.attempt = Attempt(pack.pack_id, pack.lease_token, worker_id, asked)
        self.attempts.append(pack.attempt)
        slices = tuple(self._slice(shard_id, mask) for shard_id, mask in asked.items())
        return PackLease(
            pack_id=pack.pack_id,
            lease_token=pack.lease_token,
            model=pack.model,
            variant=pack.model,
            endpoint=pack.endpoint,
            slices=slices,
        )

    def _slice(self, shard_id: int, mask: int) -> LeasedSlice:
        shard = self.shards[shard_id]
        return LeasedSlice(
            tenant_id=shard.batch.tenant_id,
            batch_id=shard.batch.batch_id,
            shard_id=shard_id,
            shard_no=shard.shard_no,
            object_key="",
            sha256="",
            ranges=ranges_of_mask(mask),
        )

    def is_current(self, pack: Pack, lease_token: int) -> bool:
        """Say whether `lease_token` is the right to this pack."""
        return pack.state is PackState.LEASED and pack.lease_token == lease_token

    # --- commits -------------------------------------------------------------------------------

    def commit(self, worker_id: WorkerId | None, commit: WorkCommit) -> None:
        assert commit.parts, "a commit without parts has nothing to be idempotent by"
        pack = self.packs[commit.pack_id]
        is_replay = any(part.part_id in self.parts for part in commit.parts)
        if is_replay and self.layers.dedups_part:
            if not self.layers.dedups_charge:
                self._charge_commit(worker_id, commit)
            return
        is_stale = not self.is_current(pack, commit.lease_token)
        if is_stale and self.layers.fences_commit:
            if not self.layers.late_is_waste:
                self._charge_commit(worker_id, commit)
            raise LeaseLostError
        self._check_rows_are_free(commit.parts)
        self._charge_commit(worker_id, commit)
        for part in commit.parts:
            self._add_part(part, worker_id, commit, is_stale=is_stale)

    def _check_rows_are_free(self, parts: Iterable[PartDraft]) -> None:
        if not self.layers.rows_unique:
            return
        taken = {shard.shard_id: self.shards[shard.shard_id].done for part in parts for shard in part.shards}
        for part in parts:
            for shard in part.shards:
                mask = mask_of(shard.ranges)
                if taken[shard.shard_id] & mask:
                    raise ConflictError("a row would be in two parts")
                taken[shard.shard_id] |= mask

    def _charge_commit(self, worker_id: WorkerId | None, commit: WorkCommit) -> None:
        if commit.interval is None:
            return
        assert worker_id is not None
        unit_costs = self.packs[commit.pack_id].unit_costs
        self.charge_work(self.workers[worker_id], commit.interval, commit.works(), unit_costs)

    def _add_part(self, part: PartDraft, worker_id: WorkerId | None, commit: WorkCommit, *, is_stale: bool) -> None:
        rows: Rows = {}
        for drafted in part.shards:
            shard = self.shards[drafted.shard_id]
            mask = rows[drafted.shard_id] = mask_of(drafted.ranges)
            shard.done |= mask
            shard.rows_succeeded += drafted.rows_succeeded
            shard.rows_errored += drafted.rows_errored
        key = part.part_id if part.part_id not in self.parts else PartId(f"{part.part_id}+{len(self.parts)}")
        self.parts[key] = Part(
            key,
            part.batch_id,
            part.object_key,
            part.sha256,
            rows,
            sum(drafted.rows_errored for drafted in part.shards),
            worker_id,
            None if commit.interval is None else commit.interval.start_us,
            is_stale,
            self.batches[part.batch_id].is_sealed,
        )

    # --- ends of attempts ----------------------------------------------------------------------

    def finish(
        self,
        pack_id: PackId,
        lease_token: int,
        outcome: AttemptOutcome,
        error: str | None = None,
        meters: AttemptMeters | None = None,
    ) -> Verdict:
        del error, meters
        pack = self.packs[pack_id]
        if self.layers.fences_finish and not self.is_current(pack, lease_token):
            raise LeaseLostError
        if not self.layers.fences_finish and pack.state is not PackState.LEASED:
            raise LeaseLostError
        return self.end_attempt(pack, outcome)

    def end_attempt(self, pack: Pack, outcome: AttemptOutcome) -> Verdict:
        """Judge the pack by the rows it has left and move it on."""
        attempt = pack.attempt
        assert attempt is not None
        attempt.outcome = outcome
        left = self.rows_left(pack.rows)
        rows_left = count(left)
        rows_asked = count(attempt.asked)
        if outcome in _SPENDING or (outcome is AttemptOutcome.PREEMPTED and not self.layers.preemption_is_free):
            pack.failures += 1
            pack.lone_failures += rows_asked == 1
            outcome = AttemptOutcome.FAILED
        if not self.layers.counts_rows_left and outcome is AttemptOutcome.SUCCEEDED:
            rows_left = 0
        # What a row did in company proves nothing against it: the others may be done or withdrawn by now.
        failures = pack.lone_failures if rows_left == 1 and self.layers.convicts_alone else pack.failures
        verdict = judge(outcome=outcome, rows_left=rows_left, failures=failures, is_suspect=pack.is_suspect)
        if verdict is Verdict.BISECT and not self.layers.bisects:
            verdict = Verdict.CONVICT
        self._apply(pack, verdict, left)
        return verdict

    def _apply(self, pack: Pack, verdict: Verdict, left: Rows) -> None:
        match verdict:
            case Verdict.DONE:
                self._move(pack, PackState.COMMITTED)
            case Verdict.RETRY | Verdict.CONVICT:
                self._move(pack, PackState.RETRYABLE)
                pack.is_held = verdict is Verdict.CONVICT and self.layers.holds_convicted
            case Verdict.BISECT:
                self._move(pack, PackState.DISCARDED)
                self._bisect(pack, left)

    def _bisect(self, pack: Pack, left: Rows) -> None:
        for half in halve([(shard_id, ranges_of_mask(mask)) for shard_id, mask in left.items()]):
            self._children += 1
            self._add_pack(
                Pack(
                    # Sorts after its parent and before any pack with a larger id.
                    PackId(f"{pack.pack_id}.{self._children:03d}"),
                    pack.pool,
                    pack.model,
                    pack.endpoint,
                    pack.ordinal,
                    {shard_id: mask_of(ranges) for shard_id, ranges in half},
                    pack.unit_costs,
                    is_suspect=self.layers.children_are_suspect,
                )
            )

    def _move(self, pack: Pack, state: PackState) -> None:
        pack.state = state
        pack.lease_worker = None
        pack.attempt = None
        if state not in _WAITING:
            self.packs_open -= 1

    # --- workers -------------------------------------------------------------------------------

    def register(self, registration: WorkerRegistration) -> int:
        if registration.worker_id not in self.workers:
            record = WorkerRecord(
                registration.worker_id, registration.rate_micros_per_hour, self.now_us, tuple(registration.variants)
            )
            self.workers[registration.worker_id] = record
            self.workers_open += 1
        return 0

    def serve(self, worker_id: WorkerId, variants: Mapping[str, str]) -> None:
        self.workers[worker_id].variants = tuple(variants)

    def renew(self, worker_id: WorkerId, leases: Mapping[PackId, int], *, uptime_us: int) -> Renewal:
        worker = self.workers[worker_id]
        if worker.state is WorkerState.LOST and self.layers.lost_is_final:
            return Renewal(lost=frozenset(leases), withdrawn=frozenset(), must_stop=True)
        worker.seen_at = self.now_us
        worker.uptime_us = max(worker.uptime_us, uptime_us)
        lost: list[PackId] = []
        withdrawn: list[BatchId] = []
        for pack_id, lease_token in leases.items():
            pack = self.packs[pack_id]
            if self.is_current(pack, lease_token) or not self.layers.renews_by_token:
                pack.lease_expires_at = self.now_us + self.lease_us
                withdrawn += [batch.batch_id for batch in self._batches_of(pack.rows) if batch.is_withdrawn]
            else:
                lost.append(pack_id)
        must_stop = worker.state in _MUST_STOP
        return Renewal(lost=frozenset(lost), withdrawn=frozenset(withdrawn), must_stop=must_stop)

    def _batches_of(self, rows: Rows) -> list[Batch]:
        return [self.shards[shard_id].batch for shard_id in rows]

    def enter(self, worker_id: WorkerId, state: WorkerState, *, end: WorkerEnd = WorkerEnd.STOPPED) -> None:
        del end
        worker = self.workers[worker_id]
        if worker.state is state or (worker.state is WorkerState.LOST and self.layers.lost_is_final):
            return
        if worker.state is not WorkerState.LOST:
            advance(WORKER_EDGES, worker.state, state)
        worker.state = state
        if state is WorkerState.STOPPED:
            self.workers_open -= 1
