"""Prices in Postgres: what was said of each item, by whom, and from when on it holds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Final

from sqlalchemy import Connection, RowMapping, text

from pipeline.domain.costs.prices import Item, Market, Price, PriceSource, PriceUnit
from pipeline.ports.prices import PriceQuestion, Refresh
from storage.database import Database

#: Whoever adds takes turns, so that each sees what the last one said; readers do not wait.
_TAKE_TURNS: Final = text("LOCK TABLE prices IN SHARE ROW EXCLUSIVE MODE")

#: What a source says again is no news.
_ADD: Final = text("""
    INSERT INTO prices (name, provider, unit, market, region, zone, currency, source, effective_at, revision,
                        unit_price_picos, as_of, origin)
    SELECT word.name, word.provider, word.unit, word.market, word.region, word.zone, word.currency, word.source,
           word.effective_at, coalesce(latest.revision + 1, 0), word.unit_price_picos, word.as_of, word.origin
      FROM unnest(CAST(:name AS text[]), CAST(:provider AS text[]), CAST(:unit AS text[]), CAST(:market AS text[]),
                  CAST(:region AS text[]), CAST(:zone AS text[]), CAST(:currency AS text[]), CAST(:source AS text[]),
                  CAST(:effective_at AS timestamptz[]), CAST(:unit_price_picos AS bigint[]),
                  CAST(:as_of AS timestamptz[]), CAST(:origin AS text[]))
           AS word (name, provider, unit, market, region, zone, currency, source, effective_at, unit_price_picos, as_of,
                    origin)
      LEFT JOIN LATERAL (
           SELECT revision, unit_price_picos FROM prices
            WHERE (prices.name, prices.provider, prices.unit, prices.market, prices.region, prices.zone,
                   prices.currency, prices.source, prices.effective_at) =
                  (word.name, word.provider, word.unit, word.market, word.region, word.zone, word.currency, word.source,
                   word.effective_at)
            ORDER BY revision DESC LIMIT 1) AS latest ON true
     WHERE latest.revision IS NULL OR latest.unit_price_picos IS DISTINCT FROM word.unit_price_picos
    RETURNING 1
""")

_IN_FORCE: Final = """
    SELECT * FROM (
        SELECT DISTINCT ON (name, provider, unit, market, region, zone, currency, source)
               name, provider, unit, market, region, zone, currency, source, effective_at, unit_price_picos, as_of, origin
          FROM prices WHERE effective_at <= :start {named}
         ORDER BY name, provider, unit, market, region, zone, currency, source, effective_at DESC, revision DESC) AS held
    UNION ALL
    SELECT * FROM (
        SELECT DISTINCT ON (name, provider, unit, market, region, zone, currency, source, effective_at)
               name, provider, unit, market, region, zone, currency, source, effective_at, unit_price_picos, as_of, origin
          FROM prices WHERE effective_at > :start AND effective_at <= :stop {named}
         ORDER BY name, provider, unit, market, region, zone, currency, source, effective_at, revision DESC) AS came
"""
IN_FORCE_OF_ALL: Final = text(_IN_FORCE.format(named=""))
IN_FORCE: Final = text(_IN_FORCE.format(named="AND name = ANY(CAST(:names AS text[]))"))

_NOTE: Final = text("""
    INSERT INTO price_refreshes (provider, name, market, region, asked_at, prices)
    SELECT question.* FROM (VALUES (CAST(:provider AS text), CAST(:name AS text), CAST(:market AS text),
                                    CAST(:region AS text), CAST(:asked_at AS timestamptz), CAST(:prices AS bigint)))
           AS question (provider, name, market, region, asked_at, prices)
     WHERE NOT EXISTS (SELECT FROM price_refreshes AS noted
                        WHERE (noted.name, noted.provider, noted.market, noted.region, noted.asked_at) =
                              (question.name, question.provider, question.market, question.region, question.asked_at))
""")
LAST_ASKED: Final = text("""
    SELECT name, provider, market, region, max(asked_at) AS asked_at FROM price_refreshes
     WHERE name = ANY(CAST(:names AS text[])) GROUP BY name, provider, market, region
