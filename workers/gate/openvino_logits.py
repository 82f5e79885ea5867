"""Logits of a model in OpenVINO's form, as optimum-intel exports it: stateful, with keys and values inside."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import openvino
from numpy.typing import NDArray

from pipeline.domain.errors import ModelUnavailableError

_INPUTS: Final = ("input_ids", "attention_mask", "position_ids", "beam_idx")
#: Tokens of a prompt read at once.
_PIECE_TOKENS: Final = 256


class OpenVinoLogits:
    """A compiled causal language model on the CPU; implements `LogitsReader`."""

    def __init__(self, file: Path) -> None:
        """Compile the model whose graph is `file`; its weights lie beside it.

        Raises:
            ModelUnavailableError: It cannot be compiled, or is no language model of that form.
        """
        try:
            model = openvino.Core().compile_model(str(file), "CPU")
        except RuntimeError as error:
            first = str(error).strip().splitlines()[0]
            raise ModelUnavailableError(f"{file.parent.name} cannot be compiled by OpenVINO: {first}") from error
        self._inputs = {name for port in model.inputs for name in port.get_names()}
        if "input_ids" not in self._inputs or self._inputs - set(_INPUTS):
            raise ModelUnavailableError(
                f"{file.parent.name} takes {', '.join(sorted(self._inputs))}",
                hint="a text model exported by optimum-intel",
            )
        self._request: Any = model.create_infer_request()

    def read(self, tokens: Sequence[int], start: int) -> NDArray[Any]:
        """Return the logits that predict `tokens[start:]`."""
        # The sequence before this one is still in its memory.
        self._request.reset_state()
        # It tells the logits of every token it is given, and the prompt's would take gigabytes.
        for begin in range(0, start - 1, _PIECE_TOKENS):
            self._infer(tokens, begin, min(begin + _PIECE_TOKENS, start - 1))
        self._infer(tokens, start - 1, len(tokens))
        logits: NDArray[Any] = self._request.get_tensor("logits").data[0, :-1].copy()
        return logits

    def _infer(self, tokens: Sequence[int], begin: int, end: int) -> None:
        given = {
            "input_ids": np.array([tokens[begin:end]], dtype=np.int64),
            "attention_mask": np.ones((1, end), dtype=np.int64),
            "position_ids": np.arange(begin, end, dtype=np.int64)[None],
            "beam_idx": np.zeros(1, dtype=np.int32),
        }
        self._request.infer({name: given[name] for name in self._inputs})

    def close(self) -> None:
        """Drop the model."""
        self._request = None
