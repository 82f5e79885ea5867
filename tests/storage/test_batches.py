from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from pipeline.domain.endpoints import Endpoint
from pipeline.domain.errors import ConflictError, LeaseLostError, NotFoundError
from pipeline.domain.ids import BatchId, FileId, PackId, new_file_id
from pipeline.domain.lifecycle import AttemptOutcome, BatchState
from pipeline.domain.reasons import Reason
from pipeline.domain.tiers import Tier
from pipeline.ports.batches import Assembled, BatchClaim, LineError, ObjectDraft, PartRef, Rejected, ResultFile
from pipeline.ports.files import FileDraft
from pipeline.ports.objects import StoredObject
from storage.packs import _HOLD_BATCHES, _NEXT
from tests.storage.world import SHA, World, admitted

REJECTED = Rejected(
    errors=(LineError(code="invalid_json", message="not JSON", param=None, line=3),), errors_total=7, rows_total=9
)
EMPTY = Assembled(output=None, error=None, rows_missing=0)


def lapse(world: World, batch_id: BatchId) -> None:
    """Let the claim on the batch run out now."""
    world.execute("UPDATE batches SET claim_expires_at = now() - interval '1 s' WHERE id = :id", id=batch_id)


def claim(world: World, batch_id: BatchId, state: BatchState) -> BatchClaim:
    found = world.batches.claim([state], batch_id=batch_id)
    assert found is not None
    return found


def results(batch_id: BatchId, *, output: int = 0, error: int = 0, missing: int = 0) -> Assembled:
    def file(kind: str, rows: int) -> ResultFile | None:
        return ResultFile(object_key=f"{kind}/{batch_id}", sha256=SHA, size_bytes=rows, rows=rows) if rows else None

    return Assembled(output=file("output", output), error=file("error", error), rows_missing=missing)


def decisions(world: World, batch_id: BatchId) -> list[object]:
    return world.scalars("SELECT reason FROM decisions WHERE batch_id = :id ORDER BY id", id=batch_id)


# --- submitting -------------------------------------------------------------------------------


def test_the_same_key_returns_the_batch_it_made_even_from_eight_threads_at_once(shared: World) -> None:
    submission = shared.submission(key="nightly", budget_micros=5)

    with ThreadPoolExecutor(8) as threads:
        views = list(threads.map(lambda _: shared.batches.submit(submission), range(8)))
    again = shared.batches.submit(replace(submission, input_file_id=shared.file()))

    assert {view.batch_id for view in views} == {again.batch_id}
    assert shared.scalars("SELECT count(*) FROM batches WHERE idempotency_key = 'nightly'") == [1]


def test_the_same_key_with_anything_else_asked_is_a_conflict(shared: World) -> None:
    submission = shared.submission(key="once")
    shared.batches.submit(submission)

    for other in (
        replace(submission, endpoint=Endpoint.EMBEDDINGS),
        replace(submission, completion_window="1h"),
        replace(submission, tier=Tier.BULK),
        replace(submission, budget_micros=1),
        replace(submission, metadata={"a": "b"}),
        replace(submission, input_file_id=shared.file(sha256="1" * 64)),
    ):
        with pytest.raises(ConflictError, match="'once' already made"):
            shared.batches.submit(other)
    with pytest.raises(NotFoundError):
        shared.batches.submit(replace(submission, input_file_id=new_file_id()))


def test_a_submission_without_a_key_is_a_batch_of_its_own(shared: World) -> None:
    submission = shared.submission()

    assert shared.batches.submit(submission).batch_id != shared.batches.submit(submission).batch_id


def test_a_new_batch_says_what_was_asked_and_nothing_more(shared: World) -> None:
    submission = replace(shared.submission(window="90m", tier=Tier.BULK, budget_micros=12), metadata={"who": "me"})

    view = shared.batches.submit(submission)

    assert view == shared.batches.get(view.batch_id)
    assert (view.state, view.reason, view.rows_total, view.rows_completed) == (BatchState.VALIDATING, None, 0, None)
    assert (view.tier, view.budget_micros, view.metadata) == (Tier.BULK, 12, {"who": "me"})
    assert (view.cost_micros, view.currency, view.models, view.errors) == (0, "USD", (), ())
    assert view.deadline_at - view.created_at == timedelta(minutes=90)
    assert view.entered_at == {BatchState.VALIDATING: view.created_at}


