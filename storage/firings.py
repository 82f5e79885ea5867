"""The leading scheduler's side of recurring batches: what is due, what was submitted, what was delivered.

Every write names the epoch its scheduler leads in and the firing it is about, which is decided once.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Connection, TextClause

from pipeline.domain.ids import BatchId, RecurringId, new_batch_id
from pipeline.domain.limits import DELIVERY_TRIES_MAX
from pipeline.domain.plans import BUILT_IN_BOOK, PlanBook
from pipeline.domain.recurring import FiringOutcome
from pipeline.ports.batches import Submission
from pipeline.ports.recurring import Delivery, FiringView, OpenFiring, RecurringView
from storage.database import Database
from storage.epochs import guard_epoch
from storage.pricing import fix_price
from storage.recurring import to_firing, to_recurring, to_terms
from storage.recurring_statements import (
    ADD_FIRING,
    ADVANCE,
    DELIVERED,
    DUE,
    FAIL_DELIVERY,
    HOLD_FIRING,
    OPEN,
    POSTPONE,
    SETTLE,
    SUBMITTED,
    UNDELIVERED,
)
from storage.submissions import add_batch
from storage.wakeups import send_wakeup

#: Rows of one look; there is another look at once while there are more.
PAGE: Final = 100
#: The claim of a batch that nobody has begun to take in: it has run out already.
_NO_CLAIM: Final = timedelta(0)
Planned = tuple[datetime, FiringOutcome | None, str | None]


class FiringRepository:
    """What the leader reads and writes to fire what is due."""

    def __init__(self, database: Database, *, epoch: int, book: PlanBook = BUILT_IN_BOOK) -> None:
        """Write as the leader of `epoch`, by that price list; `NotLeaderError` says that another leads by now."""
        self._database = database
        self._book = book
        self._epoch = epoch

    def due(self, now: datetime) -> list[tuple[RecurringView, int]]:
        """Return recurring batches with firings to plan, each with how many planned ones wait."""
        arguments = {"now": now, "limit": PAGE}
        rows = self._database.run(lambda connection: connection.execute(DUE, arguments).all())
        return [(to_recurring(row), row.waiting) for row in rows]

    def advance(self, view: RecurringView, firings: list[Planned], *, next_at: datetime) -> bool:
        """Record firings and move on to the next one, all or nothing; False where another did meanwhile."""
        move = {"id": view.recurring_id, "planned_at": view.next_at, "next_at": next_at}
        rows = [
            {"id": view.recurring_id, "scheduled_at": at, "outcome": outcome, "reason": reason}
            for at, outcome, reason in firings
        ]

        def work(connection: Connection) -> bool:
            guard_epoch(connection, self._epoch)
            if not connection.execute(ADVANCE, move).rowcount:
                return False
            if rows:
                connection.execute(ADD_FIRING, rows)
            return True

        return self._database.run(work)

    def open(self, now: datetime) -> list[OpenFiring]:
        """Return firings whose turn it is, the earliest first."""
        arguments = {"now": now, "limit": PAGE}
        rows = self._database.run(lambda connection: connection.execute(OPEN, arguments).all())
        return [
            OpenFiring(
                firing=to_firing(row),
                terms=to_terms(row),
                running_batch_id=None if row.running_batch_id is None else BatchId(row.running_batch_id),
            )
            for row in rows
        ]

    def submit(self, firing: FiringView, submission: Submission, *, output_path: str | None) -> BatchId | None:
        """Make the firing's batch and record it, in one transaction; None where it was decided otherwise meanwhile.

        A firing that has its batch keeps it. The scheduler's intake takes the batch in.
        """
        batch_id = new_batch_id()

        def work(connection: Connection) -> BatchId | None:
            guard_epoch(connection, self._epoch)
            held = connection.execute(HOLD_FIRING, _key(firing)).one_or_none()
            if held is None:
                return None
            if held.batch_id is not None:
                return BatchId(held.batch_id)
            made = add_batch(connection, submission, batch_id, _NO_CLAIM)
            if made.batch_id == batch_id:
                fix_price(connection, self._book, batch_id)
            arguments = {"batch_id": made.batch_id, "output_path": output_path}
            connection.execute(SUBMITTED, _key(firing) | arguments)
            send_wakeup(connection)
            return made.batch_id

        return self._database.run(work)

    def settle(self, firing: FiringView, outcome: FiringOutcome, reason: str, *, tries: int) -> None:
        """Decide a firing that makes no batch."""
        self._write(SETTLE, _key(firing) | {"outcome": outcome, "reason": reason, "tries": tries})

    def postpone(self, firing: FiringView, reason: str, *, tries: int, retry_at: datetime) -> None:
        """Let a firing rest that could not be fired."""
        self._write(POSTPONE, _key(firing) | {"reason": reason, "tries": tries, "retry_at": retry_at})

    def undelivered(self, now: datetime) -> list[Delivery]:
        """Return results that wait to be written, the earliest first."""
        arguments = {"now": now, "tries_max": DELIVERY_TRIES_MAX, "limit": PAGE}
        rows = self._database.run(lambda connection: connection.execute(UNDELIVERED, arguments).all())
        return [
            Delivery(
                recurring_id=RecurringId(row.recurring_id),
                scheduled_at=row.scheduled_at,
                output_path=row.output_path,
                batch_id=BatchId(row.batch_id),
                tries=row.delivery_tries,
            )
            for row in rows
        ]

    def delivered(self, delivery: Delivery) -> None:
        """Record that the results stand where they are wanted."""
        self._write(DELIVERED, _key(delivery))

    def fail_delivery(self, delivery: Delivery, trouble: str, *, deliver_at: datetime) -> None:
        """Let results rest that could not be written."""
        arguments = {"trouble": trouble, "tries": delivery.tries + 1, "deliver_at": deliver_at}
        self._write(FAIL_DELIVERY, _key(delivery) | arguments)

    def _write(self, statement: TextClause, arguments: Mapping[str, object]) -> None:
        def work(connection: Connection) -> None:
            guard_epoch(connection, self._epoch)
            connection.execute(statement, arguments)

        self._database.run(work)


def _key(firing: FiringView | Delivery) -> dict[str, object]:
    return {"id": firing.recurring_id, "scheduled_at": firing.scheduled_at}
