"""Result bodies in OpenAI's shapes, shared by the engines that run a model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

from pipeline.domain.endpoints import Endpoint
from pipeline.domain.errors import RequestRefusedError
from pipeline.ports.engine import EngineRequest, EngineResult

T = TypeVar("T")
Given = TypeVar("Given")
Draft = TypeVar("Draft")

#: The status of a row that was fine as asked and failed here.
SERVER_ERROR = 500


def utc_now() -> datetime:
    """Return the current time; engines take it as a parameter so that tests can fix it."""
    return datetime.now(UTC)


def body_digest(body: Mapping[str, Any]) -> bytes:
    """Return 16 bytes that depend on the request body alone, not on its key order, its row or its batch."""
    text = json.dumps(body, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def seed_of(digest: bytes) -> int:
    """Return the sampling seed of a request that names none: the same body gives the same answer again."""
    return int.from_bytes(digest[:8], "little", signed=True)


def choice_seed(seed: int, index: int) -> int:
    """Return the seed of a request's choice: its own for the first, for the others 64 bits made of both.

    Not the seed plus the index: then the second choice of one request would be the first of another.
    """
    if index == 0:
        return seed
    mixed = hashlib.blake2b(f"{seed} {index}".encode(), digest_size=8).digest()
    return int.from_bytes(mixed, "little", signed=True)


def generation_choice(
    endpoint: Endpoint, *, index: int, text: str, logprobs: Mapping[str, Any] | None, finish_reason: str
) -> dict[str, Any]:
    """Return one of an answer's choices."""
    content: dict[str, Any] = {"text": text}
    if endpoint is Endpoint.CHAT_COMPLETIONS:
        content = {"message": {"role": "assistant", "content": text, "refusal": None}}
    return {"index": index, **content, "logprobs": logprobs, "finish_reason": finish_reason}


def generation_body(
    endpoint: Endpoint,
    *,
    digest: bytes,
    created: int,
    model: str,
    choices: list[dict[str, Any]],
    usage: Mapping[str, Any],
    fingerprint: str,
) -> dict[str, Any]:
    """Return a `chat.completion` or `text_completion` object."""
    is_chat = endpoint is Endpoint.CHAT_COMPLETIONS
    return {
        "id": f"{'chatcmpl' if is_chat else 'cmpl'}-{digest.hex()[:24]}",
        "object": "chat.completion" if is_chat else "text_completion",
        "created": created,
        "model": model,
        "choices": choices,
        "usage": usage,
        "system_fingerprint": fingerprint,
    }


def generation_usage(input_tokens: int, output_tokens: int) -> dict[str, Any]:
    """Return OpenAI's `usage`.

    `cached_tokens` is 0: prefixes shared with a neighbour in the batch are an accident of batching, not a price.
    """
    return {
        "prompt_tokens": input_tokens,
        "completion_tokens": output_tokens,
        "total_tokens": input_tokens + output_tokens,
        "prompt_tokens_details": {"cached_tokens": 0},
    }


def attempted(call: Callable[[Given], T], given: Given) -> T | Exception:
    """Return what `call` makes of one row, or what went wrong with that row."""
    try:
        return call(given)
    except Exception as error:  # noqa: BLE001 -- a refusal, a defect, or an author's template: either way that row's
        return error


def drafted(
    requests: Sequence[EngineRequest],
    prepared: Iterable[T | Exception],
    draft: Callable[[EngineRequest, T], Draft],
) -> tuple[list[Draft], list[EngineResult]]:
    """Return what `draft` makes of each row that can be run, and the results of those that cannot.

    Args:
        requests: Rows that came together.
        prepared: What each of them was turned into beforehand, or what went wrong with that one.
        draft: Makes of a row and what it was turned into whatever the engine keeps of it.
    """
    drafts: list[Draft] = []
    ended: list[EngineResult] = []
    for request, outcome in zip(requests, prepared, strict=True):
        try:
            drafts.append(draft(request, _unwrapped(outcome)))
        except RequestRefusedError as error:
            ended.append(refusal(request, error))
        except Exception as error:  # noqa: BLE001 -- one row's failure is that row's error, never a raise
            ended.append(failure(request, error))
    return drafts, ended


def _unwrapped(outcome: T | Exception) -> T:
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def refusal(request: EngineRequest, error: RequestRefusedError) -> EngineResult:
    """Return the row's error for a request that cannot be run as asked."""
    return EngineResult(
        key=request.key,
        status_code=error.status_code,
        body=error_body(error.message, "invalid_request_error", error.param, error.row_code),
        input_tokens=0,
        output_tokens=0,
    )


def failure(request: EngineRequest, error: Exception) -> EngineResult:
    """Return the row's error for a defect that one row met; the class is named, the row's text is not."""
    message = f"The engine could not process this request ({type(error).__name__})."
    return EngineResult(
        key=request.key,
        status_code=SERVER_ERROR,
        body=error_body(message, "server_error", None, "engine_error"),
        input_tokens=0,
        output_tokens=0,
    )


def error_body(message: str, kind: str, param: str | None, code: str | None) -> dict[str, Any]:
    """Return OpenAI's error object: all four fields, always."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}
