"""The audit log: the tables write it, whatever changes them, and nothing changes it."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import IntegrityError

from pipeline.domain.access import Role
from pipeline.domain.audit import AuditAction
from pipeline.domain.errors import RefusedError
from pipeline.domain.files import FilePurpose
from pipeline.domain.ids import DEFAULT_TENANT, new_file_id, new_key_id, new_project_id, new_tenant_id
from pipeline.domain.lifecycle import BatchState
from pipeline.domain.tiers import Tier
from pipeline.ports.access import KeyDraft, KeySecret, Scope
from pipeline.ports.acting import Actor, acting
from pipeline.ports.audit import AuditEntry
from pipeline.ports.batches import Steering
from pipeline.ports.files import FileDraft
from pipeline.ports.objects import StoredObject
from storage.audit import AuditRepository
from storage.keys import KeyRepository
from storage.tenants import TenantRepository
from tests.storage.world import SHA, World, admitted

DEFAULT = Scope(tenant_id=DEFAULT_TENANT)
SECRET = "f" * 64
SOMEBODY = Actor(name="key_1", request_id="req_1")


def log(world: World, scope: Scope = DEFAULT) -> list[AuditEntry]:
    """Return the log, the oldest first."""
    return list(reversed(AuditRepository(world.database).page(scope, limit=1000)))


def actions(world: World, object_id: str) -> list[AuditAction]:
    return [entry.action for entry in log(world) if entry.object_id == object_id]


def test_what_users_do_to_a_batch_is_told_and_what_the_scheduler_does_is_not(world: World) -> None:
    with acting(SOMEBODY):
        claim = world.submit()
    world.batches.admit(claim, admitted(claim.batch_id, 2))
    batch_id = claim.batch_id
    with acting(SOMEBODY):
        world.batches.steer(batch_id, Steering(is_paused=True))
        world.batches.steer(batch_id, Steering(is_paused=True))
        world.batches.steer(batch_id, Steering(is_paused=False, tier=Tier.BULK, priority=7))
        world.batches.steer(batch_id, Steering(tier=Tier.BULK))
        world.batches.cancel(batch_id)
        world.batches.cancel(batch_id)
    assert world.batches.get(batch_id).state is BatchState.CANCELLING

    entries = [entry for entry in log(world) if entry.object_id == batch_id]

    assert [entry.action for entry in entries] == [
        AuditAction.BATCH_CREATED,
        AuditAction.BATCH_PAUSED,
        AuditAction.BATCH_RESUMED,
        AuditAction.BATCH_CHANGED,
        AuditAction.BATCH_CANCELLED,
    ]
    assert {(entry.actor, entry.request_id) for entry in entries} == {("key_1", "req_1")}
    assert entries[3].details == {"tier": {"from": "standard", "to": "bulk"}, "priority": {"from": 0, "to": 7}}


def test_who_acts_is_forgotten_with_the_transaction(world: World) -> None:
    with acting(SOMEBODY):
        first = world.file()
    second = world.file()
    with acting(Actor(name="cli")):
        third = world.file()

    named = {entry.object_id: (entry.actor, entry.request_id) for entry in log(world)}

    assert named == {first: ("key_1", "req_1"), second: ("system", None), third: ("cli", None)}


def test_uploads_and_deletions_are_told_and_results_and_what_ran_out_are_not(world: World) -> None:
    def add(purpose: FilePurpose = FilePurpose.BATCH) -> str:
        file_id = new_file_id()
        stored = StoredObject(key=f"files/{file_id}", size_bytes=7, sha256=SHA)
        draft = FileDraft(file_id=file_id, stored=stored, filename="x.jsonl", purpose=purpose, kept_seconds=3600)
        world.files.add(draft)
        world.files.add(draft)
        return file_id

    kept, deleted, result, old = add(), add(), add(FilePurpose.BATCH_OUTPUT), add()
    world.files.delete(deleted, DEFAULT)
    with world.database.transaction() as connection:
        connection.execute(text("UPDATE files SET expires_at = now() WHERE id = :id"), {"id": old})
    assert world.files.expire() == 1

    assert actions(world, kept) == [AuditAction.FILE_CREATED]
    assert actions(world, deleted) == [AuditAction.FILE_CREATED, AuditAction.FILE_DELETED]
    assert actions(world, result) == []
    assert actions(world, old) == [AuditAction.FILE_CREATED]


def test_keys_projects_and_tenants_are_told_without_what_is_secret(world: World) -> None:
    tenants, keys = TenantRepository(world.database), KeyRepository(world.database)
    tenant_id, home, project_id = new_tenant_id(), new_project_id(), new_project_id()
    key_id, next_id = new_key_id(), new_key_id()
    scope = Scope(tenant_id=tenant_id)

    tenants.create(tenant_id, "lab", default_project_id=home)
    tenants.rename(tenant_id, "laboratory")
    tenants.create_project(project_id, tenant_id, "one")
    tenants.rename_project(project_id, scope, "two")
    keys.add(
        KeyDraft(
            key_id=key_id,
            tenant_id=tenant_id,
            project_id=project_id,
            name="k",
            roles=(Role.READ,),
            secret_digest=SECRET,
            hint="sk-nr-…abcd",
            expires_at=None,
        )
    )
    keys.used([key_id])
    secret = KeySecret(key_id=next_id, secret_digest=SECRET, hint="sk-nr-…abcd")
    keys.rotate(key_id, scope, successor=secret, overlap=timedelta(hours=1))
    keys.rotate(key_id, scope, successor=secret, overlap=timedelta(hours=1))
    keys.revoke(key_id, scope)
    keys.revoke(key_id, scope)
    tenants.archive_project(project_id, scope)

    entries = log(world, scope)
    assert [(str(entry.action), entry.object_id) for entry in entries] == [
        ("organization.created", tenant_id),
        ("project.created", home),
        ("organization.updated", tenant_id),
        ("project.created", project_id),
        ("project.updated", project_id),
        ("api_key.created", key_id),
        ("api_key.created", next_id),
        ("api_key.updated", key_id),
        ("api_key.deleted", key_id),
        ("project.archived", project_id),
    ]
    assert entries[2].details == {"name": {"from": "lab", "to": "laboratory"}}
    assert {entry.actor for entry in entries} == {"system"}
    assert not any(secret in str(entry) for entry in entries for secret in (SECRET, "abcd"))
    with world.database.transaction() as connection:
        recorded = connection.execute(text("SELECT string_agg(a::text, '') FROM audit_log AS a")).scalar_one()
    assert SECRET not in recorded


def test_where_nobody_acts_nothing_more_is_sent(world: World) -> None:
    sent: list[str] = []
    event.listen(world.database.engine, "before_cursor_execute", lambda *arguments: sent.append(arguments[2]))

    world.database.run(lambda connection: connection.execute(text("SELECT 1")).one())
    with acting(SOMEBODY):
        world.database.run(lambda connection: connection.execute(text("SELECT 2")).one())

    assert len(sent) == 3
    assert [sent[0], sent[2]] == ["SELECT 1", "SELECT 2"]
    assert "nightrate.actor" in sent[1]


@pytest.mark.parametrize(
    "statement",
    ["UPDATE audit_log SET actor = 'nobody'", "DELETE FROM audit_log", "TRUNCATE audit_log"],
)
def test_the_log_is_only_ever_added_to(world: World, statement: str) -> None:
    world.file()

    with pytest.raises(IntegrityError, match="append-only"), world.database.transaction() as connection:
        connection.execute(text(statement))

    assert len(log(world)) == 1


def test_nothing_new_is_made_in_an_archived_project_but_its_results_come(world: World) -> None:
    tenants = TenantRepository(world.database)
    project = tenants.create_project(new_project_id(), DEFAULT_TENANT, "closing").project_id
    tenants.archive_project(project, DEFAULT)

    def add(purpose: FilePurpose) -> None:
        file_id = new_file_id()
        stored = StoredObject(key=f"files/{file_id}", size_bytes=7, sha256=SHA)
        world.files.add(
            FileDraft(file_id=file_id, stored=stored, filename="x.jsonl", purpose=purpose, project_id=project)
        )

    with pytest.raises(RefusedError, match=f"project {project} is archived"):
        add(FilePurpose.BATCH)
    add(FilePurpose.BATCH_OUTPUT)


def test_an_entrys_id_tells_when_it_was_and_nothing_else(world: World) -> None:
    for _ in range(20):
        world.file()

    ids = [entry.entry_id for entry in log(world)]

    assert all(entry_id.startswith("audit_") and len(entry_id) == len(new_file_id()) + 1 for entry_id in ids)
    assert [entry_id[18] for entry_id in ids] == ["7"] * 20
    assert len({entry_id[19:] for entry_id in ids}) == 20