def test_what_does_not_exist_is_not_found(shared: World) -> None:
    for ask in (shared.batches.get, shared.batches.cancel, shared.files.get):
        with pytest.raises(NotFoundError, match="there is no"):
            ask("nothing")
    with pytest.raises(NotFoundError, match="there is no file"):
        shared.batches.submit(replace(shared.submission(), input_file_id=FileId("file_none")))


def test_a_file_is_recorded_once_and_never_as_another(shared: World) -> None:
    file_id = new_file_id()
    stored = StoredObject(key=f"inputs/{file_id}", size_bytes=3, sha256=SHA)
    for _ in range(2):
        shared.files.add(FileDraft(file_id=file_id, stored=stored, filename="a.jsonl"))

    assert (shared.files.get(file_id).filename, shared.files.get(file_id).size_bytes) == ("a.jsonl", 3)
    with pytest.raises(ConflictError):
        shared.files.add(FileDraft(file_id=new_file_id(), stored=stored, filename="a.jsonl"))
    with pytest.raises(ConflictError):
        shared.files.add(FileDraft(file_id=file_id, stored=replace(stored, key="other"), filename="a.jsonl"))


# --- claims -----------------------------------------------------------------------------------


def test_the_submitter_has_the_first_claim_until_another_takes_over(shared: World) -> None:
    view = shared.batches.submit(shared.submission())

    assert shared.batches.claim([BatchState.VALIDATING], batch_id=view.batch_id) is None
    assert shared.batches.first_claim(view) == shared.batches.first_claim(view)
    lapse(shared, view.batch_id)
    second = claim(shared, view.batch_id, BatchState.VALIDATING)
    assert second.claim_token == 2
    assert second.source is not None
    assert second.source.object_key == shared.files.get(view.input_file_id).object_key
    assert shared.batches.first_claim(view) is None


def test_the_outcome_of_a_claim_that_moved_on_is_refused(shared: World) -> None:
    zombie = shared.submit()
    lapse(shared, zombie.batch_id)
    second = claim(shared, zombie.batch_id, BatchState.VALIDATING)

    for late in (
        lambda: shared.batches.renew_claim(zombie),
        lambda: shared.batches.admit(zombie, admitted(zombie.batch_id, 3)),
        lambda: shared.batches.reject(zombie, REJECTED),
    ):
        with pytest.raises(LeaseLostError):
            late()
    shared.batches.release_claim(zombie)  # Changes nothing: it is not the zombie's to give.
    assert shared.batches.claim([BatchState.VALIDATING], batch_id=zombie.batch_id) is None
    assert shared.shard_ids(zombie.batch_id) == []
    shared.batches.admit(second, admitted(second.batch_id, 3))
    assert shared.batches.get(second.batch_id).state is BatchState.IN_PROGRESS


def test_a_claim_given_back_is_free_at_once_and_one_kept_is_not(shared: World) -> None:
    first = shared.submit()
    shared.batches.renew_claim(first)
    assert shared.batches.claim([BatchState.VALIDATING], batch_id=first.batch_id) is None

    shared.batches.release_claim(first)

    assert claim(shared, first.batch_id, BatchState.VALIDATING).claim_token == 2


def test_a_try_that_failed_says_why_and_makes_way_for_other_batches(world: World) -> None:
    first = world.submit()
    second = world.submit()
    for each in (first, second):
        world.batches.release_claim(each)
    pauses = []

    for failures in range(3):
        lapse(world, first.batch_id)
        tried = claim(world, first.batch_id, BatchState.VALIDATING)
        assert tried.failures == failures
        world.batches.fail_claim(tried, "the disk is away")
        (pause,) = world.scalars(
            "SELECT extract(epoch FROM claim_expires_at - clock_timestamp()) FROM batches WHERE id = :id",
            id=first.batch_id,
        )
        pauses.append(round(float(str(pause))))

    assert pauses == [1, 2, 4]
    assert world.batches.get(first.batch_id).trouble == "the disk is away"
    following = world.batches.claim([BatchState.VALIDATING])
    assert following is not None
    assert following.batch_id == second.batch_id

    lapse(world, first.batch_id)
    world.batches.admit(claim(world, first.batch_id, BatchState.VALIDATING), admitted(first.batch_id, 1))
    assert world.batches.get(first.batch_id).trouble is None


