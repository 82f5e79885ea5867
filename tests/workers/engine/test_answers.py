"""What becomes of rows that came together when some of them cannot be run."""

from __future__ import annotations

import pytest

from pipeline.domain.endpoints import Endpoint
from pipeline.domain.errors import RequestRefusedError
from pipeline.ports.engine import EngineRequest
from workers.engine.answers import attempted, drafted

REFUSAL = RequestRefusedError("Too long.", code="context_length_exceeded", param="body.prompt")


def rows(count: int) -> list[EngineRequest]:
    return [EngineRequest(key, Endpoint.COMPLETIONS, {"prompt": "secret"}) for key in range(10, 10 + count)]


def test_each_row_is_drafted_from_what_it_was_turned_into() -> None:
    drafts, ended = drafted(rows(3), [[1], [2, 2], []], lambda request, tokens: (request.key, len(tokens)))

    assert drafts == [(10, 1), (11, 2), (12, 0)]
    assert ended == []


@pytest.mark.parametrize("error", [REFUSAL, ValueError("secret")], ids=["refused", "failed"])
def test_what_went_wrong_beforehand_and_what_goes_wrong_now_end_the_same(error: Exception) -> None:
    def draft(_request: EngineRequest, tokens: list[int]) -> int:
        if not tokens:
            raise error
        return len(tokens)

    drafts, ended = drafted(rows(4), [error, [1], [], [2]], draft)

    assert drafts == [1, 1]
    assert [result.key for result in ended] == [10, 12]
    assert ended[0].body == ended[1].body
    assert (ended[0].status_code, ended[0].input_tokens, ended[0].output_tokens) == (ended[1].status_code, 0, 0)


def test_a_refusal_says_what_is_wrong_and_a_failure_names_its_class_alone() -> None:
    _, (refused, failed) = drafted(rows(2), [REFUSAL, ValueError("secret")], lambda request, _given: request)

    assert refused.status_code == 400
    assert (refused.body["error"]["code"], refused.body["error"]["param"]) == ("context_length_exceeded", "body.prompt")
    assert failed.status_code == 500
    assert "ValueError" in failed.body["error"]["message"]
    assert "secret" not in str(failed.body)


def test_what_is_no_failure_of_a_row_is_raised() -> None:
    def interrupted(_request: EngineRequest, _given: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        drafted(rows(1), [1], interrupted)


def test_as_many_outcomes_as_rows_are_wanted() -> None:
    with pytest.raises(ValueError, match="shorter"):
        drafted(rows(2), [1], lambda request, _given: request)


def test_an_attempt_gives_the_value_or_the_error() -> None:
    assert attempted(int, "12") == 12
    assert isinstance(attempted(int, "twelve"), ValueError)
