"""How much memory the cache may have: what is free, less a tenth, less what a step needs while it runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from workers.engine.torch_flat.extents import grains

#: Share of the free memory that is left to others: the allocator's gaps, captured steps, libraries' workspaces.
HEADROOM: Final = 0.1
_FLOAT_BYTES: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSizes:
    """The sides of a Llama-shaped model that a step's memory depends on."""

    hidden: int
    intermediate: int
    #: Queries, keys and values of one token together, in elements.
    attention: int
    vocabulary: int
    element_bytes: int


def step_bytes(sizes: ModelSizes, *, tokens: int, rows: int) -> int:
    """Return an upper estimate of what a step of `tokens` needs besides weights and cache.

    Per token: the residual stream and its norms, the widest layer in the model's type, and once more in 8 and
    32 bits for quantized products. Per row: logits, and sampling's half a dozen float copies of them.
    """
    widest = max(2 * sizes.intermediate, sizes.attention)
    streams = 4 * sizes.hidden + 2 * sizes.attention + 2 * widest
    per_token = streams * sizes.element_bytes + widest * (_FLOAT_BYTES + 1)
    per_row = sizes.vocabulary * (2 * sizes.element_bytes + 6 * _FLOAT_BYTES)
    return (tokens + rows) * per_token + rows * per_row


def cache_tokens(
    *, free_bytes: int, bytes_max: int, bytes_per_token: int, step: int, rows: int, context_tokens: int
) -> int:
    """Return the positions of the cache.

    Args:
        free_bytes: What the device has free once the weights are there.
        bytes_max: The operator's bound; 0 for none.
        bytes_per_token: Keys and values of one token over all layers.
        step: What a step needs, from `step_bytes`.
        rows: Rows that may run together; more than all of them could fill is of no use.
        context_tokens: The longest row.
    """
    usable = int(free_bytes * (1 - HEADROOM)) - step
    allowed = min(usable, bytes_max) if bytes_max else usable
    tokens = min(max(0, allowed) // bytes_per_token, (rows + 1) * grains(context_tokens))
    return tokens // grains(1) * grains(1)
