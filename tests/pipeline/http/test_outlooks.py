"""`/v1/organization/forecast`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

from pipeline.domain.access import Role
from tests.pipeline.http.organizations import organization
from tests.pipeline.http.served import Served
from tests.storage.history import write_hours

PATH = "/v1/organization/forecast"


def test_an_organization_foresees_its_own_demand_and_cost(quiet: Served) -> None:
    ours, others = organization(quiet, "ours"), organization(quiet, "others")
    start = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(days=3)
    for each, tokens, project in ((ours, 1000, ours.first), (others, 9_000_000, others.first)):
        write_hours(
            quiet.stack.database, start, [tokens] * 72, tenant_id=each.tenant_id, project_id=project, tier="bulk"
        )

    answer = quiet.ask("GET", f"{PATH}?hours=5&by=tier", key=ours.key(Role.ANALYST))

    assert answer.status == 200, answer.content
    found = answer.json
    assert (found["object"], found["hours"], found["by"], found["currency"]) == (
        "organization.forecast", 5, "tier", "USD",
    )  # fmt: skip
    whole, bulk = found["tokens"]
    assert (whole["group"], bulk["group"], whole["method"]) == (None, "bulk", "level_profile")
    assert [hour["p50"] for hour in whole["hours"]] == [1000] * 5
    assert whole["total"] == {"p10": 5000, "p50": 5000, "p90": 5000}
    assert Decimal(found["cost"][0]["hours"][0]["p50"]) == Decimal("3.60")
    assert Decimal(found["month_end"]["p50"]) >= Decimal(found["month_end"]["spent"])
    assert "workers" not in found
    assert others.tenant_id not in answer.content.decode()


def test_a_key_of_one_project_foresees_that_projects_alone(quiet: Served) -> None:
    there = organization(quiet, "two projects")
    start = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(days=3)
    for project, tokens in ((there.first, 70), (there.second, 900_000)):
        write_hours(quiet.stack.database, start, [tokens] * 72, tenant_id=there.tenant_id, project_id=project)

    found = quiet.ask("GET", PATH, key=there.key(Role.ANALYST, project_id=there.first)).json

    assert found["tokens"][0]["hours"][0]["p50"] == 70


def test_without_history_it_is_said_why_nothing_is_foreseen(quiet: Served) -> None:
    found = quiet.ask("GET", PATH, key=organization(quiet, "new").key(Role.OPERATE)).json

    assert (found["tokens"][0]["hours"], found["tokens"][0]["total"], found["month_end"]["p50"]) == ([], None, None)
    assert found["tokens"][0]["trouble"].startswith("there are 0 minutes of history")


def test_who_may_not_read_usage_foresees_nothing_and_nonsense_is_refused(quiet: Served) -> None:
    there = organization(quiet, "closed")

    assert quiet.ask("GET", PATH, key=there.key(Role.SUBMIT)).status == 403
    for query in ("hours=0", "hours=169", "hours=x", "by=colour"):
        refused = quiet.ask("GET", f"{PATH}?{query}", key=there.key(Role.ANALYST))
        assert (refused.status, refused.error["param"]) == (400, query.partition("=")[0])
