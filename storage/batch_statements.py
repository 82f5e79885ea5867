"""The statements that change batches and files; what they are for is in `storage.batches`."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Select, select, text
from sqlalchemy.orm import InstrumentedAttribute

from pipeline.domain.lifecycle import BatchState
from pipeline.ports.batches import BatchClaim
from storage.tables import BatchRow

SAME_INPUT = text("""
    SELECT asked.sha256 = made.sha256 FROM files AS asked, files AS made
     WHERE asked.id = :asked_id AND asked.tenant_id = :tenant_id AND made.id = :made_id
""")

ADD_BATCH = text("""
    WITH source AS MATERIALIZED (
        -- The lock keeps it from being deleted before the batch is seen that needs it.
        SELECT id FROM files WHERE id = :input_file_id AND tenant_id = :tenant_id AND project_id = :project_id
           AND deleted_at IS NULL AND (expires_at IS NULL OR expires_at > now()) FOR KEY SHARE)
    INSERT INTO batches (id, tenant_id, project_id, created_by, state, endpoint, completion_window, tier, priority,
                         budget_micros, metadata, labels, idempotency_key, input_file_id, source_file_id,
                         retry_of, output_kept_seconds, deadline_at, hold_until, must_promise, claim_token, claim_expires_at)
    SELECT :batch_id, :tenant_id, :project_id, :created_by, 'validating', :endpoint, :completion_window, :tier, :priority,
           :budget_micros, CAST(:metadata AS jsonb), CAST(:labels AS jsonb), :idempotency_key, :input_file_id,
           (SELECT id FROM source), :retry_of, :output_kept_seconds, now() + :window, :hold_until, :must_promise,
           -- The submitter has the first claim, so that it can take the batch in itself.
           1, clock_timestamp() + :claim_for
     WHERE :may_lack_file OR EXISTS (SELECT FROM source)
    ON CONFLICT (tenant_id, idempotency_key) DO NOTHING
""")

CLAIM = text("""
    -- Finalizing waits until no lease could still commit a row of the batch.
    WITH next AS MATERIALIZED (
        SELECT id, source_file_id, retry_of FROM batches
         -- What may be claimed at all is said in words too: the index of live batches needs to know it.
         WHERE state IN ('validating', 'in_progress', 'finalizing', 'cancelling') AND state = ANY(:states)
           AND (CAST(:batch_id AS text) IS NULL OR id = :batch_id)
           AND (claim_expires_at IS NULL OR claim_expires_at < clock_timestamp())
           AND (state = 'validating' OR NOT EXISTS (
                SELECT FROM pack_slices AS slices JOIN packs ON packs.id = slices.pack_id
                 WHERE slices.batch_id = batches.id AND packs.state = 'leased'))
         ORDER BY created_at, id LIMIT 1 FOR UPDATE SKIP LOCKED)
    UPDATE batches SET claim_token = batches.claim_token + 1, claim_expires_at = clock_timestamp() + :claim_for
      FROM next
      LEFT JOIN files ON files.id = next.source_file_id
      LEFT JOIN batches AS retried ON retried.id = next.retry_of
      LEFT JOIN files AS failures ON failures.id = retried.error_file_id
     WHERE batches.id = next.id
    RETURNING batches.id, batches.tenant_id, batches.project_id, batches.claim_token, batches.claim_failures,
              batches.state, batches.endpoint, batches.input_file_id, batches.output_kept_seconds, batches.retry_of,
              files.object_key, files.sha256, files.filename, files.purpose,
              failures.object_key AS failures_key, failures.sha256 AS failures_sha256
""")

FIRST_CLAIM = text("""
    SELECT batches.id, batches.tenant_id, batches.project_id, 1 AS claim_token, 0 AS claim_failures,
           'validating' AS state, endpoint, input_file_id, output_kept_seconds, retry_of,
           files.object_key, files.sha256, files.filename, files.purpose,
           -- Who submits does not retry: that is taken in by the scheduler.
           NULL AS failures_key, NULL AS failures_sha256
      FROM batches LEFT JOIN files ON files.id = source_file_id WHERE batches.id = :batch_id
""")

HOLD_CLAIM = text("""
    SELECT 1 FROM batches WHERE id = :batch_id AND claim_token = :claim_token AND state = :state FOR NO KEY UPDATE
""")

RENEW_CLAIM = text("""
    UPDATE batches SET claim_expires_at = clock_timestamp() + :claim_for
     WHERE id = :batch_id AND claim_token = :claim_token AND state = :state
