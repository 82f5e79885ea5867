"""Prices in Postgres: kept for ever, told once, and found by what holds."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, IntegrityError

from pipeline.domain.costs import catalogue
from pipeline.domain.costs.prices import Item, Market, Price, PriceSource, PriceUnit
from pipeline.domain.costs.rate_card import PriceBook
from pipeline.ports.prices import PriceQuestion, Refresh
from storage.database import Database
from storage.prices import PriceRepository

T0 = datetime(2026, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
ITEM = Item(provider="aws", name="g5.xlarge", unit=PriceUnit.HOUR, market=Market.SPOT, region="us-east-1")


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    opened = Database(database_url)
    yield opened
    opened.close()


@pytest.fixture
def prices(database: Database) -> PriceRepository:
    return PriceRepository(database)


def price(picos: int | None, at: datetime = T0, *, item: Item = ITEM, as_of: datetime = T0) -> Price:
    return Price(
        item=item,
        unit_price_picos=picos,
        currency="USD",
        effective_at=at,
        source=PriceSource.OVERRIDE,
        as_of=as_of,
        origin="test",
    )


def test_the_catalogue_is_imported_once_and_read_back_whole(prices: PriceRepository) -> None:
    shipped = catalogue.load().prices

    assert prices.add(shipped) == len(shipped)
    assert prices.add(shipped) == 0

    def key(each: Price) -> str:
        return repr(each)

    assert sorted(prices.in_force(shipped[0].as_of + 999 * HOUR, datetime.max.replace(tzinfo=UTC)), key=key) == sorted(
        shipped, key=key
    )


def test_the_last_word_on_an_instant_holds_and_the_others_are_kept(prices: PriceRepository, database: Database) -> None:
    said = [5, 7, 7, 5, None]
    news = [prices.add([price(picos, as_of=T0 + n * HOUR)]) for n, picos in enumerate(said)]

    assert news == [1, 1, 0, 1, 1]
    [held] = prices.in_force(T0, T0)
    assert held == price(None, as_of=T0 + 4 * HOUR)
    with database.transaction() as connection:
        kept = connection.execute(text("SELECT unit_price_picos FROM prices ORDER BY revision")).scalars().all()
    assert kept == [5, 7, 5, None]


def test_what_holds_at_the_start_and_what_comes_until_the_stop_is_found(prices: PriceRepository) -> None:
    other = Item(provider="aws", name="g6.xlarge", unit=PriceUnit.HOUR)
    prices.add([price(hour, T0 + hour * HOUR) for hour in range(6)] + [price(9, item=other)])

    found = prices.in_force(T0 + 2.5 * HOUR, T0 + 4 * HOUR, names=["g5.xlarge"])

    assert sorted(each.unit_price_picos or 0 for each in found) == [2, 3, 4]
    assert prices.in_force(T0 - HOUR, T0 - HOUR) == []
    assert len(prices.in_force(T0, T0)) == 2
    book = PriceBook(found)
    assert [
        held.unit_price_picos
        for hours in (2.5, 3, 4.5)
        if (held := book.price(ITEM, T0 + hours * HOUR, "USD")) is not None
    ] == [2, 3, 4]


def test_two_who_say_the_same_at_once_make_one_word(prices: PriceRepository) -> None:
    words = [price(n, T0 + n * HOUR) for n in range(50)]

    with ThreadPoolExecutor(4) as threads:
        assert sum(threads.map(prices.add, [words, words[::-1], words, words[::-1]])) == 50


@pytest.mark.parametrize("table", ["prices", "price_refreshes"])
@pytest.mark.parametrize("statement", ["UPDATE {} SET region = 'x'", "DELETE FROM {}", "TRUNCATE {}"])
def test_nothing_that_was_said_is_changed(
    prices: PriceRepository, database: Database, table: str, statement: str
) -> None:
    prices.add([price(5)])

    with pytest.raises(DBAPIError, match="append-only"), database.transaction() as connection:
        connection.execute(text(statement.format(table)))


def test_the_database_refuses_what_no_price_is(database: Database) -> None:
    insert = """
        INSERT INTO prices (name, provider, unit, market, region, zone, currency, source, effective_at, revision,
                            unit_price_picos, as_of, origin)
        VALUES ('n', 'p', 'hour', 'spot', {}, {}, 'USD', 'override', now(), 0, {}, now(), '')
    """
    for region, zone, picos in (("''", "'z'", 1), ("''", "''", -1), ("''", "''", 10**16 + 1)):
        with pytest.raises(IntegrityError), database.transaction() as connection:
            connection.execute(text(insert.format(region, zone, picos)))


def test_it_is_known_when_what_was_asked_last(prices: PriceRepository) -> None:
    question = PriceQuestion(provider="aws", instance_type="g5.xlarge", market=Market.SPOT, region="us-east-1")
    refreshes = [Refresh(question=question, asked_at=T0 + n * HOUR, prices=n) for n in (2, 1, 1)]

    assert [prices.add_answer(refresh, [price(3)][: refresh.prices]) for refresh in refreshes] == [1, 0, 0]

    assert prices.last_asked(["g5.xlarge", "g6.xlarge"]) == {question: T0 + 2 * HOUR}
    assert prices.last_asked([]) == {}
