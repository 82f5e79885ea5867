"""What servers answer instead of what was asked for, as errors of the command line."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final

from pipeline.domain.errors import ConflictError, NightrateError, NotFoundError, RefusedError, UsageError

_MESSAGE_CHARS_MAX: Final = 1000
_KEY_HINT: Final = "the key is --api-key, or NIGHTRATE_API_KEY, or `api_key` of nightrate.toml, in this order"


_BAD_REQUEST: Final = 400
_REDIRECTION: Final = range(300, 400)
_CLIENT_ERROR: Final = range(400, 500)


class ServerUnavailableError(NightrateError):
    """The server cannot be reached, or cannot answer now."""

    code = "server_unavailable"
    retryable = True


class ServerAnswerError(NightrateError):
    """The server answered what no server of Nightrate answers."""

    code = "server_answer"


class AccessError(RefusedError):
    """The server does not take this API key, or not for this."""

    code = "access"


class RateLimitedError(RefusedError):
    """The server takes no more requests of this key now."""

    code = "rate_limited"


class InputRefusedError(RefusedError):
    """The server says what is wrong with what it was sent."""

    code = "input_refused"

    def __init__(self, message: str, *, wire_code: str | None, param: str | None) -> None:
        """Keep the server's own code, and the field that it means."""
        super().__init__(message)
        self.wire_code = wire_code
        self.param = param


#: Statuses that mean more than whose fault it is.
_KINDS: Final[Mapping[int, tuple[type[NightrateError], str | None]]] = {
    401: (AccessError, _KEY_HINT),
    403: (AccessError, _KEY_HINT),
    404: (NotFoundError, None),
    408: (ServerUnavailableError, None),
    409: (ConflictError, None),
    413: (RefusedError, None),
    422: (ConflictError, None),
    429: (RateLimitedError, None),
}


def error_of(status: int, body: bytes, where: str) -> NightrateError:
    """Return the error that an answer with this status is; `where` is the server."""
    envelope = _envelope(body)
    message = envelope.get("message") or f"{where} answered {status}"
    code = envelope.get("code")
    if status == _BAD_REQUEST and code != UsageError.code:
        return InputRefusedError(message, wire_code=code, param=envelope.get("param"))
    if status in _KINDS:
        kind, hint = _KINDS[status]
        return kind(message, hint=hint)
    if status in _REDIRECTION:
        return ServerAnswerError(f"{where} sends elsewhere ({status})", hint="give the URL that it sends to as --url")
    if status in _CLIENT_ERROR:
        return UsageError(message)
    return ServerUnavailableError(f"{message} ({status})" if envelope else message)


def _envelope(body: bytes) -> dict[str, str]:
    """Return what OpenAI's envelope says, as far as it is one; control characters are no part of it."""
    try:
        error = json.loads(body)["error"]
        return {
            name: "".join(sign if sign.isprintable() else " " for sign in value)[:_MESSAGE_CHARS_MAX]
            for name in ("message", "code", "param")
            if isinstance(value := error.get(name), str)
        }
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return {}
