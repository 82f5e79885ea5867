from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta

import pytest

from pipeline.domain.gates import GateVerdict
from pipeline.domain.ids import BatchId, WorkerId
from pipeline.domain.tiers import Tier
from pipeline.domain.wealth import Bounds
from pipeline.ports.packs import PackLease, ShadowRow, WorkCommit
from pipeline.ports.shadow import Finding, ShadowSample
from pipeline.ports.variants import Qualification
from storage.shadow import ShadowRepository
from storage.variants import VariantRepository
from tests.storage.world import World

LOSS: Bounds = (-1.0, 0.0)
HOLD = timedelta(minutes=10)
VARIANT = "echo@small"


def shadow(world: World) -> ShadowRepository:
    return ShadowRepository(world.database)


def leased(world: World, rows: int = 20) -> tuple[WorkerId, BatchId, PackLease]:
    """Lease a pack of a new batch that runs on the variant."""
    worker = world.worker()
    batch = world.admit(rows)
    pack = world.pack((batch, world.shard_ids(batch)[0], 0, rows))
    world.execute("UPDATE packs SET variant = :variant WHERE id = :id", variant=VARIANT, id=pack)
    lease = world.packs.lease(worker, pool="local", variants=[VARIANT])
    assert lease is not None
    return worker, batch, lease


def commit_of(world: World, worker: WorkerId, batch: BatchId, lease: PackLease, chosen: int) -> WorkCommit:
    """Return a commit of all rows of the lease, of which the first `chosen` are to be judged."""
    (part,) = lease.slices
    commit = world.work(worker, lease, (batch, part.shard_id, part.ranges, 8))
    rows = tuple(ShadowRow(shard_id=part.shard_id, position=n, line_no=n) for n in range(chosen))
    return replace(commit, gate_key="key-1", parts=(replace(commit.parts[0], shadow_rows=rows),))


def sampled(world: World, chosen: int = 5) -> tuple[ShadowSample, ...]:
    """Run a pack on the variant, and claim the rows that were chosen."""
    worker, batch, lease = leased(world)
    world.packs.commit(worker, commit_of(world, worker, batch, lease, chosen))
    return shadow(world).claim(["echo"], 100, hold_for=HOLD)


def found(samples: Sequence[ShadowSample], x: float | None) -> list[Finding]:
    return [Finding(sample_id=each.sample_id, x=x, tokens=10, bounds=LOSS) for each in samples]


def say(world: World, verdict: GateVerdict, *tiers: Tier, key: str | None = "key-1") -> None:
    VariantRepository(world.database).qualify(
        [
            Qualification(variant=VARIANT, tier=tier, verdict=verdict, gate_key=key, reason="because")
            for tier in tiers or tuple(Tier)
        ]
    )


def verdicts(world: World) -> dict[Tier, GateVerdict]:
    last: dict[Tier, GateVerdict] = {}
    for each in VariantRepository(world.database).qualifications(VARIANT):
        last.setdefault(each.tier, each.verdict)
    return last


def states(world: World) -> set[object]:
    return set(world.scalars("SELECT state FROM shadow_samples"))


def test_chosen_rows_are_recorded_with_their_commit_and_once_when_it_is_repeated(world: World) -> None:
    worker, batch, lease = leased(world)
    commit = commit_of(world, worker, batch, lease, 3)
    world.packs.commit(worker, commit)
    world.packs.commit(worker, commit)

    samples = shadow(world).claim(["echo"], 100, hold_for=HOLD)

    assert [each.position for each in samples] == [2, 1, 0]
    assert {(each.model, each.variant) for each in samples} == {("echo", VARIANT)}
    assert {each.part_key for each in samples} == {commit.parts[0].object_key}
    assert {each.shard_key for each in samples} == {lease.slices[0].object_key}


def test_a_commit_that_is_refused_leaves_no_samples(world: World) -> None:
    worker, batch, lease = leased(world)
    commit = commit_of(world, worker, batch, lease, 3)
    world.expire(lease.pack_id)
    world.cycles.rescue(world.leadership.epoch)

    with pytest.raises(Exception, match="has ended"):
        world.packs.commit(worker, commit)

    assert states(world) == set()


def test_what_one_has_claimed_no_other_gets_until_the_hold_has_ended(world: World) -> None:
    samples = sampled(world)

    assert shadow(world).claim(["echo"], 100, hold_for=HOLD) == ()
    world.execute("UPDATE shadow_samples SET claimed_until = now() - interval '1 s'")
    assert shadow(world).claim(["echo"], 100, hold_for=HOLD) == samples


def test_samples_of_models_that_are_not_served_wait(world: World) -> None:
    worker, batch, lease = leased(world)
    world.packs.commit(worker, commit_of(world, worker, batch, lease, 3))

    assert shadow(world).claim(["other"], 100, hold_for=HOLD) == ()
    assert states(world) == {"waiting"}


