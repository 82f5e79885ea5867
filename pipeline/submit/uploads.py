"""Objects on their way into the store, a few at once: the next one is made while the last is synced."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from pipeline.ports.objects import ObjectStore, StoredObject

#: Objects in flight. Each holds its bytes in memory until it is stored.
_IN_FLIGHT_MAX: Final = 4


class Uploads:
    """Puts objects in the background and returns what was stored, in the order they were given."""

    def __init__(self, objects: ObjectStore) -> None:
        """Write into `objects`."""
        self._objects = objects
        self._threads = ThreadPoolExecutor(max_workers=_IN_FLIGHT_MAX, thread_name_prefix="upload")
        self._pending: deque[Future[StoredObject]] = deque()
        self._stored: list[StoredObject] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._threads.shutdown(cancel_futures=True)

    def put(self, key: str, content: bytes | Path) -> None:
        """Start to store `content`; wait while too many are under way. Raises what an earlier put raised."""
        if len(self._pending) == _IN_FLIGHT_MAX:
            self._stored.append(self._pending.popleft().result())
        self._pending.append(self._threads.submit(self._objects.put, key, content))

    def finish(self) -> list[StoredObject]:
        """Wait for all; return what was stored, in the order of the puts. Raises what a put raised."""
        while self._pending:
            self._stored.append(self._pending.popleft().result())
        stored, self._stored = self._stored, []
        return stored
