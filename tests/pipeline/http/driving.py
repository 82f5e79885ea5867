"""Batches brought from state to state without a scheduler."""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import text

from pipeline.app.batches import take_in_claimed
from pipeline.domain.lifecycle import BatchState
from tests.pipeline.http.served import Answer, Served


def chat_line(custom_id: str = "row-1", **body: object) -> bytes:
    """Return one good request, of the model `echo`."""
    asked = {"model": "echo", "messages": [{"role": "user", "content": "2+2?"}], **body}
    return json.dumps({"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": asked}).encode()


def create(api: Served, file_id: str, *, key: str | None = None, **more: object) -> Answer:
    """Create a batch of a file."""
    body = {"input_file_id": file_id, "endpoint": "/v1/chat/completions", "completion_window": "24h", **more}
    return api.ask("POST", "/v1/batches", body, key=key)


def made(api: Served, content: bytes | None = None, **more: object) -> dict[str, Any]:
    """Return a new batch of a file with this content."""
    file_id = api.upload(chat_line() if content is None else content).json["id"]
    answer = create(api, file_id, **more)
    assert answer.status == 200, answer.content
    batch: dict[str, Any] = answer.json
    return batch


def take_in(api: Served, batch_id: str) -> dict[str, Any]:
    """Take a batch in, as the scheduler would; return it."""
    claim = api.stack.batches.claim([BatchState.VALIDATING], batch_id=batch_id)
    assert claim is not None
    take_in_claimed(api.stack, claim)
    return seen(api, batch_id)


def seen(api: Served, batch_id: str) -> dict[str, Any]:
    """Return a batch as the API tells it."""
    batch: dict[str, Any] = api.ask("GET", f"/v1/batches/{batch_id}").json
    return batch


def put_into(api: Served, batch_id: str, state: BatchState) -> None:
    """Put a batch into a state, past everything that would lead it there."""
    statement = text(f"""
        UPDATE batches SET state = '{state}', rows_completed = rows_total, rows_failed = 0,
               errors = CASE '{state}' WHEN 'failed' THEN CAST('[]' AS jsonb) END
               {"" if state is BatchState.VALIDATING else f", {state}_at = now()"}
         WHERE id = :batch_id
    """)  # noqa: S608 -- a state is a word of ours
    with api.stack.database.transaction() as connection:
        connection.execute(statement, {"batch_id": batch_id})


def lines(count: int) -> bytes:
    """Return a file of so many good requests."""
    return b"".join(
        chat_line(f"row-{number}", messages=[{"role": "user", "content": f"question {number}"}]) + b"\n"
        for number in range(count)
    )
