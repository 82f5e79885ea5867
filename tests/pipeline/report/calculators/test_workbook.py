"""Workbooks go on calculating: formulas come to what we said, and to what we say of other inputs."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest

from pipeline.report.calculators.catalogue import CALCULATORS, Calculator
from pipeline.report.calculators.fields import Described, Kind, fields_of, read
from pipeline.report.calculators.workbook import XlsxMissingError, cell_value, workbook
from tests.pipeline.report.calculators.sheets import Sheets

OFFERS = Path(__file__).with_name("offers.csv").read_text().split("\n", 2)[2]
GIVEN = {
    "model": {"offers": OFFERS, "weight_bits": "8"},
    "buy-or-make": {"apis": "nano, 0.05, 0.20\nflash, 0.15, 1.25", "makings": "own servers, 0.01, 0.02, 900"},
}
#: Inputs that people may change in the sheet, and the sheet follows; what is ranked or laid out does not.
CHANGED = {
    "model": {"utilisation_percent": "40", "requests_per_month": "2000"},
    "tco": {
        "servers": "3",
        "horizon_months": "36",
        "pue": "1.2",
        "discount_percent_per_year": "0",
        "reserved_parts": "0",
    },
    "roi": {"moving_from": "always_on", "one_off": "123.456789", "horizon_months": "7"},
    "whatif": {"spot_percent": "10", "new_relative_cost_percent": "60", "urgent_reach_percent": "5"},
    "buy-or-make": {"input_tokens_per_month": "1000000"},
}
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def calculated(calculator: Calculator, texts: dict[str, str]) -> tuple[object, object]:
    inputs, problems = read(calculator.inputs, texts)
    assert not problems
    return inputs, calculator.calculate(inputs)


def assert_same(shown: object, each: Described, holder: object) -> None:
    expected = cell_value(each.spec.kind, getattr(holder, each.name))
    if expected is None:
        assert shown in ("", None) or isinstance(shown, str), each.public
    elif isinstance(expected, bool):
        assert shown == ("yes" if expected else "no"), each.public
    elif isinstance(expected, int | float):
        assert isinstance(shown, int | float), f"{each.public}: {shown}"
        assert math.isclose(shown, expected, rel_tol=1e-6, abs_tol=5e-6), f"{each.public}: {shown} is not {expected}"
    else:
        assert shown == expected, each.public


@pytest.mark.parametrize("calculator", CALCULATORS.values(), ids=list(CALCULATORS))
def test_every_cell_comes_to_what_was_worked_out(calculator: Calculator) -> None:
    inputs, result = calculated(calculator, GIVEN.get(calculator.name, {}))

    sheets = Sheets(workbook(calculator, inputs, result))

    for holder in (inputs, result):
        for each in fields_of(type(holder)):
            if each.spec.row is None:
                assert_same(sheets.named(each.public), each, holder)
                continue
            for number, row in enumerate(getattr(holder, each.name), start=2):
                for letter, column in zip(LETTERS, fields_of(each.spec.row), strict=False):
                    assert_same(sheets.at(f"{each.public.capitalize()}!{letter}{number}"), column, row)
    written = {name for name in calculator.formulas if sheets.formula_of(name)}
    assert written == calculator.formulas.keys()


@pytest.mark.parametrize("calculator", CALCULATORS.values(), ids=list(CALCULATORS))
def test_the_sheet_follows_when_inputs_are_changed_in_it(calculator: Calculator) -> None:
    texts = GIVEN.get(calculator.name, {})
    sheets = Sheets(workbook(calculator, *calculated(calculator, texts)))
    changed = CHANGED[calculator.name]
    for name, text in changed.items():
        sheets.put(name, text if text.isidentifier() else float(text))

    _, result = calculated(calculator, texts | changed)

    followed = [each for each in fields_of(calculator.result) if each.public in calculator.formulas]
    assert followed
    for each in followed:
        assert_same(sheets.named(each.public), each, result)


def test_formulas_stand_for_answers_that_there_are_and_say_how() -> None:
    for calculator in CALCULATORS.values():
        names = {each.public: each for each in fields_of(calculator.result)}
        assert calculator.formulas.keys() <= names.keys()
        for table, formulas in calculator.row_formulas.items():
            shape = names[table].spec.row
            assert shape is not None
            assert formulas.keys() <= {each.public for each in fields_of(shape)}
    sheets = Sheets(workbook(CALCULATORS["tco"], *calculated(CALCULATORS["tco"], {})))
    assert sheets.cells["Answers"]["D3"].value == "capex = servers*server_price"
    assert sheets.cells["Inputs"]["D3"].value == "assumed"


def test_a_name_that_looks_like_a_formula_is_text() -> None:
    # Names begin with a letter or digit, so that no program takes one for a formula.
    _, problems = read(CALCULATORS["model"].inputs, {"offers": '=HYPERLINK("x"), H100, 1, spot, 1'})

    assert problems.keys() == {"offers"}


def test_without_the_writer_it_is_said_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    calculator = CALCULATORS["roi"]
    inputs, result = calculated(calculator, {})
    monkeypatch.setitem(sys.modules, "xlsxwriter", None)

    with pytest.raises(XlsxMissingError) as raised:
        workbook(calculator, inputs, result)

    assert raised.value.hint == "pip install 'nightrate[xlsx]'"


def test_inputs_are_numbers_in_the_sheet() -> None:
    for calculator in CALCULATORS.values():
        inputs, result = calculated(calculator, {})
        sheets = Sheets(workbook(calculator, inputs, result))
        for each in fields_of(calculator.inputs):
            if each.spec.kind in {Kind.AMOUNT, Kind.COUNT, Kind.NUMBER}:
                assert isinstance(sheets.named(each.public), float), each.public
