from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.submit.fingerprint import leaders

halves = st.sampled_from([0, 1, 2, 2**63, 2**64 - 1])


@given(st.lists(st.tuples(halves, halves), max_size=60))
def test_the_leader_is_the_first_row_with_both_halves_equal(digests: list[tuple[int, int]]) -> None:
    found = leaders(np.array(digests, dtype=np.uint64).reshape(-1, 2))

    assert found.tolist() == [digests.index(digest) for digest in digests]
