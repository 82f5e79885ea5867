import time
import timeit
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain.endpoints import Endpoint
from pipeline.domain.errors import RequestRefusedError
from pipeline.domain.models import BUILT_IN, ENDPOINTS, EngineKind
from pipeline.domain.parameters import Sampling, check_body, inputs_of, prompt_of, sampling_of, sides_of, text_of

CHAT, TEXT, EMBED = Endpoint.CHAT_COMPLETIONS, Endpoint.COMPLETIONS, Endpoint.EMBEDDINGS
USER = {"role": "user", "content": "hi"}


def chat(**more: object) -> dict[str, Any]:
    return {"model": "m", "messages": [USER], **more}


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"max_tokens": 1, "temperature": 2, "top_p": 0.1, "stop": "x", "seed": -(2**63)},
        {"max_completion_tokens": 5, "stop": ["a", "b", "c", "d"], "n": 1, "stream": False},
        {"presence_penalty": -2, "frequency_penalty": 2.0, "logprobs": False, "store": False},
        {"n": 128},
        {"min_tokens": 3, "max_completion_tokens": 3, "top_k": -1, "min_p": 1, "repetition_penalty": 1.2},
        {"logit_bias": {"50256": -100, "0": 0.5}, "stop_token_ids": [0, 7], "ignore_eos": True},
        {"logit_bias": {}, "stop_token_ids": [], "top_k": None, "min_tokens": None, "repetition_penalty": None},
        {"logprobs": True, "top_logprobs": 20},
        {"logprobs": True, "top_logprobs": None},
        {"user": "u", "metadata": {"a": "b"}, "service_tier": "flex"},
        {"temperature": None, "max_tokens": None, "stop": None, "n": None, "tools": None, "stream": None},
        {"messages": [{"role": "developer", "content": [{"type": "text", "text": "x"}]}, {**USER, "name": "bo"}]},
    ],
)
def test_chat_bodies_that_are_honoured_pass(more: dict[str, Any]) -> None:
    check_body(CHAT, chat(**more))


