"""An engine driven by one caller through a job of its own: measurements, the gate, references. The worker has its runner."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

from pipeline.ports.engine import Engine, EngineRequest, EngineResult


def driven(engine: Engine, requests: Iterable[EngineRequest]) -> Iterator[EngineResult]:
    """Run rows on an engine that is empty, no more of them at a time than it has room for, and yield what comes back.

    Rows are taken from `requests` as there is room, so they may be made on the way. Whoever stops before the end leaves rows
    in flight, and aborts them.
    """
    left, has_more = iter(requests), True
    while True:
        if has_more and (room := engine.room()):
            taken = list(islice(left, room))
            has_more = len(taken) == room
            if taken:
                engine.add(taken)
        if not has_more and not engine.in_flight():
            return
        yield from engine.step()
