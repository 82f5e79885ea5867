from __future__ import annotations

import pytest
from sqlalchemy.exc import IntegrityError

from pipeline.domain.errors import LeaseLostError
from pipeline.domain.lifecycle import AttemptOutcome, IntervalKind
from pipeline.domain.limits import PACK_UNREAD_BEFORE_CONVICTED
from pipeline.domain.retry import Verdict
from tests.storage.world import World


def test_workers_lease_the_lowest_ordinal_first_and_never_the_same_pack(world: World) -> None:
    batch = world.admit(10)
    (shard,) = world.shard_ids(batch)
    late = world.pack((batch, shard, 0, 5), ordinal=2.0)
    soon = world.pack((batch, shard, 5, 10), ordinal=1.0)
    worker = world.worker()

    assert world.lease(worker).pack_id == soon
    assert world.lease(worker).pack_id == late
    assert world.packs.lease(worker, pool="local", variants=["echo"]) is None


def test_a_pack_of_another_pool_or_model_is_left_alone(world: World) -> None:
    batch = world.admit(10)
    world.pack((batch, world.shard_ids(batch)[0], 0, 10))
    worker = world.worker()

    assert world.packs.lease(worker, pool="elsewhere", variants=["echo"]) is None
    assert world.packs.lease(worker, pool="local", variants=["other"]) is None


def waiting(world: World, **ordinals: float) -> dict[str, str]:
    """Let a pack of each named variant wait; return whose pack is whose."""
    found = {}
    for variant, ordinal in ordinals.items():
        batch = world.admit(1)
        pack = world.pack((batch, world.shard_ids(batch)[0], 0, 1), ordinal=ordinal)
        world.execute("UPDATE packs SET model = :name, variant = :name WHERE id = :id", name=variant, id=pack)
        found[pack] = variant
    return found


@pytest.mark.parametrize(
    ("cold", "warm", "first"),
    [(0.0, 10.0, "warm"), (0.0, 100.0, "cold"), (10.0, 0.0, "warm"), (-2e9, 10.0, "cold"), (-2e9, -2e9 + 10, "warm")],
)
def test_what_is_loaded_goes_first_unless_another_has_a_much_better_claim(
    world: World, cold: float, warm: float, first: str
) -> None:
    variant_of = waiting(world, cold=cold, warm=warm)
    worker = world.worker()

    leases = [world.packs.lease(worker, pool="local", variants=["cold", "warm"], warm=["warm"]) for _ in range(3)]

    assert [lease and variant_of[lease.pack_id] for lease in leases] == [
        first,
        {"warm": "cold", "cold": "warm"}[first],
        None,
    ]


def test_a_worker_with_nothing_loaded_takes_what_is_first(world: World) -> None:
    variant_of = waiting(world, cold=0.0, warm=1.0)

    lease = world.packs.lease(world.worker(), pool="local", variants=["cold", "warm"])

    assert lease is not None
    assert variant_of[lease.pack_id] == "cold"


def test_a_late_worker_cannot_commit_over_its_successor(world: World) -> None:
    batch = world.admit(4)
    (shard,) = world.shard_ids(batch)
    pack = world.pack((batch, shard, 0, 4))
    slow, quick = world.worker(), world.worker()
    first = world.lease(slow)
    world.expire(pack)
    assert world.cycles.rescue(world.leadership.epoch) == {pack: Verdict.RETRY}
    second = world.lease(quick)

    with pytest.raises(LeaseLostError):
        world.packs.commit(slow, world.work(slow, first, (batch, shard, ((0, 4),), 8)))
    world.packs.commit(quick, world.work(quick, second, (batch, shard, ((0, 4),), 8)))

    assert second.lease_token == first.lease_token + 1
    assert world.scalars("SELECT rows_succeeded FROM shards") == [4]
    assert world.scalars("SELECT worker_id FROM accruals") == [quick]


def test_a_commit_repeated_after_a_lost_answer_changes_nothing(world: World) -> None:
    batch = world.admit(4)
    (shard,) = world.shard_ids(batch)
    world.pack((batch, shard, 0, 4))
    worker = world.worker()
    lease = world.lease(worker)
    commit = world.work(worker, lease, (batch, shard, ((0, 2),), 8))

    world.packs.commit(worker, commit)
    world.packs.commit(worker, commit)

    assert world.scalars("SELECT rows_succeeded FROM shards") == [2]
    assert world.scalars("SELECT sum(amount_micros) FROM accruals") == [1000]


