"""`nightrate budgets` and `nightrate plans prices`, and tariffs in nightrate.toml."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipeline.config import load_settings
from pipeline.domain.errors import UsageError
from pipeline.domain.tiers import Tier
from pipeline.entrypoints.cli import budgets as command
from storage.budgets import BudgetRepository
from storage.database import Database
from tests.pipeline.entrypoints.line import at_home, run

TOML = """
[tiers.bulk]
price_multiplier = 0.5
[plans.paid]
price_multiplier = 0.9
[prices."smol"]
input_per_million = 0.10
output_per_million = "0.40"
[tariff]
zone = "Europe/Berlin"
hours = [{ days = ["sat", "sun"], from = "00:00", to = "24:00", multiplier = 0.8 }]
fleet = { floor = 0.7, ceiling = 1.5 }
"""


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at_home(tmp_path, monkeypatch)


@pytest.fixture
def stored(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[BudgetRepository]:
    database = Database(database_url)
    repository = BudgetRepository(database)

    @contextmanager
    def opened() -> Iterator[tuple[BudgetRepository, str]]:
        yield repository, "USD"

    monkeypatch.setattr(command, "_budgets", opened)
    yield repository
    database.close()


def test_a_tariff_is_read_from_the_settings(tmp_path: Path) -> None:
    (tmp_path / "nightrate.toml").write_text(TOML)

    book = load_settings().plan_book

    assert book.tariff.tiers == {Tier.BULK: 500_000}
    assert book.plans["paid"].price_ppm == 900_000
    assert (book.tariff.prices["smol"].input_picos, book.tariff.prices["smol"].output_picos) == (100_000, 400_000)
    assert book.tariff.elasticity is not None
    assert book.tariff.elasticity.ceiling_ppm == 1_500_000
    (weekend,) = book.tariff.hours
    assert (weekend.days, weekend.start_minute, weekend.stop_minute) == (frozenset({5, 6}), 0, 0)


DEAR = """
[tiers.urgent]
price_multiplier = 100
[plans.paid]
price_multiplier = 100
[prices."smol"]
input_per_million = {price}
output_per_million = 1
"""


def test_a_price_that_could_come_to_more_than_the_ledger_holds_is_refused(tmp_path: Path) -> None:
    (tmp_path / "nightrate.toml").write_text(DEAR.format(price="100"))
    assert load_settings().plan_book.multiplier_most == 10_000

    (tmp_path / "nightrate.toml").write_text(DEAR.format(price="100.01"))
    with pytest.raises(UsageError) as refused:
        load_settings()

    assert "prices.smol: with all multipliers a million tokens may come to 1,000,100; at most 1,000,000" in str(
        refused.value.message
    )


@pytest.mark.parametrize(
    "wrong",
    [
        "[tiers.bulk]\nprice_multiplier = -1",
        "[tariff]\nzone = 'Mars'",
        "[tariff]\nhours = [{ from = '9', to = '10:00', multiplier = 1 }]",
        "[tariff]\nfleet = { floor = 2, ceiling = 1 }",
        "[prices.smol]\ninput_per_million = 1",
    ],
)
def test_a_tariff_that_is_none_is_refused(tmp_path: Path, wrong: str) -> None:
    (tmp_path / "nightrate.toml").write_text(wrong)

    with pytest.raises(UsageError):
        load_settings()


def test_prices_are_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "nightrate.toml").write_text(TOML)

    assert run("plans", "prices", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert run("plans", "prices") == 0

    assert told["tiers"]["bulk"] == "0.50"
    assert told["plans"]["paid"] == "0.90"
    assert told["tokens"]["smol"] == {"input_per_million": "0.10", "output_per_million": "0.40"}
    assert "Europe/Berlin" in capsys.readouterr().out


@pytest.mark.usefixtures("stored")
def test_a_budget_is_set_topped_up_shown_and_removed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("budgets", "set", "250.00", "--alert", "0.8", "--alert", "0.5", "--core", "urgent", "--json") == 0
    made = SimpleNamespace(**json.loads(capsys.readouterr().out))
    assert run("budgets", "top-up", made.id, "50") == 0
    assert run("budgets", "list") == 0
    shown = capsys.readouterr().out
    assert run("budgets", "show", made.id) == 0
    assert run("budgets", "remove", made.id) == 0
    assert run("budgets", "list", "--json") == 0

    assert (made.limit, made.alert_shares, made.core_tiers, made.period) == ("250.00", [0.5, 0.8], ["urgent"], "month")
    assert "$0.00 of $300.00 ($50.00 of it added) spent, $0.00 reserved, $300.00 left" in shown
    assert '"budgets": []' in capsys.readouterr().out


@pytest.mark.usefixtures("stored")
@pytest.mark.parametrize(
    "arguments",
    [
        ("set", "many"),
        ("set", "1", "--alert", "1.5"),
        ("set", "1", "--core", "best"),
        ("set", "1", "--tenant", "tnt_nobody"),
        ("set", "1", "--project", "proj_nobody"),
        ("show", "budget_nothing"),
        ("top-up", "budget_nothing", "1"),
        ("remove", "budget_nothing"),
    ],
)
def test_what_is_no_budget_is_refused_in_a_sentence(
    arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("budgets", *arguments) != 0

    told = capsys.readouterr().err
    assert told
    assert "Traceback" not in told
