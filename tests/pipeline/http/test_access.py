"""Who comes in, and what they may do then."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text

from pipeline.app.serving import KeyOrder, make_key
from pipeline.domain.access import PERMISSIONS, Permission, Role, exceeds, permissions_of
from pipeline.domain.ids import (
    DEFAULT_TENANT,
    new_batch_id,
    new_file_id,
    new_key_id,
    new_project_id,
    new_upload_id,
    new_webhook_id,
)
from pipeline.entrypoints.http.server import build_app
from pipeline.ports.access import Scope
from tests.pipeline.http.organizations import LINE, batch_body, organization
from tests.pipeline.http.routes import endpoints_of
from tests.pipeline.http.served import Answer, Served
from tests.services import eventually

NOBODYS = {
    "file_id": new_file_id(),
    "batch_id": new_batch_id(),
    "project_id": new_project_id(),
    "key_id": new_key_id(),
    "upload_id": new_upload_id(),
    "webhook_id": new_webhook_id(),
    "model": "nonexistent",
}


def made(api: Served, *, expires_at: datetime | None = None) -> tuple[str, str]:
    """Make a key of the default tenant's; returns its id and the key."""
    order = KeyOrder(tenant_id=DEFAULT_TENANT, project_id=None, name="one", roles=[Role.SUBMIT], expires_at=expires_at)
    view, text = make_key(api.service, order)
    return view.key_id, text


def test_every_role_may_do_what_its_permissions_say_on_every_route_and_nothing_else(quiet: Served) -> None:
    wrong = []
    guarded = [endpoint for endpoint in endpoints_of(build_app(quiet.service)) if endpoint.permission is not None]
    assert len(guarded) >= 15

    for endpoint in guarded:
        for role in Role:
            answer = quiet.ask(endpoint.method, endpoint.url(NOBODYS), endpoint.body, key=quiet.key(role))
            is_permitted = endpoint.permission in PERMISSIONS[role]
            if (answer.status == 403) is is_permitted or answer.status in {401, 500}:
                wrong.append(f"{endpoint} answers {answer.status} to {role}")
            elif answer.status == 403 and answer.error["code"] != "forbidden":
                wrong.append(f"{endpoint} refuses {role} as {answer.error['code']}")

    assert wrong == []


def test_only_health_and_the_calculators_page_are_answered_without_a_key(quiet: Served) -> None:
    endpoints = endpoints_of(build_app(quiet.service))
    open_to_all = {endpoint.path for endpoint in endpoints if endpoint.permission is None}

    assert open_to_all == {"/healthz", "/readyz", "/calculators"}
    for endpoint in endpoints:
        if endpoint.permission is not None:
            answer = quiet.ask(endpoint.method, endpoint.url(NOBODYS), endpoint.body, key="")
            assert answer.status == 401, str(endpoint)
            assert answer.error["code"] == "invalid_api_key"


def test_whatever_is_wrong_with_a_key_the_answer_is_the_same_byte_by_byte(
    quiet: Served, caplog: pytest.LogCaptureFixture
) -> None:
    key_id, right = made(quiet)
    revoked_id, revoked = made(quiet)
    quiet.service.keys.revoke(revoked_id, Scope(tenant_id=DEFAULT_TENANT))
    _, expired = made(quiet, expires_at=datetime.now(UTC) - timedelta(seconds=1))
    unknown = right.replace(key_id.removeprefix("key_"), new_key_id().removeprefix("key_"))
    wrong = right[:-4] + ("AAAA" if right[-4:] != "AAAA" else "BBBB")

    with caplog.at_level(logging.INFO):
        answers: list[Answer] = [
            quiet.ask("GET", "/v1/batches", key=key)
            for key in (unknown, wrong, revoked, expired, "sk-proj-1", right + "x")
        ]

    assert {answer.status for answer in answers} == {401}
    assert len({answer.content for answer in answers}) == 1
    assert {answer.headers["www-authenticate"] for answer in answers} == {"Bearer"}
    assert quiet.ask("GET", "/v1/batches", key=right).status == 200
    reasons = [vars(record)["reason"] for record in caplog.records if record.message == "login_refused"]
    assert reasons == ["unknown", "wrong_secret", "revoked", "expired_or_archived", "malformed", "malformed"]
    secrets = [key[-43:] for key in (unknown, wrong, revoked, expired)]
    assert not any(secret in str(vars(record)) for secret in secrets for record in caplog.records)


def test_a_key_is_refused_soon_after_it_is_revoked_and_others_are_not(quiet: Served) -> None:
    key_id, key = made(quiet)
    assert quiet.ask("GET", "/v1/batches", key=key).status == 200

    quiet.service.keys.revoke(key_id, Scope(tenant_id=DEFAULT_TENANT))

    eventually(lambda: quiet.ask("GET", "/v1/batches", key=key).status == 401, seconds=10)
    assert quiet.ask("GET", "/v1/batches").status == 200