def test_a_repeated_commit_succeeds_even_after_the_lease_has_moved_on(world: World) -> None:
    batch = world.admit(4)
    (shard,) = world.shard_ids(batch)
    world.pack((batch, shard, 0, 4))
    worker = world.worker()
    lease = world.lease(worker)
    commit = world.work(worker, lease, (batch, shard, ((0, 4),), 8))
    world.packs.commit(worker, commit)
    assert world.packs.finish(lease.pack_id, lease.lease_token, AttemptOutcome.SUCCEEDED) is Verdict.DONE

    world.packs.commit(worker, commit)

    assert world.scalars("SELECT count(*) FROM parts") == [1]


def test_the_database_refuses_a_second_result_for_a_row_even_under_a_valid_lease(world: World) -> None:
    batch = world.admit(4)
    (shard,) = world.shard_ids(batch)
    world.pack((batch, shard, 0, 4))
    worker = world.worker()
    lease = world.lease(worker)
    world.packs.commit(worker, world.work(worker, lease, (batch, shard, ((0, 3),), 8)))

    with pytest.raises(IntegrityError, match="one_result_a_row"):
        world.packs.commit(worker, world.work(worker, lease, (batch, shard, ((2, 4),), 8)))


def test_the_database_refuses_a_row_in_two_packs(world: World) -> None:
    batch = world.admit(4)
    (shard,) = world.shard_ids(batch)
    world.pack((batch, shard, 0, 4))
    world.execute("UPDATE shards SET rows_packed = 2")

    with pytest.raises(IntegrityError, match="row_in_one_pack"):
        world.pack((batch, shard, 2, 4))


def test_the_next_lease_leaves_out_rows_that_have_a_result(world: World) -> None:
    batch = world.admit(10)
    (shard,) = world.shard_ids(batch)
    world.pack((batch, shard, 0, 10))
    worker = world.worker()
    lease = world.lease(worker)
    world.packs.commit(worker, world.work(worker, lease, (batch, shard, ((0, 3), (5, 6)), 8)))

    assert world.packs.finish(lease.pack_id, lease.lease_token, AttemptOutcome.PREEMPTED) is Verdict.RETRY

    assert [part.ranges for part in world.lease(worker).slices] == [((3, 5), (6, 10))]


def test_preemption_never_counts_as_a_failure(world: World) -> None:
    batch = world.admit(2)
    world.pack((batch, world.shard_ids(batch)[0], 0, 2))
    worker = world.worker()

    for _ in range(5):
        lease = world.lease(worker)
        assert world.packs.finish(lease.pack_id, lease.lease_token, AttemptOutcome.PREEMPTED) is Verdict.RETRY

    assert world.scalars("SELECT failures FROM packs") == [0]


def test_a_poison_row_is_alone_after_log2_n_plus_3_attempts_and_the_others_finish(world: World) -> None:
    rows, poison = 32, 21
    batch = world.admit(rows)
    (shard,) = world.shard_ids(batch)
    world.pack((batch, shard, 0, rows))
    worker = world.worker()
    attempts_with_poison = 0

    for _ in range(64):
        world.execute("UPDATE packs SET available_at = now()")
        lease = world.packs.lease(worker, pool="local", variants=["echo"])
        if lease is None:
            break
        ranges = lease.slices[0].ranges
        if any(start <= poison < stop for start, stop in ranges):
            attempts_with_poison += 1
            world.packs.finish(lease.pack_id, lease.lease_token, AttemptOutcome.FAILED, "segmentation fault")
        else:
            world.packs.commit(worker, world.work(worker, lease, (batch, shard, ranges, 8)))
            world.packs.finish(lease.pack_id, lease.lease_token, AttemptOutcome.SUCCEEDED)

    assert attempts_with_poison <= 5 + 3
    assert world.scalars("SELECT rows_succeeded FROM shards") == [rows - 1]
    found = world.packs.lease_convicted()
    assert found is not None
    assert found.lease.slices[0].ranges == ((poison, poison + 1),)
    assert (found.outcome, found.error) == (AttemptOutcome.FAILED, "segmentation fault")


