from __future__ import annotations

import gzip
import json

import pytest

from pipeline.domain.endpoints import Endpoint
from pipeline.domain.limits import CUSTOM_ID_CHARS_MAX, LINE_BYTES_MAX, LINE_ERRORS_MAX, NESTING_MAX
from pipeline.submit import reading
from tests.pipeline.files import CHAT, ENCODER, OTHER, admitted, chat, line, rejected, without

UNPARSEABLE = "This line is not parseable as valid JSON."
GOOD = line("good") + b"\n"


def body_line(body: bytes) -> bytes:
    return b'{"custom_id":"a","method":"POST","url":"/v1/chat/completions","body":%b}' % body


def with_text(text: bytes) -> bytes:
    """Return a line whose message is the JSON string `text`, as it stands."""
    return body_line(b'{"model":"model-chat","messages":[{"role":"user","content":"%b"}]}' % text)


def nested(levels: int) -> bytes:
    """Return a line of so many levels, its own object and its body's the first two."""
    inside = levels - 2
    body = json.dumps(chat())[:-1] + ', "metadata": ' + "[" * inside + "]" * inside + "}"
    return body_line(body.encode())


# (what is wrong, the line, code, param, message)
BAD_LINES: list[tuple[str, bytes, str, str | None, str]] = [
    ("not JSON", b"invalid json", "invalid_json_line", None, UNPARSEABLE),
    ("cut off", line()[:-5], "invalid_json_line", None, UNPARSEABLE),
    ("two objects", line() + line(), "invalid_json_line", None, UNPARSEABLE),
    ("array", b"[1]", "invalid_json_line", None, f"{UNPARSEABLE} It is JSON, but not an object."),
    ("string", b'"custom_id"', "invalid_json_line", None, f"{UNPARSEABLE} It is JSON, but not an object."),
    ("null", b"null", "invalid_json_line", None, f"{UNPARSEABLE} It is JSON, but not an object."),
    (
        "invalid UTF-8",
        with_text(b"caf\xe9"),
        "invalid_json_line",
        None,
        f"{UNPARSEABLE} It is not UTF-8: the byte at offset {with_text(b'caf').index(b'caf') + 3} cannot be decoded.",
    ),
    (
        "raw NUL",
        with_text(b"a\x00b"),
        "invalid_json_line",
        None,
        f"{UNPARSEABLE} It has a NUL byte at offset {with_text(b'a').index(b'content') + 11}.",
    ),
    *(
        (
            f"number {number!r}",
            body_line(b'{"model":"model-chat","messages":[],"temperature":%b}' % number),
            "invalid_json_line",
            None,
            f"{UNPARSEABLE} It has a number that is NaN, infinite or too large.",
        )
        for number in (b"NaN", b"Infinity", b"-Infinity", b"1e999")
    ),
    *(
        (
            f"surrogate {text!r}",
            with_text(text),
            "invalid_json_line",
            None,
            f"{UNPARSEABLE} It has half of a surrogate pair in a string.",
        )
        for text in (rb"\ud800", rb"\udc00", rb"x\ud83dx")
    ),
    ("NUL escape", with_text(rb"a\u0000b"), "nul_character", None, "This line has the character U+0000 in a string, which is not supported."),
    ("NUL escape after a backslash", with_text(rb"\\\u0000"), "nul_character", None, "This line has the character U+0000 in a string, which is not supported."),
    ("NUL in custom_id", line("a\x00"), "invalid_value", "custom_id", "Invalid 'custom_id': it has control characters."),
    ("deep", nested(NESTING_MAX + 1), "nesting_too_deep", None, f"This line is nested more than {NESTING_MAX} levels deep."),
    ("as deep as orjson goes", nested(1000), "nesting_too_deep", None, f"This line is nested more than {NESTING_MAX} levels deep."),
    ("deeper than any parser", b'{"a":' * 50_000, "invalid_json_line", None, f"{UNPARSEABLE} It is nested too deeply."),
    ("long", line(body=chat("x" * LINE_BYTES_MAX)), "line_too_long", None, f"This line is longer than {LINE_BYTES_MAX:,} bytes."),
    ("long when written out", body_line(json.dumps(chat())[:-1].encode() + b',"metadata":[' + b"1e15," * 400_000 + b"1]}"), "line_too_long", None, f"This line is longer than {LINE_BYTES_MAX:,} bytes."),
    *((f"no {key}", without(key), "missing_required_parameter", key, f"Missing required parameter: '{key}'.") for key in ("custom_id", "method", "url", "body")),
    *((f"null {key}", line(**{key: None}) if key != "custom_id" else line(None), "missing_required_parameter", key, f"Missing required parameter: '{key}'.") for key in ("custom_id", "method", "url")),
    ("null body", body_line(b"null"), "missing_required_parameter", "body", "Missing required parameter: 'body'."),
    ("nothing", b"{}", "missing_required_parameter", "custom_id", "Missing required parameter: 'custom_id'."),
    ("custom_id number", line(7), "invalid_type", "custom_id", "Invalid type for 'custom_id': expected a string, but got an integer instead."),
    ("custom_id array", line(["a"]), "invalid_type", "custom_id", "Invalid type for 'custom_id': expected a string, but got an array instead."),
    ("custom_id empty", line(""), "invalid_value", "custom_id", "Invalid 'custom_id': it is empty."),
    ("custom_id long", line("x" * (CUSTOM_ID_CHARS_MAX + 1)), "invalid_value", "custom_id", f"Invalid 'custom_id': it is longer than {CUSTOM_ID_CHARS_MAX} characters."),
    *((f"custom_id {bad!r}", line(f"a{bad}"), "invalid_value", "custom_id", "Invalid 'custom_id': it has control characters.") for bad in ("\n", "\t", "\x1b", "\x7f", "\x85")),
    ("method", line(method="GET"), "invalid_method", "method", "Only the method POST is supported."),
    ("method type", line(method=1), "invalid_method", "method", "Only the method POST is supported."),
    *((f"url {url!r}", line(url=url), "invalid_url", "url", "The URL provided for this request does not match the batch endpoint.") for url in ("/v1/embeddings", "/v1/chat/completions/", "", 3, ["x"])),
    ("body string", line(body="hello"), "invalid_type", "body", "Invalid type for 'body': expected an object, but got a string instead."),
    ("body array", line(body=[]), "invalid_type", "body", "Invalid type for 'body': expected an object, but got an array instead."),
    ("no model", line(body={"messages": []}), "invalid_request", "body.model", "Model parameter is required."),
    ("null model", line(body=chat(model=None)), "invalid_request", "body.model", "Model parameter is required."),
    ("model type", line(body=chat(model=5)), "invalid_type", "body.model", "Invalid type for 'body.model': expected a string, but got an integer instead."),
    ("unknown model", line(body=chat(model="x")), "model_not_found", "body.model", "The provided model 'x' is not supported by the Batch API."),
    ("model of another endpoint", line(body=chat(model=ENCODER)), "model_not_found", "body.model", f"The provided model '{ENCODER}' does not serve /v1/chat/completions."),
    ("streaming", line(body=chat(stream=True)), "streaming_unsupported", "body.stream", "Chat Completions: Streaming is not supported in the Batch API."),
    ("no messages", line(body={"model": CHAT}), "invalid_request", "body.messages", "Messages parameter is required."),
    ("null messages", line(body={"model": CHAT, "messages": None}), "invalid_request", "body.messages", "Messages parameter is required."),
    ("duplicate key in the body", body_line(b'{"model":"model-chat","model":"model-chat","messages":[]}'), "duplicate_key", None, "The key 'model' appears twice in one object."),
    ("duplicate key in the line", line()[:-1] + b',"custom_id":"request-1"}', "duplicate_key", None, "The key 'custom_id' appears twice in one object."),
    ("duplicate key deep down", body_line(b'{"model":"model-chat","messages":[{"role":"user","role":"user","content":"x"}]}'), "duplicate_key", None, "The key 'role' appears twice in one object."),
    ("duplicate key beside the four", line()[:-1] + b',"note":{"a":1,"a":1}}', "duplicate_key", None, "The key 'a' appears twice in one object."),
    ("duplicate key, quotes evened out", body_line(rb'{"model":"model-chat","user":"\u0022\u0022","messages":[],"messages":[{"role":"user","content":"x"}]}'), "duplicate_key", None, "The key 'messages' appears twice in one object."),
    ("duplicate key spelt differently", body_line(rb'{"model":"model-chat","us\u0065r":1,"user":2,"messages":[]}'), "duplicate_key", None, "The key 'user' appears twice in one object."),
]  # fmt: skip


