"""Recurring batches in Postgres, as their users see and steer them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import orjson
from sqlalchemy import Connection, Row, TextClause, text

from pipeline.domain.endpoints import Endpoint
from pipeline.domain.errors import ConflictError, NotFoundError
from pipeline.domain.ids import BatchId, RecurringId, TenantId
from pipeline.domain.lifecycle import BatchState
from pipeline.domain.recurring import CatchUp, FiringOutcome, Overlap
from pipeline.domain.tiers import Tier
from pipeline.ports.recurring import FiringView, RecurringTerms, RecurringView
from storage.database import Database
from storage.recurring_statements import ADD, ADD_MANUAL, HISTORY, LIVE, NAMED, ONE_FIRING, PAUSE, REMOVE, RESUME
from storage.wakeups import send_wakeup


class RecurringRepository:
    """Recurring batches and the history of their firings."""

    def __init__(self, database: Database) -> None:
        """Keep them in `database`."""
        self._database = database

    def now(self) -> datetime:
        """Return the database's time: the one clock that all schedulers share."""
        statement = text("SELECT clock_timestamp()")
        found: datetime = self._database.run(lambda connection: connection.execute(statement).scalar_one())
        return found

    def add(self, recurring_id: RecurringId, terms: RecurringTerms, *, next_at: datetime) -> RecurringView:
        """Record it; raises `ConflictError` where one of that name is there."""
        arguments = {
            "id": recurring_id,
            "tenant_id": terms.tenant_id,
            "name": terms.name,
            "cron": terms.cron,
            "zone": terms.zone,
            "input_template": terms.input_template,
            "output_template": terms.output_template,
            "endpoint": terms.endpoint,
            "tier": terms.tier,
            "completion_window": terms.completion_window,
            "budget_micros": terms.budget_micros,
            "metadata": None if terms.metadata is None else orjson.dumps(terms.metadata).decode(),
            "overlap": terms.overlap,
            "catch_up": terms.catch_up,
            "catch_up_max": terms.catch_up_max,
            "next_at": next_at,
        }

        def work(connection: Connection) -> RecurringView:
            connection.execute(ADD, arguments)
            return _named(connection, terms.tenant_id, terms.name)

        view = self._database.run(work)
        if view.recurring_id != recurring_id:
            raise ConflictError(
                f"there is a recurring batch {terms.name} already",
                hint=f"`nightrate recurring show {terms.name}`; remove it first, or choose another name",
            )
        return view

    def get(self, tenant_id: TenantId, name: str) -> RecurringView:
        """Return the one of that name, or raise `NotFoundError`."""
        return self._database.run(lambda connection: _named(connection, tenant_id, name))

    def live(self, tenant_id: TenantId) -> list[RecurringView]:
        """Return all that were not removed, by name."""
        rows = self._database.run(lambda connection: connection.execute(LIVE, {"tenant_id": tenant_id}).all())
        return [to_recurring(row) for row in rows]

    def history(self, recurring_id: RecurringId, *, limit: int) -> list[FiringView]:
        """Return its firings, the newest first."""
        arguments = {"id": recurring_id, "limit": limit}
        rows = self._database.run(lambda connection: connection.execute(HISTORY, arguments).all())
        return [to_firing(row) for row in rows]

    def firing(self, recurring_id: RecurringId, scheduled_at: datetime) -> FiringView:
        """Return one firing, or raise `NotFoundError`."""
        arguments = {"id": recurring_id, "scheduled_at": scheduled_at}
        row = self._database.run(lambda connection: connection.execute(ONE_FIRING, arguments).one_or_none())
        if row is None:
            raise NotFoundError(f"{recurring_id} has no firing of {scheduled_at.isoformat()}")
        return to_firing(row)

    def pause(self, tenant_id: TenantId, name: str) -> RecurringView:
        """Let nothing fire until it is resumed. Pausing twice is allowed."""
        return self._change(tenant_id, name, PAUSE, {})

    def resume(self, tenant_id: TenantId, name: str, *, next_at: datetime) -> RecurringView:
        """Let it fire again from `next_at` on; one that is not paused stays as it is."""
        return self._change(tenant_id, name, RESUME, {"next_at": next_at})

    def remove(self, tenant_id: TenantId, name: str) -> RecurringView:
        """Let it never fire again; batches that it submitted go on. Returns what it was."""

        def work(connection: Connection) -> RecurringView:
            view = _named(connection, tenant_id, name)
            connection.execute(REMOVE, {"id": view.recurring_id})
            return view

        return self._database.run(work)

    def add_manual(self, tenant_id: TenantId, name: str, *, at: datetime) -> FiringView:
        """Record a firing that a person asked for; the scheduler submits it, paused or not."""

        def work(connection: Connection) -> RecurringId:
            view = _named(connection, tenant_id, name)
            connection.execute(ADD_MANUAL, {"id": view.recurring_id, "scheduled_at": at})
            send_wakeup(connection)
            return view.recurring_id

        return self.firing(self._database.run(work), at)

    def _change(
        self, tenant_id: TenantId, name: str, statement: TextClause, arguments: Mapping[str, object]
    ) -> RecurringView:
        def work(connection: Connection) -> RecurringView:
            view = _named(connection, tenant_id, name)
            connection.execute(statement, {**arguments, "id": view.recurring_id})
            send_wakeup(connection)
            return _named(connection, tenant_id, name)

        return self._database.run(work)


def to_terms(row: Row[Any]) -> RecurringTerms:
    """Return what a row of `recurring`, or one joined with it, says of the terms."""
    return RecurringTerms(
        tenant_id=TenantId(row.tenant_id),
        name=row.name,
        cron=row.cron,
        zone=row.zone,
        input_template=row.input_template,
        output_template=row.output_template,
        endpoint=None if row.endpoint is None else Endpoint(row.endpoint),
        tier=Tier(row.tier),
        completion_window=row.completion_window,
        budget_micros=row.budget_micros,
        metadata=row.metadata,
        overlap=Overlap(row.overlap),
        catch_up=CatchUp(row.catch_up),
        catch_up_max=row.catch_up_max,
    )


def to_firing(row: Row[Any]) -> FiringView:
    """Return what a row of `firings`, joined with its batch, says."""
    return FiringView(
        recurring_id=RecurringId(row.recurring_id),
        scheduled_at=row.scheduled_at,
        is_manual=row.is_manual,
        outcome=None if row.outcome is None else FiringOutcome(row.outcome),
        reason=row.reason,
        batch_id=None if row.batch_id is None else BatchId(row.batch_id),
        batch_state=None if row.batch_state is None else BatchState(row.batch_state),
        tries=row.tries,
        retry_at=row.retry_at,
        output_path=row.output_path,
        delivered_at=row.delivered_at,
        delivery_tries=row.delivery_tries,
        delivery_trouble=row.delivery_trouble,
        created_at=row.created_at,
    )


def to_recurring(row: Row[Any]) -> RecurringView:
    """Return what a row of `recurring` says."""
    return RecurringView(
        recurring_id=RecurringId(row.id),
        terms=to_terms(row),
        next_at=row.next_at,
        paused_at=row.paused_at,
        created_at=row.created_at,
    )


def _named(connection: Connection, tenant_id: TenantId, name: str) -> RecurringView:
    row = connection.execute(NAMED, {"tenant_id": tenant_id, "name": name}).one_or_none()
    if row is None:
        raise NotFoundError(f"there is no recurring batch {name}", hint="`nightrate recurring list`")
    return to_recurring(row)
