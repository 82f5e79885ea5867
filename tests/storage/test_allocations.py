from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import pytest

from pipeline.app.allocating import Allocator
from pipeline.app.settling import Settler
from pipeline.domain.costs.transactions import Overhead, SharingRule
from pipeline.domain.ids import BatchId, WorkerId
from pipeline.domain.lifecycle import IntervalKind
from storage.allocations import AllocationRepository
from storage.settlements import SettlementRepository
from tests.storage.bills import SECOND_US, SteppedBills
from tests.storage.test_settlements import balances, end
from tests.storage.world import World

_KINDS = (Overhead.IDLE, Overhead.BOOT)


def share(world: World, rule: SharingRule, kinds: Sequence[Overhead] = _KINDS) -> None:
    Allocator(AllocationRepository(world.database), rule, kinds).run_once()


def hour_with(world: World, *tokens: int) -> tuple[WorkerId, list[BatchId]]:
    """Run a pack of a row of each batch in an hour that has ended, after 100 s of boot and 50 s of idling."""
    batches = [world.admit(1) for _ in tokens]
    worker = world.worker(rate_micros_per_hour=3_600_000_000)
    world.execute(
        "UPDATE workers SET started_at = date_trunc('hour', now(), 'UTC') - interval '3 hours' WHERE id = :id",
        id=worker,
    )
    world.workers.meter(worker, world.span(worker, IntervalKind.BOOT, 100 * SECOND_US))
    world.workers.meter(worker, world.span(worker, IntervalKind.IDLE, 50 * SECOND_US))
    world.workers.meter(worker, world.span(worker, IntervalKind.DRAIN, 7 * SECOND_US))
    if batches:
        world.pack(*((batch, world.shard_ids(batch)[0], 0, 1) for batch in batches))
        rows = [
            (batch, world.shard_ids(batch)[0], ((0, 1),), each) for batch, each in zip(batches, tokens, strict=True)
        ]
        world.packs.commit(worker, world.work(worker, world.lease(worker), *rows, duration_us=4 * SECOND_US))
    return worker, batches


@pytest.mark.parametrize(
    ("rule", "shares"),
    [
        (SharingRule.PROPORTIONAL, (3_000_000 + 112_500_000, 1_000_000 + 37_500_000)),
        (SharingRule.EVEN, (3_000_000 + 75_000_000, 1_000_000 + 75_000_000)),
        (SharingRule.NONE, (3_000_000, 1_000_000)),
    ],
)
def test_overhead_of_an_hour_is_shared_over_its_batches(
    world: World, rule: SharingRule, shares: tuple[int, int]
) -> None:
    _, (one, two) = hour_with(world, 300, 100)

    share(world, rule)

    held = balances(world)
    assert (held[f"batch:{one}"], held[f"batch:{two}"]) == shares
    assert held["supplier:local"] == -161_000_000
    assert held["overhead:drain"] == 7_000_000
    assert ("overhead:idle" in held) == (rule is SharingRule.NONE)
    methods = world.scalars("SELECT method FROM transactions WHERE kind = 'allocation'")
    assert methods == ([] if rule is SharingRule.NONE else [f"{rule}_v1"])


def test_only_the_kinds_that_are_named_are_shared(world: World) -> None:
    _, (one,) = hour_with(world, 1)

    share(world, SharingRule.EVEN, [Overhead.BOOT])

    assert balances(world) == {
        f"batch:{one}": 104_000_000,
        "overhead:idle": 50_000_000,
        "overhead:drain": 7_000_000,
        "supplier:local": -161_000_000,
    }


def test_an_hour_without_batches_keeps_its_overhead(world: World) -> None:
    hour_with(world)

    share(world, SharingRule.PROPORTIONAL)

    assert world.scalars("SELECT kind FROM transactions WHERE kind = 'allocation'") == []
    assert world.scalars("SELECT count(*) FROM allocation_hours WHERE is_due") == [0]


def test_what_is_settled_later_is_shared_as_a_difference_and_once(world: World) -> None:
    worker, (one, two) = hour_with(world, 300, 100)
    share(world, SharingRule.PROPORTIONAL)
    end(world, worker)
    bills = SteppedBills()
    bills.change(worker, [(0, (7_200_000_000,) * 5)])

    Settler(SettlementRepository(world.database), bills).run_once()
    for _ in range(2):
        share(world, SharingRule.PROPORTIONAL)

    assert balances(world) == {
        f"batch:{one}": 231_000_000,
        f"batch:{two}": 77_000_000,
        "overhead:drain": 14_000_000,
        "supplier:local": -322_000_000,
    }
    keys = world.scalars("SELECT key FROM transactions WHERE kind = 'allocation' ORDER BY id")
    hour = world.scalars("SELECT started_at FROM workers")[0]
    assert isinstance(hour, datetime)
    named = f"{hour.astimezone(UTC):%Y-%m-%dT%H}"
    assert keys == [f"allocation:local:{named}:1", f"allocation:local:{named}:2"]


def test_an_hour_that_has_not_ended_is_not_shared(world: World) -> None:
    worker = world.worker()
    world.workers.meter(worker, world.span(worker, IntervalKind.BOOT, 100 * SECOND_US))

    share(world, SharingRule.EVEN)

    assert world.scalars("SELECT count(*) FROM allocation_hours") == [0]


def test_pools_do_not_pay_for_one_another(world: World) -> None:
    _, (one,) = hour_with(world, 1)
    other = world.worker(rate_micros_per_hour=3_600_000_000)
    world.execute(
        "UPDATE workers SET pool = 'other', started_at = date_trunc('hour', now(), 'UTC') - interval '3 hours' WHERE id = :id",
        id=other,
    )
    world.workers.meter(other, world.span(other, IntervalKind.IDLE, 1000 * SECOND_US))

    share(world, SharingRule.EVEN)

    held = balances(world)
    assert held[f"batch:{one}"] == 154_000_000
    assert held["overhead:idle"] == 1_000_000_000


def test_what_a_worker_reports_late_at_its_end_is_shared_too(world: World) -> None:
    worker, (one,) = hour_with(world, 1)
    share(world, SharingRule.EVEN)
    world.workers.meter(worker, world.span(worker, IntervalKind.IDLE, 9 * SECOND_US))
    end(world, worker)

    Settler(SettlementRepository(world.database), SteppedBills()).run_once()
    share(world, SharingRule.EVEN)

    assert balances(world) == {
        f"batch:{one}": 163_000_000,
        "overhead:drain": 7_000_000,
        "supplier:local": -170_000_000,
    }


def test_work_that_began_in_an_hour_that_was_shared_before_it_ended_bears_its_part(world: World) -> None:
    worker, (one,) = hour_with(world, 1)
    settler = Settler(SettlementRepository(world.database), SteppedBills())
    settler.run_once()
    share(world, SharingRule.EVEN)
    # The worker lives on, and its next pack began in that hour, too.
    two = world.admit(4)
    world.finish_rows(two, worker)
    world.execute("UPDATE settlements SET settled_at = settled_at - interval '2 hours'")

    settler.run_once()
    share(world, SharingRule.EVEN)

    held = balances(world)
    assert (held[f"batch:{one}"], held[f"batch:{two}"]) == (4_000_000 + 75_000_000, 1_000_000 + 75_000_000)
    assert "overhead:idle" not in held
