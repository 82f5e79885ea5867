"""One probe: an engine kept full for a while, and the tokens of the rows that finished meanwhile."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from pipeline.domain.errors import ModelUnavailableError
from pipeline.ports.engine import Engine, EngineRequest, EngineResult
from workers.engine.torch_chat.memory import is_out_of_memory
from workers.tune.search import Probe

#: A probe's window is cut into this many, whose spread is the noise.
_WINDOWS: Final = 3
_OK: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long a probe may take, in seconds."""

    #: Of one window; longer where rows live longer.
    window_seconds: float = 3.0
    #: A row's life counts as this many of its windows at least.
    lives_per_window: float = 0.5


def measure(
    engine: Engine, rows: Iterator[EngineRequest], *, size: int, now: Callable[[], float], patience: Patience
) -> Probe:
    """Keep `engine` full of `rows` and return its throughput in tokens, prompts and answers, per second.

    Warm-up lasts until as many rows as fit at a time have finished. A size that runs out of memory has none.

    Raises:
        ModelUnavailableError: The engine refuses the rows, or failed for another cause than memory.
    """
    try:
        return _measure(engine, rows, size, now, patience)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        return Probe(size=size, tokens_per_second=None)


def _measure(
    engine: Engine, rows: Iterator[EngineRequest], size: int, now: Callable[[], float], patience: Patience
) -> Probe:
    began_at = now()
    finished = 0
    while finished < size:
        finished += len(_turn(engine, rows))
    window_seconds = max(patience.window_seconds, patience.lives_per_window * (now() - began_at))
    speeds = []
    for _ in range(_WINDOWS):
        # From a turn in which rows finished to another: rows that began together finish together, and a window cut
        # in between would count them all or not at all.
        started_at, tokens, has_finished = now(), 0, False
        while not has_finished or now() - started_at < window_seconds:
            results = _turn(engine, rows)
            has_finished = bool(results)
            tokens += sum(result.input_tokens + result.output_tokens for result in results)
        speeds.append(tokens / (now() - started_at))
    median = statistics.median(speeds)
    spread = statistics.median(abs(speed - median) for speed in speeds)
    return Probe(size=size, tokens_per_second=median, noise_share=spread / median if median else 0.0)


def _turn(engine: Engine, rows: Iterator[EngineRequest]) -> list[EngineResult]:
    if room := engine.room():
        engine.add([next(rows) for _ in range(room)])
    results = list(engine.step())
    for result in results:
        if result.status_code != _OK:
            said = result.body.get("error", {}).get("message", result.status_code)
            raise ModelUnavailableError(f"{engine.model} cannot run the workload: {said}")
    return results
