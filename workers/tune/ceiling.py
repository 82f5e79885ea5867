"""How many rows the memory for keys and values holds: the size that no search goes past."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

#: Keys and values are kept in 32 bits at most.
_BYTES_PER_NUMBER = 4


def rows_ceiling(folder: Path, *, cache_bytes: int, prompt_tokens: float, output_tokens: float) -> int:
    """Return how many rows are in flight at most, by the formula of steady-state continuous batching.

    A row holds its prompt and, averaged over its life, half of its answer: N = cache / (kv_bytes · (p + d/2)), with
    kv_bytes = 2 · layers · key heads · head width · bytes per number.

    Args:
        folder: The model's folder, for its `config.json`.
        cache_bytes: Memory set aside for keys and values.
        prompt_tokens: Mean length of prompts.
        output_tokens: Mean length of answers.
    """
    bytes_per_row = kv_bytes_per_token(folder) * (prompt_tokens + output_tokens / 2)
    return max(1, int(cache_bytes / bytes_per_row))


def kv_bytes_per_token(folder: Path) -> int:
    """Return the bytes that keys and values of one token take over all layers."""
    config: dict[str, Any] = json.loads((folder / "config.json").read_text())
    heads = int(config.get("num_attention_heads") or config.get("n_head") or 1)
    key_heads = int(config.get("num_key_value_heads") or heads)
    width = int(config.get("hidden_size") or config.get("n_embd") or 1)
    layers = int(config.get("num_hidden_layers") or config.get("n_layer") or 1)
    head_width = int(config.get("head_dim") or width // heads)
    return 2 * layers * key_heads * head_width * _BYTES_PER_NUMBER
