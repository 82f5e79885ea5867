"""`/v1/organization/limits`."""

from __future__ import annotations

from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response

from pipeline.app.headroom import headrooms
from pipeline.domain.access import Permission
from pipeline.entrypoints.http import limits_schemas, schemas
from pipeline.entrypoints.http.access import Caller, permitted
from pipeline.entrypoints.http.documents import answer, seconds
from pipeline.entrypoints.http.limiting import RateKeeper
from pipeline.entrypoints.http.service import service_of

router = APIRouter(tags=["Organization"])

Reading = Annotated[Caller, Depends(permitted(Permission.READ_BATCHES))]


@router.get(
    "/v1/organization/limits",
    response_model=limits_schemas.Limits,
    responses=schemas.errors(),
    summary="Retrieve limits",
)
async def retrieve_limits(request: Request, caller: Reading) -> Response:
    """Tell what the plan allows, and what is left of it."""
    rates: RateKeeper = request.app.state.rates
    view = await to_thread.run_sync(service_of(request).quotas.see, caller.tenant_id)
    known = await rates.look(caller.tenant_id, view.plan)
    return answer(
        {
            "object": "organization.limits",
            "organization_id": view.tenant_id,
            "plan": view.plan.name,
            "tiers": [str(tier) for tier in view.plan.tiers],
            "data": [
                {
                    "name": each.name,
                    "model": each.model,
                    "limit": each.limit,
                    "burst": each.burst,
                    "used": each.used,
                    "remaining": each.remaining,
                    "resets_at": seconds(each.resets_at),
                }
                for each in headrooms(view, known)
            ],
        }
    )
