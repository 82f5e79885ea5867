"""The CUDA engine on a CPU: plain attention instead of the kernel, and captured steps that call their work again."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from pipeline.domain.errors import ModelUnavailableError
from pipeline.domain.models import EngineKind, ModelSpec, Recipe
from pipeline.ports.engine import EngineRequest, EngineResult
from pipeline.ports.meters import EngineIdentity
from tests.workers.engine.driving import SHARED, answers, completion, drained, prompts, references, text
from workers.engine.torch_chat.loading import engine_of
from workers.engine.torch_flat.engine import FlatEngine, FlatOptions
from workers.engine.torch_flat.graphs import Graphs, Work, rows_held
from workers.engine.torch_flat.launcher import Launched, Step
from workers.engine.torch_flat.sampling import Draw

CPU = torch.device("cpu")
BYTES_PER_TOKEN = 2 * 3 * 2 * 8 * 4  # keys and values x layers x key heads x head dimension x bytes
Load = Callable[..., Any]
Flat = Callable[..., FlatEngine]


@dataclass
class Replays:
    """Stands in for CUDA's capture: runs the work twice to warm up, then again at each replay."""

    captured: int = 0
    replayed: int = 0
    works: list[Work] = field(default_factory=list)

    def __call__(self, work: Work) -> Work:
        self.captured += 1
        work()
        work()

        def replay() -> None:
            self.replayed += 1
            work()

        return replay


@pytest.fixture(scope="session")
def flat(llama_folder: Path) -> Flat:
    tokenizer = AutoTokenizer.from_pretrained(llama_folder)

    def flat(
        *, recipe: Recipe = Recipe.FLOAT32, cache_tokens: int = 4096, capture: Replays | None = None, **options: int
    ) -> FlatEngine:
        model = AutoModelForCausalLM.from_pretrained(llama_folder, dtype=torch.float32, attn_implementation="sdpa")
        engine = engine_of(
            ModelSpec(name="tiny", source="", engine=EngineKind.TORCH, recipe=recipe),
            model,
            CPU,
            FlatOptions(**{"slots": 8, "lookahead": 8, "cache_bytes_max": cache_tokens * BYTES_PER_TOKEN, **options}),
            tokenizer=tokenizer,
            end_tokens=frozenset({256}),
            vocabulary=257,
            identity=EngineIdentity(engine="torch"),
            free_bytes=lambda: 2**30,
            capture=capture or Replays(),
        )
        assert isinstance(engine, FlatEngine)
        return engine

    return flat


def mixed_rows(count: int) -> list[EngineRequest]:
    kinds: tuple[dict[str, object], ...] = (
        {},
        {"temperature": 1.1, "top_p": 0.8},
        {"stop": ["e"]},
        {"temperature": 0.9},
    )
    return [completion(i, t, max_tokens=1 + 5 * (i % 6), **kinds[i % 4]) for i, t in enumerate(prompts(count))]


def said(results: dict[int, EngineResult]) -> dict[int, tuple[str, int, str]]:
    return {
        key: (text(result), result.output_tokens, result.body["choices"][0]["finish_reason"])
        for key, result in results.items()
    }


def test_its_answers_equal_one_by_one_ones(flat: Flat, llama_folder: Path) -> None:
    texts = prompts(20)

    results = answers(flat(slots=5), [completion(i, t, max_tokens=4 + i) for i, t in enumerate(texts)])

    assert [text(results[i]) for i in range(20)] == references(llama_folder, {t: 4 + i for i, t in enumerate(texts)})


@pytest.mark.parametrize("options", [{}, {"slots": 3}, {"prefill_tokens": 24}, {"cache_tokens": 512}, {"slots": 64}])
def test_its_answers_equal_the_slot_engines_under_any_setting(
    options: dict[str, int], flat: Flat, load: Load, llama_folder: Path
) -> None:
    results = answers(flat(**options), mixed_rows(24))

    assert said(results) == said(answers(load(llama_folder), mixed_rows(24)))


def test_rows_with_penalties_are_chosen_by_the_host_and_change_no_neighbour(
    flat: Flat, load: Load, llama_folder: Path
) -> None:
    def rows() -> list[EngineRequest]:
        extra = [completion(24 + i, t, max_tokens=14, frequency_penalty=1.5) for i, t in enumerate(prompts(5))]
        return mixed_rows(24) + extra

    engine = flat(slots=6)
    results: list[EngineResult] = []
    # One by one, so that steps with and without the host follow one another.
    for row in rows():
        engine.add([row])
        results += engine.step()
    late = {result.key: result for result in results} | drained(engine)

    assert said(late) == said(answers(load(llama_folder), rows()))


