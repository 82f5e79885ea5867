"""What a prompt begins with, as check sums of longer and longer beginnings.

Levels stand at 64 bytes, then every 256 bytes or quarter of an octave, whichever is further, and at the ends of
messages, since a conversation goes on after one. Where the levels of a text stand depends on nothing behind them, so
two rows share exactly those levels that lie within the beginning they have in common: sorting by them walks the tree
of prefixes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, Self
from zlib import crc32

from pipeline.domain.endpoints import Endpoint
from pipeline.domain.limits import LINE_BYTES_MAX
from pipeline.domain.parameters import prompt_of, text_of

#: A prefix worth sharing. 64 bytes are about 16 tokens, the smallest block that engines share.
_SHARED_BYTES_MIN: Final = 64
#: Between two levels by bytes: 64 tokens, or a quarter of the octave they are in.
_STEP_BYTES_MIN: Final = 256
_STEPS_PER_OCTAVE_BITS: Final = 2
#: Levels behind the first. Only a conversation of a thousand messages has more, and is told apart no further.
LEVELS_MAX: Final = 1023
#: First messages whose check sums are remembered, and how long they may be.
_KNOWN_MAX: Final = 1024
_KNOWN_CHARS_MAX: Final = 1024

#: The check sum of a prompt's first 64 bytes, or of its first message where that is shorter; and those of all longer
#: beginnings, the last being the whole prompt.
Levels = tuple[int, Sequence[int]]
#: Returns the levels of a checked body.
LevelsOf = Callable[[Mapping[str, Any]], Levels]


def levels_of(endpoint: Endpoint) -> LevelsOf:
    """Return the function that tells which prefixes a body of `endpoint` begins with.

    Check sums are the same in every process, so that a rerun makes the same shards. They are no digests: two
    prefixes that meet by chance cost speed, not an answer. An encoder shares nothing: one level, the same for all.
    """
    match endpoint:
        case Endpoint.CHAT_COMPLETIONS:
            return _ChatLevels().levels_of
        case Endpoint.COMPLETIONS:
            return _completion_levels
        case Endpoint.EMBEDDINGS | Endpoint.SCORE | Endpoint.RERANK | Endpoint.CLASSIFY:
            return _no_levels


def _places() -> tuple[int, ...]:
    """Return where the levels by bytes stand, the last behind any prompt."""
    found = [_STEP_BYTES_MIN]
    while found[-1] <= LINE_BYTES_MAX:
        octave = 1 << (found[-1].bit_length() - 1)
        found.append(found[-1] + max(_STEP_BYTES_MIN, octave >> _STEPS_PER_OCTAVE_BITS))
    return tuple(found)


_PLACES: Final = _places()


@dataclass(slots=True)
class _Trail:
    """The levels of a text that is read piece by piece."""

    first: int
    further: list[int]
    #: Bytes read, those up to the last level, and the check sum of all read.
    bytes_read: int
    bytes_told: int
    check_sum: int
    place_no: int

    @classmethod
    def of(cls, piece: bytes, *, mark_bytes: int = 0) -> Self:
        """Begin with the first message, which has a mark of so many bytes."""
        beginning = piece[: mark_bytes + _SHARED_BYTES_MIN]
        trail = cls(crc32(beginning), [], 0, len(beginning), 0, 0)
        trail.read(piece)
        return trail

    def copy(self) -> _Trail:
        """Return one that goes on from here by itself."""
        return _Trail(self.first, list(self.further), self.bytes_read, self.bytes_told, self.check_sum, self.place_no)

    def read(self, piece: bytes) -> None:
        """Read one message, with its mark."""
        start, check_sum, place_no, bytes_before = 0, self.check_sum, self.place_no, self.bytes_read
        self.bytes_read += len(piece)
        while _PLACES[place_no] <= self.bytes_read:
            self.bytes_told = _PLACES[place_no]
            stop = self.bytes_told - bytes_before
            check_sum = crc32(piece[start:stop], check_sum)
            self.further.append(check_sum)
            start, place_no = stop, place_no + 1
        self.check_sum = crc32(piece[start:], check_sum)
        self.place_no = place_no
        if self.bytes_read - self.bytes_told >= _SHARED_BYTES_MIN:
            self.bytes_told = self.bytes_read
            self.further.append(self.check_sum)

    def levels(self) -> Levels:
        """Return the levels of what was read, if it is the whole prompt."""
        if self.bytes_read > self.bytes_told:
            return self.first, (*self.further, self.check_sum)[:LEVELS_MAX]
        return self.first, self.further[:LEVELS_MAX]


class _ChatLevels:
    """Levels of conversations, whose first messages in most files are a few that come again and again."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], _Trail] = {}

    def levels_of(self, body: Mapping[str, Any]) -> Levels:
        messages = body["messages"]
        begun = self._begun(messages[0])
        if len(messages) == 1:
            return begun.levels()
        if len(messages) == 2:  # noqa: PLR2004 -- a system prompt and a question: most rows
            piece = _piece(messages[1])
            if begun.bytes_read + len(piece) < _PLACES[begun.place_no]:
                return begun.first, (*begun.further, crc32(piece, begun.check_sum))
        trail = begun.copy()
        for message in islice(messages, 1, None):
            trail.read(_piece(message))
        return trail.levels()

    def _begun(self, message: Mapping[str, Any]) -> _Trail:
        content = message["content"]
        known = (message["role"], content)
        try:
            return self._known[known]
        except (KeyError, TypeError):  # new, or a list of parts
            trail = _Trail.of(_piece(message), mark_bytes=len(_mark(message)))
        if type(content) is str and len(content) <= _KNOWN_CHARS_MAX:  # so the bound on entries bounds memory
            if len(self._known) == _KNOWN_MAX:
                self._known.clear()
            self._known[known] = trail
        return trail


def _piece(message: Mapping[str, Any]) -> bytes:
    content = message["content"]
    return f"{_mark(message)}{content if type(content) is str else text_of(content)}".encode()


def _mark(message: Mapping[str, Any]) -> str:
    """Return what stands for the model's own mark. No text has the character NUL."""
    return f"\0{message['role']}\0"


def _completion_levels(body: Mapping[str, Any]) -> Levels:
    return _Trail.of(prompt_of(body).encode()).levels()


def _no_levels(_body: Mapping[str, Any]) -> Levels:
    return 0, ()
