"""`/v1/files`."""

from __future__ import annotations

import re
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from anyio import to_thread
from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response

from infra.lending import lent_folder
from pipeline.app.serving import Service
from pipeline.domain.access import Permission
from pipeline.domain.files import UPLOADABLE, FilePurpose
from pipeline.domain.ids import new_file_id
from pipeline.domain.objects.keys import file_key
from pipeline.entrypoints.http import file_schemas, schemas
from pipeline.entrypoints.http.access import Caller, permitted
from pipeline.entrypoints.http.documents import answer, file_document, list_document
from pipeline.entrypoints.http.downloads import download
from pipeline.entrypoints.http.errors import ApiError
from pipeline.entrypoints.http.referring import is_reference, receive_reference
from pipeline.entrypoints.http.retention import check_name, kept_seconds
from pipeline.entrypoints.http.service import service_of
from pipeline.entrypoints.http.uploading import Upload, receive_upload
from pipeline.ports.files import FileDraft, FileView

router = APIRouter(tags=["Files"])

#: The route whose bodies are files.
UPLOAD_PATH: Final = re.compile(r"/v1/files")
_PAGE_MAX: Final = 10_000
_KEPT_SECONDS_MIN: Final = 3600
_KEPT_SECONDS_MAX: Final = 30 * 86_400
_FIELDS: Final = frozenset({"purpose", "expires_after[anchor]", "expires_after[seconds]"})

Submitting = Annotated[Caller, Depends(permitted(Permission.SUBMIT))]
Reading = Annotated[Caller, Depends(permitted(Permission.READ_BATCHES))]
ReadingContent = Annotated[Caller, Depends(permitted(Permission.READ_CONTENT))]


@router.post(
    "/v1/files",
    response_model=schemas.File,
    responses=schemas.errors(400, 408, 413, 415),
    openapi_extra=file_schemas.UPLOAD_OR_REFERENCE,
    summary="Upload a file",
)
async def create_file(request: Request, caller: Submitting) -> Response:
    """Upload a file of requests, as multipart/form-data, or as JSON name one for the server to fetch."""
    service = service_of(request)
    content_type = request.headers.get("content-type", "")
    with ExitStack() as resources:
        folder = await to_thread.run_sync(
            lambda: resources.enter_context(lent_folder(service.stack.spool_folder, prefix="upload-"))
        )
        path = folder / "file"
        if is_reference(content_type):
            draft = await receive_reference(request, service, caller, path)
        else:
            bytes_max = service.settings.upload_bytes_max
            draft = _draft(
                service, caller, await receive_upload(content_type, request.stream(), path, bytes_max=bytes_max)
            )
        view = await to_thread.run_sync(_store, service, draft, path)
    return answer(file_document(view))


@router.get(
    "/v1/files",
    response_model=schemas.FileList,
    responses=schemas.errors(400, 404),
    summary="List files",
)
async def list_files(
    request: Request,
    caller: Reading,
    after: schemas.After = None,
    limit: Annotated[int, Query(ge=1, le=_PAGE_MAX)] = _PAGE_MAX,
    order: Literal["asc", "desc"] = "desc",
    purpose: FilePurpose | None = None,
) -> Response:
    """List files by age."""
    files = service_of(request).stack.files
    views = await to_thread.run_sync(
        lambda: files.page(caller.scope, limit=limit + 1, after=after, order=order, purpose=purpose)
    )
    return answer(list_document((file_document(view) for view in views), limit=limit))


@router.get(
    "/v1/files/{file_id}",
    response_model=schemas.File,
    responses=schemas.errors(404),
    summary="Retrieve a file's description",
)
async def retrieve_file(request: Request, caller: Reading, file_id: str) -> Response:
    """Tell what is known of a file."""
    return answer(file_document(await _file(request, caller, file_id)))


@router.delete(
    "/v1/files/{file_id}",
    response_model=schemas.Deleted,
    responses=schemas.errors(404, 409),
    summary="Delete a file",
)
async def delete_file(request: Request, caller: Submitting, file_id: str) -> Response:
    """Delete a file, unless a batch that has not ended is to read it."""
    files = service_of(request).stack.files
    await _file(request, caller, file_id)
    await to_thread.run_sync(files.delete, file_id, caller.scope)
    return answer({"id": file_id, "object": "file", "deleted": True})


@router.get(
    "/v1/files/{file_id}/content",
    response_class=Response,
    responses={**schemas.errors(404, 416), **schemas.CONTENT},
    summary="Download a file",
)
async def retrieve_content(request: Request, caller: ReadingContent, file_id: str) -> Response:
    """Download a file's content, or a range of it."""
    file = await _file(request, caller, file_id)
    return await download(request, service_of(request).stack, file)


async def _file(request: Request, caller: Caller, file_id: str) -> FileView:
    files = service_of(request).stack.files
    return await to_thread.run_sync(files.get, file_id, caller.scope)


def _draft(service: Service, caller: Caller, upload: Upload) -> dict[str, Any]:
    """Return what is to be recorded of an upload, checked."""
    unknown = upload.fields.keys() - _FIELDS
    if unknown:
        name = min(unknown)
        raise ApiError(400, f"Unknown parameter: '{name}'.", code="unknown_parameter", param=name)
    if upload.filename is None:
        raise ApiError(400, "Missing required parameter: 'file'.", code="missing_required_parameter", param="file")
    purpose = _purpose(upload.fields.get("purpose"))
    check_name(upload.filename, purpose)
    if not upload.size_bytes:
        raise ApiError(400, "The file is empty.", code="empty_file", param="file")
    return {
        "filename": upload.filename,
        "purpose": purpose,
        "tenant_id": caller.tenant_id,
        "project_id": caller.home_project_id,
        "kept_seconds": _kept_seconds(service, purpose, upload.fields),
    }


def _purpose(written: str | None) -> FilePurpose:
    if written is None:
        raise ApiError(
            400, "Missing required parameter: 'purpose'.", code="missing_required_parameter", param="purpose"
        )
    if written not in UPLOADABLE:
        listed = ", ".join(f"'{purpose}'" for purpose in sorted(UPLOADABLE))
        message = f"'{written[:64]}' is not one of [{listed}] - 'purpose'"
        raise ApiError(400, message, code="invalid_value", param="purpose")
    return FilePurpose(written)


def _kept_seconds(service: Service, purpose: FilePurpose, fields: dict[str, str]) -> int | None:
    anchor, written = fields.get("expires_after[anchor]"), fields.get("expires_after[seconds]")
    if anchor is None and written is None:
        return kept_seconds(service.settings, purpose, None)
    if anchor != "created_at":
        message = "Invalid value for 'expires_after.anchor'. Supported values are: 'created_at'."
        raise ApiError(400, message, code="invalid_value", param="expires_after.anchor")
    if not (written or "").isdecimal() or not _KEPT_SECONDS_MIN <= int(written or 0) <= _KEPT_SECONDS_MAX:
        message = f"Invalid value for 'expires_after.seconds': expected an integer from {_KEPT_SECONDS_MIN} to {_KEPT_SECONDS_MAX}."
        raise ApiError(400, message, code="invalid_value", param="expires_after.seconds")
    return int(written or 0)


def _store(service: Service, draft: dict[str, Any], path: Path) -> FileView:
    file_id = new_file_id()
    stored = service.stack.objects.put(file_key(draft["tenant_id"], file_id), path)
    return service.stack.files.add(FileDraft(file_id=file_id, stored=stored, **draft))
