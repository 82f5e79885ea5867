"""A Llama-shaped model over a flat cache: one forward for captured decode steps and for steps with prompts."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from workers.engine.torch_chat.pointwise import PLAIN, Pointwise
from workers.engine.torch_chat.slots import CacheShape
from workers.engine.torch_chat.weights import LlamaWeights
from workers.engine.torch_flat.attention import Attention, Spans


class FlatCache:
    """Keys and values by layer, each (tokens, key heads, head dimension); who holds which tokens is `Extents`'."""

    def __init__(self, shape: CacheShape, tokens: int) -> None:
        """Take all memory now: captured steps hold its addresses."""
        self.shape = shape
        self.tokens = tokens
        size = (tokens, shape.key_heads, shape.head_dim)
        # Zeros and not empty: what is masked is multiplied by 0, and 0 x NaN is NaN.
        self.keys = [torch.zeros(size, dtype=shape.dtype, device=shape.device) for _ in range(shape.layers)]
        self.values = [torch.zeros(size, dtype=shape.dtype, device=shape.device) for _ in range(shape.layers)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """One forward's tokens, flat: one of each decoding row first, then those of prompts."""

    #: int64 (tokens): the token, its position in its row, and its place in the cache.
    ids: Tensor
    positions: Tensor
    places: Tensor
    #: None where there are no such rows.
    decoding: Spans | None
    entering: Spans | None = None
    #: Tokens whose logits are wanted; None: all.
    last: Tensor | None = None
    #: Places that shared beginnings are copied from and to, after a layer's own keys are stored.
    copied_from: Tensor | None = None
    copied_to: Tensor | None = None


class FlatDecoder:
    """The model. Stateless: the cache is the caller's."""

    def __init__(
        self, weights: LlamaWeights, *, context_tokens: int, attention: Attention, pointwise: Pointwise = PLAIN
    ) -> None:
        """Run on `weights`, which several decoders may share; no row is longer than `context_tokens`."""
        self.context_tokens = context_tokens
        self.cache_shape = weights.cache_shape
        self.vocabulary = len(weights.embedding)
        self.attention = attention
        self._weights = weights
        self._pointwise = pointwise
        self._cos, self._sin = weights.rotation(context_tokens)

    @torch.inference_mode()
    def forward(self, batch: Batch, cache: FlatCache) -> Tensor:
        """Store the batch's keys and values and return logits (rows, vocabulary) in the model's type."""
        weights, pointwise = self._weights, self._pointwise
        cos, sin = self._cos[batch.positions], self._sin[batch.positions]
        hidden = functional.embedding(batch.ids, weights.embedding)
        normed = functional.rms_norm(hidden, hidden.shape[-1:], weights.layers[0].input_norm, weights.epsilon)
        following = [layer.input_norm for layer in weights.layers[1:]] + [weights.norm]
        for index, (layer, norm) in enumerate(zip(weights.layers, following, strict=True)):
            attended = self._attend(index, layer.qkv(normed), cos, sin, batch, cache)
            hidden, normed = pointwise.added_norm(hidden, layer.output(attended), layer.mlp_norm, weights.epsilon)
            passed = layer.down(pointwise.gated(layer.gate_up(normed)))
            hidden, normed = pointwise.added_norm(hidden, passed, norm, weights.epsilon)
        if batch.last is None:
            return weights.head(normed)
        # A step may end no prompt; not every product takes no rows.
        return weights.head(normed[batch.last]) if len(batch.last) else normed.new_zeros(0, self.vocabulary)

    def _attend(self, index: int, qkv: Tensor, cos: Tensor, sin: Tensor, batch: Batch, cache: FlatCache) -> Tensor:
        """Store the new keys and values and return attention's output (tokens, heads x head dimension)."""
        weights = self._weights
        heads, dim = weights.heads, weights.head_dim
        turned = heads + weights.key_heads
        rotated = self._pointwise.rotated(qkv[:, : turned * dim].view(len(qkv), turned, dim), cos, sin)
        queries = rotated[:, :heads].contiguous()
        keys, values = cache.keys[index], cache.values[index]
        keys.index_copy_(0, batch.places, rotated[:, heads:])
        values.index_copy_(0, batch.places, qkv[:, turned * dim :].view(len(qkv), -1, dim))
        if batch.copied_from is not None and batch.copied_to is not None:
            keys.index_copy_(0, batch.copied_to, keys[batch.copied_from])
            values.index_copy_(0, batch.copied_to, values[batch.copied_from])
        parts, begin = [], 0
        for spans in (batch.decoding, batch.entering):
            if spans is not None:
                end = begin + len(spans.lengths) if spans is batch.decoding else len(queries)
                parts.append(self.attention(queries[begin:end], keys, values, spans))
                begin = end
        output = parts[0] if len(parts) == 1 else torch.cat(parts)
        return output.reshape(len(qkv), -1)
