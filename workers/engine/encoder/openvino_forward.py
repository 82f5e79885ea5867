"""An exported encoder on OpenVINO, pooling included in its graph."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import openvino.opset13 as ops
from numpy.typing import NDArray

from workers.engine.encoder.batch import Batch
from workers.engine.encoder.pooling import Pooling

_MASK = "attention_mask"


class OpenVinoForward:
    """A compiled encoder or classifier; implements `Forward`."""

    def __init__(self, file: Path, *, pooling: Pooling | None, streams: int, threads: int | None) -> None:
        """Compile the model in `file`, whose weights stay mapped; without `pooling` it is a classifier.

        Each of the `streams` computes with `threads` threads.
        """
        core = openvino.Core()
        model = core.read_model(file)
        if pooling is not None:
            model = _pooled(model, pooling)
        settings: dict[str, Any] = {"NUM_STREAMS": streams}
        if threads is not None:
            settings["INFERENCE_NUM_THREADS"] = streams * threads
        self._compiled = core.compile_model(model, "CPU", settings)
        self._inputs = [port.get_any_name() for port in self._compiled.inputs]
        self._requests = threading.local()
        self.width = int(self._compiled.output(0).partial_shape[1].get_length())
        self.streams = streams

    def enter_thread(self) -> None:
        """Give the calling thread a request of its own."""
        self._requests.own = self._compiled.create_infer_request()

    def run(self, batch: Batch) -> NDArray[np.float32]:
        """Return (texts, width)."""
        given = {"input_ids": batch.ids, _MASK: batch.mask, "token_type_ids": batch.types}
        request = self._requests.own
        request.infer({name: given[name] for name in self._inputs}, share_inputs=True)
        vectors: NDArray[np.float32] = request.get_output_tensor(0).data.copy()
        return vectors

    def close(self) -> None:
        """Let go of the compiled model."""
        self._compiled = None
        self._requests = threading.local()


def _pooled(model: Any, pooling: Pooling) -> Any:  # noqa: ANN401 -- openvino has no types
    """Return `model` with its token vectors pooled to one, in float32."""
    hidden = model.output(0).get_node().input_value(0)
    (mask_port,) = [port for port in model.inputs if port.get_any_name() == _MASK]
    mask = ops.unsqueeze(ops.convert(mask_port.get_node(), "f32"), ops.constant(np.int64(2)))
    tokens = ops.constant(np.int64(1))
    if pooling.mode == "cls":
        result = ops.gather(hidden, ops.constant(np.int64(0)), tokens)
    elif pooling.mode == "max":
        lowest = ops.constant(np.float32(np.finfo(np.float32).min))
        result = ops.reduce_max(ops.select(ops.greater(mask, ops.constant(np.float32(0))), hidden, lowest), tokens)
    else:
        result = ops.divide(ops.reduce_sum(ops.multiply(hidden, mask), tokens), ops.reduce_sum(mask, tokens))
    if pooling.normalizes:
        result = ops.normalize_l2(result, tokens, 1e-12, "max")
    return openvino.Model([ops.result(result)], model.get_parameters(), "pooled")
