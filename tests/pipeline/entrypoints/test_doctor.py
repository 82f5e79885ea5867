from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.config import Settings, load_settings
from pipeline.entrypoints.cli.checks import Outcome, check_packages, check_prices, check_python, run_checks
from tests.pipeline.entrypoints.line import Line, at_home


def test_a_name_that_another_package_owns_is_found() -> None:
    outcome, detail, hint = check_packages({"scheduler": ["scheduler"], "pipeline": ["nightrate"]})

    assert outcome is Outcome.FAILED
    assert "scheduler (from scheduler)" in detail
    assert "pipeline" not in detail.split(":")[1]
    assert hint


def test_our_own_names_are_ours() -> None:
    assert check_packages({})[0] is Outcome.OK


@pytest.mark.parametrize(("version", "outcome"), [((3, 10), Outcome.FAILED), ((3, 12), Outcome.OK)])
def test_python_must_be_one_we_are_tested_on(version: tuple[int, int], outcome: Outcome) -> None:
    assert check_python(version)[0] is outcome


def test_without_a_stack_the_servers_are_skipped_and_the_rest_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NIGHTRATE_HOME", str(tmp_path / "home"))

    document = Line(capsys).document("doctor")

    outcomes = {check["name"]: check["outcome"] for check in document["checks"]}
    assert document["ok"]
    assert outcomes["database"] == outcomes["broker"] == "skipped"
    assert outcomes["objects"] == "ok"


def test_with_servers_they_are_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, database_url: str, redis_url: str
) -> None:
    monkeypatch.setenv("NIGHTRATE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NIGHTRATE_DATABASE_URL", database_url)
    monkeypatch.setenv("NIGHTRATE_REDIS_URL", redis_url)

    outcomes = {check.name: check for check in run_checks(Settings())}

    for name in ("database", "broker", "clock", "objects"):
        assert outcomes[name].outcome is Outcome.OK, outcomes[name]


def test_a_store_that_cannot_be_written_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("NIGHTRATE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NIGHTRATE_OBJECTS_URL", (tmp_path / "file" / "store").as_uri())

    outcomes = {check.name: check.outcome for check in run_checks(Settings())}

    assert outcomes["objects"] is Outcome.FAILED


PRICED_NOWHERE = """
[rate_card.pools.moon]
provider = "aws"
instance_type = "lunar.xlarge"
region = "us-east-1"
"""


def test_a_pool_that_runs_on_what_has_no_price_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, database_url: str
) -> None:
    at_home(tmp_path, monkeypatch)
    (tmp_path / "nightrate.toml").write_text(PRICED_NOWHERE)

    without = check_prices(load_settings())
    monkeypatch.setenv("NIGHTRATE_DATABASE_URL", database_url)
    outcome, detail, hint = check_prices(load_settings())

    assert without[0] is Outcome.NOTE
    assert outcome is Outcome.FAILED
    assert "pool moon" in detail
    assert "lunar.xlarge" in detail
    assert hint is not None
    assert "nightrate prices set" in hint


def test_pools_that_have_prices_are_fine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at_home(tmp_path, monkeypatch)
    (tmp_path / "nightrate.toml").write_text(PRICED_NOWHERE.replace("lunar.xlarge", "g5.xlarge"))

    assert check_prices(load_settings())[0] is Outcome.OK
