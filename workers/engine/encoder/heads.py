"""From a request to the texts that the model reads, and from the model's vectors to the answer."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.domain.endpoints import Endpoint
from pipeline.domain.errors import ModelUnavailableError, RequestRefusedError
from pipeline.domain.parameters import inputs_of, sides_of
from pipeline.ports.engine import EngineRequest
from workers.engine.answers import utc_now
from workers.engine.encoder.batch import Text
from workers.engine.encoder.scores import classes_body, pair_body

#: The field that holds what may be too long.
TEXT_FIELDS: Final[Mapping[Endpoint, str]] = {Endpoint.SCORE: "text_2", Endpoint.RERANK: "documents"}

#: From a model's scores (texts, labels) to what is shown of them.
Activation = Callable[[NDArray[np.float32]], NDArray[np.float32]]


class Head(Protocol):
    """What a kind of model answers."""

    #: What it serves.
    endpoints: frozenset[Endpoint]

    def texts(self, request: EngineRequest) -> list[Text]:
        """Return what the model has to read, or raise `RequestRefusedError` for what it cannot answer."""

    def body(self, request: EngineRequest, vectors: NDArray[np.float32], used: int) -> Mapping[str, Any]:
        """Return the answer from one vector a text and the count of tokens `used`."""


class BiEncoderHead:
    """Embeddings of texts, and the likeness of two by the cosine of theirs; implements `Head`."""

    endpoints = frozenset({Endpoint.EMBEDDINGS, Endpoint.SCORE, Endpoint.RERANK})

    def __init__(self, model: str, *, dimensions: int, matryoshka: bool, now: Callable[[], datetime] = utc_now) -> None:
        """Answer under the name `model`; only `matryoshka` embeddings may be shortened."""
        self._model = model
        self._dimensions = dimensions
        self._matryoshka = matryoshka
        self._now = now

    def texts(self, request: EngineRequest) -> list[Text]:
        """Return the inputs to embed: of pairs, the first sides and then the second."""
        refuse_foreign(request, self.endpoints)
        if request.endpoint is not Endpoint.EMBEDDINGS:
            first, second = sides_of(request.endpoint, request.body)
            return [*first, *second]
        self.check_dimensions(request)
        return list(inputs_of(request.body))

    def check_dimensions(self, request: EngineRequest) -> None:
        """Raise `RequestRefusedError` for a number of dimensions that the model's embeddings do not have."""
        wanted = request.body.get("dimensions")
        if wanted not in {None, self._dimensions} and (not self._matryoshka or wanted > self._dimensions):
            raise RequestRefusedError(
                f"Parameter 'dimensions' is not supported by this model; its embeddings have {self._dimensions}.",
                code="unsupported_parameter",
                param="body.dimensions",
            )

    def body(self, request: EngineRequest, vectors: NDArray[np.float32], used: int) -> Mapping[str, Any]:
        """Return OpenAI's list of embeddings, or the cosine of each pair."""
        if request.endpoint is Endpoint.EMBEDDINGS:
            return self._embeddings(request, vectors, used)
        count = len(sides_of(request.endpoint, request.body)[0])
        vectors = unit(vectors)
        cosines = (vectors[:count] * vectors[count:]).sum(axis=1)
        return pair_body(request, cosines.tolist(), model=self._model, used=used, now=self._now)

    def _embeddings(self, request: EngineRequest, vectors: NDArray[np.float32], used: int) -> Mapping[str, Any]:
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


class ClassifierHead:
    """Labels of texts, or of pairs where there is one label: a cross-encoder; implements `Head`."""

    def __init__(
        self, model: str, *, labels: Sequence[str], activation: Activation, now: Callable[[], datetime] = utc_now
    ) -> None:
        """Answer under the name `model`; `activation` turns the model's scores into probabilities."""
        pairs = {Endpoint.SCORE, Endpoint.RERANK} if len(labels) == 1 else set()
        self.endpoints = frozenset({Endpoint.CLASSIFY} | pairs)
        self._model = model
        self._labels = labels
        self._activation = activation
        self._now = now

    def texts(self, request: EngineRequest) -> list[Text]:
        """Return the inputs to classify, or the pairs to score."""
        refuse_foreign(request, self.endpoints)
        if request.endpoint is Endpoint.CLASSIFY:
            return list(inputs_of(request.body))
        first, second = sides_of(request.endpoint, request.body)
        if len(first) == 1:
            first *= len(second)
        return list(zip(first, second, strict=True))

    def body(self, request: EngineRequest, vectors: NDArray[np.float32], used: int) -> Mapping[str, Any]:
        """Return labels with probabilities, or one score a pair."""
        if request.body.get("use_activation") is not False:
            vectors = self._activation(vectors)
        if request.endpoint is Endpoint.CLASSIFY:
            return classes_body(
                request, vectors.tolist(), labels=self._labels, model=self._model, used=used, now=self._now
            )
        return pair_body(request, vectors[:, 0].tolist(), model=self._model, used=used, now=self._now)


def activation_of(config: Mapping[str, Any], *, labels: int) -> Activation:
    """Return what turns a classifier's scores into what it shows, as its config says; the rules are vLLM's.

    transformers' problem type comes first, then sentence-transformers' activation, then the number of labels.
    """
    kinds: dict[str | None, Activation] = {
        "regression": identity,
        "single_label_classification": softmax if labels > 1 else logistic,
        "multi_label_classification": logistic,
    }
    if config.get("problem_type") in kinds:
        return kinds[config["problem_type"]]
    asked = (config.get("sentence_transformers") or {}).get("activation_fn")
    asked = str(asked or config.get("sbert_ce_default_activation_function") or "").rpartition(".")[2]
    named: dict[str, Activation] = {"Identity": identity, "Sigmoid": logistic, "Softmax": softmax}
    if asked and asked not in named:
        raise ModelUnavailableError(f"activation {asked} is not supported", hint=", ".join(named))
    return named[asked] if asked else softmax if labels > 1 else logistic


def softmax(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return probabilities that sum to one for each row of scores."""
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    shares: NDArray[np.float32] = powers / powers.sum(axis=-1, keepdims=True)
    return shares


def logistic(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return a probability of its own for each score."""
    # tanh does not overflow where exp does.
    halves: NDArray[np.float32] = np.float32(0.5) * (1 + np.tanh(scores / 2))
    return halves


def identity(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the scores as they are."""
    return scores


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