@pytest.mark.parametrize(
    ("state", "end"), [(BatchState.FINALIZING, BatchState.FAILED), (BatchState.CANCELLING, BatchState.CANCELLED)]
)
def test_a_batch_whose_files_cannot_be_made_ends_and_says_why(
    shared: World, state: BatchState, end: BatchState
) -> None:
    batch = shared.admit(2)
    if state is BatchState.CANCELLING:
        shared.batches.cancel(batch)
    else:
        shared.overdue(batch)
        shared.advance()
    ending = claim(shared, batch, state)
    error = LineError(code="results_lost", message="roster 0 is gone", param=None, line=None)

    assert shared.batches.give_up(ending, error) is end
    assert shared.batches.give_up(ending, error) is end, "an answer that was lost is asked for again"

    view = shared.batches.get(batch)
    assert (view.state, view.reason, view.errors) == (end, Reason.RESULTS_LOST, (error,))
    assert decisions(shared, batch)[-1] == "results_lost"


def test_the_books_know_which_rows_a_part_holds(world: World) -> None:
    batch = world.admit(4, 4)
    first, second = world.shard_ids(batch)
    world.pack((batch, first, 0, 4), (batch, second, 0, 4))
    worker = world.worker()
    lease = world.lease(worker)
    commit = world.work(worker, lease, (batch, second, ((0, 1), (2, 4)), 8), (batch, first, ((3, 4),), 8))
    world.packs.commit(worker, commit)

    for part, rows in zip(commit.parts, [[(1, ((0, 1), (2, 4)))], [(0, ((3, 4),))]], strict=True):
        assert list(world.batches.rows_of_part(PartRef(object_key=part.object_key, sha256=SHA))) == rows


def test_the_oldest_free_batch_is_claimed_first_and_each_by_one(world: World) -> None:
    batches = [world.submit().batch_id for _ in range(6)]
    world.execute("UPDATE batches SET claim_expires_at = NULL")

    with ThreadPoolExecutor(4) as threads:
        claims = list(threads.map(lambda _: world.batches.claim([BatchState.VALIDATING]), range(7)))
    assert sorted(found.batch_id for found in claims if found is not None) == batches
    world.execute("UPDATE batches SET claim_expires_at = NULL")
    assert [claim(world, batch, BatchState.VALIDATING).claim_token for batch in batches] == [3] * 6


# --- admitting and rejecting ------------------------------------------------------------------


def test_an_admitted_batch_runs_with_all_that_intake_wrote(shared: World) -> None:
    first = shared.submit()
    roster = ObjectDraft(object_key=f"roster/{first.batch_id}", sha256=SHA, size_bytes=1, rows=7)
    refusals = ObjectDraft(object_key=f"refusals/{first.batch_id}", sha256=SHA, size_bytes=1, rows=2)
    outcome = replace(admitted(first.batch_id, 3, 2, rows_refused=2), rosters=(roster,), refusals=refusals)

    # The second time, the answer to the first was lost on the way back.
    for _ in range(2):
        shared.batches.admit(first, outcome)

    view = shared.batches.get(first.batch_id)
    assert (view.state, view.reason, view.models) == (BatchState.IN_PROGRESS, Reason.QUEUED, ("echo",))
    assert (view.rows_total, view.rows_refused, view.rows_succeeded) == (7, 2, 0)
    assert decisions(shared, first.batch_id) == ["queued"]
    sources = shared.batches.result_sources(first)
    assert sources.shard_rows == (3, 2)
    assert sources.rosters == (PartRef(object_key=roster.object_key, sha256=SHA),)
    assert sources.refusals == PartRef(object_key=refusals.object_key, sha256=SHA)
    assert sources.parts == ()


