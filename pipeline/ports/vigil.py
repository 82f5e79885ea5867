"""Keeping a claim alive while the work it covers goes on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pipeline.domain.errors import NightrateError


@contextmanager
def vigil(renew: Callable[[], None], *, every_seconds: float) -> Iterator[None]:
    """Call `renew` every `every_seconds` from a thread until the block ends.

    A renewal that fails ends the vigil; the block goes on, and its last write is refused by token.
    """
    ended = threading.Event()

    def keep() -> None:
        while not ended.wait(every_seconds):
            try:
                renew()
            except NightrateError:
                return

    keeper = threading.Thread(target=keep, name="vigil", daemon=True)
    keeper.start()
    try:
        yield
    finally:
        ended.set()
        keeper.join()
