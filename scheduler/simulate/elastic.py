"""A simulation whose workers come and go: a fleet policy asks for machines, and a market gives and takes them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from itertools import count
from typing import Final

from pipeline.domain.ids import BatchId, WorkerId
from pipeline.domain.lifecycle import IntervalKind, WorkerEnd, WorkerState
from pipeline.ports.cycle import PoolView, Reach
from pipeline.ports.fleet import FleetPlan, FleetPolicy, FleetView
from scheduler.policy import Policy
from scheduler.simulate.arrivals import Arrival
from scheduler.simulate.expectations import Expectations
from scheduler.simulate.fleet import Pool
from scheduler.simulate.fleet_record import FleetRecord, Sample
from scheduler.simulate.fleet_views import view_of
from scheduler.simulate.machines import SimulatedMachine, record_of
from scheduler.simulate.scene import Offering, Scene
from scheduler.simulate.sights import Sights
from scheduler.simulate.simulation import Simulation
from scheduler.simulate.state import SimulatedPack, SimulatedWorker

#: How often the picture of what waits is taken.
_SAMPLE_SECONDS: Final = 600.0


class ElasticSimulation(Simulation):
    """One run of arrivals through a fleet that a policy starts and stops.

    It ends with the last batch; what still runs then is stopped.
    """

    def __init__(
        self,
        arrivals: Iterable[Arrival],
        scene: Scene,
        policy: Policy,
        fleet_policy: FleetPolicy,
        *,
        seed: int,
        expectations: Expectations | None = None,
        is_ended_by_a_miss: bool = False,
    ) -> None:
        """Make ready; equal arguments give equal runs, as far as the fleet's policy is new."""
        arrivals = tuple(arrivals)
        super().__init__(arrivals, scene.fleet(), policy, seed=seed, cycle_seconds=scene.cycle_seconds)
        self._scene = scene
        self._offerings = scene.offerings
        self._pools = {pool.name: pool for pool in scene.pools}
        self._fleet_policy = fleet_policy
        self._expectations = expectations
        self._is_ended_by_a_miss = is_ended_by_a_miss
        self._sights = Sights(scene)
        self._to_arrive = len(arrivals)
        self._machine_numbers = count(1)
        self._machines: dict[WorkerId, SimulatedMachine] = {}
        self._machine_of: dict[SimulatedWorker, SimulatedMachine] = {}
        self._sampled_at = -math.inf
        self.fleet_record = FleetRecord(policy=fleet_policy.name, record=self.record)
        for offering in self._offerings.values():
            for at, left in offering.capacity.drops() if offering.capacity is not None else ():
                told_at = max(0.0, at - scene.notice_seconds)
                self._at(told_at, lambda o=offering, n=left, t=at: self._notice(o, n, t))  # type: ignore[misc]
        self._at(0.0, self._steer)

    # --- the fleet's policy --------------------------------------------------------------------

    def _steer(self) -> None:
        """Let the policy decide, and do what it says."""
        if self._is_over:
            return
        view = view_of(
            now=self._now,
            scene=self._scene,
            batches=self._open.values(),
            predictions=self.predictions,
            machines=self._machines.values(),
            sights=self._sights,
            expected=() if self._expectations is None else self._expectations.at(self._now),
        )
        self._sample(view)
        self._do_plan(self._fleet_policy.decide(view))
        self._at(self._now + self._scene.interval_seconds, self._steer)

    def _do_plan(self, plan: FleetPlan) -> None:
        for stop in plan.stops:
            machine = self._machines.get(stop.worker_id)
            if machine is not None:
                self.fleet_record.stops[stop.reason.value] += 1
                self._drain(machine)
        for start in plan.starts:
            for _ in range(start.count):
                refusal = self._refusal(self._offerings[start.offer])
                if refusal is not None:
                    self.fleet_record.refusals[start.offer] += 1
                    self._sights.refused(start.offer, self._now, is_quota=refusal == "quota")
                    break
                self.fleet_record.starts[start.reason.value] += 1
                self._launch(self._offerings[start.offer])

    def _refusal(self, offering: Offering) -> str | None:
        """Return why a machine cannot be had now; None where it can."""
        live = [each.offering for each in self._machines.values()]
        had = sum(each.name == offering.name for each in live)
        pool_max = self._pools[offering.pool].workers_max
        if pool_max is not None and sum(each.pool == offering.pool for each in live) >= pool_max:
            return "quota"
        if offering.workers_max is not None and had >= offering.workers_max:
            return "quota"
        if offering.capacity is None:
            return None
        # Who will be taken away in a moment is not handed out any more.
        soon = self._now + self._scene.notice_seconds
        return "capacity" if had >= min(offering.capacity.at(self._now), offering.capacity.at(soon)) else None

    # --- machines ------------------------------------------------------------------------------

    def _launch(self, offering: Offering) -> None:
        number = next(self._machine_numbers)
        machine = SimulatedMachine(
            worker_id=WorkerId(f"wrk_{number:06d}"),
            offering=offering,
            launched_at=self._now,
            ends_by=self._now + self._scene.lifetime_seconds,
        )
        self._machines[machine.worker_id] = machine
        self._sights.launched(offering.name, self._now)
        pool = self._pools[offering.pool]
        boot, load = pool.boot.draw(self._random), pool.load.draw(self._random)
        self._at(self._now + boot, lambda: self._load(machine))
        self._at(self._now + boot + load, lambda: self._ready(machine, number))
        # In time for its last pack to end.
        leaves_at = machine.ends_by - 2 * self._policy.pack_seconds_target - self._scene.drain_seconds
        self._at(max(self._now, leaves_at), lambda: self._drain(machine))
        self._at(machine.ends_by, lambda: self._take_away(machine, WorkerEnd.STOPPED))

    def _load(self, machine: SimulatedMachine) -> None:
        if machine.state is WorkerState.BOOTING:
            machine.state = WorkerState.LOADING
            machine.become(IntervalKind.LOAD, self._now)

    def _ready(self, machine: SimulatedMachine, number: int) -> None:
        if machine.state is not WorkerState.LOADING or machine.is_noticed:
            return
        machine.state = WorkerState.READY
        machine.become(IntervalKind.IDLE, self._now)
        machine.idle_since = self._now
        pool = next(pool for pool in self._fleet.pools if pool.name == machine.offering.pool)
        machine.worker = SimulatedWorker(pool, number)
        self.record.workers[pool.name] = max(self.record.workers[pool.name], number + 1)
        self._machine_of[machine.worker] = machine
        self._workers.append(machine.worker)
        self._lease()
        self._changed()

    def _drain(self, machine: SimulatedMachine) -> None:
        """Let a machine end its pack and go; one that does not work yet goes at once."""
        match machine.state:
            case WorkerState.BOOTING | WorkerState.LOADING:
                self._gone(machine, WorkerEnd.STOPPED)
            case WorkerState.READY:
                machine.state = WorkerState.DRAINING
                assert machine.worker is not None, "who is ready works"
                machine.worker.is_here = False
                if machine.worker.pack is None:
                    self._leave_when_drained(machine)
                self._changed()
            case _:
                pass

    def _leave_when_drained(self, machine: SimulatedMachine) -> None:
        machine.become(IntervalKind.DRAIN, self._now)
        # Who was told that it will be taken waits for that: it may be free.
        if not machine.is_noticed:
            self._at(self._now + self._scene.drain_seconds, lambda: self._gone(machine, WorkerEnd.STOPPED))

    def _notice(self, offering: Offering, left: int, gone_at: float) -> None:
        """Tell those whose machines will be taken, any of the offer's, that their end is near."""
        live = [each for each in self._machines.values() if each.offering.name == offering.name and not each.is_noticed]
        taken = self._random.sample(live, max(0, len(live) - left))
        for machine in taken:
            machine.is_noticed = True
            self._sights.noticed(offering.name, self._now)
            if machine.state is WorkerState.READY:
                self._drain(machine)
            self._at(gone_at, lambda machine=machine: self._take_away(machine, WorkerEnd.INTERRUPTED))  # type: ignore[misc]

    def _take_away(self, machine: SimulatedMachine, end: WorkerEnd) -> None:
        """Have a machine gone, whatever it does; what of its pack is not done goes back at once."""
        if machine.worker_id not in self._machines:
            return
        worker = machine.worker
        if worker is not None and worker.pack is not None:
            worker.run_no += 1
            pack, worker.pack = worker.pack, None
            self._hand_back(machine, worker, pack)
        self._gone(machine, end)

    def _hand_back(self, machine: SimulatedMachine, worker: SimulatedWorker, pack: SimulatedPack) -> None:
        lost = min(self._scene.lost_seconds, self._now - worker.began_at)
        share = (self._now - worker.began_at - lost) / (worker.ends_at - worker.began_at)
        rows = sum(part.row_stop - part.row_start for part in pack.left)
        self._do(pack, worker, rows=math.floor(share * rows))
        machine.become(IntervalKind.PREEMPTED, self._now, lost_seconds=lost)
        self._at(self._now, lambda: self._put_back(pack))

    def _gone(self, machine: SimulatedMachine, end: WorkerEnd) -> None:
        if self._machines.pop(machine.worker_id, None) is None:
            return
        machine.state = WorkerState.STOPPED
        if machine.worker is not None:
            self._workers.remove(machine.worker)
            del self._machine_of[machine.worker]
        self._sights.lived(machine.offering.name, self._now - machine.launched_at)
        self.fleet_record.machines.append(record_of(machine, self._now, end))
        self._changed()

    # --- what the plain simulation does, and what that means for machines -----------------------

    def _begin(self, worker: SimulatedWorker, pack: SimulatedPack) -> None:
        super()._begin(worker, pack)
        machine = self._machine_of[worker]
        machine.become(IntervalKind.WORK, self._now)
        machine.idle_since = None

    def _end(self, worker: SimulatedWorker, run_no: int) -> None:
        if run_no == worker.run_no and worker.pack is not None:
            super()._end(worker, run_no)
            self._ended_pack(worker)

    def _ended_pack(self, worker: SimulatedWorker) -> None:
        machine = self._machine_of.get(worker)
        if machine is None or worker.pack is not None:
            return
        if machine.state is WorkerState.DRAINING:
            self._leave_when_drained(machine)
        else:
            machine.become(IntervalKind.IDLE, self._now)
            machine.idle_since = self._now

    def _arrive(self, arrival: Arrival) -> None:
        self._to_arrive -= 1
        super()._arrive(arrival)

    def _expire(self, batch_id: BatchId) -> None:
        is_missed = batch_id in self._open
        super()._expire(batch_id)
        if is_missed and self._is_ended_by_a_miss:
            self._finish()
        self._finish_if_done()

    def _finish_rows(self, batch_id: BatchId, rows: int) -> None:
        super()._finish_rows(batch_id, rows)
        if not self._open and not self._to_arrive:
            self._at(self._now, self._finish_if_done)

    def _pool_view(self, pool: Pool) -> PoolView:
        elastic = self._pools[pool.name]
        return replace(
            super()._pool_view(pool),
            reach=Reach(
                workers=elastic.workers_reachable,
                after_seconds=elastic.cold_start_seconds + self._scene.interval_seconds,
            ),
        )

    def _finish_if_done(self) -> None:
        if not self._open and not self._to_arrive:
            self._finish()

    def _finish(self) -> None:
        for machine in tuple(self._machines.values()):
            self._take_away(machine, WorkerEnd.STOPPED)
        self._is_over = True
        self.fleet_record.seconds = self._now

    def _sample(self, view: FleetView) -> None:
        if self._now < self._sampled_at + _SAMPLE_SECONDS:
            return
        self._sampled_at = self._now
        waiting: Counter[str] = Counter()
        paces = {model: pace for pool in reversed(view.pools) for model, pace in pool.paces.items()}
        for work in view.work:
            waiting[work.tier.value] += paces[work.model].seconds(work.size)  # type: ignore[assignment]
        self.fleet_record.samples.append(Sample(at=self._now, backlog_seconds=dict(waiting)))
