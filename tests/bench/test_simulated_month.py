"""The month that cost views are measured on, in small: equal seeds, equal months, and the journal says what was simulated."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from pipeline.domain.lifecycle import IntervalKind
from storage.migrations import upgrade
from tests.bench.bench_cost_views import measured
from tests.bench.seeded_month import fill, tables_of
from tests.bench.simulated_month import Month, Simulated, simulate
from tests.services import connect, running_postgres
from tests.storage.duck import EXAMPLES

SMALL = Month(days=1, batches_a_month=1_200, rows_a_month=900_000, workers=8, pack_seconds=1_800, commit_seconds=600)


@pytest.fixture(scope="module")
def simulated() -> Simulated:
    return simulate(SMALL)


@pytest.fixture(scope="module")
def url(simulated: Simulated, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    home: Path = tmp_path_factory.mktemp("month") / "home"
    with running_postgres(home) as server:
        upgrade(server)
        fill(server, SMALL, simulated)
        yield server


def told(simulated: Simulated) -> dict[str, list[object]]:
    return {table: list(rows) for table, rows in tables_of(simulated).items()}


def test_equal_seeds_come_to_equal_months_and_other_seeds_to_others(simulated: Simulated) -> None:
    assert told(simulate(SMALL)) == told(simulated)
    assert told(simulate(replace(SMALL, seed=2))) != told(simulated)


def test_a_month_has_the_batches_and_rows_that_were_asked_for(simulated: Simulated) -> None:
    assert len(simulated.arrivals) == SMALL.batches == 40
    assert sum(each.estimated.rows for each in simulated.arrivals) == SMALL.rows == 30_000
    assert len({each.tier for each in simulated.arrivals}) == 4
    assert len({each.model for each in simulated.arrivals}) == 5


def test_machines_are_taken_and_their_lives_are_spans_without_gap(simulated: Simulated) -> None:
    assert any(life.is_lost for life in simulated.lives)
    for life in simulated.lives:
        assert [span.kind for span in life.spans[:2]] == [IntervalKind.BOOT, IntervalKind.LOAD]
        assert life.spans[0].start_us == 0
        assert all(before.stop_us == after.start_us for before, after in pairwise(life.spans))
        assert all(
            sum(part.weight_us for part in span.parts) == span.stop_us - span.start_us
            for span in life.spans
            if span.parts
        )


def test_lives_hold_every_row_and_every_second_that_packs_ran(simulated: Simulated) -> None:
    spans = [span for life in simulated.lives for span in life.spans]
    expired = {each.batch_id: each.ended_at for each in simulated.record.batches if each.is_expired}
    in_time = sum(
        rows
        for pack in simulated.record.packs
        for (_, batch_id, _), rows in zip(pack.shares, pack.rows, strict=True)
        if (expired.get(batch_id) or pack.to_seconds) >= pack.to_seconds
    )
    busy = {IntervalKind.WORK, IntervalKind.LATE, IntervalKind.PREEMPTED}

    assert sum(part.rows for span in spans for part in span.parts) == in_time > 0
    assert sum(span.stop_us - span.start_us for span in spans if span.kind in busy) / 1e6 == pytest.approx(
        simulated.record.busy_seconds
    )


def test_the_journal_says_what_was_simulated(simulated: Simulated, url: str) -> None:
    with connect(url) as connection:
        rows = connection.execute(
            "SELECT batch_id, sum(row_count) FROM nightrate.entries WHERE batch_id IS NOT NULL GROUP BY batch_id"
        ).fetchall()
        seconds = connection.execute(
            "SELECT kind, sum(stop_us - start_us) FROM nightrate.worker_intervals GROUP BY kind"
        ).fetchall()
        lost = connection.execute("SELECT count(*) FROM nightrate.workers WHERE state = 'lost'").fetchall()[0][0]

    of_batch: dict[str, int] = {}
    of_kind: dict[str, int] = {}
    for life in simulated.lives:
        for span in life.spans:
            of_kind[span.kind.value] = of_kind.get(span.kind.value, 0) + span.stop_us - span.start_us
            for part in span.parts:
                if part.batch_id is not None:
                    of_batch[part.batch_id] = of_batch.get(part.batch_id, 0) + part.rows
    assert dict(rows) == of_batch
    assert dict(seconds) == of_kind
    assert lost == sum(life.is_lost for life in simulated.lives) > 0


def test_views_reports_and_exports_of_a_simulated_month_agree(url: str) -> None:
    report = measured(url, SMALL)

    assert report["reports_equal_duckdb"] is True
    assert report["sums_that_differ_from_the_journal"] == 0
    exports = report["focus"]
    assert isinstance(exports, dict)
    assert all(each["rows"] > 0 == each["rows_that_fail_the_schema"] for each in exports.values())
    assert isinstance(report["queries_seconds"], dict)
    assert set(report["queries_seconds"]) == {path.stem for path in EXAMPLES.glob("*.sql")}
