"""Retries: a batch of the rows of another that have no success."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from sqlalchemy import Connection, text

from pipeline.domain.errors import ConflictError, NotFoundError
from pipeline.domain.ids import BatchId
from pipeline.domain.lifecycle import BatchState
from pipeline.ports.batches import BatchView, RetryOrder, Submission
from storage.batch_views import view_of
from storage.files import IS_VISIBLE
from storage.submissions import add_batch
from storage.wakeups import send_wakeup

#: The scheduler takes it in.
_NO_CLAIM: Final = timedelta(0)

_TAKE_TURNS: Final = text("SELECT pg_advisory_xact_lock(hashtextextended(:batch_id, 1))")
MADE: Final = text("""
    SELECT id, retry_of FROM batches WHERE tenant_id = :tenant_id AND idempotency_key = :idempotency_key
""")
# The lock keeps it from being deleted before the batch is seen that needs it.
_HOLD_ERRORS: Final = text(
    "SELECT 1 FROM files WHERE id = :file_id AND IS_VISIBLE FOR KEY SHARE".replace("IS_VISIBLE", IS_VISIBLE)
)
_OUTPUT_KEPT: Final = text("SELECT output_kept_seconds FROM batches WHERE id = :batch_id")


def retry(connection: Connection, view: BatchView, order: RetryOrder, batch_id: BatchId) -> BatchView:
    """Make the batch under that id, or return the one that was made before; see `ScopedBatches.retry`."""
    connection.execute(_TAKE_TURNS, {"batch_id": view.batch_id})
    key = order.idempotency_key or _key_of(view)
    made = connection.execute(MADE, {"tenant_id": view.tenant_id, "idempotency_key": key}).one_or_none()
    if made is not None:
        return _made_before(view_of(connection, BatchId(made.id)), view, order, key)
    _refuse_unless_something_is_left(connection, view)
    submission = Submission(
        tenant_id=view.tenant_id,
        project_id=view.project_id,
        created_by=order.created_by,
        input_file_id=view.input_file_id,
        endpoint=view.endpoint,
        completion_window=order.completion_window or view.completion_window,
        tier=order.tier or view.tier,
        priority=view.priority,
        budget_micros=order.budget_micros or _budget_left(view),
        metadata=view.metadata,
        labels=view.labels,
        idempotency_key=key,
        output_kept_seconds=connection.execute(_OUTPUT_KEPT, {"batch_id": view.batch_id}).scalar_one(),
        retry_of=view.batch_id,
    )
    try:
        again = add_batch(connection, submission, batch_id, _NO_CLAIM)
    except NotFoundError:
        raise ConflictError(f"The input file {view.input_file_id} of the batch has been deleted.") from None
    send_wakeup(connection)
    return again


def _key_of(view: BatchView) -> str | None:
    """Return the key that a retry has of itself: a batch ends once, so that it is retried once."""
    ended_at = view.entered_at.get(view.state)
    return f"retry:{view.batch_id}:{0 if ended_at is None else round(ended_at.timestamp() * 1_000_000)}"


def _made_before(made: BatchView, view: BatchView, order: RetryOrder, key: str | None) -> BatchView:
    asked = (
        order.completion_window in {None, made.completion_window}
        and (order.tier in {None, made.tier} or made.steered_at is not None)
        and (order.budget_micros in {None, made.budget_micros} or made.steered_at is not None)
    )
    if made.retry_of != view.batch_id or not asked:
        hint = "" if order.idempotency_key else "; with an Idempotency-Key of its own another can be made"
        raise ConflictError(f"Key {key!r} already made {made.batch_id} with other parameters{hint}.")
    return made


def _refuse_unless_something_is_left(connection: Connection, view: BatchView) -> None:
    if not view.state.is_terminal:
        raise ConflictError(f"Cannot retry a batch with status '{view.state}'.")
    if view.state is BatchState.FAILED:
        raise ConflictError(
            "Nothing to retry: no row of a failed batch was taken in; create a batch of a file instead."
        )
    if not view.rows_total:  # cancelled before its input was read: all of it
        return
    if view.error_file_id is None:
        raise ConflictError("Nothing to retry: every row of the batch has succeeded.")
    if connection.execute(_HOLD_ERRORS, {"file_id": view.error_file_id}).one_or_none() is None:
        raise ConflictError(
            f"The error file {view.error_file_id} of the batch has been deleted, so nobody knows which rows to run again."
        )


def _budget_left(view: BatchView) -> int | None:
    """Return what may still be spent on rows that were submitted with that budget; raises where nothing is left."""
    if view.budget_micros is None:
        return None
    left = view.budget_micros - view.cost_micros
    if left <= 0:
        raise ConflictError("The batch has spent its budget; name a `max_cost` for the rows that are left.")
    return left
