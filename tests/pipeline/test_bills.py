from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from pipeline.app.bills import PricedBills
from pipeline.app.settling import Settler
from pipeline.config import Settings
from pipeline.domain.costs.bills import WorkerLife, total_of
from pipeline.domain.costs.prices import Item, Market, Price, PriceSource, PriceUnit
from pipeline.domain.ids import WorkerId
from pipeline.domain.lifecycle import IntervalKind, WorkerEnd
from storage.prices import PriceRepository
from storage.settlements import SettlementRepository
from tests.storage.bills import HOUR_US, SECOND_US
from tests.storage.test_settlements import balances, end
from tests.storage.world import World, open_world

START = datetime(2026, 11, 20, 10, tzinfo=UTC)


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    with open_world(database_url) as opened:
        yield opened


def said(micros: int, at: datetime, market: Market = Market.SPOT) -> Price:
    item = Item(provider="aws", name="x9.large", unit=PriceUnit.HOUR, market=market, region="us-east-1")
    return Price(
        item=item,
        unit_price_picos=micros * 10**6,
        currency="USD",
        effective_at=at,
        source=PriceSource.REFRESHED,
        as_of=at,
        origin="a test",
    )


def spot_machine(world: World, *, seconds: int) -> WorkerId:
    worker = world.worker(rate_micros_per_hour=3_600_000)
    world.execute(
        """UPDATE workers SET market = 'spot', provider = 'aws', instance_type = 'x9.large', region = 'us-east-1',
                  started_at = :at WHERE id = :id""",
        at=START,
        id=worker,
    )
    world.workers.meter(worker, world.span(worker, IntervalKind.IDLE, seconds * SECOND_US))
    return worker


def test_a_spot_price_that_changed_in_between_is_settled_and_one_that_is_learned_later_again(world: World) -> None:
    prices = PriceRepository(world.database)
    prices.add([said(3_600_000, START - timedelta(days=1)), said(7_200_000, START + timedelta(seconds=100))])
    worker = spot_machine(world, seconds=300)
    end(world, worker)
    settings = Settings.model_validate({"rate_card": {"pools": {"local": {"billing_rule": "aws_linux_v1"}}}})
    settler = Settler(SettlementRepository(world.database), PricedBills(settings, prices))

    settler.run_once()
    assert balances(world)["supplier:local"] == -(100_000 + 400_000)

    prices.add([said(10_800_000, START + timedelta(seconds=200))])
    for _ in range(2):
        settler.run_once()
    assert balances(world)["supplier:local"] == -(100_000 + 200_000 + 300_000)


@pytest.mark.parametrize(
    ("changes", "is_due"),
    [
        ({}, True),
        ({"market": Market.ON_DEMAND}, True),
        ({"region": None}, True),
        ({"region": "eu-west-1"}, False),
        ({"zone": "use1-az1"}, False),
        ({"name": "x9.metal"}, False),
        ({"provider": "gcp"}, False),
        ({"market": Market.RESERVED}, False),
        ({"unit": PriceUnit.GB_MONTH}, False),
    ],
)
def test_a_price_has_the_workers_looked_at_again_that_it_is_of(
    world: World, changes: dict[str, Any], *, is_due: bool
) -> None:
    prices = PriceRepository(world.database)
    prices.add([said(3_600_000, START - timedelta(days=1))])
    worker = spot_machine(world, seconds=300)
    end(world, worker)
    settlements = SettlementRepository(world.database)
    settler = Settler(settlements, PricedBills(Settings(), prices))
    settler.run_once()

    price = said(7_200_000, START)
    prices.add([replace(price, item=replace(price.item, **changes))])
    assert settlements.pass_over(revision=prices.revision(), limit=10) == (not is_due)

    due = [life.worker_id for life in settlements.due(revision=prices.revision(), limit=10)]
    assert due == ([worker] if is_due else [])


