from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.domain.endpoints import Endpoint
from pipeline.domain.models import EngineKind, ModelSpec, Recipe
from pipeline.ports.engine import EngineRequest
from pipeline.ports.meters import EngineMeters
from tests.workers.engine.driving import answers, completion, drained, needs_openvino, prompts, text
from tests.workers.floor import ScriptedEngine
from workers.engine import choice, registry
from workers.engine.choice import engine_for
from workers.engine.relay import RelayEngine


def row(n: int) -> EngineRequest:
    return EngineRequest(n, Endpoint.CHAT_COMPLETIONS, {"n": n})


def relay(fast: ScriptedEngine, deputies: list[ScriptedEngine]) -> RelayEngine:
    """Give odd rows to the deputy, of which one at most is loaded."""
    return RelayEngine(fast, deputies.pop, lambda request: request.key % 2 == 1)


def test_each_row_goes_where_it_can_run_and_all_come_back() -> None:
    fast, deputy = ScriptedEngine(), ScriptedEngine()
    engine = relay(fast, [deputy])

    engine.add([row(n) for n in range(6)])
    assert engine.in_flight() == 6

    assert set(drained(engine)) == set(range(6))
    assert (fast.started, deputy.started) == ([0, 2, 4], [1, 3, 5])


def test_a_deputy_nobody_needs_is_never_loaded() -> None:
    deputies = [ScriptedEngine()]
    engine = relay(ScriptedEngine(), deputies)

    engine.add([row(0), row(2)])
    drained(engine)
    engine.close()

    assert len(deputies) == 1


def test_what_waits_beside_the_fast_engine_takes_room_from_it() -> None:
    engine = relay(ScriptedEngine(capacity=4), [ScriptedEngine(capacity=99)])

    engine.add([row(1), row(3), row(0)])

    assert engine.room() == 1
    engine.add([row(n) for n in range(5, 15)])
    assert engine.room() == 0


def test_meters_are_the_sum_of_both_and_unknown_where_one_does_not_know() -> None:
    fast, deputy = ScriptedEngine(), ScriptedEngine()
    fast.meters = lambda: EngineMeters(engine_steps=3, slot_steps=9, tokens_cached=5)  # type: ignore[method-assign]
    deputy.meters = lambda: EngineMeters(engine_steps=4, slot_steps=8)  # type: ignore[method-assign]
    engine = relay(fast, [deputy])
    assert engine.meters() == fast.meters()

    engine.add([row(1)])

    assert engine.meters() == EngineMeters(engine_steps=7, slot_steps=17)


def test_aborted_rows_are_forgotten_on_both_sides() -> None:
    engine = relay(ScriptedEngine(), [ScriptedEngine()])
    engine.add([row(n) for n in range(4)])

    engine.abort([0, 1])

    assert set(drained(engine)) == {2, 3}


@pytest.mark.parametrize(
    ("recipe", "device", "has_openvino", "engine"),
    [
        (Recipe.NATIVE, "cpu", True, EngineKind.OPENVINO),
        (Recipe.NATIVE, "cpu", False, EngineKind.TORCH),
        (Recipe.NATIVE, "cuda:0", True, EngineKind.TORCH),
        (Recipe.BFLOAT16, "cpu", True, EngineKind.TORCH),
        (Recipe.INT4_WEIGHTS, "cpu", True, EngineKind.OPENVINO),
        (Recipe.INT4_WEIGHTS, "cpu", False, EngineKind.OPENVINO),
    ],
)
def test_the_recipe_and_the_device_choose_the_engine(
    recipe: Recipe, device: str, *, has_openvino: bool, engine: EngineKind, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choice, "are_installed", lambda *_: has_openvino)

    assert engine_for(ModelSpec(name="m", source="s", engine=EngineKind.AUTO, recipe=recipe), device) is engine
    assert engine_for(ModelSpec(name="m", source="s", engine=EngineKind.ECHO), device) is EngineKind.ECHO


def spec_of(folder: Path) -> ModelSpec:
    return ModelSpec(name="tiny", source=str(folder), engine=EngineKind.AUTO, options={"slots": 4})


@needs_openvino
def test_a_row_with_penalties_runs_beside_the_fast_engine_and_is_not_refused(
    llama_folder: Path, tmp_path: Path
) -> None:
    engine = registry.load_engine(spec_of(llama_folder), cache_dir=tmp_path, device="cpu", threads=1)
    assert engine.name == "openvino"
    rows = [
        completion(i, prompt, **({"presence_penalty": 1.0} if i == 1 else {})) for i, prompt in enumerate(prompts(4))
    ]

    results = answers(engine, rows)

    assert [result.status_code for _, result in sorted(results.items())] == [200] * 4
    made_by = [result.body["system_fingerprint"].split("-")[0] for _, result in sorted(results.items())]
    assert made_by == ["openvino", "torch", "openvino", "openvino"]


@needs_openvino
def test_what_openvino_cannot_export_runs_on_torch(
    llama_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("workers.engine.openvino_chat.export._SECONDS_MAX", 0.0)

    engine = registry.load_engine(spec_of(llama_folder), cache_dir=tmp_path, device="cpu", threads=1)

    assert engine.name == "torch"
    assert [record.message for record in caplog.records] == ["openvino_cannot_run_this"]
    assert text(answers(engine, [completion(0, "ab")])[0]) is not None
