"""What is computed element by element around the products: plain, and fused by torch.compile where it can be.

On a GPU each plain operation is a kernel that reads and writes its rows once more; fused, a group is one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn import functional

_LOG = logging.getLogger(__name__)

INT8_MAX: Final = 127
#: Largest value of `torch.float8_e4m3fn`.
FLOAT8_MAX: Final = 448.0
#: Scale of a row of zeros: any will do, dividing by 0 would not.
_SCALE_MIN: Final = 1e-12


def int8_rows(values: Tensor) -> tuple[Tensor, Tensor]:
    """Return `values` (rows, columns) as int8 and each row's scale, float32 (rows, 1)."""
    values = values.float()
    scales = (values.abs().amax(dim=-1, keepdim=True) / INT8_MAX).clamp(min=_SCALE_MIN)
    return (values / scales).round().to(torch.int8), scales


def int8_finish(
    product: Tensor, scales: Tensor, weight_scales: Tensor, bias: Tensor | None, dtype: torch.dtype
) -> Tensor:
    """Return what a product of integers (rows, outputs) stands for: scaled in float32, the bias added, as `dtype`."""
    scaled = product.float() * scales * weight_scales
    return (scaled if bias is None else scaled + bias).to(dtype)


def float8_rows(values: Tensor) -> tuple[Tensor, Tensor]:
    """Return `values` (rows, columns) as E4M3 and each row's scale, float32 (rows, 1)."""
    values = values.float()
    scales = (values.abs().amax(dim=-1, keepdim=True) / FLOAT8_MAX).clamp(min=_SCALE_MIN)
    # Rounding may carry the quotient past the largest value, and E4M3 has no infinity: it would be NaN.
    return (values / scales).clamp(-FLOAT8_MAX, FLOAT8_MAX).to(torch.float8_e4m3fn), scales


def gated(gate_up: Tensor) -> Tensor:
    """Return `silu(gate) * up` of (rows, gate and up side by side)."""
    gate, up = gate_up.chunk(2, dim=-1)
    return functional.silu(gate) * up


def rotated(heads: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Return queries and keys (tokens, heads, dimension) turned by their positions' angles (tokens, 1, dimension / 2)."""
    first, second = heads.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


def added_norm(hidden: Tensor, more: Tensor, weight: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """Return `hidden + more` and its root-mean-square norm."""
    hidden = hidden + more
    return hidden, functional.rms_norm(hidden, hidden.shape[-1:], weight, epsilon)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pointwise:
    """The operations, each replaceable by a fused one."""

    int8_rows: Callable[[Tensor], tuple[Tensor, Tensor]] = int8_rows
    int8_finish: Callable[[Tensor, Tensor, Tensor, Tensor | None, torch.dtype], Tensor] = int8_finish
    float8_rows: Callable[[Tensor], tuple[Tensor, Tensor]] = float8_rows
    gated: Callable[[Tensor], Tensor] = gated
    rotated: Callable[[Tensor, Tensor, Tensor], Tensor] = rotated
    added_norm: Callable[[Tensor, Tensor, Tensor, float], tuple[Tensor, Tensor]] = added_norm


PLAIN: Final = Pointwise()


def fused(device: torch.device, dtype: torch.dtype, compiler: Callable[..., Any] = torch.compile) -> Pointwise:
    """Return the operations compiled for `device`, or the plain ones, with a warning, where that fails.

    Each is tried once: a compiler that is missing or broken says so here, not in the middle of a batch.
    """
    made = replace(PLAIN, **{each.name: _by_rows(compiler(getattr(PLAIN, each.name))) for each in fields(Pointwise)})
    row = torch.ones(2, 64, device=device, dtype=dtype)
    scale = torch.ones(2, 1, device=device)
    try:
        with torch.inference_mode():
            made.int8_rows(row)
            made.int8_finish(row.to(torch.int32), scale, torch.ones(1, 64, device=device), None, dtype)
            if device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 9):
                made.float8_rows(row)
            made.gated(row)
            made.rotated(row[:, None], row[:, None, :32], row[:, None, :32])
            made.added_norm(row, row, row[0], 1e-5)
    except Exception as error:  # noqa: BLE001 -- a compiler fails in many ways; the plain operations are right too
        _LOG.warning("cannot_fuse_operations", extra={"device": str(device), "reason": str(error)[:500]})
        return PLAIN
    return made


def _by_rows(compiled: Callable[..., Any]) -> Callable[..., Any]:
    """Say of every input that its rows vary from call to call and its other sides do not.

    Left to itself the compiler takes a second width for a sign that widths vary, and gives up knowing them.
    """

    def call(*inputs: object) -> Any:  # noqa: ANN401 -- what was compiled says it
        for each in inputs:
            if isinstance(each, Tensor) and each.dim() > 1:
                torch._dynamo.maybe_mark_dynamic(each, 0)  # noqa: SLF001 -- torch documents it under this name
                torch._dynamo.mark_static(each, list(range(1, each.dim())))  # noqa: SLF001 -- as above
        return compiled(*inputs)

    return call
