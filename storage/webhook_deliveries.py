"""The sender's side of webhooks: tries claimed one by one, and what came of them; progress noticed, history swept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection, Row, text

from pipeline.domain.ids import EventId, WebhookId
from pipeline.domain.limits import WEBHOOK_CLAIM_SECONDS, WEBHOOK_SENDERS_PER_WEBHOOK
from pipeline.domain.webhooks import PROGRESS_STEPS, EventType
from pipeline.ports.webhooks import DueDelivery, TryOutcome
from storage.database import Database
from storage.webhooks import GIVE_UP

CLAIM: Final = text("""
    -- Of each webhook a few, so that one with many due, or a slow one, leaves room for the others; which webhook comes
    -- first is a matter of whose delivery has been due the longest.
    WITH due AS MATERIALIZED (
        SELECT deliveries.webhook_id, deliveries.event_id
          FROM webhooks
          LEFT JOIN unnest(CAST(:busy_ids AS text[]), CAST(:busy_counts AS int[])) AS busy (id, tries)
            ON busy.id = webhooks.id
         CROSS JOIN LATERAL (
            SELECT webhook_id, event_id, next_at FROM webhook_deliveries
             WHERE webhook_id = webhooks.id AND delivered_at IS NULL AND gave_up_at IS NULL AND next_at <= :now
             ORDER BY next_at LIMIT greatest(CAST(:each_max AS int) - coalesce(busy.tries, 0), 0)
               FOR UPDATE SKIP LOCKED) AS deliveries
         WHERE webhooks.disabled_at IS NULL
         ORDER BY deliveries.next_at LIMIT :limit),
    claimed AS (
        UPDATE webhook_deliveries AS deliveries
           SET claim_token = claim_token + 1, next_at = :now + CAST(:claim_for AS interval)
          FROM due WHERE deliveries.webhook_id = due.webhook_id AND deliveries.event_id = due.event_id
        RETURNING deliveries.webhook_id, deliveries.event_id, deliveries.claim_token, deliveries.tries)
    SELECT claimed.*, webhooks.url, webhooks.secret, webhooks.failing_since,
           CASE WHEN previous_until > :now THEN previous_secret END AS previous_secret,
           events.type, events.created_at, events.data
      FROM claimed
      JOIN webhooks ON webhooks.id = claimed.webhook_id
      JOIN webhook_events AS events ON events.id = claimed.event_id
""")
RECORD: Final = text("""
    UPDATE webhook_deliveries
       SET tries = :tries, tried_at = CAST(:at AS timestamptz), last_status = CAST(:status AS int),
           last_error = CAST(:error AS text),
           delivered_at = CASE WHEN CAST(:error AS text) IS NULL THEN CAST(:at AS timestamptz) END,
           gave_up_at = CASE WHEN CAST(:error AS text) IS NOT NULL AND CAST(:next_at AS timestamptz) IS NULL
                             THEN CAST(:at AS timestamptz) END,
           next_at = coalesce(CAST(:next_at AS timestamptz), next_at)
     WHERE webhook_id = :webhook_id AND event_id = :event_id AND claim_token = :claim_token
""")
_ARRIVED: Final = text("UPDATE webhooks SET failing_since = NULL WHERE id = :webhook_id AND failing_since IS NOT NULL")
_FAILED: Final = text(
    "UPDATE webhooks SET failing_since = CAST(:at AS timestamptz) WHERE id = :webhook_id AND failing_since IS NULL"
)
_DISABLE: Final = text("""
    UPDATE webhooks SET disabled_at = CAST(:at AS timestamptz), disabled_reason = :reason WHERE id = :webhook_id AND disabled_at IS NULL