""")
_LAST_ASKED_OF_ALL: Final = text("""
    SELECT name, provider, market, region, max(asked_at) AS asked_at FROM price_refreshes
     GROUP BY name, provider, market, region
""")

_REVISION: Final = text("SELECT coalesce(max(id), 0) FROM prices")


class PriceRepository:
    """What was said of prices, and when providers were asked. Safe to share between threads."""

    def __init__(self, database: Database) -> None:
        """Keep them in that database."""
        self._database = database

    def add(self, prices: Iterable[Price]) -> int:
        """Keep what is news among `prices`, and return how many were; adding them again changes nothing."""
        words = list(prices)
        return self._database.run(lambda connection: _add(connection, words))

    def add_answer(self, refresh: Refresh, prices: Sequence[Price]) -> int:
        """Keep what a provider answered, and that it was asked; returns how many prices were news."""

        def work(connection: Connection) -> int:
            asked = refresh.question
            connection.execute(
                _NOTE,
                {
                    "provider": asked.provider,
                    "name": asked.instance_type,
                    "market": asked.market,
                    "region": asked.region,
                    "asked_at": refresh.asked_at,
                    "prices": refresh.prices,
                },
            )
            return _add(connection, prices)

        return self._database.run(work)

    def revision(self) -> int:
        """Return a number that grows with every price that is news."""
        return self._database.run(lambda connection: int(connection.execute(_REVISION).scalar_one()), is_look=True)

    def in_force(self, start: datetime, stop: datetime, *, names: Sequence[str] | None = None) -> list[Price]:
        """Return all that holds at `start` by any source, and all that comes to hold until `stop`.

        `names` are instance types, storage classes, models: see `Item.name`; None: all.
        """
        arguments: dict[str, object] = {"start": start, "stop": stop}
        if names is not None:
            arguments["names"] = list(names)
        statement = IN_FORCE_OF_ALL if names is None else IN_FORCE

        def work(connection: Connection) -> list[Price]:
            return [_price(row) for row in connection.execute(statement, arguments).mappings()]

        return self._database.run(work, is_look=True)

    def last_asked(self, instance_types: Sequence[str] | None = None) -> dict[PriceQuestion, datetime]:
        """Return when each question about those instance types, or about all, was asked last."""
        statement = _LAST_ASKED_OF_ALL if instance_types is None else LAST_ASKED
        arguments = {} if instance_types is None else {"names": list(instance_types)}

        def work(connection: Connection) -> dict[PriceQuestion, datetime]:
            return {
                PriceQuestion(
                    provider=row.provider, instance_type=row.name, market=Market(row.market), region=row.region
                ): row.asked_at
                for row in connection.execute(statement, arguments)
            }

        return self._database.run(work, is_look=True)


def _add(connection: Connection, prices: Sequence[Price]) -> int:
    if not prices:
        return 0
    connection.execute(_TAKE_TURNS)
    # The last word of one source on one item and instant.
    words = {(price.item, price.currency, price.source, price.effective_at): price for price in prices}
    rows = [_row(price) for price in words.values()]
    return len(connection.execute(_ADD, {name: [row[name] for row in rows] for name in rows[0]}).all())


def _row(price: Price) -> Mapping[str, object]:
    return {
        "name": price.item.name,
        "provider": price.item.provider,
        "unit": price.item.unit,
        "market": price.item.market,
        "region": price.item.region or "",
        "zone": price.item.zone or "",
        "currency": price.currency,
        "source": price.source,
        "effective_at": price.effective_at,
        "unit_price_picos": price.unit_price_picos,
        "as_of": price.as_of,
        "origin": price.origin,
    }


def _price(row: RowMapping) -> Price:
    return Price(
        item=Item(
            provider=row["provider"],
            name=row["name"],
            unit=PriceUnit(row["unit"]),
            market=Market(row["market"]),
            region=row["region"] or None,
            zone=row["zone"] or None,
        ),
        unit_price_picos=row["unit_price_picos"],
        currency=row["currency"],
        effective_at=row["effective_at"],
        source=PriceSource(row["source"]),
        as_of=row["as_of"],
        origin=row["origin"],
    )
