from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.submit.spool import RaggedColumn, Spool

numbers = st.lists(st.integers(0, 2**32 - 1), max_size=4)


@given(st.lists(st.lists(numbers, max_size=5), max_size=4), st.data())
def test_a_ragged_column_gives_each_row_its_own_numbers(
    tmp_path_factory: pytest.TempPathFactory, blocks: list[list[list[int]]], data: st.DataObject
) -> None:
    rows = [row for block in blocks for row in block]
    picked = data.draw(st.lists(st.sampled_from(range(len(rows))), max_size=8)) if rows else []
    with Spool(Path(tmp_path_factory.getbasetemp())) as spool:
        column = RaggedColumn(spool, "numbers")
        for block in blocks:
            column.extend(block)

        loaded = column.load(np.array(picked, dtype=np.int32))

        for index in range(5):
            found, has_one = loaded.at(index, np.arange(len(picked), dtype=np.int32))
            wanted = [rows[row][index] if len(rows[row]) > index else 0 for row in picked]
            assert found.tolist() == wanted
            assert has_one.tolist() == [len(rows[row]) > index for row in picked]
