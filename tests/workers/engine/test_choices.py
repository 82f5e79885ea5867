from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.ports.engine import EngineResult
from tests.workers.engine.driving import answers, completion, prompts, text
from workers.engine.answers import choice_seed

Load = Callable[..., Any]
LONG = "a prompt that is longer than sixteen tokens"


def texts(result: EngineResult) -> list[str]:
    assert result.status_code == 200, result.body
    assert [choice["index"] for choice in result.body["choices"]] == list(range(len(result.body["choices"])))
    return [choice["text"] for choice in result.body["choices"]]


@pytest.fixture(params=["load", "load_openvino"])
def any_load(request: pytest.FixtureRequest) -> Any:  # noqa: ANN401 -- a callable with options
    return request.getfixturevalue(request.param)


def test_choices_differ_and_repeat_in_any_batch(any_load: Load, llama_folder: Path) -> None:
    row = completion(0, LONG, n=5, temperature=1.3, seed=11)
    others = [completion(i, t, temperature=1.0) for i, t in enumerate(prompts(7), 1)]

    alone = answers(any_load(llama_folder), [row])[0]
    among = answers(any_load(llama_folder, slots=3), [*others, row])[0]

    assert texts(alone) == texts(among)
    assert len(set(texts(alone))) == 5


def test_the_first_choice_is_the_answer_to_the_request_for_one(any_load: Load, llama_folder: Path) -> None:
    rows = [completion(i, LONG, n=n, temperature=1.3, seed=-4) for i, n in enumerate((1, 3))]

    results = answers(any_load(llama_folder), rows)

    assert texts(results[0])[0] == texts(results[1])[0]


def test_the_prompt_counts_once_and_every_choice_counts(any_load: Load, llama_folder: Path) -> None:
    result = answers(any_load(llama_folder, ignore_end=True), [completion(0, "abcd", n=3, max_tokens=5)])[0]

    assert (result.input_tokens, result.output_tokens) == (4, 15)
    assert result.body["usage"] == {
        "prompt_tokens": 4,
        "completion_tokens": 15,
        "total_tokens": 19,
        "prompt_tokens_details": {"cached_tokens": 0},
    }


def test_choices_of_one_prompt_are_prefilled_once(load: Load, llama_folder: Path) -> None:
    engine = load(llama_folder, slots=8)

    answers(engine, [completion(0, LONG, n=4)])

    # All but the first compute the prompt's last token alone.
    assert engine.meters().tokens_prefilled == len(LONG) + 3
    assert engine.meters().tokens_cached == 3 * (len(LONG) - 1)


def test_choices_take_room_and_the_request_is_one(any_load: Load, llama_folder: Path) -> None:
    engine = any_load(llama_folder, slots=7)
    before = engine.room()

    engine.add([completion(0, "a", n=6)])

    assert (engine.room(), engine.in_flight()) == (before - 6, 1)
    engine.close()


def test_an_aborted_request_takes_all_its_choices_along(any_load: Load, llama_folder: Path) -> None:
    engine = any_load(llama_folder, slots=3)
    engine.add([completion(0, LONG, n=5, max_tokens=30), completion(1, "ab", max_tokens=6)])
    assert [result.key for result in engine.step()] == []

    engine.abort([0])
    rest = []
    while engine.in_flight():
        rest += engine.step()

    assert [result.key for result in rest] == [1]
    assert text(rest[0]) == text(answers(any_load(llama_folder), [completion(1, "ab", max_tokens=6)])[1])


def test_each_choice_tells_its_own_log_probabilities(load: Load, llama_folder: Path) -> None:
    result = answers(load(llama_folder, ignore_end=True), [completion(0, LONG, n=2, temperature=1.5, logprobs=1)])[0]

    first, second = (choice["logprobs"] for choice in result.body["choices"])
    assert len(first["tokens"]) == len(second["tokens"]) == 12
    assert first["top_logprobs"][0].keys() & second["top_logprobs"][0].keys()
    assert first["tokens"] != second["tokens"]


def test_a_choice_that_fails_fails_its_request_alone(
    load: Load, llama_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = load(llama_folder)
    engine.add([completion(0, LONG, n=3, stop="zz"), completion(1, "ab")])
    finder = next(row for row in engine._waiting if row.index == 1).stop_finder
    monkeypatch.setattr(type(finder), "found", lambda self, _: bool(1 / 0) if self is finder else False)

    results = {}
    while engine.in_flight():
        results |= {result.key: result for result in engine.step()}

    assert (results[0].status_code, results[1].status_code) == (500, 200)


def test_seeds_of_choices_do_not_meet_those_of_other_requests() -> None:
    seeds = {choice_seed(seed, index) for seed in range(50) for index in range(20)}

    assert len(seeds) == 1000
    assert all(-(2**63) <= seed < 2**63 for seed in seeds)
