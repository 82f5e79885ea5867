"""A stream that is written front to back, and handed on as it is."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


class Drained(io.RawIOBase):
    """Takes what is written and hands it on; nothing is ever gone back to."""

    def __init__(self) -> None:
        super().__init__()
        self._chunks: list[bytes] = []
        self._bytes = 0

    def writable(self) -> bool:
        return True

    def write(self, content: ReadableBuffer, /) -> int:
        chunk = bytes(content)
        self._chunks.append(chunk)
        self._bytes += len(chunk)
        return len(chunk)

    def tell(self) -> int:
        return self._bytes

    def drain(self) -> bytes:
        found = b"".join(self._chunks)
        self._chunks.clear()
        return found
