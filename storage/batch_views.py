"""Batches as people see them, in one query each, and what their files are made from."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Connection, Row, text

from pipeline.domain.endpoints import Endpoint
from pipeline.domain.errors import NotFoundError
from pipeline.domain.ids import BatchId, FileId, ProjectId, TenantId
from pipeline.domain.lifecycle import BatchState
from pipeline.domain.promises import Promise
from pipeline.domain.ranges import Ranges
from pipeline.domain.reasons import Reason
from pipeline.domain.tiers import Tier
from pipeline.ports.access import Scope
from pipeline.ports.batches import BatchView, LineError, PartRef, ResultSources
from storage.ledger import terms_of
from storage.multiranges import from_value
from storage.scopes import scope_arguments

_VIEW = """
    SELECT page.*, progress.*, tokens.*, bill.*
      FROM ({page}) AS page
      LEFT JOIN LATERAL (
        SELECT coalesce(sum(rows_succeeded), 0) AS rows_succeeded, coalesce(sum(rows_errored), 0) AS rows_errored,
               array_agg(DISTINCT model) FILTER (WHERE model IS NOT NULL) AS models
          FROM shards WHERE shards.batch_id = page.id) AS progress ON true
      LEFT JOIN LATERAL (
        SELECT coalesce(sum(input_tokens), 0) AS input_tokens, coalesce(sum(output_tokens), 0) AS output_tokens
          FROM parts WHERE parts.batch_id = page.id) AS tokens ON true
      LEFT JOIN LATERAL (
        -- What its tenant pays; all of it is in one currency.
        SELECT coalesce(sum(charged_micros), 0) AS cost_micros,
               (SELECT currency FROM transactions WHERE transactions.id = min(transaction_id)) AS currency
          FROM entries WHERE entries.batch_id = page.id) AS bill ON true
     ORDER BY created_at DESC, id DESC
"""

# The page is cut before anything is summed up: a list costs by its length, not by the table's.
AMONG = text(
    _VIEW.format(
        page="""
        SELECT batches.*
          FROM unnest(CAST(:batch_ids AS text[]), CAST(:tenant_ids AS text[]), CAST(:project_ids AS text[]))
               AS asked (batch_id, tenant_id, project_id)
          JOIN batches ON batches.id = asked.batch_id AND batches.tenant_id = asked.tenant_id
           AND (asked.project_id IS NULL OR batches.project_id = asked.project_id)"""
    )
)
PAGE = text(
    _VIEW.format(
        page="""
        SELECT * FROM batches
         WHERE tenant_id = :tenant_id AND (CAST(:project_id AS text) IS NULL OR project_id = :project_id)
           AND (CAST(:after AS text) IS NULL OR (created_at, id) < (
                SELECT created_at, id FROM batches AS last WHERE last.id = :after))
         ORDER BY created_at DESC, id DESC LIMIT :limit"""
    )
)
PAGE_IN = text(
    _VIEW.format(
        page="""
        SELECT newest.* FROM unnest(CAST(:states AS text[])) AS wanted (state),
          LATERAL (SELECT * FROM batches
                    WHERE tenant_id = :tenant_id AND batches.state = wanted.state
                      AND (CAST(:project_id AS text) IS NULL OR project_id = :project_id)
                      AND (CAST(:after AS text) IS NULL OR (created_at, id) < (
                           SELECT created_at, id FROM batches AS last WHERE last.id = :after))
                    ORDER BY created_at DESC, id DESC LIMIT :limit) AS newest
         ORDER BY created_at DESC, id DESC LIMIT :limit"""
    )
)
ONE = text(_VIEW.format(page="SELECT * FROM batches WHERE id = :batch_id"))
NEWEST = text(_VIEW.format(page="SELECT * FROM batches ORDER BY created_at DESC, id DESC LIMIT :limit"))
NEWEST_IN = text(
    _VIEW.format(
        page="""
        SELECT newest.* FROM unnest(CAST(:states AS text[])) AS wanted (state),
          LATERAL (SELECT * FROM batches WHERE batches.state = wanted.state
                    ORDER BY created_at DESC, id DESC LIMIT :limit) AS newest
         ORDER BY created_at DESC, id DESC LIMIT :limit"""
    )
)

#: What the error file says of a row that never ran, by the reason the batch ended for.
_MISSING = {
    Reason.USER_CANCELLED: (
        "batch_cancelled",
        "This request could not be executed because the batch was cancelled.",
    ),
    Reason.DEADLINE_PASSED: (
        "batch_expired",
        "This request could not be executed before the completion window expired.",
    ),
}


def view_of(connection: Connection, batch_id: BatchId) -> BatchView:
    """Return one batch, or raise `NotFoundError`."""
    row = connection.execute(ONE, {"batch_id": batch_id}).one_or_none()
    if row is None:
        raise NotFoundError(f"there is no batch {batch_id}", hint="`nightrate list` shows them")
    return _to_view(row)


def list_views(connection: Connection, *, limit: int, states: Sequence[BatchState]) -> list[BatchView]:
    """Return the newest batches first, of the given states or of all."""
    if states:
        rows = connection.execute(NEWEST_IN, {"limit": limit, "states": sorted(set(states))})
    else:
        rows = connection.execute(NEWEST, {"limit": limit})
    return [_to_view(row) for row in rows]


def views_among(connection: Connection, asked: Sequence[tuple[str, Scope]]) -> dict[tuple[str, Scope], BatchView]:
    """Return those of the batches that exist for who asks; the same id may be asked for in several scopes."""
    arguments = {
        "batch_ids": [batch_id for batch_id, _ in asked],
        "tenant_ids": [scope.tenant_id for _, scope in asked],
        "project_ids": [scope.project_id for _, scope in asked],
    }
    views = {row.id: _to_view(row) for row in connection.execute(AMONG, arguments)}
    return {
        (batch_id, scope): view
        for batch_id, scope in asked
        if (view := views.get(batch_id)) is not None and _is_in(view, scope)
    }


def view_within(connection: Connection, batch_id: str, scope: Scope) -> BatchView:
    """Return one batch, or raise `NotFoundError` where it does not exist for who asks."""
    view = views_among(connection, [(batch_id, scope)]).get((batch_id, scope))
    if view is None:
        raise NotFoundError(f"No batch found with id '{batch_id}'.")
    return view


def page_of_views(
    connection: Connection, scope: Scope, *, after: str | None, limit: int, states: Sequence[BatchState] = ()
) -> list[BatchView]:
    """Return up to `limit` batches after the one named, the newest first, of the given states or of all.

    Raises `NotFoundError` where `after` names none.
    """
    if after is not None:
        view_within(connection, after, scope)
    arguments = {"after": after, "limit": limit, **scope_arguments(scope)}
    if states:
        rows = connection.execute(PAGE_IN, arguments | {"states": sorted(set(states))})
    else:
        rows = connection.execute(PAGE, arguments)
    return [_to_view(row) for row in rows]


def _is_in(view: BatchView, scope: Scope) -> bool:
    return view.tenant_id == scope.tenant_id and scope.project_id in {None, view.project_id}


def result_sources(connection: Connection, batch_id: BatchId) -> ResultSources:
    """Return all that the batch's files are made from."""
    batch = {"batch_id": batch_id}
    rosters = text("SELECT object_key, sha256 FROM rosters WHERE batch_id = :batch_id ORDER BY roster_no")
    shards = text("SELECT rows_total FROM shards WHERE batch_id = :batch_id ORDER BY shard_no")
    parts = text("SELECT object_key, sha256 FROM parts WHERE batch_id = :batch_id ORDER BY id")
    own = text("SELECT reason, rows_refused, refusals_key, refusals_sha256 FROM batches WHERE id = :batch_id")
    row = connection.execute(own, batch).one()
    missing = _MISSING.get(row.reason, ("batch_failed", "This request has no result."))
    return ResultSources(
        rosters=tuple(PartRef(object_key=key, sha256=sha256) for key, sha256 in connection.execute(rosters, batch)),
        shard_rows=tuple(connection.execute(shards, batch).scalars()),
        rows_refused=row.rows_refused,
        refusals=row.refusals_key and PartRef(object_key=row.refusals_key, sha256=row.refusals_sha256),
        parts=tuple(PartRef(object_key=key, sha256=sha256) for key, sha256 in connection.execute(parts, batch)),
        missing_code=missing[0],
        missing_message=missing[1],
    )


