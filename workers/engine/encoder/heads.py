"""From a request to the texts that the model reads, and from the model's vectors to the answer."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.domain.endpoints import Endpoint
from pipeline.domain.errors import RequestRefusedError
from pipeline.domain.parameters import inputs_of
from pipeline.ports.engine import EngineRequest
from workers.engine.encoder.batch import Text


class Head(Protocol):
    """What a kind of model answers."""

    #: What it serves.
    endpoints: frozenset[Endpoint]

    def texts(self, request: EngineRequest) -> list[Text]:
        """Return what the model has to read, or raise `RequestRefusedError` for what it cannot answer."""

    def body(self, request: EngineRequest, vectors: NDArray[np.float32], used: int) -> Mapping[str, Any]:
        """Return the answer from one vector a text and the count of tokens `used`."""


class EmbeddingHead:
    """Embeddings of a bi-encoder; implements `Head`."""

    endpoints = frozenset({Endpoint.EMBEDDINGS})

    def __init__(self, model: str, *, dimensions: int, matryoshka: bool) -> None:
        """Answer under the name `model`; only `matryoshka` embeddings may be shortened."""
        self._model = model
        self._dimensions = dimensions
        self._matryoshka = matryoshka

    def texts(self, request: EngineRequest) -> list[Text]:
        """Return the inputs to embed."""
        refuse_foreign(request, self.endpoints)
        wanted = request.body.get("dimensions")
        if wanted not in {None, self._dimensions} and (not self._matryoshka or wanted > self._dimensions):
            raise RequestRefusedError(
                f"Parameter 'dimensions' is not supported by this model; its embeddings have {self._dimensions}.",
                code="unsupported_parameter",
                param="body.dimensions",
            )
        return list(inputs_of(request.body))

    def body(self, request: EngineRequest, vectors: NDArray[np.float32], used: int) -> Mapping[str, Any]:
        """Return OpenAI's list of embeddings."""
        wanted = request.body.get("dimensions") or self._dimensions
        if wanted != self._dimensions:
            # A leading part of a unit vector is not of unit length any more.
            vectors = unit(vectors[:, :wanted])
        shown: list[Any]
        if request.body.get("encoding_format") == "base64":
            # OpenAI's base64 is the little-endian float32 array.
            shown = [base64.b64encode(vector.astype("<f4").tobytes()).decode() for vector in vectors]
        else:
            shown = vectors.tolist()
        return {
            "object": "list",
            "data": [{"object": "embedding", "index": i, "embedding": each} for i, each in enumerate(shown)],
            "model": self._model,
            "usage": {"prompt_tokens": used, "total_tokens": used},
        }


def refuse_foreign(request: EngineRequest, served: frozenset[Endpoint]) -> None:
    """Raise for a request to an endpoint that the loaded model does not serve."""
    if request.endpoint not in served:
        raise RequestRefusedError(
            f"This model does not serve {request.endpoint.value}.", code="unsupported_endpoint", param="body.model"
        )


def unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the vectors at length one; a zero vector stays."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    scaled: NDArray[np.float32] = vectors / np.maximum(lengths, 1e-12)
    return scaled
