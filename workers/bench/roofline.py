"""The roofline of this device, measured, and of a run: what the work needed at the least (Williams et al., 2009)."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from workers.engine.shape import DecoderShape

#: Sides of the square product, and bytes of the copied block: past every cache.
_SIDE_CPU: Final = 1024
_SIDE_CUDA: Final = 8192
_COPY_BYTES_CPU: Final = 256 * 1024**2
_COPY_BYTES_CUDA: Final = 4 * 1024**3
_SECONDS: Final = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Roofline:
    """What the device reaches in plain torch."""

    #: Of a square matrix product in the precision named.
    flops_per_second: float
    precision: str
    #: Read and written bytes of a copy.
    bytes_per_second: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """What a run's tokens need whatever computes them."""

    flops: float
    bytes: float

    def seconds(self, roofline: Roofline) -> float:
        """Return the least time: the longer of computing and reading."""
        return max(self.flops / roofline.flops_per_second, self.bytes / roofline.bytes_per_second)


def measure_roofline(*, device: str, precision: str, threads: int | None) -> Roofline:
    """Return what a product and a copy reach on `device`; the best of half a second each.

    Args:
        device: Such as `cpu` or `cuda:0`.
        precision: `float32` or `bfloat16`.
        threads: CPU threads; None leaves torch's choice.
    """
    import torch

    if threads is not None:
        torch.set_num_threads(threads)
    is_cpu = device == "cpu"
    side = _SIDE_CPU if is_cpu else _SIDE_CUDA
    matrix = torch.randn(side, side, device=device).to(getattr(torch, precision))
    source = torch.ones((_COPY_BYTES_CPU if is_cpu else _COPY_BYTES_CUDA) // 4, device=device)
    target = torch.empty_like(source)
    product = _least_seconds(lambda: matrix @ matrix, device)
    copy = _least_seconds(lambda: target.copy_(source), device)
    return Roofline(
        flops_per_second=2 * side**3 / product,
        precision=precision,
        bytes_per_second=2 * source.numel() * 4 / copy,
    )


def need_of(folder: Path, *, input_tokens: int, output_tokens: int, steps: int | None, bytes_per_weight: float) -> Need:
    """Return what computing these tokens needs: 2 FLOP a weight and token, and each weight read once a step.

    Attention and the cache of keys and values are left out, and without `steps` so is reading: the bound stays one.

    Args:
        folder: The model's folder, for its `config.json`.
        input_tokens: Prompt tokens that were computed.
        output_tokens: Tokens of the answers; the vocabulary's product is needed for these alone.
        steps: Passes of the model; None where the engine does not tell.
        bytes_per_weight: As the variant holds them.
    """
    shape = DecoderShape.in_folder(folder)
    body, head = shape.body_weights, shape.head_weights
    return Need(
        flops=2.0 * body * (input_tokens + output_tokens) + 2.0 * head * output_tokens,
        bytes=(body + head) * bytes_per_weight * (steps or 0),
    )


def _least_seconds(work: Any, device: str) -> float:  # noqa: ANN401 -- a closure over tensors
    import torch

    def wait() -> None:
        if device != "cpu":
            torch.cuda.synchronize(device)

    work()
    wait()
    least, until = float("inf"), time.perf_counter() + _SECONDS
    while time.perf_counter() < until:
        began_at = time.perf_counter()
        work()
        wait()
        least = min(least, time.perf_counter() - began_at)
    return least
