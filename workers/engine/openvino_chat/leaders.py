"""Leaders: of rows that begin alike one goes first, so that the others find its prefix computed.

The batcher looks for a known prefix when it is handed a row, and computes rows it was handed together each in full:
a pack of rows that share a system prompt would compute it once a row.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Final

#: A beginning shorter than this is cheaper to compute than to wait for.
PREFIX_TOKENS: Final = 64
#: Beginnings remembered as computed; the batcher forgets by itself what has not been used for long.
_KNOWN_MAX: Final = 256

_Prefix = tuple[int, ...]


class Leaders:
    """Who leads, and which beginnings have been computed."""

    def __init__(self) -> None:
        """Begin with nothing computed."""
        self._leading: dict[_Prefix, int] = {}
        self._known: OrderedDict[_Prefix, None] = OrderedDict()

    def may_enter(self, key: int, prompt: Sequence[int]) -> bool:
        """Say whether the row may enter now; the first of a beginning that is not known becomes its leader."""
        if len(prompt) <= PREFIX_TOKENS:
            return True
        prefix = tuple(prompt[:PREFIX_TOKENS])
        if prefix in self._known:
            self._known.move_to_end(prefix)
            return True
        return self._leading.setdefault(prefix, key) == key

    def keys(self) -> frozenset[int]:
        """Return the rows that lead."""
        return frozenset(self._leading.values())

    def computed(self, keys: Iterable[int]) -> None:
        """Note that these leaders' prompts are computed: who waited for them may enter."""
        self._end(keys, is_known=True)

    def forget(self, keys: Iterable[int]) -> None:
        """Note that these rows are gone; another of their beginning leads next."""
        self._end(keys, is_known=False)

    def _end(self, keys: Iterable[int], *, is_known: bool) -> None:
        ended = frozenset(keys)
        for prefix in [prefix for prefix, key in self._leading.items() if key in ended]:
            del self._leading[prefix]
            if is_known:
                self._known[prefix] = None
        while len(self._known) > _KNOWN_MAX:
            self._known.popitem(last=False)
