"""Result lines as columns of a table, and as Parquet.

The schema is the endpoint's, fixed before the first row: what a file happens to have no values of is still what it is.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import orjson

from pipeline.domain.endpoints import Endpoint
from pipeline.domain.errors import UsageError
from pipeline.report.drained import Drained
from pipeline.report.lines import ResultLine

#: Of one row group: whichever comes first.
GROUP_ROWS_MAX: Final = 10_000
GROUP_BYTES_MAX: Final = 16 * 1024 * 1024

_SHARED: Final = {
    "custom_id": "string",
    "status_code": "int32",
    "error_code": "string",
    "error_message": "string",
    "model": "string",
    "prompt_tokens": "int64",
    "completion_tokens": "int64",
}
_TEXT: Final = {"finish_reason": "string", "text": "string"}
_SCORES: Final = {"scores": "floats"}
_OWN: Final[Mapping[Endpoint, Mapping[str, str]]] = {
    Endpoint.CHAT_COMPLETIONS: _TEXT,
    Endpoint.COMPLETIONS: _TEXT,
    Endpoint.RESPONSES: _TEXT,
    Endpoint.EMBEDDINGS: {"embedding": "floats"},
    Endpoint.SCORE: _SCORES,
    Endpoint.RERANK: _SCORES,
    Endpoint.CLASSIFY: {"label": "string", **_SCORES},
}
assert set(_OWN) == set(Endpoint)

_FLOAT_BYTES: Final = 4


class ParquetMissingError(UsageError):
    """Parquet needs the extra `parquet`, which is not installed here."""

    code = "parquet_not_installed"


def columns_of(endpoint: Endpoint) -> dict[str, str]:
    """Return the columns of an endpoint's results, in order: `string`, `int32`, `int64` or `floats`."""
    return {**_SHARED, **_OWN[endpoint], "body": "string"}


def row_of(endpoint: Endpoint, result: ResultLine) -> dict[str, object]:
    """Return a result's values, by column; what it has none of is None."""
    document: dict[str, Any] = orjson.loads(b"{" + result.rest)
    response: dict[str, Any] = document.get("response") or {}
    answered = response.get("body")
    body: dict[str, Any] = answered if isinstance(answered, dict) else {}
    # An answer that is an error says what, and so does a request that never ran.
    fault = document.get("error") or body.get("error") or {}
    usage = body.get("usage") or {}
    row: dict[str, object] = dict.fromkeys(columns_of(endpoint))
    row |= {
        "custom_id": orjson.loads(result.custom_id),
        "status_code": response.get("status_code"),
        "error_code": _text(fault.get("code") or fault.get("type")),
        "error_message": _text(fault.get("message")),
        "model": _text(body.get("model")),
        "prompt_tokens": usage.get("prompt_tokens", usage.get("input_tokens")),
        "completion_tokens": usage.get("completion_tokens", usage.get("output_tokens")),
        "body": None if not response else orjson.dumps(answered).decode(),
    }
    if not fault:
        row |= _own(endpoint, body)
    return row


def parquet(endpoint: Endpoint, results: Iterable[ResultLine]) -> Iterator[bytes]:
    """Yield the bytes of a Parquet file, front to back; one row group is held at a time.

    Raises:
        ParquetMissingError: pyarrow is not installed; before anything is yielded.
    """
    try:
        import pyarrow as pa
        from pyarrow import parquet as pq
    except ImportError:
        raise ParquetMissingError(
            "Parquet is not installed on this server.", hint="the extra `parquet` brings it; format=jsonl needs nothing"
        ) from None
    kinds = {"string": pa.string(), "int32": pa.int32(), "int64": pa.int64(), "floats": pa.list_(pa.float32())}
    schema = pa.schema([(name, kinds[kind]) for name, kind in columns_of(endpoint).items()])
    sink = Drained()
    with pq.ParquetWriter(sink, schema, compression="zstd") as writer:
        for group in _groups(endpoint, results):
            writer.write_table(pa.Table.from_pylist(group, schema=schema))
            yield sink.drain()
    yield sink.drain()


def _groups(endpoint: Endpoint, results: Iterable[ResultLine]) -> Iterator[list[dict[str, object]]]:
    group: list[dict[str, object]] = []
    held_bytes = 0
    for result in results:
        group.append(row_of(endpoint, result))
        held_bytes += len(result.rest)
        if len(group) == GROUP_ROWS_MAX or held_bytes >= GROUP_BYTES_MAX:
            yield group
            group, held_bytes = [], 0
    if group:
        yield group


def _own(endpoint: Endpoint, body: Mapping[str, Any]) -> dict[str, object]:
    match endpoint:
        case Endpoint.CHAT_COMPLETIONS | Endpoint.COMPLETIONS:
            first = _first(body.get("choices"))
            text = first["message"].get("content") if "message" in first else first.get("text")
            return {"finish_reason": _text(first.get("finish_reason")), "text": _text(text)}
        case Endpoint.RESPONSES:
            # A response has no reason to finish, but is complete or says why not.
            reason = (body.get("incomplete_details") or {}).get("reason") or body.get("status")
            content = _first(body.get("output")).get("content")
            return {"finish_reason": _text(reason), "text": _text(_first(content).get("text"))}
        case Endpoint.EMBEDDINGS:
            return {"embedding": _floats(_first(body.get("data")).get("embedding"))}
        case Endpoint.SCORE:
            return {"scores": [each.get("score") for each in body.get("data") or ()]}
        case Endpoint.RERANK:
            # In the order of the documents that were asked about, whichever order they were ranked in.
            ranked = sorted(body.get("results") or (), key=lambda each: each["index"])
            return {"scores": [each.get("relevance_score") for each in ranked]}
        case Endpoint.CLASSIFY:
            first = _first(body.get("data"))
            return {"label": _text(first.get("label")), "scores": first.get("probs")}


def _first(items: Sequence[dict[str, Any]] | None) -> dict[str, Any]:
    return items[0] if items else {}


def _floats(written: object) -> object:
    """Return an embedding's numbers, which `encoding_format` may have as base64 of little-endian floats."""
    if not isinstance(written, str):
        return written
    try:
        content = base64.b64decode(written, validate=True)
    except (binascii.Error, ValueError):
        return None
    if len(content) % _FLOAT_BYTES:
        return None
    import numpy as np

    return np.frombuffer(content, dtype="<f4")


def _text(value: object) -> str | None:
    return None if value is None else str(value)
