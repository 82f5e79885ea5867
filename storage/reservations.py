"""Reservations: what packs that have not ended may still be charged, at most."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Final

from sqlalchemy import Connection, text

from pipeline.domain.ids import BatchId, ProjectId, TenantId

RESERVED: Final = text("""
    -- Of batches with a budget, or whose tenants have one: what their open packs may still be charged, whatever has become
    -- of the batch. What these were charged so far is spent.
    SELECT slices.batch_id, slices.tenant_id, slices.project_id, open.month, sum(greatest(0, slices.micros - paid.micros)) AS micros
      FROM (SELECT id, month FROM packs WHERE state IN ('ready', 'retryable')
            UNION ALL SELECT id, month FROM packs WHERE state = 'leased') AS open,
      LATERAL (SELECT held.batch_id, batches.tenant_id, batches.project_id, held.micros
                 FROM (SELECT batch_id, sum(reserved_micros) AS micros FROM pack_slices WHERE pack_id = open.id
                        GROUP BY batch_id OFFSET 0) AS held
                 JOIN batches ON batches.id = held.batch_id
                WHERE (batches.budget_micros IS NOT NULL OR batches.tenant_id IN (SELECT tenant_id FROM budgets))
                  AND (CAST(:tenant_id AS text) IS NULL OR batches.tenant_id = :tenant_id)) AS slices,
      LATERAL (SELECT coalesce(sum(charged_micros), 0) AS micros
                 FROM transactions JOIN entries ON transaction_id = transactions.id
                WHERE pack_id = open.id AND entries.batch_id = slices.batch_id OFFSET 0) AS paid
     WHERE slices.micros > 0
     GROUP BY slices.batch_id, slices.tenant_id, slices.project_id, open.month
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reserved:
    """What a batch's open packs of one month may still be charged, in micro-units."""

    batch_id: BatchId
    tenant_id: TenantId
    project_id: ProjectId
    month: date
    micros: int


def read_reserved(connection: Connection, tenant_id: TenantId | None = None) -> tuple[Reserved, ...]:
    """Return what is reserved for batches that fall under a budget, of one tenant or of all.

    Read before what is spent is: what a pack that ends in between is charged is counted twice then, and not missed.
    """
    return tuple(
        Reserved(
            batch_id=BatchId(row.batch_id),
            tenant_id=TenantId(row.tenant_id),
            project_id=ProjectId(row.project_id),
            month=row.month,
            micros=int(row.micros),
        )
        for row in connection.execute(RESERVED, {"tenant_id": tenant_id})
    )
