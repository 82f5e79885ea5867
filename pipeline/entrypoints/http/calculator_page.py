"""`/calculators`: the calculators as a web page, for whoever comes; it works with nothing but its address."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Final

from anyio import to_thread
from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, Response

from pipeline.app.calculating import known_prices, with_prices
from pipeline.entrypoints.http.documents import answer
from pipeline.entrypoints.http.errors import ApiError
from pipeline.report.calculators.answers import csv_text, document
from pipeline.report.calculators.catalogue import CALCULATORS
from pipeline.report.calculators.fields import fields_of, read
from pipeline.report.calculators.page import (
    CALCULATOR_PARAM,
    FORMAT_PARAM,
    PATH,
    Asked,
    content_security_policy,
    not_found_page,
    page,
)

router = APIRouter(tags=["Calculators"], include_in_schema=False)

_QUERY_BYTES_MAX: Final = 16 * 1024
_FIRST: Final = "model"
_XLSX_TYPE: Final = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
_NOT_FOUND: Final = 404
_BAD_REQUEST: Final = 400


@router.get(PATH)
async def calculators(request: Request) -> Response:
    """Show a calculator, and what comes of the inputs in the address."""
    if len(request.scope["query_string"]) > _QUERY_BYTES_MAX:
        raise ApiError(_BAD_REQUEST, f"The address is longer than {_QUERY_BYTES_MAX:,} bytes.")
    query = dict(request.query_params)
    return await to_thread.run_sync(_respond, query)


def _respond(query: Mapping[str, str]) -> Response:
    name = query.get(CALCULATOR_PARAM, _FIRST)
    if name not in CALCULATORS:
        return _html(not_found_page(name), status=_NOT_FOUND)
    asked = _asked(name, query)
    form = query.get(FORMAT_PARAM)
    if form is None or asked.problems:
        return _html(page(asked), status=_BAD_REQUEST if asked.problems else 200)
    return _download(asked, form)


def _asked(name: str, query: Mapping[str, str]) -> Asked:
    calculator = CALCULATORS[name]
    # Whatever else is in an address, others put there.
    names = {each.public for each in fields_of(calculator.inputs)}
    texts = {key: text.replace("\r\n", "\n") for key, text in query.items() if key in names}
    given, problems = read(calculator.inputs, texts)
    formats = ("csv", "json", "xlsx") if find_spec("xlsxwriter") else ("csv", "json")
    if problems:
        return Asked(calculator=calculator, texts=texts, problems=problems, formats=formats)
    inputs = with_prices(given, known_prices())
    return Asked(
        calculator=calculator,
        texts=texts,
        problems={},
        inputs=inputs,
        result=calculator.calculate(inputs),
        formats=formats,
    )


def _download(asked: Asked, form: str) -> Response:
    if form not in asked.formats or asked.inputs is None or asked.result is None:
        raise ApiError(_BAD_REQUEST, f"The format is one of {', '.join(asked.formats)}.", param=FORMAT_PARAM)
    named = {"Content-Disposition": f'attachment; filename="nightrate-{asked.calculator.name}.{form}"', **_PLAIN}
    if form == "json":
        response = answer(document(asked.calculator, asked.inputs, asked.result))
        response.headers.update(named)
        return response
    if form == "csv":
        text = csv_text(asked.calculator, asked.inputs, asked.result)
        return Response(text, headers=named, media_type="text/csv")
    from pipeline.report.calculators.workbook import workbook

    return Response(workbook(asked.calculator, asked.inputs, asked.result), headers=named, media_type=_XLSX_TYPE)


_PLAIN: Final[Mapping[str, str]] = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def _html(text: str, *, status: int) -> Response:
    headers = {"Content-Security-Policy": content_security_policy(), **_PLAIN}
    return HTMLResponse(text, status_code=status, headers=headers)
