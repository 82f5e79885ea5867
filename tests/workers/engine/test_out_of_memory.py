from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.domain.models import EngineKind, ModelSpec, Recipe
from pipeline.ports.engine import EngineRequest, EngineResult
from tests.workers.engine.driving import answers, completion, drained, prompts, text
from workers.engine.registry import load_engine
from workers.engine.torch_chat.decoder import Decoder, Prefill
from workers.engine.torch_chat.memory import ADVANCE, CLEAN_PASSES, MemoryLimit, is_out_of_memory

Load = Callable[..., Any]


class ShortDecoder:
    """A decoder that runs out of memory now and then: before the model is run, or after, with the cache written."""

    def __init__(self, decoder: Decoder, fails: Callable[[int, int], bool]) -> None:
        self._decoder = decoder
        self._fails = fails
        self.failures = 0

    def __getattr__(self, name: str) -> object:
        return getattr(self._decoder, name)

    def forward(self, tokens: list[int], positions: list[int], prefills: Sequence[Prefill]) -> torch.Tensor:
        cache = self._decoder.cache
        is_short = self._fails(len(tokens) + len(prefills), cache.slots * cache.tokens)
        if is_short and self.failures % 2:
            self._fail()
        logits: torch.Tensor = self._decoder.forward(tokens, positions, prefills)
        if is_short:
            self._fail()
        return logits

    def _fail(self) -> None:
        self.failures += 1
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def rows(count: int) -> list[EngineRequest]:
    kinds = ({}, {"temperature": 1.1}, {"frequency_penalty": 0.7}, {"stop": ["e"]})
    return [completion(i, t, max_tokens=3 + 5 * (i % 5), **kinds[i % 4]) for i, t in enumerate(prompts(count))]


def seldom(seed: int) -> Callable[[int, int], bool]:
    rng = random.Random(seed)
    in_a_row = 0

    def fails(_: int, __: int) -> bool:
        nonlocal in_a_row
        in_a_row = in_a_row + 1 if rng.random() < 0.25 and in_a_row < 2 else 0
        return in_a_row > 0

    return fails


@pytest.fixture(scope="module")
def undisturbed(llama_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, EngineResult]:
    spec = ModelSpec(
        name="tiny", source=str(llama_folder), engine=EngineKind.TORCH, recipe=Recipe.FLOAT32, options={"slots": 5}
    )
    return answers(load_engine(spec, cache_dir=tmp_path_factory.mktemp("undisturbed"), device="cpu"), rows(16))


@pytest.mark.parametrize("seed", range(12))
def test_memory_that_runs_out_at_any_point_changes_no_answer_and_loses_no_row(
    seed: int, load: Load, llama_folder: Path, undisturbed: dict[int, EngineResult]
) -> None:
    engine = load(llama_folder, slots=5)
    engine._decoder = short = ShortDecoder(engine._decoder, seldom(seed))

    engine.add(rows(16))
    results = []
    while engine.in_flight():
        results += engine.step()

    assert short.failures > 3
    assert sorted(result.key for result in results) == list(range(16))
    assert {r.key: (text(r), r.output_tokens) for r in results} == {
        key: (text(r), r.output_tokens) for key, r in undisturbed.items()
    }


def test_fewer_rows_run_together_where_all_do_not_fit(load: Load, llama_folder: Path) -> None:
    engine = load(llama_folder, slots=8, ignore_end=True)
    engine._decoder = short = ShortDecoder(engine._decoder, lambda _, tokens: tokens > 3 * 128)

    results = answers(engine, [completion(i, "abc", max_tokens=20) for i in range(20)])

    assert {result.output_tokens for result in results.values()} == {20}
    assert 0 < short.failures < 8


def test_a_row_too_large_alone_is_that_rows_error_and_the_others_finish(load: Load, llama_folder: Path) -> None:
    engine = load(llama_folder, slots=4)
    engine._decoder = ShortDecoder(engine._decoder, lambda _, tokens: tokens > 128)

    results = answers(engine, [completion(0, "x" * 200)] + [completion(i, "abc") for i in range(1, 6)])

    assert results[0].status_code == 500
    assert results[0].body["error"]["code"] == "out_of_memory"
    assert [results[i].status_code for i in range(1, 6)] == [200] * 5


def test_another_defect_of_the_model_is_not_taken_for_memory(load: Load, llama_folder: Path) -> None:
    engine = load(llama_folder)

    def broken(*_: object) -> torch.Tensor:
        raise RuntimeError("device-side assert triggered")

    engine._decoder.forward = broken
    engine.add([completion(0, "abc")])

    with pytest.raises(RuntimeError, match="assert"):
        engine.step()


def test_an_aborted_row_that_was_put_back_does_not_come_back(load: Load, llama_folder: Path) -> None:
    engine = load(llama_folder, slots=4)
    plan = iter([True] + [False] * 999)
    engine._decoder = ShortDecoder(engine._decoder, lambda *_: next(plan))
    engine.add(rows(6))
    engine.step()

    engine.abort([1, 4])

    assert set(drained(engine)) == {0, 2, 3, 5}


# --- the limit ---------------------------------------------------------------------------------


def test_the_limit_falls_at_once_and_recovers_step_by_step_below_what_failed() -> None:
    limit = MemoryLimit(1_000)
    limit.note_failure(800, None)
    assert limit.bytes_max == 560

    for _ in range(CLEAN_PASSES - 1):
        limit.note_clean()
    assert limit.bytes_max == 560
    limit.note_clean()
    assert limit.bytes_max == int(560 * ADVANCE) + 1

    for _ in range(100 * CLEAN_PASSES):
        limit.note_clean()
    assert limit.bytes_max == 760


def test_a_failure_starts_the_count_of_clean_passes_anew() -> None:
    limit = MemoryLimit(1_000)
    limit.note_failure(900, None)
    for _ in range(CLEAN_PASSES - 1):
        limit.note_clean()
    limit.note_failure(600, None)
    limit.note_clean()

    assert limit.bytes_max == 420


def test_a_row_is_given_up_after_failing_alone_again_and_again_only() -> None:
    limit = MemoryLimit(1_000)

    assert [limit.note_failure(500, 7) for _ in range(2)] == [None, None]
    limit.note_clean()
    assert [limit.note_failure(500, key) for key in (7, 8, 7, 7)] == [None] * 4
    assert limit.note_failure(500, 7) == 7
    assert limit.bytes_max == 1_000


@pytest.mark.parametrize(
    ("error", "is_short"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (MemoryError(), True),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 4 bytes"),
            True,
        ),
        (RuntimeError("CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"), True),
        (RuntimeError("shape mismatch"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_shortage_of_memory_is_told_from_other_errors(error: Exception, is_short: bool) -> None:  # noqa: FBT001 -- a table
    assert is_out_of_memory(error) == is_short
