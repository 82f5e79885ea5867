"""Answers of variants judged between packs: by scripted references here, by real ones at the end."""

from __future__ import annotations

import dataclasses
import logging
import math
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from pipeline.domain.endpoints import Endpoint
from pipeline.domain.errors import ModelUnavailableError, StoreUnavailableError
from pipeline.domain.gates import GateVerdict
from pipeline.domain.models import EngineKind, ModelSpec, Recipe
from pipeline.domain.tiers import Tier
from pipeline.ports.engine import Engine
from pipeline.ports.shadow import Finding, Rollback
from pipeline.ports.variants import Qualification
from storage.database import Database
from storage.shadow import ShadowRepository
from storage.variants import VariantRepository
from tests.services import eventually
from tests.workers.floor import QUIET, Floor, ScriptedEngine
from tests.workers.letters import letters_folder
from workers.engine.registry import load_engine
from workers.gate.answer_reader import GREEDY_BOUNDS, Reading
from workers.gate.sides import Bench
from workers.shadow.judge import JudgeSettings, Reference
from workers.shadow.references import open_reference
from workers.worker import Shadow

EAGER = dataclasses.replace(
    QUIET, shadow_share=1.0, judging=JudgeSettings(time_share=1.0, idle_seconds=0.0, busy_seconds=3600.0)
)
VARIANT = "echo@small"


class Scripted:
    """Makes of every answer what it is told, and remembers which it read."""

    def __init__(self, x: float | None) -> None:
        self.x = x
        self.read_rows: list[tuple[int, int]] = []
        self.closed = 0

    def read(self, endpoint: Endpoint, body: dict[str, Any], answer: dict[str, Any]) -> Reading | None:
        assert endpoint is Endpoint.CHAT_COMPLETIONS
        self.read_rows.append((body["n"], answer["n"]))
        return None if self.x is None else Reading(x=self.x, tokens=3, bounds=GREEDY_BOUNDS)

    def close(self) -> None:
        self.closed += 1


class Forgetful(ShadowRepository):
    """Loses what it is told to record, as a process that is killed does, while `is_lost`."""

    is_lost = True
    tries = 0

    def record(self, findings: Sequence[Finding]) -> tuple[Rollback, ...]:
        self.tries += 1
        if self.is_lost:
            raise StoreUnavailableError("gone")
        return super().record(findings)


def judging(reference: Reference) -> Callable[[Database], Shadow]:
    return lambda database: Shadow(store=ShadowRepository(database), open_reference=lambda _model: reference)


def allow(floor: Floor, variant: str = VARIANT) -> None:
    VariantRepository(floor.world.database).qualify(
        [
            Qualification(variant=variant, tier=tier, verdict=GateVerdict.ALLOWED, gate_key=None, reason="a try")
            for tier in Tier
        ]
    )


def last_words(floor: Floor, variant: str = VARIANT) -> set[GateVerdict]:
    last: dict[Tier, GateVerdict] = {}
    for each in VariantRepository(floor.world.database).qualifications(variant):
        last.setdefault(each.tier, each.verdict)
    return set(last.values())


def judged(floor: Floor) -> int:
    (count,) = floor.world.scalars("SELECT count(*)::int FROM shadow_samples WHERE state <> 'waiting'")
    assert isinstance(count, int)
    return count


def test_rows_of_a_variant_are_judged_when_the_worker_is_idle_and_no_tenant_pays(floor: Floor) -> None:
    reference = Scripted(-0.001)
    floor.batch(12, model=VARIANT)
    floor.batch(5, first=100, ordinal=1.0)

    with floor.working(
        ScriptedEngine(), ScriptedEngine(VARIANT), settings=EAGER, judging=judging(reference)
    ) as running:
        eventually(lambda: judged(floor) == 12)

    assert sorted(reference.read_rows) == [(n, n) for n in range(12)]
    assert reference.closed
    assert "shadow" in floor.spans(running.worker_id)
    assert floor.world.scalars("SELECT DISTINCT account FROM accruals WHERE kind = 'shadow'") == ["overhead:shadow"]
    floor.check_books()


def test_without_a_share_nothing_is_chosen(floor: Floor) -> None:
    reference = Scripted(-1.0)
    floor.batch(12, model=VARIANT)

    with floor.working(
        ScriptedEngine(),
        ScriptedEngine(VARIANT),
        settings=dataclasses.replace(EAGER, shadow_share=0.0),
        judging=judging(reference),
    ):
        floor.await_packs()

    assert floor.world.scalars("SELECT id FROM shadow_samples") == []