def test_a_lost_shards_rows_alone_are_given_up_after_a_while(world: World) -> None:
    batch = world.admit(4, 4)
    lost, kept = world.shard_ids(batch)
    world.pack((batch, lost, 0, 4), (batch, kept, 0, 4))
    worker = world.worker()
    pauses = []

    for _ in range(60):
        world.execute("UPDATE packs SET available_at = now()")
        lease = world.packs.lease(worker, pool="local", variants=["echo"])
        if lease is None:
            break
        is_lost = any(part.shard_id == lost for part in lease.slices)
        if not is_lost:
            rows = [(part.batch_id, part.shard_id, part.ranges, 1) for part in lease.slices]
            world.packs.commit(worker, world.work(worker, lease, *rows))
        outcome = AttemptOutcome.UNREAD if is_lost else AttemptOutcome.SUCCEEDED
        world.packs.finish(lease.pack_id, lease.lease_token, outcome, "it is gone" if is_lost else None)
        (pause,) = world.scalars(
            "SELECT extract(epoch FROM available_at - clock_timestamp()) FROM packs WHERE id = :id", id=lease.pack_id
        )
        pauses.append(round(float(str(pause))))

    assert pauses[:PACK_UNREAD_BEFORE_CONVICTED] == sorted(pauses[:PACK_UNREAD_BEFORE_CONVICTED])
    assert sum(pauses[: PACK_UNREAD_BEFORE_CONVICTED - 1]) > 120
    assert world.scalars("SELECT rows_succeeded FROM shards ORDER BY shard_no") == [0, 4]
    found = world.packs.lease_convicted()
    assert found is not None
    assert (found.outcome, found.error) == (AttemptOutcome.UNREAD, "it is gone")
    assert {part.shard_id for part in found.lease.slices} == {lost}


def test_a_pack_that_has_failed_is_not_leased_beside_another(world: World) -> None:
    batch = world.admit(4)
    (shard,) = world.shard_ids(batch)
    failed = world.pack((batch, shard, 0, 2), ordinal=1.0)
    fresh = world.pack((batch, shard, 2, 4), ordinal=2.0)
    worker = world.worker()
    lease = world.lease(worker)
    world.packs.finish(lease.pack_id, lease.lease_token, AttemptOutcome.FAILED, "it raised")

    # It rests for a moment; until then it is in nobody's way.
    assert world.lease(worker).pack_id == fresh
    world.execute("UPDATE packs SET available_at = now()")

    assert world.packs.lease(worker, pool="local", variants=["echo"], in_company=True) is None
    alone = world.lease(worker)
    assert (alone.pack_id, alone.has_failed) == (failed, True)


def test_a_withdrawn_batch_leaves_the_lease_and_the_pack_still_ends(world: World) -> None:
    kept, gone = world.admit(2), world.admit(2)
    (kept_shard,), (gone_shard,) = world.shard_ids(kept), world.shard_ids(gone)
    world.pack((kept, kept_shard, 0, 2), (gone, gone_shard, 0, 2))
    world.batches.cancel(gone)
    worker = world.worker()

    lease = world.lease(worker)
    world.packs.commit(worker, world.work(worker, lease, (kept, kept_shard, ((0, 2),), 8)))

    assert [part.batch_id for part in lease.slices] == [kept]
    assert world.packs.finish(lease.pack_id, lease.lease_token, AttemptOutcome.SUCCEEDED) is Verdict.DONE


def test_a_heartbeat_keeps_live_leases_and_reports_lost_and_withdrawn_ones(world: World) -> None:
    kept, lost = world.admit(1), world.admit(1)
    mine = world.pack((kept, world.shard_ids(kept)[0], 0, 1), ordinal=1)
    other = world.pack((lost, world.shard_ids(lost)[0], 0, 1), ordinal=2)
    worker = world.worker()
    tokens = {lease.pack_id: lease.lease_token for lease in (world.lease(worker), world.lease(worker))}
    world.expire(other)
    world.cycles.rescue(world.leadership.epoch)
    world.batches.cancel(kept)

    renewal = world.workers.renew(worker, tokens, uptime_us=5)

    assert renewal.lost == {other}
    assert renewal.withdrawn == {kept, lost} - {lost}
    assert not renewal.must_stop
    assert world.scalars("SELECT lease_expires_at > now() FROM packs WHERE id = :id", id=mine) == [True]


def test_a_silent_worker_is_lost_and_its_last_reported_second_is_charged_to_overhead(world: World) -> None:
    worker = world.worker(rate_micros_per_hour=3_600_000_000)
    world.workers.meter(worker, world.span(worker, IntervalKind.BOOT, 1_000_000))
    world.workers.renew(worker, {}, uptime_us=3_500_000)
    world.execute("UPDATE workers SET heartbeat_at = now() - interval '1 h'")

    world.cycles.rescue(world.leadership.epoch)

    assert world.scalars("SELECT state FROM workers") == ["lost"]
    assert world.scalars("SELECT amount_micros FROM accruals ORDER BY start_us") == [1_000_000, 2_500_000]
    assert world.workers.renew(worker, {}, uptime_us=4_000_000).must_stop