@pytest.mark.parametrize(
    ("bad", "code", "param", "message"), [row[1:] for row in BAD_LINES], ids=[row[0] for row in BAD_LINES]
)
def test_a_bad_line_is_named_by_number_code_field_and_reason(
    bad: bytes, code: str, param: str | None, message: str
) -> None:
    outcome = rejected(GOOD + b"\n" + bad + b"\n" + line("last") + b"\n")

    [error] = outcome.errors
    assert (error.line, error.code, error.param, error.message) == (3, code, param, message)
    assert (outcome.errors_total, outcome.rows_total) == (1, 3)


def test_four_bad_lines_are_four_errors() -> None:
    outcome = rejected(b"\n".join([b"{", without("url"), line("a", chat(model="x")), line("b", chat(stream=True))]))

    assert [error.line for error in outcome.errors] == [1, 2, 3, 4]
    assert outcome.errors_total == 4


def test_the_first_bad_lines_are_listed_and_all_are_counted() -> None:
    bad = LINE_ERRORS_MAX + 50
    outcome = rejected(GOOD + b"{\n" * bad)

    assert [error.line for error in outcome.errors] == list(range(2, LINE_ERRORS_MAX + 2))
    assert (outcome.errors_total, outcome.rows_total) == (bad, bad + 1)