def test_a_worker_without_the_reference_leaves_its_samples_to_others(floor: Floor) -> None:
    reference = Scripted(-0.001)
    floor.batch(4, model=VARIANT)

    with floor.working(ScriptedEngine(VARIANT), settings=EAGER, judging=judging(Scripted(None))):
        floor.await_packs()
    assert judged(floor) == 0
    with floor.working(ScriptedEngine(), settings=EAGER, judging=judging(reference)):
        eventually(lambda: judged(floor) == 4)

    assert len(reference.read_rows) == 4


def test_a_worker_that_cannot_open_the_reference_goes_on_working(floor: Floor) -> None:
    tries: list[str] = []

    def refuse(model: str) -> Reference:
        tries.append(model)
        raise ModelUnavailableError("not enough memory")

    floor.batch(4, model=VARIANT)

    with floor.working(
        ScriptedEngine(),
        ScriptedEngine(VARIANT),
        settings=EAGER,
        judging=lambda database: Shadow(store=ShadowRepository(database), open_reference=refuse),
    ) as running:
        eventually(lambda: tries)
        batch, _ = floor.batch(3, ordinal=1.0)
        eventually(lambda: floor.answers(batch))

    assert tries == ["echo"]
    assert not running.errors
    floor.check_books()


def test_a_busy_worker_lets_its_engine_run_empty_for_the_judge_now_and_then(floor: Floor) -> None:
    reference = Scripted(-0.001)
    floor.batch(6, model=VARIANT)
    for number in range(6):
        floor.batch(6, model=VARIANT, first=100 * number, ordinal=1.0 + number)
    # Never idle long enough to look: what is judged is judged between packs.
    judging_settings = JudgeSettings(time_share=1.0, idle_seconds=3600.0, busy_seconds=0.0)

    with floor.working(
        ScriptedEngine(),
        ScriptedEngine(VARIANT),
        settings=dataclasses.replace(EAGER, judging=judging_settings),
        judging=judging(reference),
    ) as running:
        floor.await_packs()

    kinds = floor.spans(running.worker_id)
    assert "shadow" in kinds
    assert "work" in kinds[kinds.index("shadow") :]
    assert judged(floor) == len(reference.read_rows) > 0
    assert floor.rows_done() == 42
    floor.check_books()


def test_what_a_judge_found_and_did_not_record_is_judged_again_and_counts_once(floor: Floor) -> None:
    reference = Scripted(-0.001)
    floor.batch(8, model=VARIANT)
    stores: list[Forgetful] = []

    def losing(database: Database) -> Shadow:
        stores.append(Forgetful(database))
        return Shadow(store=stores[0], open_reference=lambda _model: reference)

    with floor.working(ScriptedEngine(), ScriptedEngine(VARIANT), settings=EAGER, judging=losing):
        eventually(lambda: stores[0].tries)
    assert judged(floor) == 0
    floor.world.execute("UPDATE shadow_samples SET claimed_until = now()")
    with floor.working(ScriptedEngine(), settings=EAGER, judging=judging(reference)):
        eventually(lambda: judged(floor) == 8)

    assert len(reference.read_rows) == 16
    (first, *_) = ShadowRepository(floor.world.database).watched(VARIANT)
    assert first.watch.samples == 8


def test_an_answer_that_cannot_be_read_is_dropped_and_none_of_it_is_logged(
    floor: Floor, caplog: pytest.LogCaptureFixture
) -> None:
    class Fussy(Scripted):
        def read(self, endpoint: Endpoint, body: dict[str, Any], answer: dict[str, Any]) -> Reading | None:
            if body["n"] == 3:
                raise ValueError("a tenant's secret")
            return super().read(endpoint, body, answer)

    floor.batch(6, model=VARIANT)

    with (
        caplog.at_level(logging.DEBUG),
        floor.working(ScriptedEngine(), ScriptedEngine(VARIANT), settings=EAGER, judging=judging(Fussy(-0.001))),
    ):
        eventually(lambda: judged(floor) == 6)

    assert floor.world.scalars("SELECT position FROM shadow_samples WHERE state = 'dropped'") == [3]
    assert "answer_not_read" in caplog.text
    assert "secret" not in caplog.text


