"""Quotes, explanations and ETAs, and that they tell a tenant nothing of another."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import openai
from sqlalchemy import text

from pipeline.app.serving import KeyOrder, make_key
from pipeline.domain.access import Role
from pipeline.domain.ids import TenantId
from tests.pipeline.http.driving import lines
from tests.pipeline.http.served import Answer, Served
from tests.pipeline.http.test_steering import cancelled, create, take_in
from tests.services import eventually


def quote(api: Served, **terms: object) -> Answer:
    asked = {"endpoint": "/v1/chat/completions", "completion_window": "2h", **terms}
    return api.ask("POST", "/v1/batches/quote", asked)


def explain(api: Served, batch: dict[str, Any], query: str = "") -> dict[str, Any]:
    answer = api.ask("GET", f"/v1/batches/{batch['id']}/explain{query}")
    assert answer.status == 200, answer.content
    document: dict[str, Any] = answer.json
    return document


def test_a_quote_tells_cost_time_and_chances_and_makes_no_batch(whole: Served) -> None:
    file_id = whole.upload(lines(30)).json["id"]
    newest = whole.ask("GET", "/v1/batches?limit=1").json["first_id"]

    answer = quote(whole, input_file_id=file_id, tier="bulk", metadata={"who": "me"})

    assert answer.status == 200, answer.content
    found = answer.json
    assert (found["object"], found["model"], found["rows"]["total"]) == ("batch.quote", "echo", 30)
    assert found["tokens"]["input"] > 0
    assert found["tokens"]["output_expected"] > 0
    for offer in found["tiers"]:
        assert offer["cost"].keys() == {"low", "high", "currency"}
        assert offer["finish_seconds"]["low"] <= offer["finish_seconds"]["median"] <= offer["finish_seconds"]["high"]
        assert set(offer["chances"]) == {"2h", "1h", "6h", "24h"}
        assert offer["can_promise"] is (offer["shortest_window_seconds"] <= 7200)
    assert {offer["tier"] for offer in found["tiers"]} >= {"urgent", "standard", "bulk"}
    assert whole.ask("GET", "/v1/batches?limit=1").json["first_id"] == newest


def test_without_a_worker_a_quote_knows_what_the_file_is(quiet: Served) -> None:
    found = quote(quiet, input_file_id=quiet.upload(lines(3)).json["id"]).json

    assert found["rows"] == {"total": 3, "duplicate": 0, "refused": 0}
    assert {(offer["cost"], offer["finish_seconds"], offer["can_promise"]) for offer in found["tiers"]} == {
        (None, None, False)
    }


def test_a_quote_wants_a_file_that_a_batch_could_be_made_of(quiet: Served) -> None:
    bad = quiet.upload(b"no json\n" + lines(1)).json["id"]
    other = quiet.upload(lines(1), purpose="user_data").json["id"]

    missing = quote(quiet, input_file_id="file_none")
    broken = quote(quiet, input_file_id=bad)

    assert missing.status == 404
    assert (broken.status, broken.error["code"]) == (400, "invalid_json_line")
    assert broken.error["message"] == "Line 1: This line is not parseable as valid JSON."
    assert quote(quiet, input_file_id=other).status == 400
    assert quote(quiet).error["param"] == "input_file_id"


def test_an_explanation_says_why_and_since_when(quiet: Served) -> None:
    batch = create(quiet)
    assert explain(quiet, batch)["sentence"] == "Its input file is being read and checked."
    take_in(quiet, batch["id"])

    told = explain(quiet, batch, "?history=true")

    assert (told["object"], told["id"], told["state"], told["reason"]) == (
        "batch.explanation", batch["id"], "in_progress", "queued",
    )  # fmt: skip
    assert told["sentence"] == "It waits for the scheduler, which is away."
    assert told["notes"]["rows"] == "0 of 4 done"
    assert told["figures"]["rows_left"] == 4
    assert [past["what"] for past in told["history"]] == ["queued"]
    assert explain(quiet, cancelled(quiet))["reason"] == "user_cancelled"


def test_another_tenants_batch_is_not_explained(quiet: Served) -> None:
    batch = create(quiet)
    stranger = key_of_another_tenant(quiet)

    assert quiet.ask("GET", f"/v1/batches/{batch['id']}/explain", key=stranger).status == 404
    assert quiet.ask("GET", f"/v1/batches/{batch['id']}?include=eta", key=stranger).status == 404


def test_an_eta_is_told_only_where_it_is_asked_for_and_known(quiet: Served) -> None:
    batch = create(quiet)
    path = f"/v1/batches/{batch['id']}"

    assert "eta" not in quiet.ask("GET", path).json
    assert quiet.ask("GET", f"{path}?include=eta").json["eta"] is None
    assert quiet.ask("GET", f"{path}?include[]=eta").json["eta"] is None
    assert quiet.ask("GET", f"{path}?include=cost").status == 400


def test_a_batch_that_is_held_back_has_no_eta(whole: Served) -> None:
    with openai.OpenAI(base_url=f"{whole.url}/v1", api_key=whole.key()) as client:
        file = client.files.create(file=("in.jsonl", lines(5)), purpose="batch")
        batch = client.batches.create(
            input_file_id=file.id,
            endpoint="/v1/chat/completions",
            completion_window="24h",
            extra_body={"hold_until": 4_000_000_000},
        )
        eventually(lambda: client.batches.retrieve(batch.id).status == "in_progress")
        path = f"/batches/{batch.id}"
        eventually(lambda: whole.ask("GET", f"/v1{path}").json["reason"]["code"] == "held")
        held = client.get(path, cast_to=type(batch), options={"params": {"include": ["eta"]}})
        assert held.model_extra is not None
        assert held.model_extra["eta"] is None
        client.batches.cancel(batch.id)


def key_of_another_tenant(api: Served) -> str:
    tenant_id = TenantId(f"tnt_{uuid4().hex}")
    with api.stack.database.engine.begin() as connection:
        connection.execute(text("INSERT INTO nightrate.tenants (id, name) VALUES (:id, :id)"), {"id": tenant_id})
        connection.execute(
            text("INSERT INTO nightrate.projects (id, tenant_id, name, is_default) VALUES (:p, :id, 'default', true)"),
            {"id": tenant_id, "p": f"proj_{tenant_id}"},
        )
    order = KeyOrder(tenant_id=tenant_id, project_id=None, name="other", roles=(Role.ADMIN,))
    return make_key(api.service, order)[1]
