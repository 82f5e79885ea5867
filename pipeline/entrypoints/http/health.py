"""`/healthz` and `/readyz`: for load balancers, without a key."""

from __future__ import annotations

from anyio import to_thread
from fastapi import APIRouter, Request
from fastapi.responses import Response

from pipeline.domain.errors import NightrateError
from pipeline.entrypoints.http.documents import answer
from pipeline.entrypoints.http.service import service_of
from storage.overview import clock

router = APIRouter(tags=["Health"], include_in_schema=False)


@router.get("/healthz")
async def healthz() -> Response:
    """Say that the process answers."""
    return answer({"status": "ok"})


@router.get("/readyz")
async def readyz(request: Request) -> Response:
    """Say whether the process can do its work."""
    database = service_of(request).stack.database
    try:
        await to_thread.run_sync(clock, database)
    except NightrateError:
        return answer({"status": "unavailable", "postgres": False}, status=503)
    return answer({"status": "ok", "postgres": True})
