from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from pipeline.domain.errors import LeaseLostError, StoreUnavailableError
from pipeline.domain.ids import BatchId, PackId
from pipeline.domain.lifecycle import AttemptOutcome
from pipeline.domain.retry import Verdict
from pipeline.ports.objects import StoredObject
from scheduler.convictor import Convictor
from storage.objects.local import LocalStore
from tests.storage.world import World, open_world


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    with open_world(database_url) as opened:
        yield opened


@pytest.fixture
def objects(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "objects", fsync=False)


def convicted(world: World) -> tuple[BatchId, PackId]:
    """Bring a single-row pack down until it is convicted."""
    batch = world.admit(3)
    pack = world.pack((batch, world.shard_ids(batch)[0], 0, 1))
    worker = world.worker()
    verdict = None
    while verdict is not Verdict.CONVICT:
        world.execute("UPDATE packs SET available_at = now()")
        lease = world.lease(worker)
        verdict = world.packs.finish(lease.pack_id, lease.lease_token, AttemptOutcome.FAILED, 'segfault "here"')
    return batch, pack


def test_without_a_convict_nothing_happens(world: World, objects: LocalStore) -> None:
    batch = world.admit(1)
    world.pack((batch, world.shard_ids(batch)[0], 0, 1))

    assert not Convictor(world.packs, objects).run_once()

    assert world.scalars("SELECT state FROM packs") == ["ready"]


def test_a_convicted_row_gets_an_error_with_its_cause_and_costs_nothing(world: World, objects: LocalStore) -> None:
    batch, _ = convicted(world)

    assert Convictor(world.packs, objects).run_once()

    (key,) = world.scalars("SELECT object_key FROM parts WHERE batch_id = :id", id=batch)
    head, line = (orjson.loads(line) for line in objects.read(str(key)).splitlines())
    assert head == {"rows": [[0, 0, 0]]}
    assert line["response"] is None
    assert line["error"]["code"] == "engine_crashed"
    assert line["error"]["message"].endswith('segfault "here"')
    assert world.scalars("SELECT state FROM packs") == ["committed"]
    assert world.scalars("SELECT rows_errored FROM shards") == [1]
    assert world.scalars("SELECT count(*) FROM accruals") == [0]
    assert not Convictor(world.packs, objects).run_once()


def test_a_lost_shards_rows_are_errored_together(world: World, objects: LocalStore) -> None:
    batch = world.admit(3)
    world.pack((batch, world.shard_ids(batch)[0], 0, 3))
    worker = world.worker()
    verdict = Verdict.RETRY
    while verdict is Verdict.RETRY:
        world.execute("UPDATE packs SET available_at = now()")
        lease = world.lease(worker)
        verdict = world.packs.finish(lease.pack_id, lease.lease_token, AttemptOutcome.UNREAD, "object_missing: gone")

    assert verdict is Verdict.CONVICT
    assert Convictor(world.packs, objects).run_once()

    (key,) = world.scalars("SELECT object_key FROM parts WHERE batch_id = :id", id=batch)
    head, *lines = (orjson.loads(line) for line in objects.read(str(key)).splitlines())
    assert head == {"rows": [[0, 0, 0], [0, 1, 0], [0, 2, 0]]}
    assert {line["error"]["code"] for line in lines} == {"input_lost"}
    assert lines[0]["error"]["message"].endswith("object_missing: gone")
    assert world.scalars("SELECT rows_errored FROM shards") == [3]


def test_a_verdict_that_could_not_be_written_is_passed_again(world: World, objects: LocalStore) -> None:
    class Refusing(LocalStore):
        def put(self, key: str, content: object) -> StoredObject:
            raise StoreUnavailableError(f"{key}: {content!r}")

    _, pack = convicted(world)
    with pytest.raises(StoreUnavailableError):
        Convictor(world.packs, Refusing(objects._root)).run_once()
    world.expire(pack)
    assert world.cycles.rescue(world.leadership.epoch) == {pack: Verdict.CONVICT}

    assert Convictor(world.packs, objects).run_once()

    assert world.scalars("SELECT rows_errored FROM shards") == [1]


def test_a_convictor_that_was_too_slow_writes_nothing_over_its_successor(world: World, objects: LocalStore) -> None:
    _, pack = convicted(world)
    successor = Convictor(world.packs, objects)

    class Slow(LocalStore):
        def put(self, key: str, content: object) -> StoredObject:
            world.expire(pack)
            world.cycles.rescue(world.leadership.epoch)
            assert successor.run_once()
            return super().put(key, content)  # type: ignore[arg-type] # as it came

    with pytest.raises(LeaseLostError):
        Convictor(world.packs, Slow(objects._root)).run_once()

    assert world.scalars("SELECT count(*) FROM parts") == [1]
    assert world.scalars("SELECT rows_errored FROM shards") == [1]


def test_the_row_of_a_withdrawn_batch_is_nobodys_to_convict(world: World, objects: LocalStore) -> None:
    batch, _ = convicted(world)
    world.execute("UPDATE batches SET state = 'cancelling', cancelling_at = now() WHERE id = :id", id=batch)

    assert not Convictor(world.packs, objects).run_once()

    assert world.scalars("SELECT count(*) FROM parts") == [0]
    assert world.scalars("SELECT state FROM packs") == ["discarded"]
