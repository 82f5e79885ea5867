"""The request parameters Nightrate honours, per endpoint, as data; everything else is refused by name.

`check_body` runs for every row at intake, so it costs one dictionary look-up and one small call per key
present. A parameter that cannot change the answer is tolerated (`user`, `metadata`, `store: false`,
`service_tier`); one that would change it in a way no engine here honours is refused, never ignored.
`null` means "not given", as it does in OpenAI's own clients.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, NoReturn

from pipeline.domain.endpoints import Endpoint
from pipeline.domain.errors import RequestRefusedError
from pipeline.domain.limits import EMBEDDING_INPUTS_MAX, STOP_STRINGS_MAX

#: Output tokens when a request names no bound; an engine lowers it to what its context has left.
#: 16 is OpenAI's own default for text completions; chat has none there, and 1024 bounds the quote.
MAX_TOKENS_DEFAULT: Final[Mapping[Endpoint, int]] = MappingProxyType(
    {Endpoint.CHAT_COMPLETIONS: 1024, Endpoint.COMPLETIONS: 16, Endpoint.EMBEDDINGS: 0}
)
#: No model served here has a longer context; a larger bound is a typing error.
MAX_TOKENS_MAX: Final = 1_048_576
DIMENSIONS_MAX: Final = 65_536
TEMPERATURE_MAX: Final = 2.0
PENALTY_MAX: Final = 2.0
SEED_MIN: Final = -(2**63)
SEED_MAX: Final = 2**63 - 1
ROLES: Final = frozenset({"system", "developer", "user", "assistant"})

_MESSAGE_KEYS: Final = frozenset({"role", "content", "name"})
_PART_KEYS: Final = frozenset({"type", "text"})

#: Raises `RequestRefusedError` when the value given under the name is not honoured.
Check = Callable[[str, Any], None]


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to choose output tokens; the defaults are OpenAI's."""

    #: Bound on output tokens; None: `MAX_TOKENS_DEFAULT` of the endpoint.
    max_tokens: int | None = None
    #: 0 is greedy.
    temperature: float = 1.0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    #: None: the engine derives one from the body, so that a rerun gives the same answer.
    seed: int | None = None
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0


def check_body(endpoint: Endpoint, body: object) -> None:
    """Raise `RequestRefusedError` for the first field of `body` that `endpoint` does not honour as given."""
    if not isinstance(body, dict):
        if not isinstance(body, Mapping):
            _refuse_type("", body, "an object")
        body = dict(body)
    checks = _CHECKS[endpoint]
    for name, value in body.items():
        check = checks.get(name)
        if check is None:
            _refuse_unknown(endpoint, name)
        check(name, value)
    for name in _REQUIRED[endpoint]:
        if name not in body:
            raise RequestRefusedError(f"{name.capitalize()} parameter is required.", param=f"body.{name}")
    if "max_tokens" in body and "max_completion_tokens" in body:
        _refuse_two_bounds(body)


def sampling_of(endpoint: Endpoint, body: Mapping[str, Any]) -> Sampling:
    """Return the sampling asked for by a `body` that `check_body` has passed."""
    max_tokens = body.get("max_tokens")
    if endpoint is Endpoint.CHAT_COMPLETIONS:
        max_tokens = body.get("max_completion_tokens") or max_tokens
    stop = body.get("stop")
    temperature, top_p = body.get("temperature"), body.get("top_p")
    return Sampling(
        max_tokens=None if max_tokens is None else int(max_tokens),
        temperature=1.0 if temperature is None else float(temperature),
        top_p=1.0 if top_p is None else float(top_p),
        stop=() if stop is None else (stop,) if isinstance(stop, str) else tuple(stop),
        seed=body.get("seed"),
        presence_penalty=float(body.get("presence_penalty") or 0.0),
        frequency_penalty=float(body.get("frequency_penalty") or 0.0),
    )


def text_of(content: str | list[Mapping[str, str]]) -> str:
    """Return the text of a checked message's `content`: the string, or its text parts joined."""
    if isinstance(content, str):
        return content
    return "".join(part["text"] for part in content)


def inputs_of(body: Mapping[str, Any]) -> list[str]:
    """Return the strings a checked embeddings `body` asks to embed, in order."""
    given = body["input"]
    return [given] if isinstance(given, str) else list(given)


def prompt_of(body: Mapping[str, Any]) -> str:
    """Return the one prompt of a checked completions `body`."""
    prompt = body["prompt"]
    return prompt if isinstance(prompt, str) else str(prompt[0])


# --- refusals ----------------------------------------------------------------------------------


def _refuse(message: str, code: str, name: str) -> NoReturn:
    raise RequestRefusedError(message, code=code, param=f"body.{name}" if name else "body")