""")

RELEASE_CLAIM = text("""
    UPDATE batches SET claim_expires_at = NULL
     WHERE id = :batch_id AND claim_token = :claim_token AND state = :state
""")

FAIL_CLAIM = text("""
    -- Nobody claims the batch for a while, twice as long each time, so that it does not stand in the way of others.
    UPDATE batches SET claim_failures = claim_failures + 1, claim_error = :error,
           claim_expires_at = clock_timestamp() + least(make_interval(secs => power(2, least(claim_failures, 10))), :pause_max)
     WHERE id = :batch_id AND claim_token = :claim_token AND state = :state
""")

ADMIT = text("""
    UPDATE batches SET state = 'in_progress', in_progress_at = clock_timestamp(), claim_expires_at = NULL, claim_failures = 0, claim_error = NULL,
           reason = 'queued', reason_at = clock_timestamp(),
           rows_total = :rows_total, rows_duplicate = :rows_duplicate, rows_refused = :rows_refused,
           refusals_key = :refusals_key, refusals_sha256 = :refusals_sha256
     WHERE id = :batch_id AND claim_token = :claim_token AND state = 'validating'
""")

REJECT = text("""
    UPDATE batches SET state = 'failed', failed_at = clock_timestamp(), claim_expires_at = NULL, claim_failures = 0, claim_error = NULL,
           reason = 'bad_input', reason_at = clock_timestamp(),
           rows_total = :rows_total, errors = CAST(:errors AS jsonb), errors_total = :errors_total
     WHERE id = :batch_id AND claim_token = :claim_token AND state = 'validating'
""")

ADD_SHARD = text("""
    INSERT INTO shards (batch_id, shard_no, model, object_key, sha256, size_bytes, rows_total,
                        input_tokens_estimated, output_tokens_estimated, template)
    VALUES (:batch_id, :shard_no, :model, :object_key, :sha256, :size_bytes, :rows, :input_tokens, :output_tokens,
            :template)
""")

ADD_ROSTER = text("""
    INSERT INTO rosters (batch_id, roster_no, object_key, sha256, rows)
    VALUES (:batch_id, :roster_no, :object_key, :sha256, :rows)
""")

PUBLISH = text("""
    UPDATE batches SET state = CAST(:target AS text), claim_expires_at = NULL, claim_failures = 0, claim_error = NULL,
           completed_at = CASE WHEN CAST(:target AS text) = 'completed' THEN clock_timestamp() END,
           expired_at = CASE WHEN CAST(:target AS text) = 'expired' THEN clock_timestamp() END,
           cancelled_at = CASE WHEN CAST(:target AS text) = 'cancelled' THEN clock_timestamp() END,
           output_file_id = :output_file_id, error_file_id = :error_file_id,
           rows_completed = :rows_completed, rows_failed = :rows_failed
     WHERE id = :batch_id AND claim_token = :claim_token AND state = :state
""")

CANCEL = text("""
    UPDATE batches SET state = 'cancelling', cancelling_at = clock_timestamp(), claim_expires_at = NULL, claim_failures = 0, claim_error = NULL,
           reason = 'user_cancelled', reason_at = clock_timestamp()
     WHERE id = :batch_id AND state IN ('validating', 'in_progress')
""")

GIVE_UP = text("""
    UPDATE batches SET state = CAST(:target AS text), claim_expires_at = NULL, claim_failures = 0, claim_error = NULL,
           failed_at = CASE WHEN CAST(:target AS text) = 'failed' THEN clock_timestamp() END,
           cancelled_at = CASE WHEN CAST(:target AS text) = 'cancelled' THEN clock_timestamp() END,
           reason = 'results_lost', reason_at = clock_timestamp(),
           errors = CAST(:errors AS jsonb), errors_total = :errors_total
     WHERE id = :batch_id AND claim_token = :claim_token AND state = :state
""")

DECIDE = text("INSERT INTO decisions (batch_id, reason) SELECT id, reason FROM batches WHERE id = :batch_id")


def entered_under(claim: BatchClaim, state: BatchState) -> Select[datetime]:
    """Return the query that finds the batch if this very claim has brought it to `state` before."""
    entered_at: InstrumentedAttribute[datetime] = getattr(BatchRow, f"{state}_at")
    return select(entered_at).where(
        BatchRow.id == claim.batch_id, BatchRow.claim_token == claim.claim_token, entered_at.is_not(None)
    )
