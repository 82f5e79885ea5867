"""Reading an object once, front to back, and knowing at the end whether it was what was stored."""

from __future__ import annotations

import hashlib
from typing import BinaryIO

from pipeline.domain.errors import ObjectCorruptError


class SealedSource:
    """A stream that hashes what is read from it: cheaper than reading a large object twice."""

    def __init__(self, source: BinaryIO, *, sha256: str, where: str) -> None:
        """Read from `source`, whose content should have this hash; `where` names it in errors."""
        self._source = source
        self._sha256 = sha256
        self._where = where
        self._digest = hashlib.sha256()
        self._is_at_end = False

    def read(self, size: int) -> bytes:
        """Return up to `size` bytes; none at the end."""
        block = self._source.read(size)
        self._digest.update(block)
        self._is_at_end = not block and size > 0
        return block

    def check(self) -> None:
        """Raise `ObjectCorruptError` if all was read and is not what was stored."""
        if self._is_at_end and self._digest.hexdigest() != self._sha256:
            raise ObjectCorruptError(
                f"{self._where!r} is damaged: its content does not match the hash it was stored with"
            )
