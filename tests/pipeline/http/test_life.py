"""The life of a batch through OpenAI's own client, on a whole stack."""

from __future__ import annotations

import json
from collections.abc import Iterator

import openai
import pytest

from tests.pipeline.http.served import Served
from tests.services import eventually


@pytest.fixture
def client(whole: Served) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{whole.url}/v1", api_key=whole.key()) as client:
        yield client


def lines(count: int) -> bytes:
    return b"".join(
        json.dumps(
            {
                "custom_id": f"row-{number}",
                "method": "POST",
                "url": "/v1/chat/completions",
                "body": {"model": "echo", "messages": [{"role": "user", "content": f"question {number}"}]},
            }
        ).encode()
        + b"\n"
        for number in range(count)
    )


def test_a_batch_is_uploaded_created_polled_and_downloaded(client: openai.OpenAI) -> None:
    file = client.files.create(file=("in.jsonl", lines(40)), purpose="batch")
    batch = client.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h", metadata={"who": "me"}
    )
    assert batch.status == "validating"

    eventually(lambda: client.batches.retrieve(batch.id).status == "completed")

    batch = client.batches.retrieve(batch.id)
    assert batch.output_file_id is not None
    rows = [json.loads(line) for line in client.files.content(batch.output_file_id).text.splitlines()]
    assert [row["custom_id"] for row in rows] == [f"row-{number}" for number in range(40)]
