"""Roster: who asked for what, in input order, so that results come back in the user's order.

One line a request: `shard_no position custom_id`, the custom id as JSON. A duplicate names its
leader's row. A request refused at intake has shard number -1, and its position counts the rows of
the refusals part.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

#: The shard number of rows that were refused at intake.
REFUSED_SHARD_NO: Final = -1


def encode_roster(rows: Iterable[tuple[int, int, bytes]]) -> bytes:
    """Return the roster's content for (shard_no, position, custom_id as JSON) in input order."""
    return b"".join(b"%d %d %b\n" % row for row in rows)


def decode_roster(content: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Yield (shard_no, position, custom_id as JSON) in input order."""
    for line in content.splitlines():
        shard_no, position, custom_id = line.split(b" ", 2)
        yield int(shard_no), int(position), custom_id
