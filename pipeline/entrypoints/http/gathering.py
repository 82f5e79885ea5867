"""Lookups that come in together go out together.

Two hundred clients that poll their batches would be two hundred queries in flight; gathered, whoever asks while a query
is on its way shares the next one. Nobody hears of anything older than their own question: a key that is asked for goes
into a query that has not started yet.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Final, Generic, TypeVar

from anyio import to_thread

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")

_KEYS_MAX: Final = 500


class Gathered(Generic[Key, Value]):
    """Looks keys up in bulk, on the event loop that asks."""

    def __init__(self, look_up: Callable[[Sequence[Key]], Mapping[Key, Value]], *, flights_max: int = 2) -> None:
        """Call `look_up` on a thread, with distinct keys, in up to `flights_max` calls at once."""
        self._look_up = look_up
        self._flights_max = flights_max
        self._flights: set[asyncio.Task[None]] = set()
        self._waiting: dict[Key, asyncio.Future[Value | None]] = {}

    async def get(self, key: Key) -> Value | None:
        """Return what is known of `key` from now on; None where `look_up` leaves it out."""
        future = self._waiting.get(key)
        if future is None:
            future = self._waiting[key] = asyncio.get_running_loop().create_future()
            if len(self._flights) < self._flights_max:
                flight = asyncio.create_task(self._fly())
                self._flights.add(flight)
                flight.add_done_callback(self._flights.discard)
        # Another may wait for the same answer.
        return await asyncio.shield(future)

    async def _fly(self) -> None:
        while self._waiting:
            keys = list(self._waiting)[:_KEYS_MAX]
            futures = {key: self._waiting.pop(key) for key in keys}
            try:
                found = await to_thread.run_sync(self._look_up, keys)
            except Exception as error:  # noqa: BLE001 -- whoever asked is told
                for future in futures.values():
                    if not future.done():
                        future.set_exception(error)
                        # Whoever asked may have gone; nobody else is to hear of it.
                        future.exception()
                continue
            for key, future in futures.items():
                if not future.done():
                    future.set_result(found.get(key))
