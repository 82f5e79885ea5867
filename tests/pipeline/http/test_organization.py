"""`/v1/organization`: projects, keys and the audit log, for the admins of a tenant."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import openai
import pytest

from pipeline.domain.access import Role
from tests.pipeline.http.organizations import LINE, Organization, batch_body, organization
from tests.pipeline.http.served import Answer, Served
from tests.services import eventually

KEYS = "/v1/organization/api_keys"
PROJECTS = "/v1/organization/projects"
LOG = "/v1/organization/audit_logs"


@pytest.fixture
def there(quiet: Served) -> Organization:
    return organization(quiet)


@pytest.fixture
def admin(there: Organization) -> Iterator[openai.OpenAI]:
    """OpenAI's own client, with an admin key."""
    with openai.OpenAI(
        base_url=f"{there.api.url}/v1", api_key=there.key(), admin_api_key=there.key(), max_retries=0
    ) as client:
        yield client


def ask(there: Organization, method: str, path: str, body: object = None, **how: Any) -> Answer:  # noqa: ANN401 -- as `Served.ask` has it
    return there.api.ask(method, path, body, **{"key": there.key(), **how})


def told(there: Organization, **how: Any) -> list[tuple[str, str]]:  # noqa: ANN401 -- as above
    """Return what the audit log tells, the oldest first: the action and what it was done to."""
    entries = ask(there, "GET", f"{LOG}?limit=100", **how).json["data"]
    return [(entry["type"], entry[entry["type"]]["id"]) for entry in reversed(entries)]


def test_openais_client_makes_renames_lists_and_archives_projects(admin: openai.OpenAI, there: Organization) -> None:
    projects = admin.admin.organization.projects

    made = projects.create(name="tickets")
    assert (made.object, made.status, made.name) == ("organization.project", "active", "tickets")
    assert projects.update(made.id, name="support").name == "support"
    assert projects.archive(made.id).status == "archived"

    live = [project.id for project in projects.list(limit=1)]
    assert made.id not in live
    assert live[1:] == [there.first, there.second]
    assert made.id in [project.id for project in projects.list(limit=2, include_archived=True)]
    retrieved = projects.retrieve(made.id)
    assert retrieved.archived_at is not None


def test_openais_client_reads_the_audit_log(admin: openai.OpenAI) -> None:
    made = admin.admin.organization.projects.create(name="tickets")

    newest = next(iter(admin.admin.organization.audit_logs.list(limit=1)))

    assert newest.type == "project.created"
    assert newest.project_created is not None
    assert newest.project_created.id == made.id
    assert newest.actor is not None
    assert newest.actor.type == "api_key"


def test_a_project_has_a_name_of_its_own_among_the_live_ones(there: Organization) -> None:
    assert ask(there, "POST", PROJECTS, {"name": "one"}).status == 409
    assert ask(there, "POST", f"{PROJECTS}/{there.second}", {"name": "one"}).status == 409
    assert ask(there, "POST", f"{PROJECTS}/{there.first}", {"name": "one"}).status == 200

    assert ask(there, "POST", f"{PROJECTS}/{there.first}/archive").status == 200
    assert ask(there, "POST", f"{PROJECTS}/{there.first}/archive").status == 200
    assert ask(there, "POST", f"{PROJECTS}/{there.first}", {"name": "three"}).status == 409
    assert ask(there, "POST", PROJECTS, {"name": "one"}).status == 200


@pytest.mark.parametrize(("name", "status"), [("", 400), ("x", 200), ("x" * 100, 200), ("x" * 101, 400), (7, 400)])
def test_a_name_has_one_to_a_hundred_characters(there: Organization, name: object, status: int) -> None:
    assert ask(there, "POST", PROJECTS, {"name": name}).status == status
    assert ask(there, "POST", KEYS, {"name": name}).status == status


def test_the_default_project_cannot_be_archived(there: Organization) -> None:
    (default,) = [each for each in ask(there, "GET", PROJECTS).json["data"] if each["is_default"]]

    refused = ask(there, "POST", f"{PROJECTS}/{default['id']}/archive")

    assert refused.status == 409
    assert refused.headers["x-should-retry"] == "false"
    assert "default project" in refused.error["message"]