@pytest.mark.parametrize(
    ("more", "code", "param"),
    [
        ({"min_tokenz": 3}, "unsupported_parameter", "body.min_tokenz"),
        ({"top_k": -2}, "invalid_value", "body.top_k"),
        ({"top_k": 1.5}, "invalid_type", "body.top_k"),
        ({"min_p": 1.01}, "invalid_value", "body.min_p"),
        ({"repetition_penalty": 0}, "invalid_value", "body.repetition_penalty"),
        ({"ignore_eos": 1}, "invalid_type", "body.ignore_eos"),
        ({"min_tokens": -1}, "invalid_value", "body.min_tokens"),
        ({"min_tokens": 5, "max_tokens": 4}, "invalid_value", "body.min_tokens"),
        ({"min_tokens": 1025}, "invalid_value", "body.min_tokens"),
        ({"stop_token_ids": 5}, "invalid_type", "body.stop_token_ids"),
        ({"stop_token_ids": [1, True]}, "invalid_type", "body.stop_token_ids[1]"),
        ({"stop_token_ids": [-1]}, "invalid_value", "body.stop_token_ids[0]"),
        ({"stop_token_ids": [1] * 129}, "invalid_value", "body.stop_token_ids"),
        ({"logit_bias": []}, "invalid_type", "body.logit_bias"),
        ({"logit_bias": {"a": 1}}, "invalid_value", "body.logit_bias"),
        ({"logit_bias": {"-1": 1}}, "invalid_value", "body.logit_bias"),
        ({"logit_bias": {"7": 1, "07": 2}}, "invalid_value", "body.logit_bias"),
        ({"logit_bias": {"7": 101}}, "invalid_value", "body.logit_bias.7"),
        ({"logit_bias": {"7": None}}, "invalid_type", "body.logit_bias.7"),
        ({"logit_bias": {str(i): 0 for i in range(1025)}}, "invalid_value", "body.logit_bias"),
        ({"n": 0}, "invalid_value", "body.n"),
        ({"n": 129}, "invalid_value", "body.n"),
        ({"n": True}, "invalid_type", "body.n"),
        ({"store": True}, "unsupported_parameter", "body.store"),
        ({"logprobs": 1}, "invalid_type", "body.logprobs"),
        ({"top_logprobs": 2}, "invalid_value", "body.top_logprobs"),
        ({"logprobs": False, "top_logprobs": 0}, "invalid_value", "body.top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "invalid_value", "body.top_logprobs"),
        ({"tools": [{"type": "function"}]}, "unsupported_parameter", "body.tools"),
        ({"stream": True}, "streaming_unsupported", "body.stream"),
        ({"stream": 1}, "invalid_type", "body.stream"),
        ({"temperature": True}, "invalid_type", "body.temperature"),
        ({"temperature": "1"}, "invalid_type", "body.temperature"),
        ({"temperature": 2.1}, "invalid_value", "body.temperature"),
        ({"temperature": float("nan")}, "invalid_value", "body.temperature"),
        ({"top_p": 0}, "invalid_value", "body.top_p"),
        ({"max_tokens": 0}, "invalid_value", "body.max_tokens"),
        ({"max_tokens": 10**400}, "invalid_value", "body.max_tokens"),
        ({"max_tokens": 1.0}, "invalid_type", "body.max_tokens"),
        ({"seed": 2**63}, "invalid_value", "body.seed"),
        ({"presence_penalty": 3}, "invalid_value", "body.presence_penalty"),
        ({"stop": ["a"] * 5}, "invalid_value", "body.stop"),
        ({"stop": [""]}, "invalid_value", "body.stop[0]"),
        ({"stop": [1]}, "invalid_type", "body.stop[0]"),
        ({"max_tokens": 1, "max_completion_tokens": 2}, "invalid_value", "body.max_completion_tokens"),
        ({"model": ""}, "invalid_value", "body.model"),
        ({"messages": []}, "invalid_value", "body.messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "invalid_value", "body.messages[0].role"),
        ({"messages": [USER, {"role": "user", "content": None}]}, "invalid_type", "body.messages[1].content"),
        ({"messages": [{**USER, "tool_calls": []}]}, "unsupported_parameter", "body.messages[0].tool_calls"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            "unsupported_parameter",
            "body.messages[0].content[0]",
        ),
    ],
)
def test_the_first_offending_field_is_named(more: dict[str, Any], code: str, param: str) -> None:
    with pytest.raises(RequestRefusedError) as caught:
        check_body(CHAT, chat(**more))

    assert (caught.value.row_code, caught.value.param) == (code, param)


@pytest.mark.parametrize(("endpoint", "name"), [(CHAT, "messages"), (TEXT, "prompt"), (EMBED, "input")])
def test_what_is_required_is_asked_for(endpoint: Endpoint, name: str) -> None:
    with pytest.raises(RequestRefusedError, match="parameter is required") as caught:
        check_body(endpoint, {"model": "m"})

    assert caught.value.param == f"body.{name}"


@pytest.mark.parametrize("value", ["x", ["x"]])
def test_one_prompt_passes_as_a_string_or_a_list_of_one(value: object) -> None:
    body = {"model": "m", "prompt": value, "echo": False, "best_of": 1}

    check_body(TEXT, body)

    assert prompt_of(body) == "x"


@pytest.mark.parametrize(("n", "best_of", "passes"), [(3, 3, True), (None, 1, True), (3, 4, False), (3, 1, False)])
def test_best_of_may_say_again_what_n_says(n: int | None, best_of: int, *, passes: bool) -> None:
    body = {"model": "m", "prompt": "x", "n": n, "best_of": best_of}

    if passes:
        check_body(TEXT, body)
    else:
        with pytest.raises(RequestRefusedError, match="best_of"):
            check_body(TEXT, body)


@pytest.mark.parametrize("value", [["x", "y"], [], [1, 2], [[1]], None, 3])
def test_other_prompts_are_refused(value: object) -> None:
    with pytest.raises(RequestRefusedError):
        check_body(TEXT, {"model": "m", "prompt": value})


@pytest.mark.parametrize(
    ("endpoint", "body"),
    [
        (Endpoint.SCORE, {"text_1": "a", "text_2": "b"}),
        (Endpoint.SCORE, {"text_1": "a", "text_2": ["b"] * 2048, "use_activation": False, "user": "u"}),
        (Endpoint.SCORE, {"text_1": ["a", "b"], "text_2": ["c", "d"], "truncate_prompt_tokens": None, "priority": 0}),
        (Endpoint.RERANK, {"query": "a", "documents": ["b", "c"], "top_n": 0, "return_documents": False}),
        (Endpoint.CLASSIFY, {"input": ["a", "b"], "use_activation": True}),
    ],
)
def test_bodies_about_pairs_and_labels_that_are_honoured_pass(endpoint: Endpoint, body: dict[str, Any]) -> None:
    check_body(endpoint, {"model": "m", **body})


@pytest.mark.parametrize(
    ("endpoint", "body", "code", "param"),
    [
        (Endpoint.SCORE, {"text_1": ["a", "b"], "text_2": ["c"]}, "invalid_value", "body.text_2"),
        (Endpoint.SCORE, {"text_1": ["a", "b"], "text_2": "c"}, "invalid_value", "body.text_2"),
        (Endpoint.SCORE, {"text_1": "a"}, "invalid_request", "body.text_2"),
        (Endpoint.SCORE, {"text_1": "a", "text_2": []}, "invalid_value", "body.text_2"),
        (Endpoint.SCORE, {"text_1": {"content": []}, "text_2": "b"}, "invalid_type", "body.text_1"),
        (Endpoint.SCORE, {"text_1": "a", "text_2": "b", "dimensions": 3}, "unsupported_parameter", "body.dimensions"),
        (Endpoint.RERANK, {"query": ["a"], "documents": ["b"]}, "invalid_type", "body.query"),
        (Endpoint.RERANK, {"query": "", "documents": ["b"]}, "invalid_value", "body.query"),
        (Endpoint.RERANK, {"query": "a", "documents": "b"}, "invalid_type", "body.documents"),
        (Endpoint.RERANK, {"query": "a", "documents": [{"text": "b"}]}, "invalid_type", "body.documents[0]"),
        (Endpoint.RERANK, {"query": "a", "documents": ["b"], "top_n": -1}, "invalid_value", "body.top_n"),
        (Endpoint.RERANK, {"query": "a", "documents": ["b"], "return_documents": 1}, "invalid_type", None),
        (Endpoint.CLASSIFY, {"input": ["a"] * 2049}, "invalid_value", "body.input"),
        (
            Endpoint.CLASSIFY,
            {"input": "a", "truncate_prompt_tokens": 5},
            "unsupported_parameter",
            "body.truncate_prompt_tokens",
        ),
    ],
)
def test_bodies_about_pairs_and_labels_are_refused_by_field(
    endpoint: Endpoint, body: dict[str, Any], code: str, param: str | None
) -> None:
    with pytest.raises(RequestRefusedError) as refused:
        check_body(endpoint, {"model": "m", **body})

    assert refused.value.row_code == code
    assert param is None or refused.value.param == param


def test_one_first_text_goes_with_each_of_the_second() -> None:
    assert sides_of(Endpoint.SCORE, {"text_1": "a", "text_2": ["b", "c"]}) == (["a"], ["b", "c"])
    assert sides_of(Endpoint.RERANK, {"query": "a", "documents": ["b"]}) == (["a"], ["b"])


def test_embedding_inputs_are_strings_up_to_a_bound() -> None:
    check_body(EMBED, {"model": "m", "input": ["a"] * 2048, "encoding_format": "base64", "dimensions": 3})
    for value in (["a"] * 2049, "", [""], [], [1], None):
        with pytest.raises(RequestRefusedError):
            check_body(EMBED, {"model": "m", "input": value})
    assert inputs_of({"input": "a"}) == ["a"]


def test_sampling_reads_what_was_given_and_defaults_to_openais() -> None:
    assert sampling_of(CHAT, chat()) == Sampling()
    assert sampling_of(CHAT, chat(stop="a", max_completion_tokens=7, temperature=0, seed=3)) == Sampling(
        max_tokens=7, temperature=0.0, stop=("a",), seed=3
    )


def test_vllms_names_are_read_and_their_neutral_values_are_the_defaults() -> None:
    neutral = {
        "min_tokens": 0, "top_k": -1, "min_p": 0, "repetition_penalty": 1, "logit_bias": {}, "stop_token_ids": [],
        "ignore_eos": False, "n": 1,
    }  # fmt: skip

    assert sampling_of(CHAT, chat(**neutral)) == sampling_of(CHAT, chat(**dict.fromkeys(neutral))) == Sampling()
    assert sampling_of(TEXT, {"logit_bias": {"5": 1, "6": -0.5}, "stop_token_ids": [2], "top_k": 4}) == Sampling(
        logit_bias=((5, 1.0), (6, -0.5)), stop_token_ids=(2,), top_k=4
    )


def test_log_probabilities_are_asked_for_in_two_ways() -> None:
    assert sampling_of(CHAT, chat(logprobs=True)).logprobs == 0
    assert sampling_of(CHAT, chat(logprobs=True, top_logprobs=3)).logprobs == 3
    assert sampling_of(CHAT, chat(logprobs=False)).logprobs is None
    assert sampling_of(TEXT, {"prompt": "x", "logprobs": 0}).logprobs == 0
    for value in (-1, 6, True):
        with pytest.raises(RequestRefusedError):
            check_body(TEXT, {"model": "m", "prompt": "x", "logprobs": value})


def test_text_parts_are_joined() -> None:
    assert text_of([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]) == "ab"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
NAMES = st.sampled_from(
    [
        "model",
        "messages",
        "prompt",
        "input",
        "max_tokens",
        "temperature",
        "stop",
        "seed",
        "n",
        "stream",
        "tools",
        "min_tokens",
        "top_k",
        "logit_bias",
        "stop_token_ids",
        "logprobs",
        "top_logprobs",
        "best_of",
        "response_format",
        "structured_outputs",
    ]
)
MESSAGE = st.dictionaries(st.sampled_from(["role", "content", "name", "x"]), JSON | st.just("user"), max_size=4)
BODY = st.dictionaries(NAMES | st.text(max_size=4), JSON | st.lists(MESSAGE, max_size=2), max_size=5)


@given(endpoint=st.sampled_from(Endpoint), body=BODY | JSON)
def test_any_json_passes_or_is_refused_and_what_passes_can_be_sampled(endpoint: Endpoint, body: object) -> None:
    try:
        check_body(endpoint, body)
    except RequestRefusedError:
        return
    assert isinstance(body, dict)
    assert isinstance(sampling_of(endpoint, body), Sampling)


def test_checking_a_typical_chat_body_costs_microseconds() -> None:
    body = chat(max_tokens=100, temperature=0.0)

    spent = timeit.repeat(lambda: check_body(CHAT, body), number=10_000, repeat=5, timer=time.process_time)

    # Processor time, so that a busy neighbour does not count; under 2 us alone, and slack for its cold caches.
    assert min(spent) / 10_000 < 6e-6


def test_built_in_models_carry_their_own_name_and_every_kind_has_endpoints() -> None:
    assert all(name == spec.name and spec.endpoints for name, spec in BUILT_IN.items())
    assert set(ENDPOINTS) == set(EngineKind)
