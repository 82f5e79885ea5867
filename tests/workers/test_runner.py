from __future__ import annotations

import dataclasses
import logging
import threading
from collections.abc import Sequence

import pytest

from pipeline.domain.errors import ModelUnavailableError
from pipeline.ports.engine import EngineRequest
from pipeline.ports.packs import PackStore
from tests.services import eventually
from tests.workers.floor import QUIET, Floor, ScriptedEngine
from workers import committer


def test_every_row_is_answered_once_and_the_ledger_holds_the_workers_whole_life(floor: Floor) -> None:
    first, second = floor.admit(30, 20), floor.admit(10, first=100)
    floor.dispatch((first, 0, 0, 30), (first, 1, 0, 5))
    floor.dispatch((first, 1, 5, 20), (second, 0, 0, 10), ordinal=1.0)

    with floor.working(ScriptedEngine(capacity=7)) as running:
        floor.await_packs()

    assert floor.answers(first) == {(0, n): n for n in range(30)} | {(1, n): 30 + n for n in range(20)}
    assert floor.answers(second) == {(0, n): 100 + n for n in range(10)}
    assert floor.world.scalars("SELECT DISTINCT state FROM packs") == ["committed"]
    spans = floor.spans(running.worker_id)
    assert spans[0] == "boot"
    assert spans[-1] == "drain"
    assert {"load", "work"} <= set(spans)
    assert not running.errors
    floor.check_books()


def test_a_poison_row_is_convicted_and_neither_its_pack_nor_its_neighbours_pay(floor: Floor) -> None:
    batch, _ = floor.batch(8)
    neighbour, _ = floor.batch(1, first=100, ordinal=1.0)

    def load(model: str) -> ScriptedEngine:
        return ScriptedEngine(model, poison=frozenset({5}))

    with floor.working(load=load, models=("echo",)) as running:
        floor.await_rows(8)
        eventually(floor.convictor.run_once)

    assert floor.answers(batch) == {(0, n): n for n in range(8) if n != 5}
    assert floor.answers(neighbour) == {(0, 0): 100}
    error = floor.results(batch)[0, 5]["error"]
    assert error["code"] == "engine_crashed"
    assert "poison" in error["message"]
    assert "retried" in floor.spans(running.worker_id)
    floor.check_books()


def test_of_two_single_rows_that_crash_together_only_the_guilty_one_is_convicted(floor: Floor) -> None:
    innocent, pack = floor.batch(1, first=1)
    floor.batch(1, first=5, ordinal=1.0)
    engine = ScriptedEngine(poison=frozenset())
    engine.shut()
    guilty = ScriptedEngine(poison=frozenset({5}))
    engines = iter([engine])

    with floor.working(load=lambda _model: next(engines, guilty), models=("echo",)):
        eventually(lambda: sorted(engine.started) == [1, 5])
        engine.poison = guilty.poison
        floor.await_rows(1)
        eventually(floor.convictor.run_once)

    assert floor.world.scalars("SELECT failures FROM packs WHERE id = :id", id=pack) == [1]
    assert floor.answers(innocent) == {(0, 0): 1}
    floor.check_books()


def test_a_preempted_worker_hands_back_without_a_failure_and_another_finishes(floor: Floor) -> None:
    batch, pack = floor.batch(8)
    engine = ScriptedEngine()
    engine.shut(after=3)

    with floor.working(engine) as running:
        floor.await_rows(3)
        floor.world.workers.tell_to_stop()
        running.beat()
        running.join()
    assert floor.world.scalars("SELECT failures FROM packs WHERE id = :id", id=pack) == [0]
    assert floor.world.scalars("SELECT outcome FROM attempts") == ["preempted"]
    assert "preempted" in floor.spans(running.worker_id)
    with floor.working(ScriptedEngine()):
        floor.await_packs()

    assert floor.answers(batch) == {(0, n): n for n in range(8)}
    floor.check_books()