def test_a_key_is_told_once_and_lets_in_with_its_roles(there: Organization) -> None:
    made = ask(there, "POST", KEYS, {"name": "reader", "roles": ["read", "read"], "expires_in_seconds": 60}).json

    key_id, text = made["id"], made["value"]
    assert made["roles"] == ["read"]
    assert made["expires_at"] - made["created_at"] in {59, 60, 61}
    assert there.api.ask("GET", "/v1/batches", key=text).status == 200
    assert there.api.ask("GET", KEYS, key=text).status == 403
    for path in (KEYS, f"{KEYS}/{key_id}", LOG):
        answer = ask(there, "GET", path)
        assert key_id in answer.content.decode()
        assert text not in answer.content.decode()
        assert text[-43:] not in answer.content.decode()


@pytest.mark.parametrize(
    ("seconds", "status"),
    [(59, 400), (60, 200), (60.0, 200), (60.5, 400), ("60", 400), (True, 400), (316_224_000, 200), (316_224_001, 400)],
)
def test_a_key_lives_from_a_minute_to_ten_years(there: Organization, seconds: object, status: int) -> None:
    assert ask(there, "POST", KEYS, {"name": "x", "expires_in_seconds": seconds}).status == status


@pytest.mark.parametrize("roles", [[], ["owner"], "admin", ["read"] * 17])
def test_roles_are_those_there_are(there: Organization, roles: object) -> None:
    refused = ask(there, "POST", KEYS, {"name": "x", "roles": roles})

    assert refused.status == 400
    assert refused.error["param"].startswith("roles")


def test_keys_are_listed_page_by_page(there: Organization) -> None:
    names = [ask(there, "POST", KEYS, {"name": f"key {number}"}).json["name"] for number in range(5)]

    seen: list[str] = []
    after = ""
    while True:
        page = ask(there, "GET", f"{KEYS}?limit=2{after}").json
        seen += [key["name"] for key in page["data"]]
        if not page["has_more"]:
            break
        after = f"&after={page['last_id']}"

    assert seen == ["test", *names]


def test_a_revoked_key_stays_listed_and_lets_nobody_in(there: Organization) -> None:
    made = ask(there, "POST", KEYS, {"name": "short"}).json

    deleted = ask(there, "DELETE", f"{KEYS}/{made['id']}")

    assert deleted.json == {"id": made["id"], "object": "organization.api_key.deleted", "deleted": True}
    assert ask(there, "DELETE", f"{KEYS}/{made['id']}").status == 200
    assert ask(there, "GET", f"{KEYS}/{made['id']}").json["revoked_at"] is not None
    assert told(there)[-1] == ("api_key.deleted", made["id"])
    assert ask(there, "POST", f"{KEYS}/{made['id']}/rotate").status == 409
    eventually(lambda: there.api.ask("GET", "/v1/batches", key=made["value"]).status == 401, seconds=10)


def test_a_rotated_key_lets_in_until_the_overlap_is_over(there: Organization) -> None:
    terms = {"name": "nightly", "roles": ["submit", "operate"], "project_id": there.first, "expires_in_seconds": 86_400}
    old = ask(there, "POST", KEYS, terms).json

    new = ask(there, "POST", f"{KEYS}/{old['id']}/rotate", {"overlap_seconds": 3600}).json

    assert new["replaces"]["id"] == old["id"]
    assert new["replaces"]["expires_at"] - new["created_at"] in {3599, 3600, 3601}
    assert [new[each] for each in ("name", "roles", "project_id")] == [
        terms[each] for each in ("name", "roles", "project_id")
    ]
    assert new["expires_at"] - new["created_at"] in {86_399, 86_400, 86_401}
    for key in (old["value"], new["value"]):
        assert there.api.ask("GET", "/v1/batches", key=key).status == 200

    assert ask(there, "POST", f"{KEYS}/{new['id']}/rotate", {"overlap_seconds": 0}).status == 200
    eventually(lambda: there.api.ask("GET", "/v1/batches", key=new["value"]).status == 401, seconds=10)
    assert ask(there, "POST", f"{KEYS}/{new['id']}/rotate").status == 409


