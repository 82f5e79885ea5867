"""What OpenAI's server was seen to do, case by case: errors at once, errors afterwards, lists, retries."""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai.types
import pytest

from pipeline.domain.lifecycle import BatchState
from tests.pipeline.http.driving import chat_line, create, made, put_into, seen, take_in
from tests.pipeline.http.served import Served, form

PAIRS_16 = {f"key-{number}": "value" for number in range(16)}
GOOD = {"input_file_id": "file_x", "endpoint": "/v1/chat/completions", "completion_window": "24h"}


def is_strictly(kind: type[Any], document: dict[str, Any]) -> None:
    """Check a document against the SDK's own type, which the SDK itself does not."""
    kind.model_validate_json(json.dumps(document), strict=True)


# --- refused at once --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "code", "param", "said"),
    [
        ({"endpoint": "/v1/nothing"}, "invalid_value", "endpoint", "Supported values are: '/v1/chat/completions'"),
        ({"endpoint": None}, "invalid_value", "endpoint", "Invalid value: None"),
        ({"endpoint": ...}, "missing_required_parameter", "endpoint", "Missing required parameter: 'endpoint'."),
        ({"input_file_id": ...}, "missing_required_parameter", "input_file_id", "'input_file_id'"),
        ({"input_file_id": 3}, "invalid_type", "input_file_id", "expected a string, but got an integer instead."),
        ({"input_file_id": ""}, "invalid_value", "input_file_id", "'input_file_id'"),
        ({"input_file_id": "x" * 129}, "invalid_value", "input_file_id", "'input_file_id'"),
        ({"input_file_id": "a\0b"}, "invalid_value", "input_file_id", "'input_file_id'"),
        ({"completion_window": ...}, "missing_required_parameter", "completion_window", "completion_window"),
        ({"completion_window": ""}, "invalid_value", "completion_window", "completion_window"),
        ({"completion_window": "24"}, "invalid_value", "completion_window", "completion_window"),
        ({"completion_window": "0h"}, "invalid_value", "completion_window", "completion_window"),
        ({"completion_window": "31d"}, "invalid_value", "completion_window", "completion_window"),
        ({"completion_window": "721h"}, "invalid_value", "completion_window", "completion_window"),
        ({"completion_window": "43201m"}, "invalid_value", "completion_window", "completion_window"),
        ({"completion_window": 24}, "invalid_type", "completion_window", "expected a string"),
        (
            {"metadata": {"tags": ["a"]}},
            "invalid_type",
            "metadata.tags",
            "Invalid type for 'metadata.tags': expected a string, but got an array instead.",
        ),
        ({"metadata": "a"}, "invalid_type", "metadata", "expected an object, but got a string instead."),
        ({"metadata": PAIRS_16 | {"one": "more"}}, "invalid_value", "metadata", "16"),
        ({"metadata": {"k" * 65: "v"}}, "invalid_value", None, "64"),
        ({"metadata": {"k": "v" * 513}}, "invalid_value", "metadata.k", "512"),
        ({"output_expires_after": {"anchor": "created_at", "seconds": 3599}}, "invalid_value", None, "3600"),
        ({"output_expires_after": {"anchor": "created_at", "seconds": 2_592_001}}, "invalid_value", None, "2592000"),
        ({"output_expires_after": {"anchor": "x", "seconds": 3600}}, "invalid_value", None, "created_at"),
        ({"tier": "gold"}, "invalid_value", "tier", "'urgent'"),
        ({"max_cost": "0.00"}, "invalid_value", "max_cost", "max_cost"),
        ({"max_cost": 1.5}, "invalid_type", "max_cost", "expected a string, but got a number instead."),
        ({"max_cost": "0.0000001"}, "invalid_value", "max_cost", "max_cost"),
        ({"priority": 101}, "invalid_value", "priority", "100"),
        ({"hold_until": -1}, "invalid_value", "hold_until", "hold_until"),
        ({"unheard_of": 1}, "unknown_parameter", "unheard_of", "Unknown parameter: 'unheard_of'."),
    ],
)
def test_a_batch_that_makes_no_sense_is_refused_at_once(
    quiet: Served, change: dict[str, Any], code: str, param: str | None, said: str
) -> None:
    body = {name: value for name, value in (GOOD | change).items() if value is not ...}

    answer = quiet.ask("POST", "/v1/batches", body)

    assert answer.status == 400
    assert (answer.error["type"], answer.error["code"]) == ("invalid_request_error", code)
    if param is not None:
        assert answer.error["param"] == param
    assert said in answer.error["message"]


