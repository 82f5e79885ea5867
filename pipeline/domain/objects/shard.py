"""Shard: a slice of a batch's distinct requests, one JSON object a line, in scheduling order.

Each line is `{"line":N,"body":{…}}`: N is the request's 1-based line in the input file, `body` is
what the user sent, compact and with its keys in order. A row's position in the shard is its name everywhere else.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson


def encode_row(line_no: int, body_json: bytes) -> bytes:
    """Return the shard line for a request, newline included; `body_json` is compact JSON."""
    return b'{"line":%d,"body":%b}\n' % (line_no, body_json)


def decode_rows(content: bytes, ranges: tuple[tuple[int, int], ...]) -> Iterator[tuple[int, int, dict[str, Any]]]:
    """Yield (position, input line, body) for the positions in the half-open, sorted `ranges`."""
    lines = content.split(b"\n")
    for start, stop in ranges:
        for position in range(start, stop):
            row = orjson.loads(lines[position])
            yield position, row["line"], row["body"]
