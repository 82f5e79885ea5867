"""Cron expressions, and when they come in a time zone.

The five fields and their grammar are those of Vixie's cron (crontab(5)): minute, hour, day of month, month, day of week, each
`*`, a number, a range `1-5`, a step `*/15` or `8-18/2`, or a list of these; months and days of the week by name, too. Where
both days are restricted, either is enough. Instants are aware and in UTC; the zone is the clock on the wall.
"""

from __future__ import annotations

import difflib
import zoneinfo
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from itertools import islice
from types import MappingProxyType
from typing import Final
from zoneinfo import ZoneInfo

from pipeline.domain.errors import UsageError
from pipeline.domain.limits import CRON_CHARS_MAX, CRON_DAYS_AHEAD_MAX

MACROS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "@hourly": "0 * * * *",
        "@daily": "0 0 * * *",
        "@midnight": "0 0 * * *",
        "@weekly": "0 0 * * 0",
        "@monthly": "0 0 1 * *",
        "@yearly": "0 0 1 1 *",
        "@annually": "0 0 1 1 *",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Field:
    name: str
    first: int
    last: int
    names: tuple[str, ...] = ()
    #: Number of the first name.
    names_from: int = 0

    @property
    def accepted(self) -> str:
        named = f" or {self.names[0]} to {self.names[-1]}" if self.names else ""
        return f"{self.first} to {self.last}{named}; *, 1-5, */2, 1-5/2 and lists such as 1,3 are accepted"


_MINUTE: Final = _Field(name="minute", first=0, last=59)
_HOUR: Final = _Field(name="hour", first=0, last=23)
_DAY: Final = _Field(name="day of month", first=1, last=31)
_MONTH: Final = _Field(
    name="month",
    first=1,
    last=12,
    names=("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"),
    names_from=1,
)
_WEEKDAY: Final = _Field(
    name="day of week", first=0, last=7, names=("sun", "mon", "tue", "wed", "thu", "fri", "sat"), names_from=0
)
_FIELDS: Final = (_MINUTE, _HOUR, _DAY, _MONTH, _WEEKDAY)
_SUNDAY: Final = 7
_HOURS_OF_A_DAY: Final = 24
_NOON: Final = time(12)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cron:
    """A parsed expression."""

    text: str
    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: frozenset[int]
    months: frozenset[int]
    #: As ISO counts them: Monday is 1, Sunday 7.
    weekdays: frozenset[int]
    #: Both the day of month and the day of week are restricted: either is enough.
    is_either: bool

    @property
    def is_every_hour(self) -> bool:
        """Say whether the hour is not restricted, so that it is real hours that count."""
        return len(self.hours) == _HOURS_OF_A_DAY

    def has_day(self, day: date) -> bool:
        """Say whether the expression comes on that day of the calendar."""
        if day.month not in self.months:
            return False
        is_day, is_weekday = day.day in self.days, day.isoweekday() in self.weekdays
        return is_day or is_weekday if self.is_either else is_day and is_weekday


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """An expression in a zone.

    An expression of certain hours comes once for each time of day it names, however the clock is put: at the first instant after
    the gap where the time does not exist, and at the first of two where it comes twice. One of every hour comes whenever
    the clock shows it, which is once in every real hour.
    """

    cron: Cron
    zone: ZoneInfo

    def upcoming(self, after: datetime) -> Iterator[datetime]:
        """Yield the instants later than `after` in order, as far as `CRON_DAYS_AHEAD_MAX` days between two of them."""
        # A time in a gap belongs to the day before the one it comes on, where a zone has left out a whole day.
        day = after.astimezone(self.zone).date() - timedelta(days=1)
        held: set[datetime] = set()
        days_empty = 0
        while days_empty < CRON_DAYS_AHEAD_MAX:
            if self.cron.has_day(day):
                held |= {instant for instant in self._instants(day) if instant > after}
            if held:
                # What later days bring is later than noon, even where a clock is put back across midnight.
                noon = datetime.combine(day, _NOON, tzinfo=self.zone).astimezone(UTC)
                ripe = sorted(instant for instant in held if instant < noon)
                yield from ripe
                held.difference_update(ripe)
                days_empty = 0
            days_empty += 1
            try:
                day += timedelta(days=1)
            except OverflowError:
                return

    def next_after(self, after: datetime) -> datetime:
        """Return the first instant later than `after`; raises `UsageError` where there is none in ten years."""
        for instant in islice(self.upcoming(after), 1):
            return instant
        raise UsageError(f"cron {self.cron.text!r} never comes", hint="no month it names has such a day")

    def _instants(self, day: date) -> Iterator[datetime]:
        for hour in self.cron.hours:
            for minute in self.cron.minutes:
                shown = datetime.combine(day, time(hour, minute), tzinfo=self.zone)
                if self.cron.is_every_hour:
                    yield from {
                        at for fold in (0, 1) if _is_shown(at := shown.replace(fold=fold).astimezone(UTC), shown)
                    }
                else:
                    yield _first_instant(shown)


