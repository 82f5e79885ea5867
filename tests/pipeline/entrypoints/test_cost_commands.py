"""`nightrate cost report|statement|export`."""

from __future__ import annotations

import csv
import io
import json
import re
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from sqlalchemy import text

from pipeline.entrypoints.cli.cost_options import last_month
from pipeline.entrypoints.cli.figures import money
from pipeline.ports.cost_reports import Period
from storage.database import Database
from tests.pipeline.entrypoints.line import at_home, run
from tests.services import fresh_database
from tests.storage.journals import write_journal

PERIOD = ("--from", "2026-11-01", "--to", "2026-11-20")


@pytest.fixture(scope="module")
def filled(template_url: str) -> Iterator[str]:
    with fresh_database(template_url) as url:
        database = Database(url)
        write_journal(database, 71, days=20, last_day=date(2026, 11, 20))
        with database.transaction() as connection:
            connection.execute(text("UPDATE tenants SET name = '<b>Ünal & Sons €' WHERE id = 'tnt_71_0'"))
        database.close()
        yield url


@pytest.fixture(autouse=True)
def _settings(filled: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at_home(tmp_path, monkeypatch, database_url=filled)


def test_a_statement_without_options_is_of_the_last_month_of_the_tenant_of_the_command_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert run("cost", "statement") == 0

    path = Path(capsys.readouterr().out.strip())
    assert re.fullmatch(r"statement-tnt_default-\d{4}-\d{2}\.html", path.name)
    assert (tmp_path / path).exists()
    assert last_month(date(2026, 1, 31)) == Period(first=date(2025, 12, 1), until=date(2026, 1, 1))


def test_overhead_has_one_name_whatever_a_report_is_by(capsys: pytest.CaptureFixture[str]) -> None:
    for by in ("tenant", "model", "batch", "label:none"):
        assert run("cost", "report", "--by", by, *PERIOD) == 0
        out = capsys.readouterr().out
        assert "(overhead)" in out
        assert ("(unlabelled)" in out) == by.startswith("label")


@pytest.mark.parametrize("by", ["tenant", "project", "label:team", "model", "tier", "day", "batch", "pool"])
def test_lines_of_every_report_sum_to_its_total_and_all_totals_are_one(
    by: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("cost", "report", "--by", by, *PERIOD, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert run("cost", "report", *PERIOD, "--json") == 0
    by_tenant = json.loads(capsys.readouterr().out)

    (total,) = document["totals"]
    for name in (
        "effective_micros",
        "charged_micros",
        "billed_micros",
        "waste_micros",
        "cache_credit_micros",
        "row_count",
        "tokens",
    ):
        assert sum(line[name] for line in document["lines"]) == total[name] == by_tenant["totals"][0][name], name
    assert total["effective_micros"] > 0


def test_a_report_as_a_table_and_as_csv_has_the_figures_of_the_document(capsys: pytest.CaptureFixture[str]) -> None:
    run("cost", "report", *PERIOD, "--json")
    document = json.loads(capsys.readouterr().out)
    run("cost", "report", *PERIOD, "--csv")
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    run("cost", "report", *PERIOD)
    table = capsys.readouterr().out

    assert [row["tenant"] for row in rows] == [line["key"] or "" for line in document["lines"]]
    assert [Decimal(row["effective"]) * 1_000_000 for row in rows] == [
        line["effective_micros"] for line in document["lines"]
    ]
    assert "(overhead)" in table
    assert "total" in table
    assert "tnt_71_1" in table
    (total,) = document["totals"]
    assert total["cache_credit_micros"] > 0
    without = total["effective_micros"] + total["cache_credit_micros"]
    assert f"without reused prefixes {money(without, 'USD')}" in table
    assert f"cache credit {money(-total['cache_credit_micros'], 'USD')}" in table


def test_a_tenants_report_has_nothing_of_others_nor_overhead(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("cost", "report", *PERIOD, "--tenant", "tnt_71_1", "--json") == 0

    (line,) = json.loads(capsys.readouterr().out)["lines"]
    assert line["key"] == "tnt_71_1"
    assert line["waste_micros"] == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ("report", "--by", "colour"),
        ("report", "--by", "label:"),
        ("report", "--from", "yesterday"),
        ("report", "--from", "2026-11-02", "--to", "2026-11-01"),
        ("report", "--csv", "--json"),
        ("statement", "--tenant", "tnt_71_0", "--month", "11/2026", "--out", "x.html"),
        ("statement", "--tenant", "tnt_71_0", "--month", "2026-11", "--out", "x.doc"),
        ("export", "--format", "focus-9"),
        ("export", "--format", "focus-1.2", "--out", "x.doc"),
        ("export", "--daily", "--out", "x"),
    ],
)
def test_what_makes_no_sense_is_refused_with_what_would(
    arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("cost", *arguments) == 2

    assert "Traceback" not in capsys.readouterr().err
    assert not list(Path().glob("x*"))


def test_a_statement_is_one_page_that_says_what_was_charged_and_lets_no_markup_in(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "s.html"
    assert run("cost", "statement", "--tenant", "tnt_71_0", "--month", "2026-11", "--out", str(path), "--json") == 0
    told = json.loads(capsys.readouterr().out)
    run("cost", "report", "--tenant", "tnt_71_0", "--from", "2026-11-01", "--to", "2026-11-30", "--json")
    (total,) = json.loads(capsys.readouterr().out)["totals"]

    page = path.read_text()
    assert told["charged_micros"] == {"USD": total["charged_micros"]}
    assert "&lt;b&gt;Ünal &amp; Sons €" in page
    assert "<b>" not in page
    assert "http" not in page
    for drawing in page.split("<svg")[1:]:
        ET.fromstring(f"<svg{drawing.partition('</svg>')[0]}</svg>")  # noqa: S314 -- we wrote it
    assert page.count("<rect") > 30
    assert run("cost", "statement", "--tenant", "tnt_71_0", "--month", "2026-11", "--out", str(path)) == 2


def test_a_statement_is_written_as_pdf(tmp_path: Path) -> None:
    path = tmp_path / "s.pdf"

    assert run("cost", "statement", "--tenant", "tnt_71_0", "--month", "2026-11", "--out", str(path)) == 0

    content = path.read_bytes()
    assert content.startswith(b"%PDF-")
    assert content.count(b"/Type /Page\n") == 1


def test_a_statement_as_pdf_without_the_extra_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "fpdf", None)

    assert run("cost", "statement", "--tenant", "tnt_71_0", "--month", "2026-11", "--out", str(tmp_path / "s.pdf")) == 1
    assert "nightrate[pdf]" in capsys.readouterr().err


def test_a_month_without_charges_and_an_unknown_tenant(tmp_path: Path) -> None:
    path = tmp_path / "s.html"

    assert run("cost", "statement", "--tenant", "tnt_71_0", "--month", "2020-01", "--out", str(path)) == 0
    assert "$0.00" in path.read_text()
    assert run("cost", "statement", "--tenant", "tnt_none", "--month", "2020-01", "--out", str(path), "--force") == 3


def test_exports_as_csv_json_and_parquet_have_the_same_rows(tmp_path: Path) -> None:
    for form in ("csv", "json", "parquet"):
        assert run("cost", "export", "--format", form, *PERIOD, "--out", str(tmp_path / f"x.{form}")) == 0

    rows = list(csv.DictReader(io.StringIO((tmp_path / "x.csv").read_text())))
    documents = [json.loads(line) for line in (tmp_path / "x.json").read_text().splitlines()]
    table = pq.read_table(tmp_path / "x.parquet").to_pylist()
    assert len(rows) > 10
    money = [[Decimal(row["effective_cost"]) for row in each] for each in (rows, documents, table)]
    assert money[0] == money[1] == money[2]
    assert [row["day"] for row in rows] == [each["day"] for each in documents] == [str(row["day"]) for row in table]


def test_focus_is_written_as_its_file_ends_and_as_csv_to_stdout(
    tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    assert run("cost", "export", "--format", "focus-1.3", *PERIOD) == 0
    head = capfdbinary.readouterr().out.splitlines()[0].split(b",")
    assert run("cost", "export", "--format", "focus-1.3", *PERIOD, "--out", str(tmp_path / "f.parquet")) == 0

    table = pq.read_table(tmp_path / "f.parquet")
    assert [name.encode() for name in table.column_names] == head
    assert str(table.schema.field("BilledCost").type) == "decimal128(38, 12)"


def test_days_that_are_over_are_written_once_to_the_object_store(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("cost", "export", "--daily") == 0
    first = capsys.readouterr().out.splitlines()

    assert run("cost", "export", "--daily") == 0

    assert first
    assert capsys.readouterr().out == ""


def test_an_unknown_view_is_named_with_those_that_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("cost", "export", "--view", "secrets", *PERIOD) == 3
    assert "budget_burn" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["report", "advise", "forecast"])
def test_a_tenant_that_is_not_there_is_no_empty_answer(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("cost", command, "--tenant", "tnt_none") == 3
    assert "there is no tenant tnt_none" in capsys.readouterr().err
