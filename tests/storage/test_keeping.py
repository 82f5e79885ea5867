from __future__ import annotations

import random
from datetime import UTC, date, datetime, time, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.app.keeping import Keeper
from pipeline.domain.costs.keeping import ObjectPrices, Sent, egress_accrual, storage_micros
from pipeline.domain.ids import DEFAULT_TENANT, BatchId
from storage.egress import EgressRepository
from storage.keeping import KeepingRepository
from tests.storage.test_settlements import balances
from tests.storage.world import World

DAY = date(2026, 11, 20)
NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
_DAY_US = 86_400 * 10**6
S3 = ObjectPrices(gb_month_picos=23_000_000_000, put_picos=5_000_000, get_picos=400_000, source="a test")


def byte_microseconds(size_bytes: int, since: datetime, until: datetime | None, day: date) -> int:
    """Return for how many microseconds of a day how many bytes were kept; None: they are still."""
    begin = datetime.combine(day, time(), UTC)
    end = begin + timedelta(days=1)
    return size_bytes * max((min(until or end, end) - max(since, begin)) // timedelta(microseconds=1), 0)


@pytest.mark.parametrize(
    ("day", "days"), [(DAY, 30), (date(2026, 2, 1), 28), (date(2028, 2, 29), 29), (date(2026, 12, 31), 31)]
)
def test_a_gigabyte_kept_for_a_month_costs_a_gb_month(day: date, days: int) -> None:
    assert storage_micros(1024**3 * _DAY_US * days, 23_000_000_000, day) == 23_000


def test_what_the_tables_name_is_integrated_as_by_hand(world: World) -> None:
    chance = random.Random(7)
    by_hand = 0
    for _ in range(30):
        size = chance.randrange(1, 10**9)
        since = NOON + timedelta(microseconds=chance.randrange(-3 * _DAY_US, 2 * _DAY_US))
        until = since + timedelta(microseconds=chance.randrange(1, 3 * _DAY_US)) if chance.random() < 0.6 else None
        world.execute(
            "UPDATE files SET size_bytes = :size, created_at = :since, deleted_at = :until, removed_at = :until WHERE id = :id",
            id=world.file(),
            size=size,
            since=since,
            until=until,
        )
        by_hand += byte_microseconds(size, since, until, DAY)

    (kept,) = KeepingRepository(world.database).kept(DAY)

    assert (kept.batch_id, kept.tenant_id, kept.byte_microseconds) == (None, DEFAULT_TENANT, by_hand)


def test_a_batch_pays_for_its_own_objects_while_it_lives_and_its_tenant_has_them_then(world: World) -> None:
    batch = world.admit(1)
    world.execute("UPDATE shards SET size_bytes = :size", size=10 * 1024**3)
    world.execute("UPDATE files SET size_bytes = 0")
    world.execute(
        "UPDATE batches SET created_at = :at, in_progress_at = :at, state = 'failed', errors = '[]', failed_at = :noon",
        at=NOON - timedelta(days=3),
        noon=NOON,
    )
    repository = KeepingRepository(world.database)

    assert [repository.accrue(DAY, S3, currency="USD") for _ in range(2)] == [1, 0]

    # 10 GB for a thirtieth of a month at 2.3 cents.
    assert balances(world, "billed_micros") == {
        f"batch:{batch}": 3_833,
        "overhead:storage": 3_833,
        "supplier:objects": -7_666,
    }
    (detail,) = world.scalars("SELECT detail -> 'tenants' FROM transactions")
    assert detail == {DEFAULT_TENANT: 3_833}


def test_requests_are_estimated_from_what_was_written_and_read(world: World) -> None:
    batch = world.admit(4)
    worker = world.worker()
    world.finish_rows(batch, worker)
    found = KeepingRepository(world.database).requests(datetime.now(UTC).date())

    # The input, the shard and the part; the shard was read once.
    assert found == (3, 1)


def test_days_that_were_missed_are_made_up_for_and_a_free_store_costs_nothing(world: World) -> None:
    world.execute(
        "UPDATE files SET size_bytes = 1::bigint << 40, created_at = :at WHERE id = :id",
        at=NOON - timedelta(days=30),
        id=world.file(),
    )
    now = datetime(2026, 11, 21, 2, tzinfo=UTC)

    def keeper(prices: ObjectPrices, at: datetime = now) -> Keeper:
        return Keeper(KeepingRepository(world.database), lambda _at: prices, currency="USD", now=lambda: at)

    keeper(ObjectPrices()).run_once()
    assert world.scalars("SELECT key FROM transactions") == []

    keeper(S3, now.replace(hour=0, minute=30)).run_once()
    days = ["objects:storage:2026-11-17", "objects:storage:2026-11-18", "objects:storage:2026-11-19"]
    assert world.scalars("SELECT key FROM transactions ORDER BY id") == days

    for _ in range(2):
        keeper(S3).run_once()
    assert world.scalars("SELECT key FROM transactions ORDER BY id") == [*days, "objects:storage:2026-11-20"]
    assert world.scalars("SELECT DISTINCT category FROM transactions") == ["storage"]


def test_a_batch_pays_for_the_downloads_of_its_results_and_nobody_for_those_of_other_files(world: World) -> None:
    batch, egress = world.admit(1), EgressRepository(world.database)
    results, errors, other = world.file(), world.file(), world.file()
    world.execute(
        "UPDATE batches SET output_file_id = :results, error_file_id = :errors", results=results, errors=errors
    )
    for number, (file_id, gigabytes) in enumerate(((results, 2), (results, 1), (errors, 1), (other, 6))):
        for _ in range(2):
            egress.add(f"dl_{number}", file_id, gigabytes * 1024**3)
    world.execute("UPDATE egress SET sent_at = :at", at=NOON)
    egress.add("dl_later", other, 1024**3)
    repository = KeepingRepository(world.database)
    prices = ObjectPrices(egress_picos=90_000_000_000, source="a test")

    assert [repository.accrue(DAY, prices, currency="USD") for _ in range(2)] == [1, 0]

    assert balances(world, "billed_micros") == {
        f"batch:{batch}": 360_000,
        "overhead:network": 540_000,
        "supplier:objects": -900_000,
    }
    (row,) = world.rows("SELECT key, category, detail FROM transactions")
    assert (row.key, row.category) == (f"objects:egress:{DAY}", "network")
    assert row.detail["tenants"] == {DEFAULT_TENANT: 540_000}


def test_single_downloads_are_forgotten_when_they_are_long_posted(world: World) -> None:
    egress, file_id = EgressRepository(world.database), world.file()
    egress.add("dl_old", file_id, 1)
    world.execute("UPDATE egress SET sent_at = :at", at=NOON - timedelta(days=40))
    egress.add("dl_new", file_id, 1)
    keeper = Keeper(
        KeepingRepository(world.database), lambda _at: S3, currency="USD", now=lambda: NOON.replace(tzinfo=UTC)
    )

    keeper.run_once()

    assert world.scalars("SELECT id FROM egress") == ["dl_new"]


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 10**15)), max_size=8), st.integers(0, 10**12))
def test_whatever_was_sent_costs_what_its_shares_cost(found: list[tuple[bool, int]], picos: int) -> None:
    sent = [
        Sent(batch_id=BatchId(f"batch_{number}") if is_batch else None, tenant_id=DEFAULT_TENANT, size_bytes=size)
        for number, (is_batch, size) in enumerate(found)
    ]

    accrual = egress_accrual(DAY, sent, ObjectPrices(egress_picos=picos), currency="USD")

    total = sum(size for _, size in found) * picos // 1024**3 // 10**6
    owed = -accrual.entries[-1].amounts.billed_micros if accrual else 0
    assert owed == total