def parse_cron(text: str) -> Cron:
    """Return the expression, or raise `UsageError` naming the field that is wrong and what it may be."""
    written = " ".join(text.split())
    if len(written) > CRON_CHARS_MAX:
        raise UsageError(f"cron is longer than {CRON_CHARS_MAX} characters")
    if written.startswith("@") and written.lower() not in MACROS:
        raise UsageError(f"cron {written!r} is not known", hint=f"there are {', '.join(MACROS)}")
    parts = MACROS.get(written.lower(), written).split(" ")
    if len(parts) != len(_FIELDS) or not parts[0]:
        raise UsageError(
            f"cron {written!r} has {len(parts) if written else 0} fields instead of 5",
            hint=f"{', '.join(field.name for field in _FIELDS)}, such as '0 2 * * *' for two at night, or @daily",
        )
    minutes, hours, days, months, weekdays = (
        _parse_field(part, field) for part, field in zip(parts, _FIELDS, strict=True)
    )
    return Cron(
        text=written,
        minutes=tuple(sorted(minutes)),
        hours=tuple(sorted(hours)),
        days=frozenset(days),
        months=frozenset(months),
        weekdays=frozenset(number or _SUNDAY for number in weekdays),
        # As crontab(5) has it: a field that begins with a star does not restrict.
        is_either=not parts[2].startswith("*") and not parts[4].startswith("*"),
    )


def parse_zone(text: str) -> ZoneInfo:
    """Return the IANA time zone of that name, or raise `UsageError`."""
    try:
        return ZoneInfo(text)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as error:
        known = zoneinfo.available_timezones()
        if not known:
            raise UsageError(f"zone {text!r}: no time zones here", hint="install tzdata") from error
        near = difflib.get_close_matches(text, sorted(known), n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else "such as Europe/Berlin, America/New_York or UTC"
        raise UsageError(f"{text!r} is not an IANA time zone", hint=hint) from error


def _parse_field(text: str, field: _Field) -> set[int]:
    found: set[int] = set()
    for item in text.split(","):
        found |= _parse_item(item, field, text)
    return found


def _parse_item(item: str, field: _Field, text: str) -> set[int]:
    span, has_step, step_text = item.partition("/")
    first_text, has_range, last_text = span.partition("-")
    if has_step and span != "*" and not has_range:
        raise _refused(field, text, f"{item!r} is a step without a range")
    if span == "*":
        first, last = field.first, field.last - (field is _WEEKDAY)
    elif not has_range:
        first = last = _number(first_text, field, text)
    else:
        first, last = _number(first_text, field, text), _number(last_text, field, text)
        if field is _WEEKDAY and last == 0 < first:
            last = _SUNDAY
        if last < first:
            raise _refused(field, text, f"{span!r} runs backwards")
    step = 1
    if has_step:
        if not (step_text.isascii() and step_text.isdecimal()) or not 1 <= int(step_text[:4]) <= field.last:
            raise _refused(field, text, f"{step_text!r} is no step")
        step = int(step_text[:4])
    return set(range(first, last + 1, step))


def _number(text: str, field: _Field, whole: str) -> int:
    if text.lower() in field.names:
        return field.names.index(text.lower()) + field.names_from
    if text.isascii() and text.isdecimal() and len(text) <= len("59") and field.first <= int(text) <= field.last:
        return int(text)
    raise _refused(field, whole, f"{text!r} is not one")


def _refused(field: _Field, text: str, why: str) -> UsageError:
    return UsageError(f"cron: {field.name} {text!r}: {why}", hint=f"{field.name} is {field.accepted}")


def _is_shown(instant: datetime, shown: datetime) -> bool:
    """Say whether the clock shows that time at the instant; in a gap it never does."""
    return instant.astimezone(shown.tzinfo).replace(tzinfo=None, fold=0) == shown.replace(tzinfo=None, fold=0)


def _first_instant(shown: datetime) -> datetime:
    """Return when the clock first shows that time or, in a gap, the first instant after the gap."""
    instant = shown.astimezone(UTC)
    if _is_shown(instant, shown):
        return instant
    # The later reading of a time in a gap lies before the gap, the earlier one after it; the edge is between them.
    before, after = shown.replace(fold=1).astimezone(UTC), instant
    while after - before > timedelta(seconds=1):
        middle = before + timedelta(seconds=int((after - before).total_seconds()) // 2)
        if middle.astimezone(shown.tzinfo).replace(tzinfo=None) > shown.replace(tzinfo=None):
            after = middle
        else:
            before = middle
    return after


def preview(schedule: Schedule, after: datetime, number: int) -> Sequence[datetime]:
    """Return the next instants after `after`, `number` at most."""
    return tuple(islice(schedule.upcoming(after), number))
