"""The apportioner: shares what engine, process and device counted among the packs that caused it.

Counters are read at the moments where the set of packs in the engine changes, at commits and at ends:
what was counted since the last such moment is a span. A span in which one pack had rows in flight is
that pack's. Where the last rows of one run beside the first of the next, the span is split by rows in
flight, summed over its steps, so that nothing is lost and nothing counted twice. A span in which no
step was run belongs to the oldest pack held, as in the ledger; without one, to nobody.

Gauges (utilisation, power, temperature) are not shared: each pack in the engine saw them.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Final

from pipeline.domain.money import split_by_weight
from pipeline.ports.engine import Engine
from pipeline.ports.meters import AttemptMeters, EnergySource, EngineIdentity, EngineMeters
from workers.telemetry.readings import Reading, Window
from workers.telemetry.telemetry import Telemetry

_LOG = logging.getLogger(__name__)

_ENGINE_NAMES: Final = tuple(counter.name for counter in fields(EngineMeters))
#: Names of what is shared, as `AttemptMeters` has them.
_NAMES: Final = (*_ENGINE_NAMES, "engine_us", "cpu_us", "energy_millijoules")

_Counts = tuple[int | None, ...]


@dataclass(slots=True, eq=False)
class Tally:
    """What one attempt has used up to the last settling."""

    #: Rows in flight, summed over the steps since then: this attempt's weight in what comes next.
    row_steps: int = 0
    bubble_us: int = 0
    identity: EngineIdentity | None = None
    counts: list[int | None] = field(default_factory=lambda: [None] * len(_NAMES))
    window: Window = field(default_factory=Window)
    memory_peak_bytes: int | None = None
    energy_source: EnergySource | None = None

    def take(self, counts: _Counts, reading: Reading) -> None:
        """Add this attempt's share of a span."""
        for index, count in enumerate(counts):
            if count is not None:
                self.counts[index] = (self.counts[index] or 0) + count
        self.window.merge(reading.window)
        self.memory_peak_bytes = reading.memory_peak_bytes
        if reading.energy_millijoules is not None:
            self.energy_source = reading.energy_source

    def meters(self) -> AttemptMeters:
        """Return the record of the attempt."""
        shared = dict(zip(_NAMES, self.counts, strict=True))
        window = self.window
        return AttemptMeters(
            identity=self.identity,
            bubble_us=self.bubble_us,
            memory_peak_bytes=self.memory_peak_bytes,
            energy_source=None if shared["energy_millijoules"] is None else self.energy_source,
            device_memory_max_bytes=window.memory_used_bytes.highest,
            device_utilisation_mean_percent=window.utilisation_percent.mean,
            device_utilisation_max_percent=window.utilisation_percent.highest,
            device_power_mean_milliwatts=window.power_milliwatts.mean,
            device_power_max_milliwatts=window.power_milliwatts.highest,
            device_temperature_mean_celsius=window.temperature_celsius.mean,
            device_temperature_max_celsius=window.temperature_celsius.highest,
            **shared,
        )


class Apportioner:
    """Keeps the last reading of every counter. Used by the runner's thread alone."""

    def __init__(self, telemetry: Telemetry) -> None:
        """Read machine and device by `telemetry`."""
        self._telemetry = telemetry
        self._engine: Engine | None = None
        #: Time inside steps, since the worker started; the runner adds to it, as it does to `Tally.row_steps`.
        self.engine_us = 0
        self._counts = self._count(telemetry.read())

    def drive(self, engine: Engine) -> None:
        """Count by this engine from here on; what the last one counted must be settled."""
        self._engine = engine
        self._telemetry.watch(engine.identity.device)
        self.settle(())

    def leave(self) -> None:
        """Forget the engine, whose memory the next one may need; what it counted must be settled."""
        self._engine = None

    def settle(self, tallies: Sequence[Tally]) -> None:
        """Share what was counted since the last settling among the attempts held, the oldest first."""
        before, reading = self._counts, self._telemetry.read()
        self._counts = self._count(reading)
        if not tallies:
            return
        spent = [_difference(now, then) for now, then in zip(self._counts, before, strict=True)]
        weights = [tally.row_steps for tally in tallies]
        if not any(weights):
            weights[0] = 1
        shares = zip(*(_split(count, weights) for count in spent), strict=True)
        for tally, weight, counts in zip(tallies, weights, shares, strict=True):
            if weight:
                tally.take(counts, reading)
            tally.row_steps = 0

    def _count(self, reading: Reading) -> _Counts:
        return (*self._engine_counts(), self.engine_us, reading.cpu_us, reading.energy_millijoules)

    def _engine_counts(self) -> _Counts:
        if self._engine is None:
            return (None,) * len(_ENGINE_NAMES)
        try:
            meters = self._engine.meters()
        except Exception:  # noqa: BLE001 -- an engine that broke may break here too, and its packs' ends matter more
            _LOG.exception("engine_not_metered", extra={"model": self._engine.model})
            self._engine = None
            return (None,) * len(_ENGINE_NAMES)
        return tuple(getattr(meters, name) for name in _ENGINE_NAMES)


def _difference(now: int | None, then: int | None) -> int | None:
    # A driver that was reset counts from zero again: what it counted in between is not known.
    return None if now is None or then is None or now < then else now - then


def _split(count: int | None, weights: Sequence[int]) -> list[int | None]:
    return [None] * len(weights) if count is None else list(split_by_weight(count, weights))
