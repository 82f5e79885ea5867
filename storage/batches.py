"""Batches in Postgres: submitted once, claimed by token at both ends, seen as they stand."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from datetime import timedelta
from typing import Any, Final

import orjson
from sqlalchemy import Connection, Row, select

from pipeline.domain.endpoints import Endpoint
from pipeline.domain.errors import LeaseLostError
from pipeline.domain.files import FilePurpose
from pipeline.domain.ids import BatchId, FileId, ProjectId, TenantId, new_batch_id, new_file_id
from pipeline.domain.lifecycle import BATCH_EDGES, BatchState, advance
from pipeline.domain.plans import BUILT_IN_BOOK, PlanBook
from pipeline.domain.ranges import Ranges
from pipeline.domain.reasons import Reason
from pipeline.ports.batches import (
    Admitted,
    Assembled,
    BatchClaim,
    BatchView,
    LineError,
    PartRef,
    Rejected,
    ResultFile,
    ResultSources,
    SourceFile,
    Steering,
    Submission,
)
from pipeline.ports.files import FileDraft
from pipeline.ports.objects import StoredObject
from storage.batch_statements import (
    ADD_ROSTER,
    ADD_SHARD,
    ADMIT,
    CLAIM,
    DECIDE,
    FAIL_CLAIM,
    FIRST_CLAIM,
    GIVE_UP,
    HOLD_CLAIM,
    PUBLISH,
    REJECT,
    RELEASE_CLAIM,
    RENEW_CLAIM,
    entered_under,
)
from storage.batch_views import list_views, result_sources, rows_of_part, view_of
from storage.database import Database
from storage.files import add_file
from storage.quotas import add_batch_within, reserve
from storage.steering import cancel, steer
from storage.tables import BatchRow
from storage.wakeups import send_wakeup

#: Longest rest of a batch between two tries at taking it in or writing its files.
_PAUSE_MAX: Final = timedelta(seconds=60)


class BatchRepository:
    """Files and batches."""

    def __init__(self, database: Database, *, claim_for: timedelta, plans: PlanBook = BUILT_IN_BOOK) -> None:
        """Claim batches for `claim_for` on the database's clock; admit them as tenants' plans allow."""
        self._database = database
        self._claim_for = claim_for
        self._plans = plans

    def submit(self, submission: Submission) -> BatchView:
        """Make a batch; the same idempotency key again returns the batch it made the first time.

        Raises `TierNotAllowedError` and `BatchLimitError` where the tenant's plan has no room for it.
        """
        batch_id = new_batch_id()
        return self._database.run(
            lambda connection: add_batch_within(connection, self._plans, submission, batch_id, self._claim_for)
        )

    def made_by(self, tenant_id: TenantId, idempotency_key: str) -> BatchId | None:
        """Return the batch that a key has made, or None."""
        made = select(BatchRow.id).where(BatchRow.tenant_id == tenant_id, BatchRow.idempotency_key == idempotency_key)
        found = self._database.run(lambda connection: connection.execute(made).scalar_one_or_none())
        return None if found is None else BatchId(found)

    def first_claim(self, view: BatchView) -> BatchClaim | None:
        """Return the claim that a batch is submitted with, or None where another has taken over."""
        batch = {"batch_id": view.batch_id}
        claim = _to_claim(self._database.run(lambda connection: connection.execute(FIRST_CLAIM, batch).one()))
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

    def cancel(self, batch_id: str) -> BatchView:
        """Withdraw the batch: what runs may finish, nothing new starts. Cancelling twice is allowed."""
        return self._database.run(lambda connection: cancel(connection, BatchId(batch_id)))

    def steer(self, batch_id: str, steering: Steering) -> BatchView:
        """Change a batch on its way; raises `ConflictError` when it has ended or is about to."""
        return self._database.run(lambda connection: steer(connection, BatchId(batch_id), steering, self._plans))

    def claim(self, states: Sequence[BatchState], *, batch_id: str | None = None) -> BatchClaim | None:
        """Claim the oldest batch in one of `states` that nobody works on, or return None."""
        arguments = {"states": list(states), "batch_id": batch_id, "claim_for": self._claim_for}
        row = self._database.run(lambda connection: connection.execute(CLAIM, arguments).one_or_none())
        return None if row is None else _to_claim(row)

    def renew_claim(self, claim: BatchClaim) -> None:
        """Keep the claim; raises `LeaseLostError` when another holds it or the batch moved on."""
        arguments = _claim_arguments(claim) | {"claim_for": self._claim_for}

        def work(connection: Connection) -> None:
            if not connection.execute(RENEW_CLAIM, arguments).rowcount:
                raise _claim_ended(claim)

        self._database.run(work)

    def release_claim(self, claim: BatchClaim) -> None:
        """Give the claim back, so that another may take the batch at once."""

        def work(connection: Connection) -> None:
            connection.execute(RELEASE_CLAIM, _claim_arguments(claim))
            send_wakeup(connection)

        self._database.run(work)

    def fail_claim(self, claim: BatchClaim, error: str) -> None:
        """Give the claim back after a failure; the batch rests before the next try, which hears of it."""
        arguments = _claim_arguments(claim) | {"error": error, "pause_max": _PAUSE_MAX}
        self._database.run(lambda connection: connection.execute(FAIL_CLAIM, arguments))

    def admit(self, claim: BatchClaim, admitted: Admitted) -> BatchState:
        """Publish what intake wrote, and let the batch run, or fail it where its tenant's plan has no room for it.

        Returns the state that the batch is in.
        """
        arguments = _claim_arguments(claim) | {
            "rows_total": admitted.rows_total,
            "rows_duplicate": admitted.rows_duplicate,
            "rows_refused": admitted.rows_refused,
            "refusals_key": admitted.refusals and admitted.refusals.object_key,
            "refusals_sha256": admitted.refusals and admitted.refusals.sha256,
        }
        shards, rosters = _shard_arguments(claim, admitted), _roster_arguments(claim, admitted)
        # A refusal whose answer was lost is heard of as a lost claim: either way this process is done with the batch.
        entered = BatchState.IN_PROGRESS

        def work(connection: Connection) -> None:
            nonlocal entered
            refusal = reserve(connection, self._plans, claim, admitted)
            entered = BatchState.IN_PROGRESS if refusal is None else BatchState.FAILED
            if refusal is not None:
                rejected = Rejected(errors=(refusal,), errors_total=1, rows_total=admitted.rows_total)
                _fail(connection, claim, rejected, Reason.QUOTA_REACHED)
                return
            connection.execute(ADMIT, arguments)
            if shards:
                connection.execute(ADD_SHARD, shards)
            if rosters:
                connection.execute(ADD_ROSTER, rosters)
            connection.execute(DECIDE, {"batch_id": claim.batch_id})
            send_wakeup(connection)

        self._move(claim, BatchState.IN_PROGRESS, work)
        return entered

    def reject(self, claim: BatchClaim, rejected: Rejected) -> None:
        """Fail the batch with its bad lines."""

        def work(connection: Connection) -> None:
            _fail(connection, claim, rejected, Reason.BAD_INPUT)

        self._move(claim, BatchState.FAILED, work)

    def give_up(self, claim: BatchClaim, error: LineError) -> BatchState:
        """End the batch without files, because what they are made from is lost; returns the state it ended in."""
        target = BatchState.CANCELLED if claim.state is BatchState.CANCELLING else BatchState.FAILED
        advance(BATCH_EDGES, claim.state, target)
        arguments = _claim_arguments(claim) | {
            "target": target,
            "errors": _errors_document([error]),
            "errors_total": 1,
        }

        def work(connection: Connection) -> None:
            connection.execute(GIVE_UP, arguments)
            connection.execute(DECIDE, {"batch_id": claim.batch_id})

        self._move(claim, target, work)
        return target

    def rows_of_part(self, part: PartRef) -> Sequence[tuple[int, Ranges]]:
        """Return which rows (shard number, positions) a part holds, from the books."""
        return self._database.run(lambda connection: rows_of_part(connection, part.object_key))

    def result_sources(self, claim: BatchClaim) -> ResultSources:
        """Return all that the batch's files are made from."""
        return self._database.run(lambda connection: result_sources(connection, claim.batch_id))

    def committed(self, batch_id: BatchId) -> ResultSources:
        """Return what the results that a batch has by now are made from."""
        return self._database.run(lambda connection: result_sources(connection, batch_id))

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

        def work(connection: Connection) -> None:
            arguments = _claim_arguments(claim) | {
                "target": target,
                "output_file_id": _add_result(connection, claim, assembled.output, "output"),
                "error_file_id": _add_result(connection, claim, assembled.error, "error"),
                "rows_completed": rows_completed,
                "rows_failed": rows_failed,
            }
            connection.execute(PUBLISH, arguments)

        self._move(claim, target, work)
        return target

    def _move(self, claim: BatchClaim, target: BatchState, work: Callable[[Connection], None]) -> None:
        """Run the writes that bring the batch to `target`, if the claim's token still is the batch's."""

        def checked(connection: Connection) -> None:
            # The lock before the look: the first try of this very move may still be on its way.
            held = connection.execute(HOLD_CLAIM, _claim_arguments(claim)).one_or_none()
            # An answer may have been lost on the way back: what this claim did before is a success.
            if connection.execute(entered_under(claim, target)).one_or_none() is not None:
                return
            if held is None:
                raise _claim_ended(claim)
            work(connection)

        self._database.run(checked)