def test_a_draining_worker_lets_rows_in_flight_finish(floor: Floor) -> None:
    floor.batch(4)
    engine = ScriptedEngine()
    engine.shut()

    with floor.working(engine, settings=dataclasses.replace(QUIET, drain_seconds=30.0)) as running:
        eventually(lambda: len(engine.started) == 4)
        running.must_stop.set()
        engine.open()
        running.join()

    assert floor.rows_done() == 4
    assert floor.world.scalars("SELECT state FROM packs") == ["committed"]
    floor.check_books()


def test_a_worker_that_runs_again_what_it_lost_commits_only_under_the_new_lease(floor: Floor) -> None:
    batch, pack = floor.batch(4)
    engine = ScriptedEngine()
    engine.shut()

    with floor.working(engine) as running:
        eventually(lambda: len(engine.started) == 4)
        floor.world.expire(pack)
        floor.world.cycles.rescue(floor.world.leadership.epoch)
        # It does not know yet, and leases nothing that has failed while it holds another.
        engine.open()
        floor.await_packs()
        assert not running.worker._heart._kept_at or list(running.worker._heart._kept_at) == [(pack, 2)]

    assert floor.answers(batch) == {(0, n): n for n in range(4)}
    assert floor.world.scalars("SELECT outcome FROM attempts ORDER BY lease_token") == ["lease_lost", "succeeded"]
    assert floor.world.scalars("SELECT lease_token FROM parts") == [2]
    assert "late" in floor.spans(running.worker_id)
    floor.check_books()


def test_rows_of_a_lease_that_the_heart_reports_lost_are_dropped_from_the_engine(floor: Floor) -> None:
    batch, pack = floor.batch(4)
    engine = ScriptedEngine()
    engine.shut()

    with floor.working(engine) as running:
        eventually(lambda: len(engine.started) == 4)
        floor.world.expire(pack)
        floor.world.cycles.rescue(floor.world.leadership.epoch)
        running.beat()
        eventually(lambda: len(engine.aborted) == 4)
        engine.open()
        floor.await_packs()

    assert floor.answers(batch) == {(0, n): n for n in range(4)}
    assert "late" in floor.spans(running.worker_id)
    floor.check_books()


def test_rows_of_a_cancelled_batch_are_not_started(floor: Floor) -> None:
    batch, _ = floor.batch(10)
    engine = ScriptedEngine(capacity=2)
    engine.shut()

    with floor.working(engine) as running:
        eventually(lambda: len(engine.started) == 2)
        floor.world.execute("UPDATE batches SET state = 'cancelling', cancelling_at = now() WHERE id = :id", id=batch)
        running.beat()
        engine.open()
        floor.await_packs()

    assert len(engine.started) == 2
    assert floor.rows_done() == 2
    floor.check_books()


def test_two_models_take_turns_on_one_device(floor: Floor) -> None:
    models = ["echo", "other"] * 3
    batches = [floor.batch(3, model=model, ordinal=100.0 * n)[0] for n, model in enumerate(models)]

    with floor.working(ScriptedEngine(), ScriptedEngine("other")) as running:
        floor.await_packs()

    assert all(floor.answers(batch) == {(0, n): n for n in range(3)} for batch in batches)
    assert floor.spans(running.worker_id).count("load") == len(models)
    floor.check_books()


def test_packs_of_nearly_equal_claims_are_run_model_by_model(floor: Floor) -> None:
    models = ["echo", "other"] * 3
    batches = [floor.batch(3, model=model, ordinal=float(n))[0] for n, model in enumerate(models)]

    with floor.working(ScriptedEngine(), ScriptedEngine("other")) as running:
        floor.await_packs()

    assert all(floor.answers(batch) == {(0, n): n for n in range(3)} for batch in batches)
    assert floor.spans(running.worker_id).count("load") == 2
    floor.check_books()


def test_rows_whose_parts_are_refused_are_handed_back_and_run_again(floor: Floor) -> None:
    batch, pack = floor.batch(4)
    floor.objects.refusals = 2

    with floor.working(ScriptedEngine()):
        floor.await_packs()

    assert floor.answers(batch) == {(0, n): n for n in range(4)}
    assert floor.world.scalars("SELECT failures FROM packs WHERE id = :id", id=pack) == [0]
    outcomes = floor.world.scalars("SELECT outcome FROM attempts ORDER BY lease_token")
    assert outcomes == ["preempted", "preempted", "succeeded"]
    floor.check_books()


