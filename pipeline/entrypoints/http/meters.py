"""`/v1/batches/{id}/meters`: what a batch took of the workers that ran it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Literal

from anyio import to_thread
from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict

from pipeline.entrypoints.http import schemas
from pipeline.entrypoints.http.batches import Reading, looked_up
from pipeline.entrypoints.http.documents import answer
from pipeline.entrypoints.http.service import service_of
from storage.meters import MeterRepository

router = APIRouter(tags=["Batches"])

#: Of the worker's whole process, and so of others' batches too.
_UNTOLD = frozenset({"memory_peak_bytes"})


class Meters(BaseModel):
    """What a batch took of its attempts, shared as their price is; null where nothing measured it."""

    object: Literal["batch.meters"]
    batch_id: str
    attempts: int
    fingerprints: list[str]
    tokens: int
    engine_us: int | None
    bubble_us: int | None
    cpu_us: int | None
    engine_steps: int | None
    slot_steps_busy: int | None
    slot_steps: int | None
    tokens_prefilled: int | None
    tokens_cached: int | None
    tokens_generated: int | None
    tokens_padding: int | None
    energy_millijoules: int | None
    energy_sources: list[str]

    model_config = ConfigDict(extra="allow")


@router.get(
    "/v1/batches/{batch_id}/meters",
    response_model=Meters,
    responses=schemas.errors(404),
    summary="Retrieve a batch's meters",
)
async def retrieve_meters(request: Request, caller: Reading, batch_id: str) -> Response:
    """Tell what a batch took: time of engines and processors, steps, tokens computed and cached, energy."""
    view = await looked_up(request, caller, batch_id)
    meters = MeterRepository(service_of(request).stack.database)
    found = asdict(await to_thread.run_sync(meters.batch_meters, view.batch_id))
    told = {name: value for name, value in found.items() if name not in _UNTOLD}
    return answer({"object": "batch.meters", "batch_id": view.batch_id, **told})
