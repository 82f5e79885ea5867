"""What readers return, and how moments become means and maxima."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from pipeline.ports.meters import EnergySource


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One moment of a device; None where it does not tell."""

    utilisation_percent: int | None = None
    memory_used_bytes: int | None = None
    power_milliwatts: int | None = None
    temperature_celsius: int | None = None


@dataclass(slots=True)
class Gauge:
    """Mean and maximum of a figure over the moments at which it was known."""

    count: int = 0
    total: int = 0
    highest: int | None = None

    @property
    def mean(self) -> int | None:
        """Return the mean, rounded; None where nothing was known."""
        return round(self.total / self.count) if self.count else None

    def note(self, value: int | None) -> None:
        """Take in one moment."""
        if value is not None:
            self.merge(Gauge(count=1, total=value, highest=value))

    def merge(self, other: Gauge) -> None:
        """Take in what another gauge saw."""
        self.count += other.count
        self.total += other.total
        if other.highest is not None:
            self.highest = other.highest if self.highest is None else max(self.highest, other.highest)


@dataclass(slots=True)
class Window:
    """A device over some stretch of time."""

    utilisation_percent: Gauge = field(default_factory=Gauge)
    memory_used_bytes: Gauge = field(default_factory=Gauge)
    power_milliwatts: Gauge = field(default_factory=Gauge)
    temperature_celsius: Gauge = field(default_factory=Gauge)
    samples: int = 0

    def note(self, sample: Sample) -> None:
        """Take in one moment."""
        self.samples += 1
        self.utilisation_percent.note(sample.utilisation_percent)
        self.memory_used_bytes.note(sample.memory_used_bytes)
        self.power_milliwatts.note(sample.power_milliwatts)
        self.temperature_celsius.note(sample.temperature_celsius)

    def merge(self, other: Window) -> None:
        """Take in what another window saw."""
        self.samples += other.samples
        self.utilisation_percent.merge(other.utilisation_percent)
        self.memory_used_bytes.merge(other.memory_used_bytes)
        self.power_milliwatts.merge(other.power_milliwatts)
        self.temperature_celsius.merge(other.temperature_celsius)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """Totals at one moment, and the device since the reading before."""

    cpu_us: int
    memory_peak_bytes: int | None
    #: Counted from some moment of the reader's choice; None where nothing tells.
    energy_millijoules: int | None
    energy_source: EnergySource | None
    window: Window


class DeviceReader(Protocol):
    """One device's counter of energy and, where it has them, its gauges. Used by one thread at a time."""

    @property
    def energy_source(self) -> EnergySource | None:
        """Return what `energy_millijoules` comes from; None where nothing tells."""

    @property
    def has_gauges(self) -> bool:
        """Say whether `sample` can tell anything."""

    def energy_millijoules(self) -> int | None:
        """Return the energy since some fixed moment, or None where it cannot be read."""

    def sample(self) -> Sample:
        """Return how the device is now; what it does not tell is None."""

    def close(self) -> None:
        """Let go of the driver."""


class ProcessReader(Protocol):
    """This process's own use of the machine."""

    def cpu_us(self) -> int:
        """Return the processor time of all threads, user and system, in microseconds."""

    def memory_peak_bytes(self) -> int | None:
        """Return the highest resident memory since the process started."""
