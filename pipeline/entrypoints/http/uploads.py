"""`/v1/uploads`: files in parts."""

from __future__ import annotations

import re
from contextlib import ExitStack
from typing import Annotated, Final

from anyio import to_thread
from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response

from infra.lending import lent_folder
from pipeline.app.uploads import complete_upload, store_part
from pipeline.domain.access import Permission
from pipeline.domain.files import FilePurpose
from pipeline.domain.ids import new_upload_id
from pipeline.domain.limits import UPLOAD_PART_BYTES_MAX
from pipeline.entrypoints.http import file_schemas, schemas
from pipeline.entrypoints.http.access import Caller, permitted
from pipeline.entrypoints.http.documents import Document, answer, file_document, seconds
from pipeline.entrypoints.http.errors import ApiError
from pipeline.entrypoints.http.retention import check_name, kept_seconds
from pipeline.entrypoints.http.service import service_of
from pipeline.entrypoints.http.uploading import receive_upload
from pipeline.ports.uploads import UploadDraft, UploadPart, UploadView

router = APIRouter(tags=["Uploads"])

#: The route whose bodies are parts.
PART_PATH: Final = re.compile(r"/v1/uploads/[^/]+/parts")

Submitting = Annotated[Caller, Depends(permitted(Permission.SUBMIT))]


@router.post(
    "/v1/uploads",
    response_model=file_schemas.Upload,
    responses=schemas.errors(400, 408, 413),
    summary="Begin an upload",
)
async def create_upload(request: Request, caller: Submitting, asked: file_schemas.CreateUpload) -> Response:
    """Announce a file that is to arrive in parts; there are 24 hours for them."""
    service = service_of(request)
    purpose = FilePurpose(asked.purpose)
    check_name(asked.filename, purpose)
    draft = UploadDraft(
        upload_id=new_upload_id(),
        tenant_id=caller.tenant_id,
        project_id=caller.home_project_id,
        filename=asked.filename,
        purpose=purpose,
        size_bytes=asked.bytes,
        mime_type=asked.mime_type,
        file_kept_seconds=kept_seconds(service.settings, purpose, asked.expires_after),
    )
    return answer(_document(await to_thread.run_sync(service.uploads.add, draft)))


@router.post(
    "/v1/uploads/{upload_id}/parts",
    response_model=file_schemas.UploadPart,
    responses=schemas.errors(400, 404, 408, 413, 415),
    openapi_extra=file_schemas.UPLOAD_PART,
    summary="Add a part",
)
async def add_part(request: Request, caller: Submitting, upload_id: str) -> Response:
    """Add a part, as multipart/form-data; parts may come in any order, and at once."""
    service = service_of(request)
    upload = await to_thread.run_sync(service.uploads.check_open, upload_id, caller.scope)
    with ExitStack() as resources:
        folder = await to_thread.run_sync(
            lambda: resources.enter_context(lent_folder(service.stack.spool_folder, prefix="part-"))
        )
        path = folder / "data"
        received = await receive_upload(
            request.headers.get("content-type", ""),
            request.stream(),
            path,
            bytes_max=UPLOAD_PART_BYTES_MAX,
            file_field="data",
        )
        unknown = min(received.fields, default=None)
        if unknown is not None:
            raise ApiError(400, f"Unknown parameter: '{unknown}'.", code="unknown_parameter", param=unknown)
        if received.filename is None:
            raise ApiError(400, "Missing required parameter: 'data'.", code="missing_required_parameter", param="data")
        if not received.size_bytes:
            raise ApiError(400, "The part is empty.", code="empty_file", param="data")
        part = await to_thread.run_sync(store_part, service.stack, service.uploads, upload, path)
    return answer(_part_document(part))


@router.post(
    "/v1/uploads/{upload_id}/complete",
    response_model=file_schemas.Upload,
    responses=schemas.errors(400, 404, 408, 413),
    summary="Complete an upload",
)
async def complete(
    request: Request, caller: Submitting, upload_id: str, asked: file_schemas.CompleteUpload
) -> Response:
    """Make a file of the parts, in the order given; doing it again returns the same file."""
    service = service_of(request)
    upload = await to_thread.run_sync(service.uploads.get, upload_id, caller.scope)
    view = await to_thread.run_sync(
        lambda: complete_upload(service.stack, service.uploads, upload, asked.part_ids, md5=asked.md5),
        limiter=request.app.state.heavy,
    )
    return answer(_document(view))


@router.post(
    "/v1/uploads/{upload_id}/cancel",
    response_model=file_schemas.Upload,
    responses=schemas.errors(400, 404),
    summary="Cancel an upload",
)
async def cancel(request: Request, caller: Submitting, upload_id: str) -> Response:
    """Give an upload up: it takes no further parts, and those it has are removed."""
    uploads = service_of(request).uploads
    return answer(_document(await to_thread.run_sync(uploads.cancel, upload_id, caller.scope)))


def _document(view: UploadView) -> Document:
    return {
        "id": view.upload_id,
        "object": "upload",
        "bytes": view.size_bytes,
        "created_at": seconds(view.created_at),
        "filename": view.filename,
        "purpose": str(view.purpose),
        "status": str(view.status),
        "expires_at": seconds(view.expires_at),
        "file": None if view.file is None else file_document(view.file),
    }


def _part_document(part: UploadPart) -> Document:
    return {
        "id": part.part_id,
        "object": "upload.part",
        "created_at": seconds(part.created_at),
        "upload_id": part.upload_id,
    }
