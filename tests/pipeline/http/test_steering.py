"""What users do to batches on their way, and to the rows that batches left without a success."""

from __future__ import annotations

import json
import time
from typing import Any

import openai
import pytest

from pipeline.app.batches import finalize_claimed, take_in_claimed
from pipeline.domain.access import Role
from pipeline.domain.lifecycle import BatchState
from tests.pipeline.http.served import Answer, Served
from tests.pipeline.http.test_life import lines
from tests.services import eventually


def create(api: Served, content: bytes = lines(4), **terms: object) -> dict[str, Any]:
    file_id = api.upload(content).json["id"]
    body = {"input_file_id": file_id, "endpoint": "/v1/chat/completions", "completion_window": "24h", **terms}
    answer = api.ask("POST", "/v1/batches", body)
    assert answer.status == 200, answer.content
    document: dict[str, Any] = answer.json
    return document


def take_in(api: Served, batch_id: str) -> None:
    claim = api.stack.batches.claim([BatchState.VALIDATING], batch_id=batch_id)
    assert claim is not None
    take_in_claimed(api.stack, claim)


def cancelled(api: Served, **terms: object) -> dict[str, Any]:
    """Return a batch that was cancelled once its four rows were taken in, and none of them run."""
    batch = create(api, **terms)
    take_in(api, batch["id"])
    api.ask("POST", f"/v1/batches/{batch['id']}/cancel")
    claim = api.stack.batches.claim([BatchState.CANCELLING], batch_id=batch["id"])
    assert claim is not None
    finalize_claimed(api.stack, claim)
    document: dict[str, Any] = api.ask("GET", f"/v1/batches/{batch['id']}").json
    assert document["status"] == "cancelled"
    return document


def change(api: Served, batch: dict[str, Any], **terms: object) -> Answer:
    return api.ask("PATCH", f"/v1/batches/{batch['id']}", terms)


def test_a_batch_is_paused_and_goes_on(quiet: Served) -> None:
    batch = create(quiet)
    assert batch["paused_at"] is None

    paused = quiet.ask("POST", f"/v1/batches/{batch['id']}/pause").json
    again = quiet.ask("POST", f"/v1/batches/{batch['id']}/pause").json
    resumed = quiet.ask("POST", f"/v1/batches/{batch['id']}/resume").json

    assert paused["paused_at"] == again["paused_at"] >= batch["created_at"]
    assert resumed["paused_at"] is None


def test_only_what_is_named_changes(quiet: Served) -> None:
    batch = create(quiet, max_cost="2.00", labels={"team": "a"}, metadata={"who": "me"})
    at = batch["created_at"]

    changed = change(quiet, batch, tier="bulk", priority=7, expires_at=at + 7200, hold_until=at + 60).json
    assert (changed["tier"], changed["priority"], changed["expires_at"], changed["hold_until"]) == (
        "bulk", 7, at + 7200, at + 60,
    )  # fmt: skip
    assert (changed["max_cost"], changed["labels"], changed["metadata"]) == ("2.00", {"team": "a"}, {"who": "me"})
    assert changed["completion_window"] == "24h"

    cleared = change(quiet, batch, max_cost=None, hold_until=None, labels=None, metadata={"who": "you"}).json
    assert (cleared["max_cost"], cleared["hold_until"], cleared["labels"]) == (None, None, None)
    assert cleared["metadata"] == {"who": "you"}
    assert (cleared["tier"], cleared["priority"], cleared["expires_at"]) == ("bulk", 7, at + 7200)

    assert change(quiet, batch).json == cleared


def test_a_window_is_counted_from_now(quiet: Served) -> None:
    batch = create(quiet)

    before = int(time.time())
    changed = change(quiet, batch, completion_window="2h").json

    assert before + 7200 <= changed["expires_at"] <= int(time.time()) + 7200


