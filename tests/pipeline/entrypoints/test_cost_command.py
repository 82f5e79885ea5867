"""`nightrate cost calc` and `nightrate cost advise`."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.report.calculators.catalogue import CALCULATORS
from pipeline.report.calculators.fields import Kind, fields_of
from tests.pipeline.entrypoints.line import at_home, run
from tests.pipeline.report.calculators.sheets import Sheets
from tests.storage.world import open_world

OFFERS = Path(__file__).parents[1] / "report" / "calculators" / "offers.csv"
EVERY = pytest.mark.parametrize("name", CALCULATORS)


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at_home(tmp_path, monkeypatch)


def document(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert run("cost", *arguments, "--json") == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


@EVERY
def test_every_assumption_is_in_the_output_with_its_source(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("cost", "calc", name) == 0
    shown = capsys.readouterr().out

    for each in fields_of(CALCULATORS[name].inputs):
        if each.spec.kind is not Kind.ROWS:
            assert f"--{each.public.replace('_', '-')}" in shown
            assert each.spec.source in shown


def test_flags_are_inputs(capsys: pytest.CaptureFixture[str]) -> None:
    found = document(capsys, "calc", "tco", "--servers", "2", "--server-price", "1000.50", "--pue", "1.25")

    assert found["result"]["capex"] == "2001.00"
    assert (found["inputs"]["servers"], found["inputs"]["pue"]) == (2, 1.25)
    sources = {each["name"]: each["source"] for each in found["assumptions"]}
    assert (sources["servers"], sources["staff_per_month"]) == ("given", "assumed")


def test_tables_come_by_the_line_and_by_the_file(capsys: pytest.CaptureFixture[str]) -> None:
    line = "mine, L4, 1, spot, 0.30, 4000, 900"
    found = document(capsys, "calc", "model", "--offers", str(OFFERS), "--offer", line, "--offer", line)

    names = [row["name"] for row in found["result"]["hardware"]]
    assert len(names) == 8
    assert names.count("mine") == 2
    assert names[-1] == "g4dn.xlarge"
    assert found["result"]["cheapest"] == f"{names[0]} ({found['result']['hardware'][0]['market']})"


def test_csv_has_inputs_answers_and_tables(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("cost", "calc", "buy-or-make", "--api", "nano,0.05,0.20", "--csv") == 0
    lines = list(csv.reader(io.StringIO(capsys.readouterr().out)))

    assert lines[0] == ["name", "value", "unit", "source"]
    assert ["own_per_month", "150", "USD/month", "assumed: database, object store, one small machine"] in lines
    assert ["cheapest", "nano", "", "result"] in lines
    start = lines.index(["options"])
    assert lines[start + 1][:3] == ["rank", "name", "kind"]
    assert lines[start + 2][:3] == ["1", "nano", "buy"]


def test_a_sheet_is_written_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("cost", "calc", "roi", "--xlsx", "roi.xlsx") == 0
    first = Sheets((tmp_path / "roi.xlsx").read_bytes())
    assert run("cost", "calc", "roi", "--one-off", "7", "--xlsx", "roi.xlsx") == 4
    assert "roi.xlsx exists already" in capsys.readouterr().err
    assert run("cost", "calc", "roi", "--one-off", "7", "--xlsx", "roi.xlsx", "--force") == 0

    assert first.named("one_off") == 5000
    assert Sheets((tmp_path / "roi.xlsx").read_bytes()).named("one_off") == 7


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("tco", "--pue", "0.5"), "pue: Write a number from 1 to 5."),
        (("tco", "--servers", "many"), "servers: Write a whole number from 1 to 100,000."),
        (("roi", "--moving-from", "nowhere"), "moving_from: Write one of api_list"),
        (("model", "--offer", "a, H100, 0, spot, 1"), "offers: Line 1, gpus: Write a whole number from 1 to 64."),
        (("model", "--offers", "missing.csv"), "missing.csv: No such file"),
        (("model", "--offers", "."), "Is a directory"),
        (("roi", "--xlsx", "no/such/folder.xlsx"), "there is no folder"),
    ],
)
def test_what_makes_no_sense_is_named(
    arguments: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("cost", "calc", *arguments) != 0

    written = capsys.readouterr()
    assert said in written.err
    assert "Traceback" not in written.err
    assert written.out == ""


def test_files_of_tables_are_text_of_a_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "large.csv").write_text("x" * 70_000)
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00")

    assert run("cost", "calc", "model", "--offers", "large.csv") == 2
    assert "65,536 are read at most" in capsys.readouterr().err
    assert run("cost", "calc", "model", "--offers", "binary.csv") == 2
    assert "no text in UTF-8" in capsys.readouterr().err


def test_advice_rests_on_what_ran(
    database_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NIGHTRATE_DATABASE_URL", database_url)
    monkeypatch.setenv("NIGHTRATE_REDIS_URL", "redis://127.0.0.1:1")
    assert document(capsys, "advise")["data"] == []
    assert run("cost", "advise") == 0
    assert "gives reason for a suggestion" in capsys.readouterr().err
    with open_world(database_url) as world:
        worker = world.worker(rate_micros_per_hour=3_600_000_000)
        for _ in range(2):
            world.finish_rows(batch := world.admit(10), worker)
            world.execute(
                "UPDATE batches SET state = 'completed', rows_completed = rows_total, rows_failed = 0, finalizing_at = now(), "
                "completed_at = now(), source_file_id = input_file_id WHERE id = :id",
                id=batch,
            )

    found = document(capsys, "advise", "--days", "30")

    # Two seconds at one unit a second, the second for the same file again.
    assert (found["spent_per_month"], found["saving_per_month"], found["currency"]) == ("2.00", "1.00", "USD")
    (suggestion,) = found["data"]
    assert (suggestion["kind"], suggestion["confidence"]) == ("repeated_input", "high")
    assert suggestion["evidence"] == {"batches_repeated": 1, "batches": 2, "cost_of_them": "1.00"}
    assert run("cost", "advise", "--tenant", "tnt_default") == 0
    shown = capsys.readouterr().out
    assert "$1.00 of $2.00 a month could be saved" in shown
    assert "$ nightrate submit FILE --idempotency-key KEY" in shown
    assert run("cost", "advise", "--tenant", "tnt_nobody") == 3
    assert "there is no tenant" in capsys.readouterr().err
