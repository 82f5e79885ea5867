"""A tiny program that holds one worker: it ends with its worker, and its worker ends with it, or when time is up.

Run as a script by `infra.cloud.local`; it imports nothing but the standard library. It outlives whoever started it, and
starts the worker only once the record of its own process is there: nothing runs here that nobody remembers.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Final

#: How long to wait for the record, which is written right after the start.
_RECORD_SECONDS: Final = 30.0
_LOOK_SECONDS: Final = 0.02
_LOOK_AGAIN_SECONDS: Final = 60.0
EXIT_UNKNOWN: Final = 124


class _Called(BaseException):
    """A signal asks to end."""


def _call(_number: int, _frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise _Called


def is_remembered(record: Path) -> bool:
    """Wait until the record is there; return whether it is about this process."""
    deadline = time.monotonic() + _RECORD_SECONDS
    while time.monotonic() < deadline:
        try:
            return bool(json.loads(record.read_text())["pid"] == os.getpid())
        except FileNotFoundError:
            time.sleep(_LOOK_SECONDS)
    return False


def hold(command: Sequence[str], *, folder: str, ends_by: float, grace_seconds: float) -> int:
    """Run a command in a folder until it ends, or a signal or `ends_by` (seconds since 1970) ends it; return its status."""
    shim = Path(__file__).with_name("shim.py")
    # It is killed when we are, and leads a session of its own, so that its children go with it.
    start = (sys.executable, "-I", "-S", str(shim), "child", str(os.getpid()), str(int(signal.SIGKILL)), "-", "-")
    child = subprocess.Popen(  # noqa: S603 - a list, no shell; the settings chose the program
        [*start, *command], cwd=folder, stdin=subprocess.DEVNULL, start_new_session=True
    )
    try:
        return _watch(child, ends_by=ends_by, grace_seconds=grace_seconds)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def _watch(child: subprocess.Popen[bytes], *, ends_by: float, grace_seconds: float) -> int:
    with suppress(_Called):
        # Wall time, looked at again and again: a machine that slept is late at once, not after the rest of the wait.
        while (left := ends_by - grace_seconds - time.time()) > 0:
            with suppress(subprocess.TimeoutExpired):
                return child.wait(min(left, _LOOK_AGAIN_SECONDS))
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    child.terminate()
    try:
        return child.wait(grace_seconds)
    except subprocess.TimeoutExpired:
        child.kill()
        return child.wait()


def main(arguments: Sequence[str]) -> int:
    """Run `RECORD FOLDER ENDS_BY GRACE_SECONDS COMMAND…`."""
    record, folder, ends_by, grace_seconds, *command = arguments
    signal.signal(signal.SIGTERM, _call)
    try:
        if not is_remembered(Path(record)):
            return EXIT_UNKNOWN
        return hold(command, folder=folder, ends_by=float(ends_by), grace_seconds=float(grace_seconds))
    except _Called:
        return EXIT_UNKNOWN


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
