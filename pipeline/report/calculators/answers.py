"""Answers as documents and as lines of CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from decimal import Context, Decimal, localcontext
from typing import Final

from pipeline.domain.money import amount
from pipeline.report.calculators.catalogue import Calculator
from pipeline.report.calculators.fields import Described, Kind, fields_of, written

_DECIMALS: Final = 6
#: More than any answer has.
_DIGITS: Final = 100
Document = dict[str, object]


def document(calculator: Calculator, inputs: object, result: object) -> Document:
    """Return inputs and answers by their public names: money as decimal text, other numbers rounded to six decimals."""
    return {
        "object": "calculation",
        "calculator": calculator.name,
        "inputs": _named(inputs),
        "assumptions": [
            {"name": each.public, "unit": each.spec.unit, "source": source_of(each, inputs)}
            for each in fields_of(calculator.inputs)
        ],
        "result": _named(result),
    }


def source_of(described: Described, inputs: object) -> str:
    """Return where an input's value comes from."""
    # Of tables nobody can tell: known prices stand in where none were given.
    is_default = described.spec.kind is Kind.ROWS or getattr(inputs, described.name) == described.default
    return described.spec.source if is_default else "given"


def csv_text(calculator: Calculator, inputs: object, result: object) -> str:
    """Return inputs and answers as CSV: name, value, unit, source; then each table with its own head."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(("name", "value", "unit", "source"))
    for each in fields_of(calculator.inputs):
        if each.spec.kind is not Kind.ROWS:
            shown = written(getattr(inputs, each.name), each.spec.kind)
            writer.writerow((each.public, shown, each.spec.unit, source_of(each, inputs)))
    for each in fields_of(calculator.result):
        if each.spec.kind is not Kind.ROWS:
            writer.writerow((each.public, _cell(each, result), each.spec.unit, "result"))
    for described, row_shape, table in tables_of(calculator, inputs, result):
        writer.writerow(())
        writer.writerow((described.public,))
        writer.writerow([column.public for column in fields_of(row_shape)])
        for row in table:
            writer.writerow([_cell(column, row) for column in fields_of(row_shape)])
    return out.getvalue()


def tables_of(
    calculator: Calculator, inputs: object, result: object
) -> Iterator[tuple[Described, type, tuple[object, ...]]]:
    """Return the tables, of the inputs and then of the answers, with what their rows are."""
    for shape, holder in ((calculator.inputs, inputs), (calculator.result, result)):
        for each in fields_of(shape):
            if each.spec.kind is Kind.ROWS:
                assert each.spec.row is not None
                yield each, each.spec.row, getattr(holder, each.name)


def plain(kind: Kind, value: object) -> object:
    """Return a value as JSON has it."""
    match value:
        case None:
            return None
        case tuple():
            return [_named(row) for row in value]
        case Decimal():
            with localcontext(Context(prec=_DIGITS)):
                return float(round(value, _DECIMALS))
        case int() if kind is Kind.AMOUNT:
            return amount(value)
        case _:
            return value


def _named(holder: object) -> Document:
    return {each.public: plain(each.spec.kind, getattr(holder, each.name)) for each in fields_of(type(holder))}


def _cell(described: Described, holder: object) -> object:
    value = plain(described.spec.kind, getattr(holder, described.name))
    return "" if value is None else value
