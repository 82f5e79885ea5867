"""The virtual world: a clock, processes that may die at any step, an object store, hints, faults."""

from __future__ import annotations

import random
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Final, TypeVar

from pipeline.domain.errors import StoreUnavailableError
from pipeline.domain.ids import BatchId, PackId, WorkerId
from pipeline.domain.lifecycle import PackState, WorkerState
from pipeline.domain.money import metered_cost_micros
from pipeline.ports.cycle import PackDraft
from pipeline.ports.packs import WorkCommit
from tests.simulation.layers import Layers
from tests.simulation.rescuing import SchedulerStore

if TYPE_CHECKING:
    from tests.simulation.actors import Worker

#: Yields how long until its next step.
Steps = Generator[int, None, None]
_T = TypeVar("_T")

STEPS_MAX: Final = 20_000
POOL: Final = "pool"
MODEL: Final = "model"


@dataclass(slots=True, kw_only=True)
class Plan:
    """What one seed drew: the work, and which faults are on and how hard."""

    workers: int
    rescuers: int
    #: No fault begins after this.
    heal_at_us: int
    kill_rate: float = 0.0
    pause_rate: float = 0.0
    pause_us_max: int = 9_000
    #: A paused worker's own clock stands still, so its watchdog sees nothing.
    clock_stops: bool = False
    #: At each heartbeat: the thread that sends them dies.
    mute_rate: float = 0.0
    preempt_rate: float = 0.0
    grace_us: int = 1_000
    error_before: float = 0.0
    error_after: float = 0.0
    scheduler_crash_rate: float = 0.0
    scheduler_pause_rate: float = 0.0
    #: Between the convictor's put and its commit.
    scheduler_slow_rate: float = 0.0
    hint_lost: float = 0.0
    hint_doubled: float = 0.0
    hint_late: float = 0.0
    #: A poison row kills the process; otherwise the attempt fails and the worker lives.
    poison_kills: bool = True
    #: Poison is the only thing that ends attempts.
    is_calm: bool = False
    part_rows: int
    run_us: int
    poll_us: int
    beat_us: int = 1_000
    fence_us: int = 2_400
    silence_us: int = 4_000
    rescue_us: int
    #: The scheduler looks for lost workers before it looks for expired leases.
    workers_first: bool
    rate_micros_per_hour: int
    #: Batch → rows of its one shard (shard ids count from 1 in this order).
    batches: dict[BatchId, int]
    dispatches: list[tuple[int, PackDraft]]
    withdrawals: list[tuple[int, BatchId]]
    #: Shard → rows that bring down whoever runs them.
    poison: dict[int, int]


@dataclass(slots=True, eq=False)
class Process:
    """A generator on the clock; `turn` is its one valid entry there."""

    steps: Steps
    owner: Worker | None
    #: Makes a new generator after a crash; None: a crash is the end.
    restart: Callable[[], Steps] | None
    turn: int = 0


@dataclass(slots=True)
class Report:
    """What one run did and what it broke."""

    seed: int
    steps: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    #: Kind of violation, and the particulars.
    violations: list[tuple[str, str]] = field(default_factory=list)
    trace: list[str] | None = None