@pytest.mark.parametrize(
    "change",
    [
        {"metadata": PAIRS_16},
        {"metadata": {"k" * 64: "v" * 512}},
        {"metadata": {}},
        {"metadata": None},
        {"completion_window": "1m"},
        {"completion_window": "30d"},
        {"completion_window": "720h"},
        {"completion_window": "43200m"},
        {"output_expires_after": {"anchor": "created_at", "seconds": 3600}},
        {"output_expires_after": {"anchor": "created_at", "seconds": 2_592_000}},
        {"priority": -100},
        {"priority": 100},
        {"max_cost": "0.000001"},
        {"max_cost": "999999999.999999"},
        {"hold_until": 0},
        {"input_file_id": "x" * 128},
        {"labels": {"team": "search"}},
    ],
)
def test_what_is_just_within_bounds_is_accepted(quiet: Served, change: dict[str, Any]) -> None:
    answer = quiet.ask("POST", "/v1/batches", GOOD | change)

    assert answer.status == 200, answer.content
    is_strictly(openai.types.Batch, answer.json)
    for name in ("completion_window", "metadata", "labels", "priority", "max_cost"):
        if name in change:
            assert answer.json[name] == change[name]


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "said"),
    [
        ("GET", "/v1/batches/batch_nowhere", None, 404, "No batch found"),
        ("POST", "/v1/batches/batch_nowhere/cancel", None, 404, "No batch found"),
        ("GET", "/v1/files/file_nowhere", None, 404, "file_nowhere"),
        ("GET", "/v1/files/file_nowhere/content", None, 404, "file_nowhere"),
        ("DELETE", "/v1/files/file_nowhere", None, 404, "file_nowhere"),
        ("GET", "/v1/models/nobody/none", None, 404, "does not exist"),
        ("GET", "/v1/nothing", None, 404, "Not Found"),
        ("PUT", "/v1/batches", {}, 405, "Method Not Allowed"),
        ("POST", "/v1/batches", b"{", 400, "not parseable as JSON"),
        ("POST", "/v1/batches", b"[]", 400, "expected an object, but got an array"),
        ("POST", "/v1/batches", b"", 400, "no body"),
        ("POST", "/v1/batches", b'{"a": "' + b"x" * 1024 * 1024 + b'"}', 413, "larger than 1048576 bytes"),
        ("GET", "/v1/batches?limit=0", None, 400, "limit"),
        ("GET", "/v1/batches?limit=101", None, 400, "limit"),
        ("GET", "/v1/batches?limit=many", None, 400, "limit"),
        ("GET", "/v1/batches?after=batch_nowhere", None, 404, "No batch found"),
        ("GET", "/v1/batches/%00", None, 400, "NUL"),
        ("GET", "/v1/batches?after=%00", None, 400, "NUL"),
        ("GET", "/v1/files?limit=10001", None, 400, "limit"),
        ("GET", "/v1/files?order=sideways", None, 400, "'asc' or 'desc'"),
        ("GET", "/v1/files?purpose=fun", None, 400, "'batch'"),
        ("GET", "/v1/files?after=file_nowhere", None, 404, "file_nowhere"),
    ],
)
def test_every_error_has_the_envelope_and_an_id(
    quiet: Served, method: str, path: str, body: object, status: int, said: str
) -> None:
    answer = quiet.ask(method, path, body, headers={"Content-Type": "application/json"})

    assert answer.status == status, answer.content
    assert answer.error["type"] == "invalid_request_error"
    assert said in answer.error["message"]
    assert answer.headers["x-request-id"].startswith("req_")
    assert answer.headers["content-type"] == "application/json"


