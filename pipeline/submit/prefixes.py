"""What a prompt begins with, as check sums of longer and longer beginnings.

Levels stand at 64 bytes, then every 256 bytes or quarter of an octave, whichever is further, and at the ends of
messages, since a conversation goes on there. Where the levels of a text stand depends on nothing behind them, so
two rows share exactly those levels that lie within the beginning they have in common: sorting by them walks the tree
of prefixes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, Self
from zlib import crc32

from pipeline.domain.checks import ROLES
from pipeline.domain.endpoints import Endpoint
from pipeline.domain.limits import LINE_BYTES_MAX
from pipeline.domain.parameters import prompt_of, text_of
from pipeline.domain.responses import chat_of

#: A prefix worth sharing. 64 bytes are about 16 tokens, the smallest block that engines share.
_SHARED_BYTES_MIN: Final = 64
#: Between two levels by bytes: 64 tokens, or a quarter of the octave they are in.
_STEP_BYTES_MIN: Final = 256
_STEPS_PER_OCTAVE_BITS: Final = 2
#: Levels behind the first. Only a conversation of a thousand messages has more, and is told apart no further.
LEVELS_MAX: Final = 1023
#: Of a message's mark.
_MARK_BYTES_MAX: Final = 2 + max(map(len, ROLES))
#: First messages whose check sums are remembered, and how long they may be.
_KNOWN_MAX: Final = 1024
_KNOWN_CHARS_MAX: Final = 1024

#: The check sum of a prompt's first 64 bytes, or of its first message where that is shorter; and those of longer and
#: longer beginnings. What is left behind the last, 64 tokens at most or a quarter of an octave, is not told.
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
        case Endpoint.RESPONSES:
            chats = _ChatLevels()
            return lambda body: chats.levels_of(chat_of(body))
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

    def end_message(self) -> None:
        """Have a level here, before another message, if it tells enough."""
        self._tell(_SHARED_BYTES_MIN)

    def levels(self) -> Levels:
        """Return the levels of what was read, which is the whole prompt."""
        self._tell(_STEP_BYTES_MIN)
        return self.first, self.further[:LEVELS_MAX]

    def _tell(self, bytes_min: int) -> None:
        if self.bytes_read - self.bytes_told >= bytes_min:
            self.bytes_told = self.bytes_read
            self.further.append(self.check_sum)

    def bytes_free(self) -> int:
        """Return how many bytes more make a level."""
        return min(self.bytes_told + _STEP_BYTES_MIN, _PLACES[self.place_no]) - self.bytes_read


class _ChatLevels:
    """Levels of conversations, whose first messages in most files are a few that come again and again."""

    def __init__(self) -> None:
        #: The trail behind a first message, and how long a text behind it makes no level.
        self._known: dict[tuple[str, str], tuple[_Trail, int]] = {}

    def levels_of(self, body: Mapping[str, Any]) -> Levels:
        messages = body["messages"]
        message = messages[0]
        if len(messages) == 1:
            return _Trail.of(_piece(message), mark_bytes=len(_mark(message))).levels()
        try:
            begun, chars_free = self._known[message["role"], message["content"]]
        except (KeyError, TypeError):  # new, or a list of parts
            begun, chars_free = self._begun(message)
        if len(messages) == 2:  # noqa: PLR2004 -- a system prompt and a short question: most rows
            text = messages[1]["content"]
            if type(text) is str and len(text) < chars_free and text.isascii():
                return begun.first, begun.further
        trail = begun.copy()
        for message in islice(messages, 1, None):
            trail.end_message()
            trail.read(_piece(message))
        return trail.levels()

    def _begun(self, message: Mapping[str, Any]) -> tuple[_Trail, int]:
        trail = _Trail.of(_piece(message), mark_bytes=len(_mark(message)))
        trail.end_message()
        begun = trail, trail.bytes_free() - _MARK_BYTES_MAX
        content = message["content"]
        if type(content) is str and len(content) <= _KNOWN_CHARS_MAX:  # so the bound on entries bounds memory
            if len(self._known) == _KNOWN_MAX:
                self._known.clear()
            self._known[message["role"], content] = begun
        return begun


def _piece(message: Mapping[str, Any]) -> bytes:
    content = message["content"]
    if type(content) is not str:
        content = text_of(content)
    return f"\0{message['role']}\0{content}".encode()


def _mark(message: Mapping[str, Any]) -> str:
    """Return what stands for the model's own mark before a message. No text has the character NUL."""
    return f"\0{message['role']}\0"


def _completion_levels(body: Mapping[str, Any]) -> Levels:
    return _Trail.of(prompt_of(body).encode()).levels()


def _no_levels(_body: Mapping[str, Any]) -> Levels:
    return 0, ()
