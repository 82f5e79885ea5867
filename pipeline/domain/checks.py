"""Checks of one request field each, in OpenAI's words; `pipeline.domain.parameters` says which field has which.

A check raises `RequestRefusedError` with a code and the field's path. `null` means "not given".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final, NoReturn

from pipeline.domain.endpoints import Endpoint
from pipeline.domain.errors import RequestRefusedError
from pipeline.domain.limits import LOGIT_BIASES_MAX, STOP_STRINGS_MAX, STOP_TOKENS_MAX

#: Ids are bounded by the model's vocabulary, which only its engine knows; this is what they are stored in.
TOKEN_ID_MAX: Final = 2**31 - 1
BIAS_MAX: Final = 100.0
ROLES: Final = frozenset({"system", "developer", "user", "assistant"})

_TOKEN_ID: Final = re.compile(r"[0-9]{1,10}")
_MESSAGE_KEYS: Final = frozenset({"role", "content", "name"})
_PART_KEYS: Final = frozenset({"type", "text"})

#: Raises `RequestRefusedError` when the value given under the name is not honoured.
Check = Callable[[str, Any], None]

# --- refusals ----------------------------------------------------------------------------------


def refuse(message: str, code: str, name: str) -> NoReturn:
    """Refuse the request for its field `name`; empty: for the body as a whole."""
    raise RequestRefusedError(message, code=code, param=f"body.{name}" if name else "body")


def refuse_type(name: str, value: object, expected: str) -> NoReturn:
    """Refuse a `value` of another type than `expected`."""
    message = f"Invalid type for '{name or 'body'}': expected {expected}, but got {kind_of(value)} instead."
    refuse(message, "invalid_type", name)


def kind_of(value: object) -> str:
    """Return what JSON calls the type of a `value`."""
    return _KIND_NAMES.get(type(value), "a value of another type")


def refuse_value(name: str, wanted: str) -> NoReturn:
    """Refuse a value of the right type that is not what is `wanted`."""
    # The value itself is left out: it is the user's data, of any length.
    refuse(f"Invalid value for '{name}': {wanted}.", "invalid_value", name)


def refuse_unknown(endpoint: Endpoint, name: object) -> NoReturn:
    """Refuse a field that no engine honours."""
    shown = str(name)[:64]
    refuse(f"Parameter '{shown}' is not supported on {endpoint.value}.", "unsupported_parameter", shown)


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


def ignored(_name: str, _value: object) -> None:
    """Accept anything: the field has no effect on the answer."""


def integer(low: int, high: int) -> Check:
    """Return a check for an integer from `low` to `high`."""

    def check(name: str, value: object) -> None:
        # `type is int` and not isinstance: JSON's true is a bool, which Python counts as an int.
        if type(value) is int:
            if low <= value <= high:
                return
            refuse_value(name, f"expected an integer from {low} to {high}")
        if value is not None:
            refuse_type(name, value, "an integer")

    return check


def number(low: float, high: float, *, low_excluded: bool = False) -> Check:
    """Return a check for a number from `low`, or above it, to `high`."""
    opening = "above" if low_excluded else "from"

    def check(name: str, value: object) -> None:
        kind = type(value)
        if kind is float or kind is int:
            # Written so that NaN, which compares false with everything, is refused.
            if low <= value <= high and not (low_excluded and value == low):  # type: ignore[operator]  # kind says number
                return
            refuse_value(name, f"expected a number {opening} {low:g} to {high:g}")
        if value is not None:
            refuse_type(name, value, "a number")

    return check


def only(*accepted: object) -> Check:
    """Return a check for a field that is honoured at its neutral values alone."""
    shown = " or ".join(repr(value).lower() if isinstance(value, bool) else repr(value) for value in accepted)

    def check(name: str, value: object) -> None:
        if value is None or any(type(value) is type(neutral) and value == neutral for neutral in accepted):
            return
        hint = f"; only {shown} is" if accepted else ""
        refuse(f"Parameter '{name}' is not supported with this value{hint}.", "unsupported_parameter", name)

    return check


def model(name: str, value: object) -> None:
    """Check a model's name."""
    if not isinstance(value, str):
        refuse_type(name, value, "a string")
    if not value:
        refuse_value(name, "expected a model name")


def stream(name: str, value: object) -> None:
    """Check that no stream is asked for."""
    if value is True:
        refuse("Streaming is not supported in the Batch API.", "streaming_unsupported", name)
    if value is not False and value is not None:
        refuse_type(name, value, "a boolean")


def stop(name: str, value: object) -> None:
    """Check stop strings: one, or a few."""
    if value is None:
        return
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list):
        refuse_type(name, value, "a string or an array of strings")
    if len(texts) > STOP_STRINGS_MAX:
        refuse_value(name, f"expected at most {STOP_STRINGS_MAX} strings")
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            refuse_type(f"{name}[{index}]", text, "a string")
        if not text:
            refuse_value(f"{name}[{index}]", "expected a non-empty string")


