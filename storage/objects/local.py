"""Objects as files below one folder.

A put writes a temporary file, then makes it appear under its key with a hard link, which fails where
something stands already: the file system's own If-None-Match. The hash is recorded in an extended
attribute of the same inode, so it appears together with the bytes; where the file system has no
such attributes, `head` reads the file instead.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import BufferedReader, BufferedWriter
from pathlib import Path
from typing import BinaryIO, Final

from pipeline.domain.errors import (
    NightrateError,
    ObjectMissingError,
    StoreUnavailableError,
    UsageError,
)
from pipeline.ports.objects import StoredObject
from storage.objects.content import Source, blocks, check_hash, opened, settled
from storage.objects.keys import check_key, check_prefix, is_key

#: No key begins with a dot, so nothing stored can collide with it.
_TEMP_FOLDER: Final = ".tmp"
_HASH_ATTRIBUTE: Final = "user.nightrate.sha256"
#: How often a put starts over because a sweep or a delete got in between; each needs a fresh coincidence.
_TRIES_MAX: Final = 16
#: What the operating system answers where trying again cannot help.
_SETTING_ERRNOS: Final = frozenset(
    {errno.EACCES, errno.EPERM, errno.EROFS, errno.EXDEV, errno.EOPNOTSUPP, errno.ENAMETOOLONG, errno.ENOTDIR}
)


@dataclass(frozen=True, slots=True)
class _Draft:
    """A temporary file that is ours while its lock is held."""

    path: Path
    file: BufferedWriter


class LocalStore:
    """An `ObjectStore` in a folder on one machine, for any number of threads and processes.

    Owners of the folder must leave the files alone: they are read-only because they are lent as they are.
    """

    def __init__(self, root: Path, *, fsync: bool = True) -> None:
        """Use the folder `root`, which the first put creates, and sweep what crashed puts left there.

        With `fsync`, a put returns once the object would survive a power cut. Without, it survives the
        death of this process only, and small puts are several times faster.

        Raises:
            UsageError: `root` is something other than a folder.
        """
        self._root = root.absolute()
        self._temp = self._root / _TEMP_FOLDER
        self._fsync = fsync
        with _os_errors(""):
            if self._root.exists() and not self._root.is_dir():
                raise UsageError(f"the object store's path {self._root} is not a folder")
        self.sweep()

    def put(self, key: str, content: bytes | memoryview | Path | BufferedReader) -> StoredObject:
        """Write `content` under `key` once; see the port.

        Raises:
            ObjectConflictError: Other content stands there.
            UsageError: The key is none, the source is no file, the key is another's parent or child,
                or the folder cannot hold the object (rights, no hard links).
            StoreUnavailableError: The disk is full or failing.
        """
        check_key(key)
        with opened(content) as source, _os_errors(key), self._drafted() as draft:
            mine = self._fill(draft.file, key, source)
            return self._publish(draft.path, mine)

    def head(self, key: str) -> StoredObject:
        """Return the object's size and hash, or raise `ObjectMissingError`."""
        with self._opened(key) as file, _os_errors(key):
            return _described(key, file)

    def read(self, key: str, *, sha256: str | None = None) -> bytes:
        """Return the whole object; given `sha256`, raise `ObjectCorruptError` where it differs."""
        with self._opened(key) as file, _os_errors(key):
            content = file.read()
        if sha256 is not None:
            check_hash(key, wanted=sha256, found=hashlib.sha256(content).hexdigest())
        return content

    @contextmanager
    def open(self, key: str, *, start: int = 0) -> Iterator[BinaryIO]:
        """Stream the object's bytes; entering raises, the call does not."""
        with self._opened(key) as file:
            file.seek(start)
            yield file

    def link(self, key: str, *, seconds: int, filename: str) -> str | None:
        """Return None: a folder serves nobody."""
        del key, seconds, filename
        return None

    @contextmanager
    def fetch(self, key: str, *, sha256: str | None = None) -> Iterator[Path]:
        """Lend the object's own file; entering raises, and given `sha256`, reads it through first."""
        with self._opened(key) as file, _os_errors(key):
            if sha256 is not None:
                check_hash(key, wanted=sha256, found=hashlib.file_digest(file, "sha256").hexdigest())
        yield self._path(key)

    def list(self, prefix: str) -> Iterator[str]:
        """Yield the keys that begin with `prefix` (a raw string) in order; holds one folder's names at a time."""
        folder, _, name_prefix = check_prefix(prefix).rpartition("/")
        return self._walk(f"{folder}/" if folder else "", name_prefix)

    def delete(self, key: str) -> None:
        """Remove the object if it is there, and the folders that it leaves empty."""
        path = self._path(check_key(key))
        with _os_errors(key):
            with suppress(FileNotFoundError, NotADirectoryError):
                if path.is_dir():
                    return
                path.unlink()
            for folder in path.parents:
                if folder == self._root:
                    break
                try:
                    folder.rmdir()
                except OSError:  # not empty, or another delete was faster: either way nothing is left to do
                    break

    def sweep(self) -> int:
        """Remove the temporary files whose writers are gone; return how many there were.

        A writer holds a lock on its file for as long as it lives, so a free lock means a crash. That is
        safe beside running writers of any process, and asks no clock.
        """
        swept = 0
        try:
            names = os.listdir(self._temp)  # noqa: PTH208  # names suffice, and a missing folder raises here
        except OSError:
            return 0
        for name in names:
            path = self._temp / name
            with suppress(OSError), path.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()
                swept += 1
        return swept

    # --- writing -------------------------------------------------------------------------------

    @contextmanager
    def _drafted(self) -> Iterator[_Draft]:
        for _ in range(_TRIES_MAX):
            self._temp.mkdir(parents=True, exist_ok=True)
            path = self._temp / secrets.token_hex(16)
            with path.open("xb") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                # A sweep may have taken the file between its creation and its lock.
                if os.fstat(file.fileno()).st_nlink == 0:
                    continue
                try:
                    yield _Draft(path, file)
                finally:
                    path.unlink()
                return
        raise StoreUnavailableError(f"every temporary file in {self._temp} was swept at once")

    def _fill(self, file: BufferedWriter, key: str, source: Source) -> StoredObject:
        """Copy and hash in one pass; the hash needs every byte here, so a copy in the kernel would save nothing."""
        digest = hashlib.sha256()
        size_bytes = 0
        for block in blocks(source):
            digest.update(block)
            file.write(block)
            size_bytes += len(block)
        file.flush()
        if sys.platform == "linux":
            with suppress(OSError):  # a cache only: without it `head` reads the file
                os.setxattr(file.fileno(), _HASH_ATTRIBUTE, digest.digest())
        os.fchmod(file.fileno(), os.fstat(file.fileno()).st_mode & 0o444)
        if self._fsync:
            os.fsync(file.fileno())
        return StoredObject(key=key, size_bytes=size_bytes, sha256=digest.hexdigest())

    def _publish(self, draft: Path, mine: StoredObject) -> StoredObject:
        path = self._path(mine.key)
        for _ in range(_TRIES_MAX):
            try:
                created = _make_folders(path.parent)
                os.link(draft, path)
                stored = mine
            except FileNotFoundError:  # a delete took the empty folder away
                continue
            except FileExistsError:
                if path.is_dir():
                    raise UsageError(f"cannot store {mine.key!r}: it is the parent of other keys") from None
                try:
                    stored = settled(mine, self.head(mine.key))
                except ObjectMissingError:  # a delete was faster
                    continue
            if self._fsync:
                # On the second put of the same content too: the first one may not have come this far.
                for folder in (path.parent, *(folder.parent for folder in created)):
                    _sync_folder(folder)
            return stored
        raise StoreUnavailableError(f"deletes kept racing the put of {mine.key!r}")

    # --- reading -------------------------------------------------------------------------------

    def _path(self, key: str) -> Path:
        return self._root / key

    def _opened(self, key: str) -> BufferedReader:
        with _os_errors(key):
            try:
                return self._path(check_key(key)).open("rb")
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
                raise ObjectMissingError(f"no object {key!r} in {self._root}") from error

    def _walk(self, folder: str, name_prefix: str) -> Iterator[str]:
        """Yield the keys in `folder`, which is empty or ends with `/`, whose names begin with `name_prefix`."""
        with _os_errors(folder):
            try:
                with os.scandir(self._root / folder) as entries:
                    # With its slash a folder's name sorts where its keys do: `a-b` < `a/b` < `ab`.
                    names = sorted(
                        f"{entry.name}/" if entry.is_dir(follow_symlinks=False) else entry.name
                        for entry in entries
                        if entry.name.startswith(name_prefix)
                    )
            except (FileNotFoundError, NotADirectoryError):
                return
        for name in names:
            key = f"{folder}{name}"
            if not is_key(key.removesuffix("/")):
                continue
            if name.endswith("/"):
                yield from self._walk(key, "")
            else:
                yield key


