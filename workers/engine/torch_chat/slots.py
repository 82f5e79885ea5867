"""The key-value cache: one row of memory per slot, positions from 0, grown in buckets inside a byte budget."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

#: Lengths are rounded up to a multiple of this, so that growing by one token rarely reallocates.
BUCKET_TOKENS: Final = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheShape:
    """What one token of one slot needs in every layer."""

    layers: int
    key_heads: int
    head_dim: int
    dtype: torch.dtype
    device: torch.device

    @property
    def bytes_per_token(self) -> int:
        """Return the bytes that keys and values of one token take over all layers."""
        return 2 * self.layers * self.key_heads * self.head_dim * self.dtype.itemsize


def bucket(tokens: int) -> int:
    """Return `tokens` rounded up to a whole bucket."""
    return -(-tokens // BUCKET_TOKENS) * BUCKET_TOKENS


class SlotCache:
    """Keys and values by layer, each a tensor (slots, key heads, tokens, head dimension)."""

    def __init__(self, shape: CacheShape) -> None:
        """Start empty; `reserve` makes room."""
        self.shape = shape
        self.slots = 0
        self.tokens = 0
        self.keys: list[Tensor] = [self._empty(0, 0) for _ in range(shape.layers)]
        self.values: list[Tensor] = [self._empty(0, 0) for _ in range(shape.layers)]

    def reserve(self, slots: int, tokens: int) -> None:
        """Grow to at least `slots` rows of `tokens`, keeping what is stored; never shrinks."""
        slots, tokens = max(slots, self.slots), max(bucket(tokens), self.tokens)
        if slots == self.slots and tokens == self.tokens:
            return
        # One layer at a time: the peak is one layer above the new size, not twice it.
        for tensors in (self.keys, self.values):
            for layer, old in enumerate(tensors):
                new = self._empty(slots, tokens)
                new[: self.slots, :, : self.tokens] = old
                tensors[layer] = new
        self.slots, self.tokens = slots, tokens

    def copy(self, source: int, target: int, tokens: int) -> None:
        """Copy the first `tokens` positions of slot `source` over those of slot `target`."""
        assert source != target
        assert tokens <= self.tokens
        for tensors in (self.keys, self.values):
            for tensor in tensors:
                tensor[target, :, :tokens] = tensor[source, :, :tokens]

    def release(self) -> None:
        """Drop all memory."""
        self.__init__(self.shape)  # type: ignore[misc]  # the empty state is written once, in __init__

    def _empty(self, slots: int, tokens: int) -> Tensor:
        # Zeros and not empty: masked positions are multiplied by a weight of 0, and 0 x NaN is NaN.
        shape = self.shape
        return torch.zeros(slots, shape.key_heads, tokens, shape.head_dim, dtype=shape.dtype, device=shape.device)
