from __future__ import annotations

from pipeline.app.settling import Settler
from pipeline.domain.costs.amounts import COST_NAMES, Amounts
from pipeline.domain.costs.bills import total_of
from pipeline.domain.ids import WorkerId
from pipeline.domain.lifecycle import IntervalKind, WorkerEnd, WorkerState
from storage.settlements import SettlementRepository
from tests.storage.bills import HOUR_US, SECOND_US, FlatBills, SteppedBills
from tests.storage.world import World

_RATES = Amounts(
    list_micros=7_200_000_000,
    contracted_micros=7_000_000_000,
    effective_micros=3_600_000_000,
    billed_micros=5_000_000_000,
    on_demand_micros=9_000_000_000,
)


def settler(world: World, bills: SteppedBills | FlatBills) -> Settler:
    return Settler(SettlementRepository(world.database), bills)


def end(world: World, worker: WorkerId, cause: WorkerEnd = WorkerEnd.STOPPED) -> None:
    for state in (WorkerState.READY, WorkerState.DRAINING, WorkerState.STOPPED):
        world.workers.enter(worker, state, end=cause)


def owed(world: World, worker: WorkerId) -> Amounts:
    columns = ", ".join(f"coalesce(sum(-{name}), 0)" for name in COST_NAMES)
    (row,) = world.rows(
        f"SELECT {columns} FROM entries JOIN transactions ON transactions.id = transaction_id"  # noqa: S608 -- names
        " WHERE account LIKE 'supplier:%' AND worker_id = :id",
        id=worker,
    )
    return Amounts.of((*map(int, row), 0))


def balances(world: World, column: str = "effective_micros") -> dict[str, int]:
    rows = world.rows(f"SELECT account, sum({column}) FROM entries GROUP BY 1 HAVING sum({column}) <> 0")  # noqa: S608
    return {account: int(micros) for account, micros in rows}


def test_a_worker_that_was_accrued_its_bill_needs_no_settlement(world: World) -> None:
    worker = world.worker(rates=_RATES, rate_micros_per_hour=_RATES.effective_micros)
    world.workers.meter(worker, world.span(worker, IntervalKind.BOOT, 90 * SECOND_US))
    end(world, worker)

    assert not settler(world, FlatBills()).run_once()

    assert world.scalars("SELECT kind FROM transactions") == ["accrual"]
    assert world.scalars("SELECT is_final FROM settlements") == [True]


def test_what_is_billed_and_was_not_lived_is_overhead(world: World) -> None:
    worker = world.worker(rate_micros_per_hour=3_600_000_000)
    world.workers.meter(worker, world.span(worker, IntervalKind.BOOT, 10 * SECOND_US + 250_000))
    end(world, worker)

    settler(world, SteppedBills()).run_once()

    assert balances(world) == {
        "overhead:boot": 10_250_000,
        "overhead:rounding": 750_000,
        "overhead:minimum": 49_000_000,
        "supplier:local": -60_000_000,
    }


def test_a_spot_worker_interrupted_in_its_first_hour_is_taken_back_from_every_account(world: World) -> None:
    batch = world.admit(4)
    worker = world.worker(rates=_RATES, rate_micros_per_hour=_RATES.effective_micros)
    world.workers.meter(worker, world.span(worker, IntervalKind.BOOT, 100 * SECOND_US))
    world.finish_rows(batch, worker)
    end(world, worker, WorkerEnd.INTERRUPTED)

    settler(world, SteppedBills()).run_once()

    assert world.scalars("SELECT end_cause FROM workers") == ["interrupted"]
    charged = balances(world, "charged_micros")[f"batch:{batch}"]
    assert charged == 1_000_000
    assert balances(world, "effective_micros") == balances(world, "billed_micros") == {}
    assert balances(world, "on_demand_micros")["supplier:local"] == -101 * 2_500_000


