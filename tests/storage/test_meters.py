from __future__ import annotations

from dataclasses import replace

import pytest
from sqlalchemy.exc import DBAPIError

from pipeline.domain.errors import LeaseLostError
from pipeline.domain.ids import BatchId
from pipeline.domain.lifecycle import AttemptOutcome
from pipeline.domain.shares import TOKENS_ALIKE, UnitCosts
from pipeline.ports.meters import AttemptMeters, EnergySource, EngineIdentity
from storage.meters import MeterRepository
from tests.storage.world import World

USED = AttemptMeters(
    identity=EngineIdentity(engine="torch", version="2.13.0", precision="float32", revision="ab" * 16, device="cpu"),
    engine_steps=10,
    slot_steps_busy=48,
    slot_steps=64,
    tokens_prefilled=100,
    tokens_generated=300,
    tokens_padding=20,
    engine_us=4_000_000,
    bubble_us=1_000,
    cpu_us=7_000_000,
    memory_peak_bytes=2**30,
    energy_millijoules=80_000,
    energy_source=EnergySource.RAPL,
)


def ran(
    world: World,
    batches: dict[BatchId, int],
    meters: AttemptMeters | None,
    *,
    start: int = 0,
    unit_costs: UnitCosts = TOKENS_ALIKE,
) -> None:
    """Run one pack of ten rows of each batch, at so many tokens, and end it with these figures."""
    rows = {batch: (batch, world.shard_ids(batch)[0]) for batch in batches}
    world.pack(*((*rows[batch], start, start + 10) for batch in batches), unit_costs=unit_costs)
    worker = world.worker()
    lease = world.lease(worker)
    parts = [(*rows[batch], ((start, start + 10),), tokens) for batch, tokens in batches.items()]
    world.packs.commit(worker, world.work(worker, lease, *parts))
    world.packs.finish(lease.pack_id, lease.lease_token, AttemptOutcome.SUCCEEDED, None, meters)


def test_what_a_pack_used_is_shared_by_the_tokens_of_its_batches(world: World) -> None:
    large, small = world.admit(10), world.admit(10)
    ran(world, {large: 300, small: 100}, USED)
    meters = MeterRepository(world.database)

    mine, others = meters.batch_meters(large), meters.batch_meters(small)

    assert mine.fingerprints == others.fingerprints == ("torch-2.13.0-float32-abababababab",)
    assert (mine.engine_us, others.engine_us) == (3_000_000, 1_000_000)
    assert (mine.energy_millijoules, others.energy_millijoules) == (60_000, 20_000)
    assert (mine.tokens_padding, others.tokens_padding) == (15, 5)
    assert mine.tokens_cached is None
    assert mine.memory_peak_bytes == 2**30
    assert mine.energy_sources == ("rapl",)
    assert (mine.attempts, mine.tokens) == (1, 300)


def test_what_was_reused_is_credited_beside_what_was_paid_once_for_an_attempt(world: World) -> None:
    large, small = world.admit(10), world.admit(10)
    used = replace(USED, tokens_cached=100)
    ran(world, {large: 300, small: 100}, used)
    paid = dict(world.rows("SELECT account, sum(effective_micros) FROM entries GROUP BY account"))  # type: ignore[arg-type]
    (attempt,) = world.rows("SELECT pack_id, lease_token FROM attempts")

    for _ in range(2):
        world.packs.meter(attempt.pack_id, attempt.lease_token, used)

    lines = world.rows("""
        SELECT batch_id, kind, CAST(effective_micros AS int), pool, CAST(worker_us AS int) FROM cost_lines
         WHERE kind IN ('reused', 'cache_credit') ORDER BY line
    """)
    assert sorted(tuple(line) for line in lines) == sorted(
        (batch, kind, sign * micros, "local", 0)
        for batch, micros in ((large, 187), (small, 62))
        for kind, sign in (("reused", 1), ("cache_credit", -1))
    )
    # A thousand for three batches' worth of tokens and one's, of which a quarter was reused.
    assert (paid[f"batch:{large}"], paid[f"batch:{small}"]) == (750, 250)
    assert world.scalars("SELECT sum(effective_micros) FROM entries WHERE batch_id = :id", id=large) == [750]
    assert world.scalars("SELECT kind FROM cost.utilisation") == ["work"]
    told = world.rows("SELECT effective_cost, cache_credit FROM cost.batches ORDER BY effective_cost")
    assert [tuple(map(str, row)) for row in told] == [("0.000250", "0.000062"), ("0.000750", "0.000187")]


