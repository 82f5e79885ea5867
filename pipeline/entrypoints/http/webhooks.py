"""`/v1/webhooks`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Final

from anyio import to_thread
from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response

from pipeline.app.webhooks import UrlRefusedError, check_url
from pipeline.domain.access import Permission
from pipeline.domain.errors import NotFoundError
from pipeline.domain.ids import ProjectId, new_webhook_id
from pipeline.domain.webhooks import new_secret
from pipeline.entrypoints.http import schemas, webhook_schemas
from pipeline.entrypoints.http.access import Caller, permitted
from pipeline.entrypoints.http.documents import Document, answer, list_document, seconds
from pipeline.entrypoints.http.errors import ApiError
from pipeline.entrypoints.http.service import service_of
from pipeline.ports.webhooks import DeliveryView, WebhookChange, WebhookDraft, WebhookView

router = APIRouter(tags=["Webhooks"])

_PAGE_MAX: Final = 100
_PAGE: Final = 20

Managing = Annotated[Caller, Depends(permitted(Permission.MANAGE_WEBHOOKS))]
Limit = Annotated[int, Query(ge=1, le=_PAGE_MAX)]


@router.post(
    "/v1/webhooks",
    response_model=webhook_schemas.WebhookWithSecret,
    responses=schemas.errors(400, 404, 409, 413),
    summary="Create a webhook",
)
async def create_webhook(request: Request, caller: Managing, asked: webhook_schemas.CreateWebhook) -> Response:
    """Have what happens to batches told to a URL; the secret that it is signed with is in this answer alone."""
    service = service_of(request)
    draft = WebhookDraft(
        webhook_id=new_webhook_id(),
        tenant_id=caller.tenant_id,
        project_id=_project(caller, asked.project_id),
        url=_allowed(request, asked.url),
        description=asked.description,
        event_types=tuple(dict.fromkeys(asked.event_types)),
        secret=new_secret(),
    )
    view = await to_thread.run_sync(service.webhooks.add, draft)
    return answer({**webhook_document(view), "secret": draft.secret})


@router.get(
    "/v1/webhooks",
    response_model=webhook_schemas.WebhookList,
    responses=schemas.errors(400, 404),
    summary="List webhooks",
)
async def list_webhooks(
    request: Request, caller: Managing, after: schemas.After = None, limit: Limit = _PAGE
) -> Response:
    """List webhooks, the newest first."""
    webhooks = service_of(request).webhooks
    views = await to_thread.run_sync(lambda: webhooks.page(caller.scope, limit=limit + 1, after=after))
    return answer(list_document((webhook_document(view) for view in views), limit=limit))


@router.get(
    "/v1/webhooks/{webhook_id}",
    response_model=webhook_schemas.Webhook,
    responses=schemas.errors(404),
    summary="Retrieve a webhook",
)
async def retrieve_webhook(request: Request, caller: Managing, webhook_id: str) -> Response:
    """Tell what is known of a webhook, but for its secret."""
    webhooks = service_of(request).webhooks
    return answer(webhook_document(await to_thread.run_sync(webhooks.get, webhook_id, caller.scope)))


@router.patch(
    "/v1/webhooks/{webhook_id}",
    response_model=webhook_schemas.Webhook,
    responses=schemas.errors(400, 404, 413),
    summary="Change a webhook",
)
async def change_webhook(
    request: Request, caller: Managing, webhook_id: str, asked: webhook_schemas.ChangeWebhook
) -> Response:
    """Change where a webhook is sent or what it is told, disable it, or enable it again."""
    webhooks = service_of(request).webhooks
    change = WebhookChange(
        url=None if asked.url is None else _allowed(request, asked.url),
        description=asked.description,
        event_types=None if asked.event_types is None else tuple(dict.fromkeys(asked.event_types)),
        is_enabled=asked.enabled,
    )
    return answer(webhook_document(await to_thread.run_sync(webhooks.change, webhook_id, caller.scope, change)))


@router.delete(
    "/v1/webhooks/{webhook_id}",
    response_model=webhook_schemas.DeletedWebhook,
    responses=schemas.errors(404),
    summary="Delete a webhook",
)
async def delete_webhook(request: Request, caller: Managing, webhook_id: str) -> Response:
    """Remove a webhook with its history; a try that is under way may still arrive."""
    await to_thread.run_sync(service_of(request).webhooks.remove, webhook_id, caller.scope)
    return answer({"id": webhook_id, "object": "webhook", "deleted": True})


@router.post(
    "/v1/webhooks/{webhook_id}/rotate_secret",
    response_model=webhook_schemas.WebhookWithSecret,
    responses=schemas.errors(400, 404, 413),
    summary="Rotate a webhook's secret",
)
async def rotate_secret(
    request: Request, caller: Managing, webhook_id: str, asked: webhook_schemas.RotateSecret | None = None
) -> Response:
    """Make a new secret, which is in this answer alone; the one before signs beside it for a while."""
    webhooks = service_of(request).webhooks
    secret = new_secret()
    overlap = timedelta(seconds=(asked or webhook_schemas.RotateSecret()).overlap_seconds)
    view = await to_thread.run_sync(lambda: webhooks.rotate(webhook_id, caller.scope, secret=secret, overlap=overlap))
    return answer({**webhook_document(view), "secret": secret})


@router.post(
    "/v1/webhooks/{webhook_id}/test",
    response_model=webhook_schemas.Delivery,
    responses=schemas.errors(404, 409),
    summary="Test a webhook",
)
async def send_test(request: Request, caller: Managing, webhook_id: str) -> Response:
    """Have a `webhook.test` event sent, as any other is."""
    webhooks = service_of(request).webhooks
    return answer(delivery_document(await to_thread.run_sync(webhooks.test, webhook_id, caller.scope)))


@router.get(
    "/v1/webhooks/{webhook_id}/deliveries",
    response_model=webhook_schemas.DeliveryList,
    responses=schemas.errors(400, 404),
    summary="List a webhook's deliveries",
)
async def list_deliveries(
    request: Request, caller: Managing, webhook_id: str, after: schemas.After = None, limit: Limit = _PAGE
) -> Response:
    """Tell what became of each event of the last month, the newest first."""
    webhooks = service_of(request).webhooks
    views = await to_thread.run_sync(
        lambda: webhooks.deliveries(webhook_id, caller.scope, limit=limit + 1, after=after)
    )
    return answer(list_document((delivery_document(view) for view in views), limit=limit))


@router.post(
    "/v1/webhooks/{webhook_id}/redeliver",
    response_model=webhook_schemas.Redelivered,
    responses=schemas.errors(400, 404, 409, 413),
    summary="Redeliver events",
)
async def redeliver(request: Request, caller: Managing, webhook_id: str, asked: webhook_schemas.Redeliver) -> Response:
    """Tell one event again, or all since an instant that have not arrived; each keeps its id."""
    webhooks = service_of(request).webhooks
    if len(asked.model_fields_set) != 1:
        raise ApiError(400, "Give either 'event_id' or 'since'.", code="invalid_value", param="event_id")
    if asked.event_id:
        events = await to_thread.run_sync(webhooks.redeliver, webhook_id, caller.scope, asked.event_id)
    else:
        since = datetime.fromtimestamp(asked.since, UTC)
        events = await to_thread.run_sync(webhooks.redeliver_since, webhook_id, caller.scope, since)
    return answer({"object": "webhook.redelivery", "events": events})


def webhook_document(view: WebhookView) -> Document:
    """Return a webhook, without its secret."""
    return {
        "id": view.webhook_id,
        "object": "webhook",
        "url": view.url,
        "description": view.description,
        "event_types": [str(kind) for kind in view.event_types],
        "project_id": view.project_id,
        "enabled": view.disabled_at is None,
        "created_at": seconds(view.created_at),
        "disabled_at": seconds(view.disabled_at),
        "disabled_reason": view.disabled_reason and str(view.disabled_reason),
        "failing_since": seconds(view.failing_since),
        "previous_secret_until": seconds(view.previous_secret_until),
    }


def delivery_document(view: DeliveryView) -> Document:
    """Return how the telling of an event goes."""
    return {
        "id": view.event_id,
        "object": "webhook.delivery",
        "webhook_id": view.webhook_id,
        "type": str(view.event_type),
        "batch_id": view.batch_id,
        "created_at": seconds(view.created_at),
        "status": str(view.state),
        "tries": view.tries,
        "next_at": seconds(view.next_at),
        "tried_at": seconds(view.tried_at),
        "delivered_at": seconds(view.delivered_at),
        "gave_up_at": seconds(view.gave_up_at),
        "last_status": view.last_status,
        "last_error": view.last_error,
    }


def _project(caller: Caller, asked: str | None) -> ProjectId | None:
    own = caller.scope.project_id
    if asked is None:
        return own
    if own is not None and asked != own:
        raise NotFoundError(f"there is no project {asked}")
    return ProjectId(asked)


def _allowed(request: Request, url: str) -> str:
    try:
        return check_url(service_of(request).settings, url)
    except UrlRefusedError as error:
        raise ApiError(403, f"{error.message} ({error.hint}).", code=error.code, param="url") from None
