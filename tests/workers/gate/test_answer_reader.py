"""Answers of real engines, read by the model that wrote them and by another."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from pipeline.domain.endpoints import Endpoint
from pipeline.domain.models import EngineKind, ModelSpec, Recipe
from pipeline.ports.engine import Engine, EngineRequest
from tests.workers.letters import letters_folder
from workers.engine.drive import driven
from workers.engine.registry import load_engine
from workers.gate.answer_reader import GREEDY_BOUNDS, SAMPLED_BOUNDS, AnswerReader
from workers.gate.logits import open_reader

COUNT = 24


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return letters_folder(tmp_path_factory.mktemp("letters") / "whole")


@pytest.fixture(scope="module")
def reader(folder: Path) -> Iterator[AnswerReader]:
    reader = AnswerReader.over(folder, open_reader(folder, device="cpu"))
    yield reader
    reader.close()


@pytest.fixture(scope="module")
def engine(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return engine_of(folder, tmp_path_factory.mktemp("cache"))


def engine_of(folder: Path, cache_dir: Path) -> Engine:
    spec = ModelSpec(name="tiny", source=str(folder), engine=EngineKind.TORCH, recipe=Recipe.FLOAT32)
    return load_engine(spec, cache_dir=cache_dir, device="cpu", threads=1)


def asks(**more: Any) -> list[dict[str, Any]]:  # noqa: ANN401 -- fields of a body
    return [
        {"model": "tiny", "messages": [{"role": "user", "content": f"row {n}"}], "max_tokens": 16, **more}
        for n in range(COUNT)
    ]


def answered(engine: Engine, bodies: list[dict[str, Any]]) -> list[dict[str, Any]]:
    requests = [EngineRequest(key, Endpoint.CHAT_COMPLETIONS, body) for key, body in enumerate(bodies)]
    found = {result.key: dict(result.body) for result in driven(engine, requests)}
    return [found[key] for key in range(len(bodies))]


def xs(reader: AnswerReader, bodies: list[dict[str, Any]], answers: list[dict[str, Any]]) -> list[float]:
    readings = [
        reader.read(Endpoint.CHAT_COMPLETIONS, body, answer) for body, answer in zip(bodies, answers, strict=True)
    ]
    return [reading.x for reading in readings if reading is not None]


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"frequency_penalty": 1.5, "presence_penalty": 0.5},
        {"repetition_penalty": 1.3},
        {"logit_bias": {"3": 6, "7": -100}},
        {"min_tokens": 6},
        {"stop": ["e"]},
        {"n": 2},
    ],
    ids=lambda more: next(iter(more), "plain"),
)
def test_a_models_own_greedy_answers_lose_nothing_whatever_the_request_asks_for(
    reader: AnswerReader, engine: Engine, more: dict[str, Any]
) -> None:
    bodies = asks(temperature=0, **more)
    found = xs(reader, bodies, answered(engine, bodies))

    assert len(found) > COUNT / 2
    assert found == pytest.approx([0.0] * len(found), abs=1e-4)


def test_a_models_own_answers_in_a_form_lose_nothing(reader: AnswerReader, engine: Engine) -> None:
    bodies = asks(temperature=0, structured_outputs={"regex": "[a-f]{3}(yes|no)"})
    found = xs(reader, bodies, answered(engine, bodies))

    assert found == pytest.approx([0.0] * COUNT, abs=1e-4)


@pytest.mark.parametrize("more", [{}, {"top_p": 0.7}, {"top_k": 5}, {"min_p": 0.1}, {"temperature": 0.6}])
def test_a_models_own_drawn_answers_lose_nothing_on_average(
    reader: AnswerReader, engine: Engine, more: dict[str, Any]
) -> None:
    bodies = [{**body, "seed": n} for n, body in enumerate(asks(**more) * 4)]
    found = xs(reader, bodies, answered(engine, bodies))

    spread = fmean(x * x for x in found) ** 0.5
    assert len(found) > 2 * COUNT
    assert abs(fmean(found)) < 4 * spread / len(found) ** 0.5


def test_a_disturbed_models_answers_lose_much(reader: AnswerReader, tmp_path: Path) -> None:
    other = engine_of(letters_folder(tmp_path / "other", noise=0.2), tmp_path)
    bodies = asks(temperature=0)

    assert fmean(xs(reader, bodies, answered(other, bodies))) < -0.05


def test_what_x_can_be_is_known_from_the_request(reader: AnswerReader) -> None:
    answer = {"choices": [{"message": {"content": "abc"}, "finish_reason": "length"}]}
    bounds = [
        reading.bounds
        for body in (asks(temperature=0)[0], asks()[0])
        if (reading := reader.read(Endpoint.CHAT_COMPLETIONS, body, answer))
    ]

    assert bounds == [GREEDY_BOUNDS, SAMPLED_BOUNDS]


def test_an_answer_without_tokens_is_not_read(reader: AnswerReader) -> None:
    answer = {"choices": [{"message": {"content": ""}, "finish_reason": "length"}]}

    assert reader.read(Endpoint.CHAT_COMPLETIONS, asks(temperature=0)[0], answer) is None


def test_a_prompt_that_is_too_long_is_not_read(
    reader: AnswerReader, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = asks(temperature=0)[0]
    (answer,) = answered(engine, [body])
    monkeypatch.setattr("workers.gate.answer_reader.PROMPT_TOKENS_MAX", 5)

    assert reader.read(Endpoint.CHAT_COMPLETIONS, body, answer) is None


def test_only_the_beginning_of_a_long_answer_is_read(reader: AnswerReader, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = {"choices": [{"message": {"content": "abcdef"}, "finish_reason": "stop"}]}
    monkeypatch.setattr("workers.gate.answer_reader.ANSWER_TOKENS_MAX", 3)

    reading = reader.read(Endpoint.CHAT_COMPLETIONS, asks(temperature=0)[0], answer)

    assert reading is not None
    assert reading.tokens == 3
