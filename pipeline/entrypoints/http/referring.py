"""Files by reference: the client says where a file lies, and we fetch it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Final

from anyio import to_thread
from fastapi import Request
from pydantic import ValidationError

from pipeline.app.serving import Service
from pipeline.domain.errors import NotFoundError, RefusedError, UsageError
from pipeline.domain.files import FilePurpose
from pipeline.entrypoints.http.access import Caller
from pipeline.entrypoints.http.errors import ApiError, invalid
from pipeline.entrypoints.http.file_schemas import FileReference
from pipeline.entrypoints.http.retention import check_name, kept_seconds

_LOG = logging.getLogger(__name__)

_BYTES_MAX: Final = 16 * 1024
_MEDIA_TYPE: Final = "application/json"


def is_reference(content_type: str) -> bool:
    """Say whether a body of that type names a file instead of holding it."""
    return content_type.partition(";")[0].strip().lower() == _MEDIA_TYPE


async def receive_reference(request: Request, service: Service, caller: Caller, path: Path) -> dict[str, Any]:
    """Fetch what the body names to `path`, and return what is to be recorded of it; raises `ApiError`."""
    asked = _read(await _body(request))
    purpose = FilePurpose(asked.purpose)
    filename = asked.filename or asked.url.rpartition("/")[2]
    check_name(filename, purpose)

    def fetch() -> int:
        service.inputs.copy(caller.tenant_id, asked.url, path, bytes_max=service.settings.upload_bytes_max)
        return path.stat().st_size

    try:
        size_bytes = await to_thread.run_sync(fetch, limiter=request.app.state.heavy)
    except NotFoundError as error:
        raise ApiError(400, error.message, code="invalid_file_url", param="url") from None
    except UsageError as error:
        # The installation's own business: a bucket that is not there, rights that are missing.
        _LOG.warning("input_place_unusable", extra={"reason": error.message})
        raise ApiError(400, "There is nothing to read at this URL.", code="invalid_file_url", param="url") from None
    except RefusedError as error:
        raise ApiError(400, error.message, code="file_not_taken", param="url") from None
    if not size_bytes:
        raise ApiError(400, "The file is empty.", code="empty_file", param="url")
    return {
        "filename": filename,
        "purpose": purpose,
        "tenant_id": caller.tenant_id,
        "project_id": caller.home_project_id,
        "kept_seconds": kept_seconds(service.settings, purpose, asked.expires_after),
    }


async def _body(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _BYTES_MAX:
            raise ApiError(413, f"The request's body is larger than {_BYTES_MAX} bytes.", code="request_too_large")
    return bytes(body)


def _read(body: bytes) -> FileReference:
    try:
        return FileReference.model_validate_json(body)
    except ValidationError as error:
        raise invalid(error.errors()) from None
