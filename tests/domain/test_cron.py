"""Cron expressions against a clock that is watched minute by minute."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from functools import cache
from itertools import islice, takewhile
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.domain.cron import MACROS, Cron, Schedule, parse_cron, parse_zone, preview
from pipeline.domain.errors import UsageError

MINUTE = timedelta(minutes=1)


def schedule(text: str, zone: str = "UTC") -> Schedule:
    return Schedule(cron=parse_cron(text), zone=ZoneInfo(zone))


def is_named(cron: Cron, shown: datetime) -> bool:
    return shown.minute in cron.minutes and shown.hour in cron.hours and cron.has_day(shown.date())


def clock(
    zone: ZoneInfo, start: datetime, stop: datetime, tick: timedelta = MINUTE
) -> list[tuple[datetime, datetime, list[datetime]]]:
    """Return each tick's instant, what the clock shows then, and what it reaches or passes for the first time."""
    looks = []
    instant = start - timedelta(days=1)
    latest = (instant - tick).astimezone(zone).replace(tzinfo=None, fold=0)
    while instant < stop:
        shown = instant.astimezone(zone).replace(tzinfo=None, fold=0)
        new = list(ticks_between(latest, shown, tick))
        if instant >= start:
            looks.append((instant, shown, new))
        latest = max(latest, shown)
        instant += tick
    return looks


def watched(cron: Cron, looks: Sequence[tuple[datetime, datetime, list[datetime]]]) -> list[datetime]:
    """Return when an expression comes: of certain hours, at each first time; of every hour, whenever it is shown."""
    if cron.is_every_hour:
        return [instant for instant, shown, _ in looks if is_named(cron, shown)]
    return [instant for instant, _, new in looks if any(is_named(cron, each) for each in new)]


@cache
def turned(zone: str, start: datetime, stop: datetime) -> list[tuple[datetime, datetime, list[datetime]]]:
    return clock(ZoneInfo(zone), start, stop)


def ticks_between(latest: datetime, shown: datetime, tick: timedelta) -> Iterator[datetime]:
    while latest < shown:
        latest += tick
        yield latest


EXPRESSIONS = ["30 2 * * *", "15,45 1-3 * * *", "*/20 * * * *", "10 */2 1-7 * mon", "5 0 29 2 *"]


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "UTC"])
def test_a_year_of_firings_is_what_a_watched_clock_gives(zone: str) -> None:
    start, stop = datetime(2024, 1, 1, tzinfo=UTC), datetime(2025, 1, 1, tzinfo=UTC)
    # Every time that these name, and every turn of these clocks, is at a whole five minutes.
    looks = clock(ZoneInfo(zone), start, stop, 5 * MINUTE)

    for text in EXPRESSIONS:
        found = list(takewhile(lambda instant: instant < stop, schedule(text, zone).upcoming(start - MINUTE)))
        assert found == watched(parse_cron(text), looks), text
        assert found


#: Days on which clocks were put, half an hour and a whole day among them, back across midnight and at it.
TURNS = [
    ("Europe/Berlin", date(2026, 3, 29)),
    ("Europe/Berlin", date(2026, 10, 25)),
    ("America/New_York", date(2026, 3, 8)),
    ("America/New_York", date(2026, 11, 1)),
    ("Australia/Lord_Howe", date(2026, 4, 5)),
    ("Australia/Lord_Howe", date(2026, 10, 4)),
    ("America/St_Johns", date(2006, 10, 29)),
    ("America/Sao_Paulo", date(2018, 11, 4)),
    ("America/Sao_Paulo", date(2018, 2, 18)),
    ("Pacific/Apia", date(2011, 12, 30)),
    ("Asia/Kathmandu", date(2026, 5, 1)),
]


def field(first: int, last: int) -> st.SearchStrategy[str]:
    number = st.integers(first, last)
    span = st.tuples(number, number).map(lambda pair: f"{min(pair)}-{max(pair)}")
    item = st.one_of(st.just("*"), number.map(str), span, st.tuples(span, st.integers(1, 7)).map(lambda p: f"{p[0]}/{p[1]}"))  # fmt: skip
    return st.one_of(item, st.lists(item, min_size=1, max_size=3).map(",".join))


expressions = st.tuples(field(0, 59), field(0, 23), field(1, 31), st.just("*"), field(0, 7)).map(" ".join)


@settings(max_examples=120, deadline=None)
@given(expressions, st.sampled_from(TURNS))
def test_any_expression_agrees_with_a_watched_clock_where_clocks_are_put(text: str, turn: tuple[str, date]) -> None:
    day = turn[1]
    start = datetime(day.year, day.month, day.day, tzinfo=UTC) - timedelta(days=1)
    stop = start + timedelta(days=3)

    found = schedule(text, turn[0]).upcoming(start - timedelta(microseconds=1))

    expected = watched(parse_cron(text), turned(turn[0], start, stop))
    assert list(takewhile(lambda instant: instant < stop, found)) == expected


@settings(max_examples=60, deadline=None)
@given(expressions, st.sampled_from(TURNS), st.integers(0, 20_000))
def test_where_one_begins_to_look_changes_nothing(text: str, turn: tuple[str, date], minutes: int) -> None:
    zone, day = ZoneInfo(turn[0]), turn[1]
    start = datetime(day.year, day.month, day.day, tzinfo=UTC) - timedelta(days=3)
    ahead = Schedule(cron=parse_cron(text), zone=zone)
    after = start + minutes * MINUTE

    first = ahead.next_after(after)

    assert first > after
    assert first == next(instant for instant in ahead.upcoming(start) if instant > after)
    assert list(islice(ahead.upcoming(after), 3))[1:] == list(islice(ahead.upcoming(first), 2))


