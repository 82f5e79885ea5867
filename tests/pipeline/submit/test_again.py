from __future__ import annotations

import io
import json

import pytest

from pipeline.domain.errors import ObjectCorruptError
from pipeline.submit.again import RowsAgain


def error_file(*custom_ids: str) -> io.BytesIO:
    lines = (json.dumps({"id": "x", "custom_id": custom_id, "response": None}) for custom_id in custom_ids)
    return io.BytesIO("".join(f"{line}\n" for line in lines).encode())


def test_those_that_the_error_file_names_run_again() -> None:
    again = RowsAgain.read(error_file("row-1", 'a "quoted" one', "größer"))

    assert len(again) == 3
    assert again.has(["row-0", "row-1", 'a "quoted" one', "größer", "row-11"]) == [False, True, True, True, False]
    assert again.has([]) == []


def test_an_empty_error_file_names_nobody() -> None:
    assert RowsAgain.read(io.BytesIO(b"")).has(["row-1"]) == [False]


def test_many_are_told_apart() -> None:
    again = RowsAgain.read(error_file(*(f"row-{number}" for number in range(0, 20_000, 2))))

    found = again.has([f"row-{number}" for number in range(20_000)])

    assert found == [number % 2 == 0 for number in range(20_000)]


@pytest.mark.parametrize("content", [b"no json\n", b'{"id":"x"}\n', b"[1]\n"])
def test_what_is_no_error_file_is_damaged(content: bytes) -> None:
    with pytest.raises(ObjectCorruptError):
        RowsAgain.read(io.BytesIO(content))
