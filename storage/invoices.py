"""Imported invoices in Postgres: which there were, what their lines can be matched with, and what was adjusted to them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Final

import orjson
from sqlalchemy import Connection, text

from pipeline.domain.costs.amounts import COST_NAMES, Amounts
from pipeline.domain.costs.invoices import Known
from pipeline.domain.costs.transactions import CostCategory, Transaction
from pipeline.domain.ids import WorkerId
from storage.database import Database
from storage.journal import post

_KNOWN: Final = text("SELECT id, provider_id, host FROM workers")

ADJUSTED: Final = text("""
    SELECT transactions.key, transactions.worker_id, (transactions.period_start AT TIME ZONE 'UTC')::date AS day,
           transactions.category, transactions.detail ->> 'line' AS line, -list_micros AS list_micros,
           -contracted_micros AS contracted_micros, -effective_micros AS effective_micros,
           -billed_micros AS billed_micros, -on_demand_micros AS on_demand_micros,
           EXISTS (SELECT FROM transactions AS undone WHERE undone.reverses_id = transactions.id) AS is_undone
      FROM transactions JOIN entries ON transaction_id = transactions.id AND account LIKE 'supplier:%'
     WHERE kind = 'adjustment' AND period_start >= :start AND period_start < :stop
""")

_IMPORTED: Final = text("SELECT imported_at FROM invoices WHERE digest = :digest")


_ADD: Final = text("""
    INSERT INTO invoices (digest, name, provider, format, currency, period_start, period_stop, lines, totals)
    VALUES (:digest, :name, :provider, :format, :currency, :period_start, :period_stop, :lines, CAST(:totals AS jsonb))
    ON CONFLICT (digest) DO NOTHING
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class Adjusted:
    """What was adjusted to invoices before."""

    #: Of workers by day.
    workers: dict[tuple[WorkerId, date, CostCategory], Amounts]
    #: Of lines that no worker explains, by the first of the month.
    lines: dict[tuple[date, str], Amounts]
    #: Of all that was posted, with what was undone since.
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

    def known(self) -> Known:
        """Return all workers and their machines, by the names that invoices may have for them."""
        rows = self._database.run(lambda connection: connection.execute(_KNOWN).all())
        machines: dict[str, list[str]] = {}
        for row in rows:
            # Hosts of AWS may be called by their machine's id.
            for name in {row.provider_id, row.host, row.host.partition(".")[0]} - {None, ""}:
                machines.setdefault(name, []).append(row.id)
        return Known(
            worker_ids=frozenset(row.id for row in rows),
            machines={name: tuple(ids) for name, ids in machines.items()},
        )

    def adjusted(self, start: datetime, stop: datetime) -> Adjusted:
        """Return what was adjusted for that time."""
        rows = self._database.run(
            lambda connection: connection.execute(ADJUSTED, {"start": start, "stop": stop}).all(), is_look=True
        )
        adjusted = Adjusted(workers={}, lines={}, keys={row.key for row in rows})
        for row in rows:
            if row.is_undone:
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

    def post(self, transactions: Iterable[Transaction]) -> int:
        """Post adjustments; return how many were new."""
        posting = list(transactions)

        def work(connection: Connection) -> int:
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
