import random
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.engine.encoder import packing
from workers.engine.encoder.costs import CostModel
from workers.engine.encoder.packing import BatchBounds, BatchCost, packed

LENGTHS = st.lists(st.integers(1, 40), min_size=1, max_size=9).map(sorted)
COSTS = st.builds(
    BatchCost, fixed=st.floats(0, 100), per_token=st.floats(0.01, 5), per_square=st.sampled_from((0.0, 0.01, 0.3))
)
BOUNDS = st.builds(BatchBounds, tokens_max=st.integers(1, 120), rows_max=st.integers(1, 6))


def seconds(batch: list[int], cost: BatchCost) -> float:
    longest = max(batch)
    return cost.fixed + len(batch) * (cost.per_token * longest + cost.per_square * longest * longest)


def fits(batch: list[int], bounds: BatchBounds) -> bool:
    return len(batch) == 1 or (len(batch) <= bounds.rows_max and len(batch) * max(batch) <= bounds.tokens_max)


def split(lengths: list[int], sizes: list[int]) -> list[list[int]]:
    ends = np.cumsum([0, *sizes])
    return [lengths[start:stop] for start, stop in pairwise(ends)]


def partitions(items: list[int]) -> list[list[list[int]]]:
    """Return every way to part the items into groups, consecutive or not."""
    if not items:
        return [[]]
    first, found = items[0], []
    for rest in partitions(items[1:]):
        found.append([[first], *rest])
        found += [[*rest[:i], [first, *rest[i]], *rest[i + 1 :]] for i in range(len(rest))]
    return found


@given(st.lists(st.integers(1, 40), min_size=1, max_size=6).map(sorted), COSTS, BOUNDS)
def test_no_way_at_all_to_group_the_texts_costs_less(lengths: list[int], cost: BatchCost, bounds: BatchBounds) -> None:
    batches = split(lengths, packed(lengths, cost, bounds))

    cheapest = min(
        sum(seconds(batch, cost) for batch in groups)
        for groups in partitions(lengths)
        if all(fits(batch, bounds) for batch in groups)
    )
    assert sum(seconds(batch, cost) for batch in batches) == pytest.approx(cheapest)


@given(LENGTHS, COSTS, BOUNDS)
def test_every_text_is_in_one_batch_within_the_bounds(lengths: list[int], cost: BatchCost, bounds: BatchBounds) -> None:
    batches = split(lengths, packed(lengths, cost, bounds))

    assert [length for batch in batches for length in batch] == lengths
    assert all(batch and fits(batch, bounds) for batch in batches)


def test_many_texts_are_packed_within_a_bound_of_work(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(3)
    lengths = sorted(min(512, round(rng.lognormvariate(3.2, 0.9)) + 1) for _ in range(3_000))
    cost, bounds = BatchCost(fixed=64, per_token=1), BatchBounds(tokens_max=2048, rows_max=512)
    exact = sum(seconds(batch, cost) for batch in split(lengths, packed(lengths, cost, bounds)))

    monkeypatch.setattr(packing, "ATOMS_MAX", 300)
    batches = split(lengths, packed(lengths, cost, bounds))

    assert all(len(batch) <= bounds.rows_max for batch in batches)
    assert exact <= sum(seconds(batch, cost) for batch in batches) <= 1.02 * exact


def test_no_texts_make_no_batches() -> None:
    assert packed([], BatchCost(fixed=1, per_token=1), BatchBounds(tokens_max=8, rows_max=8)) == []


def test_the_cost_of_batches_is_found_from_their_times() -> None:
    model, rng = CostModel(tokens_max=2048), random.Random(5)
    for _ in range(40):
        rows, length = rng.randint(1, 64), rng.randint(3, 256)
        time = 0.002 + 2e-6 * rows * length + 1e-9 * rows * length**2
        model.note(rows, length, time * rng.uniform(0.99, 1.01))

    cost = model.cost()

    assert cost.fixed == pytest.approx(0.002, rel=0.2)
    assert cost.per_token == pytest.approx(2e-6, rel=0.2)
    assert cost.per_square == pytest.approx(1e-9, rel=0.5)


def test_times_that_say_a_batch_is_free_never_make_a_cost_negative() -> None:
    model = CostModel(tokens_max=2048)
    for rows in range(1, 30):
        # Larger batches seem cheaper by the token, and the smallest cheaper than none.
        model.note(rows, 8, 1e-6 * rows * rows)

    cost = model.cost()

    assert cost.fixed >= 0
    assert cost.per_token > 0
    assert cost.per_square >= 0
