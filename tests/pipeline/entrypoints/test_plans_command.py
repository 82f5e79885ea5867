"""`nightrate plans`, and plans in nightrate.toml."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.config import load_settings
from pipeline.domain.errors import UsageError
from pipeline.domain.ids import TenantId
from pipeline.domain.plans import BUILT_IN
from pipeline.domain.tiers import Tier
from tests.pipeline.entrypoints.line import at_home, run

TOML = """
[plans.free]
requests_per_month = 7
[plans.team]
tokens_per_month = 1000
burst = 9
requests_per_minute = 60
[tenants.tnt_acme]
plan = "team"
tokens_per_month = "unlimited"
rows_max = 5
weight = 2.0
"""


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at_home(tmp_path, monkeypatch)


def test_plans_of_the_settings_change_those_built_in_and_add_to_them(tmp_path: Path) -> None:
    (tmp_path / "nightrate.toml").write_text(TOML)
    book = load_settings().plan_book

    free, team, acme = book.plans["free"], book.plans["team"], book.plan_of(TenantId("tnt_acme"), "vip")

    assert (free.requests_per_month, free.tokens_per_month) == (7, BUILT_IN["free"].tokens_per_month)
    assert (team.tokens_per_month, team.requests_per_month, team.tier_ceiling) == (1000, None, Tier.URGENT)
    assert (acme.name, acme.tokens_per_month, acme.rows_max, acme.burst) == ("team", None, 5, 9)
    assert book.plans["paid"] == BUILT_IN["paid"]


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ('[tenants.t]\nplan = "gold"\n', "there is no plan 'gold'"),
        ("[plans.free]\nrequests_per_month = -1\n", "plans.free.requests_per_month"),
        ("[plans.free]\nrequests_per_minute = 0\n", "plans.free.requests_per_minute"),
        ('[plans.free]\ntokens_per_month = "many"\n', "plans.free.tokens_per_month"),
        ('[plans.free]\ntier_ceiling = "best"\n', "plans.free.tier_ceiling"),
        ("[plans.free]\nrequests_per_year = 1\n", "plans.free.requests_per_year"),
        ("[plans.'A b']\nburst = 1\n", "plans.A b"),
        ('rate_limits_fail = "ajar"\n', "rate_limits_fail"),
    ],
)
def test_settings_that_make_no_sense_are_named(written: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "nightrate.toml").write_text(written)

    with pytest.raises(UsageError, match="bad setting") as raised:
        load_settings()

    assert said in raised.value.message


def test_config_shows_plans_as_they_were_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "nightrate.toml").write_text(TOML)

    assert run("config", "--json") == 0

    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["plans"]["value"]["free"] == {"requests_per_month": 7}
    assert rows["plans"]["source"] == "file: nightrate.toml"
    assert rows["tenants"]["value"]["tnt_acme"] == {
        "plan": "team",
        "tokens_per_month": "unlimited",
        "rows_max": 5,
        "weight": 2.0,
    }


def test_the_price_list_needs_nothing_that_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "nightrate.toml").write_text(TOML)

    assert run("plans", "list") == 0
    written = capsys.readouterr().out
    assert run("plans", "list", "--json") == 0
    listed = {plan["name"]: plan for plan in json.loads(capsys.readouterr().out)["plans"]}

    assert list(listed) == ["free", "paid", "vip", "unlimited", "team"]
    assert listed["team"]["tokens_per_month"] == 1000
    assert listed["paid"]["tier_ceiling"] == "standard"
    assert "  requests_per_month    7\n" in written
    assert "  tokens_per_month      100,000,000,000\n" in written


def test_a_tenants_plan_is_set_and_shown(
    database_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("NIGHTRATE_DATABASE_URL", database_url)

    assert run("plans", "show") == 0
    assert "tnt_default has the plan 'unlimited': urgent, standard, bulk, nightly." in capsys.readouterr().out
    assert run("plans", "set", "tnt_default", "paid") == 0
    assert capsys.readouterr().err == "tnt_default has the plan 'paid'.\n"
    assert run("plans", "show", "tnt_default", "--json") == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["plan"]["name"] == "paid"
    assert {each["name"]: each["remaining"] for each in shown["limits"]}["requests_per_month"] == 10_000_000
    assert run("plans", "show") == 0
    assert "of 10,000,000, until" in capsys.readouterr().out

    (tmp_path / "nightrate.toml").write_text('[tenants.tnt_default]\nplan = "vip"\n')
    assert run("plans", "set", "tnt_default", "free") == 0
    assert "nightrate.toml gives it 'vip'" in capsys.readouterr().err


def test_a_plan_or_a_tenant_that_is_not_there_is_named(
    database_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NIGHTRATE_DATABASE_URL", database_url)

    assert run("plans", "set", "tnt_default", "gold") == 2
    assert "there are free, paid, vip, unlimited" in capsys.readouterr().err
    assert run("plans", "set", "tnt_nobody", "free") == 3
    assert run("plans", "show", "tnt_nobody") == 3
    assert "there is no tenant tnt_nobody" in capsys.readouterr().err