def test_a_price_learned_later_reaches_the_accounts_by_what_they_were_accrued(world: World) -> None:
    one, two = world.admit(4), world.admit(4)
    shards = {batch: world.shard_ids(batch)[0] for batch in (one, two)}
    world.pack(*((batch, shard, 0, 4) for batch, shard in shards.items()))
    worker = world.worker(rate_micros_per_hour=3_600_000_000)
    world.workers.meter(worker, world.span(worker, IntervalKind.BOOT, 100 * SECOND_US))
    rows = [(one, shards[one], ((0, 4),), 300), (two, shards[two], ((0, 4),), 100)]
    world.packs.commit(worker, world.work(worker, world.lease(worker), *rows))
    end(world, worker)
    bills = SteppedBills()
    bills.change(worker, [(0, (3_600_000_000,) * 5), (100 * SECOND_US, (7_200_000_000,) * 5)])

    settler(world, bills).run_once()

    assert balances(world) == {
        "overhead:boot": 100_000_000,
        f"batch:{one}": 1_500_000,
        f"batch:{two}": 500_000,
        "supplier:local": -102_000_000,
    }
    assert world.scalars("SELECT kind FROM transactions ORDER BY id DESC LIMIT 1") == ["settlement"]


def test_settling_twice_changes_nothing_and_a_later_price_posts_the_difference(world: World) -> None:
    worker = world.worker(rate_micros_per_hour=3_600_000_000)
    world.workers.meter(worker, world.span(worker, IntervalKind.IDLE, 90 * SECOND_US))
    end(world, worker)
    bills = SteppedBills()
    bills.change(worker, [(0, (7_200_000_000,) * 5)])
    doer = settler(world, bills)

    doer.run_once()
    doer.run_once()

    repository = SettlementRepository(world.database)
    (life,) = repository.lives([worker])
    doer.settle(life)
    assert world.scalars("SELECT key FROM transactions WHERE kind = 'settlement'") == [f"settlement:{worker}:1"]

    bills.change(worker, [(0, (1_800_000_000,) * 5)])
    doer.run_once()

    assert owed(world, worker) == total_of(bills.bill(life), life) == Amounts.cost(45_000_000)
    assert world.scalars("SELECT count(*) FROM transactions WHERE kind = 'settlement'") == [2]


def test_hours_are_settled_by_themselves(world: World) -> None:
    worker = world.worker(rate_micros_per_hour=3_600_000_000)
    world.execute("UPDATE workers SET started_at = '2026-11-20 10:30Z' WHERE id = :id", id=worker)
    for _ in range(4):
        world.workers.meter(worker, world.span(worker, IntervalKind.IDLE, HOUR_US // 4))
    end(world, worker)
    bills = SteppedBills()
    bills.change(worker, [(0, (7_200_000_000,) * 5)])

    settler(world, bills).run_once()

    hours = world.rows("""
        SELECT period_start::text, -effective_micros FROM transactions JOIN entries ON transactions.id = transaction_id
         WHERE kind = 'settlement' AND account LIKE 'supplier:%' ORDER BY 1
    """)
    assert [tuple(row) for row in hours] == [
        ("2026-11-20 10:30:00+00", 1_800_000_000),
        ("2026-11-20 11:00:00+00", 1_800_000_000),
    ]


def test_a_live_worker_is_settled_once_an_hour_without_what_only_its_end_tells(world: World) -> None:
    worker = world.worker(rate_micros_per_hour=3_600_000_000)
    world.workers.meter(worker, world.span(worker, IntervalKind.IDLE, 10 * SECOND_US + 1))
    bills = SteppedBills()
    bills.change(worker, [(0, (7_200_000_000,) * 5)])
    doer = settler(world, bills)

    doer.run_once()
    assert world.scalars("SELECT 1 FROM settlements") == []
    world.execute("UPDATE workers SET started_at = now() - interval '2 hours'")
    doer.run_once()

    assert owed(world, worker) == Amounts.cost(20_000_002)
    assert world.scalars("SELECT is_final FROM settlements") == [False]


def test_of_two_that_settle_at_once_one_does(world: World) -> None:
    worker = world.worker(rate_micros_per_hour=3_600_000_000)
    world.workers.meter(worker, world.span(worker, IntervalKind.IDLE, 90 * SECOND_US))
    end(world, worker)
    bills = SteppedBills()
    bills.change(worker, [(0, (7_200_000_000,) * 5)])
    first, second = settler(world, bills), settler(world, bills)
    (life,) = SettlementRepository(world.database).lives([worker])

    class Between(SettlementRepository):
        def posted(self, asked):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
            found = super().posted(asked)
            first.settle(life)
            return found

    second._repository = Between(world.database)

    assert second.settle(life) == 0
    assert owed(world, worker) == Amounts.cost(180_000_000)