@pytest.mark.parametrize("limit", [1, 100])
def test_the_largest_and_the_smallest_page_are_pages(quiet: Served, limit: int) -> None:
    answer = quiet.ask("GET", f"/v1/batches?limit={limit}")

    assert answer.status == 200
    assert len(answer.json["data"]) <= limit


def test_a_method_that_is_not_allowed_hears_which_are(quiet: Served) -> None:
    assert quiet.ask("PUT", "/v1/files/file_x").headers["allow"] == "DELETE, GET"
    assert quiet.ask("PUT", "/v1/batches").headers["allow"] == "GET, POST"


# --- files ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "filename", "status", "code", "param"),
    [
        ({"purpose": "batch"}, "a.csv", 400, None, None),
        ({"purpose": "fun"}, "a.jsonl", 400, "invalid_value", "purpose"),
        ({"purpose": "batch_output"}, "a.jsonl", 400, "invalid_value", "purpose"),
        ({}, "a.jsonl", 400, "missing_required_parameter", "purpose"),
        ({"purpose": "batch"}, None, 400, "missing_required_parameter", "file"),
        ({"purpose": "batch", "more": "x"}, "a.jsonl", 400, "unknown_parameter", "more"),
        (
            {"purpose": "batch", "expires_after[anchor]": "created_at", "expires_after[seconds]": "3599"},
            "a.jsonl",
            400,
            "invalid_value",
            "expires_after.seconds",
        ),
        (
            {"purpose": "batch", "expires_after[anchor]": "created_at", "expires_after[seconds]": "2592001"},
            "a.jsonl",
            400,
            "invalid_value",
            "expires_after.seconds",
        ),
        (
            {"purpose": "batch", "expires_after[anchor]": "created_at"},
            "a.jsonl",
            400,
            "invalid_value",
            "expires_after.seconds",
        ),
        (
            {"purpose": "batch", "expires_after[seconds]": "3600"},
            "a.jsonl",
            400,
            "invalid_value",
            "expires_after.anchor",
        ),
    ],
)
def test_an_upload_that_makes_no_sense_is_refused_and_leaves_nothing(
    quiet: Served, fields: dict[str, str], filename: str | None, status: int, code: str | None, param: str | None
) -> None:
    before = quiet.ask("GET", "/v1/files").json["data"]
    body, content_type = form(fields, filename=filename, content=chat_line())

    answer = quiet.ask("POST", "/v1/files", body, headers={"Content-Type": content_type})

    assert answer.status == status, answer.content
    assert (answer.error["code"], answer.error["param"]) == (code, param)
    assert quiet.ask("GET", "/v1/files").json["data"] == before
    assert not list(quiet.stack.spool_folder.glob("upload-*"))


def test_a_file_says_what_openai_says_of_one(quiet: Served) -> None:
    content = chat_line() + b"\n"

    file = quiet.upload(content, filename="dir/in put.jsonl").json

    is_strictly(openai.types.FileObject, file)
    assert file == {
        "id": file["id"],
        "object": "file",
        "bytes": len(content),
        "created_at": file["created_at"],
        "expires_at": file["created_at"] + 2_592_000,
        "filename": "in put.jsonl",
        "sha256": hashlib.sha256(content).hexdigest(),
        "purpose": "batch",
        "status": "processed",
        "status_details": None,
    }
    assert quiet.ask("GET", f"/v1/files/{file['id']}").json == file
    assert quiet.upload(b"x", filename="a.txt", purpose="user_data").json["expires_at"] is None


@pytest.mark.parametrize("seconds", [3600, 2_592_000])
def test_a_file_is_kept_as_long_as_was_asked(quiet: Served, seconds: int) -> None:
    fields = {"expires_after[anchor]": "created_at", "expires_after[seconds]": str(seconds)}

    file = quiet.upload(chat_line(), **fields).json

    assert file["expires_at"] - file["created_at"] == seconds


