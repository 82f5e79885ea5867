"""The garage: engines that are loaded, the least recently used one given up for a new one."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Iterable

from pipeline.ports.engine import Engine

_LOG = logging.getLogger(__name__)


class Garage:
    """Loads engines by variant and keeps a few of them."""

    def __init__(self, load: Callable[[str], Engine], *, engines_max: int = 2) -> None:
        """Load through `load`, `engines_max` at a time."""
        assert engines_max >= 1
        self._load = load
        self._engines_max = engines_max
        self._engines: OrderedDict[str, Engine] = OrderedDict()

    def is_loaded(self, variant: str) -> bool:
        """Say whether `engine(variant)` answers at once."""
        return variant in self._engines

    def loaded_after(self, variants: Iterable[str]) -> list[str]:
        """Return what will be loaded once these have been asked for, one after the other; any thread may ask."""
        loaded = list(self._engines)
        for variant in variants:
            loaded = [*(each for each in loaded if each != variant), variant]
        return loaded[-self._engines_max :]

    def engine(self, variant: str) -> Engine:
        """Return the variant's engine, loading it first where needed; raises `ModelUnavailableError`."""
        if variant not in self._engines:
            while len(self._engines) >= self._engines_max:
                _close(self._engines.popitem(last=False)[1])
            self._engines[variant] = self._load(variant)
        self._engines.move_to_end(variant)
        return self._engines[variant]

    def discard(self, variant: str) -> None:
        """Give up an engine that misbehaved; the next use loads it afresh."""
        _close(self._engines.pop(variant))

    def close(self) -> None:
        """Give up every engine."""
        while self._engines:
            _close(self._engines.popitem()[1])


def _close(engine: Engine) -> None:
    try:
        engine.close()
    except Exception:  # noqa: BLE001 -- one that misbehaved may do so to the end; the worker goes on without it
        _LOG.exception("engine_not_closed", extra={"model": engine.model})
