"""The life of batches through an unmodified OpenAI SDK: `python sdk_life.py BASE_URL KEY`, under whichever version.

Knows of Nightrate nothing but its address; each step asserts. Prints the SDK's version at the end.
"""

# ruff: noqa: ANN401, T201 -- a program: it prints, and what it reads are the SDK's objects of two versions

from __future__ import annotations

import io
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import openai

ROWS = 40
DEADLINE_SECONDS = 90.0


def main(base_url: str, key: str) -> None:
    """Run every step against the server at `base_url`."""
    with openai.OpenAI(base_url=base_url, api_key=key) as client:
        file_id = upload(client)
        completed(client, file_id)
        with_errors(client)
        invalid(client)
        cancelled(client, file_id)
        listed(client, file_id)
        refused(client)
        deleted(client)
    print(openai.__version__)


def line(number: int, **body: object) -> bytes:
    """Return one request."""
    asked = {"model": "echo", "messages": [{"role": "user", "content": f"question {number}"}], **body}
    row = {"custom_id": f"row-{number}", "method": "POST", "url": "/v1/chat/completions", "body": asked}
    return json.dumps(row).encode() + b"\n"


def upload(client: openai.OpenAI) -> str:
    """Upload, retrieve and read back a file."""
    content = b"".join(line(number) for number in range(ROWS))
    file = client.files.create(
        file=("in.jsonl", io.BytesIO(content)),
        purpose="batch",
        expires_after={"anchor": "created_at", "seconds": 7200},
    )
    assert (file.object, file.purpose, file.status, file.bytes) == ("file", "batch", "processed", len(content))
    assert file.expires_at == file.created_at + 7200
    assert client.files.retrieve(file.id) == file
    assert client.files.content(file.id).read() == content
    return str(file.id)


def completed(client: openai.OpenAI, file_id: str) -> None:
    """Run a batch to its end; its output has every row."""
    batch = client.batches.create(
        input_file_id=file_id,
        endpoint="/v1/chat/completions",
        completion_window="24h",
        metadata={"customer": "c-17"},
        output_expires_after={"anchor": "created_at", "seconds": 3600},
    )
    assert (batch.status, batch.object, batch.completion_window) == ("validating", "batch", "24h")
    assert batch.expires_at == batch.created_at + 86_400
    assert batch.metadata == {"customer": "c-17"}
    batch = until(client, batch.id, "completed")
    counts = batch.request_counts
    assert (counts.total, counts.completed, counts.failed) == (ROWS, ROWS, 0)
    assert batch.error_file_id is None
    assert batch.in_progress_at <= batch.finalizing_at <= batch.completed_at
    assert batch.model == "echo"
    assert batch.usage.total_tokens == batch.usage.input_tokens + batch.usage.output_tokens > 0
    output = client.files.retrieve(batch.output_file_id)
    assert (output.purpose, output.filename) == ("batch_output", f"{batch.id}_output.jsonl")
    assert output.expires_at == output.created_at + 3600
    rows = [json.loads(each) for each in client.files.content(batch.output_file_id).text.splitlines()]
    assert {row["custom_id"] for row in rows} == {f"row-{number}" for number in range(ROWS)}
    for row in rows:
        assert (row["response"]["status_code"], row["error"]) == (200, None)
        assert row["response"]["body"]["choices"][0]["message"]["role"] == "assistant"


def with_errors(client: openai.OpenAI) -> None:
    """A row that cannot run is in the error file with its answer; all rows failing is still `completed`."""
    content = line(0) + line(1, temperature=7)
    file = client.files.create(file=("mixed.jsonl", content), purpose="batch")
    batch = until(client, created(client, file.id).id, "completed")
    (row,) = [json.loads(each) for each in client.files.content(batch.error_file_id).text.splitlines()]
    assert (row["custom_id"], row["response"]["status_code"], row["error"]) == ("row-1", 400, None)
    assert row["response"]["body"]["error"]["param"] == "body.temperature"
    file = client.files.create(file=("failed.jsonl", line(1, temperature=7)), purpose="batch")
    batch = until(client, created(client, file.id).id, "completed")
    assert batch.output_file_id is None
    assert (batch.request_counts.completed, batch.request_counts.failed) == (0, 1)


def invalid(client: openai.OpenAI) -> None:
    """A file with bad lines, and one that is not there, fail the batch afterwards."""
    bad = b"not json\n" + json.dumps({"custom_id": "a", "method": "POST", "body": {}}).encode() + b"\n"
    file = client.files.create(file=("bad.jsonl", bad), purpose="batch")
    batch = until(client, created(client, file.id).id, "failed")
    assert [(error.code, error.line, error.param) for error in batch.errors.data] == [
        ("invalid_json_line", 1, None),
        ("missing_required_parameter", 2, "url"),
    ]
    batch = until(client, created(client, "file-nowhere").id, "failed")
    assert batch.errors.data[0].message.startswith("Cannot find file file-nowhere")


