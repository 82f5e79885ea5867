from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from pipeline.domain.endpoints import Endpoint
from pipeline.domain.errors import ModelUnavailableError
from pipeline.ports.engine import Engine, EngineRequest, EngineResult
from tests.workers.floor import ScriptedEngine
from workers.bench.workload import chat_requests, mixed_asks
from workers.engine.torch_chat.memory import is_out_of_memory
from workers.tune.ceiling import rows_ceiling
from workers.tune.probing import Patience
from workers.tune.search import Probe
from workers.tune.tuner import Tuned, tune


class Device:
    """A clock, and engines whose steps take what they would on it; at most `fits` rows have memory."""

    def __init__(self, *, alpha: float = 10.0, beta: float = 0.1, fits: int = 10_000, says: str = "") -> None:
        self.now = 0.0
        self.alpha = alpha
        self.beta = beta
        self.fits = fits
        self.says = says
        self.loaded: list[int] = []
        self.closed = 0

    def load(self, size: int) -> Engine:
        self.loaded.append(size)
        return SteppingEngine(self, size)

    def tuned(self, **more: object) -> Tuned:
        arguments = {
            "ceiling": 4096,
            "now": lambda: self.now,
            "patience": Patience(window_seconds=100.0),
            "on_probe": lambda _probe: None,
            **more,
        }
        return tune(self.load, rows_for, **arguments)  # type: ignore[arg-type] # as the tests give them


def rows_for(engine: Engine) -> Iterator[EngineRequest]:
    return chat_requests(mixed_asks(), model=engine.model, endpoint=Endpoint.CHAT_COMPLETIONS)


class SteppingEngine(ScriptedEngine):
    """Every row takes four steps, and every step its time."""

    def __init__(self, device: Device, size: int) -> None:
        super().__init__(capacity=size)
        self.device = device
        self.ages: dict[int, int] = {}

    def add(self, requests: Sequence[EngineRequest]) -> None:
        self.rows += requests

    def step(self) -> Sequence[EngineResult]:
        if len(self.rows) > self.device.fits:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
        if self.device.says:
            raise RuntimeError(self.device.says)
        self.device.now += self.device.alpha + self.device.beta * len(self.rows)
        ended = []
        for row in self.rows:
            self.ages[row.key] = self.ages.get(row.key, 0) + 1
            if self.ages[row.key] == 4:
                ended.append(EngineResult(row.key, 200, {}, 30, 10))
        gone = {result.key for result in ended}
        self.rows = [row for row in self.rows if row.key not in gone]
        return ended

    def close(self) -> None:
        self.device.closed += 1


def test_it_finds_a_batch_that_is_nearly_as_fast_as_any() -> None:
    device = Device()

    found = device.tuned()

    fastest = 4096 / (10.0 + 0.1 * 4096)
    assert found.best.size / (10.0 + 0.1 * found.best.size) >= 0.95 * fastest
    assert len(found.probes) <= 10
    assert device.closed == len(device.loaded) == len(found.probes)


def test_speeds_are_tokens_of_prompts_and_answers_a_second() -> None:
    found = Device(alpha=0.0, beta=0.1).tuned()

    # Four steps of 0.1 s a row, 40 tokens a row.
    assert found.best.speed == pytest.approx(40 / (4 * 0.1), rel=0.05)


def test_sizes_that_run_out_of_memory_are_passed_over() -> None:
    found = Device(fits=50).tuned()

    assert found.best.size <= 50
    assert any(probe.tokens_per_second is None for probe in found.probes)


def test_where_even_one_row_does_not_fit_it_says_so() -> None:
    with pytest.raises(ModelUnavailableError, match="out of memory even with 1 rows"):
        Device(fits=0).tuned()


def test_an_error_that_is_not_about_memory_is_not_taken_for_it() -> None:
    device = Device(says="an illegal memory access was encountered")

    with pytest.raises(RuntimeError, match="illegal"):
        device.tuned()
    assert device.closed == 1


def test_rows_that_are_refused_end_the_tuning_with_what_was_said() -> None:
    class Refusing(SteppingEngine):
        def step(self) -> Sequence[EngineResult]:
            return [EngineResult(row.key, 400, {"error": {"message": "no chat here"}}, 0, 0) for row in self.rows]

    device = Device()
    device.load = lambda size: Refusing(device, size)  # type: ignore[method-assign]

    with pytest.raises(ModelUnavailableError, match="no chat here"):
        device.tuned()


def test_each_measurement_is_told() -> None:
    told: list[Probe] = []

    found = Device().tuned(on_probe=told.append)

    assert tuple(told) == found.probes


def test_running_out_of_memory_is_known_by_its_words() -> None:
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(RuntimeError("HIP out of memory"))
    assert not is_out_of_memory(RuntimeError("shape mismatch"))


def test_the_ceiling_is_what_keys_and_values_leave_room_for(tmp_path: Path) -> None:
    config = {"num_attention_heads": 8, "num_key_value_heads": 2, "hidden_size": 512, "num_hidden_layers": 4}
    (tmp_path / "config.json").write_text(json.dumps(config))
    bytes_per_token = 2 * 4 * 2 * 64 * 4

    rows = rows_ceiling(tmp_path, cache_bytes=bytes_per_token * 1200, prompt_tokens=100, output_tokens=40)

    assert rows == 10


def test_the_workload_is_the_same_for_everyone() -> None:
    first, second = mixed_asks(), mixed_asks()

    asks = [next(first) for _ in range(500)]
    assert asks == [next(second) for _ in range(500)]
    assert {ask.output_tokens for ask in asks} == {16, 24, 32, 48, 64, 96, 128}
    words = sorted(len(ask.prompt.split()) for ask in asks)
    assert words[0] < 20
    assert words[-1] > 250
