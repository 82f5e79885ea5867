"""The file a person names: looked at before anything starts, so that a wrong one is said at once."""

from __future__ import annotations

import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO, Final

import orjson

from pipeline.domain.endpoints import Endpoint
from pipeline.domain.errors import NotFoundError, RefusedError, UsageError
from pipeline.domain.limits import FILE_BYTES_MAX, LINE_BYTES_MAX
from pipeline.submit.looks import HEAD_BYTES, named

STDIN: Final = "-"
_BLOCK_BYTES: Final = 1024 * 1024
_BLANK_LINES_MAX: Final = 1000
_BOM: Final = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """A file to submit."""

    path: Path
    #: What messages and result files are named after.
    name: str
    endpoint: Endpoint


@contextmanager
def opened_input(given: str, *, endpoint: str | None) -> Iterator[Input]:
    """Yield a regular file with the requests of `given`, a pipe's copied; raises `UsageError` where it cannot be one.

    `endpoint` None takes the first line's url.
    """
    if given == STDIN:
        if sys.stdin.isatty():
            raise UsageError("stdin is a terminal", hint="nightrate run - < requests.jsonl")
        with _spooled(sys.stdin.buffer, "stdin.jsonl") as path:
            yield _looked_at(path, "stdin", endpoint)
        return
    path = Path(given)
    try:
        kind = path.stat().st_mode
    except FileNotFoundError as error:
        raise NotFoundError(f"there is no file {given}") from error
    if stat.S_ISDIR(kind):
        raise UsageError(f"{given} is a folder", hint="name one file of requests")
    if stat.S_ISREG(kind):
        yield _looked_at(path, given, endpoint)
        return
    with path.open("rb") as source, _spooled(source, f"{path.name}.jsonl") as copy:
        yield _looked_at(copy, given, endpoint)


@contextmanager
def _spooled(source: BinaryIO, name: str) -> Iterator[Path]:
    with TemporaryDirectory(prefix="nightrate-input-") as folder:
        path = Path(folder) / name
        with path.open("wb") as copy:
            while block := source.read(_BLOCK_BYTES):
                copy.write(block)
                if copy.tell() > FILE_BYTES_MAX:
                    raise RefusedError(f"the input is larger than {FILE_BYTES_MAX} bytes", hint="split it")
        yield path


def _looked_at(path: Path, name: str, endpoint: str | None) -> Input:
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
