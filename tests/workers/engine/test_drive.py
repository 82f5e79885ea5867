"""A job of one's own on an engine, from the first row to the last result."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pipeline.domain.endpoints import Endpoint
from pipeline.ports.engine import EngineRequest
from tests.workers.floor import ScriptedEngine
from workers.engine.drive import driven


def rows(count: int) -> list[EngineRequest]:
    return [EngineRequest(key, Endpoint.CHAT_COMPLETIONS, {"n": key}) for key in range(count)]


@pytest.mark.parametrize("count", [0, 1, 3, 4, 5, 8, 13])
def test_every_row_comes_back_once_and_the_engine_is_empty(count: int) -> None:
    engine = ScriptedEngine(capacity=4)

    keys = [result.key for result in driven(engine, rows(count))]

    assert sorted(keys) == list(range(count))
    assert engine.in_flight() == 0


def test_no_more_rows_are_given_than_there_is_room_for() -> None:
    given: list[int] = []

    class Counted(ScriptedEngine):
        def add(self, requests: list[EngineRequest]) -> None:  # type: ignore[override] # lists are given here
            assert 0 < len(requests) <= self.room()
            given.append(len(requests))
            super().add(requests)

    assert len(list(driven(Counted(capacity=4), rows(10)))) == 10
    assert sum(given) == 10


def test_rows_are_made_as_there_is_room_for_them() -> None:
    made: list[int] = []

    def making() -> Iterator[EngineRequest]:
        for row in rows(12):
            made.append(row.key)
            yield row

    results = driven(ScriptedEngine(capacity=4), making())
    next(results)

    assert made == [0, 1, 2, 3]


def test_whoever_stops_early_leaves_rows_in_flight() -> None:
    engine = ScriptedEngine(capacity=4)
    engine.shut(after=1)

    first = next(driven(engine, rows(8)))

    assert engine.in_flight() == 3
    engine.abort(range(8))
    assert (first.status_code, engine.in_flight()) == (200, 0)
