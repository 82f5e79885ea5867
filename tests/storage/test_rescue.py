from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from pipeline.domain.errors import LeaseLostError
from pipeline.domain.ids import PackId, WorkerId
from pipeline.domain.lifecycle import AttemptOutcome, IntervalKind, WorkerState
from pipeline.domain.retry import Verdict
from pipeline.ports.packs import Interval
from storage.rescue import declare_lost, expired_leases, rescue_pack
from tests.storage.world import World


def leased(world: World) -> tuple[PackId, WorkerId, int]:
    batch = world.admit(2)
    pack = world.pack((batch, world.shard_ids(batch)[0], 0, 2))
    worker = world.worker()
    lease = world.lease(worker)
    assert lease.pack_id == pack
    return pack, worker, lease.lease_token


def test_a_lease_renewed_after_it_was_found_expired_is_left_alone(world: World) -> None:
    pack, worker, token = leased(world)
    world.expire(pack)
    found = world.database.run(expired_leases)
    assert found == [(pack, token)]

    assert world.workers.renew(worker, {pack: token}, uptime_us=1).lost == frozenset()

    assert world.database.run(lambda connection: rescue_pack(connection, *found[0])) is None
    assert world.cycles.rescue(world.leadership.epoch) == {}
    assert world.scalars("SELECT state FROM packs") == ["leased"]


def test_a_lease_is_rescued_once_and_never_its_successor(world: World) -> None:
    pack, _, token = leased(world)
    world.expire(pack)

    assert world.cycles.rescue(world.leadership.epoch) == {pack: Verdict.RETRY}
    assert world.cycles.rescue(world.leadership.epoch) == {}
    second = world.lease(world.worker())
    world.expire(pack)
    assert world.database.run(lambda connection: rescue_pack(connection, pack, token)) is None
    assert second.lease_token == token + 1
    assert world.scalars("SELECT outcome FROM attempts ORDER BY lease_token") == ["lease_lost", None]


def test_a_worker_declared_lost_loses_its_leases_and_gets_no_more(world: World) -> None:
    pack, worker, token = leased(world)
    other_batch = world.admit(1)
    world.pack((other_batch, world.shard_ids(other_batch)[0], 0, 1), ordinal=1)
    world.workers.renew(worker, {}, uptime_us=3_000_000)
    world.execute("UPDATE workers SET heartbeat_at = now() - interval '1 h'")

    assert world.cycles.rescue(world.leadership.epoch) == {pack: Verdict.RETRY}

    renewal = world.workers.renew(worker, {pack: token}, uptime_us=4_000_000)
    assert (renewal.lost, renewal.must_stop) == ({pack}, True)
    with pytest.raises(LeaseLostError, match="has ended"):
        world.packs.lease(worker, pool="local", variants=["echo"])
    late = Interval(kind=IntervalKind.LATE, start_us=0, stop_us=5_000_000)
    for _ in range(2):
        world.workers.meter(worker, late)
    with pytest.raises(LeaseLostError, match="was declared lost"):
        world.workers.meter(worker, replace(late, kind=IntervalKind.IDLE, start_us=5_000_000, stop_us=6_000_000))
    world.workers.enter(worker, WorkerState.READY)
    assert world.scalars("SELECT state FROM workers") == ["lost"]
    assert world.scalars("SELECT kind || start_us FROM worker_intervals ORDER BY start_us") == ["lost0", "late3000000"]


def test_leasing_is_a_sign_of_life_that_declaring_lost_looks_at_again(world: World) -> None:
    batch = world.admit(1)
    world.pack((batch, world.shard_ids(batch)[0], 0, 1))
    worker = world.worker()
    world.execute("UPDATE workers SET heartbeat_at = now() - interval '1 h'")

    world.lease(worker)

    assert world.database.run(lambda connection: declare_lost(connection, worker, timedelta(seconds=30))) == {}
    assert world.scalars("SELECT state FROM workers") == ["booting"]
    assert world.scalars("SELECT state FROM packs") == ["leased"]


def test_a_row_is_convicted_by_its_own_failures_and_not_by_those_of_its_company(world: World) -> None:
    batch, gone = world.admit(1), world.admit(1)
    (shard,), (gone_shard,) = world.shard_ids(batch), world.shard_ids(gone)
    world.pack((batch, shard, 0, 1), (gone, gone_shard, 0, 1))
    worker = world.worker()
    lease = world.lease(worker)
    assert world.packs.finish(lease.pack_id, lease.lease_token, AttemptOutcome.LEASE_LOST) is Verdict.RETRY
    lease = world.lease(worker)
    world.batches.cancel(gone)

    verdicts = [world.packs.finish(lease.pack_id, lease.lease_token, AttemptOutcome.LEASE_LOST)]
    for _ in range(2):
        lease = world.lease(worker)
        verdicts.append(world.packs.finish(lease.pack_id, lease.lease_token, AttemptOutcome.LEASE_LOST))

    assert verdicts == [Verdict.RETRY, Verdict.RETRY, Verdict.CONVICT]
