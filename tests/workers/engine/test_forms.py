from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.domain.constraints import Constraint, ConstraintKind
from pipeline.domain.errors import RequestRefusedError
from pipeline.ports.engine import EngineResult
from tests.workers.engine.driving import answers, completion, prompts, text
from workers.engine.grammars import Grammars

Load = Callable[..., Any]

SCHEMA = {
    "type": "object",
    "properties": {
        "size": {"type": "integer", "minimum": 0, "maximum": 99},
        "color": {"enum": ["red", "green"]},
        "notes": {"type": "array", "items": {"type": "string", "maxLength": 4}, "maxItems": 2},
    },
    "required": ["size", "color", "notes"],
    "additionalProperties": False,
}


def shaped(schema: dict[str, Any]) -> dict[str, Any]:
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}}


def reason(result: EngineResult) -> str:
    return str(result.body["choices"][0]["finish_reason"])


@pytest.mark.parametrize("model", ["llama_folder", "gpt2_folder"])
def test_an_answer_follows_its_schema_unless_it_is_cut_short(
    model: str, load: Load, request: pytest.FixtureRequest
) -> None:
    rows = [completion(i, t, temperature=1.5, max_tokens=160, **shaped(SCHEMA)) for i, t in enumerate(prompts(10))]

    results = answers(load(request.getfixturevalue(model), slots=4), rows)

    whole = [json.loads(text(result)) for result in results.values() if reason(result) == "stop"]
    assert len(whole) > 5
    for value in whole:
        assert list(value) == ["size", "color", "notes"]
        assert 0 <= value["size"] <= 99
        assert value["color"] in {"red", "green"}
        assert len(value["notes"]) <= 2
    assert all(result.output_tokens == 160 for result in results.values() if reason(result) == "length")


def test_json_mode_gives_an_object(load: Load, llama_folder: Path) -> None:
    rows = [
        completion(i, t, temperature=1.0, max_tokens=150, response_format={"type": "json_object"})
        for i, t in enumerate(prompts(8))
    ]

    results = answers(load(llama_folder), rows)

    ended = [text(result) for result in results.values() if reason(result) == "stop"]
    assert ended
    assert all(isinstance(json.loads(answer), dict) for answer in ended)


def test_properties_come_in_the_order_of_the_schema(load: Load, llama_folder: Path) -> None:
    schema = {
        "type": "object",
        "properties": {name: {"const": 1} for name in ("z", "m", "a")},
        "required": ["a", "m", "z"],
        "additionalProperties": False,
    }

    result = answers(load(llama_folder), [completion(0, "abc", max_tokens=250, **shaped(schema))])[0]

    assert list(json.loads(text(result))) == ["z", "m", "a"]


def test_an_answer_is_one_of_the_choices_and_ends_with_it(load: Load, llama_folder: Path) -> None:
    choices = ["yes", "no", 'a "quoted"\n\\ / é 😀', "yes, indeed"]
    rows = [
        completion(i, t, temperature=2.0, max_tokens=40, structured_outputs={"choice": choices})
        for i, t in enumerate(prompts(30))
    ]

    results = answers(load(llama_folder), rows)

    assert {text(result) for result in results.values()} == set(choices)
    assert all(reason(result) == "stop" for result in results.values())
    # Nothing can follow `no`, so no end token is computed for it; `yes` could go on.
    assert {r.output_tokens for r in results.values() if text(r) == "no"} == {2}
    assert {r.output_tokens for r in results.values() if text(r) == "yes"} == {4}


def test_an_answer_matches_the_whole_expression(load: Load, llama_folder: Path) -> None:
    rows = [
        completion(i, t, temperature=1.5, structured_outputs={"regex": "[0-9]{3}-[a-f]{2,4}"}, n=2)
        for i, t in enumerate(prompts(6))
    ]

    for result in answers(load(llama_folder), rows).values():
        for choice in result.body["choices"]:
            assert re.fullmatch("[0-9]{3}-[a-f]{2,4}", choice["text"])
            assert choice["finish_reason"] == "stop"


@pytest.mark.parametrize(
    ("more", "param"),
    [
        (shaped({"type": "banana"}), "response_format.json_schema.schema"),
        (shaped({"type": "object", "not": {"required": ["a"]}}), "response_format.json_schema.schema"),
        ({"structured_outputs": {"json": '{"type": 3}'}}, "structured_outputs.json"),
        ({"structured_outputs": {"regex": "(a"}}, "structured_outputs.regex"),
        ({"structured_outputs": {"regex": "(?=a)b"}}, "structured_outputs.regex"),
    ],
)
def test_a_form_that_cannot_be_followed_is_refused_and_says_why(
    load: Load, llama_folder: Path, more: dict[str, Any], param: str
) -> None:
    results = answers(load(llama_folder), [completion(0, "abc", **more), completion(1, "abc")])

    error = results[0].body["error"]
    assert (results[0].status_code, error["code"], error["param"]) == (400, "invalid_value", f"body.{param}")
    assert len(error["message"]) > len(f"Invalid value for '{param}': ")
    assert results[1].status_code == 200


def test_neighbours_and_forms_leave_each_other_alone(load: Load, llama_folder: Path) -> None:
    texts = prompts(6)
    plain = answers(load(llama_folder), [completion(i, t, temperature=1.0) for i, t in enumerate(texts)])
    forms = [completion(9 + i, t, temperature=1.0, max_tokens=60, **shaped(SCHEMA)) for i, t in enumerate(texts)]
    alone = {row.key: answers(load(llama_folder), [row])[row.key] for row in forms[:2]}

    mixed = answers(
        load(llama_folder, slots=5), [completion(i, t, temperature=1.0) for i, t in enumerate(texts)] + forms
    )

    assert all(text(mixed[key]) == text(result) for key, result in (plain | alone).items())


def test_an_answer_whose_form_is_given_up_fails_alone(
    load: Load, llama_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = load(llama_folder)
    engine.add([completion(0, "abc", structured_outputs={"regex": "[ab]{5}"}), completion(1, "abc")])
    (row,) = (row for row in engine._waiting if row.matcher)
    monkeypatch.setattr(row.matcher, "_matcher", Broken())

    results = {}
    while engine.in_flight():
        results |= {result.key: result for result in engine.step()}

    assert (results[0].status_code, results[1].status_code) == (500, 200)


class Broken:
    """A matcher in the state that llguidance's has once it met a limit."""

    def unsafe_compute_mask_ptr(self, *_: int) -> None:
        pass

    def is_error(self) -> bool:
        return True

    def consume_token(self, _: int) -> bool:
        return False


def test_compiled_forms_are_shared_and_the_oldest_forgotten(
    load: Load, llama_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.engine.grammars._KEPT_MAX", 2)
    grammars = load(llama_folder)._grammars
    forms = [Constraint(kind=ConstraintKind.REGEX, text=text, param="p") for text in "abca"]

    matchers = [grammars.matcher(form) for form in forms]

    assert len(grammars._compiled) == 2
    matchers[0].accept(ord("a") - 33)
    assert matchers[0].is_complete
    assert not matchers[3].is_complete


def test_a_tokenizer_that_cannot_be_read_refuses_the_form() -> None:
    class Slow:
        is_fast = False

    with pytest.raises(RequestRefusedError, match="this model's tokenizer"):
        Grammars(Slow(), frozenset({1}), 5).matcher(Constraint(kind=ConstraintKind.REGEX, text="a", param="p"))
