"""The file a person names: looked at before anything starts, so that a wrong one is said at once."""

from __future__ import annotations

import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO, Final

from pipeline.domain.errors import NotFoundError, RefusedError, UsageError
from pipeline.domain.limits import FILE_BYTES_MAX
from pipeline.submit.inputs import Input, looked_at

STDIN: Final = "-"
_BLOCK_BYTES: Final = 1024 * 1024


@contextmanager
def opened_input(given: str, *, endpoint: str | None) -> Iterator[Input]:
    """Yield a regular file with the requests of `given`, a pipe's copied; raises `UsageError` where it cannot be one.

    `endpoint` None takes the first line's url.
    """
    if given == STDIN:
        if sys.stdin.isatty():
            raise UsageError("stdin is a terminal", hint="nightrate run - < requests.jsonl")
        with _spooled(sys.stdin.buffer, "stdin.jsonl") as path:
            yield looked_at(path, "stdin", endpoint)
        return
    path = Path(given)
    try:
        kind = path.stat().st_mode
    except FileNotFoundError as error:
        raise NotFoundError(f"there is no file {given}") from error
    if stat.S_ISDIR(kind):
        raise UsageError(f"{given} is a folder", hint="name one file of requests")
    if stat.S_ISREG(kind):
        yield looked_at(path, given, endpoint)
        return
    with path.open("rb") as source, _spooled(source, f"{path.name}.jsonl") as copy:
        yield looked_at(copy, given, endpoint)


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
