"""Plans on the wire: rates, ceilings, live batches, and what is left."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import SecretStr

from infra.rate_limits import RateLimits
from pipeline.app.stack import open_stack
from pipeline.config import PlanSettings, Settings
from pipeline.domain.access import Role
from pipeline.domain.ids import BatchId, TenantId
from pipeline.domain.objects.keys import batch_prefix
from pipeline.domain.plans import RouteClass
from pipeline.domain.rates import Rate
from pipeline.domain.tiers import Tier
from pipeline.entrypoints.http import limiting
from pipeline.entrypoints.http.limiting import route_class_of
from tests.pipeline.http.driving import lines
from tests.pipeline.http.served import Answer, Served, served
from tests.services import connect, eventually, fresh_database, running_valkey

#: One request a minute comes back: nothing does while a test runs.
PLANS = {
    "slow": PlanSettings(requests_per_minute=1, burst=3, uploads_per_minute=2),
    "small": PlanSettings(
        requests_per_month=100,
        tokens_per_month=5000,
        tier_ceiling=Tier.BULK,
        enqueued_tokens_max=700,
        batches_live_max=2,
    ),
}
BATCH = {"input_file_id": "file_x", "endpoint": "/v1/chat/completions", "completion_window": "24h"}
HEADERS = ("x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests")
DOWN = "redis://127.0.0.1:1/0"


@contextmanager
def limited(
    template_url: str, redis_url: str | None, home: Path, *, fail: Literal["open", "closed"] = "open"
) -> Iterator[Served]:
    with fresh_database(template_url) as url:
        settings = Settings(
            home=home,
            database_url=SecretStr(url),
            redis_url=None if redis_url is None else SecretStr(redis_url),
            plans=PLANS,
            rate_limits_fail=fail,
        )
        with open_stack(settings) as stack, served(stack) as api:
            yield api


@pytest.fixture(scope="module")
def api(template_url: str, redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with limited(template_url, redis_url, tmp_path_factory.mktemp("limits")) as opened:
        yield opened


def tenant(api: Served, plan: str) -> TenantId:
    """Make a tenant of that plan."""
    tenant_id = TenantId(f"tnt_{uuid.uuid4().hex}")
    url = api.service.stack.database.engine.url.render_as_string(hide_password=False)
    with connect(url) as connection:
        connection.execute("INSERT INTO nightrate.tenants (id, name, plan) VALUES (%s, 'x', %s)", [tenant_id, plan])
        connection.execute(
            "INSERT INTO nightrate.projects (id, tenant_id, name, is_default) VALUES (%s, %s, 'x', true)",
            [f"proj_{tenant_id}", tenant_id],
        )
    return tenant_id


def key_of(api: Served, plan: str) -> str:
    return api.key(tenant_id=tenant(api, plan))


def rates(answer: Answer) -> Mapping[str, str]:
    return {name: value for name, value in answer.headers.items() if name.startswith("x-ratelimit")}


# --- rates of tenants -------------------------------------------------------------------------


def test_a_tenant_gets_its_burst_and_then_429_until_there_is_room(api: Served) -> None:
    key = key_of(api, "slow")

    answers = [api.ask("GET", "/v1/models", key=key) for _ in range(4)]

    assert [answer.status for answer in answers] == [200, 200, 200, 429]
    assert [answer.headers["x-ratelimit-remaining-requests"] for answer in answers] == ["2", "1", "0", "0"]
    refused = answers[3]
    assert (refused.error["code"], refused.error["type"]) == ("rate_limit_exceeded", "rate_limit_error")
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    # A client may try again by itself.
    assert "x-should-retry" not in refused.headers
    for answer in answers:
        assert rates(answer).keys() == set(HEADERS)
        assert answer.headers["x-ratelimit-limit-requests"] == "1"
        assert re.fullmatch(r"(\d+m)?\d+s|\d+ms", answer.headers["x-ratelimit-reset-requests"])


def test_reads_writes_and_uploads_are_counted_apart_and_errors_as_well(api: Served) -> None:
    key = key_of(api, "slow")

    reads = [api.ask("GET", "/v1/batches/none", key=key).status for _ in range(4)]
    writes = [api.ask("POST", "/v1/batches/none/cancel", key=key).status for _ in range(4)]
    uploads = [api.upload(b"{}\n", key=key).status for _ in range(3)]

    assert reads == [404, 404, 404, 429]
    assert writes == [404, 404, 404, 429]
    assert uploads == [200, 200, 429]


def test_answers_that_are_errors_have_the_headers_too(api: Served) -> None:
    answer = api.ask("GET", "/v1/batches/none", key=key_of(api, "slow"))

    assert answer.status == 404
    assert rates(answer).keys() == set(HEADERS)


def test_two_tenants_do_not_slow_each_other_and_two_keys_of_one_do(api: Served) -> None:
    first, second = tenant(api, "slow"), tenant(api, "slow")
    keys = [api.key(role, tenant_id=first) for role in (Role.SUBMIT, Role.READ)]

    statuses = [api.ask("GET", "/v1/models", key=keys[number % 2]).status for number in range(4)]

    assert statuses == [200, 200, 200, 429]
    assert api.ask("GET", "/v1/models", key=api.key(tenant_id=second)).status == 200


def test_requests_that_come_together_are_counted_one_by_one(api: Served) -> None:
    key = key_of(api, "slow")

    with ThreadPoolExecutor(12) as threads:
        answers = list(threads.map(lambda _: api.ask("GET", "/v1/models", key=key), range(12)))

    assert sorted(answer.status for answer in answers) == [200] * 3 + [429] * 9
    told = sorted(answer.headers["x-ratelimit-remaining-requests"] for answer in answers if answer.status == 200)
    assert told == ["0", "1", "2"]


def test_a_tenant_without_limits_costs_no_look_into_redis(api: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("Redis was asked")

    monkeypatch.setattr(RateLimits, "take", refuse)

    for key in (api.key(), key_of(api, "unlimited"), key_of(api, "small")):
        answer = api.ask("GET", "/v1/models", key=key)
        assert (answer.status, rates(answer)) == (200, {})


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("GET", "/v1/files", RouteClass.READS),
        ("HEAD", "/v1/files/file_1/content", RouteClass.READS),
        ("POST", "/v1/files", RouteClass.UPLOADS),
        ("POST", "/v1/uploads/up_1/parts", RouteClass.UPLOADS),
        ("POST", "/v1/filesystems", RouteClass.WRITES),
        ("DELETE", "/v1/files/file_1", RouteClass.WRITES),
        ("POST", "/v1/batches", RouteClass.WRITES),
        ("PATCH", "/v1/batches/batch_1", RouteClass.WRITES),
    ],
)
def test_each_request_counts_for_one_rate(method: str, path: str, expected: RouteClass) -> None:
    assert route_class_of(method, path) is expected


# --- without Redis ----------------------------------------------------------------------------


def test_open_without_redis_requests_pass(template_url: str, tmp_path: Path) -> None:
    with running_valkey(tmp_path / "redis") as redis_url, limited(template_url, redis_url, tmp_path / "home") as api:
        key = key_of(api, "slow")
        assert rates(api.ask("GET", "/v1/models", key=key))
        _shut_down(redis_url)

        answers = [api.ask("GET", "/v1/models", key=key) for _ in range(6)]

        assert [(answer.status, rates(answer)) for answer in answers] == [(200, {})] * 6


@pytest.mark.parametrize("redis_url", [DOWN, None])
def test_closed_without_redis_only_those_with_limits_are_turned_away(
    template_url: str, redis_url: str | None, tmp_path: Path
) -> None:
    with limited(template_url, redis_url, tmp_path, fail="closed") as api:
        answer = api.ask("GET", "/v1/models", key=key_of(api, "slow"))
        assert answer.status == 503
        assert answer.error["code"] == "rate_limits_unavailable"
        assert int(answer.headers["retry-after"]) > 0
        assert api.ask("GET", "/v1/models", key=key_of(api, "small")).status == 200
        # Who comes without a key hears that, whatever cannot be counted.
        assert api.ask("GET", "/v1/models", key="").status == 401


def test_what_is_left_is_told_without_redis_as_far_as_it_is_known(template_url: str, tmp_path: Path) -> None:
    with limited(template_url, DOWN, tmp_path) as api:
        told = limits(api, key_of(api, "slow"))

        assert told["reads_per_minute"]["limit"] == 1
        assert told["reads_per_minute"]["used"] is None
        assert told["requests_per_month"]["used"] == 0


def _shut_down(redis_url: str) -> None:
    import redis

    client = redis.Redis.from_url(redis_url)
    client.shutdown(nosave=True)
    client.close()


# --- strangers --------------------------------------------------------------------------------


@pytest.fixture
def few_strangers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let an address be wrong three times."""
    monkeypatch.setattr(limiting, "STRANGER_RATE", Rate(per_minute=1, burst=3))