def test_an_overlap_never_lengthens_a_keys_life(there: Organization) -> None:
    old = ask(there, "POST", KEYS, {"name": "short", "expires_in_seconds": 60}).json

    new = ask(there, "POST", f"{KEYS}/{old['id']}/rotate", {"overlap_seconds": 2_592_000}).json

    assert new["replaces"]["expires_at"] == old["expires_at"]


def test_a_confined_admin_manages_the_keys_of_its_project_and_no_others(there: Organization) -> None:
    confined = there.key(project_id=there.first)
    wide = ask(there, "POST", KEYS, {"name": "wide"}).json

    made = ask(there, "POST", KEYS, {"name": "mine", "roles": ["admin"]}, key=confined).json

    assert made["project_id"] == there.first
    listed = ask(there, "GET", KEYS, key=confined).json["data"]
    assert {key["project_id"] for key in listed} == {there.first}
    for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/rotate")):
        assert ask(there, method, f"{KEYS}/{wide['id']}{path}", key=confined).status == 404
        assert ask(there, method, f"{KEYS}/{made['id']}{path}", key=confined).status == (409 if path else 200)


@pytest.mark.parametrize("by", ["key", "header"])
def test_what_is_confined_cannot_make_a_key_for_more(there: Organization, by: str) -> None:
    confined = (
        {"key": there.key(project_id=there.first)} if by == "key" else {"headers": {"OpenAI-Project": there.first}}
    )

    refused = ask(there, "POST", KEYS, {"name": "all", "roles": ["read"], "project_id": None}, **confined)
    elsewhere = ask(there, "POST", KEYS, {"name": "there", "project_id": there.second}, **confined)

    assert (refused.status, refused.error["code"], refused.error["param"]) == (403, "escalation", "project_id")
    assert there.first in refused.error["message"]
    assert elsewhere.status == 404
    for path in (PROJECTS, f"{PROJECTS}/{there.first}"):
        renamed = ask(there, "POST", path, {"name": "mine"}, **confined)
        assert (renamed.status, renamed.error["code"]) == (403, "forbidden")


def test_the_log_tells_who_did_what_by_which_request(there: Organization) -> None:
    made = ask(there, "POST", KEYS, {"name": "worker", "roles": ["submit"], "project_id": there.first})
    submitter = made.json["value"]
    uploaded = there.api.upload(LINE, key=submitter)
    batch = there.api.ask("POST", "/v1/batches", batch_body(uploaded.json["id"]), key=submitter)
    there.api.ask("POST", f"/v1/batches/{batch.json['id']}/cancel", key=submitter)
    spare = there.api.upload(LINE, key=submitter).json["id"]
    there.api.ask("DELETE", f"/v1/files/{spare}", key=submitter)

    entries = ask(there, "GET", f"{LOG}?limit=100", key=there.key(project_id=there.first)).json["data"]

    own = [entry for entry in reversed(entries) if entry["actor"]["api_key"] == {"id": made.json["id"]}]
    assert [(entry["type"], entry[entry["type"]]["id"]) for entry in own] == [
        ("file.created", uploaded.json["id"]),
        ("batch.created", batch.json["id"]),
        ("batch.cancelled", batch.json["id"]),
        ("file.created", spare),
        ("file.deleted", spare),
    ]
    assert [entry["request_id"] for entry in own[:2]] == [
        uploaded.headers["x-request-id"],
        batch.headers["x-request-id"],
    ]
    assert {entry["project"]["id"] for entry in entries} == {there.first}
    first = ask(there, "GET", f"{LOG}?limit=1", key=there.key(project_id=there.first)).json
    second = ask(there, "GET", f"{LOG}?limit=1&after={first['last_id']}", key=there.key(project_id=there.first)).json
    assert first["has_more"]
    assert [first["data"][0]["id"], second["data"][0]["id"]] == [entry["id"] for entry in entries[:2]]


def test_what_is_refused_or_only_read_is_not_in_the_log(there: Organization) -> None:
    key = there.key(Role.READ)
    before = told(there)

    ask(there, "GET", "/v1/batches", key=key)
    ask(there, "POST", KEYS, {"name": "no"}, key=key)
    ask(there, "DELETE", f"/v1/files/{there.first}")
    ask(there, "POST", PROJECTS, {"name": "one"})

    assert told(there) == before
