"""Whatever happens, the books add up: random histories, and mutants of the books' own code that these catch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.app import settling as app_settling
from pipeline.domain.costs import allocating, settling
from pipeline.domain.costs.adjusting import WorkerDay
from pipeline.domain.costs.amounts import Amounts
from pipeline.domain.costs.transactions import Transaction
from pipeline.domain.errors import ConflictError
from storage import allocations, invoices, journal, settlements
from tests.services import fresh_database
from tests.storage.histories import History
from tests.storage.world import World, open_world

STEPS = 30


@pytest.fixture
def own_world(template_url: str) -> Iterator[World]:
    with fresh_database(template_url) as url, open_world(url) as world:
        yield world


@pytest.mark.parametrize("seed", range(6))
def test_whatever_happens_every_workers_entries_are_its_bill(own_world: World, tmp_path: Path, seed: int) -> None:
    with closing(History(own_world, tmp_path, seed)) as history:
        _hold(own_world, history)


def _hold(own_world: World, history: History) -> None:
    history.run(STEPS)
    kept = own_world.rows("SELECT md5(string_agg(t::text, '' ORDER BY id)), max(id) FROM transactions AS t")[0]

    history.check()

    (now,) = own_world.scalars(
        "SELECT md5(string_agg(t::text, '' ORDER BY id)) FROM transactions AS t WHERE id <= :last", last=kept[1]
    )
    assert now == kept[0]


Patch = Callable[[pytest.MonkeyPatch], None]


def _forgets_the_end(patch: pytest.MonkeyPatch) -> None:
    def billed(bill: Any, life: Any, spans: Any) -> Any:  # noqa: ANN401 -- as the original
        return settling_billed(bill, replace(life, end_cause=None), spans)

    settling_billed = settling.billed_by_account
    patch.setattr(app_settling, "billed_by_account", billed)


def _forgets_what_is_posted(patch: pytest.MonkeyPatch) -> None:
    made = settling.settlements

    def forgetful(*arguments: Any, posted: Any, **more: Any) -> Any:  # noqa: ANN401 -- as the original
        accrued = {key: amounts for key, amounts in posted.items() if not key[1].endswith(("rounding", "minimum"))}
        return made(*arguments, posted=accrued, **more)

    patch.setattr(app_settling, "settlements", forgetful)


def _shares_from_the_start_again(patch: pytest.MonkeyPatch) -> None:
    made = allocating.allocation
    patch.setattr(
        allocations,
        "allocation",
        lambda hour, rule, kinds, number: made(replace(hour, allocated={}), rule, kinds, number=number),
    )


def _does_not_share_again(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(settlements, "_SHARE_AGAIN", settlements.text("SELECT 1"))


def _adjusts_from_the_start_again(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(WorkerDay, "to_post", property(lambda day: day.difference))


def _posts_under_any_key(patch: pytest.MonkeyPatch) -> None:
    posts = journal.post

    def twice(connection: Any, transaction: Transaction) -> int | None:  # noqa: ANN401 -- as the original
        (number,) = connection.execute(settlements.text("SELECT count(*) FROM transactions")).one()
        return posts(connection, replace(transaction, key=f"{transaction.key}:{number}"))

    patch.setattr(invoices, "post", twice)
    patch.setattr(allocations, "post", twice)
    patch.setattr(settlements, "post", twice)


def _loses_the_remainder(patch: pytest.MonkeyPatch) -> None:
    def floors(total: Amounts, shares: list[Amounts]) -> list[Amounts]:
        return [Amounts.of(micros // len(shares) for micros in total.each()) for _ in shares]

    patch.setattr(settling, "split_amounts", floors)


@pytest.mark.parametrize(
    "mutate",
    [
        _forgets_the_end,
        _forgets_what_is_posted,
        _shares_from_the_start_again,
        _does_not_share_again,
        _adjusts_from_the_start_again,
        _posts_under_any_key,
        _loses_the_remainder,
    ],
)
def test_a_mutant_is_caught(template_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mutate: Patch) -> None:
    mutate(monkeypatch)

    def is_caught(seed: int) -> bool:
        with (
            fresh_database(template_url) as url,
            open_world(url) as world,
            closing(History(world, tmp_path, seed)) as history,
        ):
            try:
                history.run(STEPS)
                history.check()
            except (AssertionError, KeyError, ConflictError):
                return True
        return False

    assert any(is_caught(seed) for seed in range(6))
