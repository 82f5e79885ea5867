"""How many rows the memory for keys and values holds: the size that no search goes past."""

from __future__ import annotations

from pathlib import Path

from workers.engine.shape import DecoderShape

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
    bytes_per_token = DecoderShape.in_folder(folder).kv_bytes_per_token(number_bytes=_BYTES_PER_NUMBER)
    bytes_per_row = bytes_per_token * (prompt_tokens + output_tokens / 2)
    return max(1, int(cache_bytes / bytes_per_row))
