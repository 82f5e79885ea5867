from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import text

from pipeline.domain.lifecycle import AttemptOutcome
from storage.wakeups import WakeupListener
from tests.services import eventually
from tests.storage.world import World


@contextmanager
def listening(world: World) -> Iterator[threading.Semaphore]:
    """Count the wake-ups from here on."""
    woken = threading.Semaphore(0)
    listener = WakeupListener(world.database.url, woken.release)
    listener.start()
    assert woken.acquire(timeout=30), "it calls once when it begins to listen"
    try:
        yield woken
    finally:
        listener.stop()
        listener._thread.join(timeout=30)
        assert not listener._thread.is_alive()


def admitted(world: World) -> None:
    world.admit(1)


def cancelled(world: World) -> None:
    world.batches.cancel(world.submit().batch_id)


def given_back(world: World) -> None:
    world.batches.release_claim(world.submit())


def registered(world: World) -> None:
    world.worker()


@pytest.mark.parametrize("change", [admitted, cancelled, given_back, registered], ids=lambda each: each.__name__)
def test_what_the_scheduler_has_to_look_at_wakes_it(world: World, change: Callable[[World], None]) -> None:
    with listening(world) as woken:
        change(world)

        assert woken.acquire(timeout=30)


def test_the_end_of_an_attempt_wakes_the_scheduler(world: World) -> None:
    batch = world.admit(2)
    world.pack((batch, world.shard_ids(batch)[0], 0, 2))
    worker = world.worker()
    lease = world.lease(worker)

    with listening(world) as woken:
        world.packs.finish(lease.pack_id, lease.lease_token, AttemptOutcome.PREEMPTED)

        assert woken.acquire(timeout=30)


def test_a_listener_that_lost_its_connection_listens_again_and_says_it_may_have_missed_some(world: World) -> None:
    cut = text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'nightrate wakeups'")
    listeners = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'nightrate wakeups'"

    with listening(world) as woken:
        world.database.run(lambda connection: connection.execute(cut))
        assert woken.acquire(timeout=30)

        eventually(lambda: world.scalars(listeners) == [1])
        world.admit(1)
        assert woken.acquire(timeout=30)
