"""A recipe over any transformers model: its linear modules replaced, one after the other."""

from __future__ import annotations

from typing import Any, Final

from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from workers.engine.torch_chat.linear import Linear, Projection
from workers.engine.torch_chat.quantized import MakeProjection

#: Routers of mixtures of experts choose; they are small, and an error in them is a wrong choice.
_ROUTERS: Final = frozenset({"gate", "router"})


def replace_linears(model: Any, make: MakeProjection) -> int:  # noqa: ANN401 -- transformers has no types
    """Replace the model's linear modules by projections and return how many took the recipe.

    The output head, routers, and weights that are no module of their own keep the model's precision.
    """
    head = model.get_output_embeddings()
    replaced = 0
    for name, module in list(model.named_modules()):
        parent, _, last = name.rpartition(".")
        if module is head or last in _ROUTERS or not isinstance(module, (nn.Linear, Conv1D)):
            continue
        # GPT-2's own class keeps its weight as (inputs, outputs).
        weight = module.weight.data.t().contiguous() if isinstance(module, Conv1D) else module.weight.data
        projection = make(weight, getattr(module.bias, "data", None))
        if isinstance(projection, Linear):
            continue
        setattr(model.get_submodule(parent), last, _Projected(projection))
        replaced += 1
    return replaced


class _Projected(nn.Module):
    """A projection where transformers expects a module."""

    def __init__(self, projection: Projection) -> None:
        super().__init__()
        self._projection = projection

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the product for inputs of any leading shape."""
        flat: Tensor = self._projection(inputs.reshape(-1, inputs.shape[-1]))
        return flat.view(*inputs.shape[:-1], -1)
