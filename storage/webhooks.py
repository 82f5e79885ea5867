"""Webhooks in Postgres as tenants manage them: made, listed, changed, told again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, TypeVar

from sqlalchemy import Connection, Row, TextClause, text

from pipeline.domain.errors import ConflictError, NotFoundError
from pipeline.domain.ids import BatchId, EventId, ProjectId, TenantId, WebhookId, new_event_id
from pipeline.domain.limits import WEBHOOKS_PER_TENANT_MAX
from pipeline.domain.webhooks import DeliveryState, DisabledReason, EventType
from pipeline.ports.access import Scope
from pipeline.ports.webhooks import DeliveryView, WebhookChange, WebhookDraft, WebhookView
from storage.database import Database
from storage.scopes import scope_arguments
from storage.wakeups import send_wakeup

_Result = TypeVar("_Result")

_IN_SCOPE: Final = "tenant_id = :tenant_id AND (CAST(:project_id AS text) IS NULL OR project_id = :project_id)"


def _scoped(statement: str) -> TextClause:
    return text(statement.replace("IN_SCOPE", _IN_SCOPE))


#: Two that are made at once are counted one after the other.
_HOLD_TENANT: Final = text("SELECT 1 FROM tenants WHERE id = :tenant_id FOR NO KEY UPDATE")
_PROJECT: Final = text(
    "SELECT 1 FROM projects WHERE id = :project_id AND tenant_id = :tenant_id AND archived_at IS NULL"
)
_COUNT: Final = text("SELECT count(*) FROM webhooks WHERE tenant_id = :tenant_id AND id <> :webhook_id")
_ADD: Final = text("""
    INSERT INTO webhooks (id, tenant_id, project_id, url, description, event_types, secret)
    VALUES (:webhook_id, :tenant_id, :project_id, :url, :description, :event_types, :secret)
    ON CONFLICT (id) DO NOTHING
""")
_ONE: Final = _scoped("SELECT * FROM webhooks WHERE id = :webhook_id AND IN_SCOPE")
_PAGE: Final = _scoped("""
    SELECT * FROM webhooks
     WHERE IN_SCOPE AND (CAST(:after AS text) IS NULL OR (created_at, id) < (
           SELECT created_at, id FROM webhooks AS last WHERE last.id = :after AND last.tenant_id = :tenant_id))
     ORDER BY created_at DESC, id DESC LIMIT :limit
""")
_CHANGE: Final = text("""
    UPDATE webhooks
       SET url = coalesce(:url, url), description = coalesce(:description, description),
           event_types = coalesce(CAST(:event_types AS varchar[]), event_types),
           disabled_at = CASE CAST(:is_enabled AS boolean) WHEN true THEN NULL
                              WHEN false THEN coalesce(disabled_at, clock_timestamp()) ELSE disabled_at END,
           disabled_reason = CASE CAST(:is_enabled AS boolean) WHEN true THEN NULL
                                  WHEN false THEN coalesce(disabled_reason, 'asked') ELSE disabled_reason END,
           -- Another try of another place, or of one that was mended.
           failing_since = CASE WHEN :url <> url OR CAST(:is_enabled AS boolean) THEN NULL ELSE failing_since END
     WHERE id = :webhook_id
""")
GIVE_UP: Final = text("""
    UPDATE webhook_deliveries
       SET gave_up_at = clock_timestamp(), claim_token = claim_token + 1, last_error = 'the webhook was disabled'
     WHERE webhook_id = :webhook_id AND delivered_at IS NULL AND gave_up_at IS NULL
""")
_ROTATE: Final = text("""
    -- Applied twice it is applied once, or the secret before would be forgotten.
    UPDATE webhooks SET previous_secret = secret, previous_until = clock_timestamp() + CAST(:overlap AS interval),
           secret = :secret
     WHERE id = :webhook_id AND secret <> :secret
""")
_REMOVE: Final = text("DELETE FROM webhooks WHERE id = :webhook_id")
_ADD_TEST: Final = text("""
    INSERT INTO webhook_events (id, tenant_id, project_id, type, data)
    SELECT :event_id, tenant_id, project_id, 'webhook.test', jsonb_build_object('id', id)
      FROM webhooks WHERE id = :webhook_id
    ON CONFLICT (id) DO NOTHING
""")
_ADD_DELIVERY: Final = text("""
    INSERT INTO webhook_deliveries (webhook_id, event_id) VALUES (:webhook_id, :event_id) ON CONFLICT DO NOTHING
""")
_DELIVERIES: Final = """
    SELECT deliveries.*, events.type, events.batch_id, events.created_at
      FROM webhook_deliveries AS deliveries JOIN webhook_events AS events ON events.id = deliveries.event_id
     WHERE deliveries.webhook_id = :webhook_id
