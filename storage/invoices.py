"""Imported invoices in Postgres: which there were, what their lines can be matched with, and what was adjusted to them."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Final

import orjson
from sqlalchemy import Connection, text

from pipeline.domain.costs.amounts import COST_NAMES, Amounts
from pipeline.domain.costs.invoices import Known
from pipeline.domain.costs.transactions import CostCategory, Transaction
from pipeline.domain.errors import ConflictError
from pipeline.domain.ids import WorkerId
from storage.database import Database
from storage.journal import post

_KNOWN: Final = text("SELECT id, provider_id, host FROM workers")

ADJUSTED: Final = text("""
    SELECT transactions.id, transactions.key, transactions.worker_id,
           -- Those of before providers were noted are of the only one whose invoices could be read.
           coalesce(transactions.detail ->> 'provider', 'aws') AS provider, (transactions.period_start AT TIME ZONE 'UTC')::date AS day,
           transactions.category, transactions.detail ->> 'line' AS line, -list_micros AS list_micros,
           -contracted_micros AS contracted_micros, -effective_micros AS effective_micros,
           -billed_micros AS billed_micros, -on_demand_micros AS on_demand_micros,
           EXISTS (SELECT FROM transactions AS undone WHERE undone.reverses_id = transactions.id) AS is_undone
      FROM transactions JOIN entries ON transaction_id = transactions.id AND account LIKE 'supplier:%'
     WHERE kind = 'adjustment' AND period_start >= :start AND period_start < :stop
""")

#: One at a time: what an invoice is compared with is what the one before has posted.
_ALONE: Final = text("SELECT pg_advisory_xact_lock(hashtextextended('nightrate.adjustments', 0))")
#: Of adjustments of a time, one that came after a number and is not among those keys.
FOREIGN: Final = text("""
    SELECT key FROM transactions
     WHERE kind = 'adjustment' AND period_start >= :start AND period_start < :stop AND id > :after
       AND key <> ALL(CAST(:keys AS text[])) ORDER BY id LIMIT 1
""")

_OBJECTS: Final = text("""
    -- A reversal is of the day that it undoes.
    SELECT CAST(date_trunc('month', period_start AT TIME ZONE 'UTC') AS date) AS month,
           CAST(sum(-list_micros) AS bigint) AS list_micros, CAST(sum(-contracted_micros) AS bigint) AS contracted_micros,
           CAST(sum(-effective_micros) AS bigint) AS effective_micros, CAST(sum(-billed_micros) AS bigint) AS billed_micros,
           CAST(sum(-on_demand_micros) AS bigint) AS on_demand_micros
      FROM transactions JOIN entries ON transaction_id = transactions.id AND account = 'supplier:objects'
     WHERE category = 'storage' AND period_start >= :start AND period_start < :stop
     GROUP BY 1
