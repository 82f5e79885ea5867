import time
import timeit

import pytest

from pipeline.domain.endpoints import Endpoint
from pipeline.ports.engine import EngineRequest
from workers.engine.echo import EchoEngine

MESSAGES = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hello there"}]


@pytest.mark.parametrize(
    ("endpoint", "body"),
    [
        (Endpoint.CHAT_COMPLETIONS, {"model": "echo", "messages": MESSAGES}),
        (Endpoint.COMPLETIONS, {"model": "echo", "prompt": "hello there"}),
        (Endpoint.EMBEDDINGS, {"model": "echo", "input": ["a", "b"]}),
        (Endpoint.SCORE, {"model": "echo", "text_1": "a", "text_2": ["b", "c"]}),
        (Endpoint.RERANK, {"model": "echo", "query": "a", "documents": ["b", "c"]}),
        (Endpoint.CLASSIFY, {"model": "echo", "input": ["a", "b"]}),
    ],
)
def test_every_body_says_that_no_model_was_run(endpoint: Endpoint, body: dict[str, object]) -> None:
    engine = EchoEngine()
    engine.add([EngineRequest(1, endpoint, body)])

    (result,) = engine.step()

    assert result.body["nightrate"] == {"engine": "echo", "note": "echo engine: no model was run"}
    assert result.body["system_fingerprint"] == "echo"
    assert engine.in_flight() == 0


def test_the_answer_is_the_last_user_message_within_the_bound() -> None:
    engine = EchoEngine()
    body = {"model": "echo", "messages": MESSAGES}
    rows = [
        EngineRequest(i, Endpoint.CHAT_COMPLETIONS, {**body, **more}) for i, more in enumerate([{}, {"max_tokens": 2}])
    ]
    engine.add(rows)

    whole, cut = (result.body["choices"][0] for result in engine.step())

    assert (whole["message"]["content"], whole["finish_reason"]) == ("hello there", "stop")
    assert (cut["message"]["content"], cut["finish_reason"]) == ("hello th", "length")


def test_documents_are_ranked_by_a_score_that_depends_on_their_text_alone() -> None:
    engine = EchoEngine()
    documents = ["a", "b", "c", "d"]
    for key, more in enumerate([{}, {"top_n": 2, "return_documents": False}]):
        engine.add(
            [EngineRequest(key, Endpoint.RERANK, {"model": "echo", "query": "q", "documents": documents, **more})]
        )

    whole, best = (result.body["results"] for result in engine.step())

    scores = [item["relevance_score"] for item in whole]
    assert scores == sorted(scores, reverse=True)
    assert [item["document"]["text"] for item in whole] == [documents[item["index"]] for item in whole]
    assert best == [{"index": item["index"], "relevance_score": item["relevance_score"]} for item in whole[:2]]


def test_as_many_choices_come_back_as_were_asked_for() -> None:
    engine = EchoEngine()
    engine.add([EngineRequest(0, Endpoint.COMPLETIONS, {"model": "echo", "prompt": "abcdefgh", "n": 3})])

    (result,) = engine.step()

    assert [choice["index"] for choice in result.body["choices"]] == [0, 1, 2]
    assert (result.input_tokens, result.output_tokens) == (2, 6)
    assert result.body["usage"]["total_tokens"] == 8


def test_a_row_costs_microseconds() -> None:
    engine = EchoEngine()
    rows = [EngineRequest(i, Endpoint.CHAT_COMPLETIONS, {"model": "echo", "messages": MESSAGES}) for i in range(1000)]

    def work() -> None:
        engine.add(rows)
        engine.step()

    # Processor time, so that a busy neighbour does not count; under 4 us alone, and slack for its cold caches.
    assert min(timeit.repeat(work, number=1, repeat=40, timer=time.process_time)) / 1000 < 12e-6


def test_its_counters_tell_steps_and_no_tokens() -> None:
    engine = EchoEngine()
    body = {"messages": [{"role": "user", "content": "a"}]}
    engine.add([EngineRequest(key, Endpoint.CHAT_COMPLETIONS, body) for key in range(3)])
    engine.step()
    engine.step()

    meters = engine.meters()

    assert (meters.engine_steps, meters.slot_steps_busy) == (1, 3)
    assert meters.tokens_prefilled is meters.tokens_generated is None
