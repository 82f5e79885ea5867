"""One line of the input: from bytes to a request, or to what is wrong with it in OpenAI's words.

What is defined beyond the OpenAI contract, and tested in tests/pipeline/submit:

| in the line                                   | answer                                                     |
|-----------------------------------------------|------------------------------------------------------------|
| BOM, invalid UTF-8, raw NUL byte, NaN,        | `invalid_json_line`, the contract's sentence followed by   |
|   Infinity, 1e999, half a surrogate pair      |   what it is and, for bytes, the offset in the line        |
| last line without a newline                   | accepted if it parses, else "looks truncated"              |
| CRLF                                          | accepted: a carriage return is JSON white space            |
| blank line (spaces, tabs, CR)                 | skipped; it still has a number                             |
| JSON but no object                            | `invalid_json_line`                                        |
| longer than `LINE_BYTES_MAX`, or its body     | `line_too_long`                                            |
|   once numbers are written out (1e15)         |                                                            |
| nested deeper than `NESTING_MAX`, the line's  | `nesting_too_deep`                                         |
|   own object being level 1                    |                                                            |
| the same key twice in any object              | `duplicate_key`                                            |
| U+0000 in any string or key, as an escape     | `nul_character`: databases and C strings cut there         |
| other keys beside the four                    | ignored, as OpenAI does; all checks above include them     |
| `null` for a required field                   | missing                                                    |
| method other than POST                        | `invalid_method`                                           |
| custom_id or body of another type             | `invalid_type`                                             |
| custom_id empty, longer than                  | `invalid_value`                                            |
|   `CUSTOM_ID_CHARS_MAX`, with control         |                                                            |
|   characters                                  |                                                            |
| model known, but not for this endpoint        | `model_not_found`                                          |
| a second model in the file                    | `model_mismatch`                                           |
| an integer of more than 64 bits               | the nearest double, as in JavaScript; where a field wants  |
|                                               |   an integer, `check_body` then refuses the row            |

A line has at most one error: the first of them in the order of the checks.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from typing import Any, Final

import orjson

from pipeline.domain.checks import kind_of
from pipeline.domain.endpoints import Endpoint
from pipeline.domain.limits import CUSTOM_ID_CHARS_MAX, LINE_BYTES_MAX, NESTING_MAX
from pipeline.submit import strict

_UNPARSEABLE: Final = "This line is not parseable as valid JSON."
_SHOWN_CHARS_MAX: Final = 100
_ENVELOPE_KEYS: Final = ("custom_id", "method", "url", "body")
#: Quotes of `{"custom_id":"","method":"POST","url":"/v1/…","body":}`.
_ENVELOPE_QUOTES: Final = 14

#: The field of the body that each endpoint cannot do without, and its name in messages.
_REQUIRED: Final[Mapping[Endpoint, str]] = {
    Endpoint.CHAT_COMPLETIONS: "messages",
    Endpoint.COMPLETIONS: "prompt",
    Endpoint.RESPONSES: "input",
    Endpoint.EMBEDDINGS: "input",
    Endpoint.SCORE: "text_1",
    Endpoint.RERANK: "query",
    Endpoint.CLASSIFY: "input",
}
#: A field that may stand instead: one image as vLLM's server takes it.
_INSTEAD: Final[Mapping[Endpoint, str]] = {Endpoint.EMBEDDINGS: "messages", Endpoint.CLASSIFY: "messages"}
_TITLES: Final[Mapping[Endpoint, str]] = {
    Endpoint.CHAT_COMPLETIONS: "Chat Completions",
    Endpoint.COMPLETIONS: "Completions",
    Endpoint.RESPONSES: "Responses",
    Endpoint.EMBEDDINGS: "Embeddings",
    Endpoint.SCORE: "Score",
    Endpoint.RERANK: "Rerank",
    Endpoint.CLASSIFY: "Classify",
}
assert set(_REQUIRED) == set(_TITLES) == set(Endpoint)


class BadLineError(Exception):
    """The line is no request; the batch fails with this among its errors."""

    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        """Keep what becomes a `LineError` once the line's number is known."""
        super().__init__(message)
        self.code = code
        self.message = message
        self.param = param


