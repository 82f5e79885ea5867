"""Any causal language model of transformers over a slot cache: slower than the direct forward, same answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import Cache

from workers.engine.torch_chat.decoder import Prefill
from workers.engine.torch_chat.slots import CacheShape, SlotCache


class GenericDecoder:
    """A transformers `...ForCausalLM` with full attention; implements `Decoder`."""

    #: transformers' modules see one call per layer, with no place to copy a prefix first.
    shares_prefixes = False
    pads_prompts = True

    def __init__(self, model: Any, *, context_tokens: int) -> None:  # noqa: ANN401 -- transformers has no types
        """Take the model, its attention set to `sdpa`; `context_tokens` stays inside any sliding window."""
        config = model.config.get_text_config()
        heads = config.num_attention_heads
        self._model = model
        self.context_tokens = context_tokens
        self.cache = SlotCache(
            CacheShape(
                layers=config.num_hidden_layers,
                key_heads=getattr(config, "num_key_value_heads", None) or heads,
                head_dim=getattr(config, "head_dim", None) or config.hidden_size // heads,
                dtype=model.dtype,
                device=model.device,
            )
        )

    @torch.inference_mode()
    def forward(self, tokens: list[int], positions: list[int], prefills: Sequence[Prefill]) -> Tensor:
        """Run one step in two passes, decoding rows and entering prompts; see `Decoder.forward`."""
        parts = []
        if tokens:
            parts.append(self._decode(tokens, positions))
        if prefills:
            parts.append(self._prefill(prefills))
        return torch.cat(parts).float()

    def _decode(self, tokens: list[int], positions: list[int]) -> Tensor:
        device = self._model.device
        place = torch.tensor(positions, device=device)
        rows = torch.arange(len(tokens), device=device)
        used = max(positions) + 1
        visible = torch.arange(used, device=device)[None] <= place[:, None]
        output = self._model(
            input_ids=torch.tensor(tokens, device=device)[:, None],
            position_ids=place[:, None],
            attention_mask=_additive(visible[:, None, None], self._model.dtype),
            past_key_values=_Decoding(self.cache, rows, place, used),
            use_cache=True,
        )
        logits: Tensor = output.logits[:, -1]
        return logits

    def _prefill(self, prefills: Sequence[Prefill]) -> Tensor:
        assert all(prefill.start == 0 for prefill in prefills)
        device = self._model.device
        lengths = [len(prefill.tokens) for prefill in prefills]
        longest = max(lengths)
        ids = torch.zeros(len(prefills), longest, dtype=torch.long, device=device)
        for row, prefill in enumerate(prefills):
            ids[row, : lengths[row]] = torch.tensor(prefill.tokens, device=device)
        # Padding stands at the end, where causal attention keeps it out of every real token's sight.
        causal = torch.ones(longest, longest, dtype=torch.bool, device=device).tril_()
        last = sorted({length - 1 for length in lengths})
        output = self._model(
            input_ids=ids,
            position_ids=torch.arange(longest, device=device)[None].expand(len(prefills), -1),
            attention_mask=_additive(causal[None, None], self._model.dtype).expand(len(prefills), -1, -1, -1),
            past_key_values=_Entering(self.cache, torch.tensor([prefill.slot for prefill in prefills], device=device)),
            use_cache=True,
            logits_to_keep=torch.tensor(last, device=device),
        )
        rows = torch.arange(len(prefills), device=device)
        logits: Tensor = output.logits[
            rows, torch.tensor([last.index(length - 1) for length in lengths], device=device)
        ]
        return logits


def _additive(visible: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.zeros(visible.shape, dtype=dtype, device=visible.device).masked_fill_(~visible, torch.finfo(dtype).min)


class _Entering(Cache):
    """Stores whole prompts into their slots; attention sees the prompts alone."""

    def __init__(self, cache: SlotCache, slots: Tensor) -> None:
        super().__init__(layers=[])
        self._slots_cache = cache
        self._slots = slots

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_: object, **__: object
    ) -> tuple[Tensor, Tensor]:
        """Keep one layer's keys and values (rows, key heads, tokens, head dimension)."""
        tokens = key_states.shape[2]
        self._slots_cache.keys[layer_idx][self._slots, :, :tokens] = key_states
        self._slots_cache.values[layer_idx][self._slots, :, :tokens] = value_states
        return key_states, value_states

    def get_seq_length(self, *_: object, **__: object) -> int:
        """Return how much came before: nothing."""
        return 0


class _Decoding(Cache):
    """Adds one token to each slot; attention sees the slots up to `used`."""

    def __init__(self, cache: SlotCache, rows: Tensor, positions: Tensor, used: int) -> None:
        super().__init__(layers=[])
        self._slots_cache = cache
        self._rows = rows
        self._positions = positions
        self._used = used

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_: object, **__: object
    ) -> tuple[Tensor, Tensor]:
        """Store one layer's new token and return the slots' keys and values so far."""
        keys, values = self._slots_cache.keys[layer_idx], self._slots_cache.values[layer_idx]
        keys[self._rows, :, self._positions] = key_states[:, :, 0]
        values[self._rows, :, self._positions] = value_states[:, :, 0]
        count = len(self._rows)
        return keys[:count, :, : self._used], values[:count, :, : self._used]

    def get_seq_length(self, *_: object, **__: object) -> int:
        """Return the length before this token of the longest slot."""
        return self._used - 1
