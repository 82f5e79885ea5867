from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from tests.workers.engine.driving import answers, completion, prompts, text

Load = Callable[..., Any]
END = 256


@pytest.fixture(params=["load", "load_openvino"])
def any_load(request: pytest.FixtureRequest) -> Any:  # noqa: ANN401 -- a callable with options
    return request.getfixturevalue(request.param)


def test_a_stop_token_ends_the_answer_and_is_no_text(any_load: Load, llama_folder: Path) -> None:
    engine = any_load(llama_folder)
    whole = text(answers(engine, [completion(0, "abc", max_tokens=40)])[0])
    letter = next(letter for letter in whole[3:] if letter.isascii() and letter.isprintable())
    token = AutoTokenizer.from_pretrained(llama_folder)(letter)["input_ids"][0]

    result = answers(engine, [completion(0, "abc", max_tokens=40, stop_token_ids=[token, 3])])[0]

    assert text(result) == whole[: whole.index(letter)].rstrip("\N{REPLACEMENT CHARACTER}")
    assert result.body["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize("more", [{"stop_token_ids": [257]}, {"logit_bias": {"257": 1}}])
def test_a_token_the_model_does_not_have_is_refused_by_name(
    load: Load, llama_folder: Path, more: dict[str, Any]
) -> None:
    results = answers(load(llama_folder), [completion(0, "abc", **more), completion(1, "abc")])

    assert results[0].body["error"]["param"] == f"body.{next(iter(more))}"
    assert "below 257" in results[0].body["error"]["message"]
    assert results[1].status_code == 200


def test_a_token_the_tokenizer_does_not_have_is_refused_by_openvino_too(
    load_openvino: Load, llama_folder: Path
) -> None:
    result = answers(load_openvino(llama_folder), [completion(0, "abc", stop_token_ids=[257])])[0]

    assert result.body["error"]["param"] == "body.stop_token_ids"


def test_the_end_token_ends_nothing_where_it_is_ignored(load: Load, llama_folder: Path) -> None:
    # Biased so that it is always the likeliest.
    forced = {"logit_bias": {str(END): 100}, "max_tokens": 5}
    rows = [completion(0, "abc", **forced), completion(1, "abc", **forced, ignore_eos=True)]

    results = answers(load(llama_folder), rows)

    assert [results[key].output_tokens for key in (0, 1)] == [1, 5]
    assert [results[key].body["choices"][0]["finish_reason"] for key in (0, 1)] == ["stop", "length"]
    assert text(results[1]) == ""


def test_an_answer_has_at_least_the_tokens_asked_for(load: Load, llama_folder: Path) -> None:
    forced = {"logit_bias": {str(END): 100}, "max_tokens": 9}
    rows = [completion(n, "abc", **forced, min_tokens=n) for n in (0, 4, 9)]

    results = answers(load(llama_folder), rows)

    assert [results[n].output_tokens for n in (0, 4, 9)] == [1, 5, 9]
    assert len(text(results[4]).encode()) >= 4


def test_a_stop_string_inside_the_least_tokens_is_text(load: Load, llama_folder: Path) -> None:
    engine = load(llama_folder)
    # Only `a` and `b` can come: every second answer begins with one of the two stop strings.
    letters = {str(token): 60 for token in AutoTokenizer.from_pretrained(llama_folder)("ab")["input_ids"]}
    rows = [
        completion(i, t, logit_bias=letters, temperature=1.0, max_tokens=30, min_tokens=5, stop=["ab", "ba"])
        for i, t in enumerate(prompts(8))
    ]

    for result in answers(engine, rows).values():
        kept = text(result)
        assert set(kept) <= {"a", "b"}
        assert len(kept) >= 4  # a stop string may begin in the fifth token, and not earlier
        if result.body["choices"][0]["finish_reason"] == "stop":
            assert result.output_tokens == len(kept) + 2
            assert "ab" not in kept[4:]
            assert "ba" not in kept[4:]


def test_what_one_row_asks_for_leaves_its_neighbours_alone(load: Load, llama_folder: Path) -> None:
    texts = prompts(6)
    more = [{"min_tokens": 9, "repetition_penalty": 1.5}, {"logit_bias": {"5": 90}}, {"top_k": 1, "temperature": 1.0}]
    plain = answers(load(llama_folder), [completion(i, t, temperature=1.0) for i, t in enumerate(texts)])

    rows = [completion(i, t, **({"temperature": 1.0} | (more[i // 2] if i % 2 else {}))) for i, t in enumerate(texts)]
    mixed = answers(load(llama_folder), rows)

    assert all(text(mixed[i]) == text(plain[i]) for i in (0, 2, 4))
    assert any(text(mixed[i]) != text(plain[i]) for i in (1, 3, 5))
