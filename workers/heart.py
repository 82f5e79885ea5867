"""The heart: proves the worker alive and keeps its leases, from a thread and connection of its own.

When it cannot, the worker fences itself: a watchdog ends the process before the lease does, because
a database call can hang far longer than any timeout asked of it (docs/adr/0002).
"""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from collections.abc import Callable
from typing import Final

from pipeline.domain.errors import NightrateError
from pipeline.domain.ids import BatchId, PackId, WorkerId
from pipeline.ports.packs import WorkerStore

_LOG = logging.getLogger(__name__)

#: Exit status of a worker that ended itself because its leases could not be kept.
FENCED_STATUS: Final = 75
#: One attempt's right to a pack: its id and the attempt's token.
_Lease = tuple[PackId, int]
#: Beats per lease: two may be lost before the third is too late.
_BEATS_PER_LEASE: Final = 3


class Heart:
    """Renews what the worker holds; tells it what it lost and when to stop."""

    def __init__(
        self,
        worker_id: WorkerId,
        store: WorkerStore,
        *,
        lease_seconds: float,
        uptime_us: Callable[[], int],
        fence: Callable[[int], None] = os._exit,
    ) -> None:
        """Beat `_BEATS_PER_LEASE` times a lease; `fence` ends the process."""
        self._worker_id = worker_id
        self._store = store
        self._lease_seconds = lease_seconds
        self._uptime_us = uptime_us
        self._fence = fence
        self._lock = threading.Lock()
        #: When each held lease was last asked for and then granted.
        self._kept_at: dict[_Lease, float] = {}
        self._lost: set[_Lease] = set()
        self._withdrawn: frozenset[BatchId] = frozenset()
        self._stopped = threading.Event()
        self.must_stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._beat_on, name="heart", daemon=True),
            threading.Thread(target=self._watch, name="watchdog", daemon=True),
        ]

    def start(self) -> None:
        """Start beating."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Stop beating; returns when no beat is under way."""
        self._stopped.set()
        for thread in self._threads:
            thread.join(timeout=self._lease_seconds)

    def hold(self, pack_id: PackId, lease_token: int, *, asked_at: float) -> None:
        """Renew this lease from now on; `asked_at`, on the monotonic clock, is when it was asked for."""
        with self._lock:
            self._kept_at[pack_id, lease_token] = asked_at

    def let_go(self, pack_id: PackId, lease_token: int) -> None:
        """Stop renewing this lease."""
        with self._lock:
            self._kept_at.pop((pack_id, lease_token), None)
            self._lost.discard((pack_id, lease_token))

    def is_lost(self, pack_id: PackId, lease_token: int) -> bool:
        """Say whether another attempt owns the pack now, be it this worker's own next one."""
        return (pack_id, lease_token) in self._lost

    def withdrawn(self) -> frozenset[BatchId]:
        """Return batches among the held packs whose rows should not be started any more."""
        return self._withdrawn

    def beat(self) -> None:
        """Renew once, and note what was learned."""
        with self._lock:
            held = sorted(self._kept_at)
        # Of two leases of one pack the later token is asked for: the earlier one is lost whatever comes back.
        leases = dict(held)
        asked_at = time.monotonic()
        renewal = self._store.renew(self._worker_id, leases, uptime_us=self._uptime_us())
        with self._lock:
            # A lease let go while the answer was on its way is not lost, it is finished.
            for lease in self._kept_at.keys() & held:
                pack_id, lease_token = lease
                # A lost lease is not kept, and holding on to it harms nobody: its token is refused.
                self._kept_at[lease] = asked_at
                if pack_id in renewal.lost or lease_token != leases[pack_id]:
                    self._lost.add(lease)
            self._withdrawn = renewal.withdrawn
        if renewal.must_stop:
            self.must_stop.set()

    def _beat_on(self) -> None:
        while not self._stopped.wait(self._lease_seconds / _BEATS_PER_LEASE):
            try:
                self.beat()
            except NightrateError as error:
                _LOG.warning("heartbeat_failed", extra={"reason": error.code})
            except Exception:  # noqa: BLE001 -- whatever it was, the next beat may succeed, and the watchdog counts
                _LOG.exception("heartbeat_crashed")

    def _watch(self) -> None:
        while not self._stopped.wait(self._lease_seconds / 10):
            with self._lock:
                late_at = min(self._kept_at.values(), default=math.inf) + self._lease_seconds
                is_late = time.monotonic() > late_at
            if is_late:
                _LOG.critical("worker_fenced_itself", extra={"worker_id": self._worker_id})
                self._fence(FENCED_STATUS)
                return
