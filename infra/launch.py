"""Starting a child that dies with us, and telling processes apart for certain."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from infra import shim

#: A log past this size starts anew; one older file is kept.
LOG_BYTES_MAX: Final = 8 * 1024 * 1024
LOG_TAIL_BYTES_MAX: Final = 4096
_PROC: Final = Path("/proc")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunAs:
    """The ordinary user a server becomes when we are root."""

    uid: int
    gid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessIdentity:
    """A process that cannot be mistaken for a later one with the same number.

    Attributes:
        pid: process number.
        started: boot and start tick of the process; empty where the system does not tell.
    """

    pid: int
    started: str

    @property
    def is_running(self) -> bool:
        """Whether this very process still runs; one that waits to be reaped does not."""
        return identify(self.pid) == self


def identify(pid: int) -> ProcessIdentity | None:
    """Return who runs under `pid` now, or None."""
    if not _PROC.joinpath("self").exists():
        return _identify_without_proc(pid)
    try:
        stat = _PROC.joinpath(str(pid), "stat").read_text(errors="replace")
        boot = _PROC.joinpath("sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None
    # The command name may hold spaces and parentheses: fields count from the last one.
    fields = stat.rpartition(")")[2].split()
    is_dead = fields[0] in {"Z", "X"}
    return None if is_dead else ProcessIdentity(pid=pid, started=f"{boot}:{fields[19]}")


def signal_process(identity: ProcessIdentity, number: signal.Signals) -> bool:
    """Send a signal to this very process; False when it is gone. A reused number is never signalled."""
    if not hasattr(os, "pidfd_open"):
        if not identity.is_running:
            return False
        os.kill(identity.pid, number)
        return True
    try:
        handle = os.pidfd_open(identity.pid)
    except ProcessLookupError:
        return False
    try:
        # The handle pins the process, so what is checked here is what is signalled below.
        if not identity.is_running:
            return False
        signal.pidfd_send_signal(handle, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(handle)
    return True


def processes_inside(directory: Path, *, program: str) -> Iterator[ProcessIdentity]:
    """Yield the processes named `program` whose working directory is `directory`.

    Both servers work inside their data, so this finds the ones a killed supervisor left behind,
    whatever a pid file says.
    """
    wanted = directory.stat()
    for entry in _PROC.glob("[0-9]*"):
        try:
            here = entry.joinpath("cwd").stat()
            name = entry.joinpath("exe").readlink().name
        except OSError:
            continue
        if (here.st_dev, here.st_ino) == (wanted.st_dev, wanted.st_ino) and name.startswith(program):
            found = identify(int(entry.name))
            if found is not None:
                yield found


def launch(
    command: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str],
    log_path: Path,
    death_signal: signal.Signals = signal.SIGTERM,
    run_as: RunAs | None = None,
    stdin: bytes = b"",
) -> subprocess.Popen[bytes]:
    """Start `command` in a session of its own, to be sent `death_signal` when we die.

    Linux ties that signal to the *thread* that started the child: call this from a thread that
    outlives it. `stdin` must fit a pipe, 64 KiB. The working directory may be one that only we can
    reach: it is entered before the change of user.
    """
    uid, gid = (str(run_as.uid), str(run_as.gid)) if run_as else (shim.SAME_USER, shim.SAME_USER)
    prefix = (*_shim_command(), "child", str(os.getpid()), str(int(death_signal)), uid, gid)
    with open_log(log_path) as log:
        child = subprocess.Popen(  # noqa: S603 - a list, no shell; the caller chose the program
            [*prefix, *command],
            cwd=cwd,
            env=dict(env),
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    assert child.stdin is not None
    try:
        child.stdin.write(stdin)
        child.stdin.close()
    except BrokenPipeError:
        pass  # it died already; whoever waits for it will say so, with its log
    return child


def launch_detached(command: Sequence[str], *, env: Mapping[str, str], log_path: Path) -> int:
    """Start `command` as a daemon that outlives us and can never gain a terminal; return its pid."""
    read_end, write_end = os.pipe()
    try:
        with open_log(log_path) as log:
            middle = subprocess.Popen(  # noqa: S603 - a list, no shell; the caller chose the program
                [*_shim_command(), "detach", str(write_end), *command],
                cwd="/",
                env=dict(env),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=(write_end,),
            )
        middle.wait()
        os.close(write_end)
        write_end = -1
        return int(os.read(read_end, 32))
    finally:
        os.close(read_end)
        if write_end >= 0:
            os.close(write_end)


def open_log(path: Path) -> _Log:
    """Open a log for appending, private to us; one grown past `LOG_BYTES_MAX` is set aside first."""
    if path.exists() and path.stat().st_size > LOG_BYTES_MAX:
        path.replace(path.with_name(f"{path.name}.1"))
    return _Log(path)


def log_tail(path: Path) -> str:
    """Return the last lines of a log, for an error message."""
    try:
        with path.open("rb") as log:
            size = log.seek(0, os.SEEK_END)
            log.seek(max(0, size - LOG_TAIL_BYTES_MAX))
            return log.read().decode(errors="replace").strip()
    except FileNotFoundError:
        return ""


class _Log:
    """The descriptor of a log, for as long as it takes to hand it to a child."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def __enter__(self) -> int:
        return self._descriptor

    def __exit__(self, *_error: object) -> None:
        os.close(self._descriptor)


def _shim_command() -> tuple[str, ...]:
    """Isolated and without site-packages: quick to start, and nothing of the user's is imported."""
    return (sys.executable, "-I", "-S", str(Path(shim.__file__).resolve()))


def _identify_without_proc(pid: int) -> ProcessIdentity | None:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass  # it runs, as someone else
    return ProcessIdentity(pid=pid, started="")
