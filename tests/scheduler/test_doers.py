from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from pipeline.domain.errors import NotLeaderError, StoreUnavailableError
from scheduler.doers import Alarm, Doer, run_doers


def run(must_stop: threading.Event, *duties: Callable[[], bool], every_seconds: float = 0.001) -> None:
    """Run the duties; a run that hangs fails."""
    doers = [Doer(name=str(number), every_seconds=every_seconds, run_once=duty) for number, duty in enumerate(duties)]
    runner = threading.Thread(target=run_doers, args=(doers, must_stop, Alarm()), daemon=True)
    runner.start()
    runner.join(timeout=30)
    assert not runner.is_alive()


def test_a_duty_with_more_to_do_is_done_again_at_once() -> None:
    must_stop, left = threading.Event(), [1, 2, 3]

    def duty() -> bool:
        left.pop()
        if not left:
            must_stop.set()
        return bool(left)

    run(must_stop, duty, every_seconds=600.0)

    assert left == []


@pytest.mark.parametrize("error", [StoreUnavailableError(), RuntimeError("a bug")])
def test_a_duty_that_fails_is_tried_again_and_disturbs_no_other(error: Exception) -> None:
    must_stop, tries, others = threading.Event(), [0], threading.Semaphore(0)

    def failing() -> bool:
        tries[0] += 1
        if tries[0] == 3:
            assert others.acquire(timeout=30)
            must_stop.set()
        raise error

    def steady() -> bool:
        others.release()
        return False

    run(must_stop, failing, steady)

    assert tries[0] >= 3


def test_an_alarm_wakes_a_duty_and_is_not_missed_while_it_is_done() -> None:
    must_stop, alarm, done = threading.Event(), Alarm(), threading.Semaphore(0)
    times = [0]

    def duty() -> bool:
        times[0] += 1
        if times[0] == 1:
            # Something changes after the duty has looked.
            alarm.ring()
        done.release()
        return False

    doers = [Doer(name="one", every_seconds=600.0, run_once=duty)]
    runner = threading.Thread(target=run_doers, args=(doers, must_stop, alarm), daemon=True)
    runner.start()
    assert all(done.acquire(timeout=30) for _ in range(2))
    alarm.ring()
    assert done.acquire(timeout=30)

    must_stop.set()
    runner.join(timeout=30)
    assert not runner.is_alive()


def test_a_deposed_duty_ends_them_all() -> None:
    must_stop = threading.Event()

    def deposed() -> bool:
        raise NotLeaderError

    run(must_stop, deposed, lambda: False, every_seconds=600.0)

    assert must_stop.is_set()


def test_an_interrupted_run_does_not_leave_its_duties_running() -> None:
    class Interrupted(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            if threading.current_thread() is threading.main_thread():
                raise KeyboardInterrupt
            return super().wait(timeout)

    must_stop = Interrupted()

    with pytest.raises(KeyboardInterrupt):
        run_doers([Doer(name="one", every_seconds=600.0, run_once=lambda: False)], must_stop, Alarm())

    assert must_stop.is_set()
    assert "one" not in {thread.name for thread in threading.enumerate()}
