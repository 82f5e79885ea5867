"""Logits of a model in transformers' form."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from transformers import AutoModelForCausalLM

from pipeline.domain.errors import ModelUnavailableError
from workers.engine.quiet import quiet_transformers

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class TorchLogits:
    """A causal language model by transformers; implements `LogitsReader`."""

    def __init__(self, folder: Path, *, device: str | None, dtype: str) -> None:
        """Load the model in `folder`.

        Raises:
            ModelUnavailableError: The dtype is unknown or the weights cannot be loaded.
        """
        if dtype not in _DTYPES:
            raise ModelUnavailableError(f"unknown dtype {dtype}", hint="one of " + ", ".join(_DTYPES))
        place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        try:
            with quiet_transformers():
                model: Any = AutoModelForCausalLM.from_pretrained(
                    folder, dtype=_DTYPES[dtype], use_safetensors=True, trust_remote_code=False
                )
        except (OSError, ValueError, KeyError) as error:
            raise ModelUnavailableError(f"{folder.name} cannot be loaded for its logits: {error}") from error
        self._model = model.to(place).eval()
        self._keeps_some = "logits_to_keep" in inspect.signature(model.forward).parameters

    @torch.inference_mode()
    def read(self, tokens: Sequence[int], start: int) -> NDArray[Any]:
        """Return the logits that predict `tokens[start:]`."""
        ids = torch.tensor([list(tokens)], device=self._model.device)
        # The prompt's own, which nobody asks for, would take gigabytes where it is long and the vocabulary large.
        wanted = {"logits_to_keep": len(tokens) - start + 1} if self._keeps_some else {}
        logits = self._model(input_ids=ids, use_cache=False, **wanted).logits[0, start - len(tokens) - 1 : -1]
        array: NDArray[Any] = logits.float().cpu().numpy()
        return array

    def close(self) -> None:
        """Drop the model."""
        self._model = None
