"""`/v1/batches/{id}`: what users do to batches on their way."""

from __future__ import annotations

from datetime import UTC, datetime

from anyio import to_thread
from fastapi import APIRouter, Request
from fastapi.responses import Response

from pipeline.domain.money import micros_of
from pipeline.domain.windows import parse_window
from pipeline.entrypoints.http import schemas
from pipeline.entrypoints.http.batches import IdempotencyKey, looked_up
from pipeline.entrypoints.http.batches import Steering as SteeringKey
from pipeline.entrypoints.http.documents import answer, batch_document
from pipeline.entrypoints.http.errors import ApiError
from pipeline.entrypoints.http.service import service_of
from pipeline.entrypoints.http.steering_schemas import ChangeBatch, RetryBatch
from pipeline.ports.batches import KEPT, RetryOrder, Steering

router = APIRouter(tags=["Batches"])


@router.post(
    "/v1/batches/{batch_id}/pause",
    response_model=schemas.Batch,
    responses=schemas.errors(404, 409),
    summary="Pause a batch",
)
async def pause_batch(request: Request, caller: SteeringKey, batch_id: str) -> Response:
    """Pause a batch: what runs finishes, nothing new starts, and its window goes on. Doing it again changes nothing."""
    return await _steered(request, caller, batch_id, Steering(is_paused=True))


@router.post(
    "/v1/batches/{batch_id}/resume",
    response_model=schemas.Batch,
    responses=schemas.errors(404, 409),
    summary="Resume a batch",
)
async def resume_batch(request: Request, caller: SteeringKey, batch_id: str) -> Response:
    """Let a paused batch go on. Doing it again changes nothing."""
    return await _steered(request, caller, batch_id, Steering(is_paused=False))


@router.patch(
    "/v1/batches/{batch_id}",
    response_model=schemas.Batch,
    responses=schemas.errors(400, 404, 409),
    summary="Change a batch",
)
async def change_batch(request: Request, caller: SteeringKey, batch_id: str, asked: ChangeBatch) -> Response:
    """Change a batch on its way, all or nothing; packs that run already are not touched."""
    if not asked.model_fields_set:
        return answer(batch_document(await looked_up(request, caller, batch_id)))
    return await _steered(request, caller, batch_id, steering_of(asked, now=datetime.now(UTC)))


@router.post(
    "/v1/batches/{batch_id}/retry",
    response_model=schemas.Batch,
    responses=schemas.errors(400, 404, 409),
    summary="Retry a batch",
)
async def retry_batch(
    request: Request,
    caller: SteeringKey,
    batch_id: str,
    asked: RetryBatch | None = None,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Make a batch of those rows that have no success of one that has ended, without another upload.

    The same retry twice returns the same batch. Nothing that succeeded runs or is paid again.
    """
    asked = asked or RetryBatch()
    order = RetryOrder(
        created_by=caller.key_id,
        idempotency_key=idempotency_key,
        completion_window=asked.completion_window,
        tier=asked.tier,
        budget_micros=_micros(asked.max_cost),
    )
    batches = service_of(request).batches
    return answer(batch_document(await to_thread.run_sync(batches.retry, batch_id, caller.scope, order)))


def steering_of(asked: ChangeBatch, *, now: datetime) -> Steering:
    """Return what a request changes; raises 400 for two deadlines."""
    given = asked.model_fields_set
    if {"completion_window", "expires_at"} <= given:
        message = "A deadline is given by 'completion_window' or by 'expires_at', not by both."
        raise ApiError(400, message, code="invalid_value", param="expires_at")
    deadline_at = None
    if "completion_window" in given:
        deadline_at = now + parse_window(asked.completion_window)
    elif "expires_at" in given:
        deadline_at = datetime.fromtimestamp(asked.expires_at, UTC)
    return Steering(
        tier=asked.tier if "tier" in given else None,
        priority=asked.priority if "priority" in given else None,
        deadline_at=deadline_at,
        budget_micros=KEPT if "max_cost" not in given else _micros(asked.max_cost),
        hold_until=KEPT if "hold_until" not in given else _instant(asked.hold_until),
        labels=asked.labels if "labels" in given else KEPT,
        metadata=asked.metadata if "metadata" in given else KEPT,
    )


def _instant(seconds: int | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def _micros(amount: str | None) -> int | None:
    return None if amount is None else micros_of(amount)


async def _steered(request: Request, caller: SteeringKey, batch_id: str, steering: Steering) -> Response:
    batches = service_of(request).batches
    return answer(batch_document(await to_thread.run_sync(batches.steer, batch_id, caller.scope, steering)))