def test_a_rejected_batch_failed_with_its_bad_lines(shared: World) -> None:
    first = shared.submit()

    for _ in range(2):
        shared.batches.reject(first, REJECTED)

    view = shared.batches.get(first.batch_id)
    assert (view.state, view.reason) == (BatchState.FAILED, Reason.BAD_INPUT)
    assert (view.errors, view.errors_total, view.rows_total) == (REJECTED.errors, 7, 9)
    assert set(view.entered_at) == {BatchState.VALIDATING, BatchState.FAILED}
    assert decisions(shared, first.batch_id) == ["bad_input"]
    with pytest.raises(LeaseLostError):
        shared.batches.admit(first, admitted(first.batch_id, 3))


# --- cancelling -------------------------------------------------------------------------------


def test_a_batch_is_cancelled_from_where_it_stands_and_twice_is_once(shared: World) -> None:
    validating, running = shared.submit(), shared.admit(2)

    for batch_id in (validating.batch_id, running):
        first, second = shared.batches.cancel(batch_id), shared.batches.cancel(batch_id)
        assert (first.state, first.reason) == (BatchState.CANCELLING, Reason.USER_CANCELLED)
        assert first.entered_at == second.entered_at
        assert decisions(shared, batch_id)[-1] == "user_cancelled"
        cancelling = claim(shared, batch_id, BatchState.CANCELLING)
        shared.batches.publish(
            cancelling, results(batch_id, error=first.rows_total, missing=2), rows_total=first.rows_total
        )
        assert shared.batches.cancel(batch_id).state is BatchState.CANCELLED
    with pytest.raises(LeaseLostError):
        shared.batches.admit(validating, admitted(validating.batch_id, 3))


def test_a_batch_past_cancelling_says_so_in_openais_words(shared: World) -> None:
    failed = shared.submit()
    shared.batches.reject(failed, REJECTED)
    done = shared.admit()
    shared.advance()

    with pytest.raises(ConflictError, match=r"^Cannot cancel a batch with status 'finalizing'\.$"):
        shared.batches.cancel(done)
    shared.batches.publish(claim(shared, done, BatchState.FINALIZING), EMPTY, rows_total=0)
    with pytest.raises(ConflictError, match=r"^Cannot cancel a batch with status 'completed'\.$"):
        shared.batches.cancel(done)
    with pytest.raises(ConflictError, match=r"^Cannot cancel a batch with status 'failed'\.$"):
        shared.batches.cancel(failed.batch_id)


# --- finalizing -------------------------------------------------------------------------------


def test_finalizing_waits_for_leased_packs_and_sees_what_they_committed(world: World) -> None:
    batch = world.admit(4)
    (shard,) = world.shard_ids(batch)
    world.pack((batch, shard, 0, 4))
    worker = world.worker()
    lease = world.lease(worker)
    world.batches.cancel(batch)
    world.advance()

    assert world.batches.claim([BatchState.FINALIZING, BatchState.CANCELLING]) is None
    world.packs.commit(worker, world.work(worker, lease, (batch, shard, ((0, 1),), 8)))
    world.packs.finish(lease.pack_id, lease.lease_token, AttemptOutcome.CANCELLED)
    cancelling = claim(world, batch, BatchState.CANCELLING)
    sources = world.batches.result_sources(cancelling)

    assert [part.sha256 for part in sources.parts] == [SHA]
    assert sources.missing_code == "batch_cancelled"
    assert world.batches.publish(cancelling, results(batch, output=1, error=3, missing=3), rows_total=4) == "cancelled"


