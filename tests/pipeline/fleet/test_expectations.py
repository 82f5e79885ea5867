"""What is expected to arrive, from what has arrived."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from pipeline.app.fleet_expected import Expectations
from pipeline.domain.tiers import Tier
from pipeline.ports.demand import Composition, HourlyAmount

NOW = datetime(2026, 3, 10, 5, 20, tzinfo=UTC)
HOUR = timedelta(hours=1)


class History:
    """A thousand tokens of one model in each of the last so many hours, three quarters of them read."""

    def __init__(self, hours: int) -> None:
        self.hours, self.asked = hours, 0

    def arrivals(self, _since: datetime, until: datetime, **_: object) -> list[HourlyAmount]:
        self.asked += 1
        return [HourlyAmount(group="m", at=until - HOUR * back, amount=1000.0) for back in range(1, self.hours + 1)]

    def compositions(self, _since: datetime, _until: datetime) -> list[Composition]:
        part = Composition(model="m", tier=Tier.BULK, rows=70, input_tokens=5_250, output_tokens=1_750)
        return [part] if self.hours else []


def test_the_next_hours_are_expected_to_be_like_the_last_in_rows_and_tokens() -> None:
    expected = Expectations(History(48), lambda _: "24h").at(NOW)  # type: ignore[arg-type] # what it asks for

    assert [(each.model, each.tier) for each in expected] == [("m", Tier.BULK)] * 3
    first = expected[0]
    assert first.from_us == round(NOW.replace(minute=0).timestamp() * 1e6)
    assert first.to_us - first.from_us == 3_600_000_000
    assert first.window_seconds == 86_400
    size = first.sizes[0.5]
    assert (size.rows, size.input_tokens, size.output_tokens) == pytest.approx((10, 750, 250), rel=0.05)
    assert first.sizes[0.9].rows >= size.rows


def test_less_than_a_day_of_history_says_nothing() -> None:
    assert Expectations(History(23), lambda _: "24h").at(NOW) == ()  # type: ignore[arg-type] # what it asks for
    assert Expectations(History(0), lambda _: "24h").at(NOW) == ()  # type: ignore[arg-type] # what it asks for


def test_it_is_forecast_once_an_hour_and_what_is_past_is_dropped() -> None:
    history = History(48)
    expectations = Expectations(history, lambda _: "24h")  # type: ignore[arg-type] # what it asks for

    for minutes in (0, 10, 30):
        assert len(expectations.at(NOW + timedelta(minutes=minutes))) == 3
    assert history.asked == 1
    expectations.at(NOW + HOUR)
    assert history.asked == 2
