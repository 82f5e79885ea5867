"""What is put into a store: bytes or a local file, read in blocks and hashed on the way."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

from pipeline.domain.errors import ObjectConflictError, ObjectCorruptError, UsageError
from pipeline.ports.objects import StoredObject

#: The unit of every copy: large enough that system calls do not count, small enough to forget.
BLOCK_BYTES: Final = 1024 * 1024

#: A seekable binary file that fills a buffer whole, which `typing.BinaryIO` does not promise.
Source: TypeAlias = io.BytesIO | io.BufferedReader


@dataclass(frozen=True, slots=True, kw_only=True)
class Fingerprint:
    """The hash of some content, and of each of its parts where they were asked for."""

    size_bytes: int
    sha256: bytes
    part_sha256s: tuple[bytes, ...]


@contextmanager
def opened(content: bytes | memoryview | Path | io.BufferedReader) -> Iterator[Source]:
    """Lend `content` as a seekable binary file; raise `UsageError` for a path that is no readable file."""
    if isinstance(content, io.BufferedReader):
        content.seek(0)
        yield content
        return
    if not isinstance(content, Path):
        yield io.BytesIO(content)
        return
    try:
        # Only a regular file has a size and can be read twice; opening a FIFO could also block for ever.
        if not content.is_file():
            raise UsageError(f"nothing to store: {content} is not a file")
        file = content.open("rb")
    except OSError as error:
        raise UsageError(f"cannot read {content}: {error.strerror}") from error
    with file:
        yield file


def blocks(file: Source) -> Iterator[memoryview]:
    """Yield the rest of `file` in blocks of `BLOCK_BYTES`, the last one shorter.

    Each block is overwritten by the next: use it before asking again.
    """
    buffer = memoryview(bytearray(BLOCK_BYTES))
    while count := file.readinto(buffer):
        yield buffer[:count]


def take_fingerprint(file: Source, *, part_bytes: int | None) -> Fingerprint:
    """Return the hash of the whole `file` and, given `part_bytes`, of each part of that length."""
    assert part_bytes is None or part_bytes % BLOCK_BYTES == 0
    file.seek(0)
    whole = hashlib.sha256()
    parts: list[bytes] = []
    part = hashlib.sha256()
    size_bytes = 0
    for block in blocks(file):
        whole.update(block)
        size_bytes += len(block)
        if part_bytes is None:
            continue
        part.update(block)
        if size_bytes % part_bytes == 0:
            parts.append(part.digest())
            part = hashlib.sha256()
    if part_bytes is not None and size_bytes % part_bytes:
        parts.append(part.digest())
    return Fingerprint(size_bytes=size_bytes, sha256=whole.digest(), part_sha256s=tuple(parts))


def check_hash(key: str, *, wanted: str | None, found: str) -> None:
    """Raise `ObjectCorruptError` where a hash is wanted and another was found."""
    if wanted is not None and wanted != found:
        raise ObjectCorruptError(f"object {key!r} has SHA-256 {found}, not {wanted}")


def settled(mine: StoredObject, standing: StoredObject) -> StoredObject:
    """Return `standing` where it holds the content of `mine`; raise `ObjectConflictError` where it does not."""
    if standing != mine:
        raise ObjectConflictError(
            f"object {mine.key!r} already holds {standing.size_bytes} bytes with SHA-256 {standing.sha256}"
        )
    return standing
