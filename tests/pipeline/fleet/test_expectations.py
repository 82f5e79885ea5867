"""What is expected to arrive, from what has arrived."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from pipeline.app.fleet_expected import Expectations
from pipeline.domain.tiers import Tier
from pipeline.ports.demand import Composition, HourlyAmount

NOW = datetime(2026, 3, 10, 5, 20, tzinfo=UTC)
HOUR = timedelta(hours=1)


def at_us(at: datetime) -> int:
    return round(at.timestamp() * 1e6)


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
    rest, whole, _ = expected
    assert (rest.from_us, rest.to_us) == (at_us(NOW), at_us(NOW.replace(hour=6, minute=0)))
    assert (whole.from_us, whole.to_us) == (rest.to_us, at_us(NOW.replace(hour=7, minute=0)))
    assert whole.window_seconds == 86_400
    # Of the hour that has begun, what is left of it: forty minutes.
    for each, share in ((rest, 2 / 3), (whole, 1)):
        size = each.sizes[0.5]
        expected_size = (10 * share, 750 * share, 250 * share)
        assert (size.rows, size.input_tokens, size.output_tokens) == pytest.approx(expected_size, rel=0.05)
        assert each.sizes[0.9].rows >= size.rows


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
