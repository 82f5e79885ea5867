from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping

import pytest

from pipeline.domain.errors import StoreUnavailableError
from pipeline.domain.ids import BatchId, PackId, WorkerId
from pipeline.domain.lifecycle import WorkerEnd, WorkerState
from pipeline.ports.packs import Interval, Renewal, WorkerRegistration
from tests.services import eventually
from workers.heart import FENCED_STATUS, Heart

PACK = PackId("pck_1")
OTHER = PackId("pck_2")
BATCH = BatchId("batch_1")
KEPT = Renewal(lost=frozenset(), withdrawn=frozenset(), must_stop=False)


class ScriptedStore:
    """A `WorkerStore` whose heartbeats answer as the test says."""

    def __init__(self) -> None:
        self.answer: Callable[[], Renewal] = lambda: KEPT
        self.asked: list[dict[PackId, int]] = []

    def renew(self, worker_id: WorkerId, leases: Mapping[PackId, int], *, uptime_us: int) -> Renewal:
        del worker_id, uptime_us
        self.asked.append(dict(leases))
        return self.answer()

    def register(self, registration: WorkerRegistration) -> int: ...
    def serve(self, worker_id: WorkerId, models: object) -> None: ...
    def meter(self, worker_id: WorkerId, interval: Interval) -> None: ...
    def enter(self, worker_id: WorkerId, state: WorkerState, *, end: WorkerEnd = WorkerEnd.STOPPED) -> None: ...


@pytest.fixture
def store() -> ScriptedStore:
    return ScriptedStore()


@pytest.fixture
def hearts(store: ScriptedStore) -> Iterator[Callable[..., tuple[Heart, list[int]]]]:
    """Make a heart and the list of the statuses it fenced itself with."""
    made: list[Heart] = []

    def make(lease_seconds: float = 600.0) -> tuple[Heart, list[int]]:
        fenced: list[int] = []
        heart = Heart(WorkerId("wrk_1"), store, lease_seconds=lease_seconds, uptime_us=lambda: 1, fence=fenced.append)
        made.append(heart)
        return heart, fenced

    yield make
    for heart in made:
        if heart._threads[0].ident is not None:
            heart.stop()


Hearts = Callable[..., tuple[Heart, list[int]]]


def now() -> float:
    return time.monotonic()


def unavailable() -> Renewal:
    raise StoreUnavailableError


def test_what_is_held_is_renewed_until_it_is_let_go(store: ScriptedStore, hearts: Hearts) -> None:
    heart, _ = hearts()
    heart.beat()
    heart.hold(PACK, 1, asked_at=now())
    heart.beat()
    heart.let_go(PACK, 1)
    heart.beat()

    assert store.asked == [{}, {PACK: 1}, {}]


def test_a_lost_lease_a_withdrawn_batch_and_the_order_to_stop_are_passed_on(
    store: ScriptedStore, hearts: Hearts
) -> None:
    heart, _ = hearts()
    heart.hold(PACK, 1, asked_at=now())
    heart.hold(OTHER, 1, asked_at=now())
    store.answer = lambda: Renewal(lost=frozenset({PACK}), withdrawn=frozenset({BATCH}), must_stop=True)

    heart.beat()

    assert heart.is_lost(PACK, 1)
    assert not heart.is_lost(OTHER, 1)
    assert heart.withdrawn() == {BATCH}
    assert heart.must_stop.is_set()


def test_a_lease_let_go_while_the_answer_was_on_its_way_is_not_lost(store: ScriptedStore, hearts: Hearts) -> None:
    heart, _ = hearts()
    heart.hold(PACK, 1, asked_at=now())

    def finish_meanwhile() -> Renewal:
        heart.let_go(PACK, 1)
        heart.hold(PACK, 2, asked_at=now())
        return Renewal(lost=frozenset({PACK}), withdrawn=frozenset(), must_stop=False)

    store.answer = finish_meanwhile
    heart.beat()

    assert not heart.is_lost(PACK, 1)
    assert not heart.is_lost(PACK, 2)


def test_of_two_leases_of_one_pack_the_later_is_renewed_and_outlives_the_earlier(
    store: ScriptedStore, hearts: Hearts
) -> None:
    heart, _ = hearts()
    heart.hold(PACK, 2, asked_at=now())
    heart.hold(PACK, 1, asked_at=now())

    heart.beat()
    assert heart.is_lost(PACK, 1)
    assert not heart.is_lost(PACK, 2)
    heart.let_go(PACK, 1)
    heart.beat()

    assert store.asked == [{PACK: 2}, {PACK: 2}]


def test_a_worker_that_cannot_renew_ends_before_its_lease_does(store: ScriptedStore, hearts: Hearts) -> None:
    heart, fenced = hearts(lease_seconds=0.2)
    store.answer = unavailable
    heart.hold(PACK, 1, asked_at=now())

    heart.start()

    eventually(lambda: fenced == [FENCED_STATUS])


def test_a_beat_that_hangs_does_not_keep_the_watchdog_from_fencing(store: ScriptedStore, hearts: Hearts) -> None:
    heart, fenced = hearts(lease_seconds=0.2)
    answered = threading.Event()

    def hang() -> Renewal:
        answered.wait()
        return KEPT

    store.answer = hang
    heart.hold(PACK, 1, asked_at=now())
    heart.start()

    eventually(lambda: fenced == [FENCED_STATUS])
    answered.set()


def test_a_lease_counts_from_when_it_was_asked_for(hearts: Hearts) -> None:
    heart, fenced = hearts()
    heart.hold(PACK, 1, asked_at=now())
    heart.hold(OTHER, 1, asked_at=now() - 601.0)
    heart._lease_seconds = 600.0
    watchdog = threading.Thread(target=heart._watch, daemon=True)
    heart._stopped = AlreadyWaited()

    watchdog.start()
    watchdog.join(timeout=30)

    assert fenced == [FENCED_STATUS]


class AlreadyWaited(threading.Event):
    """An event whose wait is over at once, once."""

    waits = 0

    def wait(self, timeout: float | None = None) -> bool:
        del timeout
        self.waits += 1
        return self.waits > 1


@pytest.mark.parametrize("is_lost", [False, True])
def test_an_answer_in_time_keeps_the_watchdog_quiet(store: ScriptedStore, hearts: Hearts, *, is_lost: bool) -> None:
    heart, fenced = hearts()
    heart.hold(PACK, 1, asked_at=now() - 601.0)
    store.answer = lambda: Renewal(
        lost=frozenset({PACK}) if is_lost else frozenset(), withdrawn=frozenset(), must_stop=False
    )
    heart._stopped = AlreadyWaited()

    heart.beat()
    heart._watch()

    assert fenced == []


def test_an_idle_worker_without_a_database_is_left_alone(store: ScriptedStore, hearts: Hearts) -> None:
    heart, fenced = hearts(lease_seconds=0.03)
    store.answer = unavailable
    heart.start()

    eventually(lambda: len(store.asked) > 5)

    assert fenced == []


def test_the_heart_beats_on_after_an_error_nobody_expected(store: ScriptedStore, hearts: Hearts) -> None:
    def crash() -> Renewal:
        raise RuntimeError("what nobody expects")

    heart, _ = hearts(lease_seconds=0.03)
    store.answer = crash
    heart.start()

    eventually(lambda: len(store.asked) > 3)
    heart.stop()

    assert not any(thread.is_alive() for thread in heart._threads)
