"""`/v1/batches/{id}/results`: results while they come in, and in other shapes."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from typing import Annotated, Any, Final, cast

from anyio import CancelScope, to_thread
from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response, StreamingResponse

from pipeline.app.results import result_chunks
from pipeline.domain.access import Permission
from pipeline.domain.results import ResultFormat
from pipeline.entrypoints.http import schemas
from pipeline.entrypoints.http.access import Caller, permitted
from pipeline.entrypoints.http.batches import looked_up
from pipeline.entrypoints.http.service import service_of

router = APIRouter(tags=["Batches"])

_MEDIA_TYPES: Final = {
    ResultFormat.JSONL: "application/x-ndjson",
    ResultFormat.MERGED: "application/x-ndjson",
    ResultFormat.PARQUET: "application/vnd.apache.parquet",
}
_ROWS: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "description": "The rows, in the order of the input.",
        "content": {
            media_type: {"schema": {"type": "string", "format": "binary"}} for media_type in _MEDIA_TYPES.values()
        },
    }
}

ReadingContent = Annotated[Caller, Depends(permitted(Permission.READ_CONTENT))]


@router.get(
    "/v1/batches/{batch_id}/results",
    response_class=Response,
    responses={**schemas.errors(400, 404, 409), **_ROWS},
    summary="Read a batch's results",
)
async def read_results(
    request: Request,
    caller: ReadingContent,
    batch_id: str,
    kind: Annotated[
        ResultFormat,
        Query(
            alias="format",
            description="`jsonl`: the lines of the output and error files; `merged`: the input's lines with their "
            "responses; `parquet`: a table.",
        ),
    ] = ResultFormat.JSONL,
    partial: Annotated[bool, Query(description="Of a batch that still runs, the rows that are finished.")] = False,  # noqa: FBT002 -- a query parameter
) -> Response:
    """Return the results in input order, while the batch runs or once it has ended."""
    stack = service_of(request).stack
    view = await looked_up(request, caller, batch_id)
    chunks = cast("Generator[bytes]", result_chunks(stack, view, kind, is_partial=partial))
    # The first piece comes after whatever can go wrong, and after the parts were gathered.
    first = await to_thread.run_sync(next, chunks, None, limiter=request.app.state.heavy)
    headers = {
        "Content-Disposition": f'attachment; filename="{view.batch_id}{kind.suffix}"',
        "Cache-Control": "no-store",
        "X-Content-Type-Options": "nosniff",
    }
    return StreamingResponse(_stream(first, chunks), headers=headers, media_type=_MEDIA_TYPES[kind])


async def _stream(first: bytes | None, chunks: Generator[bytes]) -> AsyncGenerator[bytes]:
    try:
        chunk = first
        while chunk is not None:
            yield chunk
            chunk = await to_thread.run_sync(next, chunks, None)
    finally:
        # What it reads from is closed whether or not the client stayed.
        with CancelScope(shield=True):
            await to_thread.run_sync(chunks.close)
