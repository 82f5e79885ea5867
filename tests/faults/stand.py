"""The stand of a run: real servers, a scheduler and workers, kept alive by the product's own keepers."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from pydantic import SecretStr

from infra.embedded.folder import DataFolder, ServiceUrls
from infra.embedded.supervisor import Supervisor
from infra.processes import Backoff, ManagedProcess, ProcessKeeper, ProcessSpec
from pipeline.app.stack import Stack, open_stack
from pipeline.config import Settings
from storage.migrations import upgrade
from tests.faults.entry import HOLD, PACE_FILE, ROWS_PER_STEP, STEPS_FILE

ROWS_A_STEP = 8
LOOK_SECONDS = 0.05
#: Killed processes come back at once: the run is about what they left, not about patience.
_BACKOFF = Backoff(seconds_first=0.05, seconds_max=0.5)


@dataclass(kw_only=True)
class Stand:
    """What runs, and how to strike at it."""

    home: Path
    stack: Stack
    supervisor: Supervisor
    urls: ServiceUrls
    env: Mapping[str, str]
    workers: int
    lease_for: timedelta
    is_restarting: bool = True
    keeper: ProcessKeeper = field(default_factory=lambda: ProcessKeeper(backoff=_BACKOFF))

    def pid(self, name: str) -> int | None:
        """Return the process number of a server or process that runs now."""
        return self.keeper.pids.get(name) or self.supervisor.pids.get(name)

    def stop_restarting(self) -> None:
        """Leave processes that end from now on ended."""
        self.is_restarting = False

    def worker_names(self) -> list[str]:
        return [f"worker-{number}" for number in range(1, self.workers + 1)]

    def set_pace(self, seconds_a_step: float | None) -> None:
        """Have each step of each engine take so long; None: until told otherwise."""
        draft = self.home / "pace.new"
        draft.write_text(HOLD if seconds_a_step is None else str(seconds_a_step))
        draft.replace(self.home / "pace")

    def rows_computed(self) -> int:
        """Return how many rows all engines together have answered, repeats included."""
        return sum(int(line) for line in (self.home / "steps").read_text().split())

    def log_events(self, *names: str) -> dict[str, int]:
        """Return how often each event stands in the processes' logs."""
        texts = [path.read_text(errors="replace") for path in (self.home / "logs").glob("*.log*")]
        return {name: sum(text.count(f'"event": "{name}"') for text in texts) for name in names}


@contextmanager
def standing(home: Path, *, workers: int, lease_seconds: float, pack_seconds: float) -> Iterator[Stand]:
    """Run the servers, one scheduler and `workers` workers in `home` until the block ends."""
    folder = DataFolder(home)
    supervisor = Supervisor(folder, on_services_up=lambda urls: upgrade(urls.database_url), backoff=_BACKOFF)
    with supervisor as urls:
        settings = Settings(
            home=home,
            database_url=SecretStr(urls.database_url),
            redis_url=SecretStr(urls.redis_url),
            lease_seconds=lease_seconds,
        )
        env = {
            **os.environ,
            "NIGHTRATE_HOME": str(home),
            "NIGHTRATE_DATABASE_URL": urls.database_url,
            "NIGHTRATE_REDIS_URL": urls.redis_url,
            "NIGHTRATE_LEASE_SECONDS": str(lease_seconds),
            "NIGHTRATE_PACK_SECONDS": str(pack_seconds),
            "NIGHTRATE_COMMIT_SECONDS": "0.4",
            "NIGHTRATE_CYCLE_SECONDS": "0.1",
            "NIGHTRATE_POLL_SECONDS": "0.2",
            # Dear, so that every fraction of a second shows in the bill.
            "NIGHTRATE_RATE_PER_HOUR": "977.13",
            PACE_FILE: str(home / "pace"),
            STEPS_FILE: str(home / "steps"),
            ROWS_PER_STEP: str(ROWS_A_STEP),
        }
        with open_stack(settings) as stack:
            stand = Stand(
                home=home,
                stack=stack,
                supervisor=supervisor,
                urls=urls,
                env=env,
                workers=workers,
                lease_for=timedelta(seconds=lease_seconds),
            )
            stand.set_pace(0)
            (home / "steps").touch()
            with _kept(stand, folder.logs):
                yield stand


@contextmanager
def _kept(stand: Stand, log_folder: Path) -> Iterator[None]:
    """Keep scheduler and workers alive from one thread, to which the kernel ties their lives."""
    must_stop = threading.Event()

    def keep() -> None:
        for name in ["scheduler", *stand.worker_names()]:
            spec = ProcessSpec(name=name, command=command_of(name.partition("-")[0]))
            process = ManagedProcess(spec, log_folder=log_folder, env=stand.env)
            process.start()
            stand.keeper.keep(process)
        while not must_stop.wait(LOOK_SECONDS):
            if stand.is_restarting:
                stand.keeper.run_once()
        stand.keeper.stop()

    keeper = threading.Thread(target=keep, name="keeper")
    keeper.start()
    try:
        yield
    finally:
        must_stop.set()
        keeper.join()


def command_of(role: str, *arguments: str) -> Sequence[str]:
    """Return the command that runs one of our processes."""
    return [sys.executable, "-m", "tests.faults.entry", role, *arguments]


def strike(pid: int, number: signal.Signals = signal.SIGKILL) -> bool:
    """Send a signal; False where the process was faster."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


def within(seconds: float) -> Iterator[None]:
    """Yield again and again, with a short pause, until the time is over."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        yield
        time.sleep(LOOK_SECONDS)
