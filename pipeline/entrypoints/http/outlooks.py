"""`/v1/organization/forecast`: demand and cost of the hours to come."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response

from pipeline.app.forecast_documents import outlook_document
from pipeline.app.forecasting import HOURS_MAX, look_ahead
from pipeline.domain.access import Permission
from pipeline.entrypoints.http import outlook_schemas, schemas
from pipeline.entrypoints.http.access import Caller, permitted
from pipeline.entrypoints.http.batches import FORECASTS_AT_ONCE
from pipeline.entrypoints.http.documents import answer
from pipeline.entrypoints.http.service import service_of
from pipeline.ports.demand import Breakdown
from storage.demand import DemandRepository

router = APIRouter(tags=["Organization"])

Reading = Annotated[Caller, Depends(permitted(Permission.READ_USAGE))]


@router.get(
    "/v1/organization/forecast",
    response_model=outlook_schemas.OrganizationForecast,
    responses=schemas.errors(400),
    summary="Forecast demand and cost",
)
async def forecast(
    request: Request,
    caller: Reading,
    *,
    hours: Annotated[int, Query(ge=1, le=HOURS_MAX, description="How far ahead, from the last full hour on.")] = 24,
    by: Annotated[Breakdown | None, Query(description="What to tell apart besides the whole.")] = None,
) -> Response:
    """Tell what tokens and cost the coming hours will bring, by the organization's own history, and the month's end."""
    stack = service_of(request).stack
    found = await to_thread.run_sync(
        lambda: look_ahead(
            DemandRepository(stack.database),
            now=datetime.now(UTC),
            hours=hours,
            currency=stack.settings.currency,
            by=by,
            scope=caller.scope,
        ),
        limiter=FORECASTS_AT_ONCE,
    )
    document = outlook_document(found)
    # Workers serve all: how many are wanted would tell of others.
    del document["workers"]
    return answer(document)
