"""Batches in Postgres: submitted once, claimed by token at both ends, seen as they stand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta

import orjson
from sqlalchemy import Connection, text
from sqlalchemy.exc import IntegrityError

from pipeline.domain.endpoints import Endpoint
from pipeline.domain.errors import ConflictError, LeaseLostError, NotFoundError
from pipeline.domain.ids import BatchId, FileId, TenantId, new_batch_id, new_file_id
from pipeline.domain.lifecycle import BATCH_EDGES, BatchState, advance
from pipeline.domain.reasons import Reason
from pipeline.domain.windows import parse_window
from pipeline.ports.batches import (
    Admitted,
    Assembled,
    BatchClaim,
    BatchView,
    FileView,
    PartRef,
    Rejected,
    ResultFile,
    ResultSources,
    Submission,
)
from pipeline.ports.objects import StoredObject
from storage.batch_views import list_views, view_of
from storage.database import Database

_ADD_FILE = text("""
    INSERT INTO files (id, tenant_id, purpose, filename, size_bytes, sha256, object_key)
    VALUES (:file_id, :tenant_id, :purpose, :filename, :size_bytes, :sha256, :object_key)
    ON CONFLICT (object_key) DO NOTHING
""")

_ADD_BATCH = text("""
    INSERT INTO batches (id, tenant_id, state, endpoint, completion_window, tier, budget_micros, metadata,
                         idempotency_key, input_file_id, deadline_at, claim_token, claim_expires_at)
    VALUES (:batch_id, :tenant_id, 'validating', :endpoint, :completion_window, :tier, :budget_micros,
            CAST(:metadata AS jsonb), :idempotency_key, :input_file_id, now() + :window,
            -- The submitter has the first claim, so that it can take the batch in itself.
            1, clock_timestamp() + :claim_for)
    ON CONFLICT (tenant_id, idempotency_key) DO NOTHING
""")

_CLAIM = text("""
    -- Finalizing waits until no lease could still commit a row of the batch.
    WITH next AS MATERIALIZED (
        SELECT id FROM batches
         WHERE state = ANY(:states) AND (CAST(:batch_id AS text) IS NULL OR id = :batch_id)
           AND (claim_expires_at IS NULL OR claim_expires_at < clock_timestamp())
           AND (state = 'validating' OR NOT EXISTS (
                SELECT FROM pack_slices AS slices JOIN packs ON packs.id = slices.pack_id
                 WHERE slices.batch_id = batches.id AND packs.state = 'leased'))
         ORDER BY created_at, id LIMIT 1 FOR UPDATE SKIP LOCKED)
    UPDATE batches SET claim_token = claim_token + 1, claim_expires_at = clock_timestamp() + :claim_for
      FROM next, files WHERE batches.id = next.id AND files.id = batches.input_file_id
    RETURNING batches.id, batches.tenant_id, claim_token, state, endpoint, files.object_key, files.sha256
""")

_RENEW_CLAIM = text("""
    UPDATE batches SET claim_expires_at = clock_timestamp() + :claim_for
     WHERE id = :batch_id AND claim_token = :claim_token AND state = :state
""")

_RELEASE_CLAIM = text("""
    UPDATE batches SET claim_expires_at = NULL
     WHERE id = :batch_id AND claim_token = :claim_token AND state = :state
""")

_ADMIT = text("""
    UPDATE batches SET state = 'in_progress', in_progress_at = clock_timestamp(), claim_expires_at = NULL,
           reason = 'queued', reason_at = clock_timestamp(),
           rows_total = :rows_total, rows_duplicate = :rows_duplicate, rows_refused = :rows_refused,
           refusals_key = :refusals_key, refusals_sha256 = :refusals_sha256
     WHERE id = :batch_id AND claim_token = :claim_token AND state = 'validating'
""")

_REJECT = text("""
    UPDATE batches SET state = 'failed', failed_at = clock_timestamp(), claim_expires_at = NULL,
           reason = 'bad_input', reason_at = clock_timestamp(),
           rows_total = :rows_total, errors = CAST(:errors AS jsonb), errors_total = :errors_total
     WHERE id = :batch_id AND claim_token = :claim_token AND state = 'validating'
