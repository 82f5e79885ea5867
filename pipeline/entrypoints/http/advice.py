"""`/v1/organization/advice`: what would save money."""

from __future__ import annotations

from typing import Annotated, Literal

from anyio import to_thread
from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from pipeline.app.advising import DAYS_BY_DEFAULT, DAYS_MAX, advice, advice_document
from pipeline.domain.access import Permission
from pipeline.entrypoints.http import schemas
from pipeline.entrypoints.http.access import Caller, permitted
from pipeline.entrypoints.http.batches import FORECASTS_AT_ONCE
from pipeline.entrypoints.http.documents import answer
from pipeline.entrypoints.http.service import service_of
from pipeline.report.advice.proposals import AdviceKind, Confidence

router = APIRouter(tags=["Organization"])

Reading = Annotated[Caller, Depends(permitted(Permission.READ_USAGE))]


class Suggestion(BaseModel):
    """Something to do, and what it saves."""

    model_config = ConfigDict(extra="allow")

    rank: int
    kind: AdviceKind
    subject: str
    sentence: str
    saving_per_month: str = Field(description="In thirty days, with all that is ranked before it done.")
    saving_alone_per_month: str = Field(description="In thirty days, with nothing else done.")
    confidence: Confidence
    evidence: dict[str, int | float | str] = Field(description="The numbers that it rests on; money as decimal text.")
    command: str


class AdviceDocument(BaseModel):
    """Suggestions, the best first; their savings count nothing twice."""

    model_config = ConfigDict(extra="allow")

    object: Literal["organization.advice"]
    since: str
    until: str
    currency: str
    spent_per_month: str
    saving_per_month: str
    data: list[Suggestion]


@router.get(
    "/v1/organization/advice",
    response_model=AdviceDocument,
    responses=schemas.errors(400),
    summary="Retrieve advice",
)
async def retrieve_advice(
    request: Request,
    caller: Reading,
    *,
    days: Annotated[int, Query(ge=1, le=DAYS_MAX, description="How far back to look.")] = DAYS_BY_DEFAULT,
) -> Response:
    """Tell what would save money, from what batches of the last days took; where they ran is not told."""
    stack = service_of(request).stack
    found = await to_thread.run_sync(lambda: advice(stack, caller.scope, days=days), limiter=FORECASTS_AT_ONCE)
    return answer(advice_document(found))
