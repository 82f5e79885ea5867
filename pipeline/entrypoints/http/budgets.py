"""`/v1/organization/budgets`."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response

from pipeline.app.budgets import budget_document, ppm_of_share
from pipeline.domain.access import Permission
from pipeline.domain.costs.budgets import BudgetScope, BudgetStanding, BudgetTerms
from pipeline.domain.ids import ProjectId, new_budget_id, new_top_up_id
from pipeline.domain.money import micros_of
from pipeline.entrypoints.http import budget_schemas, schemas
from pipeline.entrypoints.http.access import Caller, permitted
from pipeline.entrypoints.http.documents import answer, list_document
from pipeline.entrypoints.http.errors import ApiError
from pipeline.entrypoints.http.service import service_of
from pipeline.ports.budgets import BudgetDraft

router = APIRouter(tags=["Organization"])

Reading = Annotated[Caller, Depends(permitted(Permission.READ_USAGE))]
Managing = Annotated[Caller, Depends(permitted(Permission.MANAGE_BUDGETS))]


@router.get(
    "/v1/organization/budgets",
    response_model=budget_schemas.BudgetList,
    responses=schemas.errors(),
    summary="List budgets",
)
async def list_budgets(request: Request, caller: Reading) -> Response:
    """List all budgets, the oldest first, each with what is spent and reserved in its current period."""
    service = service_of(request)
    found = await to_thread.run_sync(service.budgets.list, caller.scope)
    documents = (budget_document(each, service.settings.currency) for each in found)
    return answer(list_document(documents, limit=len(found)))


@router.post(
    "/v1/organization/budgets",
    response_model=budget_schemas.Budget,
    responses=schemas.errors(400, 404, 413),
    summary="Set a budget",
)
async def set_budget(request: Request, caller: Managing, asked: budget_schemas.SetBudget) -> Response:
    """Limit what may be charged in a period; a scope has one budget for each period, which this makes or replaces."""
    _check_whole(caller)
    terms = _changed(BudgetTerms(amount_micros=micros_of(asked.amount)), asked)
    draft = BudgetDraft(
        budget_id=new_budget_id(),
        scope=BudgetScope(
            tenant_id=caller.tenant_id, project_id=None if asked.project_id is None else ProjectId(asked.project_id)
        ),
        period=asked.period,
        terms=terms,
    )
    return _told(request, await to_thread.run_sync(service_of(request).budgets.set, draft))


@router.get(
    "/v1/organization/budgets/{budget_id}",
    response_model=budget_schemas.Budget,
    responses=schemas.errors(404),
    summary="Retrieve a budget",
)
async def retrieve_budget(request: Request, caller: Reading, budget_id: str) -> Response:
    """Tell what is spent and reserved of a budget, and what is left."""
    return _told(request, await _budget(request, caller, budget_id))


@router.patch(
    "/v1/organization/budgets/{budget_id}",
    response_model=budget_schemas.Budget,
    responses=schemas.errors(400, 404, 413),
    summary="Change a budget",
)
async def change_budget(
    request: Request, caller: Managing, budget_id: str, asked: budget_schemas.ChangeBudget
) -> Response:
    """Raise or lower a budget, or change what is told and who waits first."""
    known = await _budget(request, caller, budget_id)
    _check_whole(caller)
    amount_micros = known.terms.amount_micros if asked.amount is None else micros_of(asked.amount)
    terms = _changed(replace(known.terms, amount_micros=amount_micros), asked)
    budgets = service_of(request).budgets
    return _told(request, await to_thread.run_sync(budgets.change, budget_id, caller.scope, terms))


@router.delete(
    "/v1/organization/budgets/{budget_id}",
    response_model=budget_schemas.DeletedBudget,
    responses=schemas.errors(404),
    summary="Delete a budget",
)
async def delete_budget(request: Request, caller: Managing, budget_id: str) -> Response:
    """Lift a limit; what waited for it goes on."""
    await _budget(request, caller, budget_id)
    _check_whole(caller)
    await to_thread.run_sync(service_of(request).budgets.remove, budget_id, caller.scope)
    return answer({"id": budget_id, "object": "organization.budget", "deleted": True})


@router.post(
    "/v1/organization/budgets/{budget_id}/top_up",
    response_model=budget_schemas.Budget,
    responses=schemas.errors(400, 404, 409, 413),
    summary="Top a budget up",
)
async def top_up(request: Request, caller: Managing, budget_id: str, asked: budget_schemas.TopUp) -> Response:
    """Add to a budget for its current period; what waited for it goes on at once."""
    await _budget(request, caller, budget_id)
    _check_whole(caller)
    budgets = service_of(request).budgets
    # One's own id is one's own: another tenant's says nothing of it.
    top_up_id = new_top_up_id() if asked.id is None else f"{caller.tenant_id}:{asked.id}"
    micros = micros_of(asked.amount)
    view = await to_thread.run_sync(lambda: budgets.top_up(budget_id, caller.scope, top_up_id=top_up_id, micros=micros))
    return _told(request, view)


async def _budget(request: Request, caller: Caller, budget_id: str) -> BudgetStanding:
    return await to_thread.run_sync(service_of(request).budgets.get, budget_id, caller.scope)


def _changed(terms: BudgetTerms, asked: budget_schemas.SetBudget | budget_schemas.ChangeBudget) -> BudgetTerms:
    shares = terms.alert_shares_ppm
    if asked.alert_shares is not None:
        shares = tuple(sorted({ppm_of_share(share) for share in asked.alert_shares}))
    return replace(
        terms,
        alert_shares_ppm=shares,
        core_tiers=terms.core_tiers if asked.core_tiers is None else frozenset(asked.core_tiers),
        core_share_ppm=terms.core_share_ppm if asked.core_share is None else ppm_of_share(asked.core_share),
    )


def _told(request: Request, standing: BudgetStanding) -> Response:
    return answer(budget_document(standing, service_of(request).settings.currency))


def _check_whole(caller: Caller) -> None:
    if caller.scope.project_id is not None:
        raise ApiError(
            403,
            "Budgets are set by keys of the whole organization, without an OpenAI-Project header.",
            code="forbidden",
        )
