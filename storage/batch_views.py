"""Batches as people see them: one query for the row, its progress, its tokens and its cost."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Connection, Row, text

from pipeline.domain.endpoints import Endpoint
from pipeline.domain.errors import NotFoundError
from pipeline.domain.ids import BatchId, FileId, TenantId
from pipeline.domain.lifecycle import BatchState
from pipeline.domain.reasons import Reason
from pipeline.domain.tiers import Tier
from pipeline.ports.batches import BatchView, LineError

_VIEW = """
    SELECT batches.*, progress.*, tokens.*, bill.*
      FROM batches
      LEFT JOIN LATERAL (
        SELECT coalesce(sum(rows_succeeded), 0) AS rows_succeeded, coalesce(sum(rows_errored), 0) AS rows_errored,
               array_agg(DISTINCT model) FILTER (WHERE model IS NOT NULL) AS models
          FROM shards WHERE shards.batch_id = batches.id) AS progress ON true
      LEFT JOIN LATERAL (
        SELECT coalesce(sum(input_tokens), 0) AS input_tokens, coalesce(sum(output_tokens), 0) AS output_tokens
          FROM parts WHERE parts.batch_id = batches.id) AS tokens ON true
      LEFT JOIN LATERAL (
        SELECT coalesce(sum(amount_micros), 0) AS cost_micros, min(currency) AS currency
          FROM ledger WHERE ledger.batch_id = batches.id) AS bill ON true
"""

_ONE = text(_VIEW + " WHERE batches.id = :batch_id")
_NEWEST = text(
    _VIEW
    + """
     WHERE cardinality(CAST(:states AS text[])) = 0 OR state = ANY(:states)
     ORDER BY created_at DESC, id DESC LIMIT :limit"""
)


def view_of(connection: Connection, batch_id: BatchId) -> BatchView:
    """Return one batch, or raise `NotFoundError`."""
    row = connection.execute(_ONE, {"batch_id": batch_id}).one_or_none()
    if row is None:
        raise NotFoundError(f"there is no batch {batch_id}", hint="`nightrate list` shows them")
    return _to_view(row)


def list_views(connection: Connection, *, limit: int, states: Sequence[BatchState]) -> list[BatchView]:
    """Return the newest batches first."""
    rows = connection.execute(_NEWEST, {"limit": limit, "states": [str(state) for state in states]})
    return [_to_view(row) for row in rows]


def _to_view(row: Row[tuple[object, ...]]) -> BatchView:
    entered: dict[BatchState, datetime] = {
        state: getattr(row, f"{state}_at")
        for state in BatchState
        if state is not BatchState.VALIDATING and getattr(row, f"{state}_at") is not None
    }
    return BatchView(
        batch_id=BatchId(row.id),
        tenant_id=TenantId(row.tenant_id),
        state=BatchState(row.state),
        reason=Reason(row.reason) if row.reason else None,
        endpoint=Endpoint(row.endpoint),
        completion_window=row.completion_window,
        tier=Tier(row.tier),
        metadata=row.metadata,
        budget_micros=row.budget_micros,
        input_file_id=FileId(row.input_file_id),
        output_file_id=FileId(row.output_file_id) if row.output_file_id else None,
        error_file_id=FileId(row.error_file_id) if row.error_file_id else None,
        errors=tuple(LineError(**error) for error in row.errors or ()),
        errors_total=row.errors_total,
        rows_total=row.rows_total,
        rows_duplicate=row.rows_duplicate,
        rows_refused=row.rows_refused,
        rows_succeeded=int(row.rows_succeeded),
        rows_errored=int(row.rows_errored),
        rows_completed=row.rows_completed,
        rows_failed=row.rows_failed,
        input_tokens=int(row.input_tokens),
        output_tokens=int(row.output_tokens),
        cost_micros=int(row.cost_micros),
        currency=row.currency or "USD",
        models=tuple(row.models or ()),
        created_at=row.created_at,
        deadline_at=row.deadline_at,
        entered_at={BatchState.VALIDATING: row.created_at, **entered},
    )
