"""What a file that is no JSONL looks like, so that it gets one clear error instead of a million."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import orjson

#: How much of the file's start is looked at, in bytes and in lines.
HEAD_BYTES: Final = 64 * 1024
_LINES_MAX: Final = 8

_MAGIC: Final[Sequence[tuple[bytes, str]]] = (
    (b"\x1f\x8b", "a gzip archive"),
    (b"PK\x03\x04", "a zip archive"),
    (b"PAR1", "a Parquet file"),
    (b"\x28\xb5\x2f\xfd", "a zstd archive"),
    (b"BZh", "a bzip2 archive"),
    (b"\xfd7zXZ\x00", "an xz archive"),
    (b"ARROW1", "an Arrow file"),
    (b"SQLite format 3\x00", "an SQLite database"),
    (b"%PDF-", "a PDF document"),
    (b"\xff\xfe", "UTF-16 text"),
    (b"\xfe\xff", "UTF-16 text"),
    (b"{\x00", "UTF-16 text"),
    (b"\x00{", "UTF-16 text"),
)
_SEPARATORS: Final = (b",", b"\t", b";")


def named(head: bytes) -> str | None:
    """Return what the file beginning with `head` looks like, or None where it may be JSONL.

    One line among the first that is a JSON object is enough for None: the bad ones are then named each. Only
    after a bracket alone it proves nothing, since the last element of an array has no comma.
    """
    for magic, name in _MAGIC:
        if head.startswith(magic):
            return name
    whole = [line.strip() for line in head.removeprefix(b"\xef\xbb\xbf").splitlines()]
    lines = [line for line in whole if line][:_LINES_MAX]
    if not lines or (lines[0] != b"[" and any(_is_object(line) for line in lines)):
        return None
    if lines[0].startswith(b"["):
        return "a JSON array (write one object a line, without brackets and commas around them)"
    if lines[0] == b"{" and len(lines) > 1:
        return "JSON spread over several lines (write each object on one line)"
    if lines[0].startswith(b"<"):
        return "XML or HTML"
    return "a table of values (CSV)" if _is_table(lines) else None


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(orjson.loads(line), dict)
    except orjson.JSONDecodeError:
        return False


def _is_table(lines: Sequence[bytes]) -> bool:
    first, *others = lines
    if not others or any(line.startswith(b"{") for line in lines):
        return False
    return any(first.count(each) == others[0].count(each) > 0 for each in _SEPARATORS)
