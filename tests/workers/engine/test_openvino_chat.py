from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from pipeline.domain.endpoints import Endpoint
from pipeline.domain.errors import ModelUnavailableError
from pipeline.domain.models import EngineKind, ModelSpec, Recipe
from pipeline.ports.engine import EngineRequest
from tests.workers.engine.driving import answers, completion, drained, prompts, references, text
from workers.engine import choice
from workers.engine.openvino_chat import export as export_module
from workers.engine.openvino_chat.engine import is_beyond
from workers.engine.registry import is_available, load_engine

Load = Callable[..., Any]


def test_batched_answers_equal_one_by_one_ones(load_openvino: Load, llama_folder: Path) -> None:
    texts = prompts(14)

    engine = load_openvino(llama_folder, slots=5)
    results = answers(engine, [completion(i, t, max_tokens=4 + i) for i, t in enumerate(texts)])

    assert [text(results[i]) for i in range(14)] == references(llama_folder, {t: 4 + i for i, t in enumerate(texts)})


def test_rows_that_enter_midway_change_no_answer(load_openvino: Load, llama_folder: Path) -> None:
    texts = prompts(9)
    together = answers(load_openvino(llama_folder), [completion(i, t) for i, t in enumerate(texts)])
    engine = load_openvino(llama_folder, slots=4)

    results = []
    for i, t in enumerate(texts):
        engine.add([completion(i, t)])
        results += engine.step()
    late = {result.key: result for result in results} | drained(engine)

    assert {key: text(result) for key, result in late.items()} == {key: text(r) for key, r in together.items()}


def test_seeded_and_unseeded_sampling_repeat_in_any_batch(load_openvino: Load, llama_folder: Path) -> None:
    rows = [completion(i, t, temperature=1.2, top_p=0.9) for i, t in enumerate(prompts(6))]
    rows += [completion(6 + i, "same", temperature=1.0, seed=i - 3) for i in range(6)]

    wide = answers(load_openvino(llama_folder), rows)
    narrow = answers(load_openvino(llama_folder, slots=2), list(reversed(rows)))

    assert {k: text(r) for k, r in wide.items()} == {k: text(r) for k, r in narrow.items()}
    assert len({text(wide[6 + i]) for i in range(6)}) > 3


