"""Errors on the wire: OpenAI's envelope, whatever went wrong."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final

import orjson
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from pipeline.domain.errors import (
    BatchLimitError,
    ConflictError,
    NightrateError,
    NotFoundError,
    ObjectMissingError,
    RefusedError,
    StoreUnavailableError,
    UsageError,
)
from pipeline.entrypoints.http.openapi import methods_at

_LOG = logging.getLogger(__name__)
_RETRY_SECONDS: Final = 2

#: What a client may make of each status; a status that is not listed is our own fault.
_TYPES: Final[Mapping[int, str]] = {
    400: "invalid_request_error",
    401: "invalid_request_error",
    403: "invalid_request_error",
    404: "invalid_request_error",
    405: "invalid_request_error",
    408: "invalid_request_error",
    409: "invalid_request_error",
    413: "invalid_request_error",
    415: "invalid_request_error",
    416: "invalid_request_error",
    422: "invalid_request_error",
    429: "rate_limit_error",
}
_BAD_REQUEST: Final = 400
_SERVER_ERROR: Final = 500


class ApiError(NightrateError):
    """An answer other than the one that was asked for."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Answer `status`; `should_retry` and the like are headers."""
        super().__init__(message)
        self.status = status
        self.wire_code = code
        self.param = param
        self.headers = dict(headers or {})


#: Tells OpenAI's SDK that trying again would change nothing: it would try again after a 409 or a 429.
NO_RETRY: Final[Mapping[str, str]] = {"x-should-retry": "false"}


def envelope(status: int, message: str, *, code: str | None = None, param: str | None = None) -> dict[str, object]:
    """Return the body of an error."""
    kind = _TYPES.get(status, "server_error")
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def error_response(error: ApiError) -> Response:
    """Return an error as a response."""
    body = envelope(error.status, error.message, code=error.wire_code, param=error.param)
    return Response(orjson.dumps(body), status_code=error.status, headers=error.headers, media_type="application/json")


def install(app: FastAPI) -> None:
    """Let `app` answer every error in the envelope."""
    app.add_exception_handler(NightrateError, _on_known)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http)


def to_api_error(error: NightrateError) -> ApiError:
    """Return what a client hears of an error of ours."""
    if isinstance(error, ApiError):
        return error
    status, message = _told(error)
    headers: Mapping[str, str] = NO_RETRY if status in {HTTPStatus.CONFLICT, HTTPStatus.TOO_MANY_REQUESTS} else {}
    if isinstance(error, StoreUnavailableError):
        headers = {"Retry-After": str(_RETRY_SECONDS)}
    code = None if isinstance(error, NotFoundError | ConflictError) else error.code
    return ApiError(status, message, code=code, headers=headers)


def _told(error: NightrateError) -> tuple[int, str]:
    """Return the status and what is said with it."""
    match error:
        case ObjectMissingError():
            return _SERVER_ERROR, "The file's content is missing."
        case NotFoundError():
            return HTTPStatus.NOT_FOUND, error.message
        case ConflictError() | BatchLimitError():
            is_limit = isinstance(error, BatchLimitError)
            return HTTPStatus.TOO_MANY_REQUESTS if is_limit else HTTPStatus.CONFLICT, error.message
        case RefusedError() | UsageError():
            return _BAD_REQUEST, f"{error.message} ({error.hint})" if error.hint else error.message
        case StoreUnavailableError():
            return HTTPStatus.SERVICE_UNAVAILABLE, "The service cannot be reached now; try again."
        case _:
            return _SERVER_ERROR, "The server had an error while processing your request."


async def _on_known(request: Request, error: Exception) -> Response:
    assert isinstance(error, NightrateError)
    return known_response(request, error)


def known_response(request: Request, error: NightrateError) -> Response:
    """Return what an error of ours is answered with; the log hears of those that are our fault."""
    answer = to_api_error(error)
    if answer.status >= _SERVER_ERROR:
        _LOG.warning("request_failed", extra={"path": request.url.path, "reason": f"{error.code}: {error}"})
    return error_response(answer)


async def _on_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    headers = dict(error.headers or {})
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        # The framework names the methods of the first route of the path alone.
        headers["Allow"] = methods_at(request.app, request.url.path) or headers.get("Allow", "GET")
    return error_response(ApiError(error.status_code, str(error.detail), headers=headers))


async def _on_invalid(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return error_response(invalid(error.errors()))


#: JSON's names of what Python has.
_KINDS: Final = (
    (bool, "a boolean"),
    (int, "an integer"),
    (float, "a number"),
    (str, "a string"),
    (list, "an array"),
    (dict, "an object"),
)
_EXPECTED: Final[Mapping[str, str]] = {
    "string_type": "a string",
    "int_type": "an integer",
    "int_from_float": "an integer",
    "int_parsing": "an integer",
    "float_type": "a number",
    "bool_type": "a boolean",
    "bool_parsing": "a boolean",
    "dict_type": "an object",
    "model_type": "an object",
    "model_attributes_type": "an object",
    "list_type": "an array",
}


def invalid(problems: Sequence[Any]) -> ApiError:
    """Return the first of pydantic's problems in OpenAI's words."""
    problem = problems[0]
    place = [str(step) for step in problem["loc"]]
    param = ".".join(place[1:] if place and place[0] in {"body", "query", "path", "header", "form"} else place) or None
    code, message = _fault(problem, param)
    return ApiError(_BAD_REQUEST, message, code=code, param=param)


def _fault(problem: Any, param: str | None) -> tuple[str | None, str]:  # noqa: ANN401 -- pydantic's own, untyped
    """Return the code and the sentence for one of pydantic's problems."""
    given = problem.get("input")
    code: str | None
    match problem["type"]:
        case "missing":
            said = f"Missing required parameter: '{param}'." if param else "The request has no body."
            code = "missing_required_parameter"
        case "extra_forbidden":
            code, said = "unknown_parameter", f"Unknown parameter: '{param}'."
        case "json_invalid":
            code, said = None, "The body is not parseable as JSON."
        case "enum" | "literal_error":
            expected = str(problem.get("ctx", {}).get("expected", ""))
            code, said = "invalid_value", f"Invalid value: {_shown(given)}. Supported values are: {expected}."
        case kind if kind in _EXPECTED:
            said = f"Invalid type for '{param}': expected {_EXPECTED[kind]}, but got {_kind_of(given)} instead."
            code = "invalid_type"
        case _:
            said = f"Invalid value for '{param}': {str(problem['msg']).removeprefix('Value error, ')}."
            code = "invalid_value"
    return code, said


def _kind_of(value: object) -> str:
    return next((name for kind, name in _KINDS if isinstance(value, kind)), "null")


def _shown(value: object) -> str:
    return f"'{value}'" if isinstance(value, str) else repr(value)
