from __future__ import annotations

import subprocess
import sys
from io import BytesIO
from typing import BinaryIO, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.submit.lines import read_lines


class Trickle:
    """A source that gives fewer bytes than asked for, like a pipe."""

    def __init__(self, content: bytes, size: int) -> None:
        self._rest = BytesIO(content)
        self._size = size

    def read(self, size: int) -> bytes:
        return self._rest.read(min(size, self._size))


def lines_of(
    content: bytes, *, line_bytes_max: int = 100, block_bytes: int = 16, trickle: int = 16
) -> list[bytes | None]:
    source = cast("BinaryIO", Trickle(content, trickle))
    found: list[bytes | None] = []
    for block in read_lines(source, line_bytes_max=line_bytes_max, block_bytes=block_bytes):
        assert block.first_line_no == len(found) + 1
        found += block.lines
    return found


@given(st.binary(max_size=300), st.integers(1, 40), st.integers(1, 40), st.integers(1, 40))
def test_lines_are_those_of_split_whatever_the_blocks(content: bytes, line_max: int, block: int, trickle: int) -> None:
    whole = content.split(b"\n")
    if not whole[-1]:
        whole.pop()
    wanted = [each if len(each) <= line_max else None for each in whole]

    assert lines_of(content, line_bytes_max=line_max, block_bytes=block, trickle=trickle) == wanted


@pytest.mark.parametrize(("content", "is_cut"), [(b"a\nb", True), (b"a\nb\n", False), (b"a", True), (b"\n", False)])
def test_only_a_last_line_without_newline_is_cut(content: bytes, is_cut: bool) -> None:  # noqa: FBT001  # a table's column
    *before, last = read_lines(BytesIO(content), line_bytes_max=100)

    assert last.is_cut is is_cut
    assert not any(block.is_cut for block in before)


def test_a_line_of_exactly_the_bound_is_read() -> None:
    assert lines_of(b"x" * 100 + b"\n" + b"y" * 101 + b"\n") == [b"x" * 100, None]


def test_a_line_of_a_gigabyte_is_refused_in_little_memory() -> None:
    # A process of its own, because the peak of this one may be higher already.
    script = """
import io, resource, tempfile
from pathlib import Path
from tests.pipeline.files import MODELS, claim_of, line
from tests.pipeline.memory import MemoryStore
from pipeline.submit.intake import take_in
class Huge:
    left = 1 << 30
    tail = io.BytesIO(b"\\n" + line() + b"\\n")
    def read(self, size):
        count = min(size, self.left)
        self.left -= count
        if self.left == (1 << 30) - count:
            return b"{" + b"[" * (count - 1)
        return b"[" * count or self.tail.read(size)
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
with tempfile.TemporaryDirectory() as folder:
    take_in(claim_of(), io.BytesIO(b"x"), MemoryStore(), models=MODELS, spool_folder=Path(folder))
    before = peak()
    outcome = take_in(claim_of(), Huge(), MemoryStore(), models=MODELS, spool_folder=Path(folder))
    assert [(e.code, e.line) for e in outcome.errors] == [("line_too_long", 1)], outcome
    assert outcome.rows_total == 2
    print(peak() - before)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert int(done.stdout) < 32
