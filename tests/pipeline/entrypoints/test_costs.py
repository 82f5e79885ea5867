from __future__ import annotations

from collections.abc import Iterator

import pytest

from pipeline.domain.ids import BatchId
from storage.cost_sums import CostSums
from storage.costs import CostRepository, Mismatch
from storage.database import Database
from storage.migrations import versions
from storage.overview import clock, overview, schema_versions
from tests.services import connect

ADD_WORKER = """
    INSERT INTO nightrate.workers (id, pool, market, host, pid, state, variants, rate_micros_per_hour,
                                   list_rate_micros_per_hour, contracted_rate_micros_per_hour,
                                   billed_rate_micros_per_hour, on_demand_rate_micros_per_hour, currency,
                                   uptime_us, metered_until_us)
    VALUES (%s, 'local', 'spot', 'here', 1, 'ready', '{"echo": ""}', 3600000, 3600000, 3600000, 3600000, 3600000, 'USD', 0, %s)
"""


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    opened = Database(database_url)
    yield opened
    opened.close()


def test_books_that_add_up_have_no_mismatch(database: Database, database_url: str) -> None:
    with connect(database_url) as connection:
        connection.execute(ADD_WORKER, ["wrk_idle", 0])

    assert CostRepository(database).reconcile() == []


def test_metered_time_that_nobody_was_charged_for_is_found(database: Database, database_url: str) -> None:
    with connect(database_url) as connection:
        connection.execute(ADD_WORKER, ["wrk_free", 2_999_999])

    mismatch = Mismatch(worker_id="wrk_free", expected_micros=2999, charged_micros=0)  # type: ignore[arg-type] # an id
    assert CostRepository(database).reconcile() == [mismatch]


def test_a_batch_that_never_ran_cost_nothing(database: Database) -> None:
    cost = CostRepository(database).batch_cost(BatchId("batch_none"))

    assert (cost.amount_micros, cost.tokens) == (0, 0)


def test_overhead_is_counted_by_kind_since_an_instant(database: Database, database_url: str) -> None:
    with connect(database_url) as connection, connection.transaction():
        connection.execute(ADD_WORKER, ["wrk_1", 0])
        connection.execute("""
            INSERT INTO nightrate.worker_intervals (worker_id, start_us, stop_us, kind, rate_micros_per_hour, cost_micros)
            VALUES ('wrk_1', 0, 7000000, 'boot', 3600000, 7000)""")
        connection.execute("""
            INSERT INTO nightrate.transactions (key, kind, category, period_start, period_stop, worker_id, start_us, currency)
            VALUES ('boot', 'accrual', 'compute', now(), now(), 'wrk_1', 0, 'USD')""")
        connection.execute("""
            INSERT INTO nightrate.entries (transaction_id, line, account, list_micros, contracted_micros, effective_micros,
                                           billed_micros, on_demand_micros, charged_micros)
            SELECT id, line, account, cost, cost, cost, cost, cost, 0 FROM nightrate.transactions,
              (VALUES (0, 'overhead:boot', 7000), (1, 'supplier:local', -7000)) AS lines (line, account, cost)""")
    costs = CostRepository(database)

    assert [(item.kind, item.amount_micros) for item in costs.overhead_since(None)] == [("boot", 7000)]
    assert costs.overhead_since(clock(database)) == []
    assert costs.spent() == {"USD": 7000}
    assert costs.reconcile() == []

    with connect(database_url) as connection, connection.transaction():
        connection.execute("""
            INSERT INTO nightrate.transactions (key, kind, category, period_start, period_stop, worker_id, currency, method)
            VALUES ('settled', 'settlement', 'compute', now(), now(), 'wrk_1', 'USD', 'accrued_v1')""")
        connection.execute("""
            INSERT INTO nightrate.entries (transaction_id, line, account, list_micros, contracted_micros, effective_micros,
                                           billed_micros, on_demand_micros, charged_micros)
            SELECT id, line, account, cost, cost, cost, cost, cost, 0 FROM nightrate.transactions,
              (VALUES (0, 'overhead:boot', 20), (1, 'overhead:rounding', 3), (2, 'supplier:local', -23))
                AS lines (line, account, cost) WHERE key = 'settled'""")

    for _summed_up_first in (False, True):
        assert [(item.kind, item.amount_micros) for item in costs.overhead()] == [("boot", 7020), ("rounding", 3)]
        assert costs.spent() == {"USD": 7023}
        CostSums(database).sum_up()


def test_the_overview_has_the_live_workers(database: Database, database_url: str) -> None:
    with connect(database_url) as connection:
        connection.execute(ADD_WORKER, ["wrk_1", 0])

    seen = overview(database)

    assert [(worker.worker_id, worker.variants) for worker in seen.workers] == [("wrk_1", ("echo",))]
    assert (seen.queue, seen.batches) == ((), {})


def test_the_schemas_version_is_the_one_alembic_names(database: Database, database_url: str) -> None:
    assert schema_versions(database) == versions(database_url)