@pytest.mark.usefixtures("few_strangers")
def test_an_address_may_be_wrong_a_few_times_and_then_waits_but_shuts_nobody_out_who_was_in(
    template_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running_valkey(tmp_path / "redis") as redis_url, limited(template_url, redis_url, tmp_path / "home") as api:
        known, unseen = api.key(), api.key(Role.READ)
        assert api.ask("GET", "/v1/models", key=known).status == 200

        answers = [api.ask("GET", "/v1/models", key=f"sk-{number}") for number in range(5)]

        assert [answer.status for answer in answers] == [401, 401, 401, 429, 429]
        assert answers[4].error["code"] == "rate_limit_exceeded"
        assert 1 <= int(answers[4].headers["retry-after"]) <= 60
        # A guess is not even looked at, be it right; who was in before does not notice.
        assert api.ask("GET", "/v1/models", key=unseen).status == 429
        assert api.ask("GET", "/v1/models", key="").status == 429
        assert api.ask("GET", "/v1/models", key=known).status == 200

        now = limiting.time.monotonic() + 61
        monkeypatch.setattr("pipeline.entrypoints.http.limiting.time.monotonic", lambda: now)
        assert api.ask("GET", "/v1/models", key=unseen).status == 200


# --- batches ----------------------------------------------------------------------------------


def test_a_tier_above_the_ceiling_is_refused_by_name_and_none_named_is_the_best_there_is(api: Served) -> None:
    key = key_of(api, "small")

    refused = api.ask("POST", "/v1/batches", {**BATCH, "tier": "standard"}, key=key)
    made = api.ask("POST", "/v1/batches", BATCH, key=key)

    assert refused.status == 400
    assert refused.error["code"] == "tier_not_allowed"
    assert "Allowed values: 'bulk', 'nightly'." in refused.error["message"]
    assert (made.status, made.json["tier"]) == (200, "bulk")
    assert api.ask("POST", "/v1/batches", BATCH).json["tier"] == "standard"


def test_one_batch_more_than_may_be_live_is_429_and_not_to_be_tried_again(api: Served) -> None:
    key = key_of(api, "small")

    answers = [
        api.ask("POST", "/v1/batches", BATCH, key=key, headers={"Idempotency-Key": f"k{number}"})
        for number in (1, 2, 3, 2)
    ]

    assert [answer.status for answer in answers] == [200, 200, 429, 200]
    assert answers[2].error["code"] == "batch_limit_exceeded"
    assert answers[2].error["type"] == "rate_limit_error"
    assert answers[2].headers["x-should-retry"] == "false"
    assert answers[3].json["id"] == answers[1].json["id"]
    cancelled = api.ask("POST", f"/v1/batches/{answers[0].json['id']}/cancel", key=key)
    assert cancelled.json["status"] == "cancelling"
    # It is not over yet.
    assert api.ask("POST", "/v1/batches", BATCH, key=key).status == 429


# --- what is left -----------------------------------------------------------------------------


def limits(api: Served, key: str) -> dict[str, Any]:
    answer = api.ask("GET", "/v1/organization/limits", key=key)
    assert answer.status == 200
    return {each["name"]: each for each in answer.json["data"]}


def test_limits_tell_what_is_used_and_left_and_when_it_starts_anew(api: Served) -> None:
    key = key_of(api, "small")
    api.ask("POST", "/v1/batches", BATCH, key=key)

    answer = api.ask("GET", "/v1/organization/limits", key=key)
    told = limits(api, key)

    assert (answer.json["object"], answer.json["plan"], answer.json["tiers"]) == (
        "organization.limits",
        "small",
        ["bulk", "nightly"],
    )
    month = told["requests_per_month"]
    assert (month["limit"], month["used"], month["remaining"]) == (100, 0, 100)
    turns_at = datetime.fromtimestamp(month["resets_at"], UTC)
    assert (turns_at.day, turns_at.hour, turns_at.minute, turns_at.second) == (1, 0, 0, 0)
    assert turns_at > datetime.now(UTC)
    assert (told["live_batches"]["limit"], told["live_batches"]["used"], told["live_batches"]["remaining"]) == (2, 1, 1)
    assert (told["enqueued_tokens"]["limit"], told["enqueued_tokens"]["used"]) == (700, 0)
    assert told["reads_per_minute"]["limit"] is None


def test_looking_at_limits_shows_rates_as_the_headers_do(api: Served) -> None:
    key = key_of(api, "slow")

    told = limits(api, key)

    # The look itself is a read.
    assert (told["reads_per_minute"]["used"], told["reads_per_minute"]["remaining"]) == (1, 2)
    assert (told["writes_per_minute"]["used"], told["writes_per_minute"]["remaining"]) == (0, 3)
    assert told["uploads_per_minute"]["burst"] == 2
    assert told["reads_per_minute"]["resets_at"] >= datetime.now(UTC).timestamp() - 5


def test_every_limit_of_an_unlimited_plan_is_null(api: Served) -> None:
    told = limits(api, api.key())

    assert {each["limit"] for each in told.values()} == {None}
    assert {each["remaining"] for each in told.values()} == {None}


def test_a_batch_that_ran_counts_as_what_it_took(whole: Served) -> None:
    key = key_of(whole, "free")
    file_id = whole.upload(lines(30) + lines(1), key=key).json["id"]
    refused = whole.ask("POST", "/v1/batches", {**BATCH, "input_file_id": file_id}, key=key).json["id"]
    file_id = whole.upload(lines(30), key=key).json["id"]
    made = whole.ask("POST", "/v1/batches", {**BATCH, "input_file_id": file_id}, key=key).json["id"]

    def has_ended(batch_id: str, status: str) -> bool:
        document: dict[str, Any] = whole.ask("GET", f"/v1/batches/{batch_id}", key=key).json
        return document["status"] == status

    # Twice the same custom_id.
    eventually(lambda: has_ended(refused, "failed"))
    eventually(lambda: has_ended(made, "completed"))

    usage = whole.ask("GET", f"/v1/batches/{made}", key=key).json["usage"]
    told = limits(whole, key)
    assert usage["total_tokens"] > 0
    assert told["requests_per_month"]["used"] == 30
    assert told["tokens_per_month"]["used"] == usage["total_tokens"]
    assert told["enqueued_tokens"]["used"] == 0
    assert told["live_batches"]["used"] == 0


def test_a_batch_that_the_plan_has_no_room_for_fails_in_words_that_say_so(whole: Served) -> None:
    tenant_id = tenant(whole, "free")
    key = whole.key(tenant_id=tenant_id)
    file_id = whole.upload(lines(10_001), key=key).json["id"]
    made = whole.ask("POST", "/v1/batches", {**BATCH, "input_file_id": file_id}, key=key).json["id"]

    eventually(lambda: whole.ask("GET", f"/v1/batches/{made}", key=key).json["status"] == "failed")

    document = whole.ask("GET", f"/v1/batches/{made}", key=key).json
    assert document["reason"]["code"] == "quota_reached"
    (error,) = document["errors"]["data"]
    assert (error["code"], error["line"], error["param"]) == ("too_many_requests_in_batch", None, None)
    assert document["request_counts"]["total"] == 10_001
    # What intake had written is gone again.
    prefix = batch_prefix(tenant_id, BatchId(made))
    eventually(lambda: not list(whole.stack.objects.list(prefix)))
