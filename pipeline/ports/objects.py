"""The object store's port: immutable objects under deterministic keys.

Two implementations, `storage.objects.local` and `storage.objects.s3`, pass one conformance suite.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO, Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredObject:
    """What is known of one object."""

    key: str
    size_bytes: int
    #: Lower-case hex SHA-256 of the content.
    sha256: str


class ObjectStore(Protocol):
    """Write-once storage of named byte strings. Safe to share between threads."""

    def put(self, key: str, content: bytes | memoryview | Path | BufferedReader) -> StoredObject:
        """Write `content` (bytes, a local file's, or what a seekable stream gives) under `key` unless something stands there.

        The same content again is a success (a retry after a lost answer); other content raises
        `ObjectConflictError`, and the object stays as it was. The object is durable and complete,
        or absent: no reader ever sees a torn one.
        """

    def head(self, key: str) -> StoredObject:
        """Return the object's size and hash, or raise `ObjectMissingError`."""

    def read(self, key: str, *, sha256: str | None = None) -> bytes:
        """Return the whole object; given `sha256`, raise `ObjectCorruptError` where it differs."""

    def open(self, key: str, *, start: int = 0) -> AbstractContextManager[BinaryIO]:
        """Stream the object's bytes from offset `start` on, with bounded memory; no object is asked from its end on."""

    def link(self, key: str, *, seconds: int, filename: str) -> str | None:
        """Return a URL that anybody may download the object at for so long, under that name; None: there is none."""

    def fetch(self, key: str, *, sha256: str | None = None) -> AbstractContextManager[Path]:
        """Lend a local, read-only file with the object's content until the context ends.

        A local store lends its own file; a remote one downloads to a temporary file first.
        """

    def list(self, prefix: str) -> Iterator[str]:
        """Yield the keys under `prefix` in lexicographic order."""

    def delete(self, key: str) -> None:
        """Remove the object if it is there: for garbage collection only, never to rewrite."""
