from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ProgrammingError

from pipeline.domain.errors import ConflictError, LeaseLostError, StoreUnavailableError, UsageError
from pipeline.domain.lifecycle import BatchState
from storage.batches import BatchRepository
from storage.cycles import Leadership
from storage.database import Database
from storage.migrations import upgrade, versions
from storage.packs import PackRepository
from tests.services import connect
from tests.storage.proxy import LossyProxy, lossy_proxy
from tests.storage.world import LEASE, World, admitted

CHARGES = 20
#: How far a retry has come when it waits for what its first try has locked.
AT_THE_LOCK = b"FOR NO KEY UPDATE"


@pytest.fixture
def proxy(database_url: str) -> Iterator[LossyProxy]:
    url = make_url(database_url)
    assert url.host is not None
    assert url.port is not None
    with lossy_proxy(url.host, url.port) as opened:
        yield opened


@pytest.fixture
def lossy(database_url: str, proxy: LossyProxy) -> Iterator[Database]:
    """The world's database, by way of the proxy."""
    url = make_url(database_url).set(host="127.0.0.1", port=proxy.port)
    with closing(Database(url.render_as_string(hide_password=False), pool_size=1, away_seconds_max=20.0)) as database:
        yield database


def failing_once(fail: Callable[[Connection], object], tries: list[int]) -> Callable[[Connection], int]:
    def work(connection: Connection) -> int:
        tries.append(connection.execute(text("SELECT pg_backend_pid()")).scalar_one())
        connection.execute(text("INSERT INTO tenants (id, name) VALUES ('tnt_' || :n, 'x')"), {"n": str(len(tries))})
        if len(tries) == 1:
            fail(connection)
        return len(tries)

    return work


def test_a_transaction_whose_connection_drops_is_run_again_from_its_start(shared: World) -> None:
    def drop(connection: Connection) -> None:
        with connect(shared.database.url) as other:
            other.execute("SELECT pg_terminate_backend(%s)", [tries[0]])
        connection.execute(text("SELECT 1"))

    tries: list[int] = []

    assert shared.database.run(failing_once(drop, tries)) == 2
    assert tries[0] != tries[1]
    assert shared.scalars("SELECT id FROM tenants WHERE id <> 'tnt_default'") == ["tnt_2"]


def test_a_transaction_that_others_came_in_between_is_run_again(shared: World) -> None:
    clash = text("DO $$ BEGIN RAISE EXCEPTION 'clash' USING ERRCODE = 'deadlock_detected'; END $$")
    shared.execute("DELETE FROM tenants WHERE id <> 'tnt_default'")

    assert shared.database.run(failing_once(lambda connection: connection.execute(clash), [])) == 2

    assert shared.scalars("SELECT id FROM tenants WHERE id <> 'tnt_default'") == ["tnt_2"]
    with pytest.raises(ConflictError, match="came in between"), shared.database.transaction() as connection:
        connection.execute(clash)


def test_a_statement_that_makes_no_sense_is_not_tried_again(shared: World) -> None:
    tries: list[int] = []

    with pytest.raises(ProgrammingError):
        shared.database.run(failing_once(lambda connection: connection.execute(text("SELEKT")), tries))
    assert len(tries) == 1


@pytest.mark.parametrize(("is_long", "most"), [(False, "1min"), (True, "10min")])
def test_a_look_at_all_there_ever_was_may_take_its_time(shared: World, *, is_long: bool, most: str) -> None:
    shown = text("SHOW statement_timeout")

    assert shared.database.run(lambda one: one.execute(shown).scalar_one(), is_look=True, is_long=is_long) == most
    assert shared.database.run(lambda one: one.execute(shown).scalar_one()) == "1min"


def test_a_server_that_stays_away_is_given_up_on() -> None:
    with socket.create_server(("127.0.0.1", 0)) as bound:
        port = bound.getsockname()[1]
    database = Database(f"postgresql://nobody@127.0.0.1:{port}/none", away_seconds_max=0.3)

    with pytest.raises(StoreUnavailableError, match="has been away"):
        database.run(lambda connection: connection.execute(text("SELECT 1")))
    with pytest.raises(StoreUnavailableError), database.transaction():
        pass
    with pytest.raises(StoreUnavailableError):
        Leadership.stand(database, "anyone")
    database.close()


@pytest.mark.parametrize("url", ["", "nonsense", "mysql://h/db", "sqlite://", "postgresql://user:secret@host:port/db"])
def test_a_url_that_is_not_a_postgres_one_is_refused_without_showing_it(url: str) -> None:
    for use in (Database, upgrade, versions):
        with pytest.raises(UsageError, match="postgresql://user:password@host/db") as refusal:
            use(url)
        assert "secret" not in str(refusal.value)


def test_the_driver_is_added_to_a_url_without_one() -> None:
    for scheme in ("postgresql", "postgres", "postgresql+psycopg"):
        database = Database(f"{scheme}://user:p%40ss@host:5/db")
        assert database.url == "postgresql+psycopg://user:p%40ss@host:5/db"
        database.close()


def test_a_commit_whose_answer_is_lost_is_charged_once_twenty_times_of_twenty(
    world: World, proxy: LossyProxy, lossy: Database
) -> None:
    batch = world.admit(CHARGES)
    (shard,) = world.shard_ids(batch)
    world.pack((batch, shard, 0, CHARGES))
    worker = world.worker()
    lease = world.lease(worker)
    packs = PackRepository(lossy, lease_for=LEASE)

    for row in range(CHARGES):
        # Every other time the retry overtakes the COMMIT, and finds its rows locked.
        proxy.lose_next_commit(hold_until=AT_THE_LOCK if row % 2 else None)
        packs.commit(worker, world.work(worker, lease, (batch, shard, ((row, row + 1),), 8)))

    assert proxy.swallowed == CHARGES
    assert world.scalars("SELECT count(*) FROM accruals") == [CHARGES]
    assert world.scalars("SELECT count(*) FROM part_slices") == [CHARGES]
    assert world.scalars("SELECT sum(amount_micros) FROM accruals") == [CHARGES * 1000]
    assert world.scalars("SELECT rows_succeeded FROM shards") == [CHARGES]


@pytest.mark.parametrize("hold_until", [None, AT_THE_LOCK])
def test_an_admission_whose_answer_is_lost_is_a_success(
    world: World, proxy: LossyProxy, lossy: Database, hold_until: bytes | None
) -> None:
    claim = world.submit()
    batches = BatchRepository(lossy, claim_for=LEASE)
    proxy.lose_next_commit(hold_until=hold_until)

    batches.admit(claim, admitted(claim.batch_id, 3))

    assert proxy.swallowed == 1
    assert world.batches.get(claim.batch_id).state is BatchState.IN_PROGRESS
    assert len(world.shard_ids(claim.batch_id)) == 1
    with pytest.raises(LeaseLostError):
        batches.renew_claim(claim)
