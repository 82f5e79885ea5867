"""Doers: the long-running duties of the scheduler process, each small, named and on its own thread.

A duty is done when the alarm rings and, because alarms may be missed, every so many seconds anyway.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from pipeline.domain.errors import NightrateError, NotLeaderError

_LOG = logging.getLogger(__name__)

#: However often the alarm rings: what comes in quick succession is done together.
_REST_SECONDS: Final = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Doer:
    """One duty: done, done again at once while there is more, then left until the alarm or for a while."""

    name: str
    every_seconds: float
    #: Does the duty once; True when there is more to do at once.
    run_once: Callable[[], bool]


class Alarm:
    """Wakes all who sleep on it; one that rings while a duty is done is not missed by that duty."""

    def __init__(self) -> None:
        """Start silent."""
        self._rung = threading.Condition()
        #: How often it rang so far.
        self.rings = 0

    def ring(self) -> None:
        """Wake all."""
        with self._rung:
            self.rings += 1
            self._rung.notify_all()

    def sleep(self, seconds: float, *, since: int) -> None:
        """Sleep, unless or until it has rung more than `since` times."""
        with self._rung:
            self._rung.wait_for(lambda: self.rings > since, timeout=seconds)


def run_doers(doers: Sequence[Doer], must_stop: threading.Event, alarm: Alarm) -> None:
    """Run all doers until `must_stop`; returns early when one learns that another process leads."""
    threads = [
        threading.Thread(target=_do, args=(doer, must_stop, alarm), name=doer.name, daemon=True) for doer in doers
    ]
    for thread in threads:
        thread.start()
    try:
        must_stop.wait()
    finally:
        # Interrupted here, the duties must not go on behind whoever ends the term.
        must_stop.set()
        alarm.ring()
        for thread in threads:
            thread.join()


def _do(doer: Doer, must_stop: threading.Event, alarm: Alarm) -> None:
    while not must_stop.is_set():
        rings = alarm.rings
        try:
            has_more = doer.run_once()
        except NotLeaderError:
            _LOG.warning("deposed", extra={"doer": doer.name})
            must_stop.set()
            return
        except NightrateError as error:
            _LOG.warning("doer_failed", extra={"doer": doer.name, "reason": f"{error.code}: {error}"})
            has_more = False
        except Exception:  # noqa: BLE001 -- a bug in one duty must not end the others; it is loud and tried again
            _LOG.exception("doer_crashed", extra={"doer": doer.name})
            has_more = False
        if not has_more:
            must_stop.wait(min(_REST_SECONDS, doer.every_seconds))
            alarm.sleep(doer.every_seconds, since=rings)