""")

_ADD_SHARD = text("""
    INSERT INTO shards (batch_id, shard_no, model, object_key, sha256, size_bytes, rows_total,
                        input_tokens_estimated, output_tokens_estimated)
    VALUES (:batch_id, :shard_no, :model, :object_key, :sha256, :size_bytes, :rows, :input_tokens, :output_tokens)
""")

_ADD_ROSTER = text("""
    INSERT INTO rosters (batch_id, roster_no, object_key, sha256, rows)
    VALUES (:batch_id, :roster_no, :object_key, :sha256, :rows)
""")

_PUBLISH = text("""
    UPDATE batches SET state = CAST(:target AS text), claim_expires_at = NULL,
           completed_at = CASE WHEN CAST(:target AS text) = 'completed' THEN clock_timestamp() END,
           expired_at = CASE WHEN CAST(:target AS text) = 'expired' THEN clock_timestamp() END,
           cancelled_at = CASE WHEN CAST(:target AS text) = 'cancelled' THEN clock_timestamp() END,
           output_file_id = :output_file_id, error_file_id = :error_file_id,
           rows_completed = :rows_completed, rows_failed = :rows_failed
     WHERE id = :batch_id AND claim_token = :claim_token AND state = :state
""")

_CANCEL = text("""
    UPDATE batches SET state = 'cancelling', cancelling_at = clock_timestamp(), claim_expires_at = NULL,
           reason = 'user_cancelled', reason_at = clock_timestamp()
     WHERE id = :batch_id AND state IN ('validating', 'in_progress')
