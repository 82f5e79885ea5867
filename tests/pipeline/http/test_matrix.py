"""Nothing of one tenant, or of another project, is ever seen: every route, every kind of id, every foreign key.

The routes are those of the app's route table, so that none can be forgotten: one whose path takes a kind of id that
`belongings` does not make fails the first test here, with what to add.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import pytest

from pipeline.domain.ids import (
    new_batch_id,
    new_budget_id,
    new_file_id,
    new_key_id,
    new_project_id,
    new_upload_id,
    new_webhook_id,
)
from pipeline.entrypoints.http.server import build_app
from storage.base import Base
from tests.pipeline.http.organizations import Organization, batch_body, belongings, organization
from tests.pipeline.http.routes import Endpoint, endpoints_of
from tests.pipeline.http.served import Answer, Served
from tests.services import eventually

#: What nobody owns: models are the installation's.
SHARED = frozenset({"model"})
UNKNOWN = {
    "budget_id": new_budget_id(),
    "file_id": new_file_id(),
    "batch_id": new_batch_id(),
    "project_id": new_project_id(),
    "key_id": new_key_id(),
    "upload_id": new_upload_id(),
    "webhook_id": new_webhook_id(),
}
#: Of an object, and with it the seconds at which it was made.
ID = re.compile(r"\b(batch|file|key|proj|tnt|audit|req|upload|whk|evt|budget)_[0-9a-f]{20,}\b")
SECONDS = re.compile(r'(_at":)[0-9]+')


@dataclass(frozen=True, slots=True)
class Intruder:
    """Somebody who may do everything, elsewhere."""

    name: str
    key: str
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Stage:
    api: Served
    owner: Organization
    owned: Mapping[str, str]
    intruders: tuple[Intruder, ...]
    endpoints: tuple[Endpoint, ...]

    def ask(self, intruder: Intruder, endpoint: Endpoint, url: str) -> Answer:
        return self.api.ask(endpoint.method, url, endpoint.body, key=intruder.key, headers=intruder.headers)


@pytest.fixture(scope="module")
def stage(quiet: Served) -> Stage:
    owner, other = organization(quiet, "owner"), organization(quiet, "other")
    intruders = (
        Intruder("a key of another tenant", other.key(), {}),
        Intruder("a key of another project", owner.key(project_id=owner.second), {}),
        Intruder("a request about another project", owner.key(), {"OpenAI-Project": owner.second}),
    )
    return Stage(quiet, owner, belongings(owner), intruders, tuple(endpoints_of(build_app(quiet.service))))


def everything(api: Served) -> dict[str, list[str]]:
    """Return what all tables hold, but for when keys were used."""
    with api.stack.database.transaction() as connection:
        return {
            table.name: sorted(
                str({name: value for name, value in row.items() if name != "last_used_at"})
                for row in connection.execute(table.select()).mappings()
            )
            for table in Base.metadata.sorted_tables
        }


def without_ids(answer: Answer) -> tuple[int, str]:
    return answer.status, SECONDS.sub(r"\1", ID.sub("ID", answer.content.decode()))


def test_there_is_a_foreign_id_for_every_path_that_takes_one(stage: Stage) -> None:
    missing = {name for endpoint in stage.endpoints for name in endpoint.path_params} - stage.owned.keys() - SHARED
    assert not missing, f"`belongings` in organizations.py is to make one of each: {sorted(missing)}"
    assert stage.owned.keys() == UNKNOWN.keys(), "UNKNOWN is to have an id of each kind that nobody has"
    for name, owned in stage.owned.items():
        assert owned.partition("_")[0] == UNKNOWN[name].partition("_")[0], name


def test_what_belongs_to_another_does_not_exist_on_any_route(stage: Stage) -> None:
    before = everything(stage.api)
    wrong = []
    asked = 0
    for endpoint in stage.endpoints:
        names = [name for name in endpoint.path_params if name not in SHARED]
        if not names:
            continue
        for intruder in stage.intruders:
            for kind, foreign in stage.owned.items():
                answer = stage.ask(intruder, endpoint, endpoint.url(dict.fromkeys(names, foreign)))
                unknown = stage.ask(intruder, endpoint, endpoint.url(dict.fromkeys(names, UNKNOWN[kind])))
                asked += 1
                if answer.status != 404:
                    hint = "; give the schema of its body an example that is accepted" if answer.status == 400 else ""
                    wrong.append(f"{endpoint} answers {answer.status} to {intruder.name} with a foreign {kind}{hint}")
                elif without_ids(answer) != without_ids(unknown):
                    wrong.append(f"{endpoint} tells {intruder.name} a foreign {kind} from an unknown one")

    assert wrong == []
    assert asked >= 100
    assert everything(stage.api) == before


def test_the_owner_finds_all_that_the_others_do_not(stage: Stage) -> None:
    found = {
        (endpoint.path, name)
        for endpoint in stage.endpoints
        for name in endpoint.path_params
        if endpoint.method == "GET"
        and name not in SHARED
        and stage.api.ask("GET", endpoint.url(stage.owned), key=stage.owner.key()).status == 200
    }

    readable = {name for endpoint in stage.endpoints if endpoint.method == "GET" for name in endpoint.path_params}
    assert len(readable) >= 5
    assert {name for _, name in found} == readable - SHARED


def test_no_list_shows_what_belongs_to_another(stage: Stage) -> None:
    lists = [each for each in stage.endpoints if each.method == "GET" and each.permission and not each.path_params]
    assert len(lists) >= 5

    for endpoint in lists:
        for intruder in stage.intruders:
            answer = stage.ask(intruder, endpoint, endpoint.path)
            assert answer.status == 200, f"{endpoint} for {intruder.name}"
            shown = [foreign for foreign in stage.owned.values() if foreign in answer.content.decode()]
            assert shown == [], f"{endpoint} for {intruder.name}"


def test_a_foreign_cursor_is_as_unknown_as_one_that_nobody_has(stage: Stage) -> None:
    paged = [endpoint for endpoint in stage.endpoints if "after" in endpoint.query_params]
    assert len(paged) >= 5
    log = stage.api.ask("GET", "/v1/organization/audit_logs?limit=100", key=stage.owner.key()).json["data"]
    entry = next(entry for entry in log if entry["project"] == {"id": stage.owner.first})

    for endpoint in paged:
        for intruder in stage.intruders:
            unknown = stage.ask(intruder, endpoint, f"{endpoint.path}?after={UNKNOWN['file_id']}")
            assert unknown.status == 404
            for foreign in (*stage.owned.values(), entry["id"]):
                answer = stage.ask(intruder, endpoint, f"{endpoint.path}?after={foreign}")
                assert without_ids(answer) == without_ids(unknown), f"{endpoint} for {intruder.name}"


def test_an_idempotency_key_tells_nothing_of_another_projects_batch(stage: Stage) -> None:
    named = {"Idempotency-Key": "nightly"}
    owner, body = stage.owner.key(project_id=stage.owner.first), batch_body(stage.owned["file_id"])
    batch = stage.api.ask("POST", "/v1/batches", body, key=owner, headers=named).json
    stranger, neighbour, _ = (intruder.key for intruder in stage.intruders)

    other = stage.api.ask("POST", "/v1/batches", body, key=stranger, headers=named)
    refused = stage.api.ask("POST", "/v1/batches", body, key=neighbour, headers=named)

    assert other.json["id"] != batch["id"]
    assert refused.status == 422
    assert batch["id"] not in refused.content.decode()


def test_a_key_cannot_be_confined_to_a_foreign_project(stage: Stage) -> None:
    for intruder in stage.intruders:
        foreign, unknown = (
            stage.api.ask(
                "POST",
                "/v1/organization/api_keys",
                {"name": "mine", "project_id": project_id},
                key=intruder.key,
                headers=intruder.headers,
            )
            for project_id in (stage.owner.first, UNKNOWN["project_id"])
        )
        assert foreign.status == 404
        assert without_ids(foreign) == without_ids(unknown)


def test_a_foreign_project_in_the_header_is_as_unknown_as_one_that_nobody_has(stage: Stage) -> None:
    stranger = stage.intruders[0]
    foreign, unknown = (
        stage.api.ask("GET", "/v1/batches", key=stranger.key, headers={"OpenAI-Project": project_id})
        for project_id in (stage.owner.first, UNKNOWN["project_id"])
    )

    assert foreign.status == 401
    assert foreign.error == unknown.error


def test_a_batch_of_a_foreign_file_is_made_and_fails_as_one_of_no_file_does(whole: Served) -> None:
    owner, other = organization(whole, "owner"), organization(whole, "other")
    file_id = belongings(owner)["file_id"]
    key = other.key()

    foreign, unknown = (
        whole.ask("POST", "/v1/batches", batch_body(each), key=key).json for each in (file_id, UNKNOWN["file_id"])
    )
    answers = [f"/v1/batches/{batch['id']}" for batch in (foreign, unknown)]
    eventually(lambda: all(whole.ask("GET", path, key=key).json["status"] == "failed" for path in answers))

    first, second = (without_ids(whole.ask("GET", path, key=key)) for path in answers)
    assert first == second
    assert "Cannot find file" in first[1]
