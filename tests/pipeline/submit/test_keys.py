from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain.endpoints import Endpoint
from pipeline.submit import order
from pipeline.submit.fingerprint import leaders
from pipeline.submit.order import cuts, locality_order, prefix_key_of
from tests.pipeline.files import chat

halves = st.sampled_from([0, 1, 2, 2**63, 2**64 - 1])


@given(st.lists(st.tuples(halves, halves), max_size=60))
def test_the_leader_is_the_first_row_with_both_halves_equal(digests: list[tuple[int, int]]) -> None:
    found = leaders(np.array(digests, dtype=np.uint64).reshape(-1, 2))

    assert found.tolist() == [digests.index(digest) for digest in digests]


@given(st.lists(st.integers(1, 50), max_size=60), st.integers(1, 9), st.integers(50, 120))
def test_cuts_follow_on_one_another_and_are_as_long_as_allowed(lengths: list[int], rows: int, size: int) -> None:
    found = cuts(np.array(lengths, dtype=np.uint32), rows_max=rows, bytes_max=size)

    assert [row for start, stop in found for row in range(start, stop)] == list(range(len(lengths)))
    for start, stop in found:
        assert 1 <= stop - start <= rows
        assert sum(lengths[start:stop]) <= size
        is_last = stop == len(lengths)
        assert is_last or stop - start == rows or sum(lengths[start : stop + 1]) > size


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 5)), max_size=40))
def test_rows_are_ordered_by_the_longest_prefix_they_share_then_length_then_place(
    rows: list[tuple[int, int, int]],
) -> None:
    keys = [short << 32 | long for short, long, _ in rows]
    shorts = [short for short, _, _ in rows]
    wanted = [
        (0 if shorts.count(short) == 1 else short << 32 | (long if keys.count(key) > 1 else 0), length, place)
        for place, (key, (short, long, length)) in enumerate(zip(keys, rows, strict=True))
    ]
    lengths = np.array([length for _, _, length in rows], dtype=np.uint32)

    found = locality_order(np.array(keys, dtype=np.uint64), lengths)

    assert [wanted[place] for place in found.tolist()] == sorted(wanted)


def test_a_prefix_key_does_not_depend_on_what_was_seen_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(order, "_KNOWN_MAX", 3)
    bodies = [
        chat("x" * 2000),
        chat("a"),
        chat("b"),
        chat([{"type": "text", "text": "a"}]),
        chat("c"),
        chat("é" * 1024),
    ]
    keys = prefix_key_of(Endpoint.CHAT_COMPLETIONS)

    found = [keys(body) for body in bodies * 3]
    assert found == [prefix_key_of(Endpoint.CHAT_COMPLETIONS)(body) for body in bodies] * 3
    assert found[1] == found[3]
    assert len(set(found)) == 5


@pytest.mark.parametrize("shared", [64, 1024])
def test_texts_that_share_a_beginning_share_that_half_of_the_key(shared: int) -> None:
    key = prefix_key_of(Endpoint.COMPLETIONS)
    first, second = (key({"prompt": "p" * shared + end}) for end in ("x", "y"))

    assert first >> 32 == second >> 32
    assert (first == second) == (shared == 1024)