def cancelled(client: openai.OpenAI, file_id: str) -> None:
    """A batch is cancelled while it waits, again when it is cancelled, and not once it has ended otherwise."""
    held = client.batches.create(
        input_file_id=file_id,
        endpoint="/v1/chat/completions",
        completion_window="7d",
        extra_body={"hold_until": int(time.time()) + 3600, "tier": "bulk"},
    )
    assert held.model_extra["tier"] == "bulk"
    client.batches.cancel(held.id)  # validating, or in progress already
    batch = until(client, held.id, "cancelled")
    assert batch.cancelling_at <= batch.cancelled_at
    assert client.batches.cancel(held.id).status == "cancelled"
    held = client.batches.create(
        input_file_id=file_id,
        endpoint="/v1/chat/completions",
        completion_window="24h",
        extra_body={"hold_until": int(time.time()) + 3600},
    )
    until(client, held.id, "in_progress")
    assert client.batches.cancel(held.id).status == "cancelling"
    batch = until(client, held.id, "cancelled")
    rows = [json.loads(each) for each in client.files.content(batch.error_file_id).text.splitlines()]
    assert {row["error"]["code"] for row in rows} == {"batch_cancelled"}
    for status in ("completed", "failed"):
        ended = next(each for each in client.batches.list(limit=100) if each.status == status)
        error = raised(openai.ConflictError, lambda ended=ended: client.batches.cancel(ended.id))
        assert error.body["message"] == f"Cannot cancel a batch with status '{status}'."


def listed(client: openai.OpenAI, file_id: str) -> None:
    """Lists are paged by the SDK itself; nothing is missing and nothing comes twice."""
    made = [created(client, file_id).id for _ in range(5)]
    ids = [batch.id for batch in client.batches.list(limit=2)]
    assert len(ids) == len(set(ids))
    assert ids[:5] == made[::-1]
    files = [file.id for file in client.files.list(limit=3, order="asc")]
    assert len(files) == len(set(files))
    assert files == [file.id for file in client.files.list(limit=100, order="desc")][::-1]
    assert {file.purpose for file in client.files.list(purpose="batch_output")} == {"batch_output"}
    assert "echo" in {model.id for model in client.models.list()}
    assert client.models.retrieve("echo").object == "model"


def refused(client: openai.OpenAI) -> None:
    """What makes no sense is refused at once, in OpenAI's words."""
    error = raised(openai.BadRequestError, lambda: created(client, "x", endpoint="/v1/nothing"))
    assert (error.code, error.param) == ("invalid_value", "endpoint")
    error = raised(openai.BadRequestError, lambda: created(client, "x", completion_window="soon"))
    assert error.param == "completion_window"
    error = raised(openai.NotFoundError, lambda: client.batches.retrieve("batch_nowhere"))
    assert "No batch found" in error.message
    assert error.request_id
    stranger = client.with_options(api_key="sk-nr-nobody")
    assert raised(openai.AuthenticationError, stranger.models.list).code == "invalid_api_key"
    error = raised(openai.BadRequestError, lambda: client.files.create(file=("a.csv", b"a,b"), purpose="batch"))
    assert error.body["message"] == "Invalid file format for Batch API. Must be .jsonl"


def deleted(client: openai.OpenAI) -> None:
    """A deleted file is gone."""
    file = client.files.create(file=("gone.jsonl", line(0)), purpose="batch")
    answer = client.files.delete(file.id)
    assert (answer.id, answer.object, answer.deleted) == (file.id, "file", True)
    raised(openai.NotFoundError, lambda: client.files.retrieve(file.id))
    raised(openai.NotFoundError, lambda: client.files.content(file.id))


def created(client: openai.OpenAI, file_id: str, **more: object) -> Any:
    """Create a batch of that file."""
    asked = {"endpoint": "/v1/chat/completions", "completion_window": "24h", **more}
    return client.batches.create(input_file_id=file_id, **asked)


def until(client: openai.OpenAI, batch_id: str, status: str) -> Any:
    """Poll until the batch stands there."""
    give_up_at = time.monotonic() + DEADLINE_SECONDS
    while (batch := client.batches.retrieve(batch_id)).status != status:
        assert time.monotonic() < give_up_at, f"{batch_id} is still {batch.status}"
        time.sleep(0.05)
    return batch


def raised(kind: type[Exception], call: Callable[[], object]) -> Any:
    """Return the error of that kind that the call raises."""
    try:
        call()
    except kind as error:
        return error
    raise AssertionError(f"no {kind.__name__}")


if __name__ == "__main__":
    main(*sys.argv[1:])