""")

#: What the error file says of a row that never ran, by the reason the batch ended for.
_MISSING = {
    Reason.USER_CANCELLED: (
        "batch_cancelled",
        "This request could not be executed because the batch was cancelled.",
    ),
    Reason.DEADLINE_PASSED: (
        "batch_expired",
        "This request could not be executed before the completion window expired.",
    ),
}


class BatchRepository:
    """Files and batches."""

    def __init__(self, database: Database, *, claim_for: timedelta) -> None:
        """Claim batches for `claim_for` on the database's clock."""
        self._database = database
        self._claim_for = claim_for

    def add_file(
        self, tenant_id: TenantId, stored: StoredObject, *, file_id: FileId, filename: str, purpose: str = "batch"
    ) -> None:
        """Record an object as a file users can name; repeating it changes nothing."""
        row = _file_arguments(tenant_id, file_id, filename, purpose, stored)
        self._database.run(lambda connection: connection.execute(_ADD_FILE, row))

    def submit(self, submission: Submission) -> BatchView:
        """Make a batch; the same idempotency key again returns the batch it made the first time."""
        batch_id = new_batch_id()
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
            "claim_for": self._claim_for,
        }

        def work(connection: Connection) -> BatchView:
            connection.execute(_ADD_BATCH, arguments)
            made = text("SELECT id FROM batches WHERE tenant_id = :tenant_id AND idempotency_key = :idempotency_key")
            view = view_of(connection, BatchId(connection.execute(made, arguments).scalar_one()))
            _refuse_other_submission(submission, view)
            return view

        try:
            return self._database.run(work)
        except IntegrityError as error:
            raise NotFoundError(f"there is no file {submission.input_file_id}") from error

    def first_claim(self, view: BatchView) -> BatchClaim | None:
        """Return the claim that a batch is submitted with, or None where another has taken over."""
        file = self.file(view.input_file_id)
        claim = BatchClaim(
            tenant_id=view.tenant_id,
            batch_id=view.batch_id,
            claim_token=1,
            state=BatchState.VALIDATING,
            endpoint=view.endpoint,
            input_key=file.object_key,
            input_sha256=file.sha256,
        )
        try:
            self.renew_claim(claim)
        except LeaseLostError:
            return None
        return claim

    def get(self, batch_id: str) -> BatchView:
        """Return the batch as it stands, or raise `NotFoundError`."""
        return self._database.run(lambda connection: view_of(connection, BatchId(batch_id)))

    def list(self, *, limit: int, states: Sequence[BatchState] = ()) -> list[BatchView]:
        """Return the newest batches first, `limit` at most, of the given states or of all."""
        return self._database.run(lambda connection: list_views(connection, limit=limit, states=states))

    def file(self, file_id: str) -> FileView:
        """Return what is known of a file, or raise `NotFoundError`."""
        statement = text("SELECT * FROM files WHERE id = :file_id")
        row = self._database.run(lambda connection: connection.execute(statement, {"file_id": file_id}).one_or_none())
        if row is None:
            raise NotFoundError(f"there is no file {file_id}")
        return FileView(
            file_id=FileId(row.id),
            purpose=row.purpose,
            filename=row.filename,
            size_bytes=row.size_bytes,
            sha256=row.sha256,
            object_key=row.object_key,
            created_at=row.created_at,
        )

    def cancel(self, batch_id: str) -> BatchView:
        """Withdraw the batch: what runs may finish, nothing new starts. Cancelling twice is allowed."""

        def work(connection: Connection) -> BatchView:
            connection.execute(_CANCEL, {"batch_id": batch_id})
            return view_of(connection, BatchId(batch_id))

        view = self._database.run(work)
        if view.state not in {BatchState.CANCELLING, BatchState.CANCELLED}:
            raise ConflictError(f"Cannot cancel a batch with status '{view.state}'.")
        return view

    def claim(self, states: Sequence[BatchState], *, batch_id: str | None = None) -> BatchClaim | None:
        """Claim the oldest batch in one of `states` that nobody works on, or return None."""
        arguments = {"states": list(states), "batch_id": batch_id, "claim_for": self._claim_for}
        row = self._database.run(lambda connection: connection.execute(_CLAIM, arguments).one_or_none())
        if row is None:
            return None
        return BatchClaim(
            tenant_id=TenantId(row.tenant_id),
            batch_id=BatchId(row.id),
            claim_token=row.claim_token,
            state=BatchState(row.state),
            endpoint=Endpoint(row.endpoint),
            input_key=row.object_key,
            input_sha256=row.sha256,
        )

    def renew_claim(self, claim: BatchClaim) -> None:
        """Keep the claim; raises `LeaseLostError` when another holds it or the batch moved on."""
        arguments = _claim_arguments(claim) | {"claim_for": self._claim_for}
        self._guarded(claim, lambda connection: connection.execute(_RENEW_CLAIM, arguments).rowcount)

    def release_claim(self, claim: BatchClaim) -> None:
        """Give the claim back, so that another may take the batch at once."""
        arguments = _claim_arguments(claim)
        self._database.run(lambda connection: connection.execute(_RELEASE_CLAIM, arguments))

    def admit(self, claim: BatchClaim, admitted: Admitted) -> None:
        """Publish what intake wrote, and let the batch run."""
        arguments = _claim_arguments(claim) | {
            "rows_total": admitted.rows_total,
            "rows_duplicate": admitted.rows_duplicate,
            "rows_refused": admitted.rows_refused,
            "refusals_key": admitted.refusals and admitted.refusals.object_key,
            "refusals_sha256": admitted.refusals and admitted.refusals.sha256,
        }
        shards = [
            {
                "batch_id": claim.batch_id,
                "shard_no": shard.shard_no,
                "model": shard.model,
                "object_key": shard.object_key,
                "sha256": shard.sha256,
                "size_bytes": shard.size_bytes,
                "rows": shard.rows,
                "input_tokens": shard.input_tokens,
                "output_tokens": shard.output_tokens,
            }
            for shard in admitted.shards
        ]
        rosters = [
            {
                "batch_id": claim.batch_id,
                "roster_no": number,
                "object_key": roster.object_key,
                "sha256": roster.sha256,
                "rows": roster.rows,
            }
            for number, roster in enumerate(admitted.rosters)
        ]

        def work(connection: Connection) -> int:
            changed = connection.execute(_ADMIT, arguments).rowcount
            if changed and shards:
                connection.execute(_ADD_SHARD, shards)
            if changed and rosters:
                connection.execute(_ADD_ROSTER, rosters)
            return changed

        self._guarded(claim, work)

    def reject(self, claim: BatchClaim, rejected: Rejected) -> None:
        """Fail the batch with its bad lines."""
        errors = [
            {"code": error.code, "message": error.message, "param": error.param, "line": error.line}
            for error in rejected.errors
        ]
        arguments = _claim_arguments(claim) | {
            "rows_total": rejected.rows_total,
            "errors": orjson.dumps(errors).decode(),
            "errors_total": rejected.errors_total,
        }
        self._guarded(claim, lambda connection: connection.execute(_REJECT, arguments).rowcount)

    def result_sources(self, claim: BatchClaim) -> ResultSources:
        """Return all that the batch's files are made from."""
        return self._database.run(lambda connection: _result_sources(connection, claim))

    def publish(self, claim: BatchClaim, assembled: Assembled, *, rows_total: int) -> BatchState:
        """Record the batch's files and end it; returns the state it ended in."""
        if claim.state is BatchState.CANCELLING:
            target = BatchState.CANCELLED
        else:
            target = BatchState.EXPIRED if assembled.rows_missing else BatchState.COMPLETED
        advance(BATCH_EDGES, claim.state, target)
        rows_completed = assembled.output.rows if assembled.output else 0
        rows_failed = assembled.error.rows if assembled.error else 0
        assert rows_completed + rows_failed == rows_total, "every input line ends in exactly one file"

        def work(connection: Connection) -> int:
            arguments = _claim_arguments(claim) | {
                "target": target,
                "output_file_id": _add_result(connection, claim, assembled.output, "output"),
                "error_file_id": _add_result(connection, claim, assembled.error, "error"),
                "rows_completed": rows_completed,
                "rows_failed": rows_failed,
            }
            return connection.execute(_PUBLISH, arguments).rowcount

        self._guarded(claim, work)
        return target

    def _guarded(self, claim: BatchClaim, work: Callable[[Connection], int]) -> None:
        """Run a write that names the claim's token; no row changed means somebody else's turn."""

        def checked(connection: Connection) -> None:
            if not work(connection):
                raise LeaseLostError(f"claim {claim.claim_token} of {claim.batch_id} has ended")

        self._database.run(checked)