def test_a_reference_that_says_no_number_and_cannot_be_closed_costs_nothing_but_the_sample(floor: Floor) -> None:
    class Broken(Scripted):
        def close(self) -> None:
            super().close()
            raise RuntimeError("neither this")

    reference = Broken(math.nan)
    floor.batch(3, model=VARIANT)

    with floor.working(
        ScriptedEngine(), ScriptedEngine(VARIANT), settings=EAGER, judging=judging(reference)
    ) as running:
        eventually(lambda: judged(floor) == 3 and reference.closed)

    assert not running.errors
    assert floor.world.scalars("SELECT DISTINCT state FROM shadow_samples") == ["dropped"]
    assert ShadowRepository(floor.world.database).watched(VARIANT) == ()


def test_a_worker_told_to_stop_does_not_finish_its_turn(floor: Floor) -> None:
    reading, go_on = threading.Event(), threading.Event()

    class Slow(Scripted):
        def read(self, endpoint: Endpoint, body: dict[str, Any], answer: dict[str, Any]) -> Reading | None:
            reading.set()
            go_on.wait(30)
            return super().read(endpoint, body, answer)

    reference = Slow(-0.001)
    floor.batch(10, model=VARIANT)

    with floor.working(
        ScriptedEngine(), ScriptedEngine(VARIANT), settings=EAGER, judging=judging(reference)
    ) as running:
        assert reading.wait(30)
        running.must_stop.set()
        go_on.set()
        running.join()

    assert len(reference.read_rows) == judged(floor) == 1
    floor.check_books()


@pytest.mark.parametrize(("x", "word"), [(-0.3, GateVerdict.REJECTED), (-0.001, GateVerdict.ALLOWED)])
def test_a_broken_variant_is_rolled_back_by_itself_and_a_healthy_one_is_not(
    floor: Floor, x: float, word: GateVerdict
) -> None:
    allow(floor)
    floor.batch(10, model=VARIANT)

    with floor.working(ScriptedEngine(), ScriptedEngine(VARIANT), settings=EAGER, judging=judging(Scripted(x))):
        eventually(lambda: judged(floor) == 10)
        served = {serving.variant for pool in floor.world.cycles.snapshot().pools for serving in pool.servings}

    assert last_words(floor) == {word}
    assert (VARIANT in served) == (word is GateVerdict.ALLOWED)


# --- real engines ------------------------------------------------------------------------------


def ask(temperature: float) -> Callable[[int], dict[str, object]]:
    def body(n: int) -> dict[str, object]:
        message = {"role": "user", "content": f"row {n * 7919 % 1000}"}
        return {"messages": [message], "max_tokens": 12, "temperature": temperature, "n": 1}

    return body


@pytest.mark.parametrize(("label", "noise"), [("broken", 0.2), ("healthy", 0.0005)])
@pytest.mark.parametrize("temperature", [0, 1])
def test_with_real_models_corrupted_weights_are_found_out_and_small_changes_are_not(
    floor: Floor, tmp_path: Path, label: str, noise: float, temperature: float
) -> None:
    variant = f"tiny@{label}"
    folders = {"tiny": letters_folder(tmp_path / "whole"), variant: letters_folder(tmp_path / label, noise=noise)}

    def spec(name: str) -> ModelSpec:
        return ModelSpec(name="tiny", source=str(folders[name]), engine=EngineKind.TORCH, recipe=Recipe.FLOAT32)

    def load(name: str) -> Engine:
        return load_engine(spec(name), cache_dir=tmp_path / "cache", device="cpu", threads=1)

    def opened(model: str) -> Reference:
        return open_reference(spec(model), Bench(cache_dir=tmp_path / "cache", device="cpu", threads=1))

    allow(floor, variant)
    rows = 60
    batch = floor.admit(rows, model="tiny", more=ask(temperature))
    floor.dispatch((batch, 0, 0, rows), model=variant)

    with floor.working(
        load=load,
        models=("tiny", variant),
        settings=EAGER,
        judging=lambda database: Shadow(store=ShadowRepository(database), open_reference=opened),
    ):
        eventually(lambda: judged(floor) == rows, seconds=60)

    words = last_words(floor, variant)
    (urgent, *_) = ShadowRepository(floor.world.database).watched(variant)
    assert urgent.watch.samples > rows / 2
    assert words == ({GateVerdict.REJECTED} if label == "broken" else {GateVerdict.ALLOWED}), urgent.watch.mean_points
