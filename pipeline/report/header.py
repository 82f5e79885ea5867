"""Reading a part's header in bounded memory: the refusals part may have one of a hundred megabytes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO, Final

import numpy as np
import orjson
from numpy.typing import NDArray

from pipeline.domain.errors import ObjectCorruptError

_CHUNK_BYTES: Final = 1024 * 1024
_OPENING: Final = b'{"rows":['
_CLOSING: Final = b"]}\n"
_COLUMNS: Final = 3


def read_header(key: str, part: BinaryIO) -> NDArray[np.int64]:
    """Read the first line of `part`, the object `key`: one (shard_no, position, succeeded) for each result.

    Raises:
        ObjectCorruptError: It is no header.
    """
    header = part.readline()
    if not header.startswith(_OPENING) or not header.endswith(_CLOSING):
        raise ObjectCorruptError(f"part {key!r} has no header")
    try:
        chunks = [_numbers(chunk) for chunk in _chunks(header)]
    except (orjson.JSONDecodeError, ValueError, TypeError) as error:
        raise ObjectCorruptError(f"part {key!r} has a header that makes no sense") from error
    return np.concatenate(chunks) if chunks else np.empty((0, _COLUMNS), dtype=np.int64)


def _chunks(header: bytes) -> Iterator[bytes]:
    """Yield the rows of the header in several pieces, each short: cut where one row ends and the next begins."""
    start, stop = len(_OPENING), len(header) - len(_CLOSING)
    while start < stop:
        cut = header.find(b"],[", start + _CHUNK_BYTES, stop)
        end = stop if cut < 0 else cut + 1
        yield header[start:end]
        start = end + 1


def _numbers(rows: bytes) -> NDArray[np.int64]:
    # Without the inner brackets it is one list of numbers: ten times as quick to read as a list a row.
    return np.array(orjson.loads(b"[%b]" % rows.translate(None, b"[]")), dtype=np.int64).reshape(-1, _COLUMNS)
