"""The garage: engines that are loaded, the least recently used one given up for a new one."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Sequence

from pipeline.ports.engine import Engine

_LOG = logging.getLogger(__name__)


class Garage:
    """Loads engines by model name and keeps a few of them."""

    def __init__(self, models: Sequence[str], load: Callable[[str], Engine], *, engines_max: int = 2) -> None:
        """Serve `models` through `load`, `engines_max` of them loaded at a time."""
        assert engines_max >= 1
        self._models = tuple(models)
        self._load = load
        self._engines_max = engines_max
        self._engines: OrderedDict[str, Engine] = OrderedDict()

    def models(self) -> tuple[str, ...]:
        """Return the models this worker serves."""
        return self._models

    def is_loaded(self, model: str) -> bool:
        """Say whether `engine(model)` answers at once."""
        return model in self._engines

    def engine(self, model: str) -> Engine:
        """Return the model's engine, loading it first where needed; raises `ModelUnavailableError`."""
        if model not in self._engines:
            while len(self._engines) >= self._engines_max:
                _close(self._engines.popitem(last=False)[1])
            self._engines[model] = self._load(model)
        self._engines.move_to_end(model)
        return self._engines[model]

    def refuse(self, model: str) -> None:
        """Serve this model no more: it cannot be loaded here."""
        self._models = tuple(name for name in self._models if name != model)

    def discard(self, model: str) -> None:
        """Give up an engine that misbehaved; the next use loads it afresh."""
        _close(self._engines.pop(model))

    def close(self) -> None:
        """Give up every engine."""
        while self._engines:
            _close(self._engines.popitem()[1])


def _close(engine: Engine) -> None:
    try:
        engine.close()
    except Exception:  # noqa: BLE001 -- one that misbehaved may do so to the end; the worker goes on without it
        _LOG.exception("engine_not_closed", extra={"model": engine.model})
