"""What analysts are given to copy runs in Postgres and over the exported files, and says the same in both."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import duckdb
import orjson
import pytest
from pydantic import SecretStr
from sqlalchemy import text

from pipeline.app.cost_exports import DayExporter
from pipeline.app.stack import Stack, open_stack
from pipeline.config import Settings
from pipeline.domain.objects.keys import cost_day_prefix
from pipeline.ports.cost_reports import Period, ReportKey, totals
from storage.cost_exports import VIEWS, CostExports
from storage.cost_reports import CostReports
from storage.cost_sums import CostSums
from storage.database import Database
from tests.services import fresh_database
from tests.storage.duck import EXAMPLES, RAW_KEYS, over_exports, over_raw, raw_report
from tests.storage.journals import write_journal

TODAY = date(2026, 11, 21)
NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
WHOLE = Period(first=date(2026, 1, 1), until=date(2027, 1, 1))


def sum_up(database: Database) -> None:
    while CostSums(database).sum_up(limit=100):
        pass


@pytest.fixture(scope="module")
def stack(template_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with fresh_database(template_url) as url:
        settings = Settings(home=tmp_path_factory.mktemp("home"), database_url=SecretStr(url))
        with open_stack(settings) as opened:
            write_journal(opened.database, 31, days=40, transactions=260)
            sum_up(opened.database)
            yield opened


def objects_folder(stack: Stack) -> Path:
    return stack.settings.home_folder / "objects"


@pytest.fixture(scope="module")
def exported(stack: Stack) -> Iterator[duckdb.DuckDBPyConnection]:
    exporter = DayExporter(stack)
    while exporter.run(NOW, at_once=True):
        pass
    (root,) = {path.parents[2] for path in objects_folder(stack).rglob("day=*/part-*.parquet")}
    with over_exports(root, VIEWS) as connection:
        yield connection


def comparable(rows: list[tuple[object, ...]]) -> list[tuple[object, ...]]:
    def each(value: object) -> object:
        if isinstance(value, datetime):
            return value.date() if value.replace(tzinfo=None).time() == datetime.min.time() else value.isoformat()
        if isinstance(value, bool) or not isinstance(value, Decimal | float | int):
            return value
        # Where a quotient is rounded, DuckDB divides binary fractions.
        return round(float(value), 4)

    return [tuple(each(value) for value in row) for row in rows]


@pytest.mark.parametrize("example", sorted(path.stem for path in EXAMPLES.glob("*.sql")))
def test_an_example_says_the_same_in_postgres_and_over_the_exported_files(
    stack: Stack, exported: duckdb.DuckDBPyConnection, example: str
) -> None:
    statement = (EXAMPLES / f"{example}.sql").read_text().replace("current_date", f"DATE '{TODAY}'")

    in_postgres = stack.database.run(lambda connection: [tuple(row) for row in connection.execute(text(statement))])
    over_files = exported.execute(statement).fetchall()

    assert in_postgres
    assert comparable(over_files) == comparable(in_postgres)


def test_every_view_has_as_many_rows_and_as_much_cost_in_the_files(
    stack: Stack, exported: duckdb.DuckDBPyConnection
) -> None:
    for view in VIEWS:
        money = "charged" if view == "budget_burn" else "effective_cost"
        statement = f"SELECT count(*), sum({money}) FROM cost.{view} WHERE day < DATE '{TODAY}'"  # noqa: S608
        (in_postgres,) = stack.database.run(lambda connection, said=statement: connection.execute(text(said)).all())
        assert exported.execute(statement).fetchall() == [tuple(in_postgres)], view


@pytest.mark.parametrize("seed", [41, 42])
def test_reports_equal_a_second_computation_from_raw_entries(template_url: str, seed: int) -> None:
    with fresh_database(template_url) as url:
        database = Database(url)
        write_journal(database, seed, transactions=120)
        # Half of it is summed up, half read line by line.
        CostSums(database).sum_up(limit=60)
        reports = CostReports(database)
        with over_raw(database) as raw:
            for by in RAW_KEYS:
                lines = reports.report(ReportKey(by), WHOLE, label="team" if by == "label" else None)
                told = {
                    line.key: (
                        line.list_micros,
                        line.effective_micros,
                        line.billed_micros,
                        line.charged_micros,
                        line.row_count,
                        line.tokens,
                        line.waste_micros,
                    )
                    for line in lines
                }
                assert told == raw_report(raw, by), by
                (total,) = totals(lines)
                assert total.effective_micros == sum(line.effective_micros for line in lines)
        database.close()


def test_a_day_that_changes_is_exported_again_under_another_name_and_the_old_file_goes(
    template_url: str, tmp_path: Path
) -> None:
    day = date(2026, 11, 20)
    with fresh_database(template_url) as url:  # noqa: SIM117 -- the stack is of its database
        with open_stack(Settings(home=tmp_path, database_url=SecretStr(url))) as stack:
            write_journal(stack.database, 51, days=1, transactions=15)
            sum_up(stack.database)
            exporter = DayExporter(stack)
            first = exporter.run(NOW)
            before = list(stack.objects.list(cost_day_prefix("charges", day)))
            assert exporter.run(NOW) == []

            write_journal(stack.database, 52, days=1, transactions=15)
            sum_up(stack.database)
            assert exporter.run(NOW.replace(year=2000)) == []
            second = exporter.run(NOW, at_once=True)

            after = list(stack.objects.list(cost_day_prefix("charges", day)))
            assert len(before) == len(after) == 1
            assert before != after
            versions = [each.version for each in (*first, *second) if each.day == day]
            assert versions == sorted(set(versions))
            manifests = sorted(stack.objects.list(f"cost/v1/manifests/day={day}/"))
            newest = orjson.loads(stack.objects.read(manifests[-1]))
            assert newest["files"]["charges"]["key"] == after[0]


def test_an_export_that_was_broken_off_is_done_again_and_leaves_nothing_of_the_first_try(
    template_url: str, tmp_path: Path
) -> None:
    day = date(2026, 11, 20)
    with fresh_database(template_url) as url:  # noqa: SIM117 -- the stack is of its database
        with open_stack(Settings(home=tmp_path, database_url=SecretStr(url))) as stack:
            write_journal(stack.database, 53, days=1, transactions=15)
            sum_up(stack.database)
            stack.objects.put(f"{cost_day_prefix('daily', day)}part-00000000-0000.parquet", b"half of it")

            DayExporter(stack).run(NOW)

            (key,) = stack.objects.list(cost_day_prefix("daily", day))
            assert "00000000" not in key


def test_two_do_not_export_at_once(stack: Stack) -> None:
    with CostExports(stack.database).alone() as is_alone:
        assert is_alone
        assert DayExporter(stack).run(NOW, at_once=True) == []


def test_the_sources_of_dbt_describe_what_the_database_describes(stack: Stack) -> None:
    told = (EXAMPLES.parent / "sources.yml").read_text()
    with CostExports(stack.database).moment() as moment:
        views = {view: (moment.comment(view), moment.columns(view)) for view in VIEWS}

    assert re.findall(r"^      - name: (\w+)$", told, re.MULTILINE) == list(views)
    for view, (comment, columns) in views.items():
        part = re.split(rf"^      - name: {view}$", told, flags=re.MULTILINE)[1]
        part = re.split(r"^      - name: ", part, flags=re.MULTILINE)[0]
        assert f"description: {orjson.dumps(comment).decode()}" in part
        described = re.findall(r"- name: (\w+)\n +data_type: (.+)\n +description: (.+)", part)
        assert described == [(column.name, column.type, orjson.dumps(column.comment).decode()) for column in columns], (
            view
        )
