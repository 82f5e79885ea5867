"""A `FlatEngine` from a model's weights and a device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from pipeline.domain.errors import ModelUnavailableError
from workers.engine.torch_chat.pointwise import PLAIN, Pointwise, fused
from workers.engine.torch_chat.weights import LlamaWeights
from workers.engine.torch_flat.attention import attention_for
from workers.engine.torch_flat.decoder import FlatDecoder
from workers.engine.torch_flat.engine import FlatEngine, FlatOptions
from workers.engine.torch_flat.extents import GRAIN_TOKENS
from workers.engine.torch_flat.graphs import Capture, CudaCapture
from workers.engine.torch_flat.launcher import SCRATCH_TOKENS, Launcher
from workers.engine.torch_flat.sizes import ModelSizes, cache_tokens, step_bytes


def pointwise_for(device: torch.device, dtype: torch.dtype, options: FlatOptions) -> Pointwise:
    """Return the elementwise operations that weights and decoder are to use."""
    return fused(device, dtype) if options.fuse and device.type == "cuda" else PLAIN


def flat_engine(
    model: str,
    weights: LlamaWeights,
    *,
    context_tokens: int,
    options: FlatOptions,
    pointwise: Pointwise = PLAIN,
    free_bytes: Callable[[], int] | None = None,
    capture: Capture | None = None,
    **rest: Any,  # noqa: ANN401 -- whatever `RowEngine` takes
) -> FlatEngine:
    """Return an engine over `weights`, its cache sized by what the device has free.

    Args:
        model: The name that requests carry.
        weights: On their device; several engines may share them, one after the other.
        context_tokens: The longest row.
        options: The engine's settings.
        pointwise: Elementwise operations.
        free_bytes: What the device has free; None asks CUDA.
        capture: What captures decode steps; None takes CUDA's where the options ask for it.
        rest: What `RowEngine` takes besides.

    Raises:
        ModelUnavailableError: What is free does not hold the cache of a single short row.
    """
    shape = weights.cache_shape
    device = shape.device
    if capture is None and options.graphs and device.type == "cuda":
        capture = CudaCapture()
    decoder = FlatDecoder(
        weights,
        context_tokens=context_tokens,
        attention=attention_for(device, shape.dtype, shape.head_dim),
        pointwise=pointwise,
    )
    # Before what is free is asked for: it takes its own part.
    launcher = Launcher(decoder, seats=options.slots, cache_tokens=0, capture=capture)
    free = (free_bytes or (lambda: _free_bytes(device)))()
    step = step_bytes(_sizes(weights), tokens=options.prefill_tokens, rows=options.slots)
    tokens = cache_tokens(
        free_bytes=free,
        bytes_max=options.cache_bytes_max,
        bytes_per_token=shape.bytes_per_token,
        step=step,
        rows=options.slots,
        context_tokens=context_tokens,
    )
    if tokens < SCRATCH_TOKENS + GRAIN_TOKENS:
        raise ModelUnavailableError(
            f"{model} fits {device}, its cache does not: {free / 2**30:.1f} GiB are free, "
            f"and a step needs {step / 2**30:.1f} GiB of them",
            hint="fewer slots, fewer prefill_tokens, a smaller recipe",
        )
    launcher.resize(tokens)
    rest.setdefault("vocabulary", len(weights.embedding))
    return FlatEngine(model, launcher=launcher, options=options, **rest)


def _sizes(weights: LlamaWeights) -> ModelSizes:
    return ModelSizes(
        hidden=weights.embedding.shape[1],
        intermediate=weights.intermediate,
        attention=(weights.heads + 2 * weights.key_heads) * weights.head_dim,
        vocabulary=len(weights.embedding),
        element_bytes=weights.embedding.dtype.itemsize,
    )


def _free_bytes(device: torch.device) -> int:
    torch.cuda.empty_cache()
    return torch.cuda.mem_get_info(device)[0]
