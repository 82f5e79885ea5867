"""The worker, as a generator that may vanish at each yield."""

from __future__ import annotations

from collections.abc import Callable, Generator
from functools import partial
from typing import TypeVar

from pipeline.domain.errors import ConflictError, LeaseLostError, StoreUnavailableError
from pipeline.domain.ids import BatchId, PackId, PartId, WorkerId
from pipeline.domain.lifecycle import AttemptOutcome, IntervalKind, WorkerState
from pipeline.ports.packs import (
    Interval,
    LeasedSlice,
    PackLease,
    PartDraft,
    ShardRows,
    WorkCommit,
    WorkerRegistration,
)
from tests.simulation.records import mask_of, ranges_of_mask
from tests.simulation.world import MODEL, POOL, Process, Steps, World

_T = TypeVar("_T")
_MODELS = (MODEL,)

#: Rows that are still to run: a slice and its rows.
Todo = list[tuple[LeasedSlice, int]]


class Worker:
    """One worker process: a main thread, a heartbeat with a watchdog, and a clock of its own."""

    __slots__ = (
        "_withdrawn", "clock_lost", "is_dead", "is_idle", "is_leaving", "is_mute", "is_preempted", "leases", "main",
        "metered", "must_stop", "paused_until", "renewed_at", "started_at", "worker_id", "world",
    )  # fmt: skip

    def __init__(self, world: World) -> None:
        self.world = world
        self.worker_id = WorkerId(f"wrk_{world.next_id():03d}")
        self.started_at = world.store.now_us
        self.clock_lost = 0
        self.paused_until = 0
        self.is_dead = False
        self.is_idle = False
        self.is_leaving = False
        #: Its heartbeat thread died, and the watchdog with it.
        self.is_mute = False
        self.is_preempted = False
        self.must_stop = False
        #: Leases it believes to hold.
        self.leases: dict[PackId, int] = {}
        #: How far it has metered its own life.
        self.metered = 0
        self.renewed_at = 0
        self._withdrawn: frozenset[BatchId] = frozenset()
        self.main: Process | None = world.start(self._life(), owner=self)
        world.alive.append(self)

    # --- what happens to it --------------------------------------------------------------------

    def die(self, event: str) -> None:
        self.world.touch(self.worker_id)
        self.world.note(event, self.worker_id)
        self._end()

    def pause(self, pause_us: int) -> None:
        self.world.touch(self.worker_id)
        self.world.note("paused", f"{self.worker_id} for {pause_us}")
        self.paused_until = self.world.store.now_us + pause_us
        if self.world.plan.clock_stops:
            self.clock_lost += pause_us

    def preempt(self, grace_us: int) -> Steps:
        """Get a notice; what is not over after the grace is killed."""
        self.world.note("preempted", self.worker_id)
        self.is_preempted = True
        yield grace_us
        if not self.is_dead:
            self.die("preempted_hard")

    def _end(self) -> None:
        self.is_dead = True
        self.main = None
        self.world.alive.remove(self)

    def _uptime(self) -> int:
        return self.world.store.now_us - self.started_at - self.clock_lost

    # --- the heartbeat -------------------------------------------------------------------------

    def _pulse(self) -> Steps:
        world, plan = self.world, self.world.plan
        delay_us = plan.beat_us
        while True:
            yield delay_us
            if self.is_leaving:
                return
            if world.is_bad_day(plan.mute_rate):
                self.is_mute = True
                world.touch(self.worker_id)
                world.note("muted", self.worker_id)
                return
            uptime_us = self._uptime()
            if uptime_us - self.renewed_at > plan.fence_us:
                self.die("self_fenced")
                return
            try:
                world.ask(self.worker_id, partial(self._renew, uptime_us))
            except StoreUnavailableError:
                delay_us = plan.beat_us // 2
            else:
                delay_us = plan.beat_us

    def _renew(self, uptime_us: int) -> None:
        store = self.world.store
        renewal = store.renew(self.worker_id, self.leases, uptime_us=uptime_us)
        self.renewed_at = uptime_us
        self._withdrawn |= renewal.withdrawn
        self.must_stop = self.must_stop or renewal.must_stop
        for pack_id, lease_token in list(self.leases.items()):
            if pack_id in renewal.lost:
                self.world.note("renewal_lost", pack_id)
                del self.leases[pack_id]
            elif not store.is_current(store.packs[pack_id], lease_token):
                self.world.violate("renewal_lied", f"{self.worker_id} holds {pack_id} no more")

    # --- the main thread -----------------------------------------------------------------------

    def _life(self) -> Steps:
        try:
            yield from self._live()
        except ConflictError as error:
            self.world.violate("refused", f"{self.worker_id}: {error}")
            self.die("refused")

    def _live(self) -> Steps:
        world, store = self.world, self.world.store
        registration = WorkerRegistration(
            worker_id=self.worker_id,
            pool=POOL,
            market="spot",
            host="host",
            pid=1,
            variants=dict.fromkeys(_MODELS, ""),
            rate_micros_per_hour=world.plan.rate_micros_per_hour,
            currency="USD",
        )
        yield world.rng.randrange(1, 600)
        yield from self._insist(lambda: store.register(registration))
        self.renewed_at = self._uptime()
        world.start(self._pulse(), owner=self)
        yield from self._insist(lambda: store.enter(self.worker_id, WorkerState.READY))
        yield from self._meter(IntervalKind.BOOT)
        while not self.must_stop and not self.is_preempted:
            lease = self._lease()
            if lease is None:
                if not self.must_stop:
                    yield from self._wait()
                continue
            yield 1
            if world.layers.meters_idle:
                yield from self._meter(IntervalKind.IDLE)
            else:
                self.metered = self._uptime()
            yield from self._attempt(lease)
        yield from self._leave()

    def _wait(self) -> Steps:
        """Sleep until a hint comes, or until it is time to look without one."""
        if self.world.hints:
            self.world.hints -= 1
            yield 50
            return
        self.is_idle = True
        yield self.world.rng.randrange(self.world.plan.poll_us // 2, self.world.plan.poll_us)
        self.is_idle = False

    def _lease(self) -> PackLease | None:
        store = self.world.store
        try:
            lease = self.world.ask(self.worker_id, lambda: store.lease(self.worker_id, pool=POOL, variants=_MODELS))
        except StoreUnavailableError:
            return None
        except LeaseLostError:
            self.world.note("lease_refused", self.worker_id)
            self.must_stop = True
            return None
        if lease is not None:
            self.world.say(self.worker_id, "leases", lease.pack_id, lease.lease_token, *map(_slice_text, lease.slices))
            self.leases[lease.pack_id] = lease.lease_token
            if self.is_mute:
                self.world.touch(self.worker_id)
            if store.workers[self.worker_id].state is WorkerState.LOST:
                self.world.violate("lost_works", f"{self.worker_id} leases after it was lost")
            if any(store.batches[piece.batch_id].is_withdrawn for piece in lease.slices) or not lease.slices:
                self.world.violate("lease_withdrawn", f"{lease.pack_id} asks for withdrawn rows, or none")
        return lease

    def _attempt(self, lease: PackLease) -> Steps:
        """Run the pack a part at a time, then say how it ended."""
        world = self.world
        todo: Todo = [(piece, mask_of(piece.ranges)) for piece in lease.slices]
        outcome = AttemptOutcome.SUCCEEDED
        while todo:
            if self.is_preempted or self.must_stop:
                outcome = AttemptOutcome.PREEMPTED
                break
            chunk = self._take(todo)
            if not chunk:
                outcome = AttemptOutcome.CANCELLED
                break
            yield world.rng.randrange(world.plan.run_us // 2, world.plan.run_us)
            if self._is_poisoned(chunk):
                if world.plan.poison_kills:
                    self.die("poison_crash")
                    yield 0  # and never comes back
                world.note("attempt_failed", lease.pack_id)
                outcome = AttemptOutcome.FAILED
                break
            if not todo and not world.layers.commits_before_finish:
                yield from self._finish(lease, outcome)
            if not (yield from self._commit(lease, chunk)):
                return
        yield 1 if outcome is AttemptOutcome.SUCCEEDED else world.rng.randrange(1, 2_000)
        if outcome is not AttemptOutcome.SUCCEEDED:
            yield from self._meter(IntervalKind.LATE)
        yield from self._finish(lease, outcome)

    def _take(self, todo: Todo) -> Todo:
        """Take the next few rows off `todo`, passing over withdrawn batches."""
        chunk: Todo = []
        room = self.world.plan.part_rows
        while todo and room:
            piece, mask = todo[0]
            if piece.batch_id in self._withdrawn:
                self.world.note("skipped_withdrawn", piece.batch_id)
                del todo[0]
                continue
            taken = 0
            while mask and room:
                taken |= mask & -mask
                mask &= mask - 1
                room -= 1
            chunk.append((piece, taken))
            if mask:
                todo[0] = (piece, mask)
            else:
                del todo[0]
        return chunk

    def _is_poisoned(self, chunk: Todo) -> bool:
        poison = self.world.plan.poison
        return any(poison.get(piece.shard_id, 0) & mask for piece, mask in chunk)

    def _commit(self, lease: PackLease, chunk: Todo) -> Generator[int, None, bool]:
        """Put the parts' objects, then commit them; False when the lease is lost."""
        layers = self.world.layers
        parts = self._draft(lease, chunk)
        if layers.puts_before_commit:
            yield from self._put(parts)
        interval = Interval(kind=IntervalKind.WORK, start_us=self.metered, stop_us=self._uptime())
        commit = WorkCommit(pack_id=lease.pack_id, lease_token=lease.lease_token, parts=parts, interval=interval)
        try:
            yield from self._insist_on_commit(lease, chunk, commit)
        except LeaseLostError:
            self._note_fenced(lease)
            if layers.meters_late:
                yield from self._meter(IntervalKind.LATE)
            else:
                self.metered = self._uptime()
            self.leases.pop(lease.pack_id, None)
            return False
        self.metered = interval.stop_us
        yield 1
        if not layers.puts_before_commit:
            yield from self._put(parts)
        return True

    def _insist_on_commit(self, lease: PackLease, chunk: Todo, commit: WorkCommit) -> Steps:
        world, store = self.world, self.world.store
        while True:
            is_replay = commit.parts[0].part_id in store.parts
            try:
                world.ask(self.worker_id, partial(store.commit, self.worker_id, commit))
            except StoreUnavailableError:
                if commit.parts[0].part_id in store.parts:
                    world.note("ambiguous_commit", lease.pack_id)
                yield world.rng.randrange(50, 1_500)
                if not world.layers.retries_same_commit:
                    parts = self._draft(lease, chunk)
                    yield from self._put(parts)
                    commit = WorkCommit(
                        pack_id=lease.pack_id, lease_token=lease.lease_token, parts=parts, interval=commit.interval
                    )
                continue
            if is_replay:
                world.note("replayed_commit", lease.pack_id)
            world.say(self.worker_id, "commits", lease.pack_id, lease.lease_token, commit.parts[0].object_key)
            world.check_commit(self.worker_id, commit, is_replay=is_replay)
            return

    def _note_fenced(self, lease: PackLease) -> None:
        self.world.note("fenced_commit", f"{self.worker_id} {lease.pack_id} {lease.lease_token}")
        if (lease.pack_id, lease.lease_token) not in self.world.faulted:
            self.world.violate("unprovoked", f"{lease.pack_id} token {lease.lease_token} fenced without a fault")

    def _draft(self, lease: PackLease, chunk: Todo) -> tuple[PartDraft, ...]:
        """Draft one part for each batch in the chunk."""
        by_batch: dict[BatchId, Todo] = {}
        for piece, mask in chunk:
            by_batch.setdefault(piece.batch_id, []).append((piece, mask))
        return tuple(self._draft_part(lease, batch_id, rows) for batch_id, rows in by_batch.items())

    def _draft_part(self, lease: PackLease, batch_id: BatchId, rows: Todo) -> PartDraft:
        total = sum(mask.bit_count() for _, mask in rows)
        names = "+".join(f"{piece.shard_id}:{mask:x}" for piece, mask in rows)
        return PartDraft(
            part_id=PartId(f"part_{self.world.next_id():04d}"),
            batch_id=batch_id,
            object_key=f"{batch_id}/{lease.pack_id}-{lease.lease_token}-{names}",
            sha256=f"{self.worker_id}/{lease.lease_token}/{names}",
            size_bytes=total,
            shards=tuple(
                ShardRows(
                    shard_id=piece.shard_id,
                    ranges=ranges_of_mask(mask),
                    rows_succeeded=mask.bit_count(),
                    rows_errored=0,
                )
                for piece, mask in rows
            ),
            input_tokens=3 * total + rows[0][0].shard_id,
            output_tokens=2 * total,
        )

    def _put(self, parts: tuple[PartDraft, ...]) -> Steps:
        for part in parts:
            yield from self._insist(partial(self.world.put, part.object_key, part.sha256))
            yield 20

    def _finish(self, lease: PackLease, outcome: AttemptOutcome) -> Steps:
        world, store = self.world, self.world.store
        try:
            verdict = yield from self._insist(lambda: store.finish(lease.pack_id, lease.lease_token, outcome))
        except LeaseLostError:
            world.note("fenced_finish", lease.pack_id)
            if (lease.pack_id, lease.lease_token) not in world.faulted:
                world.violate("unprovoked", f"{lease.pack_id} token {lease.lease_token} ended without a fault")
        else:
            world.note(f"verdict_{verdict}", lease.pack_id)
            world.say(self.worker_id, "finishes", lease.pack_id, lease.lease_token, outcome)
        self.leases.pop(lease.pack_id, None)

    # --- its own record ------------------------------------------------------------------------

    def _meter(self, kind: IntervalKind) -> Steps:
        """Record the time since the last span; a lost worker learns here that all of it is late."""
        store = self.world.store
        span = Interval(kind=kind, start_us=self.metered, stop_us=self._uptime())
        try:
            yield from self._insist(lambda: store.meter(self.worker_id, span))
        except LeaseLostError:
            self.must_stop = True
            kind = IntervalKind.LATE
            late = Interval(kind=kind, start_us=span.start_us, stop_us=span.stop_us)
            yield from self._insist(lambda: store.meter(self.worker_id, late))
        self.metered = span.stop_us
        if kind is IntervalKind.LATE:
            self.world.note("late_span", self.worker_id)
            if store.workers[self.worker_id].state is WorkerState.LOST:
                self.world.note("zombie", self.worker_id)

    def _leave(self) -> Steps:
        """Stop the heartbeat before the last span, so that no uptime is reported past its end."""
        store = self.world.store
        yield from self._insist(lambda: store.enter(self.worker_id, WorkerState.DRAINING))
        self.is_leaving = True
        yield 20
        yield from self._meter(IntervalKind.DRAIN)
        yield from self._insist(lambda: store.enter(self.worker_id, WorkerState.STOPPED))
        self.world.note("stopped", self.worker_id)
        self._end()

    def _insist(self, call: Callable[[], _T]) -> Generator[int, None, _T]:
        while True:
            try:
                return self.world.ask(self.worker_id, call)
            except StoreUnavailableError:
                yield self.world.rng.randrange(50, 1_500)


def _slice_text(piece: LeasedSlice) -> str:
    return f"{piece.batch_id}:{piece.ranges}"
