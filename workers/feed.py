"""The feed: leases packs and reads their shards ahead of the engine, from a thread of its own.

While one pack's last rows are still computed the next one is leased and read, so that the device
does not wait between packs.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Final

from pipeline.domain.errors import NightrateError, ObjectCorruptError, ObjectMissingError
from pipeline.domain.ids import WorkerId
from pipeline.ports.objects import ObjectStore
from pipeline.ports.packs import LeasedSlice, PackLease, PackStore

_LOG = logging.getLogger(__name__)

#: Packs held at a time: one to run, one to read ahead.
_PACKS_HELD_MAX: Final = 2
#: Shards read ahead of the engine.
_BLOCKS_AHEAD: Final = 2
#: Longest rest before the next lease while the object store keeps failing.
_REST_SECONDS_MAX: Final = 30.0
#: Longest wait for something to come while the rest is thrown away.
_WAIT_SECONDS: Final = 0.1


@dataclass(frozen=True, slots=True)
class Opened:
    """A pack was leased; its blocks follow."""

    lease: PackLease
    #: Since when it could have been leased, on the worker's meter.
    waiting_since_us: int


@dataclass(frozen=True, slots=True)
class Block:
    """One slice of the last opened pack with its shard's content."""

    part: LeasedSlice
    content: bytes


@dataclass(frozen=True, slots=True)
class Closed:
    """The last opened pack has no further blocks; `error` says why when it should have."""

    error: str | None = None
    #: A shard is missing or damaged, so asking again soon is no use; else the store was out of reach.
    is_shard_lost: bool = False


Fed = Opened | Block | Closed


class Feed:
    """A bounded queue of what to run next."""

    def __init__(  # noqa: PLR0913 -- what it leases by, all by name
        self,
        worker_id: WorkerId,
        packs: PackStore,
        objects: ObjectStore,
        *,
        pool: str,
        variants: Callable[[], Collection[str]],
        warm: Callable[[Sequence[str]], Collection[str]],
        on_lease: Callable[[PackLease, float], None],
        uptime_us: Callable[[], int],
        poll_seconds: float,
    ) -> None:
        """Look for packs when woken, and every `poll_seconds` in any case: hints may be lost.

        `variants` are what the worker may run and `warm` what of it is loaded once packs of these have run. Call `on_lease` with each lease and the monotonic time at which it was asked for; `uptime_us` is the
        worker's meter.
        """
        self._worker_id = worker_id
        self._packs = packs
        self._objects = objects
        self._pool = pool
        self._variants = variants
        self._warm = warm
        self._on_lease = on_lease
        self._uptime_us = uptime_us
        self._poll_seconds = poll_seconds
        self._queue: queue.Queue[Fed] = queue.Queue(maxsize=_BLOCKS_AHEAD)
        self._woken = threading.Event()
        self._stopped = threading.Event()
        #: Guards the two below, which the runner's side changes as packs end.
        self._changed = threading.Condition()
        #: The variants of the packs held, in the order of their leases.
        self._held: deque[str] = deque()
        #: The pack held has failed before. It is held alone: what goes down beside it would share the blame.
        self._is_quarantined = False
        #: Attempts in a row that the object store brought to nothing.
        self._store_failures = 0
        self._thread = threading.Thread(target=self._run, name="feed", daemon=True)

    def start(self) -> None:
        """Start leasing."""
        self._thread.start()

    def stop(self) -> None:
        """Lease nothing more; what was leased stays in the queue for the runner to hand back."""
        self._stopped.set()
        self._woken.set()
        with self._changed:
            self._changed.notify_all()

    def close(self) -> None:
        """Stop, and throw away what nobody will take."""
        self.stop()
        while not self.is_stopped() or not self.is_empty():
            self.take(_WAIT_SECONDS)

    def is_stopped(self) -> bool:
        """Say whether the feed's thread has ended, so that nothing more will come."""
        return not self._thread.is_alive()

    def is_empty(self) -> bool:
        """Say whether everything that was fed has been taken."""
        return self._queue.empty()

    def wake(self) -> None:
        """Look for a pack now."""
        self._woken.set()

    def pack_ended(self, *, is_store_failing: bool = False) -> None:
        """Allow another pack to be leased; after a rest when the object store would not have this one's parts."""
        self._store_failures = self._store_failures + 1 if is_store_failing else 0
        with self._changed:
            # Nearly always in order, and if not, the next lease is as good as one that knows nothing.
            if self._held:
                self._held.popleft()
            self._is_quarantined = False
            self._changed.notify_all()
        self._woken.set()

    def take(self, timeout_seconds: float) -> Fed | None:
        """Return what comes next, or None when nothing came in time."""
        try:
            return self._queue.get(timeout=timeout_seconds) if timeout_seconds > 0 else self._queue.get_nowait()
        except queue.Empty:
            return None

    def _run(self) -> None:
        while not self._stopped.is_set():
            with self._changed:
                self._changed.wait_for(self._may_look)
            self._rest()
            asked_us = self._uptime_us()
            lease = self._next_lease()
            if lease is None:
                continue
            with self._changed:
                self._held.append(lease.variant)
                self._is_quarantined = lease.has_failed
            self._put(Opened(lease, asked_us - lease.waited_us))
            self._put(self._read(lease))

    def _may_look(self) -> bool:
        return self._stopped.is_set() or (len(self._held) < _PACKS_HELD_MAX and not self._is_quarantined)

    def _rest(self) -> None:
        # A pack handed back waits for its next lease at once: without a rest the two would go in circles.
        if self._store_failures:
            self._stopped.wait(min(self._poll_seconds * 2 ** min(self._store_failures, 10), _REST_SECONDS_MAX))

    def _next_lease(self) -> PackLease | None:
        lease = None
        try:
            lease = None if self._stopped.is_set() else self._lease()
        except NightrateError as error:
            _LOG.warning("lease_failed", extra={"reason": error.code})
        except Exception:  # noqa: BLE001 -- a worker without this thread would idle for ever, and look alive
            _LOG.exception("lease_crashed")
        if lease is None:
            self._woken.wait(self._poll_seconds)
            self._woken.clear()
        return lease

    def _lease(self) -> PackLease | None:
        asked_at = time.monotonic()
        lease = self._packs.lease(
            self._worker_id,
            pool=self._pool,
            variants=self._variants(),
            in_company=bool(self._held),
            warm=self._warm(tuple(self._held)),
        )
        if lease is not None:
            self._on_lease(lease, asked_at)
        return lease

    def _read(self, lease: PackLease) -> Closed:
        for part in lease.slices:
            if self._stopped.is_set():
                break
            try:
                content = self._objects.read(part.object_key, sha256=part.sha256)
            except NightrateError as error:
                _LOG.warning("shard_not_read", extra={"pack_id": lease.pack_id, "reason": error.code})
                is_lost = isinstance(error, ObjectMissingError | ObjectCorruptError)
                return Closed(f"{error.code}: {error}", is_shard_lost=is_lost)
            except Exception as error:  # noqa: BLE001 -- as above; and the pack must not stay open
                _LOG.exception("shard_read_crashed", extra={"pack_id": lease.pack_id})
                return Closed(f"{type(error).__name__}: {error}")
            self._put(Block(part, content))
        return Closed()

    def _put(self, fed: Fed) -> None:
        # A stopping runner keeps taking until this thread has ended, so this cannot block for ever.
        self._queue.put(fed)
