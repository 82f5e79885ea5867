from __future__ import annotations

import base64
import io
import json
import struct
import sys
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet as pq

from pipeline.domain.endpoints import Endpoint
from pipeline.domain.objects.part import encode_answer, encode_unanswered, error_body
from pipeline.report import columns
from pipeline.report.columns import ParquetMissingError, columns_of, parquet
from pipeline.report.lines import ResultLine, filed_lines

USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
BODIES: dict[Endpoint, dict[str, Any]] = {
    Endpoint.CHAT_COMPLETIONS: {
        "choices": [{"message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}]
    },
    Endpoint.COMPLETIONS: {"choices": [{"text": "hi", "finish_reason": "length"}]},
    Endpoint.RESPONSES: {"status": "completed", "output": [{"content": [{"type": "output_text", "text": "hi"}]}]},
    Endpoint.EMBEDDINGS: {"data": [{"index": 0, "embedding": [0.5, -1.0]}, {"index": 1, "embedding": [1.0, 1.0]}]},
    Endpoint.SCORE: {"data": [{"index": 0, "score": 0.25}, {"index": 1, "score": 0.5}]},
    Endpoint.RERANK: {"results": [{"index": 1, "relevance_score": 0.5}, {"index": 0, "relevance_score": 0.25}]},
    Endpoint.CLASSIFY: {"data": [{"index": 0, "label": "YES", "probs": [0.25, 0.75]}]},
}
OWN: dict[Endpoint, dict[str, Any]] = {
    Endpoint.CHAT_COMPLETIONS: {"finish_reason": "stop", "text": "hi"},
    Endpoint.COMPLETIONS: {"finish_reason": "length", "text": "hi"},
    Endpoint.RESPONSES: {"finish_reason": "completed", "text": "hi"},
    Endpoint.EMBEDDINGS: {"embedding": [0.5, -1.0]},
    Endpoint.SCORE: {"scores": [0.25, 0.5]},
    Endpoint.RERANK: {"scores": [0.25, 0.5]},
    Endpoint.CLASSIFY: {"label": "YES", "scores": [0.25, 0.75]},
}


def lines(*results: bytes) -> Iterator[ResultLine]:
    written = b"".join(
        b'{"id":"batch_req_ab_%d","custom_id":"r-%d",%b\n' % (n, n, result[1:]) for n, result in enumerate(results, 1)
    )
    return filed_lines([io.BytesIO(written)])


def ok(endpoint: Endpoint) -> bytes:
    return encode_answer(200, "req_x", {"model": "m", "usage": USAGE, **BODIES[endpoint]})


def table(endpoint: Endpoint, *results: bytes) -> pa.Table:
    return pq.read_table(io.BytesIO(b"".join(parquet(endpoint, lines(*results)))))


@pytest.mark.parametrize("endpoint", list(Endpoint))
def test_each_endpoint_has_its_columns(endpoint: Endpoint) -> None:
    refused = encode_answer(400, "req_y", error_body("no", code="bad", param=None))
    rows = table(endpoint, ok(endpoint), refused, encode_unanswered("batch_expired", "Too late.")).to_pylist()

    assert list(rows[0]) == list(columns_of(endpoint))
    shared = {"custom_id": "r-1", "status_code": 200, "error_code": None, "error_message": None, "model": "m"}
    answered = rows[0] | {"body": json.loads(rows[0]["body"])}
    assert answered == shared | OWN[endpoint] | {
        "prompt_tokens": 3,
        "completion_tokens": 2,
        "body": {"model": "m", "usage": USAGE, **BODIES[endpoint]},
    }
    nothing = dict.fromkeys(columns_of(endpoint))
    assert rows[1] == nothing | {
        "custom_id": "r-2",
        "status_code": 400,
        "error_code": "bad",
        "error_message": "no",
        "body": rows[1]["body"],
    }
    assert rows[2] == nothing | {"custom_id": "r-3", "error_code": "batch_expired", "error_message": "Too late."}


@pytest.mark.parametrize("endpoint", list(Endpoint))
def test_columns_that_are_all_null_change_no_schema(endpoint: Endpoint) -> None:
    full, failed, empty = (
        table(endpoint, *results) for results in ((ok(endpoint),) * 2, (encode_unanswered("x", "y"),), ())
    )

    assert full.schema == failed.schema == empty.schema
    assert (full.num_rows, failed.num_rows, empty.num_rows) == (2, 1, 0)


def test_embeddings_in_base64_are_numbers_too() -> None:
    written = base64.b64encode(struct.pack("<3f", 1.0, 2.0, -0.5)).decode()
    results = [encode_answer(200, "req_x", {"data": [{"embedding": each}]}) for each in (written, "no base64!", "AAAA")]

    found = table(Endpoint.EMBEDDINGS, *results)["embedding"].to_pylist()

    assert found == [[1.0, 2.0, -0.5], None, None]


def test_row_groups_are_bounded_and_follow_one_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columns, "GROUP_ROWS_MAX", 3)
    pieces = list(parquet(Endpoint.SCORE, lines(*[ok(Endpoint.SCORE)] * 8)))

    file = pq.ParquetFile(io.BytesIO(b"".join(pieces)))
    assert [file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)] == [3, 3, 2]
    assert len(pieces) == 4
    assert file.read()["custom_id"].to_pylist() == [f"r-{n}" for n in range(1, 9)]


def test_large_rows_make_small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columns, "GROUP_BYTES_MAX", 1)

    file = pq.ParquetFile(io.BytesIO(b"".join(parquet(Endpoint.SCORE, lines(*[ok(Endpoint.SCORE)] * 3)))))

    assert file.num_row_groups == 3


def test_without_pyarrow_it_is_said_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)

    with pytest.raises(ParquetMissingError, match="not installed") as caught:
        next(parquet(Endpoint.SCORE, iter(())))
    assert caught.value.code == "parquet_not_installed"


def test_a_response_that_was_cut_says_why_and_its_tokens_go_by_their_own_names() -> None:
    body = BODIES[Endpoint.RESPONSES] | {
        "status": "incomplete",
        "incomplete_details": {"reason": "max_output_tokens"},
        "usage": {"input_tokens": 3, "output_tokens": 2, "total_tokens": 5},
    }

    (row,) = table(Endpoint.RESPONSES, encode_answer(200, "req_x", body)).to_pylist()

    assert (row["finish_reason"], row["prompt_tokens"], row["completion_tokens"]) == ("max_output_tokens", 3, 2)
