"""Who holds which positions of the flat cache: ranges of exactly what each row may need, taken first fit."""

from __future__ import annotations

from bisect import bisect_left
from typing import Final

#: Ranges begin and end at multiples of this, so that what is left over can be used again.
GRAIN_TOKENS: Final = 16


def grains(tokens: int) -> int:
    """Return `tokens` rounded up to whole grains."""
    return -(-tokens // GRAIN_TOKENS) * GRAIN_TOKENS


class Extents:
    """The free ranges of `tokens` positions, of which the first `kept` belong to nobody."""

    def __init__(self, tokens: int, *, kept: int = 0) -> None:
        """Start with everything free but the kept."""
        self._free: list[tuple[int, int]] = [(kept, tokens)] if tokens > kept else []
        self.free_tokens = max(0, tokens - kept)

    def take(self, tokens: int) -> int | None:
        """Return the beginning of a range of `tokens`, now taken, or None where no gap is long enough."""
        tokens = grains(tokens)
        for place, (begin, end) in enumerate(self._free):
            if end - begin >= tokens:
                if end - begin == tokens:
                    del self._free[place]
                else:
                    self._free[place] = (begin + tokens, end)
                self.free_tokens -= tokens
                return begin
        return None

    def give(self, begin: int, tokens: int) -> None:
        """Free the range that `take(tokens)` returned."""
        end = begin + grains(tokens)
        self.free_tokens += end - begin
        place = bisect_left(self._free, (begin, end))
        assert place == 0 or self._free[place - 1][1] <= begin, "freed twice"
        assert place == len(self._free) or end <= self._free[place][0], "freed twice"
        if place < len(self._free) and self._free[place][0] == end:
            end = self._free.pop(place)[1]
        if place and self._free[place - 1][1] == begin:
            place -= 1
            begin = self._free.pop(place)[0]
        self._free.insert(place, (begin, end))
