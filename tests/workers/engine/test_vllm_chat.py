"""The engine with vLLM itself; `make test-vllm` runs this where vLLM is installed."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from pipeline.domain.endpoints import Endpoint
from pipeline.domain.errors import ModelUnavailableError
from pipeline.domain.models import EngineKind, ModelSpec
from pipeline.ports.engine import Engine, EngineRequest
from tests.workers.engine.conftest import save_tokenizer
from tests.workers.engine.driving import answers, completion, drained, prompts, text
from workers.engine.choice import are_installed
from workers.engine.registry import engines_at_once, is_available, load_engine

pytestmark = pytest.mark.skipif(not are_installed("vllm"), reason="vLLM has an environment of its own: make test-vllm")

Load = Callable[..., Any]


@pytest.fixture(scope="module")
def wide_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # vLLM's attention on CPUs wants heads of 32 and more.
    folder = tmp_path_factory.mktemp("wide")
    torch.manual_seed(7)
    config = LlamaConfig(
        vocab_size=257, hidden_size=192, intermediate_size=96, num_hidden_layers=2, num_attention_heads=6,
        num_key_value_heads=2, max_position_embeddings=256, eos_token_id=256, initializer_range=0.2,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    save_tokenizer(folder)
    return folder


def spec_of(folder: Path, **options: str | float | bool) -> ModelSpec:
    settings: dict[str, str | int | float | bool] = {"eager": True, "cache_gib": 0.1, **options}
    return ModelSpec(name="tiny", source=str(folder), engine=EngineKind.VLLM, options=settings)


@pytest.fixture(scope="module")
def engine(wide_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    # Loading takes seconds, and there is one of them in a process.
    loaded = load_engine(
        spec_of(wide_folder, slots=8), cache_dir=tmp_path_factory.mktemp("vllm"), device="cpu", threads=1
    )
    yield loaded
    loaded.close()


@pytest.fixture(scope="module")
def torch_engine(wide_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    spec = ModelSpec(name="tiny", source=str(wide_folder), engine=EngineKind.TORCH)
    return load_engine(spec, cache_dir=tmp_path_factory.mktemp("torch"), device="cpu")


def choice_of(engine: Engine, **asked: object) -> dict[str, Any]:
    result = answers(engine, [completion(1, "abc", **asked)])[1]
    assert result.status_code == 200, result.body
    choice: dict[str, Any] = result.body["choices"][0]
    return choice


def test_greedy_answers_are_those_of_the_torch_engine(engine: Engine, torch_engine: Engine) -> None:
    rows = [completion(i, each, max_tokens=8 + i) for i, each in enumerate(prompts(14))]

    theirs, ours = answers(engine, rows), answers(torch_engine, rows)

    assert [text(theirs[i]) for i in range(14)] == [text(ours[i]) for i in range(14)]
    assert [theirs[i].output_tokens for i in range(14)] == [ours[i].output_tokens for i in range(14)]


@pytest.mark.parametrize(
    "asked",
    [
        {"presence_penalty": 1.5, "max_tokens": 30},
        {"frequency_penalty": 1.0, "max_tokens": 30},
        {"repetition_penalty": 1.3, "max_tokens": 30},
        {"logit_bias": {"70": 100}},
        {"logit_bias": {str(token): -100 for token in range(0, 256, 2)}},
        {"stop_token_ids": list(range(0, 256, 3)), "max_tokens": 30},
        {"stop_token_ids": list(range(256)), "min_tokens": 4},
        {"min_tokens": 6, "logit_bias": {"256": 100}},
        {"ignore_eos": True, "logit_bias": {"256": 100}},
        {"temperature": 1.5, "top_k": 1},
        {"temperature": 1.5, "min_p": 1.0},
        {"temperature": 0.3, "top_p": 1e-6},
    ],
)
def test_each_parameter_means_what_it_means_to_the_torch_engine(
    engine: Engine, torch_engine: Engine, asked: dict[str, object]
) -> None:
    assert choice_of(engine, **asked) == choice_of(torch_engine, **asked)


def test_log_probabilities_are_the_models_own(engine: Engine, torch_engine: Engine) -> None:
    asked = {"logprobs": 3, "logit_bias": {"70": 30}, "max_tokens": 4}

    theirs, ours = choice_of(engine, **asked)["logprobs"], choice_of(torch_engine, **asked)["logprobs"]

    assert theirs["tokens"] == ours["tokens"]
    assert theirs["text_offset"] == ours["text_offset"]
    assert theirs["token_logprobs"] == pytest.approx(ours["token_logprobs"], abs=1e-3)
    for mine, other in zip(theirs["top_logprobs"], ours["top_logprobs"], strict=True):
        assert mine == pytest.approx(other, abs=1e-3)


def test_chat_answers_have_openais_shape_and_say_what_computed_them(engine: Engine) -> None:
    body = {"model": "tiny", "messages": [{"role": "developer", "content": "ab"}], "max_tokens": 3, "logprobs": True}

    result = answers(engine, [EngineRequest(1, Endpoint.CHAT_COMPLETIONS, body)])[1]

    assert result.body["object"] == "chat.completion"
    assert result.body["usage"]["prompt_tokens"] == len("system:ab\n")
    assert result.body["choices"][0]["logprobs"]["content"][0]["top_logprobs"] == []
    assert re.fullmatch(r"vllm-\d+\.\d+\.\d+-(float32|bfloat16)-[0-9a-f]{12}", result.body["system_fingerprint"])
    assert engine.identity.device == "cpu"


def test_sampling_repeats_in_any_batch_and_each_choice_has_a_seed_of_its_own(engine: Engine) -> None:
    rows = [completion(i, each, temperature=1.2, top_p=0.9) for i, each in enumerate(prompts(6))]
    rows += [completion(6 + i, "same", temperature=1.0, seed=i - 3) for i in range(6)]
    rows += [completion(12, "same", temperature=1.0, n=4)]

    together = answers(engine, rows)
    alone = {row.key: answers(engine, [row])[row.key] for row in reversed(rows)}

    assert {key: result.body["choices"] for key, result in together.items()} == {
        key: result.body["choices"] for key, result in alone.items()
    }
    assert len({text(together[6 + i]) for i in range(6)}) > 3
    assert len({choice["text"] for choice in together[12].body["choices"]}) == 4


def test_answers_are_cut_before_their_stop_string(engine: Engine, torch_engine: Engine) -> None:
    rows = [completion(i, each, max_tokens=60, ignore_eos=True, stop=[*"abcd"]) for i, each in enumerate(prompts(12))]

    theirs, ours = answers(engine, rows), answers(torch_engine, rows)

    assert [theirs[i].body["choices"] for i in range(12)] == [ours[i].body["choices"] for i in range(12)]
    assert [theirs[i].output_tokens for i in range(12)] == [ours[i].output_tokens for i in range(12)]
    assert "stop" in {theirs[i].body["choices"][0]["finish_reason"] for i in range(12)}


def test_answers_have_the_form_that_is_asked_for(engine: Engine) -> None:
    schema = {
        "type": "object", "properties": {"a": {"type": "integer", "minimum": 0, "maximum": 99}},
        "required": ["a"], "additionalProperties": False,
    }  # fmt: skip
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}

    assert re.fullmatch("[ab]{3}c", choice_of(engine, structured_outputs={"regex": "[ab]{3}c"})["text"])
    assert choice_of(engine, structured_outputs={"choice": ["red", "blue"]})["text"] in {"red", "blue"}
    assert 0 <= json.loads(choice_of(engine, response_format=form, max_tokens=200)["text"])["a"] <= 99


def test_a_form_that_cannot_be_followed_is_refused_by_name(engine: Engine) -> None:
    rows = [completion(1, "a", structured_outputs={"regex": "[a"}), completion(2, "a")]

    results = answers(engine, rows)

    assert results[1].body["error"]["param"] == "body.structured_outputs.regex"
    assert results[2].status_code == 200


def test_the_process_is_left_as_it_was(engine: Engine) -> None:
    record = logging.getLogRecordFactory()("n", logging.INFO, "p", 1, "m", (), None)

    assert engine.identity.engine == "vllm"
    assert not [name for name in vars(record) if "vllm" in name]
    assert torch.set_num_threads.__name__ == "set_num_threads"
    assert torch.get_num_threads() == 1


def test_a_prompt_or_answer_beyond_the_context_is_bounded(engine: Engine) -> None:
    rows = [completion(0, "x" * 300), completion(2, "x" * 250, max_tokens=100, ignore_eos=True)]

    results = answers(engine, rows)

    assert results[0].body["error"]["code"] == "context_length_exceeded"
    assert results[2].output_tokens == 6


def test_aborted_rows_do_not_come_back_and_leave_the_rest_alone(engine: Engine) -> None:
    rows = [completion(i, each, ignore_eos=True) for i, each in enumerate(prompts(12))]
    alone = answers(engine, rows)
    engine.add(rows)
    engine.step()

    engine.abort([0, 3, 11])
    rest = drained(engine)

    assert set(rest) == set(range(12)) - {0, 3, 11}
    assert all(text(result) == text(alone[key]) for key, result in rest.items())
    assert engine.in_flight() == 0


def test_its_counters_tell_prompts_computed_and_cached(engine: Engine) -> None:
    before = engine.meters()
    rows = [completion(i, "y" * 200 + str(i), max_tokens=5, ignore_eos=True) for i in range(4)]

    results = answers(engine, rows)
    again = answers(engine, rows)

    after = engine.meters()
    used = sum(each.input_tokens for each in (*results.values(), *again.values()))
    assert (after.tokens_prefilled or 0) - (
        before.tokens_prefilled or 0
    ) + after.tokens_cached - before.tokens_cached == used
    assert after.tokens_cached - before.tokens_cached >= 4 * 128
    assert after.tokens_generated - before.tokens_generated == 40
    assert after.slot_steps - before.slot_steps == 8 * (after.engine_steps - before.engine_steps)
    assert 40 <= after.slot_steps_busy - before.slot_steps_busy <= after.slot_steps - before.slot_steps


def test_rows_begin_again_when_memory_runs_out_and_no_answer_changes(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [completion(i, each * 3, max_tokens=9) for i, each in enumerate(prompts(10))]
    whole = answers(engine, rows)
    executor = engine._core._engine.model_executor  # type: ignore[attr-defined]
    compute, failures = executor.execute_model, [2, 5]

    def fails(*args: object, **more: object) -> object:
        failures[:] = [each - 1 for each in failures]
        if 0 in failures:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return compute(*args, **more)

    monkeypatch.setattr(executor, "execute_model", fails)

    assert {key: text(each) for key, each in answers(engine, rows).items()} == {k: text(r) for k, r in whole.items()}
    assert all(each < 0 for each in failures)


def test_one_that_died_answers_nothing_and_another_takes_its_place(
    engine: Engine, wide_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [completion(i, each) for i, each in enumerate(prompts(3))]
    before = answers(engine, rows)

    def fails(*_: object, **__: object) -> None:
        raise RuntimeError("the device is gone")

    monkeypatch.setattr(engine._core._engine.model_executor, "execute_model", fails)  # type: ignore[attr-defined]
    engine.add(rows)
    with pytest.raises(RuntimeError, match="the device is gone"):
        engine.step()
    engine.close()
    other = load_engine(spec_of(wide_folder), cache_dir=tmp_path, device="cpu", threads=1)

    assert {key: text(each) for key, each in answers(other, rows).items()} == {k: text(r) for k, r in before.items()}
    other.close()


def test_where_vllm_is_its_variants_are_served_and_one_engine_is_kept(wide_folder: Path, tmp_path: Path) -> None:
    assert is_available(spec_of(wide_folder))
    assert is_available(spec_of(wide_folder), device="cpu")
    assert not is_available(spec_of(wide_folder), device="cuda:0")
    assert engines_at_once() == 1
    with pytest.raises(ModelUnavailableError, match="slotz"):
        load_engine(spec_of(wide_folder, slotz=3), cache_dir=tmp_path)


def test_what_vllm_cannot_load_says_why(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "no_such_thing"}')
    (tmp_path / "model.safetensors").write_bytes(b"")

    with pytest.raises(ModelUnavailableError, match="tiny cannot be loaded by vLLM"):
        load_engine(spec_of(tmp_path), cache_dir=tmp_path / "cache")
