"""`up` and `down`: a supervisor in the background, found again by what it wrote and the lock it holds."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Final

from infra.embedded.folder import DataFolder, Phase, ServicesState
from infra.launch import identify, launch_detached, log_tail, signal_process
from pipeline.domain.errors import ConflictError, ServiceStartError

UP_SECONDS_MAX: Final = 120.0
#: Longer than all graces of an orderly stop together.
DOWN_SECONDS_MAX: Final = 60.0
_POLL_SECONDS: Final = 0.02
#: Between taking the lock and writing who took it.
_UNNAMED_SECONDS_MAX: Final = 2.0


class DownOutcome(StrEnum):
    """What `take_down` found and did."""

    STOPPED = "stopped"
    NOT_RUNNING = "not_running"
    STILL_STOPPING = "still_stopping"


def bring_up(
    folder: DataFolder,
    command: Sequence[str],
    log_path: Path,
    *,
    env: Mapping[str, str] | None = None,
    seconds_max: float = UP_SECONDS_MAX,
) -> ServicesState:
    """Return what runs in `folder`, starting `command` as its supervisor if none does.

    Raises:
        ServiceStartError: it did not come up; the message ends with the log.
    """
    deadline = time.monotonic() + seconds_max
    while (state := folder.read_state()) is not None:
        if state.phase is Phase.READY:
            return state
        if time.monotonic() > deadline:
            raise ServiceStartError(f"process {state.supervisor.pid} is still {state.phase} in {folder.path}")
        time.sleep(_POLL_SECONDS)
    return spawn_daemon(command, log_path, folder=folder, env=env, seconds_max=max(0.0, deadline - time.monotonic()))


def spawn_daemon(
    command: Sequence[str],
    log_path: Path,
    *,
    folder: DataFolder,
    env: Mapping[str, str] | None = None,
    seconds_max: float = UP_SECONDS_MAX,
) -> ServicesState:
    """Start `command` in the background and wait until `folder` is served, by it or by one that was faster.

    Raises:
        ServiceStartError: it left, or took too long; the message ends with the log.
    """
    folder.create()
    pid = launch_detached(command, env=os.environ if env is None else env, log_path=log_path)
    daemon = identify(pid)
    deadline = time.monotonic() + seconds_max
    while time.monotonic() < deadline:
        state = folder.read_state()
        if state is not None and state.phase is Phase.READY:
            return state
        # One that lost the race for the lock leaves as well: then the winner is waited for.
        has_left = daemon is None or not daemon.is_running
        if has_left and not folder.lock.is_held():
            raise ServiceStartError(f"the background process left; its log ends:\n{log_tail(log_path)}")
        time.sleep(_POLL_SECONDS)
    raise ServiceStartError(f"not ready after {seconds_max:.0f} s; the log ends:\n{log_tail(log_path)}")


def take_down(folder: DataFolder, *, seconds_max: float = DOWN_SECONDS_MAX) -> DownOutcome:
    """Ask the supervisor of `folder` to stop, and wait until it has.

    Raises:
        ConflictError: something holds the folder and does not say who it is.
    """
    supervisor = _supervisor_of(folder)
    if supervisor is None or not signal_process(supervisor.supervisor, signal.SIGTERM):
        return DownOutcome.NOT_RUNNING
    deadline = time.monotonic() + seconds_max
    while folder.lock.is_held():
        if time.monotonic() > deadline:
            return DownOutcome.STILL_STOPPING
        time.sleep(_POLL_SECONDS)
    return DownOutcome.STOPPED


def stop_on_signals() -> threading.Event:
    """Return an event that SIGTERM and SIGINT set; for the main thread of a daemon."""
    stop = threading.Event()

    def request(_number: int, _frame: object) -> None:
        # The handler may interrupt the very thread that holds the event's lock, so another thread sets it.
        threading.Thread(target=stop.set, name="stop-request").start()

    signal.signal(signal.SIGTERM, request)
    signal.signal(signal.SIGINT, request)
    return stop


def _supervisor_of(folder: DataFolder) -> ServicesState | None:
    """Return who holds the folder: both the lock and the record must say so."""
    deadline = time.monotonic() + _UNNAMED_SECONDS_MAX
    while folder.lock.is_held():
        state = folder.read_state()
        if state is not None:
            return state
        if time.monotonic() > deadline:
            raise ConflictError(f"a process holds {folder.path} without saying which it is")
        time.sleep(_POLL_SECONDS)
    return None
