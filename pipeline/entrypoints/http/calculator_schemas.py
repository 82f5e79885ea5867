"""The shapes of calculations, made from what each calculator asks and answers."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, create_model

from pipeline.entrypoints.http.schemas import WHOLE
from pipeline.report.calculators.catalogue import Calculator
from pipeline.report.calculators.fields import (
    AMOUNT_PATTERN,
    NAME_PATTERN,
    ROWS_MAX,
    Described,
    Kind,
    fields_of,
    written,
)

_EXAMPLES: Final[Mapping[str, Mapping[str, object]]] = {
    "model": {
        "parameters_billions": 8,
        "weight_bits": "8",
        "requests_per_month": 1_000_000,
        "offers": [
            {"name": "p5.4xlarge", "gpu": "H100", "gpus": 1, "market": "on_demand", "price_per_hour": "6.88"},
            {"name": "g6.xlarge", "gpu": "L4", "gpus": 1, "market": "on_demand", "price_per_hour": "0.8048"},
        ],
    },
    "tco": {"servers": 2, "horizon_months": 48, "server_price": "280000.00"},
    "roi": {"moving_from": "api_batch", "one_off": "5000.00"},
    "whatif": {"new_spot_percent": 90},
    "buy-or-make": {
        "input_tokens_per_month": 2_000_000_000,
        "output_tokens_per_month": 500_000_000,
        "apis": [
            {"name": "gpt-4.1-nano (batch)", "price_per_million_input": "0.05", "price_per_million_output": "0.20"}
        ],
    },
}


class Assumption(BaseModel):
    """Where an input's value comes from."""

    model_config = ConfigDict(extra="allow")

    name: str
    unit: str
    source: str = Field(description="`given`, or what the default stands on.")


@cache
def asked_of(calculator: Calculator) -> type[BaseModel]:
    """Return the body of a calculator's route."""
    return _model(calculator.inputs, is_input=True, example=_EXAMPLES[calculator.name], doc=calculator.summary)


@cache
def answered_by(calculator: Calculator) -> type[BaseModel]:
    """Return the answer of a calculator's route."""
    fields: dict[str, Any] = {
        "object": (Literal["calculation"], ...),
        "calculator": (Literal[calculator.name], ...),
        "inputs": (asked_of(calculator), ...),
        "assumptions": (list[Assumption], ...),
        "result": (_model(calculator.result, is_input=False), ...),
    }
    name = f"{calculator.result.__name__}Calculation"
    return create_model(name, __config__=ConfigDict(extra="allow"), __doc__=calculator.title, **fields)


def _model(
    shape: type, *, is_input: bool, example: Mapping[str, object] | None = None, doc: str | None = None
) -> type[BaseModel]:
    fields: dict[str, Any] = {}
    for each in fields_of(shape):
        kind = _asked(each) if is_input else _answered(each)
        fields[each.public] = (kind, _default(each) if is_input and not each.is_required else ...)
    extra: Any = {"example": example} if example else None
    config = ConfigDict(extra="forbid" if is_input else "allow", json_schema_extra=extra)
    return create_model(shape.__name__, __config__=config, __doc__=doc or shape.__doc__, **fields)


def _default(each: Described) -> object:
    match each.spec.kind:
        case Kind.AMOUNT:
            return written(each.default, Kind.AMOUNT)
        case Kind.NUMBER:
            return float(each.default)
        case Kind.ROWS:
            return []
        case _:
            return each.default


def _asked(each: Described) -> Any:  # noqa: ANN401 -- a type
    spec = each.spec
    unit = f", {spec.unit}" if spec.unit else ""
    said = f"{spec.label}{unit}. Default: {spec.source}." if spec.source else f"{spec.label}{unit}."
    match spec.kind:
        case Kind.COUNT:
            return Annotated[int, Field(strict=True, ge=int(spec.low), le=int(spec.high), description=said), WHOLE]
        case Kind.NUMBER:
            bounds = Field(strict=True, ge=float(spec.low), le=float(spec.high), allow_inf_nan=False, description=said)
            return Annotated[float, bounds]
        case Kind.AMOUNT:
            return Annotated[str, StringConstraints(strict=True, pattern=AMOUNT_PATTERN), Field(description=said)]
        case Kind.CHOICE:
            return Annotated[Literal[spec.choices], Field(description=said)]
        case Kind.NAME:
            return Annotated[str, StringConstraints(strict=True, pattern=NAME_PATTERN), Field(description=said)]
        case Kind.ROWS:
            assert spec.row is not None
            return Annotated[list[_row(spec.row, is_input=True)], Field(max_length=ROWS_MAX, description=said)]  # type: ignore[misc]  # made here
        case Kind.FLAG:
            raise AssertionError("no input is a flag")


def _answered(each: Described) -> Any:  # noqa: ANN401 -- a type
    spec = each.spec
    if spec.row is not None:
        return list[_row(spec.row, is_input=False)]  # type: ignore[misc]  # made here
    plain = {Kind.COUNT: int, Kind.NUMBER: float, Kind.FLAG: bool}.get(spec.kind, str)
    unit = f", {spec.unit}" if spec.unit else ""
    return Annotated[plain | None if each.is_optional else plain, Field(description=f"{spec.label}{unit}.")]


@cache
def _row(shape: type, *, is_input: bool) -> type[BaseModel]:
    return _model(shape, is_input=is_input)
