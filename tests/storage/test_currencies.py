from __future__ import annotations

from collections.abc import Iterator

import pytest

from pipeline.domain.errors import ConflictError
from pipeline.domain.lifecycle import IntervalKind
from storage.currencies import check_currency
from tests.storage.world import World, open_world


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    with open_world(database_url) as opened:
        yield opened


def test_a_journal_goes_on_in_its_currency_alone(world: World) -> None:
    check_currency(world.database, "EUR")
    worker = world.worker(rate_micros_per_hour=1_000_000)
    world.workers.meter(worker, world.span(worker, IntervalKind.IDLE, 3_600_000_000))

    check_currency(world.database, "USD")
    with pytest.raises(ConflictError, match="`currency` is EUR, and the journal of this database is in USD") as refused:
        check_currency(world.database, "EUR")

    assert refused.value.hint is not None
    assert 'set currency = "USD"' in refused.value.hint
