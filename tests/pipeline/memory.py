"""An object store in memory, for tests of what is put into one and read from one."""

from __future__ import annotations

import hashlib
import io
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from pipeline.domain.errors import ObjectConflictError, ObjectCorruptError, ObjectMissingError
from pipeline.ports.objects import StoredObject


class MemoryStore:
    """An `ObjectStore` that forgets."""

    def __init__(self) -> None:
        self.contents: dict[str, bytes] = {}

    def put(self, key: str, content: bytes | memoryview | Path | io.BufferedReader) -> StoredObject:
        if isinstance(content, io.BufferedReader):
            content = content.read()
        new = content.read_bytes() if isinstance(content, Path) else bytes(content)
        if self.contents.setdefault(key, new) != new:
            raise ObjectConflictError(key)
        return self.head(key)

    def head(self, key: str) -> StoredObject:
        content = self.read(key)
        return StoredObject(key=key, size_bytes=len(content), sha256=hashlib.sha256(content).hexdigest())

    def read(self, key: str, *, sha256: str | None = None) -> bytes:
        if key not in self.contents:
            raise ObjectMissingError(key)
        content = self.contents[key]
        if sha256 is not None and hashlib.sha256(content).hexdigest() != sha256:
            raise ObjectCorruptError(key)
        return content

    @contextmanager
    def open(self, key: str, *, start: int = 0) -> Iterator[BinaryIO]:
        yield io.BytesIO(self.read(key)[start:])

    def link(self, key: str, *, seconds: int, filename: str) -> str | None:
        del key, seconds, filename
        return None

    @contextmanager
    def fetch(self, key: str, *, sha256: str | None = None) -> Iterator[Path]:
        with tempfile.NamedTemporaryFile() as file:
            file.write(self.read(key, sha256=sha256))
            file.flush()
            yield Path(file.name)

    def list(self, prefix: str) -> Iterator[str]:
        yield from sorted(key for key in self.contents if key.startswith(prefix))

    def delete(self, key: str) -> None:
        self.contents.pop(key, None)