def _claim_arguments(claim: BatchClaim) -> dict[str, object]:
    return {"batch_id": claim.batch_id, "claim_token": claim.claim_token, "state": claim.state}


def _file_arguments(
    tenant_id: TenantId, file_id: FileId, filename: str, purpose: str, stored: StoredObject
) -> dict[str, object]:
    return {
        "file_id": file_id,
        "tenant_id": tenant_id,
        "purpose": purpose,
        "filename": filename,
        "size_bytes": stored.size_bytes,
        "sha256": stored.sha256,
        "object_key": stored.key,
    }


def _add_result(connection: Connection, claim: BatchClaim, result: ResultFile | None, kind: str) -> FileId | None:
    if result is None:
        return None
    file_id = new_file_id()
    stored = StoredObject(key=result.object_key, size_bytes=result.size_bytes, sha256=result.sha256)
    name = f"{claim.batch_id}_{kind}.jsonl"
    connection.execute(_ADD_FILE, _file_arguments(claim.tenant_id, file_id, name, "batch_output", stored))
    return file_id


def _refuse_other_submission(submission: Submission, view: BatchView) -> None:
    asked = (submission.endpoint, submission.completion_window, submission.tier, submission.metadata)
    if asked != (view.endpoint, view.completion_window, view.tier, view.metadata):
        raise ConflictError(
            f"idempotency key {submission.idempotency_key!r} already made {view.batch_id} with other parameters"
        )


def _result_sources(connection: Connection, claim: BatchClaim) -> ResultSources:
    batch = {"batch_id": claim.batch_id}
    rosters = text("SELECT object_key, sha256 FROM rosters WHERE batch_id = :batch_id ORDER BY roster_no")
    shards = text("SELECT rows_total FROM shards WHERE batch_id = :batch_id ORDER BY shard_no")
    parts = text("SELECT object_key, sha256 FROM parts WHERE batch_id = :batch_id ORDER BY id")
    own = text("SELECT reason, refusals_key, refusals_sha256 FROM batches WHERE id = :batch_id")
    row = connection.execute(own, batch).one()
    missing = _MISSING.get(Reason(row.reason), ("batch_failed", "This request has no result."))
    return ResultSources(
        rosters=tuple(PartRef(object_key=key, sha256=sha256) for key, sha256 in connection.execute(rosters, batch)),
        shard_rows=tuple(connection.execute(shards, batch).scalars()),
        refusals=row.refusals_key and PartRef(object_key=row.refusals_key, sha256=row.refusals_sha256),
        parts=tuple(PartRef(object_key=key, sha256=sha256) for key, sha256 in connection.execute(parts, batch)),
        missing_code=missing[0],
        missing_message=missing[1],
    )
