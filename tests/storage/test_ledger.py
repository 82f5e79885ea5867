from __future__ import annotations

import random
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from pipeline.domain.costs.amounts import NAMES, Amounts
from pipeline.domain.costs.hourly import metered
from pipeline.domain.costs.transactions import (
    Account,
    CostCategory,
    Entry,
    Overhead,
    Transaction,
    TransactionKind,
    of_batch,
    of_overhead,
    of_revenue,
    of_supplier,
)
from pipeline.domain.ids import BatchId, WorkerId
from pipeline.domain.lifecycle import AttemptOutcome, IntervalKind
from pipeline.domain.retry import Verdict
from pipeline.domain.shares import UnitCosts
from pipeline.domain.tiers import Tier
from pipeline.ports.packs import Interval, PackLease, WorkCommit
from storage.journal import post
from tests.storage.journals import reversal
from tests.storage.world import World


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32))
def test_every_workers_entries_sum_to_its_seconds_times_its_rate(world: World, seed: int) -> None:
    chance = random.Random(seed)
    batches = [world.admit(40) for _ in range(3)]
    shards = {batch: world.shard_ids(batch)[0] for batch in batches}
    world.pack(*((batch, shard, 0, 40) for batch, shard in shards.items()))
    worker = world.worker(rate_micros_per_hour=chance.randrange(10**9))
    lease = world.lease(worker)
    done = dict.fromkeys(batches, 0)
    for _ in range(chance.randrange(2, 12)):
        duration_us = chance.randrange(1, 10**8)
        if chance.random() < 0.4 or all(count == 40 for count in done.values()):
            kind = chance.choice([kind for kind in IntervalKind if kind is not IntervalKind.WORK])
            world.workers.meter(worker, world.span(worker, kind, duration_us))
            continue
        rows = []
        for batch in chance.sample(batches, chance.randrange(1, 4)):
            stop = chance.randrange(done[batch], 41)
            if stop > done[batch]:
                rows.append((batch, shards[batch], ((done[batch], stop),), chance.randrange(1000)))
                done[batch] = stop
        if rows:
            world.packs.commit(worker, world.work(worker, lease, *rows, duration_us=duration_us))
    world.packs.finish(lease.pack_id, lease.lease_token, AttemptOutcome.SUCCEEDED)

    sums = world.scalars(
        """
        SELECT sum(amount_micros) = div(rate_micros_per_hour::numeric * metered_until_us, 3600000000)
          FROM workers JOIN accruals ON worker_id = id WHERE id = :id GROUP BY workers.id
        """,
        id=worker,
    )
    assert sums == [True]
    world.execute("UPDATE packs SET state = 'discarded', ended_at = now() WHERE state <> 'committed'")


_PROMPTS_AND_ANSWERS = ((0, 900, 10), (1, 10, 100))
_COSTS = UnitCosts(row_picoseconds=5_000, input_token_picoseconds=1_000, output_token_picoseconds=10_000)


def mixed_commit(world: World, worker: WorkerId, lease: PackLease, *batches: BatchId) -> WorkCommit:
    """Return a commit of a row of long prompt and a row of long answer, one for each batch."""
    rows = [(batch, world.shard_ids(batch)[0], ((0, 1),), 0) for batch in batches]
    work = world.work(worker, lease, *rows)
    parts = tuple(
        replace(part, input_tokens=inputs, output_tokens=outputs)
        for part, (_, inputs, outputs) in zip(work.parts, _PROMPTS_AND_ANSWERS, strict=True)
    )
    return replace(work, parts=parts)


def test_a_mixed_pack_is_billed_by_what_the_rows_of_each_batch_were_to_cost(world: World) -> None:
    prompts, answers = world.admit(1), world.admit(1)
    world.pack(
        (prompts, world.shard_ids(prompts)[0], 0, 1), (answers, world.shard_ids(answers)[0], 0, 1), unit_costs=_COSTS
    )
    worker = world.worker(rate_micros_per_hour=3_600_000_000)

    world.packs.commit(worker, mixed_commit(world, worker, world.lease(worker), prompts, answers))

    # 5 + 900 + 100 = 1,005 and 5 + 10 + 1,000 = 1,015 of 2,020; by tokens the prompts would pay 892,157 micros.
    bill = dict(world.rows("SELECT batch_id, amount_micros FROM accruals"))  # type: ignore[arg-type]
    assert bill == {prompts: 497_525, answers: 502_475}
    assert world.scalars("SELECT split_rule FROM worker_intervals") == ["predicted_cost_v1"]


