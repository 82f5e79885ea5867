from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import text

from storage.cost_sums import CostSums
from storage.database import Database
from tests.services import connect, fresh_database
from tests.storage.journals import write_journal

MONEY = ("list", "contracted", "effective", "billed", "on_demand")


@pytest.fixture
def database(template_url: str) -> Iterator[Database]:
    with fresh_database(template_url) as url:
        opened = Database(url)
        yield opened
        opened.close()


def rows(database: Database, sql: str, **arguments: object) -> list[tuple[object, ...]]:
    return database.run(lambda connection: [tuple(row) for row in connection.execute(text(sql), arguments)])


def whole_of(view: str) -> str:
    return f"SELECT * FROM cost.{view}"  # noqa: S608 -- a name of ours


def drain(sums: CostSums, *, limit: int = 50) -> None:
    while sums.sum_up(limit=limit):
        pass


def owed(database: Database) -> tuple[object, ...]:
    """What suppliers are owed and tenants are charged: the other side of the books."""
    owed_by = ", ".join(f"-sum({name}_micros) FILTER (WHERE account LIKE 'supplier:%')" for name in MONEY)
    charged = "-sum(charged_micros) FILTER (WHERE account LIKE 'revenue:%')"
    (row,) = rows(database, f"SELECT {owed_by}, {charged} FROM entries")  # noqa: S608 -- names of ours
    return tuple(Decimal(str(micros)) / 1_000_000 for micros in row)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_every_view_of_everything_sums_to_what_is_owed_whatever_is_summed_up_already(
    database: Database, seed: int
) -> None:
    write_journal(database, seed)
    sums = CostSums(database)
    whole = f"SELECT {', '.join(f'sum({name}_cost)' for name in MONEY)}, sum(charged) FROM cost."  # noqa: S608 -- names of ours
    views = ("charges", "hourly", "daily")

    for _ in range(3):
        assert {view: rows(database, whole + view) for view in views} == {view: [owed(database)] for view in views}
        assert sums.differences() == 0
        sums.sum_up(limit=40)

    drain(sums)
    assert rows(database, "SELECT count(*) FROM cost_pending") == [(0,)]
    assert {view: rows(database, whole + view) for view in views} == {view: [owed(database)] for view in views}
    assert sums.differences() == 0


def test_views_say_the_same_before_their_lines_are_summed_up_and_after(database: Database) -> None:
    write_journal(database, 4)
    names = [
        row[0]
        for row in rows(
            database, "SELECT viewname FROM pg_views WHERE schemaname = 'cost' AND viewname <> 'hourly' ORDER BY 1"
        )
    ]
    before = {name: sorted(map(repr, rows(database, whole_of(name)))) for name in names}

    drain(CostSums(database))

    assert {name: sorted(map(repr, rows(database, whole_of(name)))) for name in names} == before
    assert all(before.values())


def test_what_is_posted_late_for_a_day_flows_into_it_and_makes_it_a_new_version(database: Database) -> None:
    journal = write_journal(database, 5, days=2, transactions=30)
    sums = CostSums(database)
    drain(sums)
    (version,) = rows(database, "SELECT version FROM cost_day_versions WHERE day = :day", day=journal.last_day)

    write_journal(database, 6, days=1, last_day=journal.last_day, transactions=20)
    drain(sums)

    (later,) = rows(database, "SELECT version FROM cost_day_versions WHERE day = :day", day=journal.last_day)
    assert later > version
    assert sums.differences() == 0


def test_two_that_sum_up_at_once_count_nothing_twice(database: Database) -> None:
    write_journal(database, 7)
    sums = CostSums(database)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda _: sums.sum_up(limit=30), range(12)))
    drain(sums)

    assert sums.differences() == 0


def test_sums_that_were_spoilt_are_noticed_and_made_again(database: Database) -> None:
    write_journal(database, 8, transactions=40)
    sums = CostSums(database)
    drain(sums)
    with database.transaction() as connection:
        connection.execute(text("UPDATE cost_hours SET effective_micros = effective_micros + 1"))
    assert sums.differences() > 0

    sums.start_again()
    drain(sums)

    assert sums.differences() == 0


def test_the_seconds_of_lines_sum_to_those_of_the_spans(database: Database) -> None:
    write_journal(database, 9)

    assert rows(database, "SELECT sum(worker_us) FROM cost_lines") == rows(
        database, "SELECT sum(stop_us - start_us) FROM worker_intervals"
    )
    assert rows(database, "SELECT count(*) FROM cost_lines WHERE worker_us < 0") == [(0,)]


def test_figures_of_a_small_example(database: Database) -> None:
    journal = write_journal(database, 10, batches=4, transactions=60)

    for batch_id in journal.batch_ids:
        found = rows(
            database,
            "SELECT effective_cost, tokens, effective_per_million_tokens FROM cost.batches WHERE batch_id = :id",
            id=batch_id,
        )
        (plain,) = rows(
            database,
            "SELECT sum(effective_micros), sum(input_tokens + output_tokens) FROM entries WHERE batch_id = :id",
            id=batch_id,
        )
        cost, tokens = Decimal(str(plain[0])), Decimal(str(plain[1]))
        assert found == [
            (
                cost / 1_000_000,
                tokens,
                (cost / tokens).quantize(Decimal("0.000001"), "ROUND_HALF_UP") if tokens else None,
            )
        ]


def test_everything_that_analysts_see_is_described(database: Database) -> None:
    undescribed = rows(
        database,
        """SELECT relname, attname FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid
            WHERE relnamespace = CAST('cost' AS regnamespace) AND attnum >= 0 AND col_description(attrelid, attnum) IS NULL
            UNION ALL
           SELECT relname, NULL FROM pg_class
            WHERE relnamespace = CAST('cost' AS regnamespace) AND obj_description(oid, 'pg_class') IS NULL""",
    )

    assert undescribed == []


def test_the_schema_of_analysts_has_nothing_but_views(database: Database) -> None:
    assert rows(
        database, "SELECT DISTINCT relkind FROM pg_class WHERE relnamespace = CAST('cost' AS regnamespace)"
    ) == [("v",)]


def test_no_column_of_analysts_holds_a_rounded_binary_fraction(database: Database) -> None:
    assert (
        rows(
            database,
            """SELECT table_name, column_name FROM information_schema.columns
                WHERE table_schema = 'cost' AND data_type IN ('double precision', 'real')""",
        )
        == []
    )


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT * FROM nightrate.api_keys",
        "SELECT * FROM nightrate.webhooks",
        "SELECT * FROM nightrate.batches",
        "SELECT * FROM nightrate.entries",
        "SELECT * FROM nightrate.cost_hours",
        "INSERT INTO cost.daily (day) VALUES (now())",
        "CREATE VIEW cost.mine AS SELECT 1",
        "CREATE TABLE cost.mine (id int)",
        "UPDATE cost.batches SET state = 'failed'",
    ],
)
def test_analysts_read_the_views_and_nothing_else(database: Database, statement: str) -> None:
    plain_url = database.url
    with connect(plain_url) as connection:
        connection.execute("SET ROLE nightrate_analyst")
        for (view,) in connection.execute("SELECT viewname FROM pg_views WHERE schemaname = 'cost'").fetchall():
            connection.execute(sql.SQL("SELECT * FROM cost.{} LIMIT 1").format(sql.Identifier(view)))

        with pytest.raises((psycopg.errors.InsufficientPrivilege, psycopg.errors.ObjectNotInPrerequisiteState)):
            connection.execute(statement)  # type: ignore[arg-type]
