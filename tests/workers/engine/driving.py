"""Rows for an engine, and a loop that drains it."""

from collections.abc import Iterable

from pipeline.domain.endpoints import Endpoint
from pipeline.ports.engine import Engine, EngineRequest, EngineResult


def completion(key: int, prompt: str, **more: object) -> EngineRequest:
    body = {"model": "tiny", "prompt": prompt, "temperature": 0, "max_tokens": 12, **more}
    return EngineRequest(key, Endpoint.COMPLETIONS, body)


def drained(engine: Engine) -> dict[int, EngineResult]:
    results: list[EngineResult] = []
    while engine.in_flight():
        results += engine.step()
    return {result.key: result for result in results}


def answers(engine: Engine, requests: Iterable[EngineRequest]) -> dict[int, EngineResult]:
    engine.add(list(requests))
    return drained(engine)
