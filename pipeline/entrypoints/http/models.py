"""`/v1/models`."""

from __future__ import annotations

from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response

from pipeline.domain.access import Permission
from pipeline.entrypoints.http import schemas
from pipeline.entrypoints.http.access import Caller, permitted
from pipeline.entrypoints.http.documents import answer, model_document, models_document
from pipeline.entrypoints.http.errors import ApiError
from pipeline.entrypoints.http.service import service_of

router = APIRouter(tags=["Models"])

Reading = Annotated[Caller, Depends(permitted(Permission.READ_BATCHES))]


@router.get("/v1/models", response_model=schemas.ModelList, responses=schemas.errors(), summary="List models")
async def list_models(request: Request, _caller: Reading) -> Response:
    """List the models that batches can name, with the endpoints each serves."""
    return answer(models_document(sorted((await _endpoints(request)).items())))


@router.get(
    "/v1/models/{model:path}", response_model=schemas.Model, responses=schemas.errors(404), summary="Retrieve a model"
)
async def retrieve_model(request: Request, _caller: Reading, model: str) -> Response:
    """Tell which endpoints a model serves."""
    endpoints = (await _endpoints(request)).get(model)
    if endpoints is None:
        raise ApiError(404, f"The model '{model}' does not exist.", code="model_not_found", param="model")
    return answer(model_document(model, endpoints))


async def _endpoints(request: Request) -> dict[str, list[str]]:
    found = await to_thread.run_sync(service_of(request).stack.endpoints_of_models)
    return {name: sorted(str(endpoint) for endpoint in endpoints) for name, endpoints in found.items()}
