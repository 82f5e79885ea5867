"""Explanations of what a real scheduler cycle decided, read from a real Postgres."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

from pipeline.app.explaining import explain, explain_all, subject_of
from pipeline.app.stack import Stack, open_stack
from pipeline.config import Settings
from pipeline.domain.errors import NotFoundError, UsageError
from pipeline.domain.gates import GateVerdict
from pipeline.domain.ids import PackId, WorkerId, new_pack_id, new_worker_id
from pipeline.domain.lifecycle import AttemptOutcome, BatchState, WorkerState
from pipeline.domain.reasons import PackReason, PoolReason, Reason
from pipeline.domain.tiers import Tier
from pipeline.entrypoints.cli.explain_views import explained_document
from pipeline.ports.batches import Assembled, LineError, Rejected, ResultFile, Steering
from pipeline.ports.explain import Explained, Explanation, Subject
from pipeline.ports.packs import WorkerRegistration
from pipeline.ports.variants import Qualification
from scheduler.cycle import decide
from scheduler.policy import Policy
from tests.storage.world import SHA, World, open_world

#: Packs of a row each, so that a few rows make a queue: a row's 20 tokens are taken for 0.04 s.
POLICY = Policy(pack_rows_min=1, pack_rows_max=1)


@dataclass
class Scene:
    """A world with a scheduler that cycles when told, and what explains it."""

    world: World
    stack: Stack

    def cycle(self) -> None:
        plan = decide(self.world.cycles.snapshot(), POLICY, new_pack_id)
        self.world.cycles.dispatch(self.world.leadership.epoch, plan)

    def told(self, subject: str) -> Explanation:
        explained = explain(self.stack, subject)
        # Whatever is told can be told as JSON.
        assert json.loads(json.dumps(explained_document(explained)))["id"] == subject
        return explained.explanation

    def history(self, subject: str) -> Explained:
        return explain(self.stack, subject, with_history=True)

    def worker(self, **variants: str) -> WorkerId:
        worker_id = new_worker_id()
        self.world.workers.register(
            WorkerRegistration(
                worker_id=worker_id,
                pool="local",
                market="spot",
                host="host-1",
                pid=1,
                variants=variants or {"echo": ""},
                rate_micros_per_hour=3_600_000,
                currency="USD",
            )
        )
        self.world.meters[worker_id] = 0
        self.world.workers.enter(worker_id, WorkerState.READY)
        return worker_id


@pytest.fixture
def scene(database_url: str, tmp_path: Path) -> Iterator[Scene]:
    settings = Settings.model_validate({"home": tmp_path, "database_url": database_url})
    with open_world(database_url) as world, open_stack(settings) as stack:
        yield Scene(world, stack)


def commands(told: Explanation) -> list[str]:
    return [change.command for change in told.changes if change.command]


def qualification(variant: str, key: str, tier: Tier, verdict: GateVerdict) -> Qualification:
    return Qualification(
        variant=variant,
        tier=tier,
        verdict=verdict,
        gate_key=key,
        reference="echo",
        relative_cost=0.5,
        reason="because",
    )


# --- batches: each reason as the cycle sets it ---------------------------------------------------


def test_a_paused_batch_is_told_to_be_paused_until_it_is_resumed(scene: Scene) -> None:
    scene.worker()
    batch = scene.world.admit(4)
    scene.world.batches.steer(batch, Steering(is_paused=True))
    scene.cycle()

    told = scene.told(batch)
    assert told.reason == Reason.USER_PAUSED
    assert told.sentence == "Its user paused it; 4 rows are left, and its window goes on."
    assert commands(told)[0] == f"nightrate resume {batch}"

    scene.world.batches.steer(batch, Steering(is_paused=False))
    assert scene.told(batch).sentence == "It was resumed just now; the next cycle looks at it."


def test_a_held_batch_is_told_until_when(scene: Scene) -> None:
    scene.worker()
    batch = scene.world.admit(4)
    until = scene.world.batches.get(batch).created_at + timedelta(hours=5)
    scene.world.batches.steer(batch, Steering(hold_until=until))
    scene.cycle()

    told = scene.told(batch)

    assert told.reason == Reason.HELD
    assert told.sentence.startswith("It is held back until ")
    assert told.sentence.endswith("; its deadline leaves time for that.")
    assert told.figures["hold_until"] == until


def test_a_batch_over_its_budget_is_told_what_it_cost_and_what_would_do(scene: Scene) -> None:
    batch = scene.world.admit(3, 3)
    first, _ = scene.world.shard_ids(batch)
    scene.world.pack((batch, first, 0, 3))
    worker = scene.worker()
    lease = scene.world.lease(worker)
    scene.world.packs.commit(worker, scene.world.work(worker, lease, (batch, first, ((0, 3),), 60)))
    scene.world.packs.finish(lease.pack_id, lease.lease_token, AttemptOutcome.SUCCEEDED)
    scene.world.batches.steer(batch, Steering(budget_micros=900))
    scene.cycle()

    told = scene.told(batch)

    assert told.reason == Reason.BUDGET_REACHED
    assert told.sentence.startswith(
        "It was charged $0.001 of its budget of $0.0009, so nothing new starts; 3 rows are left"
    )
    assert commands(told)[0].startswith(f"nightrate change {batch} --max-cost 0.00")


def test_a_batch_that_no_worker_serves_is_told_what_they_do_serve(scene: Scene) -> None:
    batch = scene.world.admit(4, model="echo")
    scene.worker(other="", another="")
    scene.cycle()

    told = scene.told(batch)

    assert told.reason == Reason.NO_WORKER
    assert told.sentence == "The only live worker does not serve echo; it serves another, other (pool local)."


def test_a_batch_that_waits_for_any_worker_is_told_that_none_lives(scene: Scene) -> None:
    batch = scene.world.admit(4)
    scene.cycle()

    told = scene.told(batch)

    assert told.reason == Reason.NO_WORKER
    assert told.sentence == "No worker is alive, so nothing can run echo."
    assert commands(told)[0] == "nightrate worker"


def test_a_tier_that_a_variant_was_not_accepted_for_is_told_which_it_was_accepted_for(scene: Scene) -> None:
    batch = scene.world.admit(4, tier=Tier.URGENT)
    scene.worker(**{"echo@int8": "key-1"})
    scene.stack.registry.qualify(
        [
            qualification("echo@int8", "key-1", Tier.URGENT, GateVerdict.REJECTED),
            qualification("echo@int8", "key-1", Tier.BULK, GateVerdict.ACCEPTED),
        ]
    )
    scene.cycle()

    told = scene.told(batch)

    assert told.reason == Reason.NO_WORKER
    assert told.sentence == (
        "No live worker serves echo itself, and echo@int8 (pool local) was rejected for tier urgent."
    )
    assert f"nightrate change {batch} --tier bulk" in commands(told)


def test_a_batch_behind_others_is_told_behind_how_many(scene: Scene) -> None:
    scene.worker()
    others = [scene.world.admit(500) for _ in range(5)]
    mine = scene.world.admit(500)
    scene.cycle()

    told = scene.told(mine)

    assert told.reason == Reason.QUEUED
    assert "It waits for its turn in pool local behind 3 batches of tier standard" in told.sentence
    assert "2 packs wait for 1 worker" in told.sentence
    # The two packs that there was room for went to the first two.
    reasons = [scene.told(other).reason for other in others]
    assert reasons == [Reason.RUNNING] * 2 + [Reason.QUEUED] * 3


def test_a_running_batch_is_told_where_its_packs_run(scene: Scene) -> None:
    worker = scene.worker()
    batch = scene.world.admit(500)
    scene.cycle()
    scene.world.lease(worker)

    told = scene.told(batch)

    assert told.reason == Reason.RUNNING
    assert told.sentence == "It runs: 1 pack runs on host-1, 1 more waits."
    assert told.notes["deadline"].endswith("promised, so it goes before all others when time gets short; likely met")


def test_a_batch_with_all_rows_in_packs_is_told_what_is_left_of_them(scene: Scene) -> None:
    worker = scene.worker()
    batch = scene.world.admit(2)
    scene.cycle()
    scene.world.lease(worker)
    scene.cycle()

    told = scene.told(batch)

    assert told.reason == Reason.ALL_PACKED
    assert told.sentence == "All its rows are packed: 1 pack runs on host-1 and 1 pack waits for a worker."


def test_a_finished_batch_is_told_what_it_came_to_and_its_whole_history(scene: Scene) -> None:
    batch = scene.world.admit(1)
    worker = scene.worker()
    scene.world.finish_rows(batch, worker)
    assert scene.world.advance() == 1
    claim = scene.world.batches.claim([BatchState.FINALIZING])
    assert claim is not None
    assert scene.told(batch).sentence == "Every row has a result; the output files are being written."
    output = ResultFile(object_key="outputs/1", sha256=SHA, size_bytes=1, rows=1)
    scene.world.batches.publish(claim, Assembled(output=output, error=None, rows_missing=0), rows_total=1)

    explained = scene.history(batch)

    assert explained.explanation.state == BatchState.COMPLETED
    assert explained.explanation.sentence == "Every row has its result: 1 ok, 0 failed, for $0.001."
    assert commands(explained.explanation) == [f"nightrate results {batch}"]
    assert [past.what for past in explained.history] == ["queued", "all_committed"]
    assert all(past.until is not None and past.until >= past.since for past in explained.history)


def test_an_expired_batch_is_told_when_and_how_far_it_came(scene: Scene) -> None:
    batch = scene.world.admit(3)
    scene.world.overdue(batch)
    scene.cycle()
    assert scene.told(batch).reason == Reason.DEADLINE_PASSED
    scene.world.advance()

    told = scene.told(batch)

    assert (told.state, told.reason) == (BatchState.FINALIZING, Reason.DEADLINE_PASSED)
    assert told.sentence == "Its window ended; the output files are being written."


def test_a_batch_that_failed_validation_is_told_its_first_bad_line(scene: Scene) -> None:
    claim = scene.world.submit()
    assert scene.told(claim.batch_id).sentence == "Its input file is being read and checked."
    bad = LineError(code="invalid_json_line", message="This is no JSON.", param=None, line=3)
    scene.world.batches.reject(claim, Rejected(rows_total=5, errors=(bad,), errors_total=1))

    told = scene.told(claim.batch_id)

    assert told.reason == Reason.BAD_INPUT
    assert told.sentence == "Its input is wrong: line 3: This is no JSON; nothing ran and nothing was charged."


def test_a_cancelled_batch_is_told_so(scene: Scene) -> None:
    batch = scene.world.admit(3)
    scene.world.batches.cancel(batch)

    told = scene.told(batch)

    assert (told.state, told.reason) == (BatchState.CANCELLING, Reason.USER_CANCELLED)
    assert told.sentence == "It was cancelled, and what is done is being written."


# --- packs and pools ---------------------------------------------------------------------------


def test_packs_are_told_as_they_wait_run_fail_and_end(scene: Scene) -> None:
    worker = scene.worker()
    batch = scene.world.admit(4)
    (shard,) = scene.world.shard_ids(batch)
    first = scene.world.pack((batch, shard, 0, 2), ordinal=1.0)
    second = scene.world.pack((batch, shard, 2, 4), ordinal=2.0)
    assert reason(scene, first) is PackReason.NEXT
    assert reason(scene, second) is PackReason.IN_LINE
    assert scene.told(second).figures["packs_ahead"] == 1

    lease = scene.world.lease(worker)
    told = scene.told(first)
    assert told.reason == PackReason.RUNNING
    assert f"It has run on {worker} (pool local, host host-1)" in told.sentence
    scene.world.packs.finish(first, lease.lease_token, AttemptOutcome.FAILED, "out of memory")
    assert scene.told(first).notes["retried"].startswith("attempt 1 of 1 failed: out of memory; failing once more")
    (past,) = scene.history(first).history
    assert past.what == "failed"
    assert f"Attempt 1 by {worker} on host-1, 2 rows: out of memory" in past.sentence

    scene.world.batches.steer(batch, Steering(is_paused=True))
    assert reason(scene, second) is PackReason.PAUSED


def reason(scene: Scene, pack: PackId) -> PackReason:
    return PackReason(scene.told(pack).reason)


def test_a_pool_is_told_to_be_idle_then_full_then_without_workers(scene: Scene) -> None:
    worker = scene.worker()
    assert scene.told("local").reason == PoolReason.IDLE
    batch = scene.world.admit(500)
    scene.cycle()
    assert scene.told("local").reason == PoolReason.FILLING
    scene.world.lease(worker)
    scene.cycle()

    told = scene.told("local")
    assert told.reason == PoolReason.FULL
    assert told.sentence.startswith("Its worker is busy, and 2 packs (")
    assert told.notes["next turn"] == f"{batch} (tier standard, tenant tnt_default)"
    assert len(explain(scene.stack, "local").packs) == 3

    scene.world.workers.enter(worker, WorkerState.LOST)
    told = scene.told("local")
    assert told.reason == PoolReason.NO_WORKERS
    assert told.sentence == "It has no live worker; 2 packs wait for one."
    assert told.since is not None


# --- the overview, and what is not there ---------------------------------------------------------


def test_the_overview_has_the_worst_first_and_counts_the_rest(scene: Scene) -> None:
    scene.worker()
    running, stuck = scene.world.admit(500), scene.world.admit(4, model="nobody")
    ended = scene.world.admit(1)
    scene.world.batches.cancel(ended)
    scene.cycle()

    overview = explain_all(scene.stack, limit=2)

    assert [told.subject_id for told in overview.batches] == [stuck, running]
    assert overview.batches_total == 3
    assert [told.subject_id for told in overview.pools] == ["local"]
    assert overview.has_leader


def test_that_no_scheduler_leads_is_seen(database_url: str, tmp_path: Path) -> None:
    with open_world(database_url) as world:
        batch = world.admit(4)
    settings = Settings.model_validate({"home": tmp_path, "database_url": database_url})
    with open_stack(settings) as stack:
        told = explain(stack, batch).explanation

    assert told.figures["has_scheduler"] is False
    assert told.sentence == "It waits for a scheduler: none leads, so nothing new is packed."


@pytest.mark.parametrize("missing", ["batch_0", "pack_0", "gpu"])
def test_what_is_not_there_is_not_found(scene: Scene, missing: str) -> None:
    scene.worker()

    with pytest.raises(NotFoundError, match=f"there is no (batch|pack|pool) {missing}"):
        explain(scene.stack, missing)


def test_an_unknown_pool_is_answered_with_those_there_are(scene: Scene) -> None:
    scene.worker()

    with pytest.raises(NotFoundError, match="pools are local; a batch begins with batch_ and a pack with pack_"):
        explain(scene.stack, "gpu")


@pytest.mark.parametrize(
    ("given", "subject"),
    [("batch_1", Subject.BATCH), ("pack_1", Subject.PACK), ("local", Subject.POOL), ("gpu-a100", Subject.POOL)],
)
def test_the_kind_is_told_from_the_form(given: str, subject: Subject) -> None:
    assert subject_of(given) is subject


@pytest.mark.parametrize("given", ["wrk_1", "rec_1", "file_1"])
def test_ids_of_other_things_are_refused_with_what_shows_them(given: str) -> None:
    with pytest.raises(UsageError, match=f"{given} is no batch, pack or pool .*nightrate"):
        subject_of(given)


def test_a_pool_has_no_history(scene: Scene) -> None:
    scene.worker()

    with pytest.raises(UsageError, match="a pool has no history"):
        scene.history("local")