def test_choices_adjustments_and_log_probabilities_are_those_of_the_slot_engine(
    flat: Flat, load: Load, llama_folder: Path
) -> None:
    kinds: tuple[dict[str, object], ...] = (
        {"n": 3, "temperature": 1.0}, {"logprobs": 2}, {"top_k": 4, "temperature": 0.8}, {"min_tokens": 5, "n": 2},
        {"repetition_penalty": 1.3}, {"logit_bias": {"65": 4}}, {},
    )  # fmt: skip
    rows = [completion(i, t, max_tokens=9, **kinds[i % 7]) for i, t in enumerate(prompts(21))]

    results = answers(flat(), rows)

    wanted = answers(load(llama_folder), rows)
    assert {k: [c["text"] for c in r.body["choices"]] for k, r in results.items()} == {
        k: [c["text"] for c in r.body["choices"]] for k, r in wanted.items()
    }
    assert {k: r.body["usage"] for k, r in results.items()} == {k: r.body["usage"] for k, r in wanted.items()}
    told = results[1].body["choices"][0]["logprobs"]["token_logprobs"]
    assert told == pytest.approx(wanted[1].body["choices"][0]["logprobs"]["token_logprobs"], abs=1e-4)


def test_prompts_longer_than_a_step_enter_over_several(flat: Flat, llama_folder: Path) -> None:
    texts = [t * 2 for t in prompts(6)]
    engine = flat(prefill_tokens=32)

    results = answers(engine, [completion(i, t, max_tokens=8) for i, t in enumerate(texts)])

    assert [text(results[i]) for i in range(6)] == references(llama_folder, dict.fromkeys(texts, 8))
    assert engine.meters().engine_steps > sum(len(t) for t in texts) / 32 / 2


def test_a_shared_beginning_is_computed_once_even_by_rows_that_enter_together(flat: Flat, llama_folder: Path) -> None:
    # Each begins as the one before it, and longer: what one copies the next copies from its source.
    texts = [SHARED * 2 + "and more " * i for i in range(6)]
    engine = flat(ignore_end=False)

    results = answers(engine, [completion(i, t, max_tokens=6) for i, t in enumerate(texts)])

    assert [text(results[i]) for i in range(6)] == references(llama_folder, dict.fromkeys(texts, 6))
    meters = engine.meters()
    assert meters.tokens_prefilled is not None
    assert meters.tokens_cached is not None
    assert meters.tokens_cached + meters.tokens_prefilled == sum(r.input_tokens for r in results.values())
    assert meters.tokens_cached >= 5 * len(SHARED * 2)


def test_no_beginning_is_shared_where_the_option_says_so(flat: Flat) -> None:
    engine = flat(shares_prefixes=False)

    answers(engine, [completion(i, SHARED * 2, max_tokens=3) for i in range(4)])

    assert engine.meters().tokens_cached == 0


def test_decode_steps_are_captured_once_for_each_number_of_rows(flat: Flat) -> None:
    capture = Replays()
    engine = flat(capture=capture, slots=8, ignore_end=True)

    results = answers(engine, [completion(i, "abc", max_tokens=40) for i in range(8)])

    assert {result.output_tokens for result in results.values()} == {40}
    assert capture.captured == 1
    assert capture.replayed == 38


def test_a_step_that_cannot_be_captured_runs_as_it_is(flat: Flat, caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Replays):
        def __call__(self, work: Work) -> Work:
            del work
            raise RuntimeError("operation not permitted when stream is capturing")

    assert said(answers(flat(capture=Broken()), mixed_rows(12))) == said(answers(flat(), mixed_rows(12)))
    assert "cannot_capture_step" in caplog.text


def test_no_token_follows_an_end_though_it_is_seen_a_step_late(flat: Flat) -> None:
    engine = flat()

    results = answers(engine, [completion(i, t, max_tokens=60) for i, t in enumerate(prompts(30))])

    ended = [result for result in results.values() if result.body["choices"][0]["finish_reason"] == "stop"]
    assert ended
    generated = engine.meters().tokens_generated
    assert generated is not None
    # One token more was computed for each row whose end was a surprise, and given to nobody.
    assert generated == sum(result.output_tokens for result in results.values()) + len(ended)


def test_aborted_rows_do_not_come_back_and_leave_the_rest_alone(flat: Flat) -> None:
    whole = said(answers(flat(), mixed_rows(16)))
    engine = flat()
    engine.add(mixed_rows(16))
    early = {result.key: result for _ in range(3) for result in engine.step()}
    gone = [key for key in range(0, 16, 3) if key not in early]

    engine.abort(gone)
    rest = early | drained(engine)

    assert set(rest) == set(range(16)) - set(gone)
    assert said(rest) == {key: whole[key] for key in rest}


def test_everything_held_is_free_again_once_all_rows_are_done(flat: Flat) -> None:
    engine = flat(cache_tokens=700)
    answers(engine, mixed_rows(20))

    flights = engine._flights
    assert flights.extents.free_tokens == engine._launcher.cache_tokens - 16
    assert len(flights.extents._free) == 1
    assert sorted(flights.free_seats) == list(range(8))
    assert (flights.flying, flights.host_bound, flights._by_head) == ([], 0, {})


