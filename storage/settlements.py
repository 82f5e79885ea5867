"""Settlements in Postgres: whose bill is to be looked at again, what the journal holds of it, and what is posted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from typing import Any, Final

from sqlalchemy import Connection, Row, text

from pipeline.domain.costs.amounts import COST_NAMES, Amounts
from pipeline.domain.costs.bills import WorkerLife
from pipeline.domain.costs.settling import AccruedSpan, Hourly, hour_of
from pipeline.domain.costs.transactions import Account, Transaction
from pipeline.domain.errors import ConflictError
from pipeline.domain.ids import WorkerId
from pipeline.domain.lifecycle import WorkerEnd
from storage.database import Database
from storage.journal import post
from storage.ledger import rates_of

_LIFE: Final = """
    SELECT workers.id, pool, market, provider, instance_type, region, zone, currency, rate_micros_per_hour,
           list_rate_micros_per_hour, contracted_rate_micros_per_hour, billed_rate_micros_per_hour,
           on_demand_rate_micros_per_hour, started_at, metered_until_us, end_cause
      FROM workers
"""

#: Of live ones those that were not looked at for an hour; of the others those that were not yet at their end, whose end
#: became known to be another, or that were looked at with other prices, within what providers still change.
_DUE: Final = text(f"""{_LIFE} LEFT JOIN settlements ON worker_id = workers.id
     WHERE CASE WHEN ended_at IS NULL
                THEN metered_until_us > 0 AND coalesce(settled_at, started_at) < clock_timestamp() - interval '1 hour'
                ELSE is_final IS NOT TRUE OR settled_until_us <> metered_until_us
                     OR (revision <> :revision AND ended_at > clock_timestamp() - interval '90 days') END
     ORDER BY coalesce(settled_at, started_at), workers.id LIMIT :limit
""")

#: Workers that ended are not looked at again for prices that are not of their machine, place and time. Prices are numbered
#: in the order in which they become known.
PASS_OVER: Final = text("""
    UPDATE settlements SET revision = :revision WHERE worker_id IN (
        SELECT worker_id FROM settlements AS looked JOIN workers ON workers.id = worker_id
         WHERE is_final AND revision < :revision AND NOT EXISTS (
               SELECT FROM prices
                WHERE (prices.name, prices.provider, prices.currency) =
                      (workers.instance_type, workers.provider, workers.currency)
                  AND unit = 'hour' AND prices.market IN (workers.market, 'on_demand')
                  AND prices.region IN ('', workers.region) AND prices.zone IN ('', workers.zone)
                  AND prices.id > looked.revision AND prices.id <= :revision
                  AND effective_at < greatest(ended_at, started_at + metered_until_us * interval '1 microsecond'))
         LIMIT :limit)
""")

_LIVES: Final = text(f"""{_LIFE}
     WHERE CAST(:worker_ids AS text[]) IS NULL OR workers.id = ANY(CAST(:worker_ids AS text[])) ORDER BY workers.id
""")

# A settlement counts whatever it was of; of the accruals those of the life as it is looked at.
_IS_OF_BILL: Final = """
    transactions.worker_id = :worker_id AND transactions.category = 'compute'
       AND coalesce(reversed.kind, transactions.kind) IN ('accrual', 'settlement')
       AND (transactions.start_us IS NULL OR transactions.start_us < :until_us)
       AND (reversed.start_us IS NULL OR reversed.start_us < :until_us)
"""

POSTED: Final = text(f"""
    SELECT date_trunc('hour', transactions.period_start, 'UTC') AS hour, account, sum(list_micros) AS list_micros,
           sum(contracted_micros) AS contracted_micros, sum(effective_micros) AS effective_micros,
           sum(billed_micros) AS billed_micros, sum(on_demand_micros) AS on_demand_micros
      FROM transactions LEFT JOIN transactions AS reversed ON reversed.id = transactions.reverses_id
      JOIN entries ON entries.transaction_id = transactions.id
     WHERE account NOT LIKE 'revenue:%' AND account NOT LIKE 'supplier:%' AND {_IS_OF_BILL}
     GROUP BY 1, account
