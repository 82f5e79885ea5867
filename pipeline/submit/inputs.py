"""A file of requests before it is submitted: what its beginning says, so that a wrong one is said at once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

import orjson

from pipeline.domain.endpoints import Endpoint
from pipeline.domain.errors import UsageError
from pipeline.domain.limits import LINE_BYTES_MAX
from pipeline.submit.looks import HEAD_BYTES, named

_BLANK_LINES_MAX: Final = 1000
_BOM: Final = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """A file to submit."""

    path: Path
    #: What messages and result files are named after.
    name: str
    endpoint: Endpoint


def looked_at(path: Path, name: str, endpoint: str | None) -> Input:
    """Return the file as an input, having looked at its beginning; raises `UsageError` where it cannot be one.

    `endpoint` None takes the first line's url.
    """
    with path.open("rb") as source:
        head = source.read(HEAD_BYTES)
        look = named(head) or ("a binary file" if b"\x00" in head else None)
        if look is not None:
            raise UsageError(f"{name} looks like {look}", hint="JSONL is wanted: one request object a line")
        source.seek(0)
        line_no, line = _first_line(source)
    if not line:
        raise UsageError(f"{name} has no requests", hint="JSONL is wanted: one request object a line")
    if endpoint is None:
        return Input(path=path, name=name, endpoint=_endpoint_in(line, f"line {line_no} of {name}"))
    return Input(path=path, name=name, endpoint=parse_endpoint(endpoint))


def parse_endpoint(text: str) -> Endpoint:
    """Return the endpoint of that path, or raise `UsageError` naming those there are."""
    try:
        return Endpoint(text)
    except ValueError as error:
        raise UsageError(f"{text!r} is not an endpoint", hint=f"there are {', '.join(Endpoint)}") from error


def _first_line(source: BinaryIO) -> tuple[int, bytes]:
    for line_no in range(1, _BLANK_LINES_MAX + 1):
        line = source.readline(LINE_BYTES_MAX + 1)
        if not line or line.removeprefix(_BOM).strip():
            return line_no, line.removeprefix(_BOM).strip()
    return _BLANK_LINES_MAX, b""


def _endpoint_in(line: bytes, where: str) -> Endpoint:
    hint = "say which with --endpoint, and the batch will list what is wrong line by line"
    try:
        request = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise UsageError(f"{where} is not JSON: {error}", hint="JSONL is wanted: one request object a line") from error
    url = request.get("url") if isinstance(request, dict) else None
    if url is None:
        raise UsageError(f"{where} has no url to take the endpoint from", hint=hint)
    try:
        return Endpoint(url)
    except (ValueError, TypeError) as error:
        raise UsageError(
            f"the url {url!r} in {where} is no endpoint", hint=f"there are {', '.join(Endpoint)}"
        ) from error
