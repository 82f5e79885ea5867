from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta

import pytest
from pydantic import ValidationError

from pipeline.app.keeping import Keeper
from pipeline.app.volumes import Volumes
from pipeline.config import Settings
from pipeline.domain.costs.keeping import ObjectPrices
from pipeline.domain.costs.prices import Item, Price, PriceSource, PriceUnit, picos_of
from storage.keeping import KeepingRepository
from storage.prices import PriceRepository
from tests.storage.test_settlements import balances
from tests.storage.world import World, open_world

DAY = date(2026, 11, 20)
DISK = {"provider": "hetzner", "kind": "block", "gb": "30", "region": "fsn1", "since": date(2026, 11, 1)}


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    with open_world(database_url) as opened:
        yield opened


def said(units: str, at: datetime) -> Price:
    return Price(
        item=Item(provider="hetzner", name="block", unit=PriceUnit.GB_MONTH, region="fsn1"),
        unit_price_picos=picos_of(units),
        currency="USD",
        effective_at=at,
        source=PriceSource.OVERRIDE,
        as_of=at,
        origin="a test",
    )


def volumes(world: World, **disks: dict[str, object]) -> Volumes:
    settings = Settings.model_validate({"rate_card": {"volumes": disks}})
    return Volumes(settings, KeepingRepository(world.database), PriceRepository(world.database))


def test_a_day_of_a_volume_is_posted_once_at_the_price_that_held(world: World) -> None:
    noon = datetime(2026, 11, 20, 12, tzinfo=UTC)
    PriceRepository(world.database).add([said("0.10", noon - timedelta(days=90)), said("0.20", noon)])
    kept = volumes(world, models=DISK)

    assert [kept.accrue(DAY) for _ in range(2)] == [1, 0]
    PriceRepository(world.database).add([said("5", noon)])
    assert kept.accrue(DAY) == 0

    # 30 GB for a thirtieth of a month: half the day at 10 cents, half at 20.
    assert balances(world, "billed_micros") == {"overhead:storage": 150_000, "supplier:hetzner": -150_000}
    (row,) = world.rows("SELECT key, category, kind, detail ->> 'volume' AS volume, source FROM transactions")
    assert (row.key, row.category, row.kind, row.volume) == (f"volume:models:{DAY}", "storage", "accrual", "models")
    assert "a test" in row.source


def test_the_days_of_a_volume_sum_to_its_month(world: World) -> None:
    PriceRepository(world.database).add([said("0.0333337", datetime(2026, 1, 1, tzinfo=UTC))])
    kept = volumes(world, models={**DISK, "gb": "7.123"})

    for number in range(30):
        kept.accrue(date(2026, 11, 1) + timedelta(days=number))

    assert balances(world)["overhead:storage"] == int(0.0333337 * 7.123 * 1_000_000)


@pytest.mark.parametrize(
    ("more", "posted"),
    [
        ({"since": DAY}, 1),
        ({"since": DAY + timedelta(days=1)}, 0),
        ({"until": DAY}, 0),
        ({"until": DAY + timedelta(days=1)}, 1),
        ({"kind": "unheard-of"}, 0),
        ({"region": "nbg1"}, 0),
    ],
)
def test_a_volume_costs_from_its_first_day_to_its_last_where_its_price_is_known(
    world: World, more: dict[str, object], posted: int
) -> None:
    PriceRepository(world.database).add([said("0.10", datetime(2026, 11, 10, tzinfo=UTC))])

    assert volumes(world, models={**DISK, **more}).accrue(DAY) == posted


def test_the_keeper_posts_volumes_where_objects_are_free(world: World) -> None:
    PriceRepository(world.database).add([said("0.10", datetime(2026, 1, 1, tzinfo=UTC))])
    kept = volumes(world, a=DISK, b={**DISK, "since": DAY})
    keeper = Keeper(
        KeepingRepository(world.database),
        lambda _at: ObjectPrices(),
        currency="USD",
        now=lambda: datetime(2026, 11, 21, 2, tzinfo=UTC),
        also=[kept.accrue],
    )

    keeper.run_once()

    keys = ["volume:a:2026-11-18", "volume:a:2026-11-19", "volume:a:2026-11-20", "volume:b:2026-11-20"]
    assert world.scalars("SELECT key FROM transactions ORDER BY id") == keys


@pytest.mark.parametrize(
    ("more", "said"),
    [({"gb": 0}, "greater than 0"), ({"until": date(2026, 10, 1)}, "until comes before since"), ({"size": 1}, "size")],
)
def test_a_volume_that_makes_no_sense_is_refused(more: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Settings.model_validate({"rate_card": {"volumes": {"models": {**DISK, **more}}}})
