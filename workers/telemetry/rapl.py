"""Energy of the machine's processors, by the counters that Linux shows under /sys/class/powercap.

Intel's and newer AMD's processors have them. They count for the whole package, whoever used it, in
microjoules, and begin again at a bound that the files name; since Linux 5.10 only root may read them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pipeline.ports.meters import EnergySource
from workers.telemetry.readings import Sample

POWERCAP: Final = Path("/sys/class/powercap")
_MICROJOULES_PER_MILLIJOULE: Final = 1000


@dataclass(slots=True)
class _Counter:
    """One domain's counter, and what it counted since it was opened."""

    file: Path
    #: Where it begins again.
    bound: int
    last: int
    total: int = 0

    def read(self) -> int:
        now = int(self.file.read_text())
        self.total += now - self.last if now >= self.last else now - self.last + self.bound
        self.last = now
        return self.total


class RaplReader:
    """`DeviceReader` of the processors; it has no gauges."""

    energy_source = EnergySource.RAPL
    has_gauges = False

    def __init__(self, counters: Sequence[_Counter]) -> None:
        """Take the counters of `open_rapl`."""
        self._counters = counters

    def energy_millijoules(self) -> int | None:
        """Return the energy since it was opened; None once a counter cannot be read any more."""
        try:
            return sum(counter.read() for counter in self._counters) // _MICROJOULES_PER_MILLIJOULE
        except (OSError, ValueError):
            return None

    def sample(self) -> Sample:
        """Return nothing known."""
        return Sample()

    def close(self) -> None:
        """Do nothing: no file stays open."""


def open_rapl(folder: Path = POWERCAP) -> RaplReader | None:
    """Return a reader of all packages and their memory; None where there are none or they may not be read.

    `core` and `uncore` are parts of their package, and `psys` is the whole board: neither is added.
    """
    try:
        domains = sorted(path for path in folder.glob("intel-rapl:*") if _is_counted(path))
        counters = [
            _Counter(
                file=domain / "energy_uj",
                bound=int((domain / "max_energy_range_uj").read_text()),
                last=int((domain / "energy_uj").read_text()),
            )
            for domain in domains
        ]
    except (OSError, ValueError):
        return None
    return RaplReader(counters) if counters else None


def _is_counted(domain: Path) -> bool:
    name = (domain / "name").read_text().strip()
    return name.startswith("package") or name == "dram"
