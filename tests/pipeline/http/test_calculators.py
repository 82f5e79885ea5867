"""Calculators and advice over the API, and the calculators' page."""

from __future__ import annotations

import io
import zipfile
from typing import Any
from urllib.parse import urlencode

import pytest

from pipeline.domain.access import Role
from pipeline.entrypoints.http import calculator_page
from pipeline.entrypoints.http.calculator_schemas import answered_by, asked_of
from pipeline.report.calculators.catalogue import CALCULATORS
from pipeline.report.calculators.fields import fields_of
from tests.pipeline.http.served import Answer, Served

EVERY = pytest.mark.parametrize("name", CALCULATORS)


def calculated(api: Served, name: str, body: object) -> Answer:
    return api.ask("POST", f"/v1/calculators/{name}", body, key=api.key(Role.READ))


def shown(api: Served, **query: str) -> Answer:
    return api.ask("GET", f"/calculators?{urlencode(query)}", key="")


@EVERY
def test_an_example_is_worked_out_and_an_empty_body_by_defaults_alone(quiet: Served, name: str) -> None:
    calculator = CALCULATORS[name]
    example: dict[str, Any] = asked_of(calculator).model_config["json_schema_extra"]["example"]  # type: ignore[index,call-overload,assignment]
    for body in ({}, example):
        answer = calculated(quiet, name, body)

        assert answer.status == 200, answer.content
        answered_by(calculator).model_validate(answer.json)
        assert answer.json["calculator"] == name
        assert answer.json["result"].keys() == {each.public for each in fields_of(calculator.result)}


def test_money_is_exact_text_and_shares_are_percents(quiet: Served) -> None:
    answer = calculated(
        quiet,
        "roi",
        {
            "moving_from": "other_scheduler",
            "other_per_month": "1000.000001",
            "own_per_month": "1",
            "own_per_million_input": "0",
            "own_per_million_output": "0",
            "one_off": "1998",
            "horizon_months": 12,
            "discount_percent_per_year": 0,
        },
    )

    result = answer.json["result"]
    assert (result["before_per_month"], result["saving_per_month"]) == ("1000.000001", "999.000001")
    assert (result["payback_months"], result["present_value"]) == (2, "9990.000012")


@pytest.mark.parametrize(
    ("name", "body", "param"),
    [
        ("tco", {"pue": 0.9}, "pue"),
        ("tco", {"pue": "1.2"}, "pue"),
        ("tco", {"servers": 1.5}, "servers"),
        ("tco", {"servers": True}, "servers"),
        ("tco", {"server_price": 5}, "server_price"),
        ("tco", {"server_price": "1e3"}, "server_price"),
        ("tco", {"server_price_micros": 5}, "server_price_micros"),
        ("roi", {"moving_from": "x"}, None),
        ("model", {"offers": [{"gpu": "H100"}]}, "offers.0.name"),
        ("model", {"offers": [{"name": "=1+1"}]}, "offers.0.name"),
        ("model", {"offers": [{"name": "x"}] * 65}, "offers"),
    ],
)
def test_what_makes_no_sense_is_refused_and_named(quiet: Served, name: str, body: object, param: str | None) -> None:
    answer = calculated(quiet, name, body)

    assert answer.status == 400
    assert param is None or answer.error["param"] == param


def test_the_largest_and_the_smallest_inputs_come_to_something(quiet: Served) -> None:
    for name, calculator in CALCULATORS.items():
        for extreme in ("minimum", "maximum"):
            properties = asked_of(calculator).model_json_schema()["properties"]
            body: dict[str, object] = {key: each[extreme] for key, each in properties.items() if extreme in each}
            amount = "0" if extreme == "minimum" else "999999999.999999"
            body |= {key: amount for key, each in properties.items() if "pattern" in each}
            row = {"name": "x", "price_per_million_input": amount, "price_per_million_output": amount}
            if "apis" in properties:
                body["apis"] = [row] * 64
            if "offers" in properties:
                speeds = 0.001 if extreme == "minimum" else 1e8
                offer = {"name": "x", "gpus": 64, "price_per_hour": amount}
                body["offers"] = [
                    offer,
                    offer | {"input_tokens_per_second": speeds, "output_tokens_per_second": speeds},
                ]
            answer = calculated(quiet, name, body)

            assert answer.status == 200, f"{name} at its {extreme}: {answer.content.decode()}"
            answered_by(calculator).model_validate(answer.json)


@EVERY
def test_the_page_is_open_to_all_and_confined_to_itself(quiet: Served, name: str) -> None:
    answer = shown(quiet, calculator=name)

    assert answer.status == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["content-security-policy"].startswith("default-src 'none'; style-src 'sha256-")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"
    assert CALCULATORS[name].title in answer.content.decode()


def test_the_page_begins_somewhere_and_says_what_it_does_not_have(quiet: Served) -> None:
    assert "Cost of a model" in quiet.ask("GET", "/calculators", key="").content.decode()
    assert shown(quiet, calculator="<b>").status == 404
    assert shown(quiet, calculator="tco", pue="<b>").status == 400
    # What others add to addresses is no input.
    assert shown(quiet, calculator="tco", utm_source="x").status == 200
    assert shown(quiet, calculator="tco", pue="1" * 20_000).status == 400


def test_the_page_and_the_api_say_the_same(quiet: Served) -> None:
    given = {"calculator": "model", "offers": "a, H100, 1, spot, 2.5\r\nb, L4, 1, spot, 0.3", "weight_bits": "8"}
    downloaded = shown(quiet, **given, format="json")
    body = {
        "offers": [
            {"name": "a", "gpu": "H100", "gpus": 1, "market": "spot", "price_per_hour": "2.5"},
            {"name": "b", "gpu": "L4", "gpus": 1, "market": "spot", "price_per_hour": "0.3"},
        ],
        "weight_bits": "8",
    }

    assert downloaded.json == calculated(quiet, "model", body).json
    assert downloaded.headers["content-disposition"] == 'attachment; filename="nightrate-model.json"'


def test_a_calculation_is_downloaded_as_a_sheet_and_as_csv(quiet: Served) -> None:
    sheet, text = (shown(quiet, calculator="tco", servers="3", format=form) for form in ("xlsx", "csv"))

    with zipfile.ZipFile(io.BytesIO(sheet.content)) as archive:
        assert "xl/workbook.xml" in archive.namelist()
    assert "servers,3,,given" in text.content.decode()
    assert shown(quiet, calculator="tco", format="doc").error["param"] == "format"


def test_without_the_writer_the_page_offers_no_sheet(quiet: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calculator_page, "find_spec", lambda _: None)

    assert "XLSX" not in shown(quiet, calculator="tco").content.decode()
    assert shown(quiet, calculator="tco", format="xlsx").status == 400


def test_advice_is_for_who_may_read_usage(quiet: Served) -> None:
    found = quiet.ask("GET", "/v1/organization/advice?days=7", key=quiet.key(Role.ANALYST))

    assert found.status == 200
    assert found.json["object"] == "organization.advice"
    assert (found.json["data"], found.json["spent_per_month"]) == ([], "0.00")
    assert quiet.ask("GET", "/v1/organization/advice", key=quiet.key(Role.READ)).status == 403
    assert quiet.ask("GET", "/v1/organization/advice?days=91", key=quiet.key(Role.ANALYST)).status == 400
