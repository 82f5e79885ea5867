"""Tuning: an engine loaded at one size after the other, until the search has seen enough."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pipeline.domain.errors import ModelUnavailableError
from pipeline.ports.engine import Engine, EngineRequest
from workers.engine.torch_chat.memory import is_out_of_memory
from workers.tune.probing import Patience, measure
from workers.tune.search import PROBES_MAX, SIZE_MIN, Probe, Search


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuned:
    """What the probes found."""

    best: Probe
    probes: tuple[Probe, ...]


def tune(
    load: Callable[[int], Engine],
    rows: Callable[[Engine], Iterator[EngineRequest]],
    *,
    ceiling: int,
    now: Callable[[], float],
    patience: Patience,
    on_probe: Callable[[Probe], None],
    probes_max: int = PROBES_MAX,
) -> Tuned:
    """Return the smallest batch within 2 % of the fastest.

    Args:
        load: Loads the engine for a batch of that many rows.
        rows: Returns rows without end for an engine, the same each time.
        ceiling: Rows that its memory holds at most.
        now: A clock that never goes back, in seconds.
        patience: How long a probe takes.
        on_probe: Called with each measurement.
        probes_max: Bound on measurements.

    Raises:
        ModelUnavailableError: The engine cannot be loaded, or runs at no size.
    """
    search = Search(ceiling=ceiling, size_min=SIZE_MIN, probes_max=probes_max)
    while (size := search.next_size()) is not None:
        probe = _probe(load, rows, size, now, patience)
        search.note(probe)
        on_probe(probe)
    try:
        return Tuned(best=search.best(), probes=tuple(search.probes))
    except ValueError as error:
        raise ModelUnavailableError(f"it runs out of memory even with {search.probes[-1].size} rows") from error


def _probe(
    load: Callable[[int], Engine],
    rows: Callable[[Engine], Iterator[EngineRequest]],
    size: int,
    now: Callable[[], float],
    patience: Patience,
) -> Probe:
    try:
        engine = load(size)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        return Probe(size=size, tokens_per_second=None)
    try:
        return measure(engine, rows(engine), size=size, now=now, patience=patience)
    finally:
        engine.close()