def _described(key: str, file: BufferedReader) -> StoredObject:
    size_bytes = os.fstat(file.fileno()).st_size
    if sys.platform == "linux":
        with suppress(OSError):
            sha256 = os.getxattr(file.fileno(), _HASH_ATTRIBUTE).hex()
            return StoredObject(key=key, size_bytes=size_bytes, sha256=sha256)
    return StoredObject(key=key, size_bytes=size_bytes, sha256=hashlib.file_digest(file, "sha256").hexdigest())


def _make_folders(folder: Path) -> list[Path]:
    """Create `folder` and its parents; return those that were missing, which another put may create too."""
    missing: list[Path] = []
    while not folder.is_dir():
        missing.append(folder)
        folder = folder.parent
    for each in reversed(missing):
        try:
            each.mkdir()
        except FileExistsError:
            if not each.is_dir():
                raise UsageError(f"cannot store below {each}: it is an object itself") from None
    return missing


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _os_errors(key: str) -> Iterator[None]:
    """Raise the operating system's errors as ours."""
    try:
        yield
    except OSError as error:
        raise _translated(key, error) from error


def _translated(key: str, error: OSError) -> NightrateError:
    message = f"the object store's folder, at {key!r}: {error.strerror or error}"
    if error.errno in _SETTING_ERRNOS:
        return UsageError(message, hint="the folder must be writable, on one file system, with hard links")
    return StoreUnavailableError(message)
