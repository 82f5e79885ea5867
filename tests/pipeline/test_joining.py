"""Parts read as one file, from anywhere."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.app.joining import Joined
from pipeline.domain.errors import ObjectCorruptError
from pipeline.domain.ids import UploadId, UploadPartId
from pipeline.ports.uploads import UploadPart
from tests.pipeline.memory import MemoryStore


def joined(*contents: bytes, damaged: dict[int, bytes] | None = None) -> Joined:
    store = MemoryStore()
    parts = []
    for number, content in enumerate(contents):
        store.contents[f"part-{number}"] = (damaged or {}).get(number, content)
        parts.append(
            UploadPart(
                part_id=UploadPartId(f"upart_{number}"),
                upload_id=UploadId("upload_1"),
                object_key=f"part-{number}",
                size_bytes=len(content),
                sha256=hashlib.sha256(content).hexdigest(),
                created_at=datetime(2026, 11, 22, tzinfo=UTC),
            )
        )
    return Joined(parts, store)


contents = st.lists(st.binary(min_size=1, max_size=20), min_size=1, max_size=6)
steps = st.lists(st.tuples(st.integers(0, 120), st.integers(1, 50)), max_size=8)


@given(contents, steps)
def test_it_reads_like_the_file_that_the_parts_make(parts: list[bytes], reads: list[tuple[int, int]]) -> None:
    whole = b"".join(parts)

    with joined(*parts).buffered() as file:
        for start, length in reads:
            file.seek(start)
            assert file.read(length) == whole[start : start + length]
        assert file.seek(0, 2) == len(whole)
        file.seek(0)
        assert file.read() == whole
        assert isinstance(file.raw, Joined)
        assert file.raw.md5 == hashlib.md5(whole, usedforsecurity=False).hexdigest()


def test_its_md5_is_not_known_before_all_was_read() -> None:
    source = joined(b"abc", b"def")

    assert source.md5 is None
    source.seek(4)
    assert source.readall() == b"ef"
    assert source.md5 is None


@pytest.mark.parametrize("damage", [b"axc", b"ab"])
def test_a_part_that_is_damaged_or_shorter_is_noticed(damage: bytes) -> None:
    with joined(b"000", b"abc", b"111", damaged={1: damage}).buffered() as file, pytest.raises(ObjectCorruptError):
        file.read()
