"""Batches as tenants see and steer them: what is another's does not exist."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Final, TypeVar

import orjson
from sqlalchemy import Connection, text

from pipeline.domain.ids import ApiKeyId, BatchId, new_batch_id
from pipeline.domain.lifecycle import BatchState
from pipeline.domain.plans import BUILT_IN_BOOK, PlanBook
from pipeline.ports.access import Scope
from pipeline.ports.batches import BatchView, RetryOrder, Steering, Submission
from storage.batch_views import page_of_views, view_of, view_within, views_among
from storage.database import Database
from storage.quotas import add_batch_within, check_tier, plan_within
from storage.retries import retry
from storage.steering import cancel, steer
from storage.wakeups import send_wakeup

#: The scheduler takes the batch in.
_NO_CLAIM: Final = timedelta(0)

_ALIKE: Final = text("""
    SELECT id FROM batches
     WHERE tenant_id = :tenant_id AND created_by = :created_by AND input_file_id = :input_file_id
       AND endpoint = :endpoint AND completion_window = :completion_window
       AND metadata IS NOT DISTINCT FROM CAST(:metadata AS jsonb)
       AND created_at > now() - CAST(:within AS interval)
     ORDER BY created_at DESC, id DESC LIMIT 1
""")
_TAKE_TURNS: Final = text("SELECT pg_advisory_xact_lock(hashtextextended(:subject, 0))")

_Result = TypeVar("_Result")


class ScopedBatches:
    """What a tenant may do with batches. Safe to share between threads."""

    def __init__(self, database: Database, plans: PlanBook = BUILT_IN_BOOK) -> None:
        """Find them in `database`; tenants have what `plans` allows them."""
        self._database = database
        self._plans = plans

    def submit(self, submission: Submission, *, alike_within: timedelta | None = None) -> BatchView:
        """Make a batch for the scheduler to take in; the same idempotency key again returns the one it made.

        Args:
            submission: What is asked for.
            alike_within: Given, this is a client's second try, which says so without naming the first: a batch that the
                same key made of the same request within that time is returned instead of a second one.

        Raises:
            ConflictError: The idempotency key made another batch.
            TierNotAllowedError: The tenant's plan does not have the tier.
            BatchLimitError: The tenant has as many batches that have not ended as its plan allows.
        """
        batch_id = new_batch_id()

        def work(connection: Connection) -> BatchView:
            if submission.idempotency_key is None and submission.created_by is not None:
                # A second try waits for a first that is still on its way.
                connection.execute(_TAKE_TURNS, {"subject": f"{submission.created_by}:{submission.input_file_id}"})
                made = _alike(connection, submission, submission.created_by, alike_within)
                if made is not None:
                    return view_of(connection, made)
            view = add_batch_within(connection, self._plans, submission, batch_id, _NO_CLAIM)
            send_wakeup(connection)
            return view

        return self._database.run(work)

    def get(self, batch_id: str, scope: Scope) -> BatchView:
        """Return a batch as it stands, or raise `NotFoundError`."""
        return self._database.run(lambda connection: view_within(connection, batch_id, scope))

    def among(self, asked: Sequence[tuple[str, Scope]]) -> dict[tuple[str, Scope], BatchView]:
        """Return those of the batches that exist for who asks, in one query."""
        return self._database.run(lambda connection: views_among(connection, asked))

    def page(
        self, scope: Scope, *, limit: int, after: str | None = None, states: Sequence[BatchState] = ()
    ) -> Sequence[BatchView]:
        """Return up to `limit` batches after the one named, the newest first, of the given states or of all.

        Raises `NotFoundError` where there is no such batch to go on after.
        """
        return self._database.run(
            lambda connection: page_of_views(connection, scope, after=after, limit=limit, states=states)
        )

    def cancel(self, batch_id: str, scope: Scope) -> BatchView:
        """Withdraw a batch; doing it again is allowed. Raises `NotFoundError`, and `ConflictError` when it has ended."""
        return self._within(batch_id, scope, lambda connection: cancel(connection, BatchId(batch_id)))

    def steer(self, batch_id: str, scope: Scope, steering: Steering) -> BatchView:
        """Change a batch on its way.

        Raises `NotFoundError`, `ConflictError` when it has ended or is about to, and `TierNotAllowedError`.
        """

        def work(connection: Connection) -> BatchView:
            if steering.tier is not None:
                check_tier(plan_within(connection, self._plans, scope.tenant_id), steering.tier)
            return steer(connection, BatchId(batch_id), steering, self._plans)

        return self._within(batch_id, scope, work)

    def retry(self, batch_id: str, scope: Scope, order: RetryOrder) -> BatchView:
        """Make a batch of those rows of one that has ended which have no success; retried again, return that batch.

        Raises `NotFoundError`, and `ConflictError` where it has not ended or nothing can be run again.
        """
        again_id = new_batch_id()

        def work(connection: Connection) -> BatchView:
            return retry(connection, self._plans, view_within(connection, batch_id, scope), order, again_id)

        return self._database.run(work)

    def _within(self, batch_id: str, scope: Scope, work: Callable[[Connection], _Result]) -> _Result:
        def checked(connection: Connection) -> _Result:
            view_within(connection, batch_id, scope)
            return work(connection)

        return self._database.run(checked)


def _alike(
    connection: Connection, submission: Submission, created_by: ApiKeyId, within: timedelta | None
) -> BatchId | None:
    if within is None:
        return None
    arguments = {
        "tenant_id": submission.tenant_id,
        "created_by": created_by,
        "input_file_id": submission.input_file_id,
        "endpoint": submission.endpoint,
        "completion_window": submission.completion_window,
        "metadata": None if submission.metadata is None else orjson.dumps(submission.metadata).decode(),
        "within": within,
    }
    found = connection.execute(_ALIKE, arguments).scalar_one_or_none()
    return None if found is None else BatchId(found)
