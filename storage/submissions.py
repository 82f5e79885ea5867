"""Submitting: one batch for one key, in whatever transaction it belongs to."""

from __future__ import annotations

from datetime import timedelta

import orjson
from sqlalchemy import Connection, text

from pipeline.domain.errors import ConflictError, NotFoundError
from pipeline.domain.ids import BatchId
from pipeline.domain.windows import parse_window
from pipeline.ports.batches import BatchView, Submission
from storage.batch_statements import ADD_BATCH, SAME_INPUT
from storage.batch_views import view_of


def add_batch(connection: Connection, submission: Submission, batch_id: BatchId, claim_for: timedelta) -> BatchView:
    """Make the batch under that id, or return the one that its idempotency key made before.

    The submitter has the first claim for `claim_for`. Raises `ConflictError` where the key made another batch.
    """
    arguments = {
        "batch_id": batch_id,
        "tenant_id": submission.tenant_id,
        "endpoint": submission.endpoint,
        "completion_window": submission.completion_window,
        "window": parse_window(submission.completion_window),
        "tier": submission.tier,
        "budget_micros": submission.budget_micros,
        "metadata": None if submission.metadata is None else orjson.dumps(submission.metadata).decode(),
        "idempotency_key": submission.idempotency_key or batch_id,
        "input_file_id": submission.input_file_id,
        "hold_until": submission.hold_until,
        "must_promise": submission.must_promise,
        "project_id": submission.project_id,
        "created_by": submission.created_by,
        "labels": None if submission.labels is None else orjson.dumps(submission.labels).decode(),
        "priority": submission.priority,
        "retry_of": submission.retry_of,
        "output_kept_seconds": submission.output_kept_seconds,
        "may_lack_file": submission.may_lack_file,
        "claim_for": claim_for,
    }
    connection.execute(ADD_BATCH, arguments)
    made = text("SELECT id FROM batches WHERE tenant_id = :tenant_id AND idempotency_key = :idempotency_key")
    made_id = connection.execute(made, arguments).scalar_one_or_none()
    if made_id is None:
        raise NotFoundError(f"there is no file {submission.input_file_id}")
    view = view_of(connection, BatchId(made_id))
    _refuse_other_submission(connection, submission, view)
    return view


def _refuse_other_submission(connection: Connection, submission: Submission, view: BatchView) -> None:
    """Raise unless the batch that the key made is the one that is asked for: the same file by content."""
    files = {"asked_id": submission.input_file_id, "made_id": view.input_file_id, "tenant_id": submission.tenant_id}
    is_same = connection.execute(SAME_INPUT, files).scalar_one_or_none()
    if is_same is None:
        if not submission.may_lack_file:
            raise NotFoundError(f"there is no file {submission.input_file_id}")
        is_same = submission.input_file_id == view.input_file_id
    asked: tuple[object, ...] = (
        submission.endpoint,
        submission.completion_window,
        submission.metadata,
        submission.labels,
        submission.project_id,
    )
    made: tuple[object, ...] = (view.endpoint, view.completion_window, view.metadata, view.labels, view.project_id)
    if view.steered_at is None:  # terms that were changed on the way say nothing of what was asked for
        asked += (submission.tier, submission.budget_micros, submission.hold_until, submission.priority)
        made += (view.tier, view.budget_micros, view.hold_until, view.priority)
    if not is_same or asked != made:
        raise ConflictError(
            f"idempotency key {submission.idempotency_key!r} already made {view.batch_id} with other parameters"
        )