""")

_IMPORTED: Final = text("SELECT imported_at FROM invoices WHERE digest = :digest")


_ADD: Final = text("""
    INSERT INTO invoices (digest, name, provider, format, currency, period_start, period_stop, lines, totals)
    VALUES (:digest, :name, :provider, :format, :currency, :period_start, :period_stop, :lines, CAST(:totals AS jsonb))
    ON CONFLICT (digest) DO NOTHING
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class Adjusted:
    """What was adjusted to invoices of a provider before, of a time."""

    start: datetime
    stop: datetime
    #: Of the last adjustment, whoever's, of that time.
    number: int

    #: Of workers by day.
    workers: dict[tuple[WorkerId, date, CostCategory], Amounts]
    #: Of lines that no worker explains, by the first of the month.
    lines: dict[tuple[date, str], Amounts]
    #: Of all that was posted, with what was undone since; other providers', too.
    keys: set[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportedInvoice:
    """An invoice as it is kept."""

    digest: str
    name: str
    provider: str
    format: str
    currency: str
    period_start: datetime
    period_stop: datetime
    lines: int
    totals: dict[str, Any]


class InvoiceRepository:
    """Invoices and what was adjusted to them. Safe to share between threads."""

    def __init__(self, database: Database) -> None:
        """Keep them in that database."""
        self._database = database

    def known(self, bucket: str | None = None) -> Known:
        """Return all workers and their machines, by the names that invoices may have for them, and our bucket."""
        rows = self._database.run(lambda connection: connection.execute(_KNOWN).all())
        machines: dict[str, list[str]] = {}
        for row in rows:
            # Hosts of AWS may be called by their machine's id.
            for name in {row.provider_id, row.host, row.host.partition(".")[0]} - {None, ""}:
                machines.setdefault(name, []).append(row.id)
        return Known(
            worker_ids=frozenset(row.id for row in rows),
            machines={name: tuple(ids) for name, ids in machines.items()},
            bucket=bucket,
        )

    def accrued_objects(self, start: datetime, stop: datetime) -> dict[date, Amounts]:
        """Return what was accrued for objects on days that begin in that time, by the first of the month."""
        rows = self._database.run(
            lambda connection: connection.execute(_OBJECTS, {"start": start, "stop": stop}).all(), is_look=True
        )
        return {row.month: Amounts(**{name: int(getattr(row, name)) for name in COST_NAMES}) for row in rows}

    def adjusted(self, provider: str, start: datetime, stop: datetime) -> Adjusted:
        """Return what was adjusted to that provider's invoices for that time."""
        rows = self._database.run(
            lambda connection: connection.execute(ADJUSTED, {"start": start, "stop": stop}).all(), is_look=True
        )
        adjusted = Adjusted(
            start=start,
            stop=stop,
            number=max((row.id for row in rows), default=0),
            workers={},
            lines={},
            keys={row.key for row in rows},
        )
        for row in rows:
            if row.is_undone or row.provider != provider:
                continue
            amounts = Amounts(**{name: int(getattr(row, name)) for name in COST_NAMES})
            if row.worker_id is None:
                line = (row.day.replace(day=1), row.line)
                adjusted.lines[line] = adjusted.lines.get(line, Amounts()) + amounts
            else:
                thing = (WorkerId(row.worker_id), row.day, CostCategory(row.category))
                adjusted.workers[thing] = adjusted.workers.get(thing, Amounts()) + amounts
        return adjusted

    def imported_at(self, digest: str) -> datetime | None:
        """Return when an invoice was imported first; None: never, or not to its end."""
        found: datetime | None = self._database.run(
            lambda connection: connection.execute(_IMPORTED, {"digest": digest}).scalar_one_or_none()
        )
        return found

    def post(self, transactions: Iterable[Transaction], *, beside: Adjusted, keys: Collection[str] = ()) -> int:
        """Post adjustments that were worked out beside those; return how many were new.

        `keys` are those that the same import has posted so far. Raises `ConflictError`, and posts nothing, where another
        import has posted something for the same time meanwhile.
        """
        posting = list(transactions)
        own = [*keys, *(transaction.key for transaction in posting)]
        arguments = {"start": beside.start, "stop": beside.stop, "after": beside.number, "keys": own}

        def work(connection: Connection) -> int:
            connection.execute(_ALONE)
            if posting and connection.execute(FOREIGN, arguments).first() is not None:
                raise ConflictError(
                    "another invoice of that time was imported meanwhile",
                    hint="import this one again: it goes on from there",
                )
            return sum(post(connection, transaction) is not None for transaction in posting)

        return self._database.run(work)

    def add(self, invoice: ImportedInvoice) -> None:
        """Note that the invoice was imported to its end; repeating it changes nothing."""
        arguments = {
            "digest": invoice.digest,
            "name": invoice.name,
            "provider": invoice.provider,
            "format": invoice.format,
            "currency": invoice.currency,
            "period_start": invoice.period_start,
            "period_stop": invoice.period_stop,
            "lines": invoice.lines,
            "totals": orjson.dumps(invoice.totals).decode(),
        }
        self._database.run(lambda connection: connection.execute(_ADD, arguments))
