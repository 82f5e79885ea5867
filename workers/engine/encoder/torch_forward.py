"""A transformers encoder on torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from workers.engine.encoder.batch import Batch
from workers.engine.encoder.pooling import Pooling


class TorchForward:
    """An encoder module with pooling, or a classifier; implements `Forward`."""

    def __init__(
        self,
        module: Any,  # noqa: ANN401 -- transformers has no types
        *,
        pooling: Pooling | None,
        width: int,
        streams: int,
        threads: int | None,
        takes_types: bool,
    ) -> None:
        """Run `module`; without `pooling` it is a classifier. Each stream computes with `threads` threads."""
        self.width = width
        self.streams = streams
        self._module = module
        self._pooling = pooling
        self._threads = threads
        self._takes_types = takes_types

    def enter_thread(self) -> None:
        """Set the number of threads that operators called from this one use."""
        if self._threads is not None:
            torch.set_num_threads(self._threads)

    @torch.inference_mode()
    def run(self, batch: Batch) -> NDArray[np.float32]:
        """Return (texts, width) float32 on the CPU."""
        device = self._module.device
        mask = torch.from_numpy(batch.mask).to(device)
        # Without a mask attention takes its shortest path.
        given = {"input_ids": torch.from_numpy(batch.ids).to(device), "attention_mask": None if batch.is_full else mask}
        if self._takes_types:
            given["token_type_ids"] = torch.from_numpy(batch.types).to(device)
        output = self._module(**given)
        if self._pooling is None:
            result = output.logits.float()
        else:
            result = _pooled(output.last_hidden_state.float(), mask[:, :, None].bool(), self._pooling.mode)
            if self._pooling.normalizes:
                result = functional.normalize(result, dim=-1)
        vectors: NDArray[np.float32] = result.cpu().numpy()
        return vectors

    def close(self) -> None:
        """Let go of the module."""
        self._module = None


def _pooled(hidden: Tensor, mask: Tensor, mode: str) -> Tensor:
    """Return one vector a text from `hidden` (texts, tokens, dimensions) where `mask` (texts, tokens, 1) is true."""
    if mode == "cls":
        return hidden[:, 0]
    if mode == "max":
        return hidden.masked_fill(~mask, float("-inf")).amax(dim=1)
    return (hidden * mask).sum(dim=1) / mask.sum(dim=1)
