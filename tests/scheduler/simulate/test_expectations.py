"""Expectations: forecasts of arrivals by those that came, and no others."""

from __future__ import annotations

import pytest

from pipeline.domain.tiers import Tier
from scheduler.simulate.expectations import Expectations
from tests.scheduler.simulate.scenes import batch

_HOUR_US = 3_600_000_000


def test_an_hour_of_steady_arrivals_is_expected_to_go_on() -> None:
    arrivals = [
        batch(f"b{hour}{tier}", rows=300, at=hour * 3600.0 + 60, tier=tier)
        for hour in range(30)
        for tier in (Tier.URGENT, Tier.BULK)
    ]

    found = Expectations(arrivals, hours=3).at(29 * 3600.0)

    assert {each.tier for each in found} == {Tier.URGENT, Tier.BULK}
    assert len(found) == 6
    assert all(each.sizes[0.5].rows == pytest.approx(300, rel=0.1) for each in found)


def test_what_comes_later_changes_nothing_that_was_expected_before() -> None:
    early = [batch(f"b{hour}", rows=100 + hour, at=hour * 3600.0) for hour in range(12)]
    late = [batch("late", rows=100_000, at=12.5 * 3600)]

    assert Expectations(early).at(12 * 3600.0) == Expectations([*early, *late]).at(12 * 3600.0)


def test_of_an_hour_that_has_begun_only_the_rest_is_expected() -> None:
    arrivals = [batch(f"b{hour}", rows=300, at=hour * 3600.0) for hour in range(12)]
    expectations = Expectations(arrivals, hours=2)

    whole, later = expectations.at(10 * 3600.0), expectations.at(10.75 * 3600)

    assert later[0].from_us == round(10.75 * _HOUR_US)
    assert later[0].sizes[0.5].rows == pytest.approx(whole[0].sizes[0.5].rows / 4)
    assert later[1] == whole[1]


def test_nothing_is_expected_of_too_little_history() -> None:
    assert Expectations([batch("only", rows=10)]).at(100.0) == ()
