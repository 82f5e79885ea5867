"""Files on their way from a server: broken off, they go on where they were, and at the end they must be the file."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from typing import Final

from infra.remote.errors import ServerUnavailableError
from infra.remote.patience import TryAgainError
from infra.remote.transport import Transport
from pipeline.domain.errors import ObjectCorruptError
from pipeline.ports.desk import FileFacts

_SHA256: Final = re.compile(r'"([0-9a-f]{64})"')


def download(transport: Transport, path: str, file: FileFacts) -> Iterator[bytes]:
    """Yield the content of `path`; raises `ObjectCorruptError` at the end of what is not the file, or too long for it."""
    digest = hashlib.sha256()
    done = 0
    patience = transport.patience()
    while True:
        try:
            for block in _blocks(transport, path, file, done):
                done += len(block)
                if done > file.size_bytes:
                    raise ObjectCorruptError(f"{file.file_id} goes on after its {file.size_bytes:,} bytes")
                digest.update(block)
                patience.renew()
                yield block
        except TryAgainError as failure:
            patience.wait(failure)
            continue
        if done == file.size_bytes:
            break
        short = f"{file.file_id} ended after {done:,} of {file.size_bytes:,} bytes"
        patience.wait(TryAgainError(ServerUnavailableError(short), was_answered=True))
    if digest.hexdigest() != file.sha256:
        raise ObjectCorruptError(f"{file.file_id} is not what arrived: its SHA-256 is another")


def _blocks(transport: Transport, path: str, file: FileFacts, start: int) -> Iterator[bytes]:
    with transport.opened(path, start=start) as (begin, is_own, etag, blocks):
        told = _SHA256.fullmatch(etag or "")
        # An object store has ETags of its own kind.
        if is_own and told is not None and told[1] != file.sha256:
            raise ObjectCorruptError(f"{file.file_id} is another file at the server than it was a moment ago")
        skipped = start - begin
        for block in blocks:
            kept = block[skipped:]
            skipped -= len(block) - len(kept)
            if kept:
                yield kept


def stream(transport: Transport, path: str) -> Iterator[bytes]:
    """Yield what `path` is answered with, which is made while it is sent: it is tried again only before its first byte.

    Raises `ServerUnavailableError` where it broke off.
    """
    patience = transport.patience()
    while True:
        has_begun = False
        try:
            with transport.opened(path, start=0) as (_, _, _, blocks):
                for block in blocks:
                    has_begun = True
                    yield block
        except TryAgainError as failure:
            if has_begun:
                raise ServerUnavailableError(f"the results broke off: {failure.error}") from failure
            patience.wait(failure)
            continue
        return
