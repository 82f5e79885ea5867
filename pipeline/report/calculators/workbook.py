"""A calculation as an Excel workbook that goes on calculating: inputs in one sheet, answers as formulas in others.

Inputs and answers are defined names, so that a formula reads as it does in `FORMULAS`. What no formula stands for (layouts on GPUs,
rankings, the tornado) is written as a value, and the sheet says so.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final

from pipeline.domain.errors import NightrateError
from pipeline.domain.money import MICROS_PER_UNIT
from pipeline.report.calculators.answers import source_of
from pipeline.report.calculators.catalogue import Calculator
from pipeline.report.calculators.fields import Described, Kind, fields_of

_INPUTS: Final = "Inputs"
_ANSWERS: Final = "Answers"
_FORMATS: Final[Mapping[Kind, str]] = {
    Kind.AMOUNT: "#,##0.00####",
    Kind.COUNT: "#,##0",
    Kind.NUMBER: "#,##0.0###",
}
_COLUMN: Final = re.compile(r"\[([a-z_]+)\]")
_WHOLE_COLUMN: Final = re.compile(r"\{([a-z_]+)\.([a-z_]+)\}")
_WIDTHS: Final = (46, 18, 18, 70)


class XlsxMissingError(NightrateError):
    """Sheets need the package xlsxwriter."""

    code = "xlsx_missing"


@dataclass(slots=True)
class _Book:
    """The workbook while it is written."""

    calculator: Calculator
    workbook: Any
    #: Where columns of tables lie, for sums over them.
    columns: dict[str, str] = field(default_factory=dict)

    def format_of(self, kind: Kind, *, is_input: bool = False) -> Any:  # noqa: ANN401 -- XlsxWriter has no types
        look: dict[str, object] = {"num_format": _FORMATS.get(kind, "General"), "align": "right"}
        if is_input:
            look |= {"bg_color": "#FFF7DB", "border": 1, "border_color": "#D9C27A"}
        return self.workbook.add_format(look)


def workbook(calculator: Calculator, inputs: object, result: object) -> bytes:
    """Return the workbook, or raise `XlsxMissingError` where the writer is not installed."""
    try:
        import xlsxwriter
    except ModuleNotFoundError as error:
        raise XlsxMissingError(hint="pip install 'nightrate[xlsx]'") from error
    out = io.BytesIO()
    with xlsxwriter.Workbook(
        out, {"in_memory": True, "strings_to_formulas": False, "strings_to_urls": False}
    ) as opened:
        opened.set_properties({"title": calculator.title, "comments": calculator.summary})
        book = _Book(calculator, opened)
        answers = opened.add_worksheet(_ANSWERS)
        sheet = opened.add_worksheet(_INPUTS)
        _write_facts(book, sheet, _INPUTS, inputs, inputs)
        for holder in (inputs, result):
            for each in fields_of(type(holder)):
                if each.spec.row is not None:
                    _write_table(book, each, each.spec.row, getattr(holder, each.name))
        _write_facts(book, answers, _ANSWERS, result, inputs)
    return out.getvalue()


def _write_facts(book: _Book, sheet: Any, name: str, holder: object, inputs: object) -> None:  # noqa: ANN401 -- XlsxWriter's
    is_input = holder is inputs
    bold = book.workbook.add_format({"bold": True})
    heads = ("Input", "Value", "Unit", "Source") if is_input else ("Answer", "Value", "Unit", "How")
    sheet.write_row(0, 0, (book.calculator.title,), bold)
    sheet.write_row(1, 0, heads, bold)
    for column, width in enumerate(_WIDTHS):
        sheet.set_column(column, column, width)
    sheet.freeze_panes(2, 0)
    facts = [each for each in fields_of(type(holder)) if each.spec.kind is not Kind.ROWS]
    for row, each in enumerate(facts, start=2):
        value = cell_value(each.spec.kind, getattr(holder, each.name))
        look = book.format_of(each.spec.kind, is_input=is_input)
        formula = None if is_input else book.calculator.formulas.get(each.public)
        sheet.write_string(row, 0, each.spec.label)
        sheet.write_string(row, 2, each.spec.unit)
        if formula is None:
            _write(sheet, row, 1, value, look)
            sheet.write_string(
                row, 3, source_of(each, inputs) if is_input else "worked out by Nightrate; not a formula"
            )
        else:
            sheet.write_formula(row, 1, f"={_with_columns(book, formula)}", look, "" if value is None else value)
            sheet.write_string(row, 3, f"{each.public} = {formula}")
        book.workbook.define_name(each.public, f"={name}!$B${row + 1}")
        if is_input:
            _validate(sheet, row, each)


def _validate(sheet: Any, row: int, each: Described) -> None:  # noqa: ANN401 -- XlsxWriter's
    spec = each.spec
    if spec.kind is Kind.CHOICE:
        sheet.data_validation(row, 1, row, 1, {"validate": "list", "source": list(spec.choices)})
    elif spec.kind in {Kind.COUNT, Kind.NUMBER}:
        bounds = {"criteria": "between", "minimum": float(spec.low), "maximum": float(spec.high)}
        sheet.data_validation(row, 1, row, 1, {"validate": "decimal", **bounds})


def _write_table(book: _Book, each: Described, shape: type, rows: Sequence[object]) -> None:
    sheet = book.workbook.add_worksheet(each.public.capitalize())
    bold = book.workbook.add_format({"bold": True, "text_wrap": True})
    columns = fields_of(shape)
    formulas = book.calculator.row_formulas.get(each.public, {})
    place = {column.public: number for number, column in enumerate(columns)}
    for number, column in enumerate(columns):
        sheet.write_string(0, number, f"{column.spec.label} {column.spec.unit}".strip(), bold)
        sheet.set_column(number, number, 16)
        letter = _letter(number)
        book.columns[f"{each.public}.{column.public}"] = (
            f"{each.public.capitalize()}!${letter}$2:${letter}${len(rows) + 1}"
        )
    sheet.freeze_panes(1, 1)
    looks = {column.public: book.format_of(column.spec.kind) for column in columns}
    for row_number, row in enumerate(rows, start=1):
        for number, column in enumerate(columns):
            value = cell_value(column.spec.kind, getattr(row, column.name))
            formula = formulas.get(column.public)
            look = looks[column.public]
            if formula is None or value is None:
                _write(sheet, row_number, number, value, look)
            else:
                cells = _COLUMN.sub(lambda found: f"{_letter(place[found[1]])}{row_number + 1}", formula)  # noqa: B023 -- used at once
                sheet.write_formula(row_number, number, f"={cells}", look, value)


def _with_columns(book: _Book, formula: str) -> str:
    return _WHOLE_COLUMN.sub(lambda found: book.columns[f"{found[1]}.{found[2]}"], formula)


def _write(sheet: Any, row: int, column: int, value: object, look: object) -> None:  # noqa: ANN401 -- XlsxWriter's
    match value:
        case None:
            sheet.write_blank(row, column, None, look)
        case bool():
            sheet.write_string(row, column, "yes" if value else "no", look)
        case int() | float():
            sheet.write_number(row, column, value, look)
        case _:
            sheet.write_string(row, column, str(value), look)


def cell_value(kind: Kind, value: object) -> object:
    """Return a value as a sheet holds it: money in units, which a sheet counts in binary fractions."""
    match value:
        case Decimal():
            return float(value)
        case int() if kind is Kind.AMOUNT:
            return float(Decimal(value) / MICROS_PER_UNIT)
        case str() if kind is Kind.CHOICE and value.isdigit():
            return int(value)
        case _:
            return value


def _letter(column: int) -> str:
    assert column < 26  # noqa: PLR2004 -- one letter is enough for our tables
    return chr(ord("A") + column)
