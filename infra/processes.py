"""Keeping child processes alive: started, restarted with growing pauses, stopped in order."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from infra.launch import launch
from pipeline.domain.errors import ServiceStartError

logger = logging.getLogger(__name__)

#: How long a process may take to leave after it was asked to.
STOP_GRACE_SECONDS: Final = 10.0
_DOUBLINGS_MAX: Final = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """How long to wait before a process that died is started again.

    Attributes:
        seconds_first: pause after the first death.
        seconds_max: the pause doubles up to this.
        reset_after_seconds: a process that stayed up this long counts as healthy again.
    """

    seconds_first: float = 0.1
    seconds_max: float = 30.0
    reset_after_seconds: float = 60.0

    def __post_init__(self) -> None:
        """Refuse a policy that would spin or shrink."""
        assert 0 < self.seconds_first <= self.seconds_max


@dataclass(frozen=True, slots=True, kw_only=True)
class Restart:
    """What to do about one death: the pause, and how many deaths in a row it makes."""

    delay_seconds: float
    deaths: int


def plan_restart(backoff: Backoff, *, deaths: int, ran_seconds: float) -> Restart:
    """Decide the pause after a death, given the deaths in a row before it and how long the process ran."""
    assert deaths >= 0
    in_a_row = 1 if ran_seconds >= backoff.reset_after_seconds else deaths + 1
    doublings = min(in_a_row - 1, _DOUBLINGS_MAX)
    return Restart(delay_seconds=min(backoff.seconds_first * 2**doublings, backoff.seconds_max), deaths=in_a_row)


class Service(Protocol):
    """Something that runs and can be brought back: a server of ours or a command."""

    @property
    def name(self) -> str:
        """What logs and `services.json` call it."""

    @property
    def pid(self) -> int | None:
        """Its process number while it runs."""

    def is_alive(self) -> bool:
        """Whether its process runs now."""

    def restart(self) -> None:
        """Start it again where it was, without waiting until it is ready.

        Raises:
            ServiceStartError: it cannot be started now; a later try may succeed.
        """

    def stop(self) -> None:
        """Ask it to leave, and make it leave."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessSpec:
    """A command to keep running, such as the scheduler or a worker.

    Attributes:
        name: unique among the specs of a supervisor; names the log file.
        command: program and arguments, run without a shell.
        env: added to the environment it inherits.
        grace_seconds: time between the request to stop and the kill.
    """

    name: str
    command: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)
    grace_seconds: float = STOP_GRACE_SECONDS


class ManagedProcess:
    """One child running a `ProcessSpec`, its output in a log file."""

    def __init__(self, spec: ProcessSpec, *, log_folder: Path, env: Mapping[str, str] | None = None) -> None:
        """Prepare; nothing starts yet. `env` (default: ours) is what the spec's own is added to."""
        self.spec = spec
        self.log_path = log_folder / f"{spec.name}.log"
        self._env = {**(os.environ if env is None else env), **spec.env}
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def name(self) -> str:
        """The spec's name."""
        return self.spec.name

    @property
    def pid(self) -> int | None:
        """Process number while it runs."""
        return self._child.pid if self._child is not None and self.is_alive() else None

    def is_alive(self) -> bool:
        """Whether the child runs now."""
        return self._child is not None and self._child.poll() is None

    def start(self) -> None:
        """Start the child, from a thread that outlives it."""
        assert not self.is_alive()
        self._child = launch(self.spec.command, cwd=Path.cwd(), env=self._env, log_path=self.log_path)

    def restart(self) -> None:
        """Start the child again after it died."""
        try:
            self.start()
        except OSError as error:
            raise ServiceStartError(f"{self.name} cannot be started: {error}") from error

    def stop(self) -> None:
        """SIGTERM, then SIGKILL to its whole session once the grace is over."""
        if self._child is not None:
            stop_child(self._child, [(signal.SIGTERM, self.spec.grace_seconds)])


def stop_child(child: subprocess.Popen[bytes], requests: Sequence[tuple[signal.Signals, float]]) -> None:
    """Send each request in turn and give it its seconds; whatever is left of the session is killed."""
    for number, grace_seconds in requests:
        if child.poll() is not None:
            return
        child.send_signal(number)
        try:
            child.wait(grace_seconds)
        except subprocess.TimeoutExpired:
            logger.warning("process_ignores_signal", extra={"pid": child.pid, "signal": number.name})
    if child.poll() is None:
        # The child leads its session, so its own children go with it.
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()


@dataclass(slots=True)
class _Kept:
    """A service, and what is known of its deaths."""

    service: Service
    started_at: float
    deaths: int = 0
    restart_at: float | None = None


class ProcessKeeper:
    """Brings back services that die, each with its own pauses. Runs in one thread, step by step."""

    def __init__(self, *, backoff: Backoff | None = None, monotonic: Callable[[], float] = time.monotonic) -> None:
        """Start with nothing to keep; `monotonic` is the clock the pauses are measured on, in seconds."""
        self._backoff = backoff or Backoff()
        self._monotonic = monotonic
        self._kept: list[_Kept] = []

    @property
    def pids(self) -> dict[str, int]:
        """Process numbers of what runs now, by name."""
        return {kept.service.name: pid for kept in self._kept if (pid := kept.service.pid) is not None}

    def keep(self, service: Service) -> None:
        """Look after a service that was just started."""
        assert all(kept.service.name != service.name for kept in self._kept), service.name
        self._kept.append(_Kept(service, started_at=self._monotonic()))

    def run_once(self) -> bool:
        """Notice deaths and restart what is due; True when something was started."""
        restarted = [self._look_after(kept, now=self._monotonic()) for kept in self._kept]
        return any(restarted)

    def stop(self) -> None:
        """Stop everything: commands all at once, then the servers they talk to, the last started first."""
        services = [kept.service for kept in self._kept]
        self._kept.clear()
        commands = [service for service in services if isinstance(service, ManagedProcess)]
        # Each may take its grace; together they take the longest one, not the sum.
        with ThreadPoolExecutor(max_workers=max(1, len(commands))) as threads:
            list(threads.map(ManagedProcess.stop, commands))
        for service in reversed(services):
            service.stop()

    def _look_after(self, kept: _Kept, *, now: float) -> bool:
        service = kept.service
        if kept.restart_at is None:
            if not service.is_alive():
                self._plan(kept, now=now)
            return False
        if now < kept.restart_at:
            return False
        kept.restart_at = None
        kept.started_at = now
        try:
            service.restart()
        except ServiceStartError as error:
            logger.warning("process_restart_failed", extra={"service": service.name, "reason": error.message})
            self._plan(kept, now=now)
            return False
        logger.info("process_restarted", extra={"service": service.name, "pid": service.pid})
        return True

    def _plan(self, kept: _Kept, *, now: float) -> None:
        plan = plan_restart(self._backoff, deaths=kept.deaths, ran_seconds=now - kept.started_at)
        kept.deaths = plan.deaths
        kept.restart_at = now + plan.delay_seconds
        logger.warning(
            "process_died",
            extra={"service": kept.service.name, "deaths": plan.deaths, "delay_seconds": plan.delay_seconds},
        )
