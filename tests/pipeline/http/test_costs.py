"""`/v1/organization/costs`."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import text

from pipeline.domain.access import Role
from pipeline.domain.ids import ProjectId, TenantId
from storage.cost_sums import CostSums
from tests.pipeline.http.served import Served
from tests.storage.journals import Journal, write_journal

START = int(datetime(2026, 11, 1, tzinfo=UTC).timestamp())
END = int(datetime(2026, 11, 21, tzinfo=UTC).timestamp())
WHOLE = f"/v1/organization/costs?start_time={START}&end_time={END}&limit=30"


@pytest.fixture(scope="module")
def journal(quiet: Served) -> Journal:
    made = write_journal(quiet.stack.database, 61, days=20, last_day=date(2026, 11, 20))
    CostSums(quiet.stack.database).sum_up(limit=50)
    return made


def key_of(api: Served, tenant_id: str, *, project_id: str | None = None) -> str:
    return api.key(Role.ANALYST, tenant_id=TenantId(tenant_id), project_id=project_id and ProjectId(project_id))


def ask(api: Served, path: str, tenant_id: str) -> Any:  # noqa: ANN401 -- whatever was answered
    return api.ask("GET", path, key=key_of(api, tenant_id)).json


def charged(api: Served, tenant_id: str) -> Decimal:
    with api.stack.database.transaction() as connection:
        micros = connection.execute(
            text("""
                SELECT coalesce(sum(charged_micros), 0) FROM entries JOIN batches ON batches.id = batch_id
                  JOIN transactions ON transactions.id = transaction_id
                 WHERE tenant_id = :tenant_id AND period_start >= to_timestamp(:start) AND period_start < to_timestamp(:end)
            """),
            {"tenant_id": tenant_id, "start": START, "end": END},
        ).scalar_one()
    return Decimal(micros) / 1_000_000


def total(page: Any) -> Decimal:  # noqa: ANN401 -- as above
    return sum((Decimal(result["amount"]["value"]) for day in page["data"] for result in day["results"]), Decimal())


@pytest.mark.parametrize("groups", [(), ("project_id",), ("line_item",), ("model", "tier"), ("batch_id",)])
def test_days_sum_to_what_the_tenant_was_charged_however_they_are_grouped(
    quiet: Served, journal: Journal, groups: tuple[str, ...]
) -> None:
    asked = "".join(f"&group_by={group}" for group in groups)

    for tenant_id in journal.tenant_ids:
        page = ask(quiet, WHOLE + asked, tenant_id)
        assert total(page) == charged(quiet, tenant_id) > 0
        assert len(page["data"]) == 20
        assert not page["has_more"]
        told = [result for day in page["data"] for result in day["results"]]
        for result in told:
            assert {name for name in ("project_id", "line_item", "model", "tier", "batch_id") if result[name]} == set(
                groups
            )


def test_pages_are_days_and_together_they_are_all(quiet: Served, journal: Journal) -> None:
    tenant_id = journal.tenant_ids[0]
    path, pages = WHOLE.replace("limit=30", "limit=6"), []
    page = ask(quiet, path, tenant_id)
    while True:
        pages.append(page)
        if not page["has_more"]:
            break
        page = ask(quiet, f"{path}&page={page['next_page']}", tenant_id)

    days = [day["start_time"] for each in pages for day in each["data"]]
    assert days == [START + number * 86_400 for number in range(20)]
    assert sum(map(total, pages)) == charged(quiet, tenant_id)


def test_nobody_sees_what_others_are_charged(quiet: Served, journal: Journal) -> None:
    mine, other, _ = journal.tenant_ids

    everything = ask(quiet, f"{WHOLE}&group_by=batch_id", mine)
    foreign = ask(quiet, f"{WHOLE}&project_ids=p{other}", mine)

    assert total(everything) == charged(quiet, mine)
    assert total(foreign) == 0


def test_a_confined_key_is_told_of_its_project_alone(quiet: Served, journal: Journal) -> None:
    tenant_id = journal.tenant_ids[0]
    with quiet.stack.database.transaction() as connection:
        connection.execute(
            text("INSERT INTO projects (id, tenant_id, name) VALUES ('proj_idle', :id, 'idle') ON CONFLICT DO NOTHING"),
            {"id": tenant_id},
        )

    idle = quiet.ask("GET", WHOLE, key=key_of(quiet, tenant_id, project_id="proj_idle")).json
    busy = quiet.ask("GET", WHOLE, key=key_of(quiet, tenant_id, project_id=f"p{tenant_id}")).json

    assert total(idle) == 0
    assert total(busy) == charged(quiet, tenant_id)


@pytest.mark.parametrize(
    ("query", "param"),
    [("?start_time=x", "start_time"), (f"?start_time={START}&page=2020-01-01", "page"),
     (f"?start_time={START}&page=page_x", "page"), (f"?start_time={START}&limit=0", "limit"),
     (f"?start_time={START}&bucket_width=1h", "bucket_width"), (f"?start_time={START}&group_by=colour", "group_by.0")],
)  # fmt: skip
def test_what_makes_no_sense_is_refused_by_name(quiet: Served, journal: Journal, query: str, param: str) -> None:
    answer = quiet.ask("GET", f"/v1/organization/costs{query}", key=key_of(quiet, journal.tenant_ids[0]))

    assert answer.status == 400
    assert answer.error["param"] == param


def test_a_period_that_ends_before_it_begins_has_no_days(quiet: Served, journal: Journal) -> None:
    day = int(timedelta(days=3).total_seconds())
    page = ask(quiet, f"/v1/organization/costs?start_time={START}&end_time={START - day}", journal.tenant_ids[0])

    assert page == {"object": "page", "data": [], "has_more": False, "next_page": None}


def test_keys_that_may_not_read_usage_are_refused(quiet: Served, journal: Journal) -> None:
    key = quiet.key(Role.SUBMIT, tenant_id=TenantId(journal.tenant_ids[0]))

    assert quiet.ask("GET", WHOLE, key=key).status == 403