@pytest.mark.parametrize(
    ("terms", "status", "param"),
    [
        ({"completion_window": "2h", "expires_at": 4_000_000_000}, 400, "expires_at"),
        ({"completion_window": "soon"}, 400, "completion_window"),
        ({"tier": "best"}, 400, "tier"),
        ({"tier": None}, 400, "tier"),
        ({"priority": 101}, 400, "priority"),
        ({"priority": None}, 400, "priority"),
        ({"max_cost": "0"}, 400, "max_cost"),
        ({"max_cost": 1}, 400, "max_cost"),
        ({"labels": {"team": 3}}, 400, "labels.team"),
        ({"output_file_id": "file_1"}, 400, "output_file_id"),
        ({"expires_at": 1_000_000_000}, 409, None),
    ],
)
def test_a_change_that_makes_no_sense_is_refused(
    quiet: Served, terms: dict[str, Any], status: int, param: str | None
) -> None:
    batch = create(quiet)

    answer = change(quiet, batch, **terms)

    assert (answer.status, answer.error["param"]) == (status, param)
    assert quiet.ask("GET", f"/v1/batches/{batch['id']}").json == batch


@pytest.mark.parametrize(("method", "path"), [("POST", "/pause"), ("POST", "/resume"), ("PATCH", "")])
def test_what_has_ended_cannot_be_steered(quiet: Served, method: str, path: str) -> None:
    batch = cancelled(quiet)

    answer = quiet.ask(method, f"/v1/batches/{batch['id']}{path}", {"priority": 1} if method == "PATCH" else None)

    assert answer.status == 409
    assert answer.error["message"] == "Cannot change a batch with status 'cancelled'."
    assert answer.headers["x-should-retry"] == "false"


def test_a_key_that_only_reads_steers_nothing(quiet: Served) -> None:
    batch = create(quiet)
    reader = quiet.key(Role.READ)

    for method, path in (("POST", "/pause"), ("POST", "/resume"), ("POST", "/retry"), ("PATCH", "")):
        assert quiet.ask(method, f"/v1/batches/{batch['id']}{path}", {}, key=reader).status == 403


def test_batches_are_listed_by_status_and_project(quiet: Served) -> None:
    ended, live = cancelled(quiet), create(quiet)

    def listed(query: str) -> list[str]:
        answer = quiet.ask("GET", f"/v1/batches?limit=100&{query}")
        assert answer.status == 200
        return [each["id"] for each in answer.json["data"]]

    assert ended["id"] in listed("status=cancelled")
    assert live["id"] not in listed("status=cancelled")
    assert {ended["id"], live["id"]} <= set(listed("status=cancelled&status=validating"))
    assert listed("status=completed") == []
    assert live["id"] in listed(f"project_id={live['project_id']}")
    assert listed("project_id=proj_none") == []
    assert live["id"] not in listed(f"status=validating&after={live['id']}")
    assert quiet.ask("GET", "/v1/batches?status=done").status == 400


# --- retries -----------------------------------------------------------------------------------


def retry(api: Served, batch: dict[str, Any], body: object = None, **headers: str) -> Answer:
    return api.ask("POST", f"/v1/batches/{batch['id']}/retry", body, headers=headers)


def test_a_retry_is_a_batch_of_the_same_file(quiet: Served) -> None:
    batch = cancelled(quiet, metadata={"who": "me"}, labels={"team": "a"}, tier="bulk", priority=3, max_cost="1.00")

    first, second = retry(quiet, batch), retry(quiet, batch)

    assert first.status == second.status == 200
    again = first.json
    assert again["id"] == second.json["id"] != batch["id"]
    assert (again["retry_of"], batch["retry_of"]) == (batch["id"], None)
    assert again["status"] == "validating"
    for kept in (
        "input_file_id",
        "endpoint",
        "completion_window",
        "metadata",
        "labels",
        "tier",
        "priority",
        "max_cost",
    ):
        assert again[kept] == batch[kept]
    take_in(quiet, again["id"])
    assert quiet.ask("GET", f"/v1/batches/{again['id']}").json["request_counts"]["total"] == 4


def test_a_retry_may_have_other_terms(quiet: Served) -> None:
    batch = cancelled(quiet)

    again = retry(quiet, batch, {"completion_window": "48h", "tier": "urgent", "max_cost": "3.00"}).json

    assert (again["completion_window"], again["tier"], again["max_cost"]) == ("48h", "urgent", "3.00")
    assert retry(quiet, batch).json["id"] == again["id"]
    answer = retry(quiet, batch, {"completion_window": "1h"})
    assert answer.status == 409
    assert again["id"] in answer.error["message"]
    other = retry(quiet, batch, {"completion_window": "1h"}, **{"Idempotency-Key": f"mine-{batch['id']}"}).json
    assert other["id"] != again["id"]