def test_a_file_that_a_live_batch_reads_is_not_deleted(quiet: Served) -> None:
    batch = made(quiet)
    path = f"/v1/files/{batch['input_file_id']}"

    answer = quiet.ask("DELETE", path)

    assert answer.status == 409
    assert answer.headers["x-should-retry"] == "false"
    assert quiet.ask("GET", path).status == 200
    take_in(quiet, batch["id"])
    put_into(quiet, batch["id"], BatchState.COMPLETED)
    assert quiet.ask("DELETE", path).json == {"id": batch["input_file_id"], "object": "file", "deleted": True}
    assert quiet.ask("GET", path).status == 404
    assert seen(quiet, batch["id"])["input_file_id"] == batch["input_file_id"]


# --- batches ----------------------------------------------------------------------------------


def test_a_batch_says_what_openai_says_of_one(quiet: Served) -> None:
    batch = made(quiet, metadata={"customer_id": "user_123456789"})

    is_strictly(openai.types.Batch, batch)
    beyond = batch.keys() - openai.types.Batch.model_fields.keys()
    assert {name: value for name, value in batch.items() if name not in beyond} == {
        "id": batch["id"],
        "object": "batch",
        "endpoint": "/v1/chat/completions",
        "model": None,
        "errors": None,
        "input_file_id": batch["input_file_id"],
        "completion_window": "24h",
        "status": "validating",
        "output_file_id": None,
        "error_file_id": None,
        "created_at": batch["created_at"],
        "in_progress_at": None,
        "expires_at": batch["created_at"] + 86_400,
        "finalizing_at": None,
        "completed_at": None,
        "failed_at": None,
        "expired_at": None,
        "cancelling_at": None,
        "cancelled_at": None,
        "request_counts": {"total": 0, "completed": 0, "failed": 0},
        "usage": None,
        "metadata": {"customer_id": "user_123456789"},
    }


@pytest.mark.parametrize(
    ("content", "errors"),
    [
        (b"not json\n", [("invalid_json_line", 1, None, "This line is not parseable as valid JSON.")]),
        (
            b'{"method":"POST","url":"/v1/chat/completions","body":{}}\n',
            [("missing_required_parameter", 1, "custom_id", "Missing required parameter: 'custom_id'.")],
        ),
        (
            b'{"custom_id":"a","url":"/v1/chat/completions","body":{}}\n',
            [("missing_required_parameter", 1, "method", "Missing required parameter: 'method'.")],
        ),
        (
            b'{"custom_id":"a","method":"POST","body":{}}\n',
            [("missing_required_parameter", 1, "url", "Missing required parameter: 'url'.")],
        ),
        (
            b'{"custom_id":"a","method":"POST","url":"/v1/chat/completions"}\n',
            [("missing_required_parameter", 1, "body", "Missing required parameter: 'body'.")],
        ),
        (
            b'{"custom_id":"a","method":"POST","url":"/v1/embeddings","body":{}}\n',
            [("invalid_url", 1, "url", "The URL provided for this request does not match the batch endpoint.")],
        ),
        (
            chat_line(model="x"),
            [("model_not_found", 1, "body.model", "The provided model 'x' is not supported by the Batch API.")],
        ),
        (
            chat_line(stream=True),
            [
                (
                    "streaming_unsupported",
                    1,
                    "body.stream",
                    "Chat Completions: Streaming is not supported in the Batch API.",
                )
            ],
        ),
        (chat_line(model=None), [("invalid_request", 1, "body.model", "Model parameter is required.")]),
        (chat_line(messages=None), [("invalid_request", 1, "body.messages", "Messages parameter is required.")]),
        (
            chat_line() + b"\n" + chat_line(),
            [
                (
                    "duplicate_custom_id",
                    2,
                    "custom_id",
                    "The custom_id 'row-1' of this line is already that of line 1; custom ids are unique in a file.",
                )
            ],
        ),
        (chat_line("c" * 65), [("invalid_value", 1, "custom_id", None)]),
        (b"\xef\xbb\xbf" + chat_line(), [("invalid_json_line", 1, None, None)]),
        (b"\n\n", [("empty_file", None, None, None)]),
        (
            b"a\nb\n" + chat_line() + b"\nc\nd\n",
            [("invalid_json_line", line, None, None) for line in (1, 2, 4, 5)],
        ),
    ],
    ids=lambda value: value[:40].decode(errors="replace") if isinstance(value, bytes) else None,
)
def test_a_file_with_bad_lines_fails_the_batch_afterwards_and_lists_them(
    quiet: Served, content: bytes, errors: list[tuple[str, int | None, str | None, str | None]]
) -> None:
    batch = made(quiet, content)
    assert batch["status"] == "validating"

    batch = take_in(quiet, batch["id"])

    assert batch["status"] == "failed"
    assert batch["failed_at"] is not None
    is_strictly(openai.types.Batch, batch)
    assert batch["errors"]["object"] == "list"
    told = batch["errors"]["data"]
    assert [(error["code"], error["line"], error["param"]) for error in told] == [error[:3] for error in errors]
    for error, (*_, message) in zip(told, errors, strict=True):
        assert message is None or error["message"] == message


