"""A stream that is written front to back, and handed on as it is."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


class Drained(io.RawIOBase):
    """Takes what is written and hands it on; nothing is ever gone back to."""

    def __init__(self) -> None:
        """Begin with nothing."""
        super().__init__()
        self._chunks: list[bytes] = []
        self._bytes = 0

    def writable(self) -> bool:
        """Say that it can be written to."""
        return True

    def write(self, content: ReadableBuffer, /) -> int:
        """Take bytes."""
        chunk = bytes(content)
        self._chunks.append(chunk)
        self._bytes += len(chunk)
        return len(chunk)

    def tell(self) -> int:
        """Return how many bytes were written in all."""
        return self._bytes

    def drain(self) -> bytes:
        """Return what was written since the last time."""
        found = b"".join(self._chunks)
        self._chunks.clear()
        return found