class World:
    """Everything outside the actors."""

    def __init__(self, seed: int, rng: random.Random, plan: Plan, layers: Layers, *, traced: bool) -> None:
        self.rng = rng
        self.plan = plan
        self.layers = layers
        self.store = SchedulerStore(layers, silence_us=plan.silence_us)
        self.report = Report(seed, trace=[] if traced else None)
        self.objects: dict[str, str] = {}
        self.alive: list[Worker] = []
        #: Attempts that a fault touched: only these may lose their lease.
        self.faulted: set[tuple[PackId, int]] = set()
        self.hints = 0
        self.events_pending = len(plan.dispatches) + len(plan.withdrawals)
        self.is_winding_down = False
        self._clock: list[tuple[int, int, Process]] = []
        self._turn = 0
        self._ids = 0

    # --- the clock -----------------------------------------------------------------------------

    def start(
        self,
        steps: Steps,
        *,
        owner: Worker | None = None,
        delay_us: int = 0,
        restart: Callable[[], Steps] | None = None,
    ) -> Process:
        process = Process(steps, owner, restart)
        self.resume(process, self.store.now_us + delay_us)
        return process

    def resume(self, process: Process, at_us: int) -> None:
        """Give the process its next step at `at_us`, whatever it waited for."""
        self._turn += 1
        process.turn = self._turn
        heappush(self._clock, (at_us, self._turn, process))

    def run(self) -> None:
        """Step until everything is done, or far too long."""
        clock, store, report = self._clock, self.store, self.report
        while clock:
            now_us, turn, process = heappop(clock)
            if process.turn != turn:
                continue
            store.now_us = now_us
            report.steps += 1
            if report.steps > STEPS_MAX:
                self.violate("stuck", f"{store.packs_open} packs open after {STEPS_MAX} steps")
                return
            if now_us < self.plan.heal_at_us:
                if not self._survives(process):
                    continue
            elif process.owner is not None and not self._is_running(process, process.owner):
                continue
            delay_us = next(process.steps, -1)
            if delay_us >= 0 and process.turn == turn:
                self.resume(process, now_us + delay_us)
            if not store.packs_open and not self.events_pending and self._is_over():
                return

    def _is_running(self, process: Process, worker: Worker) -> bool:
        if worker.is_dead:
            return False
        if worker.paused_until > self.store.now_us:
            self.resume(process, worker.paused_until + self.rng.randrange(50))
            return False
        return True

    def _survives(self, process: Process) -> bool:
        """Roll the faults of this step; False when the process does not take it."""
        plan, roll = self.plan, self.rng.random()
        worker = process.owner
        if worker is None:
            if process.restart is None or roll >= plan.scheduler_crash_rate + plan.scheduler_pause_rate:
                return True
            self.touch(None)
            if roll < plan.scheduler_crash_rate:
                self.note("scheduler_crashed")
                process.steps = process.restart()
            else:
                self.note("scheduler_paused")
            self.resume(process, self.store.now_us + self.rng.randrange(100, 5_000))
            return False
        if not self._is_running(process, worker):
            return False
        if roll < plan.kill_rate:
            worker.die("killed")
            return False
        if roll < plan.kill_rate + plan.pause_rate:
            worker.pause(self.rng.randrange(500, plan.pause_us_max))
            self.resume(process, worker.paused_until)
            return False
        return True

    def _is_over(self) -> bool:
        if not self.is_winding_down:
            self.is_winding_down = True
            for worker in self.alive:
                worker.must_stop = True
        sealed = all(batch.is_sealed for batch in self.store.batches.values() if batch.is_withdrawn)
        return not self.store.workers_open and not self.alive and sealed

    # --- asking a server -----------------------------------------------------------------------

    def ask(self, worker_id: WorkerId | None, call: Callable[[], _T]) -> _T:
        """Call the store; on a bad day the answer, or the question, is lost on the way."""
        plan = self.plan
        if plan.error_before + plan.error_after and self.store.now_us < plan.heal_at_us:
            roll = self.rng.random()
            if roll < plan.error_before:
                self.note("store_error")
                self.touch(worker_id)
                raise StoreUnavailableError
            if roll < plan.error_before + plan.error_after:
                self.touch(worker_id)
                call()
                self.touch(worker_id)
                self.note("ambiguous_call")
                raise StoreUnavailableError
        return call()

    def is_bad_day(self, rate: float) -> bool:
        """Roll a fault that is not rolled at each step."""
        return rate > 0 and self.store.now_us < self.plan.heal_at_us and self.rng.random() < rate

    def linger(self) -> int:
        """Return how long the scheduler takes over a step: on a bad day, longer than its lease."""
        if self.is_bad_day(self.plan.scheduler_slow_rate):
            self.touch(None)
            return 5_000
        return 50

    def put(self, key: str, content: str) -> None:
        """Write an object once; the same content again is a retry."""
        if self.objects.setdefault(key, content) != content:
            self.violate("object_overwritten", key)

    def touch(self, worker_id: WorkerId | None) -> None:
        """Remember that a fault reached the attempts this worker (None: the convictor) runs now."""
        for pack in self.store.packs.values():
            if pack.state is PackState.LEASED and pack.lease_worker == worker_id:
                self.faulted.add((pack.pack_id, pack.lease_token))

    # --- hints ---------------------------------------------------------------------------------

    def publish(self) -> None:
        """Tell some worker that a pack waits; the message may be lost, doubled or late."""
        plan = self.plan
        roll = self.rng.random()
        if roll < plan.hint_lost:
            self.note("hint_lost")
            return
        copies = 1
        if roll < plan.hint_lost + plan.hint_doubled:
            self.note("hint_doubled")
            copies = 2
        elif roll < plan.hint_lost + plan.hint_doubled + plan.hint_late:
            self.note("hint_late")
            self.start(self._deliver_after(self.rng.randrange(1_000, 9_000)))
            return
        for _ in range(copies):
            self._deliver()

    def _deliver_after(self, delay_us: int) -> Steps:
        yield delay_us
        self._deliver()

    def _deliver(self) -> None:
        for worker in self.alive:
            if worker.is_idle and worker.main is not None:
                worker.is_idle = False
                self.resume(worker.main, max(self.store.now_us, worker.paused_until))
                return
        self.hints += 1

    # --- watching ------------------------------------------------------------------------------

    def next_id(self) -> int:
        self._ids += 1
        return self._ids

    def note(self, event: str, detail: object = "") -> None:
        """Count an event that some seed must bring about."""
        counts = self.report.counts
        counts[event] = counts.get(event, 0) + 1
        if self.report.trace is not None:
            self.report.trace.append(f"{self.store.now_us:>8} {event} {detail}".rstrip())

    def say(self, *words: object) -> None:
        """Put a line in the trace, when there is one."""
        if self.report.trace is not None:
            self.report.trace.append(f"{self.store.now_us:>8} " + " ".join(str(word) for word in words))

    def violate(self, kind: str, detail: str) -> None:
        self.report.violations.append((kind, detail))
        self.say("VIOLATION", kind, detail)

    def check_commit(self, worker_id: WorkerId | None, commit: WorkCommit, *, is_replay: bool = False) -> None:
        """Check what one commit touched, just after it."""
        for part in commit.parts:
            for rows in part.shards:
                shard = self.store.shards[rows.shard_id]
                if shard.done.bit_count() != shard.rows_succeeded + shard.rows_errored:
                    self.violate("count", f"shard {shard.shard_id}: {shard.done:b}, {shard.rows_succeeded} succeeded")
        if worker_id is not None:
            worker = self.store.workers[worker_id]
            if worker.state is WorkerState.LOST and not is_replay:
                self.violate("lost_works", f"{worker_id} commits after it was lost")
            price = metered_cost_micros(worker.rate_micros_per_hour, 0, worker.metered_until_us)
            if worker.charged_micros != price:
                self.violate("ledger", f"{worker_id} charged {worker.charged_micros}, life costs {price}")
