"""What both embedded servers share: a port of their own, readiness, restart in place, an orderly end."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar, Final

from infra.embedded.folder import DataFolder, server_user
from infra.launch import launch, log_tail, processes_inside, signal_process
from infra.processes import stop_child
from pipeline.domain.errors import ServiceStartError

logger = logging.getLogger(__name__)

LOOPBACK: Final = "127.0.0.1"
#: Includes crash recovery after a kill, which takes seconds on a loaded machine.
READY_SECONDS_MAX: Final = 60.0
#: A free port can be lost to another process before the server has it.
STARTS_MAX: Final = 4
_READY_POLL_SECONDS: Final = 0.005
_GONE_POLL_SECONDS: Final = 0.02
#: What a server keeps of our environment: its settings come from us, and our secrets are not its business.
_ENVIRONMENT_KEPT: Final = frozenset({"PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "TMPDIR"})


class EmbeddedServer(ABC):
    """A server under our supervision, working inside its own data."""

    #: What logs and `services.json` call it.
    label: ClassVar[str]
    #: Signal with which it leaves in good order; also sent by the kernel when we die.
    polite_signal: ClassVar[signal.Signals]
    #: Requests to stop, in turn, each with its seconds; after the last comes SIGKILL.
    stop_requests: ClassVar[Sequence[tuple[signal.Signals, float]]]

    def __init__(self, folder: DataFolder, *, pick_port: Callable[[], int] | None = None) -> None:
        """Prepare to keep data in `folder`, whose lock the caller holds; `pick_port` names a port to try."""
        self.folder = folder
        self.port: int | None = None
        self._pick_port = pick_port or free_port
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def name(self) -> str:
        """What logs and `services.json` call it."""
        return self.label

    @property
    def pid(self) -> int | None:
        """Process number while it runs."""
        return self._child.pid if self._child is not None and self.is_alive() else None

    @property
    def log_path(self) -> Path:
        """Where it writes its log."""
        return self.folder.logs / f"{self.label}.log"

    @property
    @abstractmethod
    def url(self) -> str:
        """Where clients find it, password included; known once it was started."""

    def start(self) -> str:
        """Start, wait until it answers, and return its URL. Call it from a thread that outlives the server.

        Raises:
            ServiceStartError: it did not start; the message ends with its log.
        """
        self.begin()
        self.await_ready()
        return self.url

    def begin(self) -> None:
        """Prepare its data and start it on a free port, without waiting for it."""
        assert not self.is_alive()
        self.folder.create()
        self._prepare()
        self._spawn(self._pick_port())

    def await_ready(self) -> None:
        """Wait until it answers; start it on another port when it died, as it does when its port was lost."""
        assert self._child is not None
        deadline = time.monotonic() + READY_SECONDS_MAX
        starts = 1
        while not self._answers():
            try:
                code = self._child.wait(_READY_POLL_SECONDS)
            except subprocess.TimeoutExpired:
                if time.monotonic() > deadline:
                    self.stop()
                    raise self._failure(f"did not answer within {READY_SECONDS_MAX:.0f} s") from None
                continue
            if starts == STARTS_MAX:
                raise self._failure(f"left {STARTS_MAX} times, last with exit code {code}")
            logger.warning("server_start_retried", extra={"service": self.label, "port": self.port, "code": code})
            self._spawn(self._pick_port())
            starts += 1

    def restart(self) -> None:
        """Start it again on the port its clients know, without waiting for it."""
        assert self.port is not None
        self._spawn(self.port)

    def is_alive(self) -> bool:
        """Whether its process runs; it may still be recovering."""
        return self._child is not None and self._child.poll() is None

    def stop(self) -> None:
        """Stop it in good order, or by force when it does not listen."""
        if self._child is not None:
            stop_child(self._child, self.stop_requests)

    @abstractmethod
    def _prepare(self) -> None:
        """Find the program and make its data."""

    @property
    @abstractmethod
    def _work_folder(self) -> Path:
        """The folder it works in."""

    @abstractmethod
    def _command(self, port: int) -> Sequence[str]:
        """Program and arguments; no secret may be among them, anyone can read those."""

    def _configuration(self, port: int) -> bytes:  # noqa: ARG002 - the port is for servers configured this way
        """What it reads from standard input."""
        return b""

    @abstractmethod
    def _answers(self) -> bool:
        """Whether our own process, and not a stranger on its port, serves clients."""

    def _spawn(self, port: int) -> None:
        self._clear_leftovers()
        self.port = port
        try:
            self._child = launch(
                self._command(port),
                cwd=self._work_folder,
                env=server_environment(),
                log_path=self.log_path,
                death_signal=self.polite_signal,
                run_as=server_user(),
                stdin=self._configuration(port),
            )
        except OSError as error:
            raise ServiceStartError(f"{self.label} cannot be started: {error}") from error

    def _clear_leftovers(self) -> None:
        """See off processes of a supervisor or server that was killed: two writers would ruin the data.

        They are leaving by themselves as a rule, so they get time before they are told, and then made, to.
        """
        program = Path(self._command(0)[0]).name
        for number in (None, self.stop_requests[-1][0], signal.SIGKILL):
            for leftover in processes_inside(self._work_folder, program=program):
                if number is not None:
                    signal_process(leftover, number)
            deadline = time.monotonic() + self.stop_requests[-1][1]
            while any(processes_inside(self._work_folder, program=program)):
                if time.monotonic() > deadline:
                    break
                time.sleep(_GONE_POLL_SECONDS)
            else:
                return
        raise ServiceStartError(f"an earlier {self.label} of {self.folder.path} cannot be stopped")

    def _failure(self, what: str) -> ServiceStartError:
        return ServiceStartError(f"{self.label} {what}; its log ends:\n{log_tail(self.log_path)}")


def free_port() -> int:
    """Return a loopback port that is free now; it may be gone a moment later."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port = probe.getsockname()[1]
    assert isinstance(port, int)
    return port


def server_environment() -> dict[str, str]:
    """Return the environment servers get: no PGOPTIONS, no locale, no secret of ours."""
    kept = {name: value for name, value in os.environ.items() if name in _ENVIRONMENT_KEPT}
    # Nothing may depend on the zone or the language of the machine.
    return {**kept, "LC_ALL": "C", "TZ": "UTC"}
