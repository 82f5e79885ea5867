"""What form an answer must have: OpenAI's `response_format` and vLLM's `structured_outputs`, as data.

Only shapes are checked here. Whether a schema or an expression can be followed is for the engine to say, which
refuses that row.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from pipeline.domain.checks import boolean, refuse, refuse_type, refuse_value
from pipeline.domain.limits import CONSTRAINT_CHOICES_MAX

_FORMATS: Final = ("text", "json_object", "json_schema")
_FORMAT_KEYS: Final = frozenset({"type", "json_schema"})
_SCHEMA_KEYS: Final = frozenset({"name", "description", "schema", "strict"})
_SCHEMA_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
#: The kinds of `structured_outputs` that are honoured, of which a request gives one.
_KINDS: Final = frozenset({"json", "json_object", "regex", "choice"})


class ConstraintKind(StrEnum):
    """What the answer must be."""

    #: JSON that follows a schema.
    JSON_SCHEMA = "json_schema"
    #: Text that a regular expression matches as a whole.
    REGEX = "regex"
    #: One of a few texts.
    CHOICE = "choice"


@dataclass(frozen=True, slots=True, kw_only=True)
class Constraint:
    """The form that one request asks for."""

    kind: ConstraintKind
    #: The schema as JSON, its keys in the order of the request, which is that of the answer's; or the expression.
    text: str = ""
    choices: tuple[str, ...] = ()
    #: Where the request says so, such as `response_format.json_schema.schema`.
    param: str


def response_format(name: str, value: object) -> None:
    """Check OpenAI's `response_format`."""
    if value is None:
        return
    if not isinstance(value, dict):
        refuse_type(name, value, "an object")
    kind = value.get("type")
    if kind not in _FORMATS:
        refuse_value(f"{name}.type", "expected one of " + ", ".join(_FORMATS))
    _refuse_others(name, value, _FORMAT_KEYS)
    given = value.get("json_schema")
    if kind != "json_schema":
        if given is not None:
            refuse_value(f"{name}.json_schema", "it needs 'type': 'json_schema'")
        return
    _named_schema(f"{name}.json_schema", given)


def structured_outputs(name: str, value: object) -> None:
    """Check vLLM's `structured_outputs`."""
    if value is None:
        return
    if not isinstance(value, dict):
        refuse_type(name, value, "an object")
    _refuse_others(name, value, _KINDS)
    kinds = [key for key, given in value.items() if given is not None]
    if len(kinds) != 1:
        refuse_value(name, "expected one of " + ", ".join(sorted(_KINDS)))
    (kind,) = kinds
    given, where = value[kind], f"{name}.{kind}"
    match kind:
        case "json":
            _schema(where, given)
        case "json_object":
            if given is not True:
                refuse_value(where, "expected true")
        case "regex":
            if not isinstance(given, str):
                refuse_type(where, given, "a string")
            if not given:
                refuse_value(where, "expected a non-empty string")
        case _:
            _choices(where, given)


def is_constrained(body: Mapping[str, Any]) -> bool:
    """Say whether a checked `body` asks for a form."""
    form = body.get("response_format")
    return body.get("structured_outputs") is not None or (form is not None and form["type"] != "text")


def constraint_of(body: Mapping[str, Any]) -> Constraint | None:
    """Return the form that a checked `body` asks for."""
    form = body.get("response_format")
    if form is not None and form["type"] != "text":
        if form["type"] == "json_object":
            return _json("response_format", {"type": "object"})
        return _json("response_format.json_schema.schema", form["json_schema"]["schema"])
    given = {key: value for key, value in (body.get("structured_outputs") or {}).items() if value is not None}
    return _structured(*given.popitem()) if given else None


def _structured(kind: str, given: Any) -> Constraint:  # noqa: ANN401 -- checked before
    where = f"structured_outputs.{kind}"
    match kind:
        case "json":
            return _json(where, json.loads(given) if isinstance(given, str) else given)
        case "json_object":
            return _json(where, {"type": "object"})
        case "regex":
            return Constraint(kind=ConstraintKind.REGEX, text=given, param=where)
        case _:
            return Constraint(kind=ConstraintKind.CHOICE, choices=tuple(given), param=where)


def _json(param: str, schema: Mapping[str, Any]) -> Constraint:
    return Constraint(kind=ConstraintKind.JSON_SCHEMA, text=json.dumps(schema), param=param)


def _refuse_others(name: str, value: Mapping[str, Any], honoured: frozenset[str]) -> None:
    for key, given in value.items():
        if key not in honoured and given is not None:
            where = f"{name}.{key[:64]}"
            refuse(f"Parameter '{where}' is not supported.", "unsupported_parameter", where)


def _named_schema(name: str, value: object) -> None:
    if not isinstance(value, dict):
        refuse_type(name, value, "an object")
    _refuse_others(name, value, _SCHEMA_KEYS)
    if not isinstance(value.get("name"), str):
        refuse_type(f"{name}.name", value.get("name"), "a string")
    if not _SCHEMA_NAME.fullmatch(value["name"]):
        refuse_value(f"{name}.name", "expected up to 64 letters, digits, underscores and dashes")
    if not isinstance(value.get("description"), str | None):
        refuse_type(f"{name}.description", value["description"], "a string")
    if not isinstance(value.get("schema"), dict):
        refuse_type(f"{name}.schema", value.get("schema"), "an object")
    boolean(f"{name}.strict", value.get("strict"))


def _schema(name: str, value: object) -> None:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            refuse_value(name, "expected a JSON schema")
    if not isinstance(value, dict):
        refuse_type(name, value, "an object")


def _choices(name: str, value: object) -> None:
    if not isinstance(value, list):
        refuse_type(name, value, "an array of strings")
    if not 1 <= len(value) <= CONSTRAINT_CHOICES_MAX:
        refuse_value(name, f"expected 1 to {CONSTRAINT_CHOICES_MAX:,} strings")
    for index, text in enumerate(value):
        if not isinstance(text, str):
            refuse_type(f"{name}[{index}]", text, "a string")
        if not text:
            refuse_value(f"{name}[{index}]", "expected a non-empty string")