def test_an_attempt_that_reused_nothing_is_credited_nothing(world: World) -> None:
    ran(world, {world.admit(10): 300}, replace(USED, tokens_cached=0))

    assert world.scalars("SELECT key FROM transactions WHERE key LIKE 'cache:%'") == []


def test_what_a_pack_used_is_shared_as_its_price_is(world: World) -> None:
    large, small = world.admit(10), world.admit(10)
    costs = UnitCosts(row_picoseconds=10, input_token_picoseconds=1, output_token_picoseconds=7)
    ran(world, {large: 200, small: 0}, USED, unit_costs=costs)
    meters = MeterRepository(world.database)

    # Weights are 10 * 10 + 200 and 10 * 10.
    assert meters.batch_meters(large).engine_us == 3_000_000
    assert meters.batch_meters(small).engine_us == 1_000_000
    bill = dict(world.rows("SELECT batch_id, amount_micros FROM accruals"))  # type: ignore[arg-type]
    assert bill[large] == 3 * bill[small]


def test_energy_that_is_not_known_of_every_attempt_is_not_known(world: World) -> None:
    batch = world.admit(20)
    ran(world, {batch: 100}, USED)
    ran(world, {batch: 100}, replace(USED, energy_millijoules=None, energy_source=None), start=10)

    found = MeterRepository(world.database).batch_meters(batch)

    assert found.attempts == 2
    assert found.engine_us == 8_000_000
    assert found.energy_millijoules is None


def test_a_batch_without_tokens_or_without_attempts_has_what_there_is(world: World) -> None:
    silent, fresh = world.admit(10), world.admit(10)
    ran(world, {silent: 0}, USED)
    meters = MeterRepository(world.database)

    assert meters.batch_meters(silent).engine_us == 4_000_000
    assert meters.batch_meters(fresh).attempts == 0
    assert meters.batch_meters(fresh).engine_us is None


def test_an_attempt_that_another_ended_still_says_what_it_used_and_changes_nothing_else(world: World) -> None:
    batch = world.admit(10)
    pack = world.pack((batch, world.shard_ids(batch)[0], 0, 10))
    lease = world.lease(world.worker())
    world.expire(pack)
    world.cycles.rescue(world.leadership.epoch)
    with pytest.raises(LeaseLostError):
        world.packs.finish(pack, lease.lease_token, AttemptOutcome.SUCCEEDED, None, USED)

    for _ in range(2):
        world.packs.meter(pack, lease.lease_token, USED)

    (row,) = world.rows("SELECT outcome, engine, engine_version, device, cpu_us FROM attempts")
    assert tuple(row) == ("lease_lost", "torch", "2.13.0", "cpu", 7_000_000)


def test_a_lease_says_how_long_its_pack_had_waited(world: World) -> None:
    batch = world.admit(10)
    pack = world.pack((batch, world.shard_ids(batch)[0], 0, 10))
    world.execute("UPDATE packs SET available_at = available_at - interval '90 seconds' WHERE id = :id", id=pack)

    assert 90_000_000 <= world.lease(world.worker()).waited_us < 150_000_000


@pytest.mark.parametrize(
    "figures",
    [
        {"engine_us": -1},
        {"bubble_us": -1},
        {"energy_millijoules": None},
        {"energy_source": None},
        {"device_power_max_milliwatts": -5},
    ],
)
def test_the_database_refuses_figures_that_cannot_be(world: World, figures: dict[str, int | None]) -> None:
    batch = world.admit(10)

    with pytest.raises(DBAPIError, match="ck_attempts_"):
        ran(world, {batch: 1}, replace(USED, **figures))  # type: ignore[arg-type] # what the types forbid is the point