def test_a_bill_can_be_worked_out_again_from_what_is_stored(world: World) -> None:
    prompts, answers = world.admit(1), world.admit(1)
    world.pack(
        (prompts, world.shard_ids(prompts)[0], 0, 1), (answers, world.shard_ids(answers)[0], 0, 1), unit_costs=_COSTS
    )
    worker = world.worker(rate_micros_per_hour=3_600_000_000)
    world.packs.commit(worker, mixed_commit(world, worker, world.lease(worker), prompts, answers))

    off_by = world.scalars("""
        WITH weighted AS (
            SELECT amount_micros, cost_micros, row_picoseconds::numeric * row_count
                   + input_token_picoseconds::numeric * input_tokens
                   + output_token_picoseconds::numeric * output_tokens AS weight
              FROM accruals JOIN worker_intervals USING (worker_id, start_us) JOIN packs ON packs.id = pack_id)
        SELECT abs(amount_micros - cost_micros * weight / sum(weight) OVER ()) < 1 FROM weighted
    """)

    assert off_by == [True, True]


def test_halves_of_a_pack_are_billed_at_the_costs_of_the_whole(world: World) -> None:
    batch = world.admit(2)
    world.pack((batch, world.shard_ids(batch)[0], 0, 2), unit_costs=_COSTS)
    worker = world.worker()
    for _ in range(10):
        world.execute("UPDATE packs SET available_at = now() - interval '1 s' WHERE ended_at IS NULL")
        lease = world.lease(worker)
        if world.packs.finish(lease.pack_id, lease.lease_token, AttemptOutcome.FAILED, "broke") is Verdict.BISECT:
            break

    costs = world.rows("""
        SELECT row_picoseconds, input_token_picoseconds, output_token_picoseconds
          FROM packs WHERE parent_id IS NOT NULL
    """)
    assert [tuple(each) for each in costs] == [(5_000, 1_000, 10_000)] * 2


def test_rows_without_tokens_are_billed_by_their_number(world: World) -> None:
    one, three = world.admit(1), world.admit(3)
    shards = {batch: world.shard_ids(batch)[0] for batch in (one, three)}
    world.pack((one, shards[one], 0, 1), (three, shards[three], 0, 3))
    worker = world.worker(rate_micros_per_hour=3_600_000_000)
    lease = world.lease(worker)

    rows = [(one, shards[one], ((0, 1),), 0), (three, shards[three], ((0, 3),), 0)]
    world.packs.commit(worker, world.work(worker, lease, *rows))

    bill = dict(world.rows("SELECT batch_id, amount_micros FROM accruals"))  # type: ignore[arg-type]
    assert bill == {one: 250_000, three: 750_000}


@pytest.mark.parametrize("costs", [(0, 0, 0), (-1, 1, 1)])
def test_a_pack_that_nobody_could_be_charged_for_is_refused(world: World, costs: tuple[int, int, int]) -> None:
    batch = world.admit(1)
    world.pack((batch, world.shard_ids(batch)[0], 0, 1))

    with pytest.raises(DBAPIError, match="unit_costs"):
        world.execute(
            """UPDATE packs SET row_picoseconds = :row, input_token_picoseconds = :input,
                                output_token_picoseconds = :output""",
            row=costs[0],
            input=costs[1],
            output=costs[2],
        )


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE entries SET effective_micros = 0",
        "DELETE FROM entries",
        "TRUNCATE entries",
        "UPDATE transactions SET method = 'even'",
        "DELETE FROM transactions",
        "TRUNCATE transactions CASCADE",
        "UPDATE worker_intervals SET tokens = 7",
        "DELETE FROM worker_intervals",
        "UPDATE parts SET rows_succeeded = 9",
        "DELETE FROM part_slices",
    ],
)
def test_what_is_recorded_is_never_changed(world: World, statement: str) -> None:
    worker = world.worker()
    world.workers.meter(worker, world.span(worker, IntervalKind.BOOT, 1_000_000))

    with pytest.raises(DBAPIError, match="append-only"):
        world.execute(statement)


