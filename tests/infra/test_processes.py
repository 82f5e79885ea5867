from __future__ import annotations

import os
import signal
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.launch import LOG_BYTES_MAX, ProcessIdentity, identify, signal_process
from infra.processes import Backoff, ManagedProcess, ProcessKeeper, ProcessSpec, plan_restart
from pipeline.domain.errors import ServiceStartError
from tests.services import eventually

BACKOFF = Backoff(seconds_first=1.0, seconds_max=8.0, reset_after_seconds=60.0)
STUBBORN = "import signal, threading; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('on', flush=True)"


@dataclass
class FakeService:
    name: str
    alive: bool = True
    pid: int | None = 1
    restarts: int = 0
    is_broken: bool = False
    stops: list[str] = field(default_factory=list)

    def is_alive(self) -> bool:
        return self.alive

    def restart(self) -> None:
        self.restarts += 1
        if self.is_broken:
            raise ServiceStartError
        self.alive = True

    def stop(self) -> None:
        self.stops.append(self.name)


class FakeSeconds:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def python(name: str, code: str, *, grace_seconds: float = 10.0) -> ProcessSpec:
    return ProcessSpec(name=name, command=[sys.executable, "-c", code], grace_seconds=grace_seconds)


def test_each_death_in_a_row_doubles_the_pause_up_to_its_bound() -> None:
    pauses = []
    deaths = 0
    for _ in range(6):
        plan = plan_restart(BACKOFF, deaths=deaths, ran_seconds=0.0)
        pauses.append(plan.delay_seconds)
        deaths = plan.deaths

    assert pauses == [1.0, 2.0, 4.0, 8.0, 8.0, 8.0]


def test_a_process_that_stayed_up_is_forgiven_its_earlier_deaths() -> None:
    assert plan_restart(BACKOFF, deaths=5, ran_seconds=60.0).deaths == 1
    assert plan_restart(BACKOFF, deaths=5, ran_seconds=59.9).deaths == 6


@given(deaths=st.integers(0, 10**9), ran=st.floats(0, 1e9))
def test_the_pause_is_always_within_its_bounds(deaths: int, ran: float) -> None:
    plan = plan_restart(BACKOFF, deaths=deaths, ran_seconds=ran)

    assert BACKOFF.seconds_first <= plan.delay_seconds <= BACKOFF.seconds_max


def test_a_dead_service_is_started_again_once_its_pause_is_over() -> None:
    clock = FakeSeconds()
    keeper = ProcessKeeper(backoff=BACKOFF, monotonic=clock)
    service = FakeService("scheduler")
    keeper.keep(service)
    service.alive = False

    assert not keeper.run_once()
    clock.now = 0.9
    assert not keeper.run_once()
    clock.now = 1.0
    assert keeper.run_once()

    assert service.alive
    assert service.restarts == 1


def test_a_service_that_cannot_be_started_is_tried_again_later_and_later() -> None:
    clock = FakeSeconds()
    keeper = ProcessKeeper(backoff=BACKOFF, monotonic=clock)
    service = FakeService("worker", alive=False, is_broken=True)
    keeper.keep(service)
    tried_at = []

    for tenth in range(200):
        clock.now = tenth / 10
        before = service.restarts
        keeper.run_once()
        if service.restarts > before:
            tried_at.append(clock.now)

    assert tried_at == [1.0, 3.0, 7.0, 15.0]


def test_one_dying_service_leaves_the_others_alone() -> None:
    clock = FakeSeconds()
    keeper = ProcessKeeper(backoff=BACKOFF, monotonic=clock)
    healthy, dying = FakeService("a"), FakeService("b", alive=False)
    keeper.keep(healthy)
    keeper.keep(dying)

    keeper.run_once()
    clock.now = 5.0
    keeper.run_once()

    assert (healthy.restarts, dying.restarts) == (0, 1)


def test_the_last_started_is_stopped_first() -> None:
    keeper = ProcessKeeper()
    stops: list[str] = []
    for name in ("postgres", "scheduler", "worker"):
        keeper.keep(FakeService(name, stops=stops))

    keeper.stop()

    assert stops == ["worker", "scheduler", "postgres"]


def test_a_command_gets_its_environment_and_its_output_goes_to_its_log(tmp_path: Path) -> None:
    spec = ProcessSpec(
        name="hello",
        command=[sys.executable, "-c", "import os; print(os.environ['WHO'])"],
        env={"WHO": "world"},
    )
    process = ManagedProcess(spec, log_folder=tmp_path)

    process.start()
    eventually(lambda: not process.is_alive())

    assert process.log_path.read_text() == "world\n"
    assert process.log_path.stat().st_mode & 0o777 == 0o600


def test_a_process_that_ignores_the_request_is_killed(tmp_path: Path) -> None:
    code = f"{STUBBORN}; threading.Event().wait()"
    process = ManagedProcess(python("stubborn", code, grace_seconds=0.1), log_folder=tmp_path)
    process.start()
    eventually(lambda: "on" in process.log_path.read_text())

    process.stop()

    assert not process.is_alive()
    assert process.pid is None


def test_a_program_that_does_not_exist_dies_and_says_so_in_its_log(tmp_path: Path) -> None:
    process = ManagedProcess(ProcessSpec(name="ghost", command=["/no/such/program"]), log_folder=tmp_path)

    process.start()
    eventually(lambda: not process.is_alive())

    assert "cannot start /no/such/program" in process.log_path.read_text()


def test_a_log_that_grew_too_long_is_set_aside_at_the_next_start(tmp_path: Path) -> None:
    process = ManagedProcess(python("hello", "print('new')"), log_folder=tmp_path)
    process.log_path.touch()
    os.truncate(process.log_path, LOG_BYTES_MAX + 1)

    process.start()
    eventually(lambda: not process.is_alive())

    assert process.log_path.read_text() == "new\n"
    assert tmp_path.joinpath("hello.log.1").stat().st_size == LOG_BYTES_MAX + 1


def test_a_child_starts_with_default_signals(tmp_path: Path) -> None:
    spec = ProcessSpec(name="signals", command=["grep", "SigIgn", "/proc/self/status"])
    process = ManagedProcess(spec, log_folder=tmp_path)

    process.start()
    eventually(lambda: not process.is_alive())

    ignored = int(process.log_path.read_text().split()[1], 16)
    assert not ignored & (1 << (signal.SIGPIPE - 1))


def test_a_reused_process_number_is_not_the_old_process() -> None:
    ourselves = identify(os.getpid())
    assert ourselves is not None
    stranger = ProcessIdentity(pid=ourselves.pid, started="an earlier boot:1")

    assert ourselves.is_running
    assert not stranger.is_running
    assert not signal_process(stranger, signal.SIGKILL)


@pytest.mark.parametrize("pid", [2**22 - 1])
def test_nobody_runs_under_an_unused_number(pid: int) -> None:
    assert identify(pid) is None
    assert not signal_process(ProcessIdentity(pid=pid, started=""), signal.SIGTERM)
