"""Nothing known and live is stopped, and every orphan is, in the first sweep after the grace."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.domain.ids import WorkerId
from pipeline.domain.lifecycle import WorkerState
from pipeline.ports.fleet import Machine, MachineState
from scheduler.fleet.orphans import KnownWorker, Memory, Sweep, sweep

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
GRACE = timedelta(minutes=5)
LONG_AGO = NOW - timedelta(hours=1)
LATELY = NOW - timedelta(minutes=1)


def machine(number: int, *, worker: int | None = None, at: datetime | None = LONG_AGO) -> Machine:
    return Machine(
        provider_id=f"i-{number}",
        state=MachineState.RUNNING,
        worker_id=None if worker is None else WorkerId(f"wrk_{worker}"),
        launched_at=at,
    )


def worker(number: int, *, machine: int | None = None, **changes: object) -> KnownWorker:
    base = KnownWorker(
        worker_id=WorkerId(f"wrk_{number}"),
        state=WorkerState.READY,
        provider="ec2",
        provider_id=None if machine is None else f"i-{machine}",
        launched_at=None if machine is None else LONG_AGO,
    )
    return replace(base, **changes)  # type: ignore[arg-type]


def swept(machines: list[Machine], known: list[KnownWorker], *, memory: Memory | None = None) -> Sweep:
    return sweep(machines, known, provider="ec2", now=NOW, grace=GRACE, memory=memory)


def test_a_machine_of_a_worker_that_nobody_knows_is_stopped() -> None:
    assert swept([machine(1, worker=1), machine(2)], []).stops == ("i-1", "i-2")


def test_a_machine_of_a_worker_that_ended_is_stopped() -> None:
    for state in (WorkerState.STOPPED, WorkerState.LOST):
        assert swept([machine(1, worker=1)], [worker(1, machine=1, state=state)]).stops == ("i-1",)


def test_a_young_machine_is_left_alone_whatever_is_known() -> None:
    assert swept([machine(1, worker=1, at=LATELY), machine(2, at=LATELY)], []).stops == ()


def test_a_machine_that_does_not_say_how_old_it_is_is_as_old_as_its_first_sweep() -> None:
    first = swept([machine(1, at=None)], [])
    later = Memory(seen_since={"i-1": NOW - GRACE - timedelta(seconds=1)})

    assert first.stops == ()
    assert first.memory.seen_since == {"i-1": NOW}
    assert swept([machine(1, at=None)], [], memory=later).stops == ("i-1",)


def test_of_two_machines_of_a_worker_the_recorded_one_stays() -> None:
    assert swept([machine(1, worker=1), machine(2, worker=1)], [worker(1, machine=2)]).stops == ("i-1",)


def test_of_two_machines_of_a_worker_of_which_none_is_recorded_the_older_one_stays() -> None:
    older = LONG_AGO - timedelta(seconds=1)
    machines = [machine(1, worker=1), machine(2, worker=1, at=older)]

    assert swept(machines, [worker(1, state=WorkerState.REQUESTED)]).stops == ("i-1",)


def test_a_machine_that_is_stopping_is_not_stopped_again() -> None:
    assert swept([replace(machine(1), state=MachineState.STOPPING)], []).stops == ()


def test_a_worker_whose_machine_is_not_listed_for_a_grace_is_lost() -> None:
    gone = Memory(missing_since={WorkerId("wrk_1"): NOW - GRACE - timedelta(seconds=1)})

    first = swept([], [worker(1, machine=1)])
    assert first.lost == ()
    assert first.memory.missing_since == {WorkerId("wrk_1"): NOW}
    assert swept([], [worker(1, machine=1)], memory=gone).lost == (WorkerId("wrk_1"),)
    assert swept([], [worker(1, machine=1, heard_at=LATELY)], memory=gone).lost == ()
    assert swept([], [worker(1, machine=1, launched_at=LATELY)], memory=gone).lost == ()
    assert swept([], [worker(1, machine=1, provider="local")], memory=gone).lost == ()
    assert swept([], [worker(1)], memory=gone).lost == ()
    assert swept([machine(1, worker=1)], [worker(1, machine=1)], memory=gone) == Sweep(
        stops=(), lost=(), memory=Memory(seen_since={"i-1": NOW})
    )


@dataclass
class World:
    """A provider and a database, and what sweeps make of them."""

    now: datetime = NOW
    machines: dict[str, Machine] = field(default_factory=dict)
    known: dict[WorkerId, KnownWorker] = field(default_factory=dict)
    memory: Memory = field(default_factory=Memory)
    orphaned_at: dict[str, datetime] = field(default_factory=dict)
    numbers: int = 0

    def new(self, worker_id: WorkerId | None, *, says_when: bool) -> str:
        self.numbers += 1
        provider_id = f"i-{self.numbers:04}"
        self.machines[provider_id] = Machine(
            provider_id=provider_id,
            state=MachineState.PENDING,
            worker_id=worker_id,
            launched_at=self.now if says_when else None,
        )
        return provider_id

    def live(self) -> set[str]:
        """The machines that live workers run on: the recorded, or the first."""
        found = set()
        for known in self.known.values():
            if known.state.is_terminal:
                continue
            if known.provider_id is not None:
                found.add(known.provider_id)
            else:
                mine = [each.provider_id for each in self.machines.values() if each.worker_id == known.worker_id]
                found.update(mine[:1])
        return found

    def sweep(self) -> None:
        live = self.live()
        self.orphaned_at = {
            provider_id: self.orphaned_at.get(provider_id, self.now)
            for provider_id in self.machines
            if provider_id not in live
        }
        before = dict(self.machines)
        seen = dict(self.memory.seen_since)
        done = sweep(
            list(before.values()),
            list(self.known.values()),
            provider="ec2",
            now=self.now,
            grace=GRACE,
            memory=self.memory,
        )
        self.memory = done.memory
        assert not live & set(done.stops)
        for provider_id, each in before.items():
            age = self.now - (each.launched_at or seen.get(provider_id, self.now))
            assert (provider_id in done.stops) == (provider_id not in live and age > GRACE)
        for worker_id in done.lost:
            assert self.known[worker_id].provider_id not in before
            self.known[worker_id] = replace(self.known[worker_id], state=WorkerState.LOST)
        for provider_id in done.stops:
            del self.machines[provider_id]


STEPS = st.sampled_from(["ask", "answer", "lose answer", "twice", "stray", "end", "take", "wait", "sweep", "crash"])


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(STEPS, st.integers(0, 7), st.booleans()), max_size=60))
def test_after_any_history_nothing_live_is_stopped_and_no_orphan_outlives_its_grace(
    steps: list[tuple[str, int, bool]],
) -> None:
    world = World()
    for step, number, says_when in steps:
        play(world, step, WorkerId(f"wrk_{number}"), says_when=says_when)

    world.sweep()
    world.now += GRACE + timedelta(seconds=1)
    world.sweep()

    assert set(world.machines) <= world.live()


def play(world: World, step: str, worker_id: WorkerId, *, says_when: bool) -> None:
    known = world.known.get(worker_id)
    match step:
        case "ask":
            asked = KnownWorker(worker_id=worker_id, state=WorkerState.REQUESTED, provider="ec2")
            world.known.setdefault(worker_id, asked)
        case "answer" if known is not None and known.state is WorkerState.REQUESTED:
            mine = [each.provider_id for each in world.machines.values() if each.worker_id == worker_id]
            provider_id = mine[0] if mine else world.new(worker_id, says_when=says_when)
            world.known[worker_id] = replace(
                known, state=WorkerState.BOOTING, provider_id=provider_id, launched_at=world.now
            )
        case "lose answer" | "twice" if known is not None and not known.state.is_terminal:
            world.now += timedelta(seconds=1)
            world.new(worker_id, says_when=True)
        case "stray":
            # The older of two is one that says so, or nobody can tell.
            world.new(worker_id if known is None else None, says_when=says_when or known is None)
        case "end" if known is not None:
            world.known[worker_id] = replace(known, state=WorkerState.STOPPED)
        case "take" if known is not None and known.provider_id is not None:
            world.machines.pop(known.provider_id, None)
        case "wait":
            world.now += timedelta(seconds=100)
        case "sweep":
            world.sweep()
        case "crash":
            world.memory = Memory()
        case _:
            pass
