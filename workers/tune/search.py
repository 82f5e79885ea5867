"""The search for the best batch size: doubling until it no longer pays, then closing in on the best.

    search = Search(ceiling=512)
    while (size := search.next_size()) is not None:
        search.note(Probe(size=size, tokens_per_second=measure(size)))
    search.best()

Both phases assume that throughput is unimodal in the logarithm of the size, which holds where a step takes
a + b·size (see docs/adr/0013). A later size must be better by more than the noise to move the search, and of all
that come within 2 % of the best the smallest is taken: it costs nothing and blocks others for the shortest time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Final

#: Where the search starts, and how many measurements it may ask for.
SIZE_MIN: Final = 16
PROBES_MAX: Final = 10
#: Doubling goes on while it brings more than this, and stops after two that did not.
_GAIN_MIN: Final = 0.03
_DISAPPOINTMENTS_MAX: Final = 2
#: Where twice the rows brought so much more, the best is far: go on by this instead of doubling.
_STEEP: Final = 1.7
_STRIDE_STEEP: Final = 4
#: Sizes this close in ratio are not told apart.
_BRACKET_MIN: Final = 1.15
#: A guess this close to what is known would teach nothing.
_NEAR: Final = 1.05
#: How far below the best the smallest acceptable size may be.
_GOOD_ENOUGH: Final = 0.02
_GOLDEN: Final = (math.sqrt(5) - 1) / 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """One measurement."""

    size: int
    #: None: the device ran out of memory.
    tokens_per_second: float | None
    #: Of repeated measurements, as a share of their median (median absolute deviation).
    noise_share: float = 0.0

    @property
    def speed(self) -> float:
        """Return the throughput; what does not fit has none."""
        return self.tokens_per_second or 0.0


@dataclass(slots=True, kw_only=True)
class Search:
    """The sizes to try, one at a time; pure, and ended by `next_size` returning None."""

    #: Largest size that the memory formula allows.
    ceiling: int
    size_min: int = SIZE_MIN
    probes_max: int = PROBES_MAX
    probes: list[Probe] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Refuse a ceiling below the first size: the search would have nothing to try."""
        self.size_min = min(self.size_min, self.ceiling)
        assert self.size_min >= 1

    def next_size(self) -> int | None:
        """Return what to measure next, or None when the search is over."""
        if len(self.probes) >= self.probes_max:
            return None
        if (doubled := self._next_doubling()) is not None:
            return doubled
        return self._next_between()

    def note(self, probe: Probe) -> None:
        """Take in the measurement of what `next_size` returned."""
        self.probes.append(probe)

    def best(self) -> Probe:
        """Return the smallest size within 2 % of the fastest; raises `ValueError` when nothing ran."""
        ran = [probe for probe in self.probes if probe.tokens_per_second]
        if not ran:
            raise ValueError("no size ran")
        fastest = max(probe.speed for probe in ran)
        return min((p for p in ran if p.speed >= (1 - _GOOD_ENOUGH) * fastest), key=lambda probe: probe.size)

    def _next_doubling(self) -> int | None:
        """Return the next of min, 2·min, 4·min … and the ceiling, while doubling pays."""
        tried = {probe.size: probe for probe in self.probes}
        size, before, disappointments = self.size_min, 0.0, 0
        while size in tried:
            probe = tried[size]
            noise_share = max(_GAIN_MIN, 2 * probe.noise_share)
            if probe.tokens_per_second is None or probe.speed < before * (1 - noise_share) or size == self.ceiling:
                # Too large: the best lies below, where it is looked for between what is known.
                return None
            disappointments = 0 if probe.speed > before * (1 + noise_share) else disappointments + 1
            if disappointments == _DISAPPOINTMENTS_MAX:
                return None
            stride = _STRIDE_STEEP if before and probe.speed > _STEEP * before else 2
            before = max(before, probe.speed)
            size = min(stride * size, self.ceiling)
        return size

    def _next_between(self) -> int | None:
        """Return a size in the bracket around the fastest, or None when the bracket is tight."""
        probes = sorted(self.probes, key=lambda probe: probe.size)
        fastest = max(probes, key=lambda probe: (probe.speed, -probe.size))
        if not fastest.speed:
            # Not even the first size fits: look below it.
            return probes[0].size // 2 or None
        place = probes.index(fastest)
        below, above = probes[:place][-1:], probes[place + 1 :][:1]
        if above and above[0].tokens_per_second is None and _ratio(above[0].size, fastest.size) > _NEAR:
            # Nothing is known of what lies just below the end of memory, and more was better so far: halve the gap.
            return self._untried(round(math.sqrt(fastest.size * above[0].size)))
        wide = [each for each in (*above, *below) if _ratio(each.size, fastest.size) > _BRACKET_MIN]
        if not wide:
            return None
        size = _vertex(below[0], fastest, above[0]) if below and above else None
        if size is None or _ratio(size, fastest.size) < _NEAR:
            # No parabola, or one that sees the top where we are: cut the wider gap.
            other = max(wide, key=lambda probe: (_ratio(probe.size, fastest.size), probe.speed))
            size = round(fastest.size * (other.size / fastest.size) ** (1 - _GOLDEN))
        return self._untried(size)

    def _untried(self, size: int) -> int | None:
        return size if size not in {probe.size for probe in self.probes} else None


def _vertex(below: Probe, fastest: Probe, above: Probe) -> int | None:
    """Return where a parabola through three throughputs over log size has its top (Brent 1973, chapter 5)."""
    left = math.log(fastest.size / below.size) * (fastest.speed - above.speed)
    right = math.log(above.size / fastest.size) * (fastest.speed - below.speed)
    if left + right <= 0:
        return None
    shift = math.log(above.size / fastest.size) * right - math.log(fastest.size / below.size) * left
    return round(fastest.size * math.exp(shift / (2 * (left + right))))


def _ratio(size: int, other: int) -> float:
    return max(size, other) / min(size, other)
