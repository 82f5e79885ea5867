"""Usage as advice reads it: costs by the rule of bills, batches of a span, and nothing of others."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import text

from pipeline.domain.ids import DEFAULT_TENANT, BatchId, ProjectId, TenantId, WorkerId
from pipeline.domain.lifecycle import AttemptOutcome, IntervalKind
from pipeline.domain.tiers import Tier
from pipeline.ports.access import Scope
from pipeline.ports.meters import AttemptMeters, EngineIdentity
from pipeline.ports.usage import Usage
from storage.database import Database
from storage.usage import UsageRepository
from tests.storage.world import World

SCOPE = Scope(tenant_id=DEFAULT_TENANT)
USED = AttemptMeters(
    identity=EngineIdentity(engine="torch", version="2.13.0", precision="float32", revision="ab" * 16, device="cpu"),
    engine_steps=10,
    slot_steps_busy=40,
    slot_steps=80,
    tokens_prefilled=100,
    tokens_cached=20,
    tokens_generated=300,
    engine_us=1,
    bubble_us=1,
    cpu_us=1,
)


def now(database: Database) -> datetime:
    with database.transaction() as connection:
        found: datetime = connection.execute(text("SELECT clock_timestamp()")).scalar_one()
    return found


def used(world: World, scope: Scope | None = None, *, days: int = 30, currency: str = "USD") -> Usage:
    until = now(world.database) + timedelta(seconds=1)
    return UsageRepository(world.database).usage(
        scope, since=until - timedelta(days=days), until=until, currency=currency
    )


def ran(world: World, worker: WorkerId, batches: dict[BatchId, int], *, duration_us: int = 1_000_000) -> None:
    """Run ten rows of each batch in one pack, at so many tokens."""
    rows = {batch: (batch, world.shard_ids(batch)[0]) for batch in batches}
    world.pack(*((*place, 0, 10) for place in rows.values()))
    lease = world.lease(worker)
    parts = [(*rows[batch], ((0, 10),), tokens) for batch, tokens in batches.items()]
    world.packs.commit(worker, world.work(worker, lease, *parts, duration_us=duration_us))
    world.packs.finish(lease.pack_id, lease.lease_token, AttemptOutcome.SUCCEEDED, None, USED)


def complete(world: World, batch: BatchId, *, after_share: float) -> None:
    """End a batch when so much of its window was over."""
    world.execute(
        "UPDATE batches SET state = 'completed', rows_completed = rows_total, rows_failed = 0, "
        "finalizing_at = now(), completed_at = created_at + (deadline_at - created_at) * CAST(:share AS float) WHERE id = :id",
        id=batch,
        share=after_share,
    )


def test_a_pack_is_paid_for_by_its_batches_as_their_bills_say(world: World) -> None:
    bulk, standard = world.admit(10, tier=Tier.BULK), world.admit(10)
    # An hour at 3.60: 3,600,000 micro-units.
    ran(world, world.worker(), {bulk: 300, standard: 100}, duration_us=3_600_000_000)

    works = {work.tier: work for work in used(world).works}

    assert {tier: work.cost_micros for tier, work in works.items()} == {Tier.BULK: 2_700_000, Tier.STANDARD: 900_000}
    found = works[Tier.BULK]
    assert (found.model, found.variant, found.pool, found.market) == ("echo", "echo", "local", "on_demand")
    assert (found.packs, found.rows, found.tokens, found.busy_us) == (1, 10, 300, 2_700_000_000)
    assert (found.slot_steps_busy, found.slot_steps, found.tokens_prefilled, found.tokens_cached) == (30, 60, 75, 15)
    assert found.reachable_tokens_per_second is None
    with world.database.transaction() as connection:
        charged = connection.execute(text("SELECT sum(cost_micros) FROM worker_intervals WHERE kind = 'work'")).scalar()
    assert sum(work.cost_micros for work in works.values()) == charged


def test_a_scope_sees_its_own_part_and_no_places(world: World) -> None:
    mine, others = world.admit(10), world.admit(10)
    ran(world, world.worker(), {mine: 300, others: 100}, duration_us=3_600_000_000)
    world.execute("INSERT INTO tenants (id, name) VALUES ('tnt_other', 'other')")
    world.execute(
        "INSERT INTO projects (id, tenant_id, name, is_default) VALUES ('proj_o', 'tnt_other', 'default', true)"
    )
    world.execute(
        "UPDATE batches SET tenant_id = 'tnt_other', project_id = 'proj_o', source_file_id = NULL WHERE id = :id",
        id=others,
    )

    (work,) = used(world, SCOPE).works
    (foreign,) = used(world, Scope(tenant_id=TenantId("tnt_other"), project_id=ProjectId("proj_o"))).works
    nothing = used(world, Scope(tenant_id=TenantId("tnt_other"), project_id=ProjectId("proj_x")))

    assert (work.cost_micros, foreign.cost_micros) == (2_700_000, 900_000)
    assert (work.pool, work.market, work.slot_steps) == ("", "", None)
    assert used(world, SCOPE).pools == used(world, SCOPE).variants == ()
    assert nothing.works == nothing.batches == ()


def test_a_scope_is_told_what_it_was_charged_and_not_what_that_cost(world: World) -> None:
    batch = world.admit(10)
    world.execute("UPDATE batches SET charge_multiplier_ppm = 3000000 WHERE id = :id", id=batch)
    ran(world, world.worker(), {batch: 300}, duration_us=3_600_000_000)
    complete(world, batch, after_share=0.5)

    (mine,), (all_,) = used(world, SCOPE).works, used(world).works
    (batches,) = used(world, SCOPE).batches

    assert (mine.cost_micros, batches.cost_micros, all_.cost_micros) == (10_800_000, 10_800_000, 3_600_000)


def test_batches_are_told_by_what_their_windows_had_left(world: World) -> None:
    worker = world.worker()
    for share in (0.1, 0.2, 0.3):
        batch = world.admit(10)
        ran(world, worker, {batch: 100})
        complete(world, batch, after_share=share)
    ran(world, worker, {world.admit(10): 100})

    (found,) = used(world).batches

    assert (found.tier, found.model, found.batches, found.tokens) == (Tier.STANDARD, "echo", 3, 300)
    assert found.window_unused_percent is not None
    # Of 70, 80 and 90 %, what nine in ten surpass.
    assert round(found.window_unused_percent, 3) == 72.0
    assert (found.tiny_batches, found.tiny_tokens, found.tiny_cost_micros) == (3, 300, 3000)


def test_a_file_that_ran_before_is_a_repetition_and_a_retry_is_not(world: World) -> None:
    worker = world.worker()
    done = [world.admit(10) for _ in range(4)]
    for batch in done:
        ran(world, worker, {batch: 100})
        complete(world, batch, after_share=0.5)
    world.execute("UPDATE batches SET source_file_id = input_file_id")
    world.execute("UPDATE batches SET retry_of = :first WHERE id = :id", first=done[0], id=done[3])
    world.execute(
        "UPDATE files SET sha256 = repeat('1', 64) WHERE id = (SELECT input_file_id FROM batches WHERE id = :id)",
        id=done[2],
    )

    (found,) = used(world).batches

    assert (found.repeated_batches, found.repeated_cost_micros) == (1, 1000)


def test_what_one_pack_in_ten_reached_is_told_with_enough_of_them(world: World) -> None:
    worker = world.worker()
    for _ in range(20):
        ran(world, worker, {world.admit(10): 100}, duration_us=2_000_000)

    (work,) = used(world).works

    assert work.reachable_tokens_per_second == 50.0
    assert work.packs == 20


def test_pools_tell_what_their_workers_waited_and_how_many_were_always_there(world: World) -> None:
    old, young = world.worker(), world.worker()
    world.execute("UPDATE workers SET started_at = now() - interval '10 h' WHERE id = :id", id=old)
    for worker, kind, hours in (
        (old, IntervalKind.IDLE, 3),
        (old, IntervalKind.BOOT, 1),
        (young, IntervalKind.IDLE, 1),
    ):
        world.workers.meter(worker, world.span(worker, kind, hours * 3_600_000_000))

    (found,) = used(world).pools

    assert (found.pool, found.market) == ("local", "on_demand")
    assert (found.life_us, found.idle_us) == (5 * 3_600_000_000, 4 * 3_600_000_000)
    assert (found.cost_micros, found.idle_cost_micros) == (18_000_000, 14_400_000)
    assert (found.hours, found.workers_always_on) == (10, 1)


def test_the_last_word_on_a_variant_holds(world: World) -> None:
    world.execute(
        "INSERT INTO variants (name, model, label, source, revision, recipe, engine, options) VALUES "
        "('m@int8', 'm', 'int8', 's', 'r', 'int8', 'torch', '{}'), ('m@int4', 'm', 'int4', 's', 'r', 'int4_weights', 'openvino', '{}')"
    )
    for variant, verdict, cost in (
        ("m@int8", "rejected", 0.7),
        ("m@int8", "accepted", 0.6),
        ("m@int4", "accepted", 0.5),
        ("m@int4", "rejected", 0.5),
        ("m@gone", "accepted", 0.1),
    ):
        world.execute(
            "INSERT INTO qualifications (variant, tier, verdict, gate_key, relative_cost, reason, report) "
            "VALUES (:variant, 'bulk', :verdict, 'k', :cost, 'x', '{}')",
            variant=variant,
            verdict=verdict,
            cost=cost,
        )

    (word,) = used(world).variants

    assert (word.tier, word.model, word.variant, word.relative_cost) == (Tier.BULK, "m", "m@int8", 0.6)


def test_what_lies_before_the_span_or_was_paid_in_another_currency_is_left_out(world: World) -> None:
    batch = world.admit(10)
    ran(world, world.worker(), {batch: 100})

    assert used(world).works
    assert used(world, currency="EUR").works == ()
    world.execute("UPDATE batches SET created_at = created_at - interval '8 days' WHERE id = :id", id=batch)
    assert used(world, days=7).works == ()
    assert used(world, days=9).works