def test_a_second_model_is_a_mismatch() -> None:
    [error] = rejected(line("a") + b"\n" + line("b", chat(model=OTHER)) + b"\n").errors

    assert (error.line, error.code, error.param) == (2, "model_mismatch", "body.model")
    assert CHAT in error.message
    assert OTHER in error.message


def test_repeated_custom_ids_name_both_lines() -> None:
    ids = ["a", "b", "a", "c", "b", "a"]
    outcome = rejected(b"\n" + b"\n".join(line(each, chat(str(n))) for n, each in enumerate(ids)))

    assert [(error.line, error.code, error.param) for error in outcome.errors] == [
        (4, "duplicate_custom_id", "custom_id"),
        (6, "duplicate_custom_id", "custom_id"),
        (7, "duplicate_custom_id", "custom_id"),
    ]
    assert "'a' of this line is already that of line 2" in outcome.errors[0].message
    assert "'b' of this line is already that of line 3" in outcome.errors[1].message
    assert (outcome.errors_total, outcome.rows_total) == (3, 6)


def test_repeated_custom_ids_and_bad_lines_are_listed_in_line_order() -> None:
    outcome = rejected(b"\n".join([line("a"), b"{", line("a"), b"{"] * 60))

    assert [error.line for error in outcome.errors] == [*range(2, LINE_ERRORS_MAX + 2)]
    assert outcome.errors_total == 120 + 119


def test_custom_ids_are_equal_by_characters_not_by_spelling() -> None:
    [error] = rejected(line("é") + b"\n" + line("é").replace(rb"\u00e9", "é".encode())).errors

    assert error.code == "duplicate_custom_id"


@pytest.mark.parametrize("content", [b"", b"\n", b"\n \t\r\n\r\n", b"\xef\xbb\xbf"[:0]])
def test_a_file_without_requests_is_empty(content: bytes) -> None:
    outcome = rejected(content)

    assert [(error.code, error.line, error.param) for error in outcome.errors] == [("empty_file", None, None)]
    assert (outcome.errors_total, outcome.rows_total) == (1, 0)


def test_too_many_lines_end_the_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "FILE_LINES_MAX", 3)

    assert admitted(b"\n".join(line(str(n)) for n in range(3))).rows_total == 3
    outcome = rejected(b"\n".join(line(str(n)) for n in range(4)))
    assert [(error.code, error.line) for error in outcome.errors] == [("too_many_tasks", None)]


def test_too_many_bytes_end_the_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "FILE_BYTES_MAX", len(GOOD))

    assert admitted(GOOD).rows_total == 1
    assert [error.code for error in rejected(GOOD + b"\n").errors] == ["file_too_large"]


