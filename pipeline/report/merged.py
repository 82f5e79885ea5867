"""Merged results: each request as it was submitted, with what was answered beside it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import BinaryIO, Final

import orjson

from pipeline.domain.errors import ObjectCorruptError
from pipeline.report.lines import ResultLine

_OURS: Final = ("id", "response", "error")
_QUOTED: Final = tuple(f'"{key}"'.encode() for key in _OURS)


def merged_lines(source: BinaryIO, results: Iterable[ResultLine]) -> Iterator[bytes]:
    """Yield a line for each result: the input's own bytes, then `id`, `response` and `error`.

    Keys of these names that the input has give way to ours. Both are read once, in the order of the input.

    Raises:
        ObjectCorruptError: The input has not the requests that the results are of.
    """
    requests = _requests(source)
    for result in results:
        for request_no, line in requests:
            if request_no == result.request_no:
                yield _merged(line, result)
                break
        else:
            raise ObjectCorruptError(f"the input has no request {result.request_no}, which has a result")


def _requests(source: BinaryIO) -> Iterator[tuple[int, bytes]]:
    request_no = 0
    for written in source:
        # As intake counts them: blank lines are none.
        line = written.strip(b" \t\r\n")
        if line:
            request_no += 1
            yield request_no, line


def _merged(line: bytes, result: ResultLine) -> bytes:
    if any(key in line for key in _QUOTED):
        line = _without_ours(line)
    own_id = result.line[: result.line.index(b",")].removeprefix(b"{")
    return b"%b,%b,%b" % (line[:-1].rstrip(), own_id, result.rest)


def _without_ours(line: bytes) -> bytes:
    """Return the line without keys of our names; only such a line is written anew."""
    row = orjson.loads(line)
    if not any(key in row for key in _OURS):
        return line
    return orjson.dumps({key: value for key, value in row.items() if key not in _OURS})
