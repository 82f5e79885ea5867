"""Vectors, scores and classes compared: what a reference makes of a variant's answer by its own."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from pipeline.domain.endpoints import Endpoint
from pipeline.domain.errors import RequestRefusedError
from pipeline.ports.engine import EngineResult
from tests.workers.floor import ScriptedEngine
from workers.gate.answer_reader import GREEDY_BOUNDS
from workers.shadow.vectors import EngineReference, loss

SHARES = some.lists(some.floats(0, 1), min_size=3, max_size=3)
NUMBERS = some.lists(some.floats(-10, 10).map(lambda x: round(x, 3)), min_size=4, max_size=4)


def embeddings(*vectors: list[float] | str) -> dict[str, Any]:
    return {"data": [{"embedding": vector} for vector in vectors]}


def scores(*values: float) -> dict[str, Any]:
    return {"data": [{"score": value} for value in values]}


def ranks(**by_index: float) -> dict[str, Any]:
    return {"results": [{"index": int(name[1:]), "relevance_score": score} for name, score in by_index.items()]}


def classes(*probs: list[float]) -> dict[str, Any]:
    return {"data": [{"probs": each} for each in probs]}


def encoded(vector: list[float]) -> str:
    return base64.b64encode(np.array(vector, dtype="<f4").tobytes()).decode()


# --- embeddings --------------------------------------------------------------------------------


@given(NUMBERS.filter(any), some.floats(0.01, 100))
def test_a_vector_loses_nothing_against_itself_however_long_it_is(vector: list[float], factor: float) -> None:
    longer = [factor * x for x in vector]

    assert loss(Endpoint.EMBEDDINGS, embeddings(vector), embeddings(longer)) == pytest.approx(0.0, abs=1e-9)


def test_a_loss_of_one_point_is_a_mean_cosine_of_a_hundredth_less() -> None:
    turned = [0.98, math.sqrt(1 - 0.98**2)]

    x = loss(Endpoint.EMBEDDINGS, embeddings([1, 0], [3, 4]), embeddings(turned, [3, 4]))

    assert x == pytest.approx(-0.01)


def test_base64_and_numbers_are_one_embedding() -> None:
    vector = [0.25, -1.5, 3.0]

    assert loss(Endpoint.EMBEDDINGS, embeddings(vector), embeddings(encoded(vector))) == pytest.approx(0.0)


@pytest.mark.parametrize("vector", [[0.0, 0.0], [math.nan, 1.0], [math.inf, 1.0]])
def test_a_vector_without_a_direction_is_like_nothing(vector: list[float]) -> None:
    assert loss(Endpoint.EMBEDDINGS, embeddings([1, 1]), embeddings(vector)) == -1.0


# --- scores ------------------------------------------------------------------------------------


def test_scores_lose_their_mean_difference_in_either_direction() -> None:
    assert loss(Endpoint.SCORE, scores(0.5, 0.25), scores(0.5, 0.5)) == pytest.approx(-0.125)
    assert loss(Endpoint.SCORE, scores(0.5, 0.5), scores(0.5, 0.25)) == pytest.approx(-0.125)


def test_a_score_that_is_no_probability_loses_one_at_most() -> None:
    assert loss(Endpoint.SCORE, scores(-7.0, 0.5), scores(9.0, 0.5)) == -0.5


def test_ranks_are_compared_document_by_document_in_whatever_order() -> None:
    own = ranks(d0=0.9, d1=0.5, d2=0.1)

    assert loss(Endpoint.RERANK, own, ranks(d2=0.1, d0=0.9, d1=0.5)) == 0.0
    assert loss(Endpoint.RERANK, own, ranks(d1=0.8, d0=0.9, d2=0.1)) == pytest.approx(-0.1)


def test_of_the_best_alone_those_are_compared() -> None:
    assert loss(Endpoint.RERANK, ranks(d0=0.9, d1=0.5, d2=0.1), ranks(d2=0.7)) == pytest.approx(-0.6)


# --- classes -----------------------------------------------------------------------------------


def test_classes_lose_the_share_of_probability_that_moved() -> None:
    own, other = classes([0.7, 0.2, 0.1], [1.0, 0.0, 0.0]), classes([0.5, 0.4, 0.1], [1.0, 0.0, 0.0])

    assert loss(Endpoint.CLASSIFY, own, other) == pytest.approx(-0.1)


@given(SHARES.filter(sum), SHARES.filter(sum))
def test_however_two_distributions_differ_the_loss_is_within_its_bounds(
    first: list[float], second: list[float]
) -> None:
    one, two = ([share / sum(each) for share in each] for each in (first, second))

    assert -1.0 - 1e-9 <= loss(Endpoint.CLASSIFY, classes(one), classes(two)) <= 0.0


# --- what cannot be compared -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("endpoint", "own", "other"),
    [
        pytest.param(Endpoint.EMBEDDINGS, embeddings([1, 0]), embeddings([1, 0], [1, 0]), id="more vectors"),
        pytest.param(Endpoint.EMBEDDINGS, embeddings([1, 0]), embeddings([1, 0, 0]), id="wider vectors"),
        pytest.param(Endpoint.EMBEDDINGS, embeddings([1, 0]), embeddings([1]), id="a number for a vector"),
        pytest.param(Endpoint.EMBEDDINGS, embeddings([1, 0]), embeddings([1, 0], [1]), id="ragged vectors"),
        pytest.param(Endpoint.EMBEDDINGS, embeddings(), embeddings(), id="no vectors"),
        pytest.param(Endpoint.EMBEDDINGS, embeddings([1, 0]), embeddings("no base64!"), id="no base64"),
        pytest.param(Endpoint.EMBEDDINGS, embeddings([1, 0]), embeddings("AAAA"), id="three bytes"),
        pytest.param(Endpoint.EMBEDDINGS, embeddings([1, 0]), {"data": [{"embedding": None}]}, id="null"),
        pytest.param(Endpoint.EMBEDDINGS, embeddings([1, 0]), {"error": {"message": "no"}}, id="an error's body"),
        pytest.param(Endpoint.EMBEDDINGS, embeddings([1, 0]), {"data": None}, id="no list"),
        pytest.param(Endpoint.SCORE, scores(0.5), scores(0.5, 0.5), id="more scores"),
        pytest.param(Endpoint.SCORE, scores(), scores(), id="no scores"),
        pytest.param(Endpoint.SCORE, scores(0.5), {"data": [{"score": "high"}]}, id="a score in words"),
        pytest.param(Endpoint.RERANK, ranks(d0=0.5), ranks(d1=0.5), id="a document that nobody gave"),
        pytest.param(Endpoint.RERANK, ranks(d0=0.5), ranks(), id="no documents"),
        pytest.param(Endpoint.CLASSIFY, classes([0.5, 0.5]), classes([1.0]), id="fewer classes"),
        pytest.param(Endpoint.CLASSIFY, classes([0.5, 0.5]), classes([0.5, 0.5], [1, 0]), id="more inputs"),
        pytest.param(Endpoint.CHAT_COMPLETIONS, {}, {}, id="text"),
    ],
)
def test_answers_of_two_shapes_are_refused_and_not_compared(
    endpoint: Endpoint, own: Mapping[str, Any], other: Mapping[str, Any]
) -> None:
    with pytest.raises(RequestRefusedError, match=endpoint):
        loss(endpoint, own, other)


# --- an engine as a reference ------------------------------------------------------------------


class Answering(ScriptedEngine):
    """Gives one answer to everything, and remembers what it was asked."""

    def __init__(self, body: dict[str, Any], status_code: int = 200) -> None:
        super().__init__("encoder")
        self.body = body
        self.status_code = status_code
        self.asked: list[Mapping[str, Any]] = []
        self.is_closed = False

    def step(self) -> list[EngineResult]:
        rows, self.rows = self.rows, []
        self.asked += [row.body for row in rows]
        return [EngineResult(row.key, self.status_code, self.body, 7, 0) for row in rows]

    def add(self, requests: Any) -> None:  # noqa: ANN401 -- as the port has it
        self.rows += requests

    def close(self) -> None:
        self.is_closed = True


def test_a_reference_answers_the_row_again_under_its_own_name() -> None:
    engine = Answering(embeddings([1, 0]))

    reading = EngineReference(engine).read(
        Endpoint.EMBEDDINGS, {"model": "encoder@small", "input": "a"}, embeddings([0, 1])
    )

    assert engine.asked == [{"model": "encoder", "input": "a"}]
    assert reading is not None
    assert (reading.x, reading.tokens, reading.bounds) == (-1.0, 7, GREEDY_BOUNDS)


def test_a_reference_scores_all_documents_where_the_row_asks_for_the_best_alone() -> None:
    engine = Answering(ranks(d0=0.9, d1=0.2))
    body = {"model": "encoder@small", "query": "q", "documents": ["a", "b"], "top_n": 1}

    reading = EngineReference(engine).read(Endpoint.RERANK, body, ranks(d1=0.8))

    assert "top_n" not in engine.asked[0]
    assert reading is not None
    assert reading.x == pytest.approx(-0.6)


def test_opposite_vectors_lose_no_more_than_the_bound() -> None:
    reading = EngineReference(Answering(embeddings([1, 0]))).read(Endpoint.EMBEDDINGS, {}, embeddings([-1, 0]))

    assert reading is not None
    assert reading.x == GREEDY_BOUNDS[0]


def test_a_reference_that_cannot_answer_the_row_says_nothing_of_it() -> None:
    engine = Answering({"error": {"message": "too long"}}, status_code=400)

    assert EngineReference(engine).read(Endpoint.EMBEDDINGS, {}, embeddings([1, 0])) is None


def test_closing_a_reference_closes_its_engine() -> None:
    engine = Answering({})

    EngineReference(engine).close()

    assert engine.is_closed
