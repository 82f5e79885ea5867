"""Projections in 8 bits: weights scaled row by row when loaded, activations token by token in each product.

Symmetric scales on both sides, so that one product of small numbers and two multiplications give the
result (W8A8; Dettmers et al., "LLM.int8()", 2022, section 2.1, without its decomposition). Integers lose
little where tokens have no outliers; E4M3 holds outliers and loses the same share of every value.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from pipeline.domain.errors import ModelUnavailableError
from pipeline.domain.models import Recipe
from workers.engine.torch_chat.linear import Linear, Projection
from workers.engine.torch_chat.pointwise import PLAIN, Pointwise, float8_rows, int8_rows

#: `torch._int_mm` on CUDA wants at least this many rows, and sides that are multiples of 8.
_INT8_ROWS_MIN: Final = 17
_INT8_SIDE: Final = 8
#: `torch._scaled_mm` wants sides that are multiples of 16.
_FLOAT8_SIDE: Final = 16
#: The first compute capability with E4M3 products, Ada's.
_FLOAT8_CAPABILITY: Final = (8, 9)

MakeProjection = Callable[[Tensor, Tensor | None], Projection]


def maker_of(recipe: Recipe, device: torch.device, pointwise: Pointwise = PLAIN) -> MakeProjection:
    """Return what makes a layer's projection from its weight and bias under `recipe` on `device`.

    A weight whose sides the product does not take stays in the model's own precision.

    Raises:
        ModelUnavailableError: The device cannot compute under the recipe.
    """
    check_recipe(recipe, device)

    def make(weight: Tensor, bias: Tensor | None) -> Projection:
        if recipe is Recipe.INT8 and _divides(weight, _INT8_SIDE):
            return Int8Linear(weight, bias, pointwise)
        if recipe is Recipe.FLOAT8 and _divides(weight, _FLOAT8_SIDE):
            return Float8Linear(weight, bias, pointwise)
        return Linear(weight, bias)

    return make


def check_recipe(recipe: Recipe, device: torch.device) -> None:
    """Raise `ModelUnavailableError` if `device` cannot compute under the recipe."""
    if recipe is not Recipe.FLOAT8:
        return
    wanted = "float8 needs a CUDA device of compute capability 8.9 or newer (Ada, Hopper)"
    if device.type != "cuda":
        raise ModelUnavailableError(f"{wanted}; this is {device.type}", hint="int8 runs here")
    found = torch.cuda.get_device_capability(device)
    if found < _FLOAT8_CAPABILITY:
        raise ModelUnavailableError(f"{wanted}; {device} has {found[0]}.{found[1]}", hint="int8 runs here")


def _divides(weight: Tensor, side: int) -> bool:
    return weight.shape[0] % side == 0 and weight.shape[1] % side == 0


def has_int8_instructions() -> bool:
    """Return whether this processor multiplies 8-bit integers in hardware; without, torch's product crawls."""
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name) for name in ("amx_int8", "avx512_vnni", "avx_vnni"))


class Int8Linear:
    """W8A8 in integers: `int32(x8 @ w8.T) * scale(token) * scale(output) + bias`.

    CUDA multiplies in int8. A CPU does where it has the instructions (not measured); elsewhere torch's int8
    product takes 40 times as long as float32 (64 rows on AVX2), so there the same integers are multiplied as
    float32, exactly up to sums of 2^24: the answers of the recipe without its saving.
    """

    __slots__ = ("_as_float", "_bias", "_pointwise", "_scales", "_weight")

    def __init__(self, weight: Tensor, bias: Tensor | None = None, pointwise: Pointwise = PLAIN) -> None:
        """Quantize `weight` (outputs, inputs), which the caller then drops."""
        quantized, scales = int8_rows(weight)
        self._bias = None if bias is None else bias.float()
        self._scales = scales.t().contiguous()
        self._pointwise = pointwise
        is_float = weight.device.type == "cpu" and not has_int8_instructions()
        self._as_float = Linear(quantized.float()) if is_float else None
        self._weight = quantized[:0] if is_float else quantized

    def __call__(self, inputs: Tensor) -> Tensor:
        """Return the product for `inputs` (rows, inputs): (rows, outputs), in the type of `inputs`."""
        quantized, scales = self._pointwise.int8_rows(inputs)
        product = self._int_product(quantized) if self._as_float is None else self._as_float(quantized.float())
        return self._pointwise.int8_finish(product, scales, self._scales, self._bias, inputs.dtype)

    def _int_product(self, quantized: Tensor) -> Tensor:
        rows = len(quantized)
        if rows < _INT8_ROWS_MIN:
            quantized = functional.pad(quantized, (0, 0, 0, _INT8_ROWS_MIN - rows))
        return torch._int_mm(quantized, self._weight.t())[:rows]  # noqa: SLF001 -- the only door


class Float8Linear:
    """W8A8 in E4M3 by `torch._scaled_mm`, one scale per token and one per output, summed up in float32."""

    __slots__ = ("_bias", "_multiply", "_pointwise", "_scales", "_weight")

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None = None,
        pointwise: Pointwise = PLAIN,
        multiply: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor] | None = None,
    ) -> None:
        """Quantize `weight` (outputs, inputs), which the caller then drops; `multiply` is for devices without E4M3."""
        self._weight, scales = float8_rows(weight)
        self._scales = scales.t().contiguous()
        self._bias = bias
        self._pointwise = pointwise
        self._multiply = multiply or _scaled_product

    def __call__(self, inputs: Tensor) -> Tensor:
        """Return the product for `inputs` (rows, inputs): (rows, outputs), in the type of `inputs`."""
        quantized, scales = self._pointwise.float8_rows(inputs)
        product = self._multiply(quantized, self._weight.t(), scales, self._scales).to(inputs.dtype)
        return product if self._bias is None else product + self._bias


def _scaled_product(left: Tensor, right: Tensor, left_scales: Tensor, right_scales: Tensor) -> Tensor:
    # The row-wise kernel answers in bf16 only.
    return torch._scaled_mm(left, right, left_scales, right_scales, out_dtype=torch.bfloat16, use_fast_accum=True)  # noqa: SLF001 -- the only door
