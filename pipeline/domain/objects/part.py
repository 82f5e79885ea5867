"""Part: the results that one attempt committed at once, for rows of one batch.

The first line is a header, `{"rows":[[shard_no,position,succeeded],…]}`; each further line is the
result of the row at the same place, `{"response":{…},"error":null}` in OpenAI's shape, lacking
only the `id` and `custom_id` that the assembler puts in front.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

_SUCCESS: Final = 200


@dataclass(frozen=True, slots=True)
class PartRow:
    """Where one result belongs, and whether it goes to the output or the error file."""

    shard_no: int
    position: int
    is_success: bool


def encode_answer(status_code: int, request_id: str, body: Mapping[str, Any]) -> bytes:
    """Return the result line of a request that was answered, well or badly, newline excluded."""
    return b'{"response":{"status_code":%d,"request_id":"%b","body":%b},"error":null}' % (
        status_code,
        request_id.encode(),
        orjson.dumps(body),
    )


def encode_unanswered(code: str, message: str) -> bytes:
    """Return the result line of a request that never ran to an answer, newline excluded."""
    return orjson.dumps({"response": None, "error": {"code": code, "message": message}})


def error_body(message: str, *, code: str | None, param: str | None) -> dict[str, Any]:
    """Return OpenAI's error envelope, all four keys."""
    return {"error": {"message": message, "type": "invalid_request_error", "param": param, "code": code}}


def encode_part(rows: Sequence[PartRow], lines: Sequence[bytes]) -> bytes:
    """Return the part's content: the header, then the result lines in the same order."""
    assert len(rows) == len(lines), "a result line for each row"
    header = {"rows": [[row.shard_no, row.position, int(row.is_success)] for row in rows]}
    return b"\n".join([orjson.dumps(header), *lines, b""])


def decode_header(line: bytes) -> list[tuple[int, int, int]]:
    """Return (shard_no, position, succeeded 0/1) for each result line that follows."""
    return [(shard_no, position, success) for shard_no, position, success in orjson.loads(line)["rows"]]
