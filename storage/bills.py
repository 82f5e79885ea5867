"""Imported bills in Postgres: which there were, what their lines can be matched with, and what was adjusted to them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Final

import orjson
from sqlalchemy import Connection, text

from pipeline.domain.costs.amounts import COST_NAMES, Amounts
from pipeline.domain.costs.bill_lines import Known
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

_IMPORTED: Final = text("SELECT imported_at FROM bills WHERE digest = :digest")


_ADD: Final = text("""
    INSERT INTO bills (digest, name, provider, format, currency, period_start, period_stop, lines, totals)
    VALUES (:digest, :name, :provider, :format, :currency, :period_start, :period_stop, :lines, CAST(:totals AS jsonb))
    ON CONFLICT (digest) DO NOTHING
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class Adjusted:
    """What was adjusted to bills before."""

    #: Of workers by day.
    workers: dict[tuple[WorkerId, date, CostCategory], Amounts]
    #: Of lines that no worker explains, by the first of the month.
    lines: dict[tuple[date, str], Amounts]
    #: Of all that was posted, with what was undone since.
    keys: set[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportedBill:
    """A bill as it is kept."""

    digest: str
    name: str
    provider: str
    format: str
    currency: str
    period_start: datetime
    period_stop: datetime
    lines: int
    totals: dict[str, Any]


class BillRepository:
    """Bills and what was adjusted to them. Safe to share between threads."""

    def __init__(self, database: Database) -> None:
        """Keep them in that database."""
        self._database = database

    def known(self, bucket: str | None = None) -> Known:
        """Return all workers and their machines, by the names that bills may have for them, and our bucket."""
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
        """Return when a bill was imported first; None: never, or not to its end."""
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

    def add(self, bill: ImportedBill) -> None:
        """Note that the bill was imported to its end; repeating it changes nothing."""
        arguments = {
            "digest": bill.digest,
            "name": bill.name,
            "provider": bill.provider,
            "format": bill.format,
            "currency": bill.currency,
            "period_start": bill.period_start,
            "period_stop": bill.period_stop,
            "lines": bill.lines,
            "totals": orjson.dumps(bill.totals).decode(),
        }
        self._database.run(lambda connection: connection.execute(_ADD, arguments))
