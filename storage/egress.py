"""Bytes that the API sent out: noted as each download ends, summed up by the day, and forgotten."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from typing import Final

from sqlalchemy import text

from pipeline.domain.costs.keeping import Sent
from pipeline.domain.ids import BatchId, FileId, TenantId
from storage.database import Database

_ADD: Final = text("""
    INSERT INTO egress (id, file_id, size_bytes) VALUES (:id, :file_id, :size_bytes) ON CONFLICT (id) DO NOTHING
""")

SENT: Final = text("""
    SELECT coalesce(results.id, errors.id) AS batch_id, files.tenant_id, sum(egress.size_bytes) AS size_bytes
      FROM egress JOIN files ON files.id = file_id
      LEFT JOIN batches AS results ON results.output_file_id = file_id
      LEFT JOIN batches AS errors ON errors.error_file_id = file_id
     WHERE sent_at >= :start AND sent_at < :stop
     GROUP BY 1, 2 ORDER BY 1, 2
""")

FORGET: Final = text("DELETE FROM egress WHERE sent_at < :before")


class EgressRepository:
    """What was downloaded. Safe to share between threads."""

    def __init__(self, database: Database) -> None:
        """Note it in that database."""
        self._database = database

    def add(self, download_id: str, file_id: FileId, size_bytes: int) -> None:
        """Note that so many bytes of a file were sent just now; noting the same download again changes nothing."""
        arguments = {"id": download_id, "file_id": file_id, "size_bytes": size_bytes}
        self._database.run(lambda connection: connection.execute(_ADD, arguments))

    def sent(self, day: date) -> list[Sent]:
        """Return what was sent on a day (UTC), by the batch whose results it was, or else by tenant."""
        start = datetime.combine(day, time(), UTC)
        arguments = {"start": start, "stop": start + timedelta(days=1)}
        rows = self._database.run(
            lambda connection: connection.execute(SENT, arguments).all(), is_look=True, is_long=True
        )
        return [
            Sent(
                batch_id=None if row.batch_id is None else BatchId(row.batch_id),
                tenant_id=TenantId(row.tenant_id),
                size_bytes=int(row.size_bytes),
            )
            for row in rows
        ]

    def forget(self, before: datetime) -> int:
        """Forget what was sent before a moment; return how many downloads that were."""
        return self._database.run(lambda connection: connection.execute(FORGET, {"before": before}).rowcount)
