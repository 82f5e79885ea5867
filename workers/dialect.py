"""Between what a batch's rows say and what engines know: `/v1/responses` runs as a chat."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from pipeline.domain.endpoints import Endpoint
from pipeline.domain.responses import chat_answer_of, chat_of, response_of
from pipeline.ports.engine import EngineRequest, EngineResult

_OK: Final = 200


def asked(key: int, endpoint: Endpoint, body: Mapping[str, Any]) -> EngineRequest:
    """Return what an engine is asked for a row."""
    if endpoint is Endpoint.RESPONSES:
        return EngineRequest(key, Endpoint.CHAT_COMPLETIONS, chat_of(body))
    return EngineRequest(key, endpoint, body)


def answered(endpoint: Endpoint, body: Mapping[str, Any], result: EngineResult) -> EngineResult:
    """Return the answer to a row, of what the engine answered."""
    if endpoint is not Endpoint.RESPONSES:
        return result
    if result.status_code == _OK:
        return replace(result, body=response_of(body, result.body))
    error = result.body["error"]
    if error.get("param") == "body.messages":
        return replace(result, body={"error": {**error, "param": "body.input"}})
    return result


def as_chat(
    endpoint: Endpoint, body: Mapping[str, Any], answer: Mapping[str, Any]
) -> tuple[Endpoint, Mapping[str, Any], Mapping[str, Any]]:
    """Return a row and its answer as the engine had them, for those who look at them again."""
    if endpoint is Endpoint.RESPONSES:
        return Endpoint.CHAT_COMPLETIONS, chat_of(body), chat_answer_of(answer)
    return endpoint, body, answer