def test_quantized_recipes_run_over_the_flat_cache_too(flat: Flat, load: Load, llama_folder: Path) -> None:
    results = answers(flat(recipe=Recipe.INT8), mixed_rows(8))

    assert said(results) == said(answers(load(llama_folder, Recipe.INT8), mixed_rows(8)))


def test_a_row_longer_than_the_cache_is_refused(flat: Flat) -> None:
    results = answers(flat(cache_tokens=96), [completion(0, "x" * 90), completion(1, "x" * 60, max_tokens=99)])

    assert results[0].body["error"]["code"] == "context_length_exceeded"
    assert results[1].status_code == 200


def test_a_device_too_full_for_any_cache_is_said_when_loading(llama_folder: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(llama_folder, dtype=torch.float32)

    with pytest.raises(ModelUnavailableError, match=r"its cache does not: .* a step needs"):
        engine_of(
            ModelSpec(name="tiny", source="", engine=EngineKind.TORCH, recipe=Recipe.FLOAT32),
            model,
            CPU,
            FlatOptions(),
            tokenizer=None,
            free_bytes=lambda: 1000,
        )


# --- out of memory -----------------------------------------------------------------------------


def short_at(engine: FlatEngine, fails: Callable[[int], bool]) -> list[int]:
    """Let launching a step fail where `fails(positions of the cache)`, before or after the device was given it."""
    launcher, launch, failures = engine._launcher, engine._launcher.launch, []

    def launching(step: Step, draws: Sequence[Draw]) -> Launched:
        is_short = fails(launcher.cache_tokens)
        if not is_short:
            return launch(step, draws)
        failures.append(launcher.cache_tokens)
        if len(failures) % 2:
            launch(step, draws)
        raise torch.OutOfMemoryError("CUDA out of memory.")

    launcher.launch = launching  # type: ignore[method-assign] # what a device does when it is full
    return failures


@pytest.mark.parametrize("seed", range(8))
def test_memory_that_runs_out_at_any_point_changes_no_answer_and_loses_no_row(seed: int, flat: Flat) -> None:
    undisturbed = answers(flat(), mixed_rows(20))
    rng = random.Random(seed)
    engine = flat()
    failures = short_at(engine, lambda tokens: tokens > 300 and rng.random() < 0.3)

    engine.add(mixed_rows(20))
    results = []
    while engine.in_flight():
        results += engine.step()

    assert len(failures) > 3
    assert sorted(result.key for result in results) == list(range(20))
    assert said({result.key: result for result in results}) == said(undisturbed)


def test_the_cache_shrinks_until_steps_fit_beside_it(flat: Flat) -> None:
    engine = flat()
    failures = short_at(engine, lambda tokens: tokens > 1000)

    results = answers(engine, mixed_rows(20))

    assert len(results) == 20
    assert failures == sorted(failures, reverse=True)
    assert engine._launcher.cache_tokens <= 1000


def test_a_request_too_large_alone_takes_all_its_choices_with_it(flat: Flat) -> None:
    engine = flat()
    short_at(engine, lambda tokens: tokens > 200)

    results = answers(engine, [completion(0, "x" * 220, n=3, temperature=1), completion(1, "abc", n=2)])

    assert results[0].body["error"]["code"] == "out_of_memory"
    assert len(results[1].body["choices"]) == 2
    assert engine.in_flight() == 0


def test_a_row_too_large_alone_is_that_rows_error_and_the_others_finish(flat: Flat) -> None:
    engine = flat()
    short_at(engine, lambda tokens: tokens > 200)

    results = answers(engine, [completion(0, "x" * 220)] + [completion(i, "abc") for i in range(1, 6)])

    assert results[0].body["error"]["code"] == "out_of_memory"
    assert [results[i].status_code for i in range(1, 6)] == [200] * 5


def test_a_cache_that_cannot_be_had_is_asked_for_smaller(flat: Flat) -> None:
    engine = flat()
    resize, asked = engine._launcher.resize, []

    def resizing(tokens: int) -> None:
        asked.append(tokens)
        if tokens > 900:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        resize(tokens)

    resize(0)
    engine._launcher.resize = resizing  # type: ignore[method-assign] # as above

    assert len(answers(engine, mixed_rows(9))) == 9
    assert max(asked) > 900 >= engine._launcher.cache_tokens


# --- captured steps ----------------------------------------------------------------------------


def test_rows_held_are_few_numbers_never_far_above() -> None:
    held = [rows_held(rows) for rows in range(1, 1025)]

    assert all(rows <= each <= 2 * rows for rows, each in enumerate(held, 1))
    assert all(each <= 1.25 * rows + 6 for rows, each in enumerate(held, 1))
    assert held == sorted(held)
    assert len(set(held)) < 60


def test_memory_that_runs_out_while_capturing_is_not_taken_for_a_defect() -> None:
    def capture(_: Work) -> Work:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    with pytest.raises(torch.OutOfMemoryError):
        Graphs(capture).run("key", lambda: None)
