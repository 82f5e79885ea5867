from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.domain.endpoints import Endpoint
from pipeline.domain.errors import EvaluationFileError
from workers.gate.builtin import chat_lines, chat_set, completions_lines, embeddings_lines, embeddings_set, set_for
from workers.gate.items import read_file, read_lines
from workers.gate.trial import Comparison


def line(**changes: Any) -> bytes:  # noqa: ANN401 -- JSON
    row: dict[str, Any] = {
        "custom_id": "1",
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": {"messages": [{"role": "user", "content": "Hi"}]},
        "expected": "Hello",
    }
    row.update(changes)
    return json.dumps({key: value for key, value in row.items() if value is not ...}).encode()


def embedding(custom_id: str, **more: object) -> bytes:
    row = {"custom_id": custom_id, "url": "/v1/embeddings", "body": {"input": custom_id}, **more}
    return json.dumps(row).encode()


def refused(*lines: bytes) -> str:
    with pytest.raises(EvaluationFileError) as caught:
        read_lines(lines, name="set.jsonl")
    return caught.value.message


def test_a_line_is_an_openai_request_with_an_answer() -> None:
    found = read_lines([line(slice="greetings"), b"", line(custom_id="2")], name="set.jsonl")

    assert [each.custom_id for each in found.items] == ["1", "2"]
    assert found.items[0].slice == "greetings"
    assert found.items[0].body["temperature"] == 0
    assert found.endpoint is Endpoint.CHAT_COMPLETIONS
    assert found.comparison is Comparison.CORRECTNESS


def test_without_expected_answers_agreement_is_compared() -> None:
    assert read_lines([line(expected=...)], name="set.jsonl").comparison is Comparison.AGREEMENT


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([b'{"custom_id": }'], "line 1, column 15: not JSON"),
        ([line(), b"[1]"], "line 2, column 1: expected an object"),
        ([b'{"custom_id": "\xff"}'], "line 1, column 16: not UTF-8"),
        ([b'{"custom_id": "1", "custom_id": "2"}'], "field custom_id: the key appears twice"),
        ([b'{"custom_id": NaN}'], "NaN is not JSON"),
        ([line(custom_id="")], "field custom_id: expected a string of 1 to 64"),
        ([line(), line()], "line 2, column 2, field custom_id: line 1 has the same"),
        ([line(method="GET")], "field method"),
        ([line(url="/v1/images")], "field url: expected one of"),
        ([line(url=["/v1/embeddings"])], "field url"),
        ([line(), embedding("2")], "field url: earlier lines ask /v1/chat/completions"),
        ([line(body=5)], "field body: expected an object"),
        ([line(body={"messages": []})], "field body.messages"),
        ([line(body={"messages": [{"role": "user", "content": "Hi"}], "top_q": 3})], "field body.top_q"),
        ([line(body={"messages": [{"role": "user", "content": "Hi"}], "temperature": 0.7})], "field body.temperature"),
        ([line(expected={"number": "x"})], "field expected.number: expected a number"),
        ([line(expected={"retrieves": ["1"]})], "field expected: 'retrieves' is for /v1/embeddings"),
        ([line(), line(custom_id="2", expected=...)], "line 2, column 1, field expected: earlier items have one"),
        ([line(slice="")], "field slice"),
        ([line(document=True)], "field document"),
        ([line(answer="x")], "field answer: unknown"),
        ([], "has no items"),
        ([embedding("q")], "no line is a document"),
        (
            [embedding("d", document=True), embedding("q", expected={"retrieves": ["e"]})],
            "no document line has the custom_id 'e'",
        ),
    ],
)
def test_what_is_wrong_is_said_with_its_place(lines: list[bytes], said: str) -> None:
    assert said in refused(*lines)


def test_the_column_is_where_the_field_stands() -> None:
    bad = line(expected={"number": "x"})
    column = bad.decode().index('"number"') + 1

    assert f"line 1, column {column}, field expected.number" in refused(bad)


def test_many_bad_lines_are_counted() -> None:
    assert refused(*[b"?"] * 25).endswith("and 15 more")


def test_a_file_that_is_not_there_is_no_traceback(tmp_path: Path) -> None:
    with pytest.raises(EvaluationFileError, match="cannot be read: No such file"):
        read_file(tmp_path / "none.jsonl")


def test_the_digest_knows_meaning_and_not_layout(tmp_path: Path) -> None:
    file = tmp_path / "set.jsonl"
    file.write_bytes(b"\r\n".join([line(custom_id="2"), line().replace(b": ", b":"), b""]))

    assert read_file(file).digest == read_lines([line(), line(custom_id="2")], name="x").digest
    assert read_file(file).digest != read_lines([line()], name="x").digest


def test_built_in_sets_are_the_same_for_ever() -> None:
    assert list(chat_lines(count=30, seed=4)) == list(chat_lines(count=30, seed=4))
    assert chat_set(count=60).digest[:16] == "cd11f55cfa50dd43"
    assert embeddings_set(count=40).digest[:16] == "d5c6c3ff6c4fa0b9"
    assert chat_set(count=60).digest != chat_set(count=60, seed=2).digest


@pytest.mark.parametrize("endpoint", [Endpoint.CHAT_COMPLETIONS, Endpoint.COMPLETIONS, Endpoint.EMBEDDINGS])
def test_what_generates_or_embeds_has_a_built_in_set_with_slices(endpoint: Endpoint) -> None:
    found = set_for(endpoint)

    assert found.endpoint is endpoint
    assert found.comparison is Comparison.CORRECTNESS
    assert len({each.slice for each in found.items}) > 3


def test_completions_ask_the_same_tasks_as_chat() -> None:
    chat = read_lines(chat_lines(count=20, seed=1), name="chat")
    plain = read_lines(completions_lines(count=20, seed=1), name="plain")

    assert [each.expected for each in chat.items] == [each.expected for each in plain.items]


def test_built_in_queries_name_their_documents() -> None:
    assert len(list(embeddings_lines(count=7, seed=1))) == 14


@pytest.mark.parametrize("endpoint", [Endpoint.SCORE, Endpoint.RERANK, Endpoint.CLASSIFY])
def test_what_has_no_built_in_set_says_to_give_one(endpoint: Endpoint) -> None:
    with pytest.raises(EvaluationFileError, match="a file of your own"):
        set_for(endpoint)
