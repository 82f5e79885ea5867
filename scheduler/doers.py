"""Doers: the long-running duties of the scheduler process, each small, named and on its own thread."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pipeline.domain.errors import NightrateError, NotLeaderError

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Doer:
    """One duty: done, done again at once while there is more, then left for a while."""

    name: str
    every_seconds: float
    #: Does the duty once; True when there is more to do at once.
    run_once: Callable[[], bool]


def run_doers(doers: Sequence[Doer], must_stop: threading.Event) -> None:
    """Run all doers until `must_stop`; returns early when one learns that another process leads."""
    threads = [threading.Thread(target=_do, args=(doer, must_stop), name=doer.name, daemon=True) for doer in doers]
    for thread in threads:
        thread.start()
    try:
        must_stop.wait()
    finally:
        # Interrupted here, the duties must not go on behind whoever ends the term.
        must_stop.set()
        for thread in threads:
            thread.join()


def _do(doer: Doer, must_stop: threading.Event) -> None:
    while not must_stop.is_set():
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
            must_stop.wait(doer.every_seconds)
