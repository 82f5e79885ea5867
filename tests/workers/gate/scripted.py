"""Engines that answer by a script, so that a test decides who is right."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from pipeline.domain.endpoints import Endpoint
from pipeline.ports.engine import EngineRequest, EngineResult
from workers.gate.identity import Identity
from workers.gate.qualification import Side


class ScriptedEngine:
    """Answers each body as `script` says: text, a vector, or None for an error; the newest row first."""

    name = "scripted"
    model = "scripted"
    endpoints = frozenset(Endpoint)

    def __init__(self, script: Callable[[dict[str, Any]], str | list[float] | None], *, room: int = 7) -> None:
        self._script = script
        self._room = room
        self._waiting: list[EngineRequest] = []

    def room(self) -> int:
        return self._room - len(self._waiting)

    def add(self, requests: Sequence[EngineRequest]) -> None:
        assert len(requests) <= self.room()
        self._waiting += requests

    def step(self) -> Sequence[EngineResult]:
        return [self._result(self._waiting.pop())] if self._waiting else []

    def in_flight(self) -> int:
        return len(self._waiting)

    def abort(self, keys: Sequence[int]) -> None:
        raise AssertionError(keys)

    def close(self) -> None:
        self._waiting = []

    def _result(self, request: EngineRequest) -> EngineResult:
        assert request.body["model"] == self.model
        answer = self._script(dict(request.body))
        if answer is None:
            return EngineResult(request.key, 400, {"error": {"message": "too long"}}, 0, 0)
        if isinstance(answer, str):
            body: dict[str, Any] = {"choices": [{"message": {"content": answer}}]}
        else:
            body = {"data": [{"embedding": answer}]}
        return EngineResult(request.key, 200, body, 3, len(str(answer)))


def side(script: Callable[[dict[str, Any]], str | list[float] | None], *, recipe: str = "none") -> Side:
    identity = Identity(
        model="scripted", revision="r1", recipe=recipe, engine="scripted", engine_version="1", numerics="cpu test"
    )
    return Side(engine=ScriptedEngine(script), identity=identity)
