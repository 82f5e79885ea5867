"""Settings of the engine, with the names they have at vLLM."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class VllmOptions:
    """Settings of the engine; a zero or an empty text leaves the choice to vLLM."""

    #: Rows that run together; vLLM's `max_num_seqs`.
    slots: int = 256
    #: Tokenized rows kept waiting, so that a slot that frees is filled in the next step.
    lookahead: int = 64
    #: Tokens of one step, prompts and answers together; `max_num_batched_tokens`.
    step_tokens: int = 0
    #: Longest prompt and answer together; `max_model_len`. Without it, the model's, or what the cache holds if that is less.
    context_tokens: int = 0
    #: Share of the card's memory for weights, activations and keys and values; `gpu_memory_utilization`. CUDA only.
    memory_share: float = 0.9
    #: Memory for keys and values in GiB; `kv_cache_memory_bytes`. On a CPU 4 without it, on CUDA what `memory_share` leaves.
    cache_gib: float = 0.0
    #: How keys and values are held; `kv_cache_dtype`, such as `fp8`.
    cache_dtype: str = "auto"
    #: Cards that share the model; `tensor_parallel_size`.
    cards: int = 1
    #: How to read a quantized checkpoint that does not say so itself; `quantization`.
    quantization: str = ""
    #: Compile nothing: the model loads in seconds, and each step takes longer; `enforce_eager`.
    eager: bool = False
    #: Compute a prefix that rows have in common once; `enable_prefix_caching`.
    shares_prefixes: bool = True
    #: Keep generating past the end token, up to the bound; for measurements.
    ignore_end: bool = False
