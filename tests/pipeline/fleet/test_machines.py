"""Machines as they are asked for, launched, refused, lost and stopped, on a real Postgres."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr
from sqlalchemy import text

from pipeline.app import machines
from pipeline.app.fleet import FleetDuty
from pipeline.app.stack import Stack, open_stack
from pipeline.config import Settings
from pipeline.domain.errors import ConflictError, NotLeaderError
from pipeline.domain.ids import WorkerId, new_worker_id
from pipeline.domain.lifecycle import RentalState, WorkerState
from pipeline.fleet_settings import FleetSettings
from pipeline.ports.fleet import (
    FleetPlan,
    FleetReason,
    FleetView,
    Machine,
    MachineState,
    PoolStanding,
    RefusalKind,
    Start,
    Stop,
)
from pipeline.ports.packs import WorkerRegistration
from storage.workers import WorkerRepository
from tests.pipeline.fleet.cloud import Cloud
from tests.services import fresh_database
from tests.storage.world import LEASE, World, open_world

OFFER = "gpu/cloud/spot"
_FLEET = {
    "pools": {"gpu": {"offers": [{"provider": "cloud", "market": "spot"}, {"provider": "cloud"}], "start_seconds": 60}},
    "scripts": {"cloud": {"start": ["true"], "stop": ["true"], "list": ["true"]}},
}


class Told:
    """A policy that decides what it is told to, once."""

    name = "told"

    def __init__(self) -> None:
        self.plan = FleetPlan()
        self.seen: FleetView | None = None

    def decide(self, view: FleetView) -> FleetPlan:
        self.seen = view
        plan, self.plan = self.plan, FleetPlan(standings=self.plan.standings)
        return plan


class Scene:
    """A fleet of one pool on one cloud."""

    def __init__(self, stack: Stack, world: World) -> None:
        self.stack, self.world = stack, world
        self.cloud, self.policy = Cloud(), Told()
        self.duty = FleetDuty(stack, self.policy, {"cloud": self.cloud}, epoch=world.leadership.epoch)

    def start(self, count: int = 1) -> list[WorkerId]:
        self.policy.plan = FleetPlan(starts=(Start(offer=OFFER, count=count, reason=FleetReason.DEADLINE),))
        self.duty.decide()
        self.duty.tend()
        return [WorkerId(each) for each in self.world.scalars("SELECT worker_id FROM rentals ORDER BY requested_at")]

    def stop(self, worker_id: WorkerId) -> None:
        self.policy.plan = FleetPlan(stops=(Stop(worker_id=worker_id, reason=FleetReason.IDLE),))
        self.duty.decide()

    def states(self) -> list[str]:
        return list(self.world.scalars("SELECT state FROM rentals ORDER BY requested_at, worker_id"))

    def worker(self, worker_id: WorkerId) -> str | None:
        return next(iter(self.world.scalars("SELECT state FROM workers WHERE id = :id", id=worker_id)), None)

    def register(self, worker_id: WorkerId) -> int:
        return WorkerRepository(self.world.database, lease_for=LEASE).register(
            WorkerRegistration(
                worker_id=worker_id,
                pool="gpu",
                market="spot",
                host="far",
                pid=1,
                variants={"echo": ""},
                rate_micros_per_hour=1,
                currency="USD",
            )
        )

    def age(self, seconds: float) -> None:
        """Let everything have happened so much earlier."""
        back = {"back": timedelta(seconds=seconds)}
        for statement in (
            "UPDATE rentals SET requested_at = requested_at - :back, launched_at = launched_at - :back",
            "UPDATE workers SET started_at = started_at - :back, heartbeat_at = heartbeat_at - :back",
        ):
            self.world.database.run(lambda connection, statement=statement: connection.execute(text(statement), back))


@pytest.fixture
def scene(template_url: str, redis_url: str, tmp_path: Path) -> Iterator[Scene]:
    with fresh_database(template_url) as url:
        settings = Settings(
            home=tmp_path,
            database_url=SecretStr(url),
            redis_url=SecretStr(redis_url),
            fleet=FleetSettings.model_validate(_FLEET),
        )
        with open_stack(settings) as stack, open_world(stack.database.url) as world:
            yield Scene(stack, world)


def test_what_is_asked_for_is_launched_with_all_that_its_worker_needs_and_costs_from_then_on(scene: Scene) -> None:
    worker_ids = scene.start(2)

    assert scene.states() == [RentalState.LAUNCHED] * 2
    assert {launch.worker_id for launch in scene.cloud.asked} == set(worker_ids)
    environment = scene.cloud.asked[0].environment
    assert environment["NIGHTRATE_WORKER_ID"] == scene.cloud.asked[0].worker_id
    assert environment["NIGHTRATE_POOL"] == "gpu"
    assert environment["NIGHTRATE_MARKET"] == "spot"
    assert environment["NIGHTRATE_DATABASE_URL"].startswith("postgresql")
    assert not {"NIGHTRATE_KEY_PEPPER", "NIGHTRATE_FLEET", "NIGHTRATE_HOME"} & set(environment)
    assert [scene.worker(worker_id) for worker_id in worker_ids] == [WorkerState.REQUESTED] * 2


def test_a_machine_is_paid_from_its_launch_so_its_workers_boot_begins_there(scene: Scene) -> None:
    (worker_id,) = scene.start()
    scene.age(90)

    age_us = scene.register(worker_id)

    assert age_us >= 90_000_000
    assert scene.worker(worker_id) == WorkerState.BOOTING
    (rate,) = scene.world.scalars("SELECT rate_micros_per_hour FROM workers WHERE id = :id", id=worker_id)
    assert rate == 100_000, "what the machine costs, not what the process believes"


def test_a_start_whose_answer_was_lost_is_asked_for_again_and_runs_once(scene: Scene) -> None:
    scene.cloud.loses_answer = True
    (worker_id,) = scene.start()
    assert scene.states() == [RentalState.REQUESTED]

    scene.duty.tend()

    assert scene.states() == [RentalState.LAUNCHED]
    assert len(scene.cloud.running) == 1
    assert [launch.worker_id for launch in scene.cloud.asked] == [worker_id, worker_id]


def test_a_refusal_is_kept_and_the_offer_is_left_alone_for_a_while(scene: Scene) -> None:
    scene.cloud.refuses = RefusalKind.CAPACITY
    scene.start(3)

    scene.duty.decide()

    assert scene.states() == [RentalState.REFUSED] * 3
    seen = scene.policy.seen
    assert seen is not None
    spot, on_demand = seen.pools[0].offers
    assert spot.offer == OFFER
    assert 0 < spot.refused_until_us - seen.now_us <= 60_000_000
    assert spot.is_available is False
    assert on_demand.refused_until_us == 0
    assert seen.workers == ()


def test_the_machine_of_a_worker_that_ended_is_stopped_until_it_is_gone(scene: Scene) -> None:
    (worker_id,) = scene.start()
    scene.register(worker_id)
    scene.world.workers.enter(worker_id, WorkerState.READY)
    scene.stop(worker_id)
    (must_stop,) = scene.world.scalars("SELECT must_stop FROM workers WHERE id = :id", id=worker_id)
    assert must_stop
    scene.duty.tend()
    assert scene.cloud.running, "it drains first"
    scene.world.workers.enter(worker_id, WorkerState.DRAINING)
    scene.world.workers.enter(worker_id, WorkerState.STOPPED)

    scene.duty.tend()

    assert not scene.cloud.running
    assert scene.states() in ([RentalState.STOPPING], [RentalState.GONE])
    scene.duty.tend()
    assert scene.states() == [RentalState.GONE]


def test_a_worker_that_is_not_needed_before_it_appears_costs_its_boot_and_no_more(scene: Scene) -> None:
    (worker_id,) = scene.start()
    scene.age(36)
    scene.stop(worker_id)

    scene.duty.tend()

    assert not scene.cloud.running
    assert scene.worker(worker_id) == WorkerState.STOPPED
    (kind, cost) = scene.world.rows("SELECT kind, cost_micros FROM worker_intervals")[0]
    assert (kind, cost >= 1000) == ("boot", True)
    with pytest.raises(ConflictError, match="given up before it appeared"):
        scene.register(worker_id)


def test_a_worker_that_never_appears_is_lost_and_its_machine_is_stopped(scene: Scene) -> None:
    (worker_id,) = scene.start()
    scene.age(170)
    scene.duty.tend()
    assert scene.worker(worker_id) == WorkerState.REQUESTED
    scene.age(20)

    scene.duty.tend()

    assert scene.worker(worker_id) == WorkerState.LOST
    assert not scene.cloud.running
    assert [row.kind for row in scene.world.rows("SELECT kind FROM worker_intervals")] == ["lost"]


def test_a_machine_that_its_provider_took_before_its_worker_appeared_is_noticed(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    (worker_id,) = scene.start()
    scene.cloud.running.clear()
    scene.duty.tend()
    assert scene.states() == [RentalState.LAUNCHED], "a list may be late"
    monkeypatch.setattr(machines, "_GRACE", timedelta(0))

    scene.duty.tend()

    assert scene.states() == [RentalState.GONE]
    assert scene.worker(worker_id) == WorkerState.LOST


def test_a_machine_that_nobody_knows_is_stopped_once_it_is_old_enough(scene: Scene) -> None:
    known = scene.start()
    old = datetime.now(UTC) - timedelta(minutes=5)
    for name, launched_at in (("m-orphan", old), ("m-young", datetime.now(UTC))):
        scene.cloud.running[name] = Machine(
            provider_id=name, state=MachineState.RUNNING, worker_id=new_worker_id(), launched_at=launched_at
        )

    scene.duty.tend()

    assert scene.cloud.stopped == ["m-orphan"]
    assert {machine.worker_id for machine in scene.cloud.running.values()} > set(known)


def test_a_second_machine_of_one_worker_is_one_that_nobody_knows(scene: Scene) -> None:
    (worker_id,) = scene.start()
    scene.cloud.running["m-twin"] = Machine(
        provider_id="m-twin",
        state=MachineState.RUNNING,
        worker_id=worker_id,
        launched_at=datetime.now(UTC) - timedelta(hours=1),
    )

    scene.duty.tend()

    assert scene.cloud.stopped == ["m-twin"]


def test_a_provider_that_does_not_answer_is_asked_again_and_nothing_is_forgotten(scene: Scene) -> None:
    scene.cloud.is_away = True
    scene.start()
    assert scene.states() == [RentalState.REQUESTED]

    scene.cloud.is_away = False
    scene.duty.tend()

    assert scene.states() == [RentalState.LAUNCHED]


def test_a_worker_is_told_to_leave_before_its_machine_must_be_gone(scene: Scene) -> None:
    (worker_id,) = scene.start()
    scene.register(worker_id)
    scene.world.database.run(
        lambda connection: connection.execute(
            text("UPDATE rentals SET ends_by = clock_timestamp() + interval '4 minutes'")
        )
    )

    scene.duty.tend()

    assert [row.stop_reason for row in scene.world.rows("SELECT stop_reason FROM rentals")] == ["lifetime"]
    assert list(scene.world.scalars("SELECT must_stop FROM workers")) == [True]


def test_who_does_not_lead_any_more_asks_for_nothing(scene: Scene) -> None:
    scene.world.database.run(lambda connection: connection.execute(text("UPDATE leadership SET epoch = epoch + 1")))

    with pytest.raises(NotLeaderError):
        scene.start()

    assert scene.states() == []
    assert scene.cloud.asked == []


def test_how_many_workers_are_wanted_is_there_for_scalers_outside(scene: Scene) -> None:
    scene.policy.plan = FleetPlan(
        standings=(PoolStanding(pool="gpu", wanted=3, on_demand_wanted=1, reason=FleetReason.DEADLINE, work_seconds=9),)
    )
    scene.duty.decide()
    assert [tuple(row) for row in scene.world.rows("SELECT pool, wanted FROM nightrate.workers_wanted")] == [("gpu", 3)]
    (since,) = scene.world.scalars("SELECT since FROM pools_wanted")

    scene.duty.decide()

    (still,) = scene.world.scalars("SELECT since FROM pools_wanted")
    assert still == since


def test_the_policy_sees_work_workers_and_what_offers_cost(scene: Scene) -> None:
    scene.world.admit(40, 60)
    (worker_id,) = scene.start()
    scene.register(worker_id)

    scene.duty.decide()

    seen = scene.policy.seen
    assert seen is not None
    assert [(each.model, each.size.rows) for each in seen.work] == [("echo", 100)]
    assert [(each.worker_id, each.offer, each.state) for each in seen.workers] == [
        (worker_id, OFFER, WorkerState.BOOTING)
    ]
    (pool,) = seen.pools
    assert pool.paces["echo"].seconds(seen.work[0].size) > 0
    assert [offer.rate_micros_per_hour for offer in pool.offers] == [100_000, 100_000]
    assert pool.offers[0].lifetime_seconds < pool.offers[1].lifetime_seconds
    assert pool.offers[0].is_available


def test_workers_that_nobody_of_ours_started_are_seen_with_what_they_serve(scene: Scene) -> None:
    theirs = scene.world.worker()

    scene.duty.decide()

    seen = scene.policy.seen
    assert seen is not None
    assert [(each.worker_id, each.pool, each.offer) for each in seen.workers] == [(theirs, "local", None)]
    (pool,) = [each for each in seen.pools if each.pool == "local"]
    assert (pool.offers, set(pool.paces)) == ((), {"echo"})
    assert [row.pool for row in scene.world.rows("SELECT pool FROM pools_wanted")] == []