"""
_DELIVERY: Final = text(f"{_DELIVERIES} AND deliveries.event_id = :event_id")
#: Ids of events are ordered by time.
PAGE_OF_DELIVERIES: Final = text(f"""
    {_DELIVERIES} AND (CAST(:after AS text) IS NULL OR deliveries.event_id < :after)
     ORDER BY deliveries.event_id DESC LIMIT :limit
""")
_AGAIN: Final = """
    UPDATE webhook_deliveries AS deliveries
       SET next_at = clock_timestamp(), tries = 0, delivered_at = NULL, gave_up_at = NULL, claim_token = claim_token + 1
"""
_AGAIN_ONE: Final = text(f"{_AGAIN} WHERE webhook_id = :webhook_id AND event_id = :event_id")
_AGAIN_SINCE: Final = text(f"""
    {_AGAIN} FROM webhook_events AS events
     WHERE deliveries.webhook_id = :webhook_id AND events.id = deliveries.event_id
       AND events.created_at >= :since AND deliveries.delivered_at IS NULL
""")


class WebhookRepository:
    """What a tenant may do with webhooks; what is another's does not exist. Safe to share between threads."""

    def __init__(self, database: Database) -> None:
        """Keep them in `database`."""
        self._database = database

    def add(self, draft: WebhookDraft) -> WebhookView:
        """Record a webhook; repeating it changes nothing.

        Raises:
            NotFoundError: There is no such tenant or project.
            ConflictError: The tenant has as many as it may have.
        """
        arguments = {
            "webhook_id": draft.webhook_id,
            "tenant_id": draft.tenant_id,
            "project_id": draft.project_id,
            "url": draft.url,
            "description": draft.description,
            "event_types": [str(kind) for kind in draft.event_types],
            "secret": draft.secret,
        }

        def work(connection: Connection) -> WebhookView:
            if connection.execute(_HOLD_TENANT, arguments).one_or_none() is None:
                raise NotFoundError(f"there is no tenant {draft.tenant_id}")
            if draft.project_id is not None and connection.execute(_PROJECT, arguments).one_or_none() is None:
                raise NotFoundError(f"there is no project {draft.project_id}")
            if connection.execute(_COUNT, arguments).scalar_one() >= WEBHOOKS_PER_TENANT_MAX:
                raise ConflictError(
                    f"There are {WEBHOOKS_PER_TENANT_MAX} webhooks already, which is as many as may be."
                )
            connection.execute(_ADD, arguments)
            return _to_view(connection.execute(_ONE, arguments).one())

        return self._database.run(work)

    def get(self, webhook_id: str, scope: Scope) -> WebhookView:
        """Return a webhook, or raise `NotFoundError`."""
        return self._within(webhook_id, scope, lambda _connection, view: view)

    def page(self, scope: Scope, *, limit: int, after: str | None = None) -> Sequence[WebhookView]:
        """Return up to `limit` webhooks after the one named, the newest first; raises `NotFoundError`."""
        arguments = {"limit": limit, "after": after, **scope_arguments(scope)}

        def work(connection: Connection) -> list[WebhookView]:
            if after is not None:
                _found(connection, after, scope)
            return [_to_view(row) for row in connection.execute(_PAGE, arguments)]

        return self._database.run(work)

    def change(self, webhook_id: str, scope: Scope, change: WebhookChange) -> WebhookView:
        """Change a webhook; what it was still to be told is given up where it is disabled. Raises `NotFoundError`."""
        arguments = {
            "webhook_id": webhook_id,
            "url": change.url,
            "description": change.description,
            "event_types": None if change.event_types is None else [str(kind) for kind in change.event_types],
            "is_enabled": change.is_enabled,
        }

        def work(connection: Connection, _view: WebhookView) -> WebhookView:
            connection.execute(_CHANGE, arguments)
            if change.is_enabled is False:
                connection.execute(GIVE_UP, arguments)
            return _found(connection, webhook_id, scope)

        return self._within(webhook_id, scope, work)

    def rotate(self, webhook_id: str, scope: Scope, *, secret: str, overlap: timedelta) -> WebhookView:
        """Let `secret` sign from now on, and the one before it, too, for `overlap`. Raises `NotFoundError`."""
        arguments = {"webhook_id": webhook_id, "secret": secret, "overlap": overlap}

        def work(connection: Connection, _view: WebhookView) -> WebhookView:
            connection.execute(_ROTATE, arguments)
            return _found(connection, webhook_id, scope)

        return self._within(webhook_id, scope, work)

    def remove(self, webhook_id: str, scope: Scope) -> None:
        """Remove a webhook with its history. Raises `NotFoundError`."""
        self._within(webhook_id, scope, lambda connection, view: connection.execute(_REMOVE, _id_of(view)))

    def test(self, webhook_id: str, scope: Scope) -> DeliveryView:
        """Have the webhook told a `webhook.test`. Raises `NotFoundError`, and `ConflictError` where it is disabled."""
        arguments = {"webhook_id": webhook_id, "event_id": new_event_id()}

        def work(connection: Connection, view: WebhookView) -> DeliveryView:
            _check_enabled(view)
            connection.execute(_ADD_TEST, arguments)
            connection.execute(_ADD_DELIVERY, arguments)
            send_wakeup(connection)
            return _to_delivery(connection.execute(_DELIVERY, arguments).one())

        return self._within(webhook_id, scope, work)

    def deliveries(
        self, webhook_id: str, scope: Scope, *, limit: int, after: str | None = None
    ) -> Sequence[DeliveryView]:
        """Return up to `limit` deliveries after that of the event named, the newest first. Raises `NotFoundError`."""
        arguments = {"webhook_id": webhook_id, "limit": limit, "after": after, "event_id": after}

        def work(connection: Connection, _view: WebhookView) -> list[DeliveryView]:
            if after is not None and connection.execute(_DELIVERY, arguments).one_or_none() is None:
                raise NotFoundError(f"there is no event {after} of webhook {webhook_id}")
            return [_to_delivery(row) for row in connection.execute(PAGE_OF_DELIVERIES, arguments)]

        return self._within(webhook_id, scope, work)

    def redeliver(self, webhook_id: str, scope: Scope, event_id: str) -> int:
        """Tell a webhook an event again, whatever came of it before; returns 1.

        Raises `NotFoundError`, and `ConflictError` where the webhook is disabled.
        """

        def work(connection: Connection, view: WebhookView) -> int:
            _check_enabled(view)
            again = connection.execute(_AGAIN_ONE, {"webhook_id": webhook_id, "event_id": event_id})
            if not again.rowcount:
                raise NotFoundError(f"there is no event {event_id} of webhook {webhook_id}")
            send_wakeup(connection)
            return again.rowcount

        return self._within(webhook_id, scope, work)

    def redeliver_since(self, webhook_id: str, scope: Scope, since: datetime) -> int:
        """Tell a webhook all that has not arrived of what happened since then; returns how many events.

        Raises `NotFoundError`, and `ConflictError` where the webhook is disabled.
        """

        def work(connection: Connection, view: WebhookView) -> int:
            _check_enabled(view)
            again = connection.execute(_AGAIN_SINCE, {"webhook_id": webhook_id, "since": since})
            send_wakeup(connection)
            return again.rowcount

        return self._within(webhook_id, scope, work)

    def _within(self, webhook_id: str, scope: Scope, work: Callable[[Connection, WebhookView], _Result]) -> _Result:
        return self._database.run(lambda connection: work(connection, _found(connection, webhook_id, scope)))


