"""A crew: several processes that do one thing together, and come and go together."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Final, NoReturn

_LOG = logging.getLogger(__name__)

_FAILED: Final = 1
_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


def run_crew(size: int, work: Callable[[], int]) -> int:
    """Run `work` in so many processes until all have left; return the first exit status that is not 0.

    They are forked, so nothing may have been started yet: no threads, no connections. A signal to leave is passed on
    to all. When one leaves unasked the others are asked to, so that whoever watches over this process sees all or none;
    and they leave when this process is killed.
    """
    reader, writer = os.pipe()
    members: set[int] = set()
    is_leaving = False

    def leave(*_: object) -> None:
        nonlocal is_leaving
        is_leaving = True
        for pid in members:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)

    with _handling(leave):
        for _ in range(size):
            members.add(_fork(work, reader, writer))
        os.close(reader)
        if is_leaving:
            # Asked while they were being made.
            leave()
        status = 0
        while members:
            pid, waited = os.wait()
            members.discard(pid)
            status = status or _status_of(waited)
            if not is_leaving:
                _LOG.error("crew_member_left", extra={"pid": pid, "exit_status": _status_of(waited)})
                status = status or _FAILED
                leave()
    os.close(writer)
    return status


@contextmanager
def _handling(leave: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    before = {number: signal.signal(number, leave) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _fork(work: Callable[[], int], reader: int, writer: int) -> int:
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        _live(work, reader, writer)
    return pid


def _live(work: Callable[[], int], reader: int, writer: int) -> NoReturn:
    status = _FAILED
    try:
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        # The parent's end is its own: once it is dead, ours reads the end.
        os.close(writer)
        threading.Thread(target=_leave_with_parent, args=(reader,), name="parent", daemon=True).start()
        status = work()
    except BaseException:  # noqa: BLE001 -- nothing of the parent's may run in here
        traceback.print_exc()
    finally:
        logging.shutdown()
        os._exit(status)


def _leave_with_parent(reader: int) -> None:
    os.read(reader, 1)
    os.kill(os.getpid(), signal.SIGTERM)


def _status_of(waited: int) -> int:
    """Return an exit status as a shell has it: that of a process that a signal killed is 128 and the signal."""
    code = os.waitstatus_to_exitcode(waited)
    return code if code >= 0 else 128 - code
