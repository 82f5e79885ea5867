"""Objects read one after the other as if they were one file, so that joining them takes neither memory nor disk."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from contextlib import ExitStack
from itertools import accumulate
from typing import TYPE_CHECKING, BinaryIO, Final

from pipeline.domain.errors import ObjectCorruptError
from pipeline.ports.objects import ObjectStore
from pipeline.ports.uploads import UploadPart

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_BUFFER_BYTES: Final = 1024 * 1024


class Joined(io.RawIOBase):
    """Parts as one seekable file. Whoever reads it from one end to the other has its hashes checked on the way."""

    def __init__(self, parts: Sequence[UploadPart], objects: ObjectStore) -> None:
        """Read `parts`, each of at least one byte, from `objects`; nothing is opened yet."""
        super().__init__()
        self._parts = parts
        self._objects = objects
        self._starts = [0, *accumulate(part.size_bytes for part in parts)]
        self._position = 0
        self._opened: tuple[int, BinaryIO] | None = None
        self._resources = ExitStack()
        #: Of the part at hand, which was read from its start; None: it was not.
        self._part_digest = hashlib.sha256()
        self._is_part_whole = False
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._md5_position = 0

    @property
    def md5(self) -> str | None:
        """Return the MD5 of all, once all of it was read from the start; None until then."""
        return self._md5.hexdigest() if self._md5_position == self._starts[-1] else None

    def buffered(self) -> io.BufferedReader:
        """Return this as stores take it; closing that closes this."""
        return io.BufferedReader(self, _BUFFER_BYTES)

    def readable(self) -> bool:
        """Say that it can be read."""
        return True

    def seekable(self) -> bool:
        """Say that it can be read from anywhere."""
        return True

    def tell(self) -> int:
        """Return where it is read next."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Go to an offset; returns it, counted from the start."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._starts[-1]}[whence]
        target = max(0, base + offset)
        if target != self._position:
            self._leave()
            self._position = target
        return target

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Read from one part, the one at hand; 0 at the end of the last."""
        view = memoryview(buffer).cast("B")
        if not view or self._position >= self._starts[-1]:
            return 0
        index, source = self._opened or self._enter()
        block = source.read(min(len(view), self._starts[index + 1] - self._position))
        if not block:
            raise ObjectCorruptError(f"object {self._parts[index].object_key!r} is shorter than it was")
        view[: len(block)] = block
        self._note(block)
        self._position += len(block)
        if self._position == self._starts[index + 1]:
            self._check(index)
            self._leave()
        return len(block)

    def close(self) -> None:
        """Close what is open."""
        self._leave()
        super().close()

    def _enter(self) -> tuple[int, BinaryIO]:
        index = next(i for i, stop in enumerate(self._starts[1:]) if self._position < stop)
        start = self._position - self._starts[index]
        self._part_digest, self._is_part_whole = hashlib.sha256(), start == 0
        opened = self._resources.enter_context(self._objects.open(self._parts[index].object_key, start=start))
        self._opened = (index, opened)
        return self._opened

    def _leave(self) -> None:
        self._opened = None
        self._resources.close()

    def _note(self, block: bytes) -> None:
        self._part_digest.update(block)
        if self._position == self._md5_position:
            self._md5.update(block)
            self._md5_position += len(block)

    def _check(self, index: int) -> None:
        part = self._parts[index]
        if self._is_part_whole and self._part_digest.hexdigest() != part.sha256:
            raise ObjectCorruptError(f"object {part.object_key!r} is not what was stored")