@pytest.mark.parametrize(
    "content",
    [
        chat_line().replace(b"\n", b"") + b"\r\n" + chat_line("row-2") + b"\r\n",
        b"\n" + chat_line() + b"\n\n   \n" + chat_line("row-2"),
        chat_line("c" * 64) + b"\n" + chat_line("row-2"),
    ],
    ids=["carriage returns", "blank lines", "longest id"],
)
def test_what_is_unusual_and_harmless_is_taken_in(quiet: Served, content: bytes) -> None:
    batch = take_in(quiet, made(quiet, content)["id"])

    assert (batch["status"], batch["request_counts"]["total"]) == ("in_progress", 2)
    is_strictly(openai.types.Batch, batch)


def test_a_hundred_bad_lines_are_listed_and_the_others_counted(quiet: Served) -> None:
    batch = take_in(quiet, made(quiet, b"bad\n" * 101)["id"])

    assert (len(batch["errors"]["data"]), batch["errors_total"]) == (100, 101)


def test_a_batch_may_have_more_requests_than_openai_takes(quiet: Served) -> None:
    content = b"\n".join(chat_line(f"row-{number}") for number in range(50_001))

    batch = take_in(quiet, made(quiet, content)["id"])

    assert (batch["status"], batch["request_counts"]["total"]) == ("in_progress", 50_001)


@pytest.mark.parametrize(
    ("file_id", "said"),
    [
        ("file-nowhere", "Cannot find file file-nowhere, or organization tnt_default does not have access to it."),
        (None, "has the purpose 'user_data'; a batch needs one with the purpose 'batch'."),
    ],
)
def test_a_batch_of_what_is_no_input_fails_afterwards(quiet: Served, file_id: str | None, said: str) -> None:
    file_id = file_id or quiet.upload(b"x", purpose="user_data").json["id"]
    answer = create(quiet, file_id)
    assert (answer.status, answer.json["status"], answer.json["input_file_id"]) == (200, "validating", file_id)

    batch = take_in(quiet, answer.json["id"])

    (error,) = batch["errors"]["data"]
    assert (batch["status"], error["code"], error["line"], error["param"]) == (
        "failed",
        "invalid_request",
        None,
        "file_id",
    )
    assert said in error["message"]


@pytest.mark.parametrize("state", list(BatchState))
def test_cancelling_is_allowed_until_a_batch_is_about_to_end(quiet: Served, state: BatchState) -> None:
    batch = made(quiet)
    take_in(quiet, batch["id"])
    put_into(quiet, batch["id"], state)

    answer = quiet.ask("POST", f"/v1/batches/{batch['id']}/cancel")

    if state in {BatchState.VALIDATING, BatchState.IN_PROGRESS, BatchState.CANCELLING}:
        assert (answer.status, answer.json["status"]) == (200, "cancelling")
    elif state is BatchState.CANCELLED:
        assert (answer.status, answer.json["status"]) == (200, "cancelled")
    else:
        assert answer.status == 409
        assert answer.error == {
            "message": f"Cannot cancel a batch with status '{state}'.",
            "type": "invalid_request_error",
            "param": None,
            "code": None,
        }
        assert answer.headers["x-should-retry"] == "false"


