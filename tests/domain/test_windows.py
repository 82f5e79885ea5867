from __future__ import annotations

from datetime import timedelta

import pytest

from pipeline.domain.errors import UsageError
from pipeline.domain.tiers import DEFAULT_WINDOWS
from pipeline.domain.windows import parse_window


@pytest.mark.parametrize(
    ("text", "window"),
    [
        ("1m", timedelta(minutes=1)),
        ("90m", timedelta(minutes=90)),
        ("24h", timedelta(hours=24)),
        ("7d", timedelta(days=7)),
        ("30d", timedelta(days=30)),
        ("720h", timedelta(days=30)),
        ("43200m", timedelta(days=30)),
    ],
)
def test_a_window_is_a_whole_number_of_minutes_hours_or_days(text: str, window: timedelta) -> None:
    assert parse_window(text) == window


@pytest.mark.parametrize(
    "text",
    ["", "24", "h", "0h", "024h", "-1h", "+1h", "1.5h", "24H", " 24h", "24h ", "24h\n", "1h30m", "1w", "60s", "31d",
     "721h", "43201m", "999999d", "1000000m", "٢٤h"],
)  # fmt: skip
def test_anything_else_is_refused_with_what_is_accepted(text: str) -> None:
    with pytest.raises(UsageError, match=r"is not a window .*minutes, hours or days from 1m to 30d"):
        parse_window(text)


def test_every_tiers_default_is_a_window() -> None:
    assert all(parse_window(window) > timedelta() for window in DEFAULT_WINDOWS.values())