@pytest.mark.parametrize(
    ("text", "zone", "day", "shown"),
    [
        ("30 2 * * *", "Europe/Berlin", date(2026, 3, 29), ["03:00+02:00"]),
        ("0,30 2 * * *", "Europe/Berlin", date(2026, 3, 29), ["03:00+02:00"]),
        ("30 2 * * *", "Europe/Berlin", date(2026, 10, 25), ["02:30+02:00"]),
        ("30 1-3 * * *", "Europe/Berlin", date(2026, 10, 25), ["01:30+02:00", "02:30+02:00", "03:30+01:00"]),
        ("30 * * * *", "Europe/Berlin", date(2026, 3, 29), ["00:30+01:00", "01:30+01:00", "03:30+02:00"]),
        ("15 2 * * *", "Australia/Lord_Howe", date(2026, 10, 4), ["02:30+11:00"]),
        ("45 1 * * *", "Australia/Lord_Howe", date(2026, 4, 5), ["01:45+11:00"]),
        ("0 0 * * *", "Africa/Cairo", date(2026, 4, 24), ["01:00+03:00"]),
    ],
)
def test_each_time_of_day_comes_once_however_the_clock_is_put(
    text: str, zone: str, day: date, shown: list[str]
) -> None:
    midnight = datetime(day.year, day.month, day.day, tzinfo=ZoneInfo(zone))
    found = preview(schedule(text, zone), midnight - MINUTE, len(shown))

    assert [instant.astimezone(ZoneInfo(zone)).isoformat(timespec="minutes")[11:] for instant in found] == shown


def test_every_hour_is_every_real_hour_when_the_clock_is_put_back() -> None:
    start = datetime(2026, 10, 24, 22, tzinfo=UTC)

    found = preview(schedule("30 * * * *", "Europe/Berlin"), start, 5)

    assert found == tuple(start + timedelta(minutes=30, hours=hour) for hour in range(5))


def test_either_day_is_enough_where_both_are_named() -> None:
    found = preview(schedule("0 0 13 * fri"), datetime(2026, 2, 1, tzinfo=UTC), 5)

    assert [instant.day for instant in found] == [6, 13, 20, 27, 6]


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("0 0 * * 7", "0 0 * * 0"),
        ("0 0 * * sat-sun", "0 0 * * 0,6"),
        ("0 0 * JAN-mar Mon", "0 0 * 1-3 1"),
        ("  0  0 * *  *", "@daily"),
        ("0 0 * * 0-7", "0 0 * * *"),
    ],
)
def test_the_same_is_said_in_several_ways(text: str, same: str) -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)

    assert preview(schedule(text), start, 20) == preview(schedule(same), start, 20)


def test_every_macro_is_an_expression() -> None:
    for name in MACROS:
        assert schedule(name).next_after(datetime(2026, 1, 1, tzinfo=UTC)).minute == 0


def test_the_29th_of_february_is_found_across_a_century_without_one() -> None:
    found = schedule("0 0 29 2 *").next_after(datetime(2096, 3, 1, tzinfo=UTC))

    assert found == datetime(2104, 2, 29, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "0 fields instead of 5"),
        ("0 2 * *", "4 fields instead of 5"),
        ("0 2 * * * *", "6 fields instead of 5"),
        ("60 2 * * *", "minute '60'"),
        ("0 24 * * *", "hour '24'"),
        ("0 2 0 * *", "day of month '0'"),
        ("0 2 * 13 *", "month '13'"),
        ("0 2 * foo *", "month 'foo'"),
        ("0 2 * * 8", "day of week '8'"),
        ("0 2 * * fri-mon", "'fri-mon' runs backwards"),
        ("*/0 2 * * *", "'0' is no step"),
        ("*/x 2 * * *", "'x' is no step"),
        ("5/10 2 * * *", "a step without a range"),
        ("1,,2 2 * * *", "minute '1,,2'"),
        ("-1 2 * * *", "minute '-1'"),
        ("² 2 * * *", "minute '²'"),
        ("@reboot", "'@reboot' is not known"),
        ("0 " * 200, "longer than"),
    ],
)
def test_what_is_wrong_is_named_by_field(text: str, said: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse_cron(text)

    assert said in refused.value.message


def test_an_expression_that_never_comes_is_refused() -> None:
    with pytest.raises(UsageError, match="never comes"):
        schedule("0 0 31 2,4 *").next_after(datetime(2026, 1, 1, tzinfo=UTC))


@pytest.mark.parametrize("text", ["Berlin", "Europe/Berln", "../etc/passwd", "", "CEST+3", "/etc/localtime", "Europe"])
def test_a_zone_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="not an IANA time zone"):
        parse_zone(text)


def test_a_zone_almost_spelled_is_suggested() -> None:
    with pytest.raises(UsageError, match="Europe/Berlin"):
        parse_zone("Europe/Berln")


@settings(max_examples=200, deadline=None)
@given(st.text(st.sampled_from("0123456789*/-, @monJANx²\x00\n"), max_size=30))
def test_any_text_is_an_expression_or_a_usage_error(text: str) -> None:
    found: object = None
    try:
        found = parse_cron(text).minutes
    except UsageError as error:
        found = error.hint

    assert found