# --- lists ------------------------------------------------------------------------------------


def test_a_list_is_paged_in_a_stable_order(quiet: Served) -> None:
    ids = [create(quiet, "file_x").json["id"] for _ in range(5)][::-1]

    pages, after = [], ""
    while len(pages) < 3:
        page = quiet.ask("GET", f"/v1/batches?limit=2{after}").json
        assert (page["object"], page["has_more"]) == ("list", True)
        assert (page["first_id"], page["last_id"]) == (page["data"][0]["id"], page["data"][-1]["id"])
        pages += [[batch["id"] for batch in page["data"]]]
        after = f"&after={page['last_id']}"

    assert [batch_id for page in pages for batch_id in page][:5] == ids


def test_a_page_after_a_file_that_was_deleted_goes_on_where_it_was(quiet: Served) -> None:
    ids = [quiet.upload(chat_line()).json["id"] for _ in range(3)]
    quiet.ask("DELETE", f"/v1/files/{ids[1]}")

    page = quiet.ask("GET", f"/v1/files?after={ids[1]}&limit=1").json
    rising = quiet.ask("GET", f"/v1/files?after={ids[1]}&limit=1&order=asc").json

    assert [file["id"] for file in page["data"]] == [ids[0]]
    assert [file["id"] for file in rising["data"]] == [ids[2]]


def test_an_empty_list_is_a_list(quiet: Served) -> None:
    page = quiet.ask("GET", "/v1/files?purpose=evals").json

    assert page == {"object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False}


# --- once and never twice ---------------------------------------------------------------------


def test_an_idempotency_key_makes_one_batch_whoever_is_first(quiet: Served) -> None:
    file_id = quiet.upload(chat_line()).json["id"]
    body = GOOD | {"input_file_id": file_id}

    def ask(_: int) -> str:
        answer = quiet.ask("POST", "/v1/batches", body, headers={"Idempotency-Key": "once"})
        assert answer.status == 200, answer.content
        return str(answer.json["id"])

    with ThreadPoolExecutor(16) as threads:
        ids = set(threads.map(ask, range(50)))
    other = quiet.ask("POST", "/v1/batches", body | {"tier": "bulk"}, headers={"Idempotency-Key": "once"})

    assert len(ids) == 1
    assert (other.status, other.error["code"]) == (422, "idempotency_key_reused")
    assert other.headers["x-should-retry"] == "false"


@pytest.mark.parametrize("file_id", [None, "file-nowhere"])
def test_a_second_try_of_the_sdk_returns_the_first_ones_batch(quiet: Served, file_id: str | None) -> None:
    body = GOOD | {"input_file_id": file_id or quiet.upload(chat_line()).json["id"], "metadata": {"a": "b"}}

    def ask(retry_count: int, **more: object) -> str:
        headers = {"x-stainless-retry-count": str(retry_count)}
        return str(quiet.ask("POST", "/v1/batches", body | more, headers=headers).json["id"])

    first = ask(0)

    assert ask(1) == first
    assert ask(2) == first
    # What is not the same request makes a batch of its own, and so does the same one asked for anew.
    assert ask(1, metadata={"a": "c"}) != first
    assert ask(1, completion_window="23h") != first
    assert ask(0) != first


def test_second_tries_that_overtake_the_first_make_one_batch(quiet: Served) -> None:
    body = GOOD | {"input_file_id": quiet.upload(chat_line()).json["id"]}

    def ask(_: int) -> str:
        headers = {"x-stainless-retry-count": "1"}
        return str(quiet.ask("POST", "/v1/batches", body, headers=headers).json["id"])

    with ThreadPoolExecutor(8) as threads:
        assert len(set(threads.map(ask, range(16)))) == 1
