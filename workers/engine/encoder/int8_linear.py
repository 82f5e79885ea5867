"""Linear layers in 8-bit integers on CPUs: weights of 7 bits a channel, activations of 8 bits a row.

Each row of activations has a scale and a smallest value of its own, found when it is computed. So nothing is
calibrated, and a text's vector does not depend on the texts beside it. Seven bits, because without VNNI the
processor adds pairs of products in 16 bits: two of 255 by 63 fit, two of 255 by 127 would be cut off silently.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn

_WEIGHT_LEVELS: Final = 63
_ACTIVATION_LEVELS: Final = 255
_MIDDLE: Final = 128
#: A narrower layer is not worth the steps around the multiplication, and may be a classifier's last.
_FEATURES_MIN: Final = 64
#: Keeps a row or channel of equal values from dividing by zero.
_SMALLEST: Final = 1e-12


class Int8Linear(nn.Module):
    """A linear layer's stand-in; takes and gives float32."""

    def __init__(self, linear: nn.Linear) -> None:
        """Quantize the weights of `linear`, the nearest level each."""
        super().__init__()
        weight = linear.weight.detach().float()
        scales = (weight.abs().amax(dim=1) / _WEIGHT_LEVELS).clamp_min(_SMALLEST)
        levels = (weight / scales[:, None]).round()
        self.in_features = linear.in_features
        self.out_features = linear.out_features
        self._bias = torch.zeros(linear.out_features)
        if getattr(linear, "bias", None) is not None:
            self._bias = linear.bias.detach().float()
        #: What every output gains for each unit that a row's smallest value is above zero.
        self._sums = levels.sum(dim=1) * scales
        self._scales = scales
        self._zeros = torch.zeros(linear.out_features, dtype=torch.int32)
        self._packed = torch.ops.onednn.qlinear_prepack(levels.to(torch.int8), None)

    def forward(self, x: Tensor) -> Tensor:
        """Return `x` times the weights plus the bias."""
        rows = x.reshape(-1, self.in_features)
        low = rows.amin(dim=1, keepdim=True)
        step = ((rows.amax(dim=1, keepdim=True) - low) / _ACTIVATION_LEVELS).clamp_min_(_SMALLEST)
        inverse = step.reciprocal()
        # By way of int8, whose conversion is several times faster; the flipped top bit makes -128 a 0.
        levels = (rows * inverse).sub_(low * inverse + _MIDDLE).round_().to(torch.int8)
        levels = levels.view(torch.uint8).bitwise_xor_(_MIDDLE)
        out: Tensor = torch.ops.onednn.qlinear_pointwise(
            levels, 1.0, 0, self._packed, self._scales, self._zeros, None, 1.0, 0, torch.float32, "none", [], ""
        )
        out = out.mul_(step).addcmul_(low, self._sums).add_(self._bias)
        return out.view(*x.shape[:-1], self.out_features)


def is_int8_available() -> bool:
    """Say whether this build of torch has the kernels."""
    has_library: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]  # torch is half typed
    return has_library and hasattr(torch.ops.onednn, "qlinear_pointwise")


def quantize_linears(module: nn.Module) -> None:
    """Replace every wide linear layer inside `module` by its 8-bit form, in place."""
    for name, child in module.named_children():
        if type(child) is nn.Linear:
            if min(child.in_features, child.out_features) >= _FEATURES_MIN:
                setattr(module, name, Int8Linear(child))
        else:
            quantize_linears(child)
