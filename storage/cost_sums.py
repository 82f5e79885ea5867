"""The journal's sums by hour and by day: brought up to date by whoever leads, and never wrong in between.

What is not summed up yet is read line by line by the same views, so that a sum is of the moment at which it is asked.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection, text

from storage.cost_tables import DAY_DIMENSIONS, DIMENSIONS, MEASURES
from storage.database import Database

#: Transactions summed up at once: some tenths of a second.
AT_ONCE: Final = 5_000
_KEYS: Final = ", ".join(DIMENSIONS)
_DAY_KEYS: Final = ", ".join(DAY_DIMENSIONS)
_SUMS: Final = ", ".join(f"CAST(sum({name}) AS bigint) AS {name}" for name in MEASURES)
_NAMES: Final = ", ".join(MEASURES)
_NEGATED: Final = ", ".join(f"-{name}" for name in MEASURES)


def _added(table: str) -> str:
    return ", ".join(f"{name} = {table}.{name} + excluded.{name}" for name in MEASURES)


def _differences(table: str, keys: str) -> str:
    return f"""
        SELECT count(*) AS wrong FROM (
            SELECT 1 FROM (
                SELECT {keys}, {_NAMES} FROM {table}
                UNION ALL
                SELECT {keys}, {_NEGATED} FROM cost_lines
                 WHERE NOT EXISTS (SELECT FROM cost_pending WHERE cost_pending.transaction_id = cost_lines.transaction_id)
                ) AS both_sides
             GROUP BY {keys}
            HAVING ({", ".join(f"sum({name})" for name in MEASURES)})
                   IS DISTINCT FROM ({", ".join("0::numeric" for _ in MEASURES)})) AS left_over"""  # noqa: S608 -- names of ours


#: One at a time: two would only wait for one another.
_ALONE: Final = text("SELECT pg_try_advisory_xact_lock(hashtextextended('nightrate.cost_hours', 0))")
_WAIT_ALONE: Final = text("SELECT pg_advisory_xact_lock(hashtextextended('nightrate.cost_hours', 0))")
_SUM_UP: Final = text(f"""
    -- Taken off and added in one statement: no moment sees a transaction in both places, or in neither.
    WITH taken AS MATERIALIZED (
        DELETE FROM cost_pending
         WHERE transaction_id IN (SELECT transaction_id FROM cost_pending ORDER BY transaction_id LIMIT :limit)
        RETURNING transaction_id),
    lines AS MATERIALIZED (
        SELECT found.* FROM taken
         CROSS JOIN LATERAL (SELECT * FROM cost_lines WHERE cost_lines.transaction_id = taken.transaction_id
                             OFFSET 0) AS found),
    summed AS (
        INSERT INTO cost_hours ({_KEYS}, {_NAMES})
        SELECT {_KEYS}, {_SUMS} FROM lines GROUP BY {_KEYS}
            ON CONFLICT ON CONSTRAINT uq_cost_hours DO UPDATE SET {_added("cost_hours")}),
    summed_by_day AS (
        INSERT INTO cost_days ({_DAY_KEYS}, {_NAMES})
        SELECT {_DAY_KEYS}, {_SUMS} FROM lines GROUP BY {_DAY_KEYS}
            ON CONFLICT ON CONSTRAINT uq_cost_days DO UPDATE SET {_added("cost_days")}),
    changed AS (
        INSERT INTO cost_day_versions (day, version)
        SELECT day, 1 FROM lines
         UNION
        -- A batch is told of on the day on which it was submitted.
        SELECT CAST(batches.created_at AT TIME ZONE 'UTC' AS date), 1
          FROM batches WHERE batches.id IN (SELECT batch_id FROM lines)
            ON CONFLICT (day) DO UPDATE SET version = cost_day_versions.version + 1, changed_at = clock_timestamp())
    SELECT count(*) FROM taken
""")  # noqa: S608 -- names of columns, of ours
_EMPTY: Final = (text("DELETE FROM cost_hours"), text("DELETE FROM cost_days"))
_ALL_PENDING: Final = text("INSERT INTO cost_pending SELECT id FROM transactions ON CONFLICT DO NOTHING")
#: What was summed up beside the journal without what is pending: nothing is to be left.
_DIFFERENCES: Final = text(f"""
    SELECT sum(wrong) FROM ({_differences("cost_hours", _KEYS)}
    UNION ALL {_differences("cost_days", _DAY_KEYS)}) AS found
""")  # noqa: S608 -- names of columns, of ours


class CostSums:
    """Keeps the sums."""

    def __init__(self, database: Database) -> None:
        """Keep them in `database`."""
        self._database = database

    def sum_up(self, *, limit: int = AT_ONCE) -> bool:
        """Sum up some of what is pending, the oldest first; True when there may be more."""

        def work(connection: Connection) -> int:
            if not connection.execute(_ALONE).scalar_one():
                return 0
            return int(connection.execute(_SUM_UP, {"limit": limit}).scalar_one())

        return self._database.run(work) == limit

    def start_again(self) -> None:
        """Forget the sums and make everything pending, where they were found to be wrong."""

        def work(connection: Connection) -> None:
            connection.execute(_WAIT_ALONE)
            for statement in _EMPTY:
                connection.execute(statement)
            connection.execute(_ALL_PENDING)

        self._database.run(work)

    def differences(self) -> int:
        """Return how many sums are not what the journal says: none, always. Reads all of it."""
        return int(
            self._database.run(
                lambda connection: connection.execute(_DIFFERENCES).scalar_one(), is_look=True, is_long=True
            )
        )