def too_long() -> BadLineError:
    """Return the error of a line that the reader dropped."""
    return BadLineError("line_too_long", f"This line is longer than {LINE_BYTES_MAX:,} bytes.")


def truncated(error: BadLineError) -> BadLineError:
    """Return the `error` of a last line without a newline: why it is no JSON, if nothing else is known."""
    if error.message != _UNPARSEABLE:
        return error
    why = "It is the last line and has no newline: the file looks truncated."
    return BadLineError(error.code, f"{_UNPARSEABLE} {why}", error.param)


def is_blank(line: bytes) -> bool:
    """Say whether the line has nothing but JSON's white space."""
    return not line.strip(b" \t\r")


class EnvelopeChecker:
    """Checks the lines of one file, which must all name one endpoint and one model."""

    def __init__(self, endpoint: Endpoint, models: Mapping[str, frozenset[Endpoint]]) -> None:
        """Check against the batch's `endpoint` and the known `models` with what each serves."""
        self._url = endpoint.value
        self._endpoint = endpoint
        self._required = _REQUIRED[endpoint]
        self._instead = _INSTEAD.get(endpoint, self._required)
        self._models = models
        self._model: str | None = None

    @property
    def model(self) -> str | None:
        """Return the file's model; None until a line named a known one."""
        return self._model

    def check(self, line: bytes) -> tuple[str, dict[str, Any], bytes]:
        """Return the line's custom id, its body, and the body as compact JSON with its keys sorted.

        Where the order of keys means something, that of a schema's properties, only the body's own are.

        Raises:
            BadLineError: The line is no request of this batch.
        """
        try:
            row = orjson.loads(line)
        except orjson.JSONDecodeError:
            raise _unparseable(line) from None
        # Few lines have more brackets than levels allowed, so few pay for the exact test.
        if line.count(b"{") + line.count(b"[") > NESTING_MAX and strict.is_nested_past(row, NESTING_MAX):
            raise BadLineError("nesting_too_deep", f"This line is nested more than {NESTING_MAX} levels deep.")
        try:
            custom_id, method, url, body = row["custom_id"], row["method"], row["url"], row["body"]
        except (KeyError, TypeError):
            raise _incomplete(row) from None
        # All lines but bad ones and unusual ids pass these in one go.
        if (
            method != "POST"
            or url != self._url
            or type(custom_id) is not str
            or type(body) is not dict
            or not 0 < len(custom_id) <= CUSTOM_ID_CHARS_MAX
            or not custom_id.isprintable()
        ):
            self._check_envelope(row)
        if body.get("model") != self._model or self._model is None:
            self._take_model(body.get("model"))
        if body.get("stream") is True:
            message = f"{_TITLES[self._endpoint]}: Streaming is not supported in the Batch API."
            raise BadLineError("streaming_unsupported", message, "body.stream")
        if body.get(self._required) is None and body.get(self._instead) is None:
            message = f"{self._required.capitalize()} parameter is required."
            raise BadLineError("invalid_request", message, f"body.{self._required}")
        if "response_format" in body or "structured_outputs" in body:
            body_json = orjson.dumps({key: body[key] for key in sorted(body)})
        else:
            body_json = orjson.dumps(body, option=orjson.OPT_SORT_KEYS)
        if len(body_json) > LINE_BYTES_MAX:  # 1e15 is written out as 1000000000000000.0
            raise too_long()
        _check_lossless(line, row, body_json.count(b'"') + custom_id.count('"') + _ENVELOPE_QUOTES)
        return custom_id, body, body_json

    def _check_envelope(self, row: Mapping[str, Any]) -> None:
        for key in _ENVELOPE_KEYS:
            if row[key] is None:
                raise _missing(key)
        _check_custom_id(row["custom_id"])
        if row["method"] != "POST":
            raise BadLineError("invalid_method", "Only the method POST is supported.", "method")
        if row["url"] != self._url:
            message = "The URL provided for this request does not match the batch endpoint."
            raise BadLineError("invalid_url", message, "url")
        if type(row["body"]) is not dict:
            raise _wrong_type("body", "an object", row["body"])

    def _take_model(self, model: object) -> None:
        if model is None:
            raise BadLineError("invalid_request", "Model parameter is required.", "body.model")
        if not isinstance(model, str):
            raise _wrong_type("body.model", "a string", model)
        served = self._models.get(model)
        if served is None:
            message = f"The provided model '{_shown(model)}' is not supported by the Batch API."
            raise BadLineError("model_not_found", message, "body.model")
        if self._endpoint not in served:
            message = f"The provided model '{model}' does not serve {self._url}."
            raise BadLineError("model_not_found", message, "body.model")
        if self._model is not None:
            message = f"All requests of a batch name one model: this is '{model}', an earlier line's '{self._model}'."
            raise BadLineError("model_mismatch", message, "body.model")
        self._model = model


