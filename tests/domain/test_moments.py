from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from pipeline.domain.errors import UsageError
from pipeline.domain.moments import parse_moment

ZONE = timezone(timedelta(hours=2))
NOW = datetime(2026, 3, 4, 15, 30, 20, tzinfo=ZONE)


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("90m", datetime(2026, 3, 4, 17, 0, 20, tzinfo=ZONE)),
        ("2d", datetime(2026, 3, 6, 15, 30, 20, tzinfo=ZONE)),
        ("22:00", datetime(2026, 3, 4, 22, 0, tzinfo=ZONE)),
        ("6:05", datetime(2026, 3, 5, 6, 5, tzinfo=ZONE)),
        ("15:30", datetime(2026, 3, 5, 15, 30, tzinfo=ZONE)),
        ("2026-03-05", datetime(2026, 3, 5, tzinfo=ZONE)),
        ("2026-03-05T01:00", datetime(2026, 3, 5, 1, tzinfo=ZONE)),
        ("2026-03-04T14:00Z", datetime(2026, 3, 4, 16, tzinfo=ZONE)),
    ],
)
def test_what_people_write_is_understood(text: str, at: datetime) -> None:
    found = parse_moment(text, now=NOW, option="--hold-until")

    assert found == at
    assert found.tzinfo is not None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no instant"),
        ("soon", "no instant"),
        ("25:00", "no instant"),
        ("2026-02-30", "no instant"),
        ("0m", "no instant"),
        ("2026-03-04T15:00", "has passed"),
        ("0001-01-01T00:00Z", "has passed"),
        ("2027-01-01", "more than 30 days away"),
        ("9999-12-31T23:59:59-14:00", "more than 30 days away"),
    ],
)
def test_what_is_no_use_is_refused_with_what_is_accepted(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=rf"^--hold-until: {text!r} .*{said}|^--hold-until.*{said}") as refused:
        parse_moment(text, now=NOW, option="--hold-until")
    assert "22:00" in (refused.value.hint or "")
