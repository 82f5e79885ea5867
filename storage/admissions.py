"""Answers to batches whose deadline was asked about, in the transaction of the cycle that found them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

import orjson
from sqlalchemy import Connection, text

from pipeline.domain.promises import Promise
from pipeline.ports.cycle import CyclePlan
from storage.wakeups import send_wakeup

_REFUSE: Final = text("""
    -- Nothing of them has started, for they have had no promise. Terms that were changed since the snapshot are asked
    -- about again, as below.
    WITH refused AS MATERIALIZED (
        SELECT batches.id, wanted.errors
          FROM unnest(CAST(:batch_ids AS text[]), CAST(:errors AS text[])) AS wanted (batch_id, errors)
          JOIN batches ON batches.id = wanted.batch_id
         WHERE batches.state = 'in_progress' AND batches.promise = 'pending' AND batches.must_promise
         ORDER BY batches.id FOR NO KEY UPDATE OF batches),
    failed AS (
        UPDATE batches SET state = 'failed', failed_at = clock_timestamp(), promise = 'declined',
               reason = 'promise_declined', reason_at = clock_timestamp(),
               errors = CAST(refused.errors AS jsonb), errors_total = 1
          FROM refused WHERE batches.id = refused.id
        RETURNING batches.id, batches.reason)
    INSERT INTO decisions (batch_id, reason, epoch) SELECT id, reason, :epoch FROM failed
""")

_PROMISE: Final = text("""
    -- Terms that were changed since the snapshot are asked about again.
    WITH answered AS MATERIALIZED (
        SELECT batches.id, wanted.promise
          FROM unnest(CAST(:batch_ids AS text[]), CAST(:promises AS text[])) AS wanted (batch_id, promise)
          JOIN batches ON batches.id = wanted.batch_id
         WHERE batches.state = 'in_progress' AND batches.promise = 'pending'
         ORDER BY batches.id FOR NO KEY UPDATE OF batches)
    -- A promise that was made is no condition any more, whatever becomes of the terms.
    UPDATE batches SET promise = answered.promise, must_promise = false FROM answered WHERE batches.id = answered.id
""")


def answer(connection: Connection, epoch: int, plan: CyclePlan) -> None:
    """Record what is promised, and fail what was to be promised and cannot be."""
    if plan.refused:
        errors = [_error(earliest_us) for _, earliest_us in plan.refused]
        batch_ids = [batch_id for batch_id, _ in plan.refused]
        connection.execute(_REFUSE, {"batch_ids": batch_ids, "errors": errors, "epoch": epoch})
    if plan.promises:
        refused = {batch_id for batch_id, _ in plan.refused}
        answers = [(batch_id, promise) for batch_id, promise in plan.promises if batch_id not in refused]
        connection.execute(
            _PROMISE,
            {"batch_ids": [batch for batch, _ in answers], "promises": [str(promise) for _, promise in answers]},
        )
        if any(promise is Promise.MADE for _, promise in answers):
            # What waited for it may start at once.
            send_wakeup(connection)


def _error(earliest_us: int | None) -> str:
    if earliest_us is None:
        offer = "no live worker serves it"
    else:
        earliest = datetime.fromtimestamp(earliest_us / 1e6, tz=UTC)
        offer = f"the earliest that could be is {earliest:%Y-%m-%dT%H:%M:%SZ}"
    message = f"Its deadline cannot be promised: {offer}."
    return orjson.dumps([{"code": "promise_declined", "message": message, "param": None, "line": None}]).decode()