def test_an_interval_that_leaves_a_gap_is_refused(world: World) -> None:
    worker = world.worker()
    world.workers.meter(worker, world.span(worker, IntervalKind.BOOT, 1_000_000))

    with pytest.raises(DBAPIError, match="does not follow"):
        world.workers.meter(worker, Interval(kind=IntervalKind.IDLE, start_us=1_000_001, stop_us=2_000_000))


def test_an_interval_that_is_not_charged_in_full_is_refused_at_commit(world: World) -> None:
    worker = world.worker(rate_micros_per_hour=3_600_000_000)
    interval = """
        INSERT INTO worker_intervals (worker_id, start_us, stop_us, kind, rate_micros_per_hour, cost_micros)
        VALUES (:id, 0, 1000000, 'idle', 3600000000, 1000000)"""

    def charge_too_little() -> None:
        with world.database.transaction() as connection:
            connection.execute(text(interval), {"id": worker})
            idle, owed = Amounts.cost(999_999), Amounts.cost(-999_999)
            post(
                connection,
                accrual(worker, (of_overhead(Overhead.IDLE), idle), (of_supplier("local"), owed), start_us=0),
            )

    with pytest.raises(DBAPIError, match="costs 1000000 but 999999 is charged"):
        charge_too_little()
    with pytest.raises(DBAPIError, match="costs 1000000 but nothing is charged"):
        world.execute(interval, id=worker)


def test_a_wrong_price_is_refused(world: World) -> None:
    worker = world.worker(rate_micros_per_hour=3_600_000_000)

    with pytest.raises(DBAPIError, match="price"):
        world.execute(
            """
            INSERT INTO worker_intervals (worker_id, start_us, stop_us, kind, rate_micros_per_hour, cost_micros)
            VALUES (:id, 0, 1000000, 'idle', 3600000000, 1000001)""",
            id=worker,
        )


def test_metering_the_same_span_twice_changes_nothing(world: World) -> None:
    worker = world.worker()
    span = world.span(worker, IntervalKind.IDLE, 7_000_000)

    world.workers.meter(worker, span)
    world.workers.meter(worker, span)

    assert world.scalars("SELECT count(*) FROM accruals") == [1]


def test_a_worker_cannot_end_with_time_unaccounted_for(world: World) -> None:
    worker = world.worker()
    world.workers.renew(worker, {}, uptime_us=1_000_000)

    with pytest.raises(DBAPIError, match="not in the ledger"):
        world.execute(
            "UPDATE workers SET state = 'stopped', ended_at = now(), end_cause = 'stopped' WHERE id = :id", id=worker
        )


def accrual(
    worker: WorkerId, *lines: tuple[Account, Amounts], key: str = "k", start_us: int | None = None
) -> Transaction:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    return Transaction(
        key=key,
        kind=TransactionKind.ACCRUAL,
        category=CostCategory.COMPUTE,
        period_start=at,
        period_stop=at,
        currency="USD",
        entries=tuple(Entry(account=account, amounts=amounts) for account, amounts in lines),
        worker_id=worker,
        start_us=start_us,
    )


IDLE = of_overhead(Overhead.IDLE)
OWED = of_supplier("local")


def test_a_key_is_posted_once(world: World) -> None:
    transaction = accrual(world.worker(), (IDLE, Amounts.cost(7)), (OWED, Amounts.cost(-7)))

    with world.database.transaction() as connection:
        first, second = post(connection, transaction), post(connection, transaction)

    assert first is not None
    assert second is None
    assert world.rows("SELECT account, effective_micros, charged_micros FROM entries ORDER BY line") == [
        ("overhead:idle", 7, 0),
        ("supplier:local", -7, 0),
    ]


