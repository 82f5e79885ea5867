"""Downloads: a file's bytes, whole or from the middle, streamed or by a link to where they lie."""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncIterator
from contextlib import ExitStack
from typing import Any, Final
from urllib.parse import quote

from anyio import CancelScope, to_thread
from fastapi import Request
from fastapi.responses import RedirectResponse, Response, StreamingResponse
from starlette.types import Send

from pipeline.app.stack import Stack
from pipeline.domain.errors import NightrateError
from pipeline.domain.ids import FileId, new_download_id
from pipeline.entrypoints.http.errors import ApiError
from pipeline.ports.files import FileView
from storage.egress import EgressRepository

_LOG = logging.getLogger(__name__)

_BLOCK_BYTES: Final = 1024 * 1024
_RANGE: Final = re.compile(r"bytes=(?P<first>[0-9]{0,40})-(?P<last>[0-9]{0,40})", re.ASCII | re.IGNORECASE)
_CONTENT_TYPE: Final = "application/octet-stream"


async def download(request: Request, stack: Stack, file: FileView) -> Response:
    """Return the response that a file's content is downloaded by.

    A range of bytes is answered as RFC 9110 has it; several at once are answered by the whole, as that allows.
    """
    etag = f'"{file.sha256}"'
    if _is_known(etag, request.headers.get("if-none-match", "")):
        return Response(status_code=304, headers={"ETag": etag})
    link = await to_thread.run_sync(_link, stack, file)
    if link is not None:
        # Another host: clients drop their key on the way there, and the link needs none.
        return RedirectResponse(link, status_code=302, headers={"Cache-Control": "no-store"})
    asked = request.headers.get("range")
    is_asked = asked is not None and request.headers.get("if-range", etag) == etag
    span = _span(asked or "", file.size_bytes) if is_asked else None
    start, stop = span or (0, file.size_bytes)
    headers = {
        "Accept-Ranges": "bytes",
        "Content-Length": str(stop - start),
        "Content-Disposition": f"attachment; filename*=UTF-8''{quote(file.filename, safe='')}",
        "ETag": etag,
        "X-Content-Type-Options": "nosniff",
    }
    if span is not None:
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{file.size_bytes}"
    sent = _Sent(stack, file.file_id)
    return _MeteredResponse(
        _blocks(stack, file.object_key, start, stop, sent),
        sent=sent,
        status_code=200 if span is None else 206,
        headers=headers,
        media_type=_CONTENT_TYPE,
    )


def _link(stack: Stack, file: FileView) -> str | None:
    seconds = stack.settings.download_link_seconds
    return stack.objects.link(file.object_key, seconds=seconds, filename=file.filename) if seconds else None


class _Sent:
    """Counts the bytes of a download, and notes them once."""

    def __init__(self, stack: Stack, file_id: FileId) -> None:
        self._egress = EgressRepository(stack.database)
        self._file_id = file_id
        self.size_bytes = 0

    def note(self) -> None:
        if not self.size_bytes:
            return
        try:
            self._egress.add(new_download_id(), self._file_id, self.size_bytes)
        except NightrateError as error:
            # The client has its bytes: they are worth more than the record of what they cost.
            _LOG.warning("egress_not_noted", extra={"file_id": self._file_id, "reason": str(error)})


class _MeteredResponse(StreamingResponse):
    """Notes what was sent, whether the client took all of it or hung up."""

    def __init__(self, blocks: AsyncIterator[bytes], *, sent: _Sent, **more: Any) -> None:  # noqa: ANN401 -- of any response
        super().__init__(blocks, **more)
        self._sent = sent

    async def stream_response(self, send: Send) -> None:
        try:
            await super().stream_response(send)
        finally:
            with CancelScope(shield=True):
                await to_thread.run_sync(self._sent.note)


async def _blocks(stack: Stack, key: str, start: int, stop: int, sent: _Sent) -> AsyncIterator[bytes]:
    with ExitStack() as resources:
        source = await to_thread.run_sync(lambda: resources.enter_context(stack.objects.open(key, start=start)))
        left = stop - start
        while left and (block := await to_thread.run_sync(source.read, min(_BLOCK_BYTES, left))):
            left -= len(block)
            sent.size_bytes += len(block)
            yield block


def _is_known(etag: str, named: str) -> bool:
    """Say whether `If-None-Match` names the content, by the weak comparison that RFC 9110 has for it."""
    return named.strip() == "*" or etag in {each.strip().removeprefix("W/") for each in named.split(",")}


def _span(asked: str, size_bytes: int) -> tuple[int, int] | None:
    """Return the half-open range of bytes that a Range header means; None where it means nothing here."""
    match = _RANGE.fullmatch(asked)
    if match is None or not (match["first"] or match["last"]):
        return None
    if not match["first"]:
        start, stop = max(0, size_bytes - int(match["last"])), size_bytes
        is_satisfiable = bool(int(match["last"])) and bool(size_bytes)
    else:
        start = int(match["first"])
        stop = min(int(match["last"]) + 1, size_bytes) if match["last"] else size_bytes
        if match["last"] and int(match["last"]) < start:
            return None
        is_satisfiable = start < size_bytes
    if not is_satisfiable:
        raise ApiError(
            416,
            f"The file has {size_bytes} bytes; the range asked for lies outside.",
            headers={"Content-Range": f"bytes */{size_bytes}"},
        )
    return start, stop
