"""Beginnings that two rows have in common."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as some

from workers.engine.torch_chat.prefixes import shared_tokens

TOKENS = some.lists(some.integers(0, 2), max_size=40)


@given(TOKENS, TOKENS, TOKENS.filter(bool))
def test_the_leading_tokens_that_are_equal_are_counted_and_one_is_left(
    common: list[int], other: list[int], rest: list[int]
) -> None:
    sequence, other = common + rest, common + other
    unequal = (i for i, (a, b) in enumerate(zip(sequence, other, strict=False)) if a != b)
    equal = next(unequal, min(len(sequence), len(other)))

    assert shared_tokens(sequence, other) == min(equal, len(sequence) - 1)


def test_a_row_shares_all_but_its_last_token_with_its_like() -> None:
    assert shared_tokens([1, 2, 3], [1, 2, 3]) == 2
    assert shared_tokens([1, 2, 3], [1, 2, 3, 4]) == 2
    assert shared_tokens([1], [1]) == 0
