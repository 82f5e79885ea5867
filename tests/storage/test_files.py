"""Files from their first day to their last."""

from __future__ import annotations

from datetime import timedelta

import pytest

from pipeline.domain.errors import ConflictError, NotFoundError
from pipeline.domain.files import FilePurpose
from pipeline.domain.ids import DEFAULT_TENANT, BatchId, FileId, TenantId, new_file_id
from pipeline.ports.access import Scope
from pipeline.ports.files import FileDraft
from pipeline.ports.objects import StoredObject
from tests.storage.world import SHA, World, admitted

OURS = Scope(tenant_id=DEFAULT_TENANT)
AT_ONCE = timedelta(0)


def add(world: World, *, kept_seconds: int | None = None, purpose: FilePurpose = FilePurpose.BATCH) -> FileId:
    file_id = new_file_id()
    stored = StoredObject(key=f"inputs/{file_id}", size_bytes=1, sha256=SHA)
    draft = FileDraft(file_id=file_id, stored=stored, filename="x", purpose=purpose, kept_seconds=kept_seconds)
    world.files.add(draft)
    return file_id


def run_out(world: World, *file_ids: FileId) -> None:
    """Let the files' time be over by now."""
    world.execute("UPDATE files SET expires_at = now() WHERE id = ANY(:ids)", ids=list(file_ids))


def removable(world: World, grace: timedelta = AT_ONCE) -> set[FileId]:
    return {file_id for file_id, _ in world.files.removable(grace=grace, limit=1000)}


def batch_of(world: World) -> tuple[BatchId, FileId]:
    claim = world.submit()
    world.batches.admit(claim, admitted(claim.batch_id, 1))
    return claim.batch_id, FileId(claim.input_file_id)


def test_a_file_whose_time_is_over_is_seen_by_nobody_and_then_deleted(shared: World) -> None:
    kept, late = add(shared, kept_seconds=3600), add(shared, kept_seconds=3600)
    forever = add(shared)
    run_out(shared, late)

    # From that moment on, whenever the sweeper comes.
    with pytest.raises(NotFoundError):
        shared.files.get(late, OURS)
    assert late not in {view.file_id for view in shared.files.page(OURS, limit=1000)}
    with pytest.raises(NotFoundError):
        shared.files.delete(late, OURS)
    assert removable(shared).isdisjoint({late, kept, forever})
    assert shared.files.expire() == 1
    assert shared.files.expire() == 0

    assert late in removable(shared)
    assert {shared.files.get(file_id, OURS).file_id for file_id in (kept, forever)} == {kept, forever}


def test_an_object_goes_after_a_grace_and_is_recorded_as_gone(shared: World) -> None:
    file_id = add(shared)
    shared.files.delete(file_id, OURS)

    assert file_id not in removable(shared, timedelta(hours=1))
    assert file_id in removable(shared)
    shared.files.removed(file_id)
    shared.files.removed(file_id)
    assert file_id not in removable(shared)


def test_a_file_that_is_not_deleted_is_never_recorded_as_gone(shared: World) -> None:
    file_id = add(shared)

    shared.files.removed(file_id)

    assert shared.scalars("SELECT removed_at FROM files WHERE id = :id", id=file_id) == [None]


def test_a_file_that_a_live_batch_reads_stays_until_the_batch_has_ended(shared: World) -> None:
    batch_id, file_id = batch_of(shared)
    run_out(shared, file_id)

    assert shared.files.expire() == 0
    with pytest.raises(NotFoundError):
        shared.files.get(file_id, OURS)
    shared.finish_rows(batch_id, shared.worker())
    assert shared.files.expire() == 0
    shared.execute(
        "UPDATE batches SET state = 'failed', failed_at = now(), finalizing_at = now(), errors = '[]' WHERE id = :id",
        id=batch_id,
    )

    assert shared.files.expire() == 1


def test_an_object_stays_that_a_batch_made_at_the_last_moment_is_to_read(shared: World) -> None:
    batch_id, file_id = batch_of(shared)
    # As if the batch's transaction had begun before the file expired, and ended after that.
    shared.execute("UPDATE files SET deleted_at = now() - interval '1 day' WHERE id = :id", id=file_id)

    assert file_id not in removable(shared)
    shared.execute("UPDATE batches SET state = 'cancelled', cancelled_at = now() WHERE id = :id", id=batch_id)
    assert file_id in removable(shared)


def test_an_input_is_not_deleted_under_its_batch(shared: World) -> None:
    _, file_id = batch_of(shared)

    with pytest.raises(ConflictError):
        shared.files.delete(file_id, OURS)
    with pytest.raises(NotFoundError):
        shared.files.delete(file_id, Scope(tenant_id=TenantId("tnt_other")))


def test_an_id_or_object_that_is_another_files_is_refused(shared: World) -> None:
    file_id = add(shared)
    view = shared.files.get(file_id)
    stored = StoredObject(key=view.object_key, size_bytes=1, sha256=SHA)

    assert shared.files.add(FileDraft(file_id=file_id, stored=stored, filename="again")) == view
    with pytest.raises(ConflictError):
        shared.files.add(FileDraft(file_id=new_file_id(), stored=stored, filename="x"))


def test_files_are_listed_by_purpose_and_age_past_one_that_was_deleted(world: World) -> None:
    ids = [add(world, purpose=purpose) for purpose in (FilePurpose.BATCH, FilePurpose.VISION) for _ in range(3)]
    world.files.delete(ids[1], OURS)

    def listed(**arguments: object) -> list[str]:
        return [view.file_id for view in world.files.page(OURS, **{"limit": 10} | arguments)]  # type: ignore[arg-type] # as data

    assert listed() == [each for each in reversed(ids) if each != ids[1]]
    assert listed(order="asc", after=ids[1]) == ids[2:]
    assert listed(purpose=FilePurpose.VISION, limit=2) == [ids[5], ids[4]]
    with pytest.raises(NotFoundError):
        listed(after="file_nosuch")
