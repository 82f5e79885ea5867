"""A promise as a condition, on the real store: kept by the cycle that answers, with nothing started before."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from pipeline.domain.ids import DEFAULT_TENANT, BatchId, new_pack_id
from pipeline.domain.lifecycle import BatchState
from pipeline.domain.promises import Promise
from pipeline.domain.reasons import Reason
from pipeline.ports.batches import Steering
from scheduler.cycle import decide
from scheduler.policy import Policy
from tests.storage.world import World, admitted

#: A row is twenty tokens: ten of them a second and a half at worst, at 20 tokens a second.
POLICY = Policy(pack_rows_min=1, default_tokens_per_second=20.0)


def submit(world: World, *, rows: int, window: str = "24h", key: str | None = None) -> BatchId:
    submission = replace(world.submission(window=window, key=key), must_promise=True)
    claim = world.batches.first_claim(world.batches.submit(submission))
    assert claim is not None
    world.batches.admit(claim, admitted(claim.batch_id, rows))
    return claim.batch_id


def cycle(world: World) -> None:
    world.cycles.dispatch(world.leadership.epoch, decide(world.cycles.snapshot(), POLICY, new_pack_id))


def packs(world: World) -> int:
    return len(world.scalars("SELECT id FROM packs"))


def test_what_is_promised_runs_from_the_next_cycle_on(world: World) -> None:
    world.worker()
    batch_id = submit(world, rows=10)

    cycle(world)
    assert packs(world) == 0
    assert world.batches.get(batch_id).promise is Promise.MADE

    cycle(world)
    assert packs(world) > 0


def test_what_cannot_be_promised_fails_with_the_earliest_deadline_and_nothing_of_it_has_run(world: World) -> None:
    world.worker()
    batch_id = submit(world, rows=100_000, window="1h")

    cycle(world)
    cycle(world)

    view = world.batches.get(batch_id)
    assert (view.state, view.reason, view.promise) == (BatchState.FAILED, Reason.PROMISE_DECLINED, Promise.DECLINED)
    (error,) = view.errors
    assert error.code == "promise_declined"
    assert "the earliest that could be is 20" in error.message
    assert packs(world) == 0
    assert world.scalars("SELECT reason FROM decisions WHERE batch_id = :id", id=batch_id)[-1] == "promise_declined"
    assert world.cycles.snapshot().backlogs == ()


def test_of_two_that_were_quoted_the_same_room_one_is_refused(world: World) -> None:
    world.worker()
    # An hour of one worker: 0.7 of 58 minutes hold some 1,600 rows at a second and a half each.
    first, second = (submit(world, rows=1_000, window="1h") for _ in range(2))

    cycle(world)

    assert world.batches.get(first).promise is Promise.MADE
    assert world.batches.get(second).state is BatchState.FAILED


def test_without_a_worker_it_is_refused_and_does_not_wait_for_one(world: World) -> None:
    batch_id = submit(world, rows=1)

    cycle(world)

    (error,) = world.batches.get(batch_id).errors
    assert "no live worker serves it" in error.message


def test_a_promise_that_was_made_is_no_condition_any_more(world: World) -> None:
    world.worker()
    batch_id = submit(world, rows=1_000)
    cycle(world)
    created_at = world.batches.get(batch_id).created_at
    world.batches.steer(batch_id, Steering(deadline_at=created_at + timedelta(minutes=5)))

    cycle(world)

    view = world.batches.get(batch_id)
    assert (view.state, view.promise) == (BatchState.IN_PROGRESS, Promise.DECLINED)


def test_one_that_was_cancelled_since_the_snapshot_is_not_failed(world: World) -> None:
    world.worker()
    batch_id = submit(world, rows=2_000, window="1h")
    plan = decide(world.cycles.snapshot(), POLICY, new_pack_id)
    assert plan.refused
    world.batches.cancel(batch_id)

    world.cycles.dispatch(world.leadership.epoch, plan)

    assert world.batches.get(batch_id).state is BatchState.CANCELLING


def test_the_batch_that_a_key_made_is_found_by_it(world: World) -> None:
    batch_id = submit(world, rows=1, key="once")

    assert world.batches.made_by(DEFAULT_TENANT, "once") == batch_id
    assert world.batches.made_by(DEFAULT_TENANT, "never") is None
