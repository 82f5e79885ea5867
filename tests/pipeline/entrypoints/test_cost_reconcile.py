from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from pipeline.app.settling import Settler
from pipeline.domain.lifecycle import IntervalKind
from storage.cost_sums import CostSums
from storage.settlements import SettlementRepository
from tests.infra.invoices.cur_file import line, write_csv
from tests.pipeline.entrypoints.line import at_home
from tests.pipeline.entrypoints.line import run as run_command
from tests.pipeline.test_invoice_import import START, hourly, machine
from tests.storage.bills import HOUR_US, FlatBills
from tests.storage.test_settlements import end
from tests.storage.world import World, open_world


@pytest.fixture
def world(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    at_home(tmp_path, monkeypatch, database_url=database_url)
    with open_world(database_url) as opened:
        yield opened


run = partial(run_command, "cost", "reconcile")


def test_books_that_add_up_are_told_by_pool(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    worker, live = world.worker(rate_micros_per_hour=1_000_000), world.worker(rate_micros_per_hour=2_000_000)
    for each in (worker, live):
        world.workers.meter(each, world.span(each, IntervalKind.IDLE, HOUR_US))
    end(world, worker)
    Settler(SettlementRepository(world.database), FlatBills()).run_once()

    assert run() == 0
    out = capsys.readouterr()
    assert "local" in out.out
    assert "$3.00" in out.out
    assert "✓ adds up" in out.out
    assert "1 worker live or ended just now" in out.err

    assert run("--json") == 0
    (pool,) = json.loads(capsys.readouterr().out)["pools"]
    assert (pool["workers"], pool["live"], pool["waiting"], pool["gaps"]) == (2, 1, 1, [])
    assert pool["posted"]["billed_micros"] == 3_000_000


def test_a_settled_worker_whose_entries_are_not_its_bill_is_named(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    worker = world.worker(rate_micros_per_hour=1_000_000)
    world.workers.meter(worker, world.span(worker, IntervalKind.IDLE, HOUR_US))
    end(world, worker)
    Settler(SettlementRepository(world.database), FlatBills()).run_once()
    world.execute("""
        WITH posted AS (
            INSERT INTO transactions (key, kind, category, period_start, period_stop, worker_id, currency)
            SELECT 'wrong-' || id, 'settlement', 'compute', now(), now(), id, 'USD' FROM workers
            RETURNING id)
        INSERT INTO entries (transaction_id, line, account, list_micros, contracted_micros, effective_micros,
                             billed_micros, on_demand_micros, charged_micros)
        SELECT id, line, account, 0, 0, micros, 0, 0, 0 FROM posted,
               (VALUES (0, 'overhead:idle', 5), (1, 'supplier:local', -5)) AS lines (line, account, micros)
    """)

    assert run() == 1
    assert f"✗ {worker} has entries of $1.000005, its time comes to $1.00" in capsys.readouterr().out


def test_sums_that_were_spoilt_are_told_and_made_again_when_asked_to(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    worker = world.worker(rate_micros_per_hour=1_000_000)
    world.workers.meter(worker, world.span(worker, IntervalKind.IDLE, HOUR_US))
    CostSums(world.database).sum_up()
    assert run() == 0
    world.execute("UPDATE cost_days SET effective_micros = effective_micros + 1")
    capsys.readouterr()

    assert run() == 1
    shown = capsys.readouterr()
    assert "✗ 1 sum of the schema `cost` is not what the journal says" in shown.out
    assert "--sum-again" in shown.err
    assert run("--sum-again", "--json") == 1
    document = json.loads(capsys.readouterr().out)
    assert (document["ok"], document["wrong_sums"], document["summed_again"]) == (False, 1, True)

    assert run() == 0
    assert world.scalars("SELECT sum(effective_cost) FROM cost.daily") == [1]


def test_nothing_is_owed_before_there_was_a_worker(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    assert world is not None
    assert run() == 0
    assert "nothing is owed" in capsys.readouterr().out


def test_a_bill_is_compared_and_then_posted(world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    machine(world)
    path = write_csv(
        tmp_path / "bill.csv", [*hourly(["1", "1", "1", "2"], resource="i-0abc"), line("0.3", kind="Tax", start=START)]
    )

    assert run("--bill", str(path), "--dry-run") == 1
    shown = capsys.readouterr()
    assert "✗ what was invoiced is not what was expected" in shown.out
    assert "No worker explains $0.30" in shown.out
    assert "Nothing was posted" in shown.err
    assert world.scalars("SELECT 1 FROM invoices") == []

    assert run("--bill", str(path), "--within", "30", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["verdict"], document["posted"], document["billed_micros"]) == ("close", 2, 5_300_000)
    assert [kind["kind"] for kind in document["kinds"]] == ["Tax", "Usage"]
    assert [day["agreement"] for day in document["worker_days"]] == ["exact", "off"]

    assert run("--bill", str(path)) == 1
    shown = capsys.readouterr()
    assert "imported before" in shown.err
    assert "0 adjustments posted" in shown.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--bill", "none.csv"], "none.csv is no file"),
        (["--bill", "bill.csv", "--format", "focus"], "'focus' is no format of invoices"),
        (["--bill", "bill.csv", "--month", "november"], "'november' is no month"),
        (["--bill", "bill.csv", "--within", "many"], "'many' is no share"),
        (["--bill", "bill.csv"], "bill.csv has no column"),
        (["--bill", "bill.csv", "--sum-again"], "--sum-again is of the journal by itself"),
    ],
)
def test_what_makes_no_sense_is_said(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    assert world is not None
    (tmp_path / "bill.csv").write_text("a,b\n1,2\n")

    assert run(*arguments) == 2
    assert said in capsys.readouterr().err
