"""Two engines of one model as one: the fast one, and a deputy for rows that are beyond it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict

from pipeline.domain.endpoints import Endpoint
from pipeline.ports.engine import Engine, EngineRequest, EngineResult
from pipeline.ports.meters import EngineIdentity, EngineMeters


class RelayEngine:
    """Gives each row to the engine that can run it; implements `Engine`."""

    def __init__(
        self, fast: Engine, load_deputy: Callable[[], Engine], is_beyond: Callable[[EngineRequest], bool]
    ) -> None:
        """Run on `fast` what is not beyond it; the deputy is loaded when the first such row comes."""
        self.name = fast.name
        self.model = fast.model
        self.endpoints: frozenset[Endpoint] = fast.endpoints
        #: The fast engine's: the deputy's rows say in their own answers what computed them.
        self.identity: EngineIdentity = fast.identity
        self._fast = fast
        self._load_deputy = load_deputy
        self._is_beyond = is_beyond
        self._deputy: Engine | None = None

    def room(self) -> int:
        """Return how many more rows to take: what the fast engine would, less what waits beside it."""
        beside = 0 if self._deputy is None else self._deputy.in_flight()
        return max(0, self._fast.room() - beside)

    def in_flight(self) -> int:
        """Return how many added rows have not come back yet."""
        return sum(engine.in_flight() for engine in self._engines())

    def add(self, requests: Sequence[EngineRequest]) -> None:
        """Take rows in, each where it can run."""
        beyond = [request for request in requests if self._is_beyond(request)]
        if beyond:
            if self._deputy is None:
                self._deputy = self._load_deputy()
            self._deputy.add(beyond)
            kept = {request.key for request in beyond}
            requests = [request for request in requests if request.key not in kept]
        if requests:
            self._fast.add(requests)

    def step(self) -> Sequence[EngineResult]:
        """Run one pass of each engine that has rows."""
        return [result for engine in self._engines() if engine.in_flight() for result in engine.step()]

    def meters(self) -> EngineMeters:
        """Return both engines' counters together; what one of them cannot know is not known of both."""
        counted = [asdict(engine.meters()) for engine in self._engines()]
        sums: dict[str, int | None] = {}
        for name in counted[0]:
            figures = [each[name] for each in counted]
            sums[name] = None if None in figures else sum(figures)
        return EngineMeters(**sums)  # type: ignore[arg-type] # only figures that may be None are

    def abort(self, keys: Sequence[int]) -> None:
        """Forget these rows, wherever they are."""
        for engine in self._engines():
            engine.abort(keys)

    def close(self) -> None:
        """Free both."""
        for engine in self._engines():
            engine.close()

    def _engines(self) -> tuple[Engine, ...]:
        return (self._fast,) if self._deputy is None else (self._fast, self._deputy)