def test_results_too_large_for_one_part_are_committed_in_several(floor: Floor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(committer, "PART_BYTES_MAX", 300)
    batch, _ = floor.batch(9)

    with floor.working(ScriptedEngine()):
        floor.await_packs()

    assert floor.answers(batch) == {(0, n): n for n in range(9)}
    rows = floor.world.scalars("SELECT rows_succeeded FROM parts")
    assert len(rows) > 2
    assert floor.world.scalars("SELECT count(*) FROM attempts") == [1]
    floor.check_books()


def test_nothing_more_is_computed_for_a_pack_whose_parts_are_refused(floor: Floor) -> None:
    floor.batch(1000)
    floor.objects.refusals = 1
    engine = ScriptedEngine(capacity=1)
    engine.shut(after=1)
    settings = dataclasses.replace(QUIET, commit_seconds=0.0, poll_seconds=600.0)

    with floor.working(engine, settings=settings):
        eventually(lambda: floor.world.scalars("SELECT outcome FROM attempts") == ["preempted"])

    assert len(engine.started) == 2


def test_a_pack_whose_shard_cannot_be_read_is_handed_back_until_it_can(floor: Floor) -> None:
    batch = floor.admit(2, is_stored=False)
    floor.dispatch((batch, 0, 0, 2))
    whole = floor.admit(2)

    with floor.working(ScriptedEngine()):
        eventually(lambda: floor.world.scalars("SELECT 1 FROM attempts WHERE error LIKE 'object_missing%'"))
        key = floor.world.scalars("SELECT object_key FROM shards WHERE batch_id = :id", id=batch)[0]
        twin = floor.world.scalars("SELECT object_key FROM shards WHERE batch_id = :id", id=whole)[0]
        floor.objects.put(str(key), floor.objects.read(str(twin)))
        floor.await_packs()

    assert floor.answers(batch) == {(0, 0): 0, (0, 1): 1}
    assert floor.world.scalars("SELECT failures FROM packs") == [0]


@pytest.mark.parametrize("error", [ModelUnavailableError("not enough memory"), RuntimeError("CUDA out of memory")])
def test_a_model_that_cannot_be_loaded_is_left_to_another_worker(floor: Floor, error: Exception) -> None:
    batches = [floor.batch(3)[0], floor.batch(3)[0]]
    tries: list[str] = []

    def load(model: str) -> ScriptedEngine:
        tries.append(model)
        raise error

    with floor.working(load=load, models=("echo",)) as running:
        eventually(lambda: floor.world.scalars("SELECT variants FROM workers") == [{}])
        eventually(lambda: floor.world.scalars("SELECT 1 FROM packs WHERE state = 'leased'") == [])
        with floor.working(ScriptedEngine()):
            floor.await_packs()

    assert tries == ["echo"]
    assert all(floor.answers(batch) == {(0, n): n for n in range(3)} for batch in batches)
    assert floor.world.scalars("SELECT DISTINCT failures FROM packs") == [0]
    assert "load" in floor.spans(running.worker_id)
    floor.check_books()


def test_an_engine_that_raises_when_rows_are_added_fails_its_pack_and_not_the_worker(floor: Floor) -> None:
    class Fussy(ScriptedEngine):
        def add(self, requests: Sequence[EngineRequest]) -> None:
            del requests
            raise ValueError("no")

        def close(self) -> None:
            raise RuntimeError("neither this")

    batch, _ = floor.batch(2)
    engines = iter([Fussy()])

    with floor.working(load=lambda _model: next(engines, ScriptedEngine()), models=("echo",)):
        floor.await_rows(2)
        floor.await_packs()

    assert floor.answers(batch) == {(0, 0): 0, (0, 1): 1}
    assert floor.world.scalars("SELECT outcome FROM attempts ORDER BY lease_token") == ["failed", "succeeded"]
    floor.check_books()


def test_a_result_that_is_no_json_fails_its_pack_and_not_the_worker(floor: Floor) -> None:
    floor.batch(1)
    engine = ScriptedEngine()
    engine.answer = lambda _row: {"n": "\ud800"}

    with floor.working(engine) as running:
        eventually(lambda: floor.world.scalars("SELECT 1 FROM attempts WHERE outcome = 'failed'"))

    assert not running.errors
    floor.check_books()


def test_a_pack_without_rows_left_is_simply_ended(floor: Floor) -> None:
    batch, _ = floor.batch(2)
    floor.world.execute("UPDATE batches SET state = 'cancelling', cancelling_at = now() WHERE id = :id", id=batch)
    engine = ScriptedEngine()

    with floor.working(engine):
        floor.await_packs()

    assert engine.started == []
    floor.check_books()


def test_a_pack_is_found_without_a_hint_and_an_idle_worker_stops_at_once(floor: Floor) -> None:
    with floor.working(ScriptedEngine()) as running:
        eventually(lambda: floor.world.scalars("SELECT state FROM workers") == ["ready"])
        floor.batch(2)
        floor.await_packs()
        running.stop()

    settings = dataclasses.replace(QUIET, poll_seconds=600.0)
    with floor.working(ScriptedEngine(), settings=settings) as running:
        eventually(lambda: floor.world.scalars("SELECT count(*) FROM workers WHERE state = 'ready'") == [1])
        running.stop()

    assert not running.errors
    floor.check_books()


def test_a_hint_makes_a_worker_look_at_once(floor: Floor) -> None:
    settings = dataclasses.replace(QUIET, poll_seconds=600.0)
    with floor.working(ScriptedEngine(), settings=settings) as running:
        eventually(lambda: floor.world.scalars("SELECT state FROM workers") == ["ready"])
        batch, _ = floor.batch(2)
        running.worker.wake()
        floor.await_packs()

    assert floor.answers(batch) == {(0, 0): 0, (0, 1): 1}


class Flaky:
    """A pack store with one method that raises what nobody expects, once."""

    def __init__(self, packs: PackStore, method: str) -> None:
        self._packs = packs
        self._method = method
        self._raised = threading.Event()

    def __getattr__(self, name: str) -> object:
        if name == self._method and not self._raised.is_set():
            self._raised.set()
            raise RuntimeError("what nobody expects")
        return getattr(self._packs, name)


def test_a_lease_that_fails_unexpectedly_is_tried_again(floor: Floor) -> None:
    floor.batch(2)

    with floor.working(ScriptedEngine(), around=lambda packs: Flaky(packs, "lease")) as running:  # type: ignore[arg-type,return-value] # it stands in for any store
        floor.await_packs()

    assert floor.rows_done() == 2
    assert not running.errors


def test_a_worker_whose_books_break_ends_and_says_so_instead_of_hanging(floor: Floor) -> None:
    for ordinal in range(4):
        floor.batch(50, ordinal=float(ordinal))
    engine = ScriptedEngine(capacity=1)
    settings = dataclasses.replace(QUIET, commit_seconds=0.0)

    with floor.working(engine, settings=settings, around=lambda packs: Flaky(packs, "commit")) as running:  # type: ignore[arg-type,return-value] # as above
        running.join()

    assert [str(error) for error in running.errors] == ["what nobody expects"]
    assert running.worker._feed.is_stopped()
    assert floor.world.scalars("SELECT state FROM workers") == ["draining"]


def test_a_worker_whose_runner_breaks_leases_nothing_more(floor: Floor, monkeypatch: pytest.MonkeyPatch) -> None:
    for ordinal in range(4):
        floor.batch(5, ordinal=float(ordinal))
    engine = ScriptedEngine()
    engine.shut()

    with floor.working(engine) as running:
        eventually(lambda: engine.started)

        def break_down() -> frozenset[str]:
            raise RuntimeError("a bug")

        monkeypatch.setattr(running.worker._heart, "is_lost", lambda *_: break_down())
        running.join()

    assert [str(error) for error in running.errors] == ["a bug"]
    assert running.worker._feed.is_stopped()


def test_every_attempt_says_what_ran_and_what_it_used_and_every_row_leads_to_it(floor: Floor) -> None:
    first, _ = floor.batch(30)
    second, _ = floor.batch(20, first=100, ordinal=1.0)
    engine = ScriptedEngine(capacity=8)

    with floor.working(engine):
        floor.await_packs()

    (row,) = floor.world.rows("""
        SELECT sum(engine_steps) AS steps, sum(slot_steps_busy) AS busy, sum(slot_steps) AS slots,
               bool_and(engine_us > 0 AND cpu_us > 0 AND memory_peak_bytes > 0 AND bubble_us >= 0) AS are_metered,
               bool_and(energy_millijoules IS NULL AND tokens_padding IS NULL) AS are_unknown
          FROM attempts""")
    assert (row.steps, row.busy, row.slots) == (engine.steps, engine.busy, engine.steps * 8)
    assert row.are_metered
    assert row.are_unknown
    fingerprints = floor.world.scalars("""
        SELECT fingerprint || ' ' || device FROM part_slices JOIN parts ON parts.id = part_id
          JOIN attempts USING (pack_id, lease_token), LATERAL unnest(rows) AS slice,
               LATERAL generate_series(lower(slice), upper(slice) - 1)""")
    assert fingerprints == ["scripted-1-none-0123456789ab cpu"] * 50
    assert len(floor.answers(first)) + len(floor.answers(second)) == 50


def test_an_attempt_that_was_lost_still_says_what_it_used(floor: Floor) -> None:
    _, pack = floor.batch(4)
    engine = ScriptedEngine()
    engine.shut()

    with floor.working(engine) as running:
        eventually(lambda: len(engine.started) == 4)
        floor.world.expire(pack)
        floor.world.cycles.rescue(floor.world.leadership.epoch)
        running.beat()
        eventually(lambda: len(engine.aborted) == 4)
        engine.open()
        floor.await_packs()

    outcomes = floor.world.rows("SELECT outcome, engine_steps FROM attempts ORDER BY lease_token")
    assert [row.outcome for row in outcomes] == ["lease_lost", "succeeded"]
    assert all(row.engine_steps > 0 for row in outcomes)
    assert sum(row.engine_steps for row in outcomes) == engine.steps


def test_an_attempt_that_failed_says_what_ran_and_one_that_was_never_read_that_nothing_did(floor: Floor) -> None:
    floor.batch(1, first=5)
    lost = floor.admit(1, is_stored=False)
    floor.dispatch((lost, 0, 0, 1), ordinal=1.0)

    with floor.working(load=lambda model: ScriptedEngine(model, poison=frozenset({5})), models=("echo",)):
        seen = "SELECT DISTINCT outcome FROM attempts WHERE outcome IS NOT NULL"
        eventually(lambda: set(floor.world.scalars(seen)) == {"failed", "unread"})

    found = floor.world.rows("SELECT DISTINCT outcome, fingerprint FROM attempts ORDER BY outcome")
    assert [(row.outcome, row.fingerprint) for row in found if row.outcome in {"failed", "unread"}] == [
        ("failed", "scripted-1-none-0123456789ab"),
        ("unread", None),
    ]


def test_the_engines_figures_are_logged_once_a_pack(floor: Floor, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="workers.committer")
    _, pack = floor.batch(3)

    with floor.working(ScriptedEngine()):
        floor.await_packs()

    (record,) = [record for record in caplog.records if record.message == "pack_metered"]
    fields = vars(record)
    assert (fields["pack_id"], fields["outcome"], fields["model"]) == (pack, "succeeded", "echo")
    assert fields["fingerprint"] == "scripted-1-none-0123456789ab"
    assert fields["engine_steps"] >= 1
    assert "energy_millijoules" not in fields


def test_a_worker_whose_machine_is_taken_drains_and_says_so(floor: Floor) -> None:
    notice = threading.Event()
    with floor.working(ScriptedEngine(), was_interrupted=notice.is_set) as running:
        eventually(lambda: floor.world.scalars("SELECT 1 FROM workers WHERE state = 'ready'"))
        notice.set()
        running.thread.join()

    assert floor.world.scalars("SELECT state || ' ' || end_cause FROM workers") == ["stopped interrupted"]
    floor.check_books()