def rows_of_part(connection: Connection, object_key: str) -> list[tuple[int, Ranges]]:
    """Return which rows (shard number, positions) a part holds."""
    statement = text("""
        SELECT shards.shard_no, part_slices.rows FROM parts
          JOIN part_slices ON part_slices.part_id = parts.id JOIN shards ON shards.id = part_slices.shard_id
         WHERE parts.object_key = :object_key ORDER BY shards.shard_no
    """)
    return [(row.shard_no, from_value(row.rows)) for row in connection.execute(statement, {"object_key": object_key})]


def _to_view(row: Row[tuple[object, ...]]) -> BatchView:
    entered: dict[BatchState, datetime] = {
        state: getattr(row, f"{state}_at")
        for state in BatchState
        if state is not BatchState.VALIDATING and getattr(row, f"{state}_at") is not None
    }
    return BatchView(
        batch_id=BatchId(row.id),
        tenant_id=TenantId(row.tenant_id),
        project_id=ProjectId(row.project_id),
        state=BatchState(row.state),
        reason=Reason(row.reason) if row.reason else None,
        endpoint=Endpoint(row.endpoint),
        completion_window=row.completion_window,
        tier=Tier(row.tier),
        metadata=row.metadata,
        labels=row.labels,
        priority=row.priority,
        retry_of=row.retry_of and BatchId(row.retry_of),
        budget_micros=row.budget_micros,
        input_file_id=FileId(row.input_file_id),
        output_file_id=FileId(row.output_file_id) if row.output_file_id else None,
        error_file_id=FileId(row.error_file_id) if row.error_file_id else None,
        errors=tuple(LineError(**error) for error in row.errors or ()),
        errors_total=row.errors_total,
        trouble=row.claim_error,
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
        promise=Promise(row.promise),
        hold_until=row.hold_until,
        paused_at=row.paused_at,
        steered_at=row.steered_at,
        entered_at={BatchState.VALIDATING: row.created_at, **entered},
        terms=terms_of(row),
        charge_factors=dict(row.charge_factors or {}),
    )
