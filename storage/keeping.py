"""What lay in the object store on a day, by the tables that name its objects.

Rosters and tables of refusals have no size there and are not counted; nor is what a dead sender left.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime, time, timedelta
from typing import Final

from sqlalchemy import Connection, text

from pipeline.domain.costs.keeping import (
    Kept,
    ObjectPrices,
    egress_accrual,
    egress_key,
    request_accrual,
    storage_accrual,
)
from pipeline.domain.costs.transactions import Transaction
from pipeline.domain.ids import BatchId, TenantId
from storage.database import Database
from storage.egress import EgressRepository
from storage.journal import post

_KEPT: Final = text("""
    WITH lives AS (
        SELECT id AS batch_id, tenant_id, coalesce(in_progress_at, created_at) AS begun_at,
               coalesce(completed_at, failed_at, expired_at, cancelled_at, 'infinity') AS ended_at FROM batches),
    own AS (
        SELECT batch_id, begun_at AS since, size_bytes FROM shards JOIN lives USING (batch_id)
        UNION ALL SELECT batch_id, committed_at, size_bytes FROM parts),
    objects AS (
        SELECT batch_id, NULL AS tenant_id, size_bytes, since, ended_at AS until FROM own JOIN lives USING (batch_id)
        UNION ALL
        SELECT NULL, tenant_id, size_bytes, greatest(since, ended_at), 'infinity' FROM own JOIN lives USING (batch_id)
        UNION ALL
        SELECT NULL, tenant_id, size_bytes, created_at, coalesce(removed_at, 'infinity') FROM files
        UNION ALL
        SELECT NULL, uploads.tenant_id, upload_parts.size_bytes, upload_parts.created_at,
               coalesce(uploads.cleared_at, 'infinity')
          FROM upload_parts JOIN uploads ON uploads.id = upload_id)
    SELECT batch_id, tenant_id,
           sum(size_bytes::numeric * CAST(extract(epoch FROM least(until, :stop) - greatest(since, :start)) * 1000000 AS bigint))
           AS byte_microseconds
      FROM objects WHERE since < :stop AND until > :start AND size_bytes > 0
     GROUP BY batch_id, tenant_id ORDER BY batch_id, tenant_id
""")

_REQUESTS: Final = text("""
    SELECT (SELECT count(*) FROM files WHERE created_at >= :start AND created_at < :stop)
         + (SELECT count(*) FROM upload_parts WHERE created_at >= :start AND created_at < :stop)
         + (SELECT count(*) FROM parts WHERE committed_at >= :start AND committed_at < :stop)
         + (SELECT count(*) FROM shards JOIN batches ON batches.id = batch_id
             WHERE in_progress_at >= :start AND in_progress_at < :stop)
         + (SELECT count(*) FROM rosters JOIN batches ON batches.id = batch_id
             WHERE in_progress_at >= :start AND in_progress_at < :stop) AS puts,
           (SELECT count(*) FROM attempts JOIN pack_slices USING (pack_id)
             WHERE started_at >= :start AND started_at < :stop)
         + (SELECT count(*) FROM parts JOIN batches ON batches.id = batch_id
             WHERE finalizing_at >= :start AND finalizing_at < :stop) AS gets
""")

_POSTED: Final = text("SELECT key FROM transactions WHERE key = ANY(:keys)")


class KeepingRepository:
    """Accrues what objects cost, a day at a time. Safe to share between threads."""

    def __init__(self, database: Database) -> None:
        """Accrue in that database."""
        self._database = database
        self._egress = EgressRepository(database)

    def kept(self, day: date) -> list[Kept]:
        """Return what was kept that day for batches that lived, and for tenants."""
        rows = self._database.run(
            lambda connection: connection.execute(_KEPT, _bounds(day)).all(), is_look=True, is_long=True
        )
        return [
            Kept(
                batch_id=None if row.batch_id is None else BatchId(row.batch_id),
                tenant_id=None if row.tenant_id is None else TenantId(row.tenant_id),
                byte_microseconds=int(row.byte_microseconds),
            )
            for row in rows
        ]

    def requests(self, day: date) -> tuple[int, int]:
        """Return about how many objects were written and read that day."""
        row = self._database.run(
            lambda connection: connection.execute(_REQUESTS, _bounds(day)).one(), is_look=True, is_long=True
        )
        return int(row.puts), int(row.gets)

    def accrue(self, day: date, prices: ObjectPrices, *, currency: str) -> int:
        """Post what the day cost; return how many transactions that took. Repeating it changes nothing."""
        keys = [f"objects:storage:{day}", f"objects:requests:{day}", egress_key(day)]
        posted = self.posted(keys)
        wanted = []
        if keys[0] not in posted and prices.gb_month_picos:
            wanted.append(storage_accrual(day, self.kept(day), prices, currency=currency))
        if keys[1] not in posted and (prices.put_picos or prices.get_picos):
            puts, gets = self.requests(day)
            wanted.append(request_accrual(day, puts=puts, gets=gets, prices=prices, currency=currency))
        if keys[2] not in posted and prices.egress_picos:
            wanted.append(egress_accrual(day, self._egress.sent(day), prices, currency=currency))
        return self.post(each for each in wanted if each is not None)

    def forget_egress(self, before: datetime) -> int:
        """Forget single downloads of before a moment; return how many that were."""
        return self._egress.forget(before)

    def posted(self, keys: Iterable[str]) -> set[str]:
        """Return which of those keys are taken."""
        arguments = {"keys": list(keys)}
        return self._database.run(lambda connection: set(connection.execute(_POSTED, arguments).scalars()))

    def post(self, accruals: Iterable[Transaction]) -> int:
        """Post what a day cost; return how many were new."""
        posting = list(accruals)

        def work(connection: Connection) -> int:
            return sum(post(connection, accrual) is not None for accrual in posting)

        return self._database.run(work) if posting else 0


def _bounds(day: date) -> dict[str, datetime]:
    start = datetime.combine(day, time(), UTC)
    return {"start": start, "stop": start + timedelta(days=1)}