""")  # noqa: S608 -- a constant of this file

SPANS: Final = text("""
    SELECT start_us, stop_us, account, list_micros, contracted_micros, effective_micros, billed_micros, on_demand_micros
      FROM worker_intervals JOIN transactions USING (worker_id, start_us)
      JOIN entries ON entries.transaction_id = transactions.id
     WHERE worker_id = :worker_id AND start_us >= :from_us AND start_us < :until_us
       AND account NOT LIKE 'supplier:%' AND account NOT LIKE 'revenue:%'
     ORDER BY start_us, account
""")

#: Supplier lines of each worker: what is of its bill, and what was adjusted to invoices.
_TOTALS: Final = text("""
    SELECT transactions.worker_id, coalesce(reversed.kind, transactions.kind) = 'adjustment' AS is_adjusted,
           sum(-list_micros) AS list_micros, sum(-contracted_micros) AS contracted_micros,
           sum(-effective_micros) AS effective_micros, sum(-billed_micros) AS billed_micros,
           sum(-on_demand_micros) AS on_demand_micros
      FROM transactions LEFT JOIN transactions AS reversed ON reversed.id = transactions.reverses_id
      JOIN entries ON entries.transaction_id = transactions.id AND account LIKE 'supplier:%'
     WHERE transactions.worker_id IS NOT NULL GROUP BY 1, 2
""")

_SETTLED_SO_FAR: Final = text("SELECT worker_id, settled_until_us, is_final, revision FROM settlements")

_NUMBER: Final = text("""
    SELECT count(*) FROM transactions WHERE worker_id = :worker_id AND kind = 'settlement'
""")

_SETTLED: Final = text("""
    INSERT INTO settlements (worker_id, settled_until_us, is_final, revision)
    VALUES (:worker_id, :until_us, :is_final, :revision)
    ON CONFLICT (worker_id) DO UPDATE SET settled_until_us = excluded.settled_until_us, is_final = excluded.is_final,
           revision = excluded.revision, settled_at = clock_timestamp()
""")

_SETTLED_UNTIL: Final = text("SELECT settled_until_us FROM settlements WHERE worker_id = :worker_id")

#: What was settled of an hour that was shared already is to be shared, too, and so is what was accrued for one since the
#: worker was looked at last: a span counts in the hour in which it began, and is told of when it ends.
_SHARE_AGAIN: Final = text("""
    UPDATE allocation_hours SET is_due = true
     WHERE pool = :pool AND NOT is_due
       AND (hour = ANY(CAST(:hours AS timestamptz[])) OR hour BETWEEN :since AND :until)
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """A worker beside what the journal holds of it."""

    life: WorkerLife
    #: Accrued and settled.
    posted: Amounts
    #: To invoices.
    adjusted: Amounts
    #: By which prices all of its life, which has ended, was settled; None: that is still to be done.
    settled_by: int | None


