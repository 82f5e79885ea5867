"""`/v1/batches`."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final

from anyio import to_thread
from fastapi import APIRouter, Depends, Header, Query, Request
from fastapi.responses import Response

from pipeline.domain.access import Permission
from pipeline.domain.errors import ConflictError
from pipeline.domain.ids import ProjectId
from pipeline.domain.lifecycle import BatchState
from pipeline.domain.money import micros_of
from pipeline.entrypoints.http import schemas
from pipeline.entrypoints.http.access import Caller, permitted
from pipeline.entrypoints.http.documents import answer, batch_document, list_document
from pipeline.entrypoints.http.errors import NO_RETRY, ApiError
from pipeline.entrypoints.http.gathering import Gathered
from pipeline.entrypoints.http.service import service_of
from pipeline.ports.access import Scope
from pipeline.ports.batches import BatchView, Submission

router = APIRouter(tags=["Batches"])

POLL_PATH: Final = "/v1/batches/{batch_id}"
_PAGE_MAX: Final = 100
_PAGE: Final = 20
#: A client's second try follows its first within this; the SDK's own follow within seconds.
_RETRY_WITHIN: Final = timedelta(minutes=10)
_SECONDS_PER_DAY: Final = 86_400
_IDEMPOTENCY_KEY_CHARS_MAX: Final = 255

Reading = Annotated[Caller, Depends(permitted(Permission.READ_BATCHES))]
Submitting = Annotated[Caller, Depends(permitted(Permission.SUBMIT))]
Steering = Annotated[Caller, Depends(permitted(Permission.STEER))]
IdempotencyKey = Annotated[
    str | None,
    Header(
        min_length=1,
        max_length=_IDEMPOTENCY_KEY_CHARS_MAX,
        description="The same key again returns the batch that it made, and never makes a second one.",
    ),
]


@router.post(
    "/v1/batches",
    response_model=schemas.Batch,
    responses=schemas.errors(400, 413, 422),
    summary="Create a batch",
)
async def create_batch(
    request: Request, caller: Submitting, asked: schemas.CreateBatch, idempotency_key: IdempotencyKey = None
) -> Response:
    """Create a batch; its file is read and checked afterwards."""
    service = service_of(request)
    submission = _submission(caller, asked, idempotency_key, service.settings.file_retention_days)
    is_again = _retries(request) > 0
    try:
        view = await to_thread.run_sync(
            lambda: service.batches.submit(submission, alike_within=_RETRY_WITHIN if is_again else None)
        )
    except ConflictError as error:
        raise ApiError(422, error.message, code="idempotency_key_reused", headers=NO_RETRY) from None
    return answer(batch_document(view))


@router.get(
    "/v1/batches",
    response_model=schemas.BatchList,
    responses=schemas.errors(400, 404),
    summary="List batches",
)
async def list_batches(
    request: Request,
    caller: Reading,
    after: Annotated[str | None, Query(max_length=128, description="Id of the last batch of the page before.")] = None,
    limit: Annotated[int, Query(ge=1, le=_PAGE_MAX)] = _PAGE,
    status: Annotated[list[BatchState] | None, Query(description="Only these; repeatable.")] = None,
    project_id: Annotated[
        str | None, Query(max_length=128, pattern=r"^[^\x00]*$", description="Only this project's.")
    ] = None,
) -> Response:
    """List batches, the newest first."""
    batches = service_of(request).batches
    scope = caller.scope
    if project_id is not None:
        if scope.project_id not in {None, project_id}:
            return answer(list_document((), limit=limit))
        scope = Scope(tenant_id=scope.tenant_id, project_id=ProjectId(project_id))
    views = await to_thread.run_sync(
        lambda: batches.page(scope, limit=limit + 1, after=after, states=tuple(status or ()))
    )
    return answer(list_document((batch_document(view) for view in views), limit=limit))


@router.get(
    POLL_PATH,
    response_model=schemas.Batch,
    responses=schemas.errors(404),
    summary="Retrieve a batch",
)
async def retrieve_batch(request: Request, caller: Reading, batch_id: str) -> Response:
    """Tell where a batch stands."""
    return answer(batch_document(await looked_up(request, caller, batch_id)))


@router.post(
    "/v1/batches/{batch_id}/cancel",
    response_model=schemas.Batch,
    responses=schemas.errors(404, 409),
    summary="Cancel a batch",
)
async def cancel_batch(request: Request, caller: Steering, batch_id: str) -> Response:
    """Withdraw a batch: what runs may finish, nothing new starts, finished rows keep their results."""
    batches = service_of(request).batches
    return answer(batch_document(await to_thread.run_sync(batches.cancel, batch_id, caller.scope)))


async def looked_up(request: Request, caller: Caller, batch_id: str) -> BatchView:
    """Return a batch, looked up together with whatever else is asked for now; raises 404."""
    lookups: Gathered[tuple[str, Scope], BatchView] = request.app.state.batch_lookups
    view = await lookups.get((batch_id, caller.scope))
    if view is None:
        raise ApiError(404, f"No batch found with id '{batch_id}'.")
    return view


def lookups_of(among: Callable[..., dict[tuple[str, Scope], BatchView]]) -> Gathered[tuple[str, Scope], BatchView]:
    """Return what batches are looked up by."""
    return Gathered(among)


def _submission(
    caller: Caller, asked: schemas.CreateBatch, idempotency_key: str | None, retention_days: int
) -> Submission:
    kept = asked.output_expires_after
    return Submission(
        tenant_id=caller.tenant_id,
        project_id=caller.home_project_id,
        created_by=caller.key_id,
        input_file_id=asked.input_file_id,
        endpoint=asked.endpoint,
        completion_window=asked.completion_window,
        tier=asked.tier,
        priority=asked.priority,
        budget_micros=None if asked.max_cost is None else micros_of(asked.max_cost),
        metadata=asked.metadata,
        labels=asked.labels,
        idempotency_key=idempotency_key,
        hold_until=None if asked.hold_until is None else datetime.fromtimestamp(asked.hold_until, UTC),
        must_promise=asked.must_promise,
        output_kept_seconds=kept.seconds if kept else retention_days * _SECONDS_PER_DAY or None,
        may_lack_file=True,
    )


def _retries(request: Request) -> int:
    """Return how often an OpenAI SDK says that it has sent this before."""
    written = request.headers.get("x-stainless-retry-count", "0")
    return int(written) if written.isdecimal() else 0
