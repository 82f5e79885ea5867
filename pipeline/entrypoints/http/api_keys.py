"""`/v1/organization/api_keys`."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final

from anyio import to_thread
from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response

from pipeline.app.serving import KeyOrder, make_key, rotate_key
from pipeline.domain.access import Permission, Role, exceeds
from pipeline.domain.errors import NotFoundError
from pipeline.domain.ids import ProjectId
from pipeline.entrypoints.http import organization_schemas as schemas
from pipeline.entrypoints.http.access import Caller, permitted
from pipeline.entrypoints.http.documents import answer, list_document
from pipeline.entrypoints.http.errors import ApiError
from pipeline.entrypoints.http.organization_documents import key_document
from pipeline.entrypoints.http.schemas import After, errors
from pipeline.entrypoints.http.service import service_of

router = APIRouter(tags=["Organization"])

_PAGE_MAX: Final = 100
_PAGE: Final = 20

Managing = Annotated[Caller, Depends(permitted(Permission.MANAGE_KEYS))]


@router.get(
    "/v1/organization/api_keys",
    response_model=schemas.KeyList,
    responses=errors(400, 404),
    summary="List API keys",
)
async def list_keys(
    request: Request,
    caller: Managing,
    after: After = None,
    limit: Annotated[int, Query(ge=1, le=_PAGE_MAX)] = _PAGE,
) -> Response:
    """List keys, the oldest first, those that were revoked too; a confined key lists those of its project."""
    keys = service_of(request).keys
    views = await to_thread.run_sync(lambda: keys.page(caller.scope, limit=limit + 1, after=after))
    return answer(list_document((key_document(view) for view in views), limit=limit))


@router.post(
    "/v1/organization/api_keys",
    response_model=schemas.NewKey,
    responses=errors(400, 404),
    summary="Create an API key",
)
async def create_key(request: Request, caller: Managing, asked: schemas.CreateKey) -> Response:
    """Make a key that can do no more than the one that asks."""
    order = _order(caller, asked)
    view, text = await to_thread.run_sync(make_key, service_of(request), order)
    return answer({**key_document(view), "value": text})


@router.get(
    "/v1/organization/api_keys/{key_id}",
    response_model=schemas.Key,
    responses=errors(400, 404),
    summary="Retrieve an API key's description",
)
async def retrieve_key(request: Request, caller: Managing, key_id: str) -> Response:
    """Tell what is known of a key."""
    return answer(key_document(await to_thread.run_sync(service_of(request).keys.get, key_id, caller.scope)))


@router.delete(
    "/v1/organization/api_keys/{key_id}",
    response_model=schemas.KeyDeleted,
    responses=errors(400, 404),
    summary="Revoke an API key",
)
async def delete_key(request: Request, caller: Managing, key_id: str) -> Response:
    """Let a key in no more, from a second on; what is known of it stays."""
    view = await to_thread.run_sync(service_of(request).keys.revoke, key_id, caller.scope)
    return answer({"id": view.key_id, "object": "organization.api_key.deleted", "deleted": True})


@router.post(
    "/v1/organization/api_keys/{key_id}/rotate",
    response_model=schemas.RotatedKey,
    responses=errors(400, 404, 409),
    summary="Replace an API key",
)
async def rotate(request: Request, caller: Managing, key_id: str, asked: schemas.RotateKey | None = None) -> Response:
    """Make a key with the same terms; the old one expires after the overlap."""
    service = service_of(request)
    old = await to_thread.run_sync(service.keys.get, key_id, caller.scope)
    _check_roles(caller, old.roles)
    overlap = timedelta(seconds=(asked or schemas.RotateKey()).overlap_seconds)
    made = await to_thread.run_sync(lambda: rotate_key(service, key_id, caller.scope, overlap=overlap))
    document = {**key_document(made.successor), "value": made.text, "replaces": key_document(made.predecessor)}
    return answer(document)


def _order(caller: Caller, asked: schemas.CreateKey) -> KeyOrder:
    """Return the key that is asked for, or raise where it could do more than the one that asks."""
    _check_roles(caller, asked.roles)
    confined_to = caller.scope.project_id
    if confined_to is not None and "project_id" in asked.model_fields_set and asked.project_id is None:
        raise ApiError(
            403,
            f"This request is confined to the project '{confined_to}': it cannot make a key for the whole organization.",
            code="escalation",
            param="project_id",
        )
    if confined_to is not None and asked.project_id not in {None, confined_to}:
        raise NotFoundError(f"there is no project {asked.project_id}")
    chosen = asked.project_id or confined_to
    lives = asked.expires_in_seconds
    return KeyOrder(
        tenant_id=caller.tenant_id,
        project_id=None if chosen is None else ProjectId(chosen),
        name=asked.name,
        roles=asked.roles,
        expires_at=None if lives is None else datetime.now(UTC) + timedelta(seconds=lives),
    )


def _check_roles(caller: Caller, roles: Iterable[Role]) -> None:
    beyond = exceeds(roles, caller.permissions)
    if beyond:
        raise ApiError(
            403,
            f"A key cannot give what it has not: these roles would add {', '.join(sorted(beyond))}.",
            code="escalation",
            param="roles",
        )
