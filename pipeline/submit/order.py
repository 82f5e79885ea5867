"""The order of rows in the shards, from keys alone: rows that share a prompt prefix stand together.

An engine keeps the attention state of a prefix it has seen, so neighbours with the same system prompt pay
for it once; among rows without a shared prefix, neighbours of equal length waste no padding.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from pipeline.domain.endpoints import Endpoint
from pipeline.domain.parameters import prompt_of, text_of

#: A prefix worth sharing, and how far a prefix is told apart. 64 bytes are about 16 tokens, the smallest
#: block that engines share.
_PREFIX_BYTES_MIN: Final = 64
_PREFIX_CHARS_MAX: Final = 1024
#: First messages whose keys are remembered.
_KNOWN_MAX: Final = 1024

_HALF_BITS: Final = np.uint64(32)
_UPPER_HALF: Final = np.uint64(0xFFFF_FFFF_0000_0000)

#: Returns the 64-bit prefix key of a checked body.
PrefixKey = Callable[[Mapping[str, Any]], int]


def prefix_key_of(endpoint: Endpoint) -> PrefixKey:
    """Return the function that tells which prefix a body of `endpoint` begins with.

    The upper half of a key tells short prefixes apart and the lower half long ones, so sorting by it puts
    rows together that share the short one, and among them those that share the long one. Keys are the
    same in every process, so that a rerun makes the same shards. An encoder shares nothing: one key.
    """
    match endpoint:
        case Endpoint.CHAT_COMPLETIONS:
            return _ChatKeys().key_of
        case Endpoint.COMPLETIONS:
            return _completion_key
        case Endpoint.EMBEDDINGS | Endpoint.SCORE | Endpoint.RERANK | Endpoint.CLASSIFY:
            return _no_key


class _ChatKeys:
    """Keys of first messages, which in most files are a few system prompts that come again and again."""

    def __init__(self) -> None:
        self._known: dict[str, int] = {}

    def key_of(self, body: Mapping[str, Any]) -> int:
        content = body["messages"][0].get("content")
        try:
            return self._known[content]
        except (KeyError, TypeError):  # new, or a list of parts
            return self._key_of_new(content if type(content) is str else text_of(content))

    def _key_of_new(self, text: str) -> int:
        key = _text_key(text)
        if len(text) <= _PREFIX_CHARS_MAX:  # so the bound on entries bounds memory
            if len(self._known) == _KNOWN_MAX:
                self._known.clear()
            self._known[text] = key
        return key


def _completion_key(body: Mapping[str, Any]) -> int:
    return _text_key(prompt_of(body))


def _no_key(_body: Mapping[str, Any]) -> int:
    return 0


def _text_key(text: str) -> int:
    # A check sum and not a digest: two prefixes that meet by chance cost speed, not an answer.
    prefix = text[:_PREFIX_CHARS_MAX].encode()
    return crc32(prefix[:_PREFIX_BYTES_MIN]) << 32 | crc32(prefix)


def template_of(prefixes: NDArray[np.uint64]) -> int:
    """Return a number for the short prefix that all of these rows begin with, or 0 where they do not."""
    short = prefixes >> _HALF_BITS
    return int(short[0]) if len(short) > 1 and short.min() == short.max() else 0


def locality_order(prefixes: NDArray[np.uint64], lengths: NDArray[np.uint32]) -> NDArray[np.intp]:
    """Return the permutation that sorts rows by shared prefix, then length, then input order.

    A prefix that one row alone has is none: such rows are sorted by length among themselves. `prefixes` is
    used up, so that ten million rows need no second copy.
    """
    by_prefix = np.argsort(prefixes)
    keys = prefixes[by_prefix]
    is_lonely = _is_lonely(keys >> _HALF_BITS)
    keys[_is_lonely(keys)] &= _UPPER_HALF
    keys[is_lonely] = 0
    prefixes[by_prefix] = keys
    del by_prefix, keys
    return np.lexsort((lengths, prefixes))


def _is_lonely(keys: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Say for each of the sorted `keys` whether no other equals it."""
    starts = np.ones(len(keys) + 1, dtype=np.bool_)
    starts[1:-1] = keys[1:] != keys[:-1]
    return starts[:-1] & starts[1:]


def cuts(lengths: NDArray[np.uint32], *, rows_max: int, bytes_max: int) -> list[tuple[int, int]]:
    """Cut rows of these byte lengths into half-open ranges, each as long as both bounds allow."""
    ends = np.cumsum(lengths, dtype=np.int64)
    found: list[tuple[int, int]] = []
    start, bytes_before = 0, 0
    while start < len(lengths):
        fits = int(np.searchsorted(ends, bytes_before + bytes_max, side="right"))
        stop = min(start + rows_max, fits)
        assert stop > start, f"row {start} alone is larger than a shard may be"
        found.append((start, stop))
        start, bytes_before = stop, int(ends[stop - 1])
    return found