def test_a_batch_that_ends_while_its_pack_is_being_leased_waits_for_the_lease(world: World) -> None:
    batch = world.admit(1)
    world.pack((batch, world.shard_ids(batch)[0], 0, 1))

    with ThreadPoolExecutor(1) as threads:
        with world.database.transaction() as leasing:
            found = leasing.execute(_NEXT, {"pool": "local", "variants": ["echo"]}).one()
            leasing.execute(_HOLD_BATCHES, {"pack_id": found.id})
            cancelled = threads.submit(world.batches.cancel, batch)
            assert _waits(world)
            assert not cancelled.done()
            leasing.execute(
                text("UPDATE packs SET state = 'leased', lease_expires_at = now() + interval '1 h' WHERE id = :id"),
                {"id": PackId(found.id)},
            )
        assert cancelled.result(timeout=30).state is BatchState.CANCELLING

    assert world.batches.claim([BatchState.CANCELLING]) is None


def _waits(world: World) -> bool:
    """Wait until some session of the world waits for a lock."""
    for _ in range(3000):
        if world.scalars(
            "SELECT 1 FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE datname = current_database() AND NOT granted"
        ):
            return True
        world.scalars("SELECT pg_sleep(0.01)")
    return False


def test_a_batch_ends_completed_or_expired_and_only_under_its_own_claim(shared: World) -> None:
    worker = shared.worker()
    done, late = shared.admit(3), shared.admit(3)
    shared.finish_rows(done, worker)
    shared.overdue(late)
    shared.advance()
    assert shared.batches.get(done).reason is Reason.ALL_COMMITTED
    assert shared.batches.get(late).reason is Reason.DEADLINE_PASSED

    for batch, assembled, state in (
        (done, results(done, output=2, error=1), BatchState.COMPLETED),
        (late, results(late, error=3, missing=3), BatchState.EXPIRED),
    ):
        zombie = claim(shared, batch, BatchState.FINALIZING)
        lapse(shared, batch)
        second = claim(shared, batch, BatchState.FINALIZING)
        for publisher in (zombie, second, zombie, second):
            if publisher is zombie:
                with pytest.raises(LeaseLostError):
                    shared.batches.publish(zombie, assembled, rows_total=3)
            else:
                # The second time, the answer to the first was lost on the way back.
                assert shared.batches.publish(second, assembled, rows_total=3) is state
        view = shared.batches.get(batch)
        assert (view.state, view.rows_completed, view.rows_failed) == (state, 3 - view.rows_failed, view.rows_failed)
        assert view.error_file_id is not None
        assert shared.files.get(view.error_file_id).purpose == "batch_output"
        assert (view.output_file_id is None) == (assembled.output is None)
    assert shared.batches.result_sources(second).missing_code == "batch_expired"
    assert shared.batches.get(done).cost_micros == 1000


def test_the_database_refuses_an_end_that_leaves_a_row_unaccounted_for(shared: World) -> None:
    batch = shared.admit(2)
    shared.overdue(batch)
    shared.advance()
    finalizing = claim(shared, batch, BatchState.FINALIZING)

    with pytest.raises(AssertionError, match="exactly one file"):
        shared.batches.publish(finalizing, results(batch, error=1, missing=1), rows_total=2)
    with pytest.raises(IntegrityError, match="every_row"):
        shared.batches.publish(finalizing, results(batch, error=1, missing=1), rows_total=1)
    with pytest.raises(IntegrityError, match="every_row"):
        shared.execute("UPDATE batches SET state = 'completed', completed_at = now() WHERE id = :id", id=batch)
    assert shared.batches.get(batch).state is BatchState.FINALIZING


def test_a_list_has_the_newest_first_of_all_or_of_some_states(world: World) -> None:
    first, second, third, fourth = (world.admit(1) for _ in range(4))
    world.batches.cancel(second)
    world.batches.cancel(third)
    waiting = world.submit().batch_id

    def listed(*states: BatchState, limit: int = 10) -> list[BatchId]:
        return [view.batch_id for view in world.batches.list(limit=limit, states=states)]

    assert listed() == [waiting, fourth, third, second, first]
    assert listed(limit=2) == [waiting, fourth]
    assert listed(BatchState.CANCELLING) == [third, second]
    assert listed(BatchState.IN_PROGRESS, BatchState.VALIDATING, BatchState.IN_PROGRESS) == [waiting, fourth, first]
    assert listed(BatchState.IN_PROGRESS, BatchState.CANCELLING, limit=3) == [fourth, third, second]
    assert listed(BatchState.FAILED) == []