def _refuse_type(name: str, value: object, expected: str) -> NoReturn:
    given = _KIND_NAMES.get(type(value), "a value of another type")
    _refuse(f"Invalid type for '{name or 'body'}': expected {expected}, but got {given} instead.", "invalid_type", name)


def _refuse_value(name: str, wanted: str) -> NoReturn:
    # The value itself is left out: it is the user's data, of any length.
    _refuse(f"Invalid value for '{name}': {wanted}.", "invalid_value", name)


def _refuse_unknown(endpoint: Endpoint, name: object) -> NoReturn:
    shown = str(name)[:64]
    _refuse(f"Parameter '{shown}' is not supported on {endpoint.value}.", "unsupported_parameter", shown)


def _refuse_two_bounds(body: Mapping[str, Any]) -> None:
    first, second = body["max_tokens"], body["max_completion_tokens"]
    if first is not None and second is not None and first != second:
        _refuse_value("max_completion_tokens", "it differs from max_tokens; give one of the two")


_KIND_NAMES: Final[Mapping[type, str]] = MappingProxyType(
    {
        type(None): "null",
        bool: "a boolean",
        int: "an integer",
        float: "a number",
        str: "a string",
        list: "an array",
        dict: "an object",
    }
)


# --- checks of one value -----------------------------------------------------------------------


def _ignored(_name: str, _value: object) -> None:
    """Accept anything: the field has no effect on the answer."""


def _integer(low: int, high: int) -> Check:
    def check(name: str, value: object) -> None:
        # `type is int` and not isinstance: JSON's true is a bool, which Python counts as an int.
        if type(value) is int:
            if low <= value <= high:
                return
            _refuse_value(name, f"expected an integer from {low} to {high}")
        if value is not None:
            _refuse_type(name, value, "an integer")

    return check


def _number(low: float, high: float, *, low_excluded: bool = False) -> Check:
    opening = "above" if low_excluded else "from"

    def check(name: str, value: object) -> None:
        kind = type(value)
        if kind is float or kind is int:
            # Written so that NaN, which compares false with everything, is refused.
            if low <= value <= high and not (low_excluded and value == low):  # type: ignore[operator]  # kind says number
                return
            _refuse_value(name, f"expected a number {opening} {low:g} to {high:g}")
        if value is not None:
            _refuse_type(name, value, "a number")

    return check


def _only(*accepted: object) -> Check:
    """Return a check for a field that is honoured at its neutral values alone."""
    shown = " or ".join(repr(value).lower() if isinstance(value, bool) else repr(value) for value in accepted)

    def check(name: str, value: object) -> None:
        if value is None or any(type(value) is type(neutral) and value == neutral for neutral in accepted):
            return
        hint = f"; only {shown} is" if accepted else ""
        _refuse(f"Parameter '{name}' is not supported with this value{hint}.", "unsupported_parameter", name)

    return check


def _model(name: str, value: object) -> None:
    if not isinstance(value, str):
        _refuse_type(name, value, "a string")
    if not value:
        _refuse_value(name, "expected a model name")


def _stream(name: str, value: object) -> None:
    if value is True:
        _refuse("Streaming is not supported in the Batch API.", "streaming_unsupported", name)
    if value is not False and value is not None:
        _refuse_type(name, value, "a boolean")


def _stop(name: str, value: object) -> None:
    if value is None:
        return
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list):
        _refuse_type(name, value, "a string or an array of strings")
    if len(texts) > STOP_STRINGS_MAX:
        _refuse_value(name, f"expected at most {STOP_STRINGS_MAX} strings")
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            _refuse_type(f"{name}[{index}]", text, "a string")
        if not text:
            _refuse_value(f"{name}[{index}]", "expected a non-empty string")


def _messages(name: str, value: object) -> None:
    if not isinstance(value, list):
        _refuse_type(name, value, "an array of messages")
    if not value:
        _refuse_value(name, "expected at least one message")
    for index, message in enumerate(value):
        # The usual message costs three look-ups; the rest finds out what is wrong with it.
        if (
            type(message) is dict
            and len(message) == 2  # noqa: PLR2004 -- role and content, nothing else
            and type(message.get("content")) is str
            and type(message.get("role")) is str
            and message["role"] in ROLES
        ):
            continue
        _message(f"{name}[{index}]", message)


def _message(name: str, message: object) -> None:
    if not isinstance(message, dict):
        _refuse_type(name, message, "an object")
    for key, value in message.items():
        if key not in _MESSAGE_KEYS and value is not None:
            where = f"{name}.{str(key)[:64]}"
            _refuse(f"Parameter '{where}' is not supported.", "unsupported_parameter", where)
    role = message.get("role")
    if not isinstance(role, str):
        _refuse_type(f"{name}.role", role, "a string")
    if role not in ROLES:
        _refuse_value(f"{name}.role", "expected one of " + ", ".join(sorted(ROLES)))
    if not isinstance(message.get("name", ""), str | None):
        _refuse_type(f"{name}.name", message["name"], "a string")
    _content(f"{name}.content", message.get("content"))