def _check_lossless(line: bytes, row: Mapping[str, Any], quotes: int) -> None:
    """Raise where parsing lost something of `line`, or where it holds what later readers would lose.

    `quotes` is how many the parsed `row` has when it is written again. A parser keeps the last of equal keys,
    so the quotes of the others are missing there. Nothing else changes their number, except an escape that
    spells a quote.
    """
    # Looking for one byte is many times faster than for four, and finds where to begin.
    first_escape = line.find(b"\\")
    has_low_escape = first_escape >= 0 and line.find(b"\\u00", first_escape) >= 0
    if has_low_escape and strict.has_nul(line):
        raise BadLineError("nul_character", "This line has the character U+0000 in a string, which is not supported.")
    if line.count(b'"') == quotes and not (has_low_escape and b"\\u0022" in line):
        return
    if len(row) > len(_ENVELOPE_KEYS) and not has_low_escape and line.count(b'"') == orjson.dumps(row).count(b'"'):
        return
    try:
        strict.check_keys(line)
    except strict.DuplicateKeyError as error:
        message = f"The key '{_shown(error.key)}' appears twice in one object."
        raise BadLineError("duplicate_key", message) from None


def _check_custom_id(custom_id: object) -> None:
    if not isinstance(custom_id, str):
        raise _wrong_type("custom_id", "a string", custom_id)
    if not custom_id:
        raise BadLineError("invalid_value", "Invalid 'custom_id': it is empty.", "custom_id")
    if len(custom_id) > CUSTOM_ID_CHARS_MAX:
        message = f"Invalid 'custom_id': it is longer than {CUSTOM_ID_CHARS_MAX} characters."
        raise BadLineError("invalid_value", message, "custom_id")
    # `isprintable` also says no to unusual spaces and to what Unicode assigned after this Python was made.
    if any(unicodedata.category(character) == "Cc" for character in custom_id):
        raise BadLineError("invalid_value", "Invalid 'custom_id': it has control characters.", "custom_id")


def _unparseable(line: bytes) -> BadLineError:
    why = strict.explain(line)
    return BadLineError("invalid_json_line", _UNPARSEABLE if why is None else f"{_UNPARSEABLE} {why}")


def _incomplete(row: object) -> BadLineError:
    if not isinstance(row, dict):
        return BadLineError("invalid_json_line", f"{_UNPARSEABLE} It is JSON, but not an object.")
    return _missing(next(key for key in _ENVELOPE_KEYS if row.get(key) is None))


def _missing(key: str) -> BadLineError:
    return BadLineError("missing_required_parameter", f"Missing required parameter: '{key}'.", key)


def _wrong_type(name: str, expected: str, value: object) -> BadLineError:
    message = f"Invalid type for '{name}': expected {expected}, but got {kind_of(value)} instead."
    return BadLineError("invalid_type", message, name)


def _shown(text: str) -> str:
    """Shorten what the user wrote: an error names it and is not a copy of it."""
    return text if len(text) <= _SHOWN_CHARS_MAX else f"{text[:_SHOWN_CHARS_MAX]}…"
