"""What every request passes through: an id, a bound on its body, a line in the log."""

from __future__ import annotations

import asyncio
import itertools
import logging
import re
import secrets
import time
from collections.abc import Mapping
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pipeline.entrypoints.http.errors import ApiError, error_response

_LOG = logging.getLogger("nightrate.http")

#: Of a request whose route reads its body whole.
BODY_BYTES_MAX: Final = 1024 * 1024
#: Between two pieces of a body.
_SILENCE_SECONDS_MAX: Final = 60.0
_SERVER_ERROR: Final = 500
#: Ids are this process's own, and cost no call of the system each.
_PROCESS: Final = secrets.token_hex(8)
_NUMBERS: Final = itertools.count(int.from_bytes(secrets.token_bytes(4)))


class Envelope:
    """Gives each request an id, and logs what became of it; what people wrote is never logged."""

    def __init__(self, app: ASGIApp) -> None:
        """Pass on to `app`."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = f"req_{_PROCESS}{next(_NUMBERS):016x}"
        scope["state"]["request_id"] = request_id
        started = time.perf_counter()
        status = _SERVER_ERROR
        is_started = False

        async def send_named(message: Message) -> None:
            nonlocal status, is_started
            if message["type"] == "http.response.start":
                status, is_started = message["status"], True
                milliseconds = round((time.perf_counter() - started) * 1000)
                message["headers"] = [
                    *message["headers"],
                    *scope["state"].get("rate_headers", ()),
                    (b"x-request-id", request_id.encode()),
                    (b"openai-processing-ms", str(milliseconds).encode()),
                    (b"openai-version", b"2020-10-01"),
                ]
            await send(message)

        try:
            await self._app(scope, receive, send_named)
        except Exception:  # noqa: BLE001 -- a bug in one request is told to its client and to the log
            _LOG.exception("request_crashed", extra={"request_id": request_id})
            if not is_started:
                error = ApiError(_SERVER_ERROR, "The server had an error while processing your request.")
                await error_response(error)(scope, receive, send_named)
        finally:
            _LOG.info(
                "request",
                extra={
                    "request_id": request_id,
                    "method": scope["method"],
                    # As it is declared: what people put into paths is theirs.
                    "route": scope.get("nightrate.route") or getattr(scope.get("route"), "path", None),
                    "status": status,
                    "seconds": round(time.perf_counter() - started, 6),
                    **scope["state"].get("caller", {}),
                },
            )


class BoundedBody:
    """Refuses bodies that are too large, or that do not arrive; uploads have bounds of their own."""

    def __init__(self, app: ASGIApp, *, bytes_max: int, uploads: Mapping[re.Pattern[str], int]) -> None:
        """Pass on to `app` what is within bounds: `bytes_max`, and by path those of what is uploaded there."""
        self._app = app
        self._bytes_max = bytes_max
        self._uploads = uploads

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if "\x00" in scope["path"] or b"%00" in scope["query_string"]:
            await error_response(ApiError(400, "The request's URL holds a NUL character."))(scope, receive, send)
            return
        bytes_max = self._bound(scope)
        announced = dict(scope["headers"]).get(b"content-length", b"0")
        if announced.isdigit() and int(announced) > bytes_max:
            await error_response(_too_large(bytes_max))(scope, receive, send)
            return
        received = 0

        async def receive_bounded() -> Message:
            nonlocal received
            try:
                message = await asyncio.wait_for(receive(), _SILENCE_SECONDS_MAX)
            except TimeoutError:
                raise ApiError(408, "The request's body did not arrive in time.") from None
            received += len(message.get("body", b""))
            if received > bytes_max:
                raise _too_large(bytes_max)
            return message

        await self._app(scope, receive_bounded if scope["method"] in {"POST", "PUT", "PATCH"} else receive, send)

    def _bound(self, scope: Scope) -> int:
        if scope["method"] != "POST":
            return self._bytes_max
        path = scope["path"].rstrip("/")
        return next((bytes_max for of, bytes_max in self._uploads.items() if of.fullmatch(path)), self._bytes_max)


def _too_large(bytes_max: int) -> ApiError:
    return ApiError(413, f"The request's body is larger than {bytes_max} bytes.", code="request_too_large")
