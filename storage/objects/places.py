"""Places of the platform's that users may name files of: read once, front to back, one version of each.

What lies there is written by others while we read. One answer of S3 is one version of an object; of a file it is
looked at before and after.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import BinaryIO, Final, Protocol

from pipeline.domain.errors import NotFoundError, RefusedError, UsageError
from storage.objects.content import BLOCK_BYTES
from storage.objects.keys import is_key
from storage.objects.locations import LocalLocation, S3Location, parse_location

_CHANGED: Final = "The file changed while it was read; try again."


class Place(Protocol):
    """Somewhere below a prefix."""

    def copy(self, name: str, target: BinaryIO, *, bytes_max: int) -> int:
        """Write the content of what has this name below the prefix to `target`; returns its bytes.

        Raises:
            NotFoundError: There is nothing of that name, or the name is none.
            RefusedError: It is too large, or changed meanwhile.
            UsageError: The prefix cannot be read.
            StoreUnavailableError: It cannot be reached now.
        """


def open_place(url: str, *, endpoint_url: str | None = None) -> Place:
    """Return the place that a prefix names, `s3://bucket/prefix` or `file:///folder`; nothing is contacted yet."""
    location = parse_location(url)
    if isinstance(location, LocalLocation):
        return _Folder(location)
    return _Bucket(location, endpoint_url)


class _Folder:
    """A folder of this machine, left only by nobody: links below it are not followed."""

    def __init__(self, location: LocalLocation) -> None:
        self._root = location.root

    def copy(self, name: str, target: BinaryIO, *, bytes_max: int) -> int:
        _check_name(name)
        with self._opened(name) as file:
            before = os.fstat(file.fileno())
            _check_size(before.st_size, bytes_max)
            copied = _copy(file, target, bytes_max)
            after = os.fstat(file.fileno())
        with self._opened(name) as file:
            now = os.fstat(file.fileno())
        if copied != before.st_size or not _version(before) == _version(after) == _version(now):
            raise RefusedError(_CHANGED)
        return copied

    @contextmanager
    def _opened(self, name: str) -> Iterator[BinaryIO]:
        *folders, last = name.split("/")
        with ExitStack() as resources:
            try:
                handle = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                resources.callback(os.close, handle)
                for folder in folders:
                    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
                    handle = os.open(folder, flags, dir_fd=handle)
                    resources.callback(os.close, handle)
                # A FIFO would be waited for otherwise.
                descriptor = os.open(last, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=handle)
                file = resources.enter_context(os.fdopen(descriptor, "rb"))
            except OSError:
                raise _nothing() from None
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise _nothing()
            yield file


class _Bucket:
    """A prefix in a bucket, read with the platform's own rights."""

    def __init__(self, location: S3Location, endpoint_url: str | None) -> None:
        # boto3 costs a third of a second that folders need not pay.
        from storage.objects.s3_client import READ_TIMEOUT_SECONDS, connect

        self._bucket = location.bucket
        self._prefix = f"{location.prefix}/" if location.prefix else ""
        self._client = connect(
            endpoint_url=location.endpoint_url or endpoint_url,
            region=location.region,
            credentials=None,
            read_timeout_seconds=READ_TIMEOUT_SECONDS,
        )

    def copy(self, name: str, target: BinaryIO, *, bytes_max: int) -> int:
        from botocore.exceptions import ClientError

        from storage.objects.s3_errors import s3_errors, status_of

        _check_name(name)
        key = f"{self._prefix}{name}"
        with s3_errors(name):
            try:
                answer = self._client.get_object(Bucket=self._bucket, Key=key)
            except ClientError as error:
                if status_of(error) in {403, 404}:
                    raise _nothing() from None
                raise
            with closing(answer["Body"]) as body:
                _check_size(answer["ContentLength"], bytes_max)
                copied = 0
                for block in body.iter_chunks(BLOCK_BYTES):
                    target.write(block)
                    copied += len(block)
        if copied != answer["ContentLength"] or self._etag(name, key) != answer["ETag"]:
            raise RefusedError(_CHANGED)
        return copied

    def _etag(self, name: str, key: str) -> str | None:
        from botocore.exceptions import ClientError

        from storage.objects.s3_errors import s3_errors, status_of

        with s3_errors(name):
            try:
                return self._client.head_object(Bucket=self._bucket, Key=key)["ETag"]
            except ClientError as error:
                if status_of(error) == 404:  # noqa: PLR2004 -- it is gone, which is a change
                    return None
                raise


def check_prefix_url(url: str) -> str:
    """Return a prefix with a slash at its end, or raise `UsageError` saying what is accepted."""
    accepted = "s3://bucket/prefix or file:///folder"
    if not url.startswith(("s3://", "file:///")) or "?" in url or "%" in url:
        raise UsageError(f"{url!r} is no place to read files from", hint=accepted)
    parse_location(url)
    return f"{url.rstrip('/')}/"


def _check_name(name: str) -> None:
    # One rule for all places: no empty, hidden or dotted segment, nothing encoded.
    if not is_key(name):
        raise _nothing()


def _check_size(size_bytes: int, bytes_max: int) -> None:
    if size_bytes > bytes_max:
        raise RefusedError(f"The file is larger than {bytes_max} bytes.")


def _copy(source: BinaryIO, target: BinaryIO, bytes_max: int) -> int:
    copied = 0
    while block := source.read(BLOCK_BYTES):
        copied += len(block)
        # It may grow under our eyes.
        _check_size(copied, bytes_max)
        target.write(block)
    return copied


def _version(seen: os.stat_result) -> tuple[int, int, int, int, int]:
    return seen.st_dev, seen.st_ino, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns


def _nothing() -> NotFoundError:
    return NotFoundError("There is nothing to read at this URL.")
