"""`/v1/organization/projects`."""

from __future__ import annotations

from typing import Annotated, Final

from anyio import to_thread
from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response

from pipeline.domain.access import Permission
from pipeline.domain.ids import new_project_id
from pipeline.entrypoints.http import organization_schemas as schemas
from pipeline.entrypoints.http.access import Caller, permitted
from pipeline.entrypoints.http.documents import answer, list_document
from pipeline.entrypoints.http.errors import ApiError
from pipeline.entrypoints.http.organization_documents import project_document
from pipeline.entrypoints.http.schemas import After, errors
from pipeline.entrypoints.http.service import service_of
from pipeline.ports.access import ProjectView

router = APIRouter(tags=["Organization"])

_PAGE_MAX: Final = 100
_PAGE: Final = 20

Managing = Annotated[Caller, Depends(permitted(Permission.MANAGE_PROJECTS))]


@router.get(
    "/v1/organization/projects",
    response_model=schemas.ProjectList,
    responses=errors(400, 404),
    summary="List projects",
)
async def list_projects(
    request: Request,
    caller: Managing,
    after: After = None,
    limit: Annotated[int, Query(ge=1, le=_PAGE_MAX)] = _PAGE,
    *,
    include_archived: bool = False,
) -> Response:
    """List projects, the oldest first."""
    tenants = service_of(request).tenants
    views = await to_thread.run_sync(
        lambda: tenants.projects(caller.scope, limit=limit + 1, after=after, with_archived=include_archived)
    )
    return answer(list_document((project_document(view) for view in views), limit=limit))


@router.post(
    "/v1/organization/projects",
    response_model=schemas.Project,
    responses=errors(400, 409),
    summary="Create a project",
)
async def create_project(request: Request, caller: Managing, asked: schemas.NameProject) -> Response:
    """Make a project."""
    _check_whole(caller)
    tenants = service_of(request).tenants
    view = await to_thread.run_sync(tenants.create_project, new_project_id(), caller.tenant_id, asked.name)
    return answer(project_document(view))


@router.get(
    "/v1/organization/projects/{project_id}",
    response_model=schemas.Project,
    responses=errors(400, 404),
    summary="Retrieve a project",
)
async def retrieve_project(request: Request, caller: Managing, project_id: str) -> Response:
    """Tell what is known of a project."""
    return answer(project_document(await _project(request, caller, project_id)))


@router.post(
    "/v1/organization/projects/{project_id}",
    response_model=schemas.Project,
    responses=errors(400, 404, 409),
    summary="Rename a project",
)
async def rename_project(request: Request, caller: Managing, project_id: str, asked: schemas.NameProject) -> Response:
    """Give a project another name."""
    await _project(request, caller, project_id)
    _check_whole(caller)
    tenants = service_of(request).tenants
    view = await to_thread.run_sync(tenants.rename_project, project_id, caller.scope, asked.name)
    return answer(project_document(view))


@router.post(
    "/v1/organization/projects/{project_id}/archive",
    response_model=schemas.Project,
    responses=errors(400, 404, 409),
    summary="Archive a project",
)
async def archive_project(request: Request, caller: Managing, project_id: str) -> Response:
    """Close a project: its keys let nobody in, nothing new is made in it, and what is there stays."""
    await _project(request, caller, project_id)
    _check_whole(caller)
    tenants = service_of(request).tenants
    return answer(project_document(await to_thread.run_sync(tenants.archive_project, project_id, caller.scope)))


async def _project(request: Request, caller: Caller, project_id: str) -> ProjectView:
    return await to_thread.run_sync(service_of(request).tenants.project, project_id, caller.scope)


def _check_whole(caller: Caller) -> None:
    if caller.scope.project_id is not None:
        raise ApiError(
            403,
            "Projects are made, renamed and archived by keys of the whole organization, without an OpenAI-Project "
            "header.",
            code="forbidden",
        )