def test_no_row_has_the_vocabulary_counted_again(
    load_openvino: Load, llama_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = load_openvino(llama_folder)
    counted: list[object] = []
    monkeypatch.setattr(PreTrainedTokenizerFast, "__len__", lambda self: counted.append(self) or 257)

    results = answers(engine, [completion(i, t) for i, t in enumerate(prompts(3))])

    assert {result.status_code for result in results.values()} == {200}
    assert counted == []


BEYOND = [
    ("presence_penalty", 0.5, 0),
    ("frequency_penalty", 0.5, 0.0),
    ("repetition_penalty", 1.1, 1),
    ("logprobs", 0, None),
    ("logit_bias", {"5": 1}, {}),
    ("min_tokens", 2, 0),
    ("top_k", 5, -1),
    ("min_p", 0.1, 0),
    ("ignore_eos", True, False),
    ("response_format", {"type": "json_object"}, {"type": "text"}),
    ("structured_outputs", {"regex": "a"}, None),
]


def test_what_it_does_not_honour_is_refused_by_name(load_openvino: Load, llama_folder: Path) -> None:
    asked = [completion(i, "abc", **{name: value}) for i, (name, value, _) in enumerate(BEYOND)]
    neutral = [completion(99, "abc", **{name: value for name, _, value in BEYOND})]

    results = answers(load_openvino(llama_folder), asked + neutral)

    for i, (name, _, _) in enumerate(BEYOND):
        assert (results[i].status_code, results[i].body["error"]["param"]) == (400, f"body.{name}")
    assert results[99].status_code == 200
    assert [is_beyond(row) for row in asked + neutral] == [True] * len(asked) + [False]


def test_an_answer_is_cut_before_its_stop_string(load_openvino: Load, llama_folder: Path) -> None:
    engine = load_openvino(llama_folder)
    whole = text(answers(engine, [completion(0, "abc", max_tokens=40, temperature=0)])[0])
    stop = next(whole[i : i + 2] for i in range(4, len(whole)) if whole[i : i + 2].isprintable())

    rows = [completion(0, "abc", max_tokens=40, temperature=0, stop=["never there", stop])]
    result = answers(engine, [*rows, completion(1, "abc", max_tokens=40, temperature=0)])

    assert text(result[0]) == whole[: whole.index(stop)]
    assert result[0].body["choices"][0]["finish_reason"] == "stop"
    assert result[0].output_tokens < 40
    assert text(result[1]) == whole


def test_an_answer_ends_at_its_bound_and_is_counted(load_openvino: Load, llama_folder: Path) -> None:
    result = answers(load_openvino(llama_folder, ignore_end=True), [completion(5, "abcd", max_tokens=9)])[5]

    assert (result.input_tokens, result.output_tokens) == (4, 9)
    assert result.body["choices"][0]["finish_reason"] == "length"
    assert result.body["usage"]["total_tokens"] == 13


def test_a_prompt_or_answer_beyond_the_context_is_bounded(load_openvino: Load, llama_folder: Path) -> None:
    engine = load_openvino(llama_folder, ignore_end=True)
    rows = [completion(0, "x" * 300), completion(1, "fine"), completion(2, "x" * 250, max_tokens=100)]

    results = answers(engine, [*rows, completion(3, "\ud800")])

    assert results[0].body["error"]["code"] == "context_length_exceeded"
    assert results[1].status_code == 200
    assert results[2].output_tokens == 6
    assert results[3].status_code == 500


def test_aborted_rows_do_not_come_back_and_leave_the_rest_alone(load_openvino: Load, llama_folder: Path) -> None:
    texts = prompts(8)
    alone = answers(load_openvino(llama_folder), [completion(i, t) for i, t in enumerate(texts)])
    engine = load_openvino(llama_folder, slots=4)
    engine.add([completion(i, t) for i, t in enumerate(texts)])
    first = {result.key: result for result in engine.step()}
    gone = [key for key in range(0, 8, 2) if key not in first]

    engine.abort(gone)
    rest = first | drained(engine)

    assert set(rest) == set(range(8)) - set(gone)
    assert all(text(result) == text(alone[key]) for key, result in rest.items())
    assert engine.in_flight() == 0


def test_room_is_slots_less_what_is_in_flight(load_openvino: Load, llama_folder: Path) -> None:
    engine = load_openvino(llama_folder, slots=7)
    assert engine.room() == 7

    engine.add([completion(i, "a") for i in range(9)])

    assert (engine.room(), engine.in_flight()) == (0, 9)
    engine.close()


def test_chat_answers_have_openais_shape(load_openvino: Load, llama_folder: Path) -> None:
    body = {"model": "tiny", "messages": [{"role": "developer", "content": "ab"}], "max_tokens": 3}

    result = answers(load_openvino(llama_folder), [EngineRequest(1, Endpoint.CHAT_COMPLETIONS, body)])[1]

    assert result.body["object"] == "chat.completion"
    assert result.body["usage"]["prompt_tokens"] == len("system:ab\n")
    assert re.fullmatch(r"openvino-20[\d.]+-native-[0-9a-f]{12}", result.body["system_fingerprint"])


def test_an_unknown_option_is_named(load_openvino: Load, llama_folder: Path) -> None:
    with pytest.raises(ModelUnavailableError, match="slotz"):
        load_openvino(llama_folder, slotz=3)


def test_it_runs_on_cpu_and_says_so(llama_folder: Path, tmp_path: Path) -> None:
    spec = ModelSpec(name="tiny", source=str(llama_folder), engine=EngineKind.OPENVINO)

    with pytest.raises(ModelUnavailableError, match="not on cuda:0"):
        load_engine(spec, cache_dir=tmp_path, device="cuda:0")


def test_where_it_is_not_installed_its_models_are_not_served(
    llama_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = ModelSpec(name="tiny", source=str(llama_folder), engine=EngineKind.OPENVINO)
    assert is_available(spec)
    monkeypatch.setattr(
        choice, "find_spec", lambda name: None if name == "openvino_genai" else importlib.util.find_spec(name)
    )

    assert not is_available(spec)
    with pytest.raises(ModelUnavailableError, match=r"locks/openvino\.txt"):
        load_engine(spec, cache_dir=tmp_path)


def test_what_cannot_be_exported_says_why_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "no_such_thing"}')

    with pytest.raises(ModelUnavailableError, match="cannot be exported to OpenVINO"):
        export_module.export(tmp_path, tmp_path / "target", Recipe.NATIVE)


def test_its_counters_tell_what_the_batcher_tells_and_no_more(load_openvino: Load, llama_folder: Path) -> None:
    engine = load_openvino(llama_folder, slots=10, ignore_end=True)

    results = answers(engine, [completion(i, "ab" * (i + 1), max_tokens=5) for i in range(8)])

    meters = engine.meters()
    assert meters.tokens_generated == sum(result.output_tokens for result in results.values()) == 40
    assert meters.slot_steps == meters.engine_steps * 10
    assert 40 <= meters.slot_steps_busy <= meters.slot_steps
    assert meters.tokens_prefilled is None
    assert meters.tokens_cached is None
    assert meters.tokens_padding == 0
