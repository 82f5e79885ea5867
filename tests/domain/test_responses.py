from __future__ import annotations

import json
from typing import Any

import pytest

from pipeline.domain.endpoints import Endpoint
from pipeline.domain.errors import RequestRefusedError
from pipeline.domain.parameters import check_body
from pipeline.domain.responses import chat_answer_of, chat_of
from pipeline.ports.engine import EngineRequest
from workers.dialect import answered, as_chat, asked
from workers.engine.echo import EchoEngine

PLAIN: dict[str, Any] = {"model": "echo", "input": "2+2?"}
CONVERSATION: list[dict[str, Any]] = [
    {"role": "user", "content": "Hello."},
    {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Hi"}], "id": "msg_1"},
    {"role": "user", "content": [{"type": "input_text", "text": "2+"}, {"type": "input_text", "text": "2?"}]},
]


def run(body: dict[str, Any]) -> dict[str, Any]:
    engine = EchoEngine(model="echo")
    engine.add([asked(1, Endpoint.RESPONSES, body)])
    (result,) = engine.step()
    return dict(answered(Endpoint.RESPONSES, body, result).body)


def test_an_input_is_a_chat() -> None:
    body = {
        **PLAIN,
        "input": CONVERSATION,
        "instructions": "Be brief.",
        "max_output_tokens": 7,
        "temperature": 0,
        "text": {"format": {"type": "json_schema", "name": "a", "schema": {"type": "object"}, "strict": True}},
    }
    check_body(Endpoint.RESPONSES, body)

    chat = chat_of(body)

    check_body(Endpoint.CHAT_COMPLETIONS, chat)
    assert chat["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello."},
        {"role": "assistant", "content": "Hi"},
        {"role": "user", "content": "2+2?"},
    ]
    assert (chat["max_completion_tokens"], chat["temperature"]) == (7, 0)
    assert chat["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "a", "schema": {"type": "object"}, "strict": True},
    }


def test_an_answer_is_a_response_that_the_client_of_openai_reads() -> None:
    from openai.types.responses import Response

    body = {**PLAIN, "instructions": "Be brief.", "metadata": {"a": "b"}}

    response = Response.model_validate(run(body))

    assert response.output_text == "2+2?"
    assert (response.status, response.incomplete_details) == ("completed", None)
    assert response.instructions == "Be brief."
    assert response.usage is not None
    assert response.usage.total_tokens == response.usage.input_tokens + response.usage.output_tokens > 0


def test_an_answer_that_was_cut_is_incomplete_and_says_why() -> None:
    response = run({**PLAIN, "input": "many words " * 20, "max_output_tokens": 2})

    assert (response["status"], response["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
    assert response["output"][0]["status"] == "incomplete"


def test_an_error_names_the_field_that_was_written() -> None:
    body = {"error": {"message": "Too long.", "type": "invalid_request_error", "param": "body.messages", "code": "x"}}
    result = EchoEngine(model="echo")
    result.add([EngineRequest(1, Endpoint.CHAT_COMPLETIONS, chat_of(PLAIN))])
    (answer,) = result.step()
    failed = type(answer)(answer.key, 400, body, 0, 0)

    told = answered(Endpoint.RESPONSES, PLAIN, failed)

    assert told.body["error"]["param"] == "body.input"
    assert answered(Endpoint.CHAT_COMPLETIONS, PLAIN, failed) is failed


def test_who_looks_at_an_answer_again_sees_the_chat() -> None:
    response = run(PLAIN)

    endpoint, body, answer = as_chat(Endpoint.RESPONSES, PLAIN, response)

    assert endpoint is Endpoint.CHAT_COMPLETIONS
    assert body["messages"] == [{"role": "user", "content": "2+2?"}]
    assert answer["choices"][0]["message"]["content"] == "2+2?"
    assert chat_answer_of(response) == answer


@pytest.mark.parametrize(
    ("change", "code", "param"),
    [
        ({"input": ""}, "invalid_value", "body.input"),
        ({"input": []}, "invalid_value", "body.input"),
        ({"input": 3}, "invalid_type", "body.input"),
        ({"input": [3]}, "invalid_type", "body.input[0]"),
        ({"input": [{"type": "function_call_output"}]}, "unsupported_parameter", "body.input[0]"),
        ({"input": [{"role": "user", "content": "a", "x": 1}]}, "unsupported_parameter", "body.input[0].x"),
        ({"input": [{"role": "tool", "content": "a"}]}, "invalid_value", "body.input[0].role"),
        ({"input": [{"role": "user", "content": []}]}, "invalid_value", "body.input[0].content"),
        ({"input": [{"role": "user", "content": None}]}, "invalid_type", "body.input[0].content"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image"}]}]},
            "unsupported_parameter",
            "body.input[0].content[0]",
        ),
        ({"instructions": 3}, "invalid_type", "body.instructions"),
        ({"max_output_tokens": 0}, "invalid_value", "body.max_output_tokens"),
        ({"text": 3}, "invalid_type", "body.text"),
        ({"text": {"format": "json"}}, "invalid_type", "body.text.format"),
        ({"text": {"format": {"type": "xml"}}}, "invalid_value", "body.text.format.type"),
        ({"text": {"verbosity": "low"}}, "unsupported_parameter", "body.text.verbosity"),
        ({"text": {"other": 1}}, "unsupported_parameter", "body.text.other"),
        ({"tools": [{"type": "web_search"}]}, "unsupported_parameter", "body.tools"),
        ({"previous_response_id": "resp_1"}, "unsupported_parameter", "body.previous_response_id"),
        ({"store": True}, "unsupported_parameter", "body.store"),
        ({"background": True}, "unsupported_parameter", "body.background"),
        ({"messages": []}, "unsupported_parameter", "body.messages"),
    ],
)
def test_what_is_not_honoured_is_refused_by_name(change: dict[str, Any], code: str, param: str) -> None:
    with pytest.raises(RequestRefusedError) as refused:
        check_body(Endpoint.RESPONSES, {**PLAIN, **change})

    assert (refused.value.row_code, refused.value.param) == (code, param)
    json.dumps(refused.value.message)