@pytest.mark.parametrize("name", NAMES)
def test_a_transaction_that_does_not_balance_is_refused_at_commit(world: World, name: str) -> None:
    batch = world.admit(1)
    revenue = of_revenue(Tier.STANDARD)
    sound = accrual(world.worker(), (of_batch(batch), Amounts.of([9] * 6)), (revenue, Amounts.of([-9] * 6)))
    lopsided = replace(sound.entries[0], amounts=replace(sound.entries[0].amounts, **{name: 8}))
    # Behind the back of Python's own check.
    object.__setattr__(sound, "entries", (lopsided, sound.entries[1]))

    def work() -> None:
        with world.database.transaction() as connection:
            post(connection, sound)

    with pytest.raises(DBAPIError, match="does not balance"):
        work()
    assert world.scalars("SELECT count(*) FROM entries") == [0]


def test_a_transaction_takes_no_entries_after_its_commit(world: World) -> None:
    with world.database.transaction() as connection:
        post(connection, accrual(world.worker(), (IDLE, Amounts.cost(7)), (OWED, Amounts.cost(-7))))

    with pytest.raises(DBAPIError, match="takes no further entries"):
        world.execute("""
            INSERT INTO entries (transaction_id, line, account, list_micros, contracted_micros, effective_micros,
                                 billed_micros, on_demand_micros, charged_micros)
            SELECT id, line, 'overhead:idle', 0, 0, 1 - 2 * (line - 2), 0, 0, 0 FROM transactions, generate_series(2, 3) AS line
        """)


def test_a_reversal_undoes_every_line_and_is_posted_once(world: World) -> None:
    wrong = accrual(world.worker(), (IDLE, Amounts.cost(7)), (OWED, Amounts.cost(-7)))
    with world.database.transaction() as connection:
        wrong_id = post(connection, wrong)
        assert wrong_id is not None
        post(connection, reversal(wrong, wrong_id, key="undo"))

    assert world.rows("SELECT account, sum(effective_micros) FROM entries GROUP BY account ORDER BY account") == [
        ("overhead:idle", 0),
        ("supplier:local", 0),
    ]

    def again() -> None:
        with world.database.transaction() as connection:
            post(connection, reversal(wrong, wrong_id, key="undo again"))

    with pytest.raises(DBAPIError, match="reverses_id"):
        again()


def test_what_is_charged_goes_by_the_terms_of_the_batch_and_what_it_cost_does_not(world: World) -> None:
    worker = world.worker(rate_micros_per_hour=3_600_000_000)
    dear, by_token = world.admit(1), world.admit(1)
    world.execute("UPDATE batches SET charge_multiplier_ppm = 1500000 WHERE id = :id", id=dear)
    price = "UPDATE batches SET input_token_price_picos = 3000000, output_token_price_picos = 3000000 WHERE id = :id"
    world.execute(price, id=by_token)
    for batch in (dear, by_token):
        world.finish_rows(batch, worker)

    found = {
        batch_id: (cost, charged)
        for batch_id, cost, charged in world.rows(
            "SELECT batch_id, sum(amount_micros), sum(charged_micros) FROM accruals WHERE batch_id IS NOT NULL GROUP BY 1"
        )
    }
    cost, charged = found[dear]
    assert charged == cost * 3 // 2 > 0
    (tokens,) = world.scalars("SELECT sum(tokens) FROM accruals WHERE batch_id = :id", id=by_token)
    assert found[by_token][1] == 3 * tokens
    assert {view.cost_micros for view in (world.batches.get(dear), world.batches.get(by_token))} == {
        found[dear][1],
        found[by_token][1],
    }


def test_rates_are_told_apart_and_each_telescopes(world: World) -> None:
    rates = Amounts(
        list_micros=3_600_000_007,
        contracted_micros=3_000_000_011,
        effective_micros=2_000_000_013,
        billed_micros=0,
        on_demand_micros=7_200_000_001,
    )
    worker = world.worker(rate_micros_per_hour=rates.effective_micros, rates=rates)
    for us in (333_333, 333_334, 1_000_001):
        world.workers.meter(worker, world.span(worker, IntervalKind.IDLE, us))

    (found,) = world.rows("""
        SELECT sum(list_micros), sum(contracted_micros), sum(effective_micros), sum(billed_micros), sum(on_demand_micros),
               sum(charged_micros) FROM entries WHERE account = 'overhead:idle'""")

    assert tuple(map(int, found)) == metered(rates, 0, 1_666_668).each()
