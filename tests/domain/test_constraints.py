from __future__ import annotations

from typing import Any

import pytest

from pipeline.domain.constraints import Constraint, ConstraintKind, constraint_of
from pipeline.domain.endpoints import Endpoint
from pipeline.domain.errors import RequestRefusedError
from pipeline.domain.parameters import check_body, sampling_of

SCHEMA = {"type": "object", "properties": {"z": {"type": "integer"}, "a": {"type": "string"}}}
FORMAT = {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA, "strict": True}}


def body(**more: object) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": "x"}], **more}


def named(**more: object) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA, **more}}


@pytest.mark.parametrize(
    "more",
    [
        {"response_format": None, "structured_outputs": None},
        {"response_format": {"type": "text"}},
        {"response_format": {"type": "text", "json_schema": None}, "structured_outputs": {"regex": "a"}},
        {"response_format": {"type": "json_object"}},
        {"response_format": FORMAT},
        {"response_format": named(description="d", strict=None)},
        {"structured_outputs": {"json": SCHEMA, "regex": None}},
        {"structured_outputs": {"json": '{"type": "object"}'}},
        {"structured_outputs": {"json_object": True}},
        {"structured_outputs": {"choice": ["a", "ab"]}},
        {"response_format": {"type": "text"}, "ignore_eos": True, "min_tokens": 2},
        {"response_format": FORMAT, "ignore_eos": False, "min_tokens": 0},
    ],
)
def test_forms_that_are_honoured_pass(more: dict[str, Any]) -> None:
    check_body(Endpoint.CHAT_COMPLETIONS, body(**more))
    check_body(Endpoint.COMPLETIONS, {"model": "m", "prompt": "x", **more})


@pytest.mark.parametrize(
    ("more", "code", "param"),
    [
        ({"response_format": "json"}, "invalid_type", "response_format"),
        ({"response_format": {}}, "invalid_value", "response_format.type"),
        ({"response_format": {"type": "xml"}}, "invalid_value", "response_format.type"),
        ({"response_format": {"type": ["text"]}}, "invalid_value", "response_format.type"),
        ({"response_format": {"type": "text", "x": 1}}, "unsupported_parameter", "response_format.x"),
        ({"response_format": {"type": "json_schema"}}, "invalid_type", "response_format.json_schema"),
        ({"response_format": {"type": "text", "json_schema": {}}}, "invalid_value", "response_format.json_schema"),
        ({"response_format": named(name=None)}, "invalid_type", "response_format.json_schema.name"),
        ({"response_format": named(name="a b")}, "invalid_value", "response_format.json_schema.name"),
        ({"response_format": named(schema=None)}, "invalid_type", "response_format.json_schema.schema"),
        ({"response_format": named(schema="{}")}, "invalid_type", "response_format.json_schema.schema"),
        ({"response_format": named(strict=1)}, "invalid_type", "response_format.json_schema.strict"),
        ({"response_format": named(description=1)}, "invalid_type", "response_format.json_schema.description"),
        ({"response_format": named(x=1)}, "unsupported_parameter", "response_format.json_schema.x"),
        ({"structured_outputs": []}, "invalid_type", "structured_outputs"),
        ({"structured_outputs": {}}, "invalid_value", "structured_outputs"),
        ({"structured_outputs": {"regex": "a", "choice": ["a"]}}, "invalid_value", "structured_outputs"),
        ({"structured_outputs": {"grammar": "x"}}, "unsupported_parameter", "structured_outputs.grammar"),
        ({"structured_outputs": {"json": "{"}}, "invalid_value", "structured_outputs.json"),
        ({"structured_outputs": {"json": "[" * 100_000}}, "invalid_value", "structured_outputs.json"),
        ({"structured_outputs": {"json": "[]"}}, "invalid_type", "structured_outputs.json"),
        ({"structured_outputs": {"json_object": False}}, "invalid_value", "structured_outputs.json_object"),
        ({"structured_outputs": {"regex": 1}}, "invalid_type", "structured_outputs.regex"),
        ({"structured_outputs": {"regex": ""}}, "invalid_value", "structured_outputs.regex"),
        ({"structured_outputs": {"choice": "a"}}, "invalid_type", "structured_outputs.choice"),
        ({"structured_outputs": {"choice": []}}, "invalid_value", "structured_outputs.choice"),
        ({"structured_outputs": {"choice": ["a"] * 1025}}, "invalid_value", "structured_outputs.choice"),
        ({"structured_outputs": {"choice": ["a", 1]}}, "invalid_type", "structured_outputs.choice[1]"),
        ({"structured_outputs": {"choice": ["a", ""]}}, "invalid_value", "structured_outputs.choice[1]"),
        ({"response_format": FORMAT, "structured_outputs": {"regex": "a"}}, "invalid_value", "structured_outputs"),
        ({"response_format": FORMAT, "ignore_eos": True}, "invalid_value", "ignore_eos"),
        ({"structured_outputs": {"regex": "a"}, "min_tokens": 1}, "invalid_value", "min_tokens"),
        ({"guided_choice": ["a"]}, "unsupported_parameter", "guided_choice"),
    ],
)
def test_what_is_wrong_is_named(more: dict[str, Any], code: str, param: str) -> None:
    for endpoint, whole in (
        (Endpoint.CHAT_COMPLETIONS, body(**more)),
        (Endpoint.COMPLETIONS, {"model": "m", "prompt": "x", **more}),
    ):
        with pytest.raises(RequestRefusedError) as caught:
            check_body(endpoint, whole)
        assert (caught.value.row_code, caught.value.param) == (code, f"body.{param}")


def test_both_names_for_one_form_mean_the_same() -> None:
    first = constraint_of({"response_format": FORMAT})
    second = constraint_of({"structured_outputs": {"json": SCHEMA}})

    assert first is not None
    assert second is not None
    assert (first.kind, first.text) == (second.kind, second.text)
    assert (first.param, second.param) == ("response_format.json_schema.schema", "structured_outputs.json")
    assert first.text.index('"z"') < first.text.index('"a"')


def test_a_form_is_part_of_the_sampling_and_can_be_looked_up() -> None:
    asked = {"structured_outputs": {"choice": ["b", "a"], "json": None}}

    constraint = sampling_of(Endpoint.CHAT_COMPLETIONS, asked).constraint

    assert constraint == Constraint(kind=ConstraintKind.CHOICE, choices=("b", "a"), param="structured_outputs.choice")
    assert hash(constraint) is not None
    assert sampling_of(Endpoint.CHAT_COMPLETIONS, {"response_format": {"type": "text"}}).constraint is None