def test_a_price_of_another_time_or_currency_has_nobody_looked_at_again(world: World) -> None:
    prices = PriceRepository(world.database)
    prices.add([said(3_600_000, START - timedelta(days=1))])
    end(world, spot_machine(world, seconds=300))
    settlements = SettlementRepository(world.database)
    settler = Settler(settlements, PricedBills(Settings(), prices))
    settler.run_once()
    posted = world.scalars("SELECT count(*) FROM transactions")

    # Its end is that of the clock: it is metered for less than it was there.
    prices.add([said(1, datetime.now(UTC) + timedelta(hours=1)), replace(said(1, START), currency="EUR")])
    settler.run_once()

    assert settlements.due(revision=prices.revision(), limit=10) == []
    assert world.scalars("SELECT revision FROM settlements") == [prices.revision()]
    assert world.scalars("SELECT count(*) FROM transactions") == posted


def test_prices_are_looked_up_for_the_days_of_a_life_and_once_for_lives_of_the_same_days(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    prices = PriceRepository(world.database)
    prices.add([said(3_600_000, START - timedelta(days=30))])
    prices.add([said(3_600_000 + number, START + timedelta(days=number)) for number in range(1, 20)])
    asked: list[tuple[datetime, datetime, int]] = []
    look = prices.in_force

    def counted(start: datetime, stop: datetime, *, names: Sequence[str] | None = None) -> list[Price]:
        found = look(start, stop, names=names)
        asked.append((start, stop, len(found)))
        return found

    monkeypatch.setattr(prices, "in_force", counted)
    bills = PricedBills(Settings(), prices)
    workers = [spot_machine(world, seconds=300) for _ in range(3)]

    lives = SettlementRepository(world.database).lives(workers)
    costs = {total_of(bills.bill(life), life).effective_micros for life in lives}

    midnight = START.replace(hour=0)
    assert costs == {300_000}
    assert asked == [(midnight, midnight + timedelta(days=1), 1)]


@pytest.mark.parametrize(("cause", "micros"), [(WorkerEnd.INTERRUPTED, 0), (WorkerEnd.STOPPED, 60_000)])
def test_the_rule_of_the_pool_decides_what_a_short_life_costs(world: World, cause: WorkerEnd, micros: int) -> None:
    prices = PriceRepository(world.database)
    prices.add([said(3_600_000, START - timedelta(days=1))])
    worker = spot_machine(world, seconds=10)
    end(world, worker, cause)
    settings = Settings.model_validate({"rate_card": {"pools": {"local": {"billing_rule": "aws_linux_v1"}}}})

    Settler(SettlementRepository(world.database), PricedBills(settings, prices)).run_once()

    assert -balances(world).get("supplier:local", 0) == micros
    assert balances(world, "on_demand_micros")["supplier:local"] == -60_000


def test_a_machine_without_a_price_is_billed_at_the_rates_that_it_came_with(world: World) -> None:
    worker = spot_machine(world, seconds=100)
    (life,) = SettlementRepository(world.database).lives([worker])
    bills = PricedBills(Settings(), PriceRepository(world.database))
    unknown: WorkerLife = replace(life, provider=None, instance_type=None)

    assert total_of(bills.bill(life), life) == total_of(bills.bill(unknown), unknown)
    assert total_of(bills.bill(life), life).effective_micros == 3_600_000 * 100 * SECOND_US // HOUR_US


def test_a_worker_of_another_currency_is_not_settled_to_prices_of_this_one(world: World) -> None:
    prices = PriceRepository(world.database)
    prices.add([replace(said(36_000_000, START - timedelta(days=1)), currency="EUR")])
    worker = spot_machine(world, seconds=100)
    end(world, worker)

    Settler(SettlementRepository(world.database), PricedBills(Settings(currency="EUR"), prices)).run_once()

    assert balances(world)["supplier:local"] == -100_000
    assert world.scalars("SELECT DISTINCT currency FROM transactions") == ["USD"]


def test_a_worker_is_billed_by_the_rule_of_its_provider_whatever_its_pool_is_made_of_by_now(world: World) -> None:
    prices = PriceRepository(world.database)
    prices.add([said(3_600_000, START - timedelta(days=1))])
    end(world, spot_machine(world, seconds=10))

    Settler(SettlementRepository(world.database), PricedBills(Settings(), prices)).run_once()

    assert balances(world)["supplier:local"] == -60_000
