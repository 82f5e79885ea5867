"""Webhooks through the API: managed on a quiet one, received from a whole one."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from standardwebhooks import Webhook

from pipeline.domain.access import Role
from pipeline.domain.ids import DEFAULT_PROJECT, ProjectId, TenantId
from tests.pipeline.http.driving import lines
from tests.pipeline.http.served import Answer, Served
from tests.receiver import Receiver, receiving
from tests.services import connect, eventually

EXAMPLE = Path(__file__).parents[3] / "examples" / "webhook_receiver.py"
HOOK = "https://hooks.example.com/a"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


class Api:
    """Asks with a key that may manage webhooks, or another."""

    def __init__(self, served: Served) -> None:
        self.served = served

    def ask(self, method: str, path: str, body: object = None, *, key: str | None = None) -> Answer:
        return self.served.ask(method, path, body, key=key or self.served.key(Role.ADMIN))

    def create(self, url: str = HOOK, **more: object) -> dict[str, Any]:
        answer = self.ask("POST", "/v1/webhooks", {"url": url, **more})
        assert answer.status == 200, answer.content
        made: dict[str, Any] = answer.json
        return made

    def deliveries(self, webhook_id: str) -> list[dict[str, Any]]:
        data: list[dict[str, Any]] = self.ask("GET", f"/v1/webhooks/{webhook_id}/deliveries").json["data"]
        return data


@pytest.fixture
def api(quiet: Served) -> Api:
    return Api(quiet)


@pytest.fixture
def live(whole: Served) -> Api:
    return Api(whole)


def test_a_webhook_is_created_with_a_secret_that_is_shown_this_once(api: Api) -> None:
    made = api.create(description="mine", event_types=["batch.completed", "batch.completed"])

    assert made["secret"].startswith("whsec_")
    assert (made["object"], made["enabled"], made["event_types"]) == ("webhook", True, ["batch.completed"])
    shown = api.ask("GET", f"/v1/webhooks/{made['id']}").json
    assert shown == {name: value for name, value in made.items() if name != "secret"}
    assert shown in api.ask("GET", "/v1/webhooks?limit=100").json["data"]


def test_as_it_comes_a_webhook_is_told_how_batches_end(api: Api) -> None:
    kinds = set(api.create()["event_types"])

    assert kinds == {"batch.completed", "batch.failed", "batch.expired", "batch.cancelled"}


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({}, 400, "url"),
        ({"url": "ftp://hooks.example.com/"}, 400, "url"),
        ({"url": "https://user@hooks.example.com/"}, 400, "url"),
        ({"url": "https://hooks.example.com/\n"}, 400, "url"),
        ({"url": "https://hooks.example.com/" + "a" * 2048}, 400, "url"),
        ({"url": "http://8.8.8.8/"}, 403, "url"),
        ({"url": "https://8.8.8.8:8443/"}, 403, "url"),
        ({"url": "https://169.254.169.254/"}, 403, "url"),
        ({"url": HOOK, "event_types": []}, 400, "event_types"),
        ({"url": HOOK, "event_types": ["webhook.test"]}, 400, "event_types.0"),
        ({"url": HOOK, "description": "x" * 501}, 400, "description"),
        ({"url": HOOK, "secret": "mine"}, 400, "secret"),
        ({"url": HOOK, "project_id": "proj_unknown"}, 404, None),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(api: Api, body: object, status: int, param: str | None) -> None:
    answer = api.ask("POST", "/v1/webhooks", body)

    assert (answer.status, answer.error["param"]) == (status, param)


def test_a_webhook_is_changed_field_by_field(api: Api) -> None:
    made = api.create()
    path = f"/v1/webhooks/{made['id']}"

    assert api.ask("PATCH", path, {"url": f"{HOOK}/b"}).json["url"] == f"{HOOK}/b"
    assert api.ask("PATCH", path, {"event_types": ["batch.progress"]}).json["event_types"] == ["batch.progress"]
    disabled = api.ask("PATCH", path, {"enabled": False, "description": "off"}).json
    assert (disabled["enabled"], disabled["disabled_reason"], disabled["description"]) == (False, "asked", "off")
    assert api.ask("POST", f"{path}/test").status == 409
    enabled = api.ask("PATCH", path, {"enabled": True}).json
    assert (enabled["enabled"], enabled["disabled_at"], enabled["url"]) == (True, None, f"{HOOK}/b")
    assert api.ask("PATCH", path, {"url": "http://10.0.0.1/"}).status == 403
    assert api.ask("PATCH", path, {}).json == enabled


def test_a_secret_is_rotated_with_a_body_and_without(api: Api) -> None:
    made = api.create()
    path = f"/v1/webhooks/{made['id']}/rotate_secret"

    first, second = api.ask("POST", path), api.ask("POST", path, {"overlap_seconds": 0})

    assert len({made["secret"], first.json["secret"], second.json["secret"]}) == 3
    assert first.json["previous_secret_until"] > second.json["previous_secret_until"]
    assert api.ask("POST", path, {"overlap_seconds": 8 * 86_400}).error["param"] == "overlap_seconds"


def test_a_test_waits_among_the_deliveries_until_it_is_sent(api: Api) -> None:
    made = api.create()
    path = f"/v1/webhooks/{made['id']}"

    first, second = (api.ask("POST", f"{path}/test").json for _ in range(2))

    assert (first["object"], first["status"], first["type"], first["tries"]) == (
        "webhook.delivery", "pending", "webhook.test", 0,
    )  # fmt: skip
    page = api.ask("GET", f"{path}/deliveries?limit=1").json
    assert (page["data"], page["has_more"]) == ([second], True)
    assert api.ask("GET", f"{path}/deliveries?after={page['last_id']}").json["data"] == [first]
    assert api.ask("GET", f"{path}/deliveries?after=evt_unknown").status == 404


@pytest.mark.parametrize("body", [{}, {"event_id": "evt_1", "since": 1}, {"event_id": ""}, {"since": "now"}, {"x": 1}])
def test_redelivery_wants_one_event_or_an_instant(api: Api, body: object) -> None:
    assert api.ask("POST", f"/v1/webhooks/{api.create()['id']}/redeliver", body).status == 400


def test_redelivery_says_how_many_events_it_is(api: Api) -> None:
    made = api.create()
    path = f"/v1/webhooks/{made['id']}"
    event_id = api.ask("POST", f"{path}/test").json["id"]

    for body in ({"event_id": event_id}, {"since": made["created_at"]}, {"since": 0}, {"since": 5.0}):
        assert api.ask("POST", f"{path}/redeliver", body).json == {"object": "webhook.redelivery", "events": 1}
    assert api.ask("POST", f"{path}/redeliver", {"event_id": "evt_unknown"}).status == 404


def test_what_was_deleted_is_gone(api: Api) -> None:
    path = f"/v1/webhooks/{api.create()['id']}"

    assert api.ask("DELETE", path).json["deleted"] is True

    assert api.ask("GET", path).status == api.ask("DELETE", path).status == 404


ROUTES = (
    ("GET", "", None),
    ("PATCH", "", {"enabled": False}),
    ("DELETE", "", None),
    ("POST", "/rotate_secret", None),
    ("POST", "/test", None),
    ("GET", "/deliveries", None),
    ("POST", "/redeliver", {"since": 0}),
)


@pytest.fixture(scope="module")
def strangers(quiet: Served) -> list[str]:
    """Keys of another tenant, and of a project of the same one."""
    with connect(quiet.stack.database.url) as connection:
        connection.execute("INSERT INTO nightrate.tenants (id, name) VALUES ('tnt_w', 'w')")
        connection.execute(
            "INSERT INTO nightrate.projects (id, tenant_id, name, is_default) VALUES "
            "('proj_w', 'tnt_w', 'w', true), ('proj_v', 'tnt_default', 'v', false)"
        )
    return [
        quiet.key(Role.ADMIN, tenant_id=TenantId("tnt_w")),
        quiet.key(Role.ADMIN, project_id=ProjectId("proj_v")),
    ]


@pytest.mark.parametrize(("method", "suffix", "body"), ROUTES)
def test_anothers_webhook_does_not_exist(
    api: Api, strangers: list[str], method: str, suffix: str, body: object
) -> None:
    made = api.create()
    path = f"/v1/webhooks/{made['id']}"

    for key in strangers:
        answer = api.ask(method, path + suffix, body, key=key)
        assert answer.status == 404
        assert answer.content == api.ask(method, f"/v1/webhooks/whk_unknown{suffix}", body, key=key).content.replace(
            b"whk_unknown", made["id"].encode()
        )
        assert made["id"] not in api.ask("GET", "/v1/webhooks?limit=100", key=key).content.decode()
    assert api.ask("GET", path).json["enabled"] is True


@pytest.mark.parametrize("role", [Role.SUBMIT, Role.READ, Role.ANALYST])
@pytest.mark.parametrize(("method", "suffix", "body"), ROUTES)
def test_who_may_not_manage_webhooks_is_told_so(api: Api, role: Role, method: str, suffix: str, body: object) -> None:
    assert api.ask(method, f"/v1/webhooks/whk_1{suffix}", body, key=api.served.key(role)).status == 403


def test_a_key_of_a_project_makes_webhooks_of_that_project(api: Api, strangers: list[str]) -> None:
    made = api.ask("POST", "/v1/webhooks", {"url": HOOK}, key=strangers[1]).json

    assert made["project_id"] == "proj_v"
    other = api.ask("POST", "/v1/webhooks", {"url": HOOK, "project_id": DEFAULT_PROJECT}, key=strangers[1])
    assert other.status == 404


def test_what_happens_to_a_batch_arrives_and_openais_client_unwraps_it(live: Api, receiver: Receiver) -> None:
    kinds = ["batch.in_progress", "batch.progress", "batch.completed", "batch.failed"]
    made = live.create(receiver.url("/all"), event_types=kinds)
    with openai.OpenAI(base_url=f"{live.served.url}/v1", api_key=live.served.key()) as client:
        file = client.files.create(file=("in.jsonl", lines(40)), purpose="batch")
        batch = client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
        bad = client.batches.create(
            input_file_id="file_unknown", endpoint="/v1/chat/completions", completion_window="24h"
        )
        eventually(lambda: {"batch.completed", "batch.failed"} <= set(receiver.types_at("/all")))

        for arrived in receiver.at("/all"):
            event = client.webhooks.unwrap(arrived.body.decode(), arrived.headers, secret=made["secret"])
            assert event.id == arrived.headers["webhook-id"]
        with pytest.raises(openai.InvalidWebhookSignatureError):
            client.webhooks.unwrap(arrived.body.decode() + " ", arrived.headers, secret=made["secret"])

    told = [(each.event["type"], each.event["data"]["id"]) for each in receiver.at("/all")]
    assert ("batch.completed", batch.id) in told
    assert ("batch.in_progress", batch.id) in told
    assert ("batch.failed", bad.id) in told
    [completed] = [each.event for each in receiver.at("/all") if each.event["type"] == "batch.completed"]
    assert completed == {
        "id": completed["id"],
        "object": "event",
        "created_at": completed["created_at"],
        "type": "batch.completed",
        "data": {"id": batch.id},
    }
    eventually(lambda: {each["status"] for each in live.deliveries(made["id"])} == {"delivered"})
    live.ask("DELETE", f"/v1/webhooks/{made['id']}")


def test_a_test_arrives_signed_by_both_secrets_after_rotation_and_again_on_redelivery(
    live: Api, receiver: Receiver
) -> None:
    made = live.create(receiver.url("/test"))
    path = f"/v1/webhooks/{made['id']}"
    rotated = live.ask("POST", f"{path}/rotate_secret").json

    event_id = live.ask("POST", f"{path}/test").json["id"]
    eventually(lambda: [each["status"] for each in live.deliveries(made["id"])] == ["delivered"])
    live.ask("POST", f"{path}/redeliver", {"event_id": event_id})
    eventually(lambda: len(receiver.at("/test")) == 2)

    for arrived in receiver.at("/test"):
        assert arrived.headers["webhook-id"] == event_id
        for secret in (made["secret"], rotated["secret"]):
            assert Webhook(secret).verify(arrived.body, arrived.headers)["data"] == {"id": made["id"]}


def test_a_receiver_that_answers_410_is_disabled(live: Api, receiver: Receiver) -> None:
    receiver.statuses["/gone"] = [410]
    made = live.create(receiver.url("/gone"))

    live.ask("POST", f"/v1/webhooks/{made['id']}/test")

    eventually(lambda: live.ask("GET", f"/v1/webhooks/{made['id']}").json["disabled_reason"] == "gone")
    [delivery] = live.deliveries(made["id"])
    assert (delivery["status"], delivery["last_status"], delivery["tries"]) == ("gave_up", 410, 1)


def test_the_receiver_of_the_examples_takes_what_is_sent(live: Api) -> None:
    made = live.create("http://127.0.0.1:1/")  # until its port is known
    with subprocess.Popen(
        [sys.executable, str(EXAMPLE), "0"],
        env={**os.environ, "WEBHOOK_SECRET": made["secret"]},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            port = process.stdout.readline().split()[-1]
            live.ask("PATCH", f"/v1/webhooks/{made['id']}", {"url": f"http://127.0.0.1:{port}/"})
            live.ask("POST", f"/v1/webhooks/{made['id']}/test")

            assert process.stdout.readline() == f"webhook.test {made['id']}\n"
        finally:
            process.terminate()


def test_who_made_changed_and_removed_a_webhook_is_in_the_audit_log_and_its_secrets_are_not(quiet: Served) -> None:
    admin = quiet.key(Role.ADMIN)
    made = quiet.ask("POST", "/v1/webhooks", {"url": "http://127.0.0.1:9/"}, key=admin).json
    path = f"/v1/webhooks/{made['id']}"
    quiet.ask("PATCH", path, {"description": "ours"}, key=admin)
    rotated = quiet.ask("POST", f"{path}/rotate_secret", {}, key=admin).json
    assert quiet.ask("DELETE", path, key=admin).status == 200

    answer = quiet.ask("GET", "/v1/organization/audit_logs?limit=100", key=admin)

    told = [entry for entry in answer.json["data"] if made["id"] in str(entry)]
    assert [entry["type"] for entry in reversed(told)] == [
        "webhook.created",
        "webhook.updated",
        "webhook.updated",
        "webhook.deleted",
    ]
    for secret in (made["secret"], rotated["secret"]):
        assert secret not in answer.content.decode()
