"""Allocations in Postgres: the hours of pools whose overhead is to be shared, and what is posted for them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, Row, text

from pipeline.domain.costs.allocating import PoolHour, allocation
from pipeline.domain.costs.amounts import COST_NAMES, Amounts
from pipeline.domain.costs.settling import HOUR
from pipeline.domain.costs.transactions import Account, Overhead, SharingRule
from storage.database import Database
from storage.journal import post

#: Hours that ended this long ago: workers have reported them by then. No further back than two days.
_OPEN: Final = text("""
    INSERT INTO allocation_hours (pool, hour)
    SELECT DISTINCT pool, hour
      FROM workers,
           generate_series(date_trunc('hour', greatest(started_at, clock_timestamp() - interval '48 hours'), 'UTC'),
                           least(coalesce(ended_at, clock_timestamp()), clock_timestamp() - interval '70 minutes'),
                           interval '1 hour') AS hour
     WHERE ended_at IS NULL OR ended_at > clock_timestamp() - interval '48 hours'
    ON CONFLICT DO NOTHING
""")

_DUE: Final = text("SELECT pool, hour FROM allocation_hours WHERE is_due ORDER BY hour, pool LIMIT :limit")

#: Who settles something of the hour meanwhile waits, and makes it due again.
_HOLD: Final = text("""
    SELECT 1 FROM allocation_hours WHERE pool = :pool AND hour = :hour AND is_due FOR UPDATE
""")

HELD: Final = text("""
    SELECT transactions.currency, coalesce(reversed.kind, transactions.kind) = 'allocation' AS is_allocated, account,
           sum(list_micros) AS list_micros, sum(contracted_micros) AS contracted_micros,
           sum(effective_micros) AS effective_micros, sum(billed_micros) AS billed_micros,
           sum(on_demand_micros) AS on_demand_micros
      FROM transactions LEFT JOIN transactions AS reversed ON reversed.id = transactions.reverses_id
      LEFT JOIN workers ON workers.id = transactions.worker_id
      JOIN entries ON entries.transaction_id = transactions.id
     WHERE transactions.period_start >= :hour AND transactions.period_start < :next_hour
       AND transactions.category = 'compute' AND account NOT LIKE 'supplier:%' AND account NOT LIKE 'revenue:%'
       AND CASE coalesce(reversed.kind, transactions.kind)
           WHEN 'allocation' THEN coalesce(reversed.detail, transactions.detail) ->> 'pool' = :pool
           WHEN 'adjustment' THEN false ELSE workers.pool = :pool END
     GROUP BY 1, 2, account ORDER BY 1, 2, account
""")

_NUMBER: Final = text("""
    SELECT count(*) FROM transactions
     WHERE period_start = :hour AND kind = 'allocation' AND detail ->> 'pool' = :pool
""")

_SHARED: Final = text("UPDATE allocation_hours SET is_due = false WHERE pool = :pool AND hour = :hour")


class AllocationRepository:
    """Shares overhead over batches, hour by hour. Safe to share between threads."""

    def __init__(self, database: Database) -> None:
        """Share in that database."""
        self._database = database

    def open(self) -> None:
        """Note the hours of pools that have ended since; repeating it changes nothing."""
        self._database.run(lambda connection: connection.execute(_OPEN))

    def due(self, *, limit: int) -> list[tuple[str, datetime]]:
        """Return pools and hours that are to be shared, the oldest first."""
        rows = self._database.run(lambda connection: connection.execute(_DUE, {"limit": limit}).all())
        return [(row.pool, row.hour) for row in rows]

    def share(self, pool: str, hour: datetime, rule: SharingRule, kinds: Collection[Overhead]) -> int:
        """Post what brings the hour's allocations to the rule; return how many transactions that took."""
        arguments = {"pool": pool, "hour": hour, "next_hour": hour + HOUR}

        def work(connection: Connection) -> int:
            if connection.execute(_HOLD, arguments).one_or_none() is None:
                return 0
            number = int(connection.execute(_NUMBER, arguments).scalar_one())
            posted = 0
            for pool_hour in _pool_hours(pool, hour, connection.execute(HELD, arguments)):
                transaction = allocation(pool_hour, rule, kinds, number=number + posted + 1)
                if transaction is not None:
                    post(connection, transaction)
                    posted += 1
            connection.execute(_SHARED, arguments)
            return posted

        return self._database.run(work)


def _pool_hours(pool: str, hour: datetime, rows: Iterable[Row[Any]]) -> list[PoolHour]:
    held: dict[str, tuple[dict[Account, Amounts], dict[Account, Amounts]]] = defaultdict(lambda: ({}, {}))
    for row in rows:
        costs = Amounts(**{name: int(getattr(row, name)) for name in COST_NAMES})
        held[row.currency][row.is_allocated][Account(row.account)] = costs
    return [
        PoolHour(pool=pool, hour=hour, currency=currency, costs=costs, allocated=allocated)
        for currency, (costs, allocated) in held.items()
    ]
