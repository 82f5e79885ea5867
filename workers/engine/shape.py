"""The shape of a decoder, as its `config.json` tells it: Llama's names for things, or GPT-2's."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderShape:
    """How many of what; what a config does not tell is 1."""

    layers: int
    heads: int
    key_heads: int
    head_width: int
    width: int
    inner: int
    #: Whether the activation between the two inner products has a gate, which is a third one.
    is_gated: bool
    #: 0 where the config does not tell.
    vocabulary: int

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> DecoderShape:
        """Return the shape in a config."""
        heads = int(config.get("num_attention_heads") or config.get("n_head") or 1)
        width = int(config.get("hidden_size") or config.get("n_embd") or 1)
        return cls(
            layers=int(config.get("num_hidden_layers") or config.get("n_layer") or 1),
            heads=heads,
            key_heads=int(config.get("num_key_value_heads") or heads),
            head_width=int(config.get("head_dim") or width // heads),
            width=width,
            inner=int(config.get("intermediate_size") or config.get("n_inner") or 4 * width),
            is_gated="intermediate_size" in config,
            vocabulary=int(config.get("vocab_size") or 0),
        )

    @classmethod
    def in_folder(cls, folder: Path) -> DecoderShape:
        """Return the shape of the model in a folder."""
        return cls.of(json.loads((folder / "config.json").read_text()))

    def kv_bytes_per_token(self, *, number_bytes: int) -> int:
        """Return the bytes that keys and values of one token take over all layers."""
        return 2 * number_bytes * self.layers * self.key_heads * self.head_width

    @property
    def body_weights(self) -> int:
        """Return the weights of the layers' products."""
        attention = self.width * self.head_width * (2 * self.heads + 2 * self.key_heads)
        return self.layers * (attention + (3 if self.is_gated else 2) * self.width * self.inner)

    @property
    def head_weights(self) -> int:
        """Return the weights of the product over the vocabulary."""
        return self.width * self.vocabulary
