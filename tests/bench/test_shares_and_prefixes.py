"""The arithmetic of the benchmarks of the policy and of prefix orders, on cases small enough to do by hand."""

from __future__ import annotations

import pytest

from pipeline.domain.ids import BatchId, TenantId
from tests.bench import fair_shares
from tests.bench.bench_policy import request
from tests.bench.bench_prefix_order import by_whole_prefix, hit_share, intakes_order, share_in

ARRIVALS = (request(0, 0.0, "0", 1, 1), request(1, 0.0, "1", 1, 1), request(2, 10.0, "1", 1, 1))
COSTS = {BatchId("batch_00000"): 10.0, BatchId("batch_00001"): 4.0, BatchId("batch_00002"): 10.0}


def test_a_fluid_fleet_is_shared_evenly_by_all_who_have_work() -> None:
    found = fair_shares.fluid(ARRIVALS, COSTS, workers=1, until_seconds=14.0)

    # Until 8 s both get half, then the first alone until the other is back at 10 s.
    assert found == pytest.approx({TenantId("tnt_00"): 4 + 2 + 2, TenantId("tnt_01"): 4 + 2})


def test_first_come_is_first_served() -> None:
    found = fair_shares.first_come(ARRIVALS, COSTS, workers=1, until_seconds=16.0)

    assert found == pytest.approx({TenantId("tnt_00"): 10.0, TenantId("tnt_01"): 6.0})


def test_a_block_is_hit_while_all_blocks_before_it_are_in_the_cache() -> None:
    requests = [(1, 2, 3), (1, 2, 4), (9, 2), (1, 2, 3)]

    assert hit_share(requests, blocks=100) == (0 + 2 + 0 + 3) / 11
    assert hit_share(requests, blocks=2) == 0.0


def test_orders_by_prefix_put_those_together_that_share_one() -> None:
    requests = [(1, 5), (2, 6), (1, 5, 7), (2, 8), (1, 9)]

    assert by_whole_prefix(requests) == [0, 2, 4, 1, 3]
    assert intakes_order(requests, text_bytes=2203).permutation.tolist() == [4, 0, 2, 1, 3]


def test_each_piece_of_an_order_meets_an_empty_cache() -> None:
    requests = [(1, 2), (1, 2), (1, 2), (1, 2)]

    assert share_in(requests, [(0, 4)]) == 6 / 8
    assert share_in(requests, [(0, 1), (1, 4)]) == 4 / 8
