"""Objects in an S3 bucket: AWS, or any server with conditional writes.

A put carries `If-None-Match: *`, so that of any number of writers one wins; the rest compare hashes.
The SHA-256 travels as a checksum, which the server verifies on arrival, and as metadata, which `head`
reads. A server that ignores the condition breaks the write-once promise and must not be used. SeaweedFS
4.48 keeps it for single requests, but not between multipart completions at the same moment: there two
writers of different content from `MULTIPART_BYTES_MIN` up can both be told that they won, and the later
one's object stands, whole. A reader that passes the hash it expects notices.

Every request is bounded: four tries of at most 2 s to connect and 10 s to wait for bytes, and up to 7 s of
pauses between them. So it gives up on a server that refuses connections within 7 s, on one that cannot be
reached within 15 s, and on one that accepts and stays silent within 47 s.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
import tempfile
from base64 import b64encode
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from http import HTTPStatus
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, BinaryIO, Final

from botocore.exceptions import BotoCoreError, ClientError
from botocore.response import StreamingBody

from pipeline.domain.errors import ObjectMissingError, StoreUnavailableError, UsageError
from pipeline.domain.limits import FILE_BYTES_MAX
from pipeline.ports.objects import StoredObject
from storage.objects.content import (
    BLOCK_BYTES,
    Fingerprint,
    Source,
    blocks,
    check_hash,
    opened,
    settled,
    take_fingerprint,
)
from storage.objects.keys import check_key, check_prefix
from storage.objects.locations import S3Credentials
from storage.objects.s3_client import READ_TIMEOUT_SECONDS, connect
from storage.objects.s3_errors import code_of, s3_errors, status_of, translated
from storage.objects.s3_listing import listed

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer
    from mypy_boto3_s3.type_defs import CompletedPartTypeDef

_logger = logging.getLogger(__name__)

#: Content of this size and more goes up in parts.
MULTIPART_BYTES_MIN: Final = 64 * 1024 * 1024
PART_BYTES: Final = 8 * 1024 * 1024
#: S3's own bound.
PARTS_MAX: Final = 10_000
#: Parts under way at once; a multipart put holds this many in memory.
PART_SENDERS: Final = 4

#: How often a put starts over because what stood under its key vanished before it could be compared.
_PUT_TRIES_MAX: Final = 3
_HASH_METADATA: Final = "sha256"

assert PART_BYTES % BLOCK_BYTES == 0
assert PART_BYTES * PARTS_MAX >= FILE_BYTES_MAX
assert PART_BYTES <= MULTIPART_BYTES_MIN


class S3Store:
    """An `ObjectStore` in one bucket, below one prefix. The bucket must exist."""

    def __init__(
        self,
        bucket: str,
        *,
        prefix: str = "",
        endpoint_url: str | None = None,
        region: str | None = None,
        credentials: S3Credentials | None = None,
        temp_dir: Path | None = None,
        read_timeout_seconds: float = READ_TIMEOUT_SECONDS,
    ) -> None:
        """Prepare a client, which does not contact the server yet; see `storage.objects.open_store` for the arguments.

        Raises:
            UsageError: The endpoint is no URL, or boto3's own settings contradict themselves.
        """
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""
        self._temp_dir = temp_dir
        self._multipart_bytes_min = MULTIPART_BYTES_MIN
        #: Whether the bucket has been seen to exist: a HEAD alone cannot tell a missing bucket from a missing key.
        self._is_bucket_seen = False
        self._client = connect(
            endpoint_url=endpoint_url,
            region=region,
            credentials=credentials,
            read_timeout_seconds=read_timeout_seconds,
        )

    def close(self) -> None:
        """Close the idle connections."""
        self._client.close()

    def put(self, key: str, content: bytes | memoryview | Path | io.BufferedReader) -> StoredObject:
        """Write `content` under `key` once; see the port. A file must not change meanwhile.

        Raises:
            ObjectConflictError: Other content stands there.
            UsageError: The key is none, the source is no file or changed, the bucket is missing, or the
                credentials do not allow it.
            StoreUnavailableError: S3 could not be reached, was overloaded, or got damaged bytes.
        """
        name = self._name(key)
        with opened(content) as source:
            is_multipart = source.seek(0, os.SEEK_END) >= self._multipart_bytes_min
            fingerprint = take_fingerprint(source, part_bytes=PART_BYTES if is_multipart else None)
            mine = StoredObject(key=key, size_bytes=fingerprint.size_bytes, sha256=fingerprint.sha256.hex())
            for _ in range(_PUT_TRIES_MAX):
                # Looking first spares a retry from sending gigabytes; only the write's own condition decides.
                standing = self._standing(key) if is_multipart else None
                if standing is None:
                    with s3_errors(key):
                        is_written = (self._put_parts if is_multipart else self._put_whole)(name, source, fingerprint)
                    if is_written:
                        return mine
                    standing = self._standing(key)
                if standing is not None:
                    return settled(mine, standing)
        # Servers that keep objects as files answer so for a folder's name too.
        if any(listed(self._client, bucket=self._bucket, root=self._prefix, prefix=f"{key}/")):
            raise UsageError(f"cannot store {key!r}: it is the parent of other keys")
        raise StoreUnavailableError(f"S3 refuses to write {key!r} though nothing stands there")

    def head(self, key: str) -> StoredObject:
        """Return the object's size and hash, or raise `ObjectMissingError`.

        An object that something else put there may carry no hash; it is then read through to compute it.
        """
        name = self._name(key)
        try:
            answer = self._client.head_object(Bucket=self._bucket, Key=name)
        except (ClientError, BotoCoreError) as error:
            if isinstance(error, ClientError) and status_of(error) == HTTPStatus.NOT_FOUND:
                self._require_bucket(key)
            raise translated(key, error) from error
        sha256 = answer["Metadata"].get(_HASH_METADATA)
        if sha256 is None:
            digest = hashlib.sha256()
            with self._opened(key) as body:
                for block in blocks(body):
                    digest.update(block)
            sha256 = digest.hexdigest()
        return StoredObject(key=key, size_bytes=answer["ContentLength"], sha256=sha256)

    def read(self, key: str, *, sha256: str | None = None) -> bytes:
        """Return the whole object; given `sha256`, raise `ObjectCorruptError` where it differs."""
        with s3_errors(key), closing(self._body(key)) as body:
            content = body.read()
        if sha256 is not None:
            check_hash(key, wanted=sha256, found=hashlib.sha256(content).hexdigest())
        return content

    @contextmanager
    def open(self, key: str, *, start: int = 0) -> Iterator[BinaryIO]:
        """Stream the object's bytes; entering raises, and so does a read when the connection breaks."""
        with self._opened(key, start) as body:
            yield body

    def link(self, key: str, *, seconds: int, filename: str) -> str | None:
        """Return a presigned URL; whether anything stands there is not looked at."""
        # RFC 6266: quotes and backslashes are what a quoted string cannot hold as they are.
        quoted = filename.encode("ascii", "replace").decode().replace("\\", "_").replace('"', "_")
        parameters = {
            "Bucket": self._bucket,
            "Key": self._name(key),
            "ResponseContentDisposition": f'attachment; filename="{quoted}"',
        }
        with s3_errors(key):
            return self._client.generate_presigned_url("get_object", Params=parameters, ExpiresIn=seconds)

    @contextmanager
    def fetch(self, key: str, *, sha256: str | None = None) -> Iterator[Path]:
        """Lend a download of the object; it is hashed on the way and removed at the end."""
        try:
            folder = tempfile.TemporaryDirectory(prefix="nightrate-", dir=self._temp_dir)
        except OSError as error:
            raise UsageError(f"no temporary folder for downloads: {error}") from error
        with folder as name:
            path = Path(name, "object")
            self._download(key, path, sha256)
            yield path

    def list(self, prefix: str) -> Iterator[str]:
        """Yield the keys that begin with `prefix` (a raw string) in order; holds one page of 1000 at a time.

        SeaweedFS lists folder by folder (`a/b` before `a-b`), so its keys are gathered and sorted here.
        """
        return listed(self._client, bucket=self._bucket, root=self._prefix, prefix=check_prefix(prefix))

    def delete(self, key: str) -> None:
        """Remove the object if it is there."""
        name = self._name(key)
        with s3_errors(key):
            self._client.delete_object(Bucket=self._bucket, Key=name)

    # --- writing -------------------------------------------------------------------------------

    def _name(self, key: str) -> str:
        return f"{self._prefix}{check_key(key)}"

    def _standing(self, key: str) -> StoredObject | None:
        try:
            return self.head(key)
        except ObjectMissingError:
            return None

    def _put_whole(self, name: str, source: Source, fingerprint: Fingerprint) -> bool:
        """Write the object in one request; return False where something stands there."""
        source.seek(0)
        try:
            self._client.put_object(
                Bucket=self._bucket,
                Key=name,
                Body=source,
                IfNoneMatch="*",
                ChecksumSHA256=_base64(fingerprint.sha256),
                Metadata={_HASH_METADATA: fingerprint.sha256.hex()},
            )
        except ClientError as error:
            if _is_lost_race(error):
                return False
            raise
        return True

    def _put_parts(self, name: str, source: Source, fingerprint: Fingerprint) -> bool:
        """Write the object in parts; return False where something stands there. Leaves no parts behind."""
        upload_id = self._client.create_multipart_upload(
            Bucket=self._bucket,
            Key=name,
            ChecksumAlgorithm="SHA256",
            Metadata={_HASH_METADATA: fingerprint.sha256.hex()},
        )["UploadId"]
        is_complete = False
        try:
            parts = self._send_parts(name, upload_id, source, fingerprint)
            is_complete = self._complete(name, upload_id, parts)
        finally:
            if not is_complete:
                self._abort(name, upload_id)
        return is_complete

    def _send_parts(
        self, name: str, upload_id: str, source: Source, fingerprint: Fingerprint
    ) -> Sequence[CompletedPartTypeDef]:
        assert len(fingerprint.part_sha256s) <= PARTS_MAX
        lock = Lock()

        def send(index: int) -> CompletedPartTypeDef:
            with lock:
                source.seek(index * PART_BYTES)
                part = source.read(PART_BYTES)
            digest = fingerprint.part_sha256s[index]
            # The object's recorded hash was taken in an earlier pass: different bytes now would make it a lie.
            if hashlib.sha256(part).digest() != digest:
                raise UsageError("the source file changed while it was being stored")
            answer = self._client.upload_part(
                Bucket=self._bucket,
                Key=name,
                UploadId=upload_id,
                PartNumber=index + 1,
                Body=part,
                ChecksumSHA256=_base64(digest),
            )
            return {"PartNumber": index + 1, "ETag": answer["ETag"], "ChecksumSHA256": _base64(digest)}

        with ThreadPoolExecutor(max_workers=PART_SENDERS, thread_name_prefix="s3-part") as pool:
            # On an error `map` cancels the parts that have not begun.
            return tuple(pool.map(send, range(len(fingerprint.part_sha256s))))

    def _complete(self, name: str, upload_id: str, parts: Sequence[CompletedPartTypeDef]) -> bool:
        try:
            self._client.complete_multipart_upload(
                Bucket=self._bucket,
                Key=name,
                UploadId=upload_id,
                IfNoneMatch="*",
                MultipartUpload={"Parts": parts},
            )
        except ClientError as error:
            # No such upload: an earlier try of this request completed it and its answer was lost.
            if _is_lost_race(error) or code_of(error) == "NoSuchUpload":
                return False
            raise
        return True

    def _abort(self, name: str, upload_id: str) -> None:
        try:
            self._client.abort_multipart_upload(Bucket=self._bucket, Key=name, UploadId=upload_id)
        except (ClientError, BotoCoreError) as error:
            if isinstance(error, ClientError) and code_of(error) == "NoSuchUpload":
                return
            # The put's own error matters more; a lifecycle rule of the bucket collects such leftovers.
            _logger.warning("multipart_abort_failed", extra={"object_name": name, "upload_id": upload_id})

    # --- reading -------------------------------------------------------------------------------

    def _body(self, key: str, start: int = 0) -> StreamingBody:
        name = self._name(key)
        with s3_errors(key):
            if start:
                return self._client.get_object(Bucket=self._bucket, Key=name, Range=f"bytes={start}-")["Body"]
            return self._client.get_object(Bucket=self._bucket, Key=name)["Body"]

    def _opened(self, key: str, start: int = 0) -> io.BufferedReader:
        return io.BufferedReader(_BodyReader(key, self._body(key, start)), BLOCK_BYTES)

    def _download(self, key: str, path: Path, sha256: str | None) -> None:
        digest = hashlib.sha256()
        try:
            with self._opened(key) as body, path.open("xb") as file:
                for block in blocks(body):
                    digest.update(block)
                    file.write(block)
            path.chmod(0o400)
        except OSError as error:
            raise StoreUnavailableError(f"cannot keep a copy of {key!r}: {error.strerror}") from error
        check_hash(key, wanted=sha256, found=digest.hexdigest())

    def _require_bucket(self, key: str) -> None:
        """Raise `UsageError` if the bucket is missing."""
        if self._is_bucket_seen:
            return
        try:
            self._client.head_bucket(Bucket=self._bucket)
        except ClientError as error:
            if status_of(error) == HTTPStatus.NOT_FOUND:
                raise UsageError(
                    f"the S3 bucket {self._bucket!r} does not exist", hint="create it, or correct the s3: URL"
                ) from error
            raise translated(key, error) from error
        except BotoCoreError as error:
            raise translated(key, error) from error
        self._is_bucket_seen = True


class _BodyReader(io.RawIOBase):
    """An answer's body as a raw file, so that `io.BufferedReader` can make a whole file of it."""

    def __init__(self, key: str, body: StreamingBody) -> None:
        super().__init__()
        self._key = key
        self._body = body

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        with s3_errors(self._key):
            return self._body.readinto(buffer)  # type: ignore[arg-type]  # the stub wants IO, the code takes buffers

    def readall(self) -> bytes:
        with s3_errors(self._key):
            return self._body.read()

    def close(self) -> None:
        self._body.close()
        super().close()


def _is_lost_race(error: ClientError) -> bool:
    """Say whether the answer means that something stands there, or is being written there now."""
    return status_of(error) == HTTPStatus.PRECONDITION_FAILED or code_of(error) == "ConditionalRequestConflict"


def _base64(digest: bytes) -> str:
    return b64encode(digest).decode("ascii")