def stop_token_ids(name: str, value: object) -> None:
    """Check token ids that end an answer."""
    if value is None:
        return
    if not isinstance(value, list):
        refuse_type(name, value, "an array of integers")
    if len(value) > STOP_TOKENS_MAX:
        refuse_value(name, f"expected at most {STOP_TOKENS_MAX} token ids")
    for index, token in enumerate(value):
        if type(token) is not int:
            refuse_type(f"{name}[{index}]", token, "an integer")
        if not 0 <= token <= TOKEN_ID_MAX:
            refuse_value(f"{name}[{index}]", "expected a token id")


def logit_bias(name: str, value: object) -> None:
    """Check biases by token id, a string as JSON's keys are."""
    if value is None:
        return
    if not isinstance(value, dict):
        refuse_type(name, value, "an object")
    if len(value) > LOGIT_BIASES_MAX:
        refuse_value(name, f"expected at most {LOGIT_BIASES_MAX} token ids")
    ids = {int(token) for token in value if _TOKEN_ID.fullmatch(token)}
    if len(ids) < len(value) or (ids and max(ids) > TOKEN_ID_MAX):
        refuse_value(name, "expected token ids as keys, each once")
    check = number(-BIAS_MAX, BIAS_MAX)
    for token, bias in value.items():
        if bias is None:
            refuse_type(f"{name}.{token}", bias, "a number")
        check(f"{name}.{token}", bias)


def boolean(name: str, value: object) -> None:
    """Check a switch."""
    if value is not None and type(value) is not bool:
        refuse_type(name, value, "a boolean")


def messages(name: str, value: object) -> None:
    """Check a conversation of text messages."""
    if not isinstance(value, list):
        refuse_type(name, value, "an array of messages")
    if not value:
        refuse_value(name, "expected at least one message")
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
        refuse_type(name, message, "an object")
    for key, value in message.items():
        if key not in _MESSAGE_KEYS and value is not None:
            where = f"{name}.{str(key)[:64]}"
            refuse(f"Parameter '{where}' is not supported.", "unsupported_parameter", where)
    role = message.get("role")
    if not isinstance(role, str):
        refuse_type(f"{name}.role", role, "a string")
    if role not in ROLES:
        refuse_value(f"{name}.role", "expected one of " + ", ".join(sorted(ROLES)))
    if not isinstance(message.get("name", ""), str | None):
        refuse_type(f"{name}.name", message["name"], "a string")
    _content(f"{name}.content", message.get("content"))


def _content(name: str, content: object) -> None:
    if isinstance(content, str):
        return
    if not isinstance(content, list):
        refuse_type(name, content, "a string or an array of text parts")
    if not content:
        refuse_value(name, "expected at least one text part")
    for index, part in enumerate(content):
        where = f"{name}[{index}]"
        if not isinstance(part, dict):
            refuse_type(where, part, "an object")
        if part.get("type") != "text" or not part.keys() <= _PART_KEYS:
            refuse(f"Only parts of type 'text' are supported in '{where}'.", "unsupported_parameter", where)
        if not isinstance(part.get("text"), str):
            refuse_type(f"{where}.text", part.get("text"), "a string")


def prompt(name: str, value: object) -> None:
    """Check the one prompt of a text completion."""
    if isinstance(value, str):
        return
    if not isinstance(value, list):
        refuse_type(name, value, "a string")
    if len(value) != 1:
        refuse_value(name, "expected one string: write one request per prompt")
    if not isinstance(value[0], str):
        refuse_type(f"{name}[0]", value[0], "a string (token arrays are not supported)")


def text(name: str, value: object) -> None:
    """Refuse what is no string, or an empty one."""
    if not isinstance(value, str):
        refuse_type(name, value, "a string")
    if not value:
        refuse_value(name, "expected a non-empty string")


def texts(most: int, *, only_list: bool = False) -> Check:
    """Return a check for 1 to `most` strings in a list, or, unless `only_list`, for one string by itself."""
    expected = "an array of strings" if only_list else "a string or an array of strings"

    def check(name: str, value: object) -> None:
        if isinstance(value, str) and not only_list:
            text(name, value)
            return
        if not isinstance(value, list):
            refuse_type(name, value, expected)
        if not 1 <= len(value) <= most:
            refuse_value(name, f"expected 1 to {most} strings")
        for index, each in enumerate(value):
            if not isinstance(each, str):
                refuse_type(f"{name}[{index}]", each, "a string (token arrays are not supported)")
            if not each:
                refuse_value(f"{name}[{index}]", "expected a non-empty string")

    return check