def _content(name: str, content: object) -> None:
    if isinstance(content, str):
        return
    if not isinstance(content, list):
        _refuse_type(name, content, "a string or an array of text parts")
    if not content:
        _refuse_value(name, "expected at least one text part")
    for index, part in enumerate(content):
        where = f"{name}[{index}]"
        if not isinstance(part, dict):
            _refuse_type(where, part, "an object")
        if part.get("type") != "text" or not part.keys() <= _PART_KEYS:
            _refuse(f"Only parts of type 'text' are supported in '{where}'.", "unsupported_parameter", where)
        if not isinstance(part.get("text"), str):
            _refuse_type(f"{where}.text", part.get("text"), "a string")


def _prompt(name: str, value: object) -> None:
    if isinstance(value, str):
        return
    if not isinstance(value, list):
        _refuse_type(name, value, "a string")
    if len(value) != 1:
        _refuse_value(name, "expected one string: write one request per prompt")
    if not isinstance(value[0], str):
        _refuse_type(f"{name}[0]", value[0], "a string (token arrays are not supported)")


def _input(name: str, value: object) -> None:
    if isinstance(value, str):
        if not value:
            _refuse_value(name, "expected a non-empty string")
        return
    if not isinstance(value, list):
        _refuse_type(name, value, "a string or an array of strings")
    if not 1 <= len(value) <= EMBEDDING_INPUTS_MAX:
        _refuse_value(name, f"expected 1 to {EMBEDDING_INPUTS_MAX} strings")
    for index, text in enumerate(value):
        if not isinstance(text, str):
            _refuse_type(f"{name}[{index}]", text, "a string (token arrays are not supported)")
        if not text:
            _refuse_value(f"{name}[{index}]", "expected a non-empty string")


# --- the table ---------------------------------------------------------------------------------

#: Fields that say who asks and how to file it, not what to answer.
_NO_EFFECT: Final[Mapping[str, Check]] = {
    "user": _ignored,
    "safety_identifier": _ignored,
    "metadata": _ignored,
    "service_tier": _ignored,
}

_GENERATION: Final[Mapping[str, Check]] = {
    **_NO_EFFECT,
    "model": _model,
    "max_tokens": _integer(1, MAX_TOKENS_MAX),
    "temperature": _number(0.0, TEMPERATURE_MAX),
    "top_p": _number(0.0, 1.0, low_excluded=True),
    "stop": _stop,
    "seed": _integer(SEED_MIN, SEED_MAX),
    "presence_penalty": _number(-PENALTY_MAX, PENALTY_MAX),
    "frequency_penalty": _number(-PENALTY_MAX, PENALTY_MAX),
    "n": _only(1),
    "stream": _stream,
    "logit_bias": _only({}),
}

_CHECKS: Final[Mapping[Endpoint, Mapping[str, Check]]] = MappingProxyType(
    {
        Endpoint.CHAT_COMPLETIONS: {
            **_GENERATION,
            "messages": _messages,
            "max_completion_tokens": _integer(1, MAX_TOKENS_MAX),
            "store": _only(False),
            "logprobs": _only(False),
            "response_format": _only({"type": "text"}),
            "modalities": _only(["text"]),
            "tools": _only([]),
            "tool_choice": _only("none"),
        },
        Endpoint.COMPLETIONS: {
            **_GENERATION,
            "prompt": _prompt,
            "echo": _only(False),
            "best_of": _only(1),
            "logprobs": _only(),
            "suffix": _only(),
        },
        Endpoint.EMBEDDINGS: {
            **_NO_EFFECT,
            "model": _model,
            "input": _input,
            "encoding_format": _only("float", "base64"),
            "dimensions": _integer(1, DIMENSIONS_MAX),
        },
    }
)

_REQUIRED: Final[Mapping[Endpoint, tuple[str, ...]]] = MappingProxyType(
    {
        Endpoint.CHAT_COMPLETIONS: ("model", "messages"),
        Endpoint.COMPLETIONS: ("model", "prompt"),
        Endpoint.EMBEDDINGS: ("model", "input"),
    }
)

assert set(_CHECKS) == set(_REQUIRED) == set(MAX_TOKENS_DEFAULT) == set(Endpoint)
assert all(set(_REQUIRED[endpoint]) <= set(_CHECKS[endpoint]) for endpoint in Endpoint)
