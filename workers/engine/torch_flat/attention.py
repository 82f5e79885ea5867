"""Attention over ranges of the flat cache: torch's FlashAttention kernel, and plain operations where it cannot run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

import torch
from torch import Tensor
from torch.nn import functional

#: Types the kernel computes in, and the first compute capability with it.
_FLASH_TYPES: Final = frozenset({torch.bfloat16, torch.float16})
_FLASH_CAPABILITY: Final = (8, 0)
_FLASH_HEAD_DIM_MAX: Final = 256
#: The plain form computes up to a multiple of this, so that few shapes are captured.
_PLAIN_STEP: Final = 256


@dataclass(frozen=True, slots=True)
class Spans:
    """Which queries look at which ranges of the cache, row by row; the last query of a row sees its whole range."""

    #: Where each row's queries begin, and where the last one's end: int32 (rows + 1).
    queries: Tensor
    #: Where each row's range begins in the cache, and one more that nobody reads: int32 (rows + 1), in any order.
    begins: Tensor
    #: Positions of each range that are in use, those of the queries included: int32 (rows).
    lengths: Tensor
    #: The most queries of a row, and a bound on `lengths`.
    queries_max: int
    lengths_max: int


class Attention(Protocol):
    """Causal attention of flat queries over the flat cache."""

    def bound(self, length: int, context_tokens: int) -> int:
        """Return the `lengths_max` to compute with where `length` is the longest: few values, for captured steps."""

    def __call__(self, queries: Tensor, keys: Tensor, values: Tensor, spans: Spans) -> Tensor:
        """Return (queries, heads, dimension) for `queries` of that shape and a layer's cache (tokens, key heads, dimension)."""


def attention_for(device: torch.device, dtype: torch.dtype, head_dim: int) -> Attention:
    """Return the fastest attention that runs there."""
    fits = dtype in _FLASH_TYPES and head_dim % 8 == 0 and head_dim <= _FLASH_HEAD_DIM_MAX
    if device.type == "cuda" and fits and torch.cuda.get_device_capability(device) >= _FLASH_CAPABILITY:
        return FlashAttention()
    return PlainAttention()


class FlashAttention:
    """torch's own FlashAttention-2, which reads each row's range where it lies, only as far as it is in use.

    For one query a row it computes the heads of a group together and splits long ranges (flash decoding). The
    operator, unlike `varlen_attn`, takes ranges shorter than what they were given in every torch from 2.11 on.
    """

    def bound(self, length: int, context_tokens: int) -> int:  # noqa: ARG002 -- the kernel reads `lengths`
        """Return the context: the kernel uses it only to choose how far to split."""
        return context_tokens

    def __call__(self, queries: Tensor, keys: Tensor, values: Tensor, spans: Spans) -> Tensor:
        """See `Attention`."""
        output: Tensor = torch.ops.aten._flash_attention_forward(  # noqa: SLF001 -- the only door
            queries,
            keys,
            values,
            spans.queries,
            spans.begins,
            spans.queries_max,
            spans.lengths_max,
            0.0,  # dropout
            spans.queries_max > 1,  # causal, aligned at the last query
            False,  # return_debug_mask
            scale=queries.shape[-1] ** -0.5,
            seqused_k=spans.lengths,
        )[0]
        return output


class PlainAttention:
    """The same by gathering every range into a rectangle: any device and type, much more memory."""

    def bound(self, length: int, context_tokens: int) -> int:
        """Return the rectangle's width."""
        return min(-(-length // _PLAIN_STEP) * _PLAIN_STEP, max(context_tokens, length))

    def __call__(self, queries: Tensor, keys: Tensor, values: Tensor, spans: Spans) -> Tensor:
        """See `Attention`."""
        count, heads, dim = queries.shape
        rows, device = len(spans.lengths), queries.device
        across = torch.arange(spans.lengths_max, device=device)
        places = (spans.begins[:-1, None] + across).clamp_(max=len(keys) - 1)
        # Each flat query's row, and its place among that row's.
        row = torch.searchsorted(spans.queries[1:].contiguous(), torch.arange(count, device=device), right=True)
        row = row.clamp_(max=rows - 1)
        place = torch.arange(count, device=device) - spans.queries[row]
        grid = queries.new_zeros(rows, spans.queries_max, heads, dim)
        grid[row, place] = queries
        asked = (spans.queries[1:] - spans.queries[:-1])[:, None]
        last_seen = (spans.lengths[:, None] - asked + torch.arange(spans.queries_max, device=device))[..., None]
        # Rows with fewer queries than the rectangle has see their whole range, which nobody reads.
        visible = across <= torch.minimum(last_seen, spans.lengths[:, None, None] - 1)
        output = functional.scaled_dot_product_attention(
            grid.transpose(1, 2),
            keys[places].transpose(1, 2),
            values[places].transpose(1, 2),
            attn_mask=visible[:, None],
            enable_gqa=True,
        )
        return output.transpose(1, 2)[row, place]
