"""`/v1/organization/audit_logs`."""

from __future__ import annotations

from typing import Annotated, Final

from anyio import to_thread
from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response

from pipeline.domain.access import Permission
from pipeline.entrypoints.http import organization_schemas as schemas
from pipeline.entrypoints.http.access import Caller, permitted
from pipeline.entrypoints.http.documents import answer, list_document
from pipeline.entrypoints.http.organization_documents import audit_document
from pipeline.entrypoints.http.schemas import After, errors
from pipeline.entrypoints.http.service import service_of

router = APIRouter(tags=["Organization"])

_PAGE_MAX: Final = 100
_PAGE: Final = 20

Auditing = Annotated[Caller, Depends(permitted(Permission.READ_AUDIT))]


@router.get(
    "/v1/organization/audit_logs",
    response_model=schemas.AuditList,
    responses=errors(400, 404),
    summary="List the audit log",
)
async def list_audit_logs(
    request: Request,
    caller: Auditing,
    after: After = None,
    limit: Annotated[int, Query(ge=1, le=_PAGE_MAX)] = _PAGE,
) -> Response:
    """List who did what, the newest first; a confined key lists what was done in its project."""
    audit = service_of(request).audit
    entries = await to_thread.run_sync(lambda: audit.page(caller.scope, limit=limit + 1, after=after))
    return answer(list_document((audit_document(entry) for entry in entries), limit=limit))
