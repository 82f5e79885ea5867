"""The engine's port: rows in, results out, one step at a time.

An engine is a synchronous continuous batcher that the worker's runner drives from one thread:

    engine.add(...)            as long as engine.room() > 0
    results = engine.step()    one pass over what is in flight; finished rows come back

It owns no queue the runner cannot see, no clock that decides an answer, no I/O besides loading its model and, for
images, reading what rows point to, and no thread but those that work on rows in flight.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from pipeline.domain.endpoints import Endpoint
from pipeline.ports.meters import EngineIdentity, EngineMeters


@dataclass(frozen=True, slots=True)
class EngineRequest:
    """One row to run. Positional on purpose: an engine sees a million of these."""

    #: The runner's handle, unique among the rows in flight; comes back on the result.
    key: int
    endpoint: Endpoint
    #: The OpenAI request body as submitted, already checked by `pipeline.domain.parameters`.
    body: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class EngineResult:
    """One finished row: the answer in OpenAI's shape, or why there is none."""

    key: int
    #: 200, or the HTTP status an API would have answered with.
    status_code: int
    #: The response body; for a status other than 200, OpenAI's `{"error": {...}}`.
    body: Mapping[str, Any]
    input_tokens: int
    output_tokens: int


class Engine(Protocol):
    """One loaded model variant on one device."""

    #: Short name of the engine, such as `torch`, `encoder`, `echo`.
    name: str
    #: The model name that requests carry and results repeat.
    model: str
    #: The endpoints this engine can serve.
    endpoints: frozenset[Endpoint]
    #: What computes here: recorded with every attempt, and in each answer that has a `system_fingerprint`.
    identity: EngineIdentity

    def room(self) -> int:
        """Return how many more rows `add` takes now so that the device stays full; 0 when enough wait."""

    def add(self, requests: Sequence[EngineRequest]) -> None:
        """Take rows in. A row that cannot be run comes back from `step` as an error, never as a raise."""

    def step(self) -> Sequence[EngineResult]:
        """Run one pass over the rows in flight and return those that finished, in any order."""

    def in_flight(self) -> int:
        """Return how many added rows have not come back yet."""

    def meters(self) -> EngineMeters:
        """Return the counters since loading. Asked for a few times a second, so counting itself must be cheap."""

    def abort(self, keys: Sequence[int]) -> None:
        """Forget these rows: they will not come back."""

    def close(self) -> None:
        """Free the device memory; the engine is not used afterwards."""
