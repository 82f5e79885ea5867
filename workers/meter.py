"""The meter of a worker's life: spans that follow one another without a gap."""

from __future__ import annotations

from pipeline.domain.lifecycle import IntervalKind
from pipeline.ports.clock import Clock
from pipeline.ports.packs import Interval


class Meter:
    """Cuts a worker's life into spans. Only the runner's thread cuts; any thread may read the time."""

    def __init__(self, clock: Clock) -> None:
        """Start the worker's life now."""
        self._clock = clock
        self._born_us = clock.monotonic_us()
        self._cut_at_us = 0

    def backdate(self, age_us: int) -> None:
        """Let its life have begun so long before: its machine was paid for already."""
        assert self._cut_at_us == 0, "a life begins before its first span ends"
        self._born_us -= age_us

    def uptime_us(self) -> int:
        """Return microseconds since the worker started."""
        return self._clock.monotonic_us() - self._born_us

    def since_cut_us(self) -> int:
        """Return microseconds since the last cut."""
        return self.uptime_us() - self._cut_at_us

    def cut(self, kind: IntervalKind) -> Interval:
        """Return the span from the last cut to now, spent on `kind`; at least a microsecond long."""
        now_us = max(self.uptime_us(), self._cut_at_us + 1)
        interval = Interval(kind=kind, start_us=self._cut_at_us, stop_us=now_us)
        self._cut_at_us = now_us
        return interval