def test_a_key_lets_in_until_it_expires(quiet: Served) -> None:
    key_id, key = made(quiet, expires_at=datetime.now(UTC) + timedelta(hours=1))
    assert quiet.ask("GET", "/v1/batches", key=key).status == 200

    # The hour goes by.
    with quiet.stack.database.transaction() as connection:
        connection.execute(text("UPDATE api_keys SET expires_at = now() WHERE id = :key_id"), {"key_id": key_id})

    eventually(lambda: quiet.ask("GET", "/v1/batches", key=key).status == 401, seconds=10)


def test_it_is_known_when_a_key_was_last_used(quiet: Served) -> None:
    key_id, _ = made(quiet)
    keys, scope = quiet.service.keys, Scope(tenant_id=DEFAULT_TENANT)
    assert keys.get(key_id, scope).last_used_at is None

    keys.used([keys.get(key_id, scope).key_id])
    first = keys.get(key_id, scope).last_used_at
    keys.used([keys.get(key_id, scope).key_id])

    assert first is not None
    assert keys.get(key_id, scope).last_used_at == first, "it is written every half minute at most"


def test_a_key_of_the_whole_tenant_chooses_a_project_by_the_header(quiet: Served) -> None:
    there = organization(quiet)
    key, chosen = there.key(), {"OpenAI-Project": there.first, "OpenAI-Organization": there.tenant_id}
    confined = there.key(project_id=there.first)

    file_id = quiet.upload(LINE, key=confined).json["id"]
    batch = quiet.ask("POST", "/v1/batches", batch_body(file_id), key=key, headers=chosen).json

    assert batch["project_id"] == there.first
    for headers, status in (({}, 200), (chosen, 200), ({"OpenAI-Project": there.second}, 404)):
        assert quiet.ask("GET", f"/v1/batches/{batch['id']}", key=key, headers=headers).status == status
    assert quiet.ask("GET", "/v1/batches", key=key, headers={"OpenAI-Project": there.second}).json["data"] == []
    assert quiet.ask("GET", f"/v1/batches/{batch['id']}", key=confined, headers=chosen).status == 200


@pytest.mark.parametrize(
    ("header", "code"),
    [("OpenAI-Project", "mismatched_project"), ("OpenAI-Organization", "mismatched_organization")],
)
def test_what_a_key_does_not_belong_to_cannot_be_named(quiet: Served, header: str, code: str) -> None:
    there, elsewhere = organization(quiet), organization(quiet)
    confined = there.key(project_id=there.first)
    own = there.first if header == "OpenAI-Project" else there.tenant_id
    foreign = elsewhere.first if header == "OpenAI-Project" else elsewhere.tenant_id
    assert quiet.ask("GET", "/v1/batches", key=confined, headers={header: own}).status == 200

    for key in (confined, there.key()):
        for named in (foreign, "nonsense", "x" * 500):
            answer = quiet.ask("GET", "/v1/batches", key=key, headers={header: named})
            assert answer.status == 401
            assert answer.error["code"] == code
            assert header in answer.error["message"]
    assert code.endswith("organization") or (
        quiet.ask("GET", "/v1/batches", key=confined, headers={header: there.second}).error["code"] == code
    )


def test_an_archived_project_lets_nobody_in_and_what_is_in_it_stays_readable(quiet: Served) -> None:
    there = organization(quiet)
    confined, whole = there.key(project_id=there.first), there.key()
    file_id = quiet.upload(LINE, key=confined).json["id"]

    archived = quiet.ask("POST", f"/v1/organization/projects/{there.first}/archive", key=whole)

    assert archived.json["status"] == "archived"
    # Known for a second, the key slips nothing in meanwhile.
    assert quiet.upload(LINE, key=confined).status in {400, 401}
    eventually(lambda: quiet.ask("GET", "/v1/files", key=confined).status == 401, seconds=10)
    eventually(
        lambda: quiet.ask("GET", "/v1/files", key=whole, headers={"OpenAI-Project": there.first}).status == 401,
        seconds=10,
    )
    assert quiet.ask("GET", f"/v1/files/{file_id}/content", key=whole).content == LINE
    refused = quiet.ask("POST", "/v1/organization/api_keys", {"name": "x", "project_id": there.first}, key=whole)
    assert refused.status == 404


def test_nobody_gives_what_they_have_not() -> None:
    for giver in Role:
        for given in Role:
            beyond = exceeds([given], permissions_of([giver]))
            assert beyond == PERMISSIONS[given] - PERMISSIONS[giver]
    assert exceeds([Role.ADMIN], permissions_of([Role.SUBMIT, Role.OPERATE])) >= {Permission.MANAGE_KEYS}
    assert not exceeds([Role.READ, Role.SUBMIT], permissions_of([Role.ADMIN]))
