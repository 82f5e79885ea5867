from __future__ import annotations

import re
import time
import uuid

import pytest

from pipeline.domain import ids


def test_an_id_says_what_it_is_of() -> None:
    for make, prefix in (
        (ids.new_file_id, "file"),
        (ids.new_batch_id, "batch"),
        (ids.new_pack_id, "pack"),
        (ids.new_part_id, "part"),
        (ids.new_worker_id, "wrk"),
    ):
        assert re.fullmatch(prefix + "_[0-9a-f]{32}", make())


def test_a_uuid7_is_one_by_the_standard_and_holds_the_time() -> None:
    before = time.time_ns() // 1_000_000
    made = ids.uuid7()
    after = time.time_ns() // 1_000_000

    assert (made.version, made.variant) == (7, uuid.RFC_4122)
    assert before <= made.int >> 80 <= after


def test_ids_do_not_repeat() -> None:
    assert len({ids.new_pack_id() for _ in range(10_000)}) == 10_000


def test_later_ids_sort_after_earlier_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(1_800_000_000_000_000_000, 1_800_000_001_000_000_000, 1_000_000))
    monkeypatch.setattr(ids.time, "time_ns", lambda: next(clock))

    made = [ids.new_batch_id() for _ in range(1000)]

    assert made == sorted(made)


def test_every_random_bit_is_used_and_the_fixed_ones_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for byte, expected in ((b"\x00", "7000-8000-000000000000"), (b"\xff", "7fff-bfff-ffffffffffff")):
        monkeypatch.setattr(ids.os, "urandom", lambda count, byte=byte: byte * count)
        assert str(ids.uuid7()).endswith(expected)