""")
#: Whoever wants none of it pays for a look at a small table.
PROGRESS: Final = text("""
    WITH moving AS MATERIALIZED (
        SELECT batches.id, batches.tenant_id, batches.project_id, batches.rows_total, batches.rows_refused,
               done.rows_succeeded, done.rows_errored, step
          FROM (SELECT DISTINCT tenant_id FROM webhooks
                 WHERE disabled_at IS NULL AND 'batch.progress' = ANY(event_types)) AS wanting
          JOIN batches ON batches.tenant_id = wanting.tenant_id AND batches.state = 'in_progress'
         CROSS JOIN LATERAL (
            SELECT sum(rows_succeeded) AS rows_succeeded, sum(rows_errored) AS rows_errored, sum(rows_total) AS rows_total
              FROM shards WHERE shards.batch_id = batches.id) AS done
         CROSS JOIN LATERAL (
            -- The highest alone: those below it are no news.
            SELECT max(step) AS step FROM unnest(CAST(:steps AS int[])) AS steps (step)
             WHERE (done.rows_succeeded + done.rows_errored) * 100 >= step * done.rows_total) AS reached
         WHERE step IS NOT NULL
           AND NOT EXISTS (SELECT FROM webhook_events AS told
                            WHERE told.batch_id = batches.id AND told.step >= reached.step))
    SELECT count(tell_webhooks_v1(tenant_id, project_id, id, 'batch.progress', step, jsonb_build_object(
               'id', id, 'progress', step, 'request_counts', jsonb_build_object(
                   'total', rows_total, 'completed', rows_succeeded, 'failed', rows_errored + rows_refused))))
      FROM moving
""")
SWEEP: Final = text("""
    WITH old AS MATERIALIZED (
        SELECT id FROM webhook_events WHERE created_at < now() - CAST(:kept_for AS interval)
         ORDER BY created_at LIMIT :limit)
    DELETE FROM webhook_events USING old WHERE webhook_events.id = old.id
""")


class DeliveryRepository:
    """What is to be told to webhooks. Safe to share between threads."""

    def __init__(self, database: Database) -> None:
        """Find it in `database`."""
        self._database = database

    def claim(self, now: datetime, *, limit: int, busy: Mapping[WebhookId, int]) -> Sequence[DueDelivery]:
        """Claim up to `limit` tries that are due; without word of them they are due again in a minute.

        Args:
            now: What is due by then.
            limit: How many at most.
            busy: How many tries are under way already, by webhook.
        """
        arguments = {
            "now": now,
            "limit": limit,
            "busy_ids": list(busy),
            "busy_counts": list(busy.values()),
            "each_max": WEBHOOK_SENDERS_PER_WEBHOOK,
            "claim_for": timedelta(seconds=WEBHOOK_CLAIM_SECONDS),
        }
        rows = self._database.run(lambda connection: connection.execute(CLAIM, arguments).all())
        return [_to_due(row) for row in rows]

    def record(self, delivery: DueDelivery, outcome: TryOutcome) -> bool:
        """Record what came of a claimed try; False where the claim has passed to another, and nothing is recorded."""
        arguments = {
            "webhook_id": delivery.webhook_id,
            "event_id": delivery.event_id,
            "claim_token": delivery.claim_token,
            "tries": delivery.tries + 1,
            "at": outcome.at,
            "status": outcome.status,
            "error": outcome.error,
            "next_at": outcome.next_at,
            "reason": outcome.disable,
        }

        def work(connection: Connection) -> bool:
            if not connection.execute(RECORD, arguments).rowcount:
                return False
            connection.execute(_ARRIVED if outcome.error is None else _FAILED, arguments)
            if outcome.disable is not None:
                connection.execute(_DISABLE, arguments)
                connection.execute(GIVE_UP, arguments)
            return True

        return self._database.run(work)

    def tell_progress(self) -> int:
        """Write the progress events of batches that got far enough; returns how many."""
        arguments = {"steps": list(PROGRESS_STEPS)}
        return int(self._database.run(lambda connection: connection.execute(PROGRESS, arguments).scalar_one()))

    def sweep(self, *, kept_for: timedelta, limit: int) -> int:
        """Delete the oldest of the events from before `kept_for`, with their deliveries; returns how many."""
        arguments = {"kept_for": kept_for, "limit": limit}
        return self._database.run(lambda connection: connection.execute(SWEEP, arguments).rowcount)


def _to_due(row: Row[Any]) -> DueDelivery:
    return DueDelivery(
        event_id=EventId(row.event_id),
        webhook_id=WebhookId(row.webhook_id),
        claim_token=row.claim_token,
        tries=row.tries,
        url=row.url,
        secrets=(row.secret,) if row.previous_secret is None else (row.secret, row.previous_secret),
        event_type=EventType(row.type),
        created_at=row.created_at,
        data=row.data,
        failing_since=row.failing_since,
    )
