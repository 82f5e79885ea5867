"""What is promised and a spot worker would do in time: on demand starts for it, unless a person lets promises count on spot."""

from __future__ import annotations

import pytest

from scheduler.fleet.nightrate import NightrateFleet
from scheduler.fleet.terms import FleetTerms
from tests.scheduler.fleet.fleet_world import (
    HOUR,
    fleet_view,
    pool_kind,
    spot_offer,
    standing,
    steady_offer,
    work_class,
)


@pytest.mark.parametrize(("is_trusted", "on_demand"), [(False, True), (True, False)])
def test_promised_work_counts_on_spot_where_a_person_says_so(is_trusted: bool, on_demand: bool) -> None:  # noqa: FBT001
    terms = FleetTerms(margin_seconds=0.0, horizon_seconds=4 * HOUR, promises_count_spot=is_trusted)
    # On demand takes 300 s to start: it is now or never.
    view = fleet_view([work_class(600.0, 940.0)], [standing(1, "spot")])

    plan = NightrateFleet(terms).decide(view)

    assert any(start.offer == "steady" for start in plan.starts) == on_demand


def test_spot_is_trusted_for_no_longer_than_nine_of_ten_last() -> None:
    terms = FleetTerms(margin_seconds=0.0, horizon_seconds=4 * HOUR, promises_count_spot=True)
    # Of runs of half an hour on average one in ten is over after three minutes.
    pools = [pool_kind(steady_offer(workers_max=1), spot_offer(lifetime_seconds=HOUR / 2))]
    view = fleet_view([work_class(1000.0, 1100.0)], [standing(1, "spot")], pools=pools)

    plan = NightrateFleet(terms).decide(view)

    assert any(start.offer == "steady" for start in plan.starts)
