"""The bounded line reader: a file of any shape is read in memory of one block and one line."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Final

#: One read. Its lines stay in the cache until they are parsed, and buffers of this size are used again
#: where larger ones are returned to the system and faulted in anew.
BLOCK_BYTES: Final = 32 * 1024


@dataclass(frozen=True, slots=True)
class LineBlock:
    """Lines that ended in one block, their newlines removed; None stands for a line past the bound."""

    #: 1-based number of the first line here.
    first_line_no: int
    lines: list[bytes | None]
    #: Whether the last line here is the end of a file that does not end with a newline.
    is_cut: bool
    #: Bytes of the file read so far.
    bytes_read: int


def read_lines(source: BinaryIO, *, line_bytes_max: int, block_bytes: int = BLOCK_BYTES) -> Iterator[LineBlock]:
    """Yield every line of `source` in order, holding at most one block and `line_bytes_max` bytes of a line.

    A line longer than `line_bytes_max` (its newline not counted) is dropped as it is read. A short read is
    not taken for the end, so pipes and sockets work. Errors of `source` pass through.
    """
    block_bytes = min(block_bytes, line_bytes_max)  # so that only a line that crosses blocks can be too long
    line_no = 1
    bytes_read = 0
    held: list[bytes] = []
    held_bytes = 0
    while block := source.read(block_bytes):
        bytes_read += len(block)
        lines: list[bytes | None] = [*block.split(b"\n")]
        tail = lines.pop()
        assert tail is not None
        if lines:
            head_bytes = held_bytes + len(lines[0] or b"")
            lines[0] = None if head_bytes > line_bytes_max else b"".join((*held, lines[0] or b""))
            yield LineBlock(line_no, lines, is_cut=False, bytes_read=bytes_read)
            line_no += len(lines)
            held, held_bytes = [], 0
        held_bytes += len(tail)
        if held_bytes > line_bytes_max:
            held.clear()
        elif tail:
            held.append(tail)
    if held_bytes:
        last = None if held_bytes > line_bytes_max else b"".join(held)
        yield LineBlock(line_no, [last], is_cut=True, bytes_read=bytes_read)