def _fail(connection: Connection, claim: BatchClaim, rejected: Rejected, reason: Reason) -> None:
    arguments = _claim_arguments(claim) | {
        "reason": reason,
        "rows_total": rejected.rows_total,
        "errors": _errors_document(rejected.errors),
        "errors_total": rejected.errors_total,
    }
    connection.execute(REJECT, arguments)
    connection.execute(DECIDE, {"batch_id": claim.batch_id})


def _to_claim(row: Row[Any]) -> BatchClaim:
    return BatchClaim(
        tenant_id=TenantId(row.tenant_id),
        project_id=ProjectId(row.project_id),
        batch_id=BatchId(row.id),
        claim_token=row.claim_token,
        failures=row.claim_failures,
        state=BatchState(row.state),
        endpoint=Endpoint(row.endpoint),
        input_file_id=row.input_file_id,
        source=None
        if row.object_key is None
        else SourceFile(
            object_key=row.object_key,
            sha256=row.sha256,
            filename=row.filename,
            purpose=FilePurpose(row.purpose),
        ),
        output_kept_seconds=row.output_kept_seconds,
        retry_of=row.retry_of and BatchId(row.retry_of),
        rows_again=None
        if row.failures_key is None
        else PartRef(object_key=row.failures_key, sha256=row.failures_sha256),
    )


