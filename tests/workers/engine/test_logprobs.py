from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from pipeline.domain.endpoints import Endpoint
from pipeline.ports.engine import EngineRequest
from tests.workers.engine.driving import answers, completion, prompts, text
from workers.engine.logprobs import TokenLogprobs, answer_logprobs
from workers.engine.pieces import Pieces

Load = Callable[..., Any]


def chat(key: int, content: str, **more: object) -> EngineRequest:
    messages = [{"role": "user", "content": content}]
    body = {"model": "tiny", "messages": messages, "max_tokens": 8, "logprobs": True, **more}
    return EngineRequest(key, Endpoint.CHAT_COMPLETIONS, body)


@pytest.mark.parametrize("model", ["llama_folder", "gpt2_folder"])
def test_they_are_the_models_own_whatever_the_sampling(model: str, load: Load, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(model)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    token_of = {Pieces(tokenizer).of(token): token for token in range(257)}
    reference = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    rows = [
        chat(0, "abc", top_logprobs=4, temperature=1.5, top_p=0.8, frequency_penalty=1.0),
        chat(1, "hello", top_logprobs=20, temperature=0),
        chat(2, "x", temperature=1.0, logprobs=False),
    ]

    results = answers(load(folder, ignore_end=True), rows)

    for key, prompt, count in ((0, "user:abc\n", 4), (1, "user:hello\n", 20)):
        content = results[key].body["choices"][0]["logprobs"]["content"]
        assert len(content) == 8
        # One token is one byte here, and the end token has no bytes of text.
        ids = tokenizer(prompt)["input_ids"]
        for entry in content:
            with torch.no_grad():
                logprobs = reference(torch.tensor([ids])).logits[0, -1].log_softmax(-1)
            best = logprobs.topk(count).values.tolist()
            assert [other["logprob"] for other in entry["top_logprobs"]] == pytest.approx(best, abs=1e-4)
            token = token_of[bytes(entry["bytes"])]
            assert entry["logprob"] == pytest.approx(float(logprobs[token]), abs=1e-4)
            ids.append(token)
    assert results[2].body["choices"][0]["logprobs"] is None


def test_chat_entries_have_openais_shape(load: Load, llama_folder: Path) -> None:
    choice = answers(load(llama_folder), [chat(0, "abc", top_logprobs=2)])[0].body["choices"][0]

    assert set(choice["logprobs"]) == {"content", "refusal"}
    for entry in choice["logprobs"]["content"]:
        assert set(entry) == {"token", "logprob", "bytes", "top_logprobs"}
        assert all(set(other) == {"token", "logprob", "bytes"} for other in entry["top_logprobs"])
        assert len(entry["top_logprobs"]) == 2
        assert entry["logprob"] <= 0


def test_the_bytes_of_the_tokens_are_the_text(load: Load, llama_folder: Path) -> None:
    rows = [chat(i, t, temperature=1.0, max_tokens=20) for i, t in enumerate(prompts(12))]

    for result in answers(load(llama_folder), rows).values():
        choice = result.body["choices"][0]
        joined = b"".join(bytes(entry["bytes"]) for entry in choice["logprobs"]["content"])
        assert joined.decode(errors="replace").rstrip("\N{REPLACEMENT CHARACTER}") == choice["message"]["content"]


def test_completion_entries_have_openais_shape_and_the_chosen_token_among_them(load: Load, llama_folder: Path) -> None:
    rows = [completion(0, "abc", logprobs=3, temperature=1.8), completion(1, "abc", logprobs=0)]

    results = answers(load(llama_folder, ignore_end=True), rows)

    for key, count in ((0, 3), (1, 0)):
        told = results[key].body["choices"][0]["logprobs"]
        assert set(told) == {"tokens", "token_logprobs", "top_logprobs", "text_offset"}
        assert {len(value) for value in told.values()} == {12}
        for token, logprob, top in zip(told["tokens"], told["token_logprobs"], told["top_logprobs"], strict=True):
            assert top[token] == logprob
            assert count <= len(top) <= count + 1


def test_an_answer_cut_at_a_stop_string_tells_the_tokens_of_its_text(load: Load, llama_folder: Path) -> None:
    engine = load(llama_folder)
    whole = text(answers(engine, [completion(0, "abc", max_tokens=40)])[0])
    stop = next(whole[i : i + 2] for i in range(4, len(whole)) if whole[i : i + 2].isprintable())

    result = answers(engine, [completion(0, "abc", max_tokens=40, stop=stop, logprobs=1)])[0]

    told = result.body["choices"][0]["logprobs"]
    assert len(told["tokens"]) < result.output_tokens
    assert told["text_offset"][-1] == len(text(result)) - 1


def test_neighbours_do_not_change_what_is_told(load: Load, llama_folder: Path) -> None:
    alone = answers(load(llama_folder), [chat(0, "abc", top_logprobs=5)])[0]
    among = answers(
        load(llama_folder),
        [chat(i, t, top_logprobs=i) for i, t in enumerate(prompts(4), 1)] + [chat(0, "abc", top_logprobs=5)],
    )[0]

    both = [result.body["choices"][0]["logprobs"]["content"] for result in (alone, among)]
    assert [e["token"] for e in both[0]] == [e["token"] for e in both[1]]
    assert [e["logprob"] for e in both[0]] == pytest.approx([e["logprob"] for e in both[1]], abs=1e-4)


def sentencepiece_like() -> PreTrainedTokenizerFast:
    vocabulary = {
        "<unk>": 0,
        "</s>": 1,
        "<0xF0>": 2,
        "<0x9F>": 3,
        "<0x98>": 4,
        "<0x80>": 5,
        "▁": 6,
        "▁a": 7,
        "b": 8,
        "é": 9,
    }
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>", byte_fallback=True))  # noqa: S106 -- text tokens, no secrets
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>", unk_token="<unk>")  # noqa: S106 -- as above


def test_pieces_of_a_sentencepiece_vocabulary_are_bytes_and_spaces() -> None:
    pieces = Pieces(sentencepiece_like())

    assert [pieces.of(token) for token in (7, 9, 2, 3, 1)] == [b" a", "é".encode(), b"\xf0", b"\x9f", b"</s>"]
    assert pieces.in_answer([7, 8, 7]) == [b"a", b"b", b" a"]
    assert pieces.in_answer([8, 7]) == [b"b", b" a"]


def test_offsets_count_characters_and_bytes_are_written_as_openai_writes_them() -> None:
    pieces = Pieces(sentencepiece_like())
    tokens = [7, 2, 3, 4, 5, 9, 8]
    told = [TokenLogprobs(-0.5, [(8, -0.1)])] * 6 + [TokenLogprobs(-math.inf, [])]

    body = answer_logprobs(Endpoint.COMPLETIONS, pieces, tokens, told)
    chat_body = answer_logprobs(Endpoint.CHAT_COMPLETIONS, pieces, tokens, told)

    assert body["text_offset"] == [0, 1, 1, 1, 1, 2, 3]
    assert body["tokens"] == ["a", "bytes:\\xf0", "bytes:\\x9f", "bytes:\\x98", "bytes:\\x80", "é", "b"]
    assert body["token_logprobs"][-1] == -9999.0
    assert chat_body["content"][1] == {
        "token": "\\xf0",
        "logprob": -0.5,
        "bytes": [0xF0],
        "top_logprobs": [{"token": "b", "logprob": -0.1, "bytes": [98]}],
    }
