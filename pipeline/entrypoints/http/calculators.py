"""`/v1/calculators/…` and the page of them: what something would cost, worked out from what is asked alone."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from anyio import to_thread
from fastapi import APIRouter, Depends
from fastapi.responses import Response
from pydantic import BaseModel

from pipeline.app.calculating import known_prices, with_prices
from pipeline.domain.access import Permission
from pipeline.entrypoints.http import schemas
from pipeline.entrypoints.http.access import Caller, permitted
from pipeline.entrypoints.http.calculator_schemas import answered_by, asked_of
from pipeline.entrypoints.http.documents import answer
from pipeline.report.calculators.answers import Document, document
from pipeline.report.calculators.catalogue import CALCULATORS, Calculator
from pipeline.report.calculators.fields import from_document

router = APIRouter(tags=["Calculators"])

Reading = Annotated[Caller, Depends(permitted(Permission.READ_BATCHES))]


def _route(calculator: Calculator) -> Callable[..., Awaitable[Response]]:
    """Return the route of a calculator; what its body is, is known when it is made."""

    async def calculate(caller: Caller, asked: BaseModel) -> Response:
        del caller
        given = asked.model_dump(exclude_unset=True)
        return answer(await to_thread.run_sync(lambda: _document(calculator, given)))

    calculate.__doc__ = f"{calculator.summary} Whatever is not given has a default, and the answer says where from."
    calculate.__annotations__ = {"caller": Reading, "asked": asked_of(calculator), "return": Response}
    return calculate


def _document(calculator: Calculator, given: dict[str, Any]) -> Document:
    inputs = with_prices(from_document(calculator.inputs, given), known_prices())
    return document(calculator, inputs, calculator.calculate(inputs))


for _each in CALCULATORS.values():
    router.add_api_route(
        f"/v1/calculators/{_each.name}",
        _route(_each),
        methods=["POST"],
        response_model=answered_by(_each),
        responses=schemas.errors(400),
        summary=_each.title,
        operation_id=f"calculate_{_each.name.replace('-', '_')}",
    )
