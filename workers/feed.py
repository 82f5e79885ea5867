"""The feed: leases packs and reads their shards ahead of the engine, from a thread of its own.

While one pack's last rows are still computed the next one is leased and read, so that the device
does not wait between packs.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from pipeline.domain.errors import NightrateError
from pipeline.domain.ids import WorkerId
from pipeline.ports.objects import ObjectStore
from pipeline.ports.packs import LeasedSlice, PackLease, PackStore

_LOG = logging.getLogger(__name__)

#: Shards read ahead of the engine.
_BLOCKS_AHEAD: Final = 2


@dataclass(frozen=True, slots=True)
class Opened:
    """A pack was leased; its blocks follow."""

    lease: PackLease


@dataclass(frozen=True, slots=True)
class Block:
    """One slice of the last opened pack with its shard's content."""

    part: LeasedSlice
    content: bytes


@dataclass(frozen=True, slots=True)
class Closed:
    """The last opened pack has no further blocks; `error` says why when it should have."""

    error: str | None = None


Fed = Opened | Block | Closed


class Feed:
    """A bounded queue of what to run next."""

    def __init__(
        self,
        worker_id: WorkerId,
        packs: PackStore,
        objects: ObjectStore,
        *,
        pool: str,
        models: Callable[[], tuple[str, ...]],
        on_lease: Callable[[PackLease], None],
        poll_seconds: float,
    ) -> None:
        """Look for packs when woken, and every `poll_seconds` in any case: hints may be lost."""
        self._worker_id = worker_id
        self._packs = packs
        self._objects = objects
        self._pool = pool
        self._models = models
        self._on_lease = on_lease
        self._poll_seconds = poll_seconds
        self._queue: queue.Queue[Fed] = queue.Queue(maxsize=_BLOCKS_AHEAD)
        self._woken = threading.Event()
        self._stopped = threading.Event()
        #: Packs that may be leased now: one to run, one to read ahead.
        self._permits = threading.Semaphore(2)
        self._thread = threading.Thread(target=self._run, name="feed", daemon=True)

    def start(self) -> None:
        """Start leasing."""
        self._thread.start()

    def stop(self) -> None:
        """Lease nothing more; what was leased stays in the queue for the runner to hand back."""
        self._stopped.set()
        self._woken.set()

    def is_stopped(self) -> bool:
        """Say whether the feed's thread has ended, so that nothing more will come."""
        return not self._thread.is_alive()

    def is_empty(self) -> bool:
        """Say whether everything that was fed has been taken."""
        return self._queue.empty()

    def wake(self) -> None:
        """Look for a pack now."""
        self._woken.set()

    def pack_ended(self) -> None:
        """Allow another pack to be leased."""
        self._permits.release()
        self._woken.set()

    def take(self, timeout_seconds: float) -> Fed | None:
        """Return what comes next, or None when nothing came in time."""
        try:
            return self._queue.get(timeout=timeout_seconds) if timeout_seconds > 0 else self._queue.get_nowait()
        except queue.Empty:
            return None

    def _run(self) -> None:
        while not self._stopped.is_set():
            if not self._permits.acquire(timeout=self._poll_seconds):
                continue
            lease = self._next_lease()
            if lease is None:
                self._permits.release()
                continue
            self._put(Opened(lease))
            self._put(self._read(lease))

    def _next_lease(self) -> PackLease | None:
        try:
            lease = None if self._stopped.is_set() else self._lease()
        except NightrateError as error:
            _LOG.warning("lease_failed", extra={"reason": error.code})
            lease = None
        if lease is None:
            self._woken.wait(self._poll_seconds)
            self._woken.clear()
        return lease

    def _lease(self) -> PackLease | None:
        lease = self._packs.lease(self._worker_id, pool=self._pool, models=self._models())
        if lease is not None:
            self._on_lease(lease)
        return lease

    def _read(self, lease: PackLease) -> Closed:
        for part in lease.slices:
            if self._stopped.is_set():
                break
            try:
                content = self._objects.read(part.object_key, sha256=part.sha256)
            except NightrateError as error:
                return Closed(f"{error.code}: {error}")
            self._put(Block(part, content))
        return Closed()

    def _put(self, fed: Fed) -> None:
        # A stopping runner keeps taking until this thread has ended, so this cannot block for ever.
        self._queue.put(fed)
