"""What a reference makes of vectors, scores and classes: it computes the row itself, which costs no more than reading it.

    embeddings       x = cosine - 1, so that one point is a mean cosine of 0.99
    score, rerank    x = -|difference of the scores|
    classify         x = -half the sum of |differences of the probabilities|: the share of probability that moved

All from -1 to 0, the mean over the inputs of the row. Scores outside 0 to 1 (models whose output is no probability)
differ by more than means anything here, and count as 1 at most.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pipeline.domain.endpoints import Endpoint
from pipeline.domain.errors import RequestRefusedError
from pipeline.ports.engine import Engine, EngineRequest
from workers.engine.drive import driven
from workers.gate.answer_reader import GREEDY_BOUNDS, Reading

_OK: Final = 200

_Numbers = NDArray[np.float64]


class EngineReference:
    """A reference that answers the row again; implements `Reference`."""

    def __init__(self, engine: Engine) -> None:
        """Ask `engine`, which nobody else drives."""
        self._engine = engine

    def read(self, endpoint: Endpoint, body: Mapping[str, Any], answer: Mapping[str, Any]) -> Reading | None:
        """Return what the reference makes of the response body `answer`; None where it has no answer of its own.

        Raises:
            RequestRefusedError: As `loss` does.
        """
        # Without `top_n`, so that it tells a score for every document that the answer may name.
        asked = {name: value for name, value in body.items() if name != "top_n"} | {"model": self._engine.model}
        (own,) = driven(self._engine, [EngineRequest(0, endpoint, asked)])
        if own.status_code != _OK:
            return None
        x = float(np.clip(loss(endpoint, own.body, answer), *GREEDY_BOUNDS))
        return Reading(x=x, tokens=own.input_tokens, bounds=GREEDY_BOUNDS)

    def close(self) -> None:
        """Free the memory."""
        self._engine.close()


def loss(endpoint: Endpoint, own: Mapping[str, Any], other: Mapping[str, Any]) -> float:
    """Return x for two response bodies to one request, the reference's `own` first; of classes that exclude one another.

    A rerank may name fewer documents than `own` and is compared in those.

    Raises:
        RequestRefusedError: The bodies are not of one shape, or the endpoint has no such measure.
    """
    try:
        match endpoint:
            case Endpoint.EMBEDDINGS:
                first, second = _alike(_embeddings(own), _embeddings(other))
                return float((first * second).sum(axis=-1).mean()) - 1.0
            case Endpoint.SCORE:
                first, second = (np.array([each["score"] for each in body["data"]], float) for body in (own, other))
                return -_apart(first, second)
            case Endpoint.RERANK:
                return _ranks(own, other)
            case Endpoint.CLASSIFY:
                first, second = (np.array([each["probs"] for each in body["data"]], float) for body in (own, other))
                first, second = _alike(first, second)
                return -float(np.abs(first - second).sum(axis=-1).mean()) / 2
            case Endpoint.CHAT_COMPLETIONS | Endpoint.COMPLETIONS | Endpoint.RESPONSES:
                raise RequestRefusedError(f"answers of {endpoint} are read, not computed again")
    except (KeyError, TypeError, ValueError) as error:
        raise RequestRefusedError(f"two answers of {endpoint} cannot be compared") from error


def _ranks(own: Mapping[str, Any], other: Mapping[str, Any]) -> float:
    """Compare the documents that the other names: it may have been asked for the best alone."""
    first, second = ({each["index"]: each["relevance_score"] for each in body["results"]} for body in (own, other))
    return -_apart(np.array([first[index] for index in second], float), np.array(list(second.values()), float))


def _apart(first: _Numbers, second: _Numbers) -> float:
    first, second = _alike(first, second)
    return float(np.minimum(1.0, np.abs(first - second)).mean())


def _alike(first: _Numbers, second: _Numbers) -> tuple[_Numbers, _Numbers]:
    """Return both, or raise `ValueError` where they are not as many, or are none: numpy would compare one with all."""
    if first.shape != second.shape or not first.size:
        raise ValueError(f"shapes {first.shape} and {second.shape}")
    return first, second


def _embeddings(body: Mapping[str, Any]) -> _Numbers:
    """Return the unit vectors of an embeddings body, a row for each input."""
    vectors = np.stack([_vector(each["embedding"]) for each in body["data"]])
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    # What overflowed has no direction either, and is like nothing.
    has_direction = np.isfinite(lengths) & (lengths > 0)
    unit: _Numbers = np.divide(vectors, lengths, out=np.zeros_like(vectors), where=has_direction)
    return unit


def _vector(given: str | list[float]) -> _Numbers:
    if isinstance(given, str):
        # `encoding_format` base64: little-endian float32.
        return np.frombuffer(base64.b64decode(given), dtype="<f4").astype(np.float64)
    return np.asarray(given, dtype=np.float64)