def test_a_sample_recorded_again_and_again_counts_once(world: World) -> None:
    samples = sampled(world)

    for _ in range(3):
        shadow(world).record(found(samples, -0.001))
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda _: shadow(world).record(found(samples, -0.001)), range(8)))

    watched = shadow(world).watched(VARIANT)
    assert [each.tier for each in watched] == list(Tier)
    assert {(each.watch.samples, each.watch.tokens, each.waiting) for each in watched} == {(5, 50, 0)}
    assert world.scalars("SELECT DISTINCT x FROM shadow_samples WHERE state = 'judged'") == [-0.001]


def test_many_who_record_at_once_lose_nothing_and_double_nothing(world: World) -> None:
    samples = sampled(world, 20)
    pairs = [samples[n : n + 4] for n in range(0, 20, 2)]

    with ThreadPoolExecutor(5) as threads:
        list(threads.map(lambda some: shadow(world).record(found(some, -0.002)), pairs))

    (urgent, *_) = shadow(world).watched(VARIANT)
    assert urgent.watch.samples == 20
    assert urgent.watch.mean_points == pytest.approx(-0.2)


def test_what_cannot_be_judged_is_dropped_and_counts_nothing(world: World) -> None:
    samples = sampled(world)

    shadow(world).record(found(samples, None))

    assert states(world) == {"dropped"}
    assert shadow(world).watched(VARIANT) == ()


def test_a_variant_beyond_its_margin_is_rolled_back_for_the_tiers_that_run_on_it(world: World) -> None:
    say(world, GateVerdict.ACCEPTED, Tier.BULK, Tier.NIGHTLY)
    worker, _batch, lease = leased(world)
    samples = sampled(world)

    rollbacks = shadow(world).record(found(samples, -0.4))

    assert {(each.variant, each.tier) for each in rollbacks} == {(VARIANT, Tier.BULK), (VARIANT, Tier.NIGHTLY)}
    assert verdicts(world) == {Tier.BULK: GateVerdict.REJECTED, Tier.NIGHTLY: GateVerdict.REJECTED}
    last = VariantRepository(world.database).qualifications(VARIANT)[0]
    assert last.gate_key == "key-1"
    assert last.report["source"] == "shadow"
    assert last.reason.startswith("In production: 5 answers")
    del worker, lease


def test_packs_that_wait_for_a_variant_rolled_back_go_to_the_reference(world: World) -> None:
    say(world, GateVerdict.ACCEPTED)
    samples = sampled(world)
    batch = world.admit(5)
    pack = world.pack((batch, world.shard_ids(batch)[0], 0, 5))
    world.execute("UPDATE packs SET variant = :variant WHERE id = :id", variant=VARIANT, id=pack)

    shadow(world).record(found(samples, -0.4))

    assert world.scalars("SELECT variant FROM packs WHERE id = :id", id=pack) == ["echo"]


def test_it_is_rolled_back_once_and_only_where_the_loss_is_beyond_the_tiers_margin(world: World) -> None:
    say(world, GateVerdict.ACCEPTED)
    shadow(world).record(found(sampled(world, 20), -0.016))
    shadow(world).record(found(sampled(world, 20), -0.016))

    assert verdicts(world) == {
        Tier.URGENT: GateVerdict.REJECTED,
        Tier.STANDARD: GateVerdict.REJECTED,
        Tier.BULK: GateVerdict.ACCEPTED,
        Tier.NIGHTLY: GateVerdict.ACCEPTED,
    }
    assert world.scalars("SELECT count(*) FROM qualifications WHERE verdict = 'rejected'") == [2]


def test_a_healthy_variant_is_left_alone(world: World) -> None:
    say(world, GateVerdict.ACCEPTED)

    assert shadow(world).record(found(sampled(world, 20), -0.002)) == ()
    assert set(verdicts(world).values()) == {GateVerdict.ACCEPTED}


def test_a_watch_never_lets_a_variant_run(world: World) -> None:
    shadow(world).record(found(sampled(world, 20), 0.0))

    assert verdicts(world) == {}


def test_whom_a_person_allows_after_a_rollback_is_watched_anew(world: World) -> None:
    say(world, GateVerdict.ACCEPTED)
    shadow(world).record(found(sampled(world), -0.4))
    sampled(world)
    say(world, GateVerdict.ALLOWED, key=None)

    assert set(verdicts(world).values()) == {GateVerdict.ALLOWED}
    assert shadow(world).watched(VARIANT) == ()
    assert states(world) == {"judged", "dropped"}
    shadow(world).record(found(sampled(world, 1), -0.4))
    assert set(verdicts(world).values()) == {GateVerdict.ALLOWED}
    shadow(world).record(found(sampled(world), -0.4))
    assert set(verdicts(world).values()) == {GateVerdict.REJECTED}


def test_samples_that_nobody_judges_expire_and_old_ones_are_forgotten(world: World) -> None:
    sampled(world)
    days = timedelta(days=1)

    assert shadow(world).expire(waiting_for=days, kept_for=days) == 0
    world.execute("UPDATE shadow_samples SET created_at = now() - interval '2 days'")
    assert shadow(world).expire(waiting_for=days, kept_for=days) == 5
    assert states(world) == {"expired"}
    world.execute("UPDATE shadow_samples SET ended_at = now() - interval '2 days'")
    assert shadow(world).expire(waiting_for=days, kept_for=days) == 5
    assert states(world) == set()
