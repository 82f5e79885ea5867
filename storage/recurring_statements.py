"""The statements on recurring batches; what they are for is in `storage.recurring` and `storage.firings`."""

from __future__ import annotations

from typing import Final

from sqlalchemy import text

ADD: Final = text("""
    INSERT INTO recurring (id, tenant_id, name, cron, zone, input_template, output_template, endpoint, tier,
                           completion_window, budget_micros, metadata, overlap, catch_up, catch_up_max, next_at)
    VALUES (:id, :tenant_id, :name, :cron, :zone, :input_template, :output_template, :endpoint, :tier,
            :completion_window, :budget_micros, CAST(:metadata AS jsonb), :overlap, :catch_up, :catch_up_max, :next_at)
    ON CONFLICT (tenant_id, name) WHERE removed_at IS NULL DO NOTHING
""")

NAMED: Final = text("SELECT * FROM recurring WHERE tenant_id = :tenant_id AND name = :name AND removed_at IS NULL")
LIVE: Final = text("SELECT * FROM recurring WHERE tenant_id = :tenant_id AND removed_at IS NULL ORDER BY name")

PAUSE: Final = text("""
    UPDATE recurring SET paused_at = coalesce(paused_at, clock_timestamp()) WHERE id = :id AND removed_at IS NULL
""")

RESUME: Final = text("""
    -- What would have fired meanwhile is not made up for: that is what a pause is.
    UPDATE recurring SET paused_at = NULL, next_at = greatest(next_at, :next_at)
     WHERE id = :id AND paused_at IS NOT NULL AND removed_at IS NULL
""")

REMOVE: Final = text("""
    WITH removed AS (
        UPDATE recurring SET removed_at = clock_timestamp() WHERE id = :id AND removed_at IS NULL RETURNING id)
    UPDATE firings SET outcome = 'failed', reason = 'The recurring batch was removed before this one was submitted.'
      FROM removed WHERE firings.recurring_id = removed.id AND outcome IS NULL
""")

ADD_MANUAL: Final = text("""
    INSERT INTO firings (recurring_id, scheduled_at, is_manual)
    SELECT id, :scheduled_at, true FROM recurring WHERE id = :id AND removed_at IS NULL
    ON CONFLICT DO NOTHING
""")

FIRINGS: Final = """
    SELECT firings.*, batches.state AS batch_state
      FROM firings LEFT JOIN batches ON batches.id = firings.batch_id
"""
HISTORY: Final = text(FIRINGS + "WHERE recurring_id = :id ORDER BY scheduled_at DESC LIMIT :limit")
ONE_FIRING: Final = text(FIRINGS + "WHERE recurring_id = :id AND scheduled_at = :scheduled_at")

DUE: Final = text("""
    SELECT recurring.*, waiting.number AS waiting
      FROM recurring, LATERAL (
        SELECT count(*) AS number FROM firings
         WHERE recurring_id = recurring.id AND outcome IS NULL AND NOT is_manual) AS waiting
     WHERE removed_at IS NULL AND paused_at IS NULL AND next_at <= :now
     ORDER BY next_at, id LIMIT :limit
""")

ADVANCE: Final = text("""
    UPDATE recurring SET next_at = :next_at
     WHERE id = :id AND next_at = :planned_at AND removed_at IS NULL AND paused_at IS NULL
""")

ADD_FIRING: Final = text("""
    -- Whatever else goes wrong, the key lets an instant fire once.
    INSERT INTO firings (recurring_id, scheduled_at, outcome, reason)
    VALUES (:id, :scheduled_at, :outcome, :reason) ON CONFLICT DO NOTHING
""")

OPEN: Final = text("""
    -- Of each recurring batch the earliest that is not resting, and all that people asked for.
    WITH open AS (
        SELECT firings.recurring_id, firings.scheduled_at,
               row_number() OVER (PARTITION BY firings.recurring_id, is_manual ORDER BY scheduled_at) AS turn
          FROM firings JOIN recurring ON recurring.id = firings.recurring_id
         WHERE outcome IS NULL AND removed_at IS NULL AND (is_manual OR paused_at IS NULL)
           AND (retry_at IS NULL OR retry_at <= :now)),
    running AS (
        -- From the batches that are on their way: they are few, however long the history.
        SELECT recurring_id, min(batch_id) AS batch_id FROM firings JOIN batches ON batches.id = firings.batch_id
         WHERE batches.state IN ('validating', 'in_progress', 'finalizing', 'cancelling') GROUP BY recurring_id)
    SELECT firings.*, NULL AS batch_state, running.batch_id AS running_batch_id,
           recurring.tenant_id, recurring.name, recurring.cron, recurring.zone, recurring.input_template,
           recurring.output_template, recurring.endpoint, recurring.tier, recurring.completion_window,
           recurring.budget_micros, recurring.metadata, recurring.overlap, recurring.catch_up, recurring.catch_up_max
      FROM open
      JOIN firings USING (recurring_id, scheduled_at)
      JOIN recurring ON recurring.id = firings.recurring_id
      LEFT JOIN running ON running.recurring_id = firings.recurring_id
     WHERE (is_manual OR turn = 1) AND (is_manual OR overlap <> 'queue' OR running.batch_id IS NULL)
     ORDER BY firings.scheduled_at, firings.recurring_id LIMIT :limit
""")

HOLD_FIRING: Final = text("""
    SELECT batch_id FROM firings
     WHERE recurring_id = :id AND scheduled_at = :scheduled_at AND (outcome IS NULL OR outcome = 'submitted')
       FOR NO KEY UPDATE
""")

SUBMITTED: Final = text("""
    UPDATE firings SET outcome = 'submitted', reason = NULL, batch_id = :batch_id, output_path = :output_path
     WHERE recurring_id = :id AND scheduled_at = :scheduled_at AND outcome IS NULL
""")

SETTLE: Final = text("""
    UPDATE firings SET outcome = :outcome, reason = :reason, tries = :tries
     WHERE recurring_id = :id AND scheduled_at = :scheduled_at AND outcome IS NULL
""")

POSTPONE: Final = text("""
    UPDATE firings SET reason = :reason, tries = :tries, retry_at = :retry_at
     WHERE recurring_id = :id AND scheduled_at = :scheduled_at AND outcome IS NULL
""")

UNDELIVERED: Final = text("""
    SELECT recurring_id, scheduled_at, output_path, batch_id, delivery_tries
      FROM firings JOIN batches ON batches.id = firings.batch_id
     WHERE output_path IS NOT NULL AND delivered_at IS NULL AND delivery_tries < :tries_max
       AND (deliver_at IS NULL OR deliver_at <= :now) AND state IN ('completed', 'failed', 'expired', 'cancelled')
     ORDER BY scheduled_at, recurring_id LIMIT :limit
""")

DELIVERED: Final = text("""
    UPDATE firings SET delivered_at = clock_timestamp(), delivery_trouble = NULL
     WHERE recurring_id = :id AND scheduled_at = :scheduled_at AND delivered_at IS NULL
""")

FAIL_DELIVERY: Final = text("""
    UPDATE firings SET delivery_trouble = :trouble, delivery_tries = :tries, deliver_at = :deliver_at
     WHERE recurring_id = :id AND scheduled_at = :scheduled_at AND delivered_at IS NULL
""")