class SettlementRepository:
    """Workers' bills, and what the journal holds of them. Safe to share between threads."""

    def __init__(self, database: Database) -> None:
        """Settle in that database."""
        self._database = database

    def due(self, *, revision: int, limit: int) -> list[WorkerLife]:
        """Return workers whose bill may differ from what is posted, those looked at longest ago first."""
        arguments = {"revision": revision, "limit": limit}
        return self._database.run(lambda connection: [life_of(row) for row in connection.execute(_DUE, arguments)])

    def pass_over(self, *, revision: int, limit: int) -> int:
        """Note of workers that ended that no price up to that one concerns them; return of how many, at most `limit`."""
        arguments = {"revision": revision, "limit": limit}
        return self._database.run(lambda connection: connection.execute(PASS_OVER, arguments).rowcount)

    def lives(self, worker_ids: Iterable[WorkerId] | None = None) -> list[WorkerLife]:
        """Return those workers, or all there ever were; one that is not there is left out."""
        arguments = {"worker_ids": None if worker_ids is None else list(worker_ids)}
        return self._database.run(lambda connection: [life_of(row) for row in connection.execute(_LIVES, arguments)])

    def standings(self) -> list[Standing]:
        """Return every worker there ever was, with what the journal holds of it, all of one moment."""

        def work(connection: Connection) -> list[Standing]:
            totals = {(row.worker_id, row.is_adjusted): _costs(row) for row in connection.execute(_TOTALS)}
            settled = {row.worker_id: row for row in connection.execute(_SETTLED_SO_FAR)}
            return [
                Standing(
                    life=life,
                    posted=totals.get((life.worker_id, False), Amounts()),
                    adjusted=totals.get((life.worker_id, True), Amounts()),
                    settled_by=_settled_by(life, settled.get(life.worker_id)),
                )
                for life in map(life_of, connection.execute(_LIVES, {"worker_ids": None}))
            ]

        return self._database.run(work, is_look=True, is_long=True)

    def posted(self, life: WorkerLife) -> tuple[Hourly, int]:
        """Return what accruals and settlements of the life hold by hour and account, and how many settlements there are."""

        def work(connection: Connection) -> tuple[Hourly, int]:
            arguments = {"worker_id": life.worker_id, "until_us": life.metered_until_us}
            rows = connection.execute(POSTED, arguments).all()
            number = int(connection.execute(_NUMBER, arguments).scalar_one())
            return {(row.hour, Account(row.account)): _costs(row) for row in rows}, number

        return self._database.run(work, is_look=True)

    def spans(self, life: WorkerLife, *, start_us: int = 0, stop_us: int | None = None) -> list[AccruedSpan]:
        """Return what was accrued for each span of the life that begins from `start_us` to before `stop_us`, in order."""
        until_us = life.metered_until_us if stop_us is None else min(stop_us, life.metered_until_us)
        arguments = {"worker_id": life.worker_id, "from_us": start_us, "until_us": until_us}
        return self._database.run(
            lambda connection: list(_spans(connection.execute(SPANS, arguments))),
            is_look=True,
        )

    def settle(self, life: WorkerLife, transactions: Iterable[Transaction], *, revision: int) -> int:
        """Post them, and note that the life was looked at; return how many were posted.

        None are where another has settled the worker since `posted` was asked: the numbers are taken, and it is due again.
        Raises `ConflictError` where that other posted fewer.
        """
        posting = list(transactions)
        hours = [hour_of(transaction.period_start) for transaction in posting]

        def work(connection: Connection) -> int:
            done = [post(connection, transaction) for transaction in posting]
            if None in done:
                if any(done):
                    raise ConflictError(f"another settles {life.worker_id}")
                return 0
            looked_until_us = (
                connection.execute(_SETTLED_UNTIL, {"worker_id": life.worker_id}).scalar_one_or_none() or 0
            )
            connection.execute(
                _SETTLED,
                {
                    "worker_id": life.worker_id,
                    "until_us": life.metered_until_us,
                    "is_final": life.is_over,
                    "revision": revision,
                },
            )
            if hours or looked_until_us < life.metered_until_us:
                since, until = hour_of(life.moment(looked_until_us)), hour_of(life.stopped_at)
                connection.execute(_SHARE_AGAIN, {"pool": life.pool, "hours": hours, "since": since, "until": until})
            return len(done)

        return self._database.run(work)


def life_of(row: Row[Any]) -> WorkerLife:
    """Return the worker of a row."""
    return WorkerLife(
        worker_id=WorkerId(row.id),
        pool=row.pool,
        market=row.market,
        provider=row.provider,
        instance_type=row.instance_type,
        region=row.region,
        zone=row.zone,
        currency=row.currency,
        rates=rates_of(row),
        started_at=row.started_at,
        metered_until_us=row.metered_until_us,
        end_cause=None if row.end_cause is None else WorkerEnd(row.end_cause),
    )


def _settled_by(life: WorkerLife, row: Row[Any] | None) -> int | None:
    if row is None or not row.is_final or row.settled_until_us != life.metered_until_us:
        return None
    return int(row.revision)


def _spans(rows: Iterable[Row[Any]]) -> Iterator[AccruedSpan]:
    for (start_us, stop_us), lines in groupby(rows, key=attrgetter("start_us", "stop_us")):
        yield AccruedSpan(
            start_us=start_us, stop_us=stop_us, accrued={Account(line.account): _costs(line) for line in lines}
        )


def _costs(row: Row[Any]) -> Amounts:
    return Amounts(**{name: int(getattr(row, name)) for name in COST_NAMES})
