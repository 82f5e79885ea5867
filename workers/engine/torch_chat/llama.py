"""A direct forward pass for Llama-shaped models: fused projections, flat tokens, no padding.

A step's tokens, those of decoding rows and of entering prompts alike, form one flat (tokens, hidden)
matrix, so every projection is one matrix product without padding; only attention knows rows. The output
head runs on the last token of each row. Same mathematics as transformers' `modeling_llama.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from workers.engine.torch_chat.decoder import Prefill
from workers.engine.torch_chat.slots import SlotCache
from workers.engine.torch_chat.weights import LlamaWeights


class LlamaDecoder:
    """A Llama-shaped model over a slot cache; implements `Decoder`."""

    shares_prefixes = True
    pads_prompts = False

    def __init__(self, weights: LlamaWeights, *, context_tokens: int) -> None:
        """Run on `weights`; no row is longer than `context_tokens`."""
        self.context_tokens = context_tokens
        self._heads = weights.heads
        self._key_heads = weights.key_heads
        self._head_dim = weights.head_dim
        self._epsilon = weights.epsilon
        self._embedding = weights.embedding
        self._head = weights.head
        self._norm = weights.norm
        self._layers = weights.layers
        self._cos, self._sin = weights.rotation(context_tokens)
        self.cache = SlotCache(weights.cache_shape)

    @torch.inference_mode()
    def forward(self, tokens: list[int], positions: list[int], prefills: Sequence[Prefill]) -> Tensor:
        """Run one step; see `Decoder.forward`."""
        step = self._step(tokens, positions, prefills)
        hidden = functional.embedding(step.ids, self._embedding)
        for index, layer in enumerate(self._layers):
            normed = functional.rms_norm(hidden, hidden.shape[-1:], layer.input_norm, self._epsilon)
            attended = self._attend(index, layer.qkv(normed), step)
            hidden = hidden + layer.output(attended)
            normed = functional.rms_norm(hidden, hidden.shape[-1:], layer.mlp_norm, self._epsilon)
            gate, up = layer.gate_up(normed).chunk(2, dim=-1)
            hidden = hidden + layer.down(functional.silu(gate).mul_(up))
        last = functional.rms_norm(hidden[step.last], hidden.shape[-1:], self._norm, self._epsilon)
        return self._head(last).float()

    def _step(self, tokens: list[int], positions: list[int], prefills: Sequence[Prefill]) -> _Step:
        ids, places, last = list(tokens), list(positions), list(range(len(tokens)))
        for prefill in prefills:
            ids += prefill.tokens
            places += range(prefill.start, prefill.start + len(prefill.tokens))
            last.append(len(ids) - 1)
        device = self._embedding.device
        place = torch.tensor(places, device=device)
        used = min(-(-(max(positions, default=0) + 1) // 16) * 16, self.cache.tokens)
        decoding = place[: len(tokens)]
        visible = torch.arange(used, device=device)[None] <= decoding[:, None]
        mask = torch.zeros(len(tokens), 1, 1, used, device=device, dtype=self._embedding.dtype)
        return _Step(
            ids=torch.tensor(ids, device=device),
            cos=self._cos[place],
            sin=self._sin[place],
            last=torch.tensor(last, device=device),
            rows=torch.arange(len(tokens), device=device),
            positions=decoding,
            used=used,
            mask=mask.masked_fill_(~visible[:, None, None], float("-inf")),
            prefills=prefills,
        )

    def _attend(self, index: int, qkv: Tensor, step: _Step) -> Tensor:
        """Return attention's output (tokens, heads x head dimension) and store the new keys and values."""
        count, dim = qkv.shape[0], self._head_dim
        rotated = (self._heads + self._key_heads) * dim
        queries_keys = qkv[:, :rotated].view(count, -1, dim)
        first, second = queries_keys.chunk(2, dim=-1)
        queries_keys = torch.cat((first * step.cos - second * step.sin, second * step.cos + first * step.sin), dim=-1)
        queries, keys = queries_keys[:, : self._heads], queries_keys[:, self._heads :]
        values = qkv[:, rotated:].view(count, self._key_heads, dim)
        output = torch.empty(count, self._heads, dim, dtype=qkv.dtype, device=qkv.device)
        decoding = len(step.rows)
        if decoding:
            self._attend_decoding(index, queries[:decoding], keys[:decoding], values[:decoding], step, output)
        begin = decoding
        for prefill in step.prefills:
            end = begin + len(prefill.tokens)
            part = slice(begin, end)
            self._attend_prefill(index, prefill, queries[part], keys[part], values[part], output[part])
            begin = end
        return output.view(count, -1)

    def _attend_decoding(
        self, index: int, queries: Tensor, keys: Tensor, values: Tensor, step: _Step, output: Tensor
    ) -> None:
        """Attend one query per row over its slot; the heads of a group are that slot's queries."""
        rows, used = len(step.rows), step.used
        all_keys, all_values = self.cache.keys[index], self.cache.values[index]
        all_keys[step.rows, :, step.positions] = keys
        all_values[step.rows, :, step.positions] = values
        grouped = queries.reshape(rows, self._key_heads, -1, self._head_dim)
        if queries.dtype == torch.float32 and queries.device.type == "cpu":
            # Measured a third faster than the CPU's fused kernel, which is made for many queries per key.
            scores = torch.matmul(grouped * self._head_dim**-0.5, all_keys[:rows, :, :used].transpose(2, 3))
            attended = torch.matmul(scores.add_(step.mask).softmax(dim=-1), all_values[:rows, :, :used])
        else:
            attended = functional.scaled_dot_product_attention(
                grouped, all_keys[:rows, :, :used], all_values[:rows, :, :used], attn_mask=step.mask
            )
        output[:rows] = attended.reshape(rows, self._heads, self._head_dim)

    def _attend_prefill(
        self, index: int, prefill: Prefill, queries: Tensor, keys: Tensor, values: Tensor, output: Tensor
    ) -> None:
        """Attend one prompt's tokens over its slot, causally."""
        start, end = prefill.start, prefill.start + len(prefill.tokens)
        slot_keys, slot_values = self.cache.keys[index][prefill.slot], self.cache.values[index][prefill.slot]
        if start:
            # The source's own keys of this layer are in place: it entered earlier, or earlier in this loop.
            slot_keys[:, :start] = self.cache.keys[index][prefill.source, :, :start]
            slot_values[:, :start] = self.cache.values[index][prefill.source, :, :start]
        slot_keys[:, start:end] = keys.transpose(0, 1)
        slot_values[:, start:end] = values.transpose(0, 1)
        group = self._heads // self._key_heads
        # (key heads, group, tokens, head dimension): grouped queries share their keys without a copy.
        grouped = queries.transpose(0, 1).reshape(self._key_heads, group, -1, self._head_dim)
        shape = (-1, group, -1, -1)
        mask = None
        if start:
            mask = torch.ones(end - start, end, dtype=torch.bool, device=queries.device).tril_(start)
        attended = functional.scaled_dot_product_attention(
            grouped,
            slot_keys[:, None, :end].expand(shape),
            slot_values[:, None, :end].expand(shape),
            attn_mask=mask,
            is_causal=mask is None,
        )
        output.copy_(attended.flatten(0, 1).transpose(0, 1))


@dataclass(frozen=True, slots=True)
class _Step:
    """What every layer of one step shares."""

    ids: Tensor
    #: Rotation of each token: (tokens, 1, head dimension / 2).
    cos: Tensor
    sin: Tensor
    #: Index of each row's last token in the flat order.
    last: Tensor
    #: 0..n-1, the decoding rows and their slots, and each one's position.
    rows: Tensor
    positions: Tensor
    #: Positions of the cache that some decoding row may see.
    used: int
    #: (decoding rows, 1, 1, used): 0 where visible, -inf elsewhere.
    mask: Tensor
    prefills: Sequence[Prefill]