def test_an_error_of_the_file_comes_first_and_the_list_keeps_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "FILE_LINES_MAX", 300)
    outcome = rejected(GOOD + b"{\n" * 300)

    assert [error.line for error in outcome.errors][:2] == [None, 2]
    assert (len(outcome.errors), outcome.errors_total) == (LINE_ERRORS_MAX, 301)


def test_a_byte_order_mark_is_refused_on_line_one_alone() -> None:
    outcome = rejected(b"\xef\xbb\xbf" + line("a") + b"\n" + line("b") + b"\n")

    [error] = outcome.errors
    assert (error.line, error.code) == (1, "invalid_json_line")
    assert "save the file as UTF-8 without BOM" in error.message


def test_a_truncated_last_line_is_said_to_be_one() -> None:
    outcome = rejected(GOOD + line("b")[:-9])

    [error] = outcome.errors
    assert (error.line, error.code) == (2, "invalid_json_line")
    assert error.message == f"{UNPARSEABLE} It is the last line and has no newline: the file looks truncated."


LOOKS: list[tuple[str, bytes, str]] = [
    ("gzip", gzip.compress(GOOD * 100), "a gzip archive"),
    ("zip", b"PK\x03\x04" + bytes(100), "a zip archive"),
    ("parquet", b"PAR1" + bytes(100), "a Parquet file"),
    ("utf-16", (GOOD.decode() * 2).encode("utf-16"), "UTF-16 text"),
    ("utf-16 without mark", (GOOD.decode() * 2).encode("utf-16-le"), "UTF-16 text"),
    ("array on one line", json.dumps([json.loads(GOOD)] * 3).encode(), "a JSON array"),
    ("array on several lines", json.dumps([json.loads(GOOD)] * 3, indent=2).encode(), "a JSON array"),
    ("array, one object a line", b"[\n" + line("a") + b",\n" + line("b") + b"\n]\n", "a JSON array"),
    ("indented object", json.dumps(json.loads(GOOD), indent=2).encode(), "JSON spread over several lines"),
    ("csv", b"custom_id,prompt\n1,hello\n2,you\n", "a table of values (CSV)"),
    ("tsv with mark", b"\xef\xbb\xbfcustom_id\tprompt\n1\thello\n", "a table of values (CSV)"),
    ("html", b"<!doctype html>\n<p>404</p>\n", "XML or HTML"),
]


@pytest.mark.parametrize(("content", "look"), [row[1:] for row in LOOKS], ids=[row[0] for row in LOOKS])
def test_a_file_that_is_no_jsonl_gets_one_error_saying_what_it_looks_like(content: bytes, look: str) -> None:
    outcome = rejected(content)

    [error] = outcome.errors
    assert (error.code, error.line, error.param) == ("invalid_file_format", None, None)
    assert error.message.startswith(f"Invalid file format for Batch API. Must be .jsonl; this looks like {look}")


@pytest.mark.parametrize("first", [b"a,b", b"[1]", b"<x>", b"{"])
def test_one_object_among_the_first_lines_makes_it_jsonl(first: bytes) -> None:
    outcome = rejected(first + b"\n" + GOOD)

    assert [error.line for error in outcome.errors] == [1]


@pytest.mark.parametrize(
    ("endpoint", "model", "required", "title"),
    [(Endpoint.COMPLETIONS, CHAT, "prompt", "Completions"), (Endpoint.EMBEDDINGS, ENCODER, "input", "Embeddings")],
)
def test_other_endpoints_have_their_own_required_field(
    endpoint: Endpoint, model: str, required: str, title: str
) -> None:
    def one(**fields: object) -> bytes:
        return line(url=endpoint.value, body={"model": model} | fields)

    assert admitted(one(**{required: "x"}), endpoint=endpoint).rows_refused == 0
    [missing] = rejected(one(), endpoint=endpoint).errors
    assert (missing.message, missing.param) == (f"{required.capitalize()} parameter is required.", f"body.{required}")
    [streaming] = rejected(one(stream=True, **{required: "x"}), endpoint=endpoint).errors
    assert streaming.message == f"{title}: Streaming is not supported in the Batch API."
