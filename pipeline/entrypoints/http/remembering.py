"""What is looked up again and again is known for a second."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Final, Generic, TypeVar

from pipeline.entrypoints.http.gathering import Gathered

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")

#: A key that was revoked, or a project that was archived, lets nobody in for longer than this.
KNOWN_SECONDS_MAX: Final = 1.0
_KNOWN_MAX: Final = 10_000


class Remembered(Generic[Key, Value]):
    """Looks things up in bulk, and knows for a second what it found, or that there was nothing."""

    def __init__(self, look_up: Callable[[Sequence[Key]], Mapping[Key, Value]]) -> None:
        """Call `look_up` on a thread, with distinct keys."""
        self._lookups = Gathered[Key, Value](look_up)
        self._known: dict[Key, tuple[Value | None, float]] = {}

    async def get(self, key: Key) -> Value | None:
        """Return what is known of `key`, a second old at most; None where there is nothing."""
        now = time.monotonic()
        found, looked_at = self._known.get(key, (None, float("-inf")))
        if now - looked_at < KNOWN_SECONDS_MAX:
            return found
        found = await self._lookups.get(key)
        if len(self._known) >= _KNOWN_MAX:
            self._known.clear()
        self._known[key] = (found, now)
        return found