def _shard_arguments(claim: BatchClaim, admitted: Admitted) -> list[dict[str, object]]:
    return [
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
            "template": shard.template,
        }
        for shard in admitted.shards
    ]


def _roster_arguments(claim: BatchClaim, admitted: Admitted) -> list[dict[str, object]]:
    return [
        {
            "batch_id": claim.batch_id,
            "roster_no": number,
            "object_key": roster.object_key,
            "sha256": roster.sha256,
            "rows": roster.rows,
        }
        for number, roster in enumerate(admitted.rosters)
    ]


def _claim_ended(claim: BatchClaim) -> LeaseLostError:
    return LeaseLostError(f"claim {claim.claim_token} of {claim.batch_id} has ended")


def _claim_arguments(claim: BatchClaim) -> dict[str, object]:
    return {"batch_id": claim.batch_id, "claim_token": claim.claim_token, "state": claim.state}


def _errors_document(errors: Iterable[LineError]) -> str:
    return orjson.dumps([asdict(error) for error in errors]).decode()


def _add_result(connection: Connection, claim: BatchClaim, result: ResultFile | None, kind: str) -> FileId | None:
    if result is None:
        return None
    file_id = new_file_id()
    stored = StoredObject(key=result.object_key, size_bytes=result.size_bytes, sha256=result.sha256)
    draft = FileDraft(
        file_id=file_id,
        stored=stored,
        filename=f"{claim.batch_id}_{kind}.jsonl",
        purpose=FilePurpose.BATCH_OUTPUT,
        tenant_id=claim.tenant_id,
        project_id=claim.project_id,
        kept_seconds=claim.output_kept_seconds,
    )
    add_file(connection, draft)
    return file_id