def _found(connection: Connection, webhook_id: str, scope: Scope) -> WebhookView:
    row = connection.execute(_ONE, {"webhook_id": webhook_id, **scope_arguments(scope)}).one_or_none()
    if row is None:
        raise NotFoundError(f"there is no webhook {webhook_id}")
    return _to_view(row)


def _id_of(view: WebhookView) -> dict[str, object]:
    return {"webhook_id": view.webhook_id}


def _check_enabled(view: WebhookView) -> None:
    if view.disabled_at is not None:
        raise ConflictError(f"Webhook {view.webhook_id} is disabled; enable it first.")


def _to_view(row: Row[Any]) -> WebhookView:
    return WebhookView(
        webhook_id=WebhookId(row.id),
        tenant_id=TenantId(row.tenant_id),
        project_id=None if row.project_id is None else ProjectId(row.project_id),
        url=row.url,
        description=row.description,
        event_types=tuple(EventType(kind) for kind in row.event_types),
        created_at=row.created_at,
        disabled_at=row.disabled_at,
        disabled_reason=None if row.disabled_reason is None else DisabledReason(row.disabled_reason),
        failing_since=row.failing_since,
        previous_secret_until=row.previous_until,
    )


def _to_delivery(row: Row[Any]) -> DeliveryView:
    state = (
        DeliveryState.DELIVERED
        if row.delivered_at is not None
        else DeliveryState.GAVE_UP
        if row.gave_up_at is not None
        else DeliveryState.PENDING
    )
    return DeliveryView(
        event_id=EventId(row.event_id),
        webhook_id=WebhookId(row.webhook_id),
        event_type=EventType(row.type),
        batch_id=None if row.batch_id is None else BatchId(row.batch_id),
        created_at=row.created_at,
        state=state,
        tries=row.tries,
        next_at=row.next_at if state is DeliveryState.PENDING else None,
        tried_at=row.tried_at,
        delivered_at=row.delivered_at,
        gave_up_at=row.gave_up_at,
        last_status=row.last_status,
        last_error=row.last_error,
    )