def test_what_has_not_ended_or_failed_as_a_whole_is_not_retried(quiet: Served) -> None:
    live = create(quiet)
    failed = create(quiet, b"no json\n")
    take_in(quiet, failed["id"])

    assert retry(quiet, live).error["message"] == "Cannot retry a batch with status 'validating'."
    assert retry(quiet, failed).status == 409
    assert "Nothing to retry" in retry(quiet, failed).error["message"]


def test_without_its_files_a_batch_is_not_retried(quiet: Served) -> None:
    batch, other = cancelled(quiet), cancelled(quiet)

    again = retry(quiet, other).json
    for file_id in (other["error_file_id"], other["input_file_id"]):
        assert quiet.ask("DELETE", f"/v1/files/{file_id}").status == 409
    take_in(quiet, again["id"])
    assert quiet.ask("DELETE", f"/v1/files/{other['error_file_id']}").status == 200
    assert quiet.ask("DELETE", f"/v1/files/{batch['input_file_id']}").status == 200

    assert "has been deleted" in retry(quiet, batch).error["message"]


def test_a_batch_that_was_never_read_is_retried_whole(quiet: Served) -> None:
    batch = create(quiet)
    quiet.ask("POST", f"/v1/batches/{batch['id']}/cancel")
    claim = quiet.stack.batches.claim([BatchState.CANCELLING], batch_id=batch["id"])
    assert claim is not None
    finalize_claimed(quiet.stack, claim)

    again = retry(quiet, batch).json
    take_in(quiet, again["id"])

    assert quiet.ask("GET", f"/v1/batches/{again['id']}").json["request_counts"]["total"] == 4


def mixed(good: int, bad: int) -> bytes:
    """Return rows that succeed, and among them rows that no engine can run as asked."""
    rows = [json.loads(line) for line in lines(good + bad).splitlines()]
    for row in rows[1 :: max(1, len(rows) // bad)][:bad]:
        row["body"]["max_tokens"] = -1
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def test_only_rows_without_a_success_run_and_are_paid_again(whole: Served) -> None:
    with openai.OpenAI(base_url=f"{whole.url}/v1", api_key=whole.key()) as client:
        file = client.files.create(file=("in.jsonl", mixed(6, 3)), purpose="batch")
        batch = client.batches.create(
            input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h", extra_body={"priority": 4}
        )
        eventually(lambda: client.batches.retrieve(batch.id).status == "completed")
        batch = client.batches.retrieve(batch.id)
        assert batch.request_counts is not None
        assert (batch.request_counts.completed, batch.request_counts.failed) == (6, 3)
        assert batch.error_file_id is not None
        failed = {json.loads(line)["custom_id"] for line in client.files.content(batch.error_file_id).text.splitlines()}

        again = client.post(f"/batches/{batch.id}/retry", cast_to=type(batch))
        assert again.model_extra is not None
        assert (again.model_extra["retry_of"], again.model_extra["priority"]) == (batch.id, 4)
        eventually(lambda: client.batches.retrieve(again.id).status == "completed")
        again = client.batches.retrieve(again.id)

        assert again.request_counts is not None
        assert (again.request_counts.total, again.request_counts.failed) == (3, 3)
        assert again.error_file_id is not None
        rows = [json.loads(line) for line in client.files.content(again.error_file_id).text.splitlines()]
        assert {row["custom_id"] for row in rows} == failed
        good = client.files.create(file=("in.jsonl", lines(2)), purpose="batch")
        fine = client.batches.create(
            input_file_id=good.id,
            endpoint="/v1/chat/completions",
            completion_window="24h",
            extra_body={"tier": "urgent"},
        )
        eventually(lambda: client.batches.retrieve(fine.id).status == "completed")
        with pytest.raises(openai.ConflictError, match="every row of the batch has succeeded"):
            client.post(f"/batches/{fine.id}/retry", cast_to=type(batch))
