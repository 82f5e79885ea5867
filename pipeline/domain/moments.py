"""Moments: instants as people write them, `2026-11-21T22:00+01:00`, `22:00`, `90m`."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Final

from pipeline.domain.errors import UsageError
from pipeline.domain.limits import WINDOW_SECONDS_MAX
from pipeline.domain.windows import parse_window

_CLOCK: Final = re.compile(r"(?P<hour>[01]?[0-9]|2[0-3]):(?P<minute>[0-5][0-9])", re.ASCII)
_HINT: Final = "write 2026-11-21T22:00+01:00, 22:00 for the next time it is so, or 90m, 24h, 7d from now"


def parse_moment(text: str, *, now: datetime, option: str) -> datetime:
    """Return the instant that `text` names, which must be later than `now` and no more than 30 days away.

    An instant without a zone, and a time of day, are in the zone of `now`.

    Raises:
        UsageError: It is no instant, or out of these bounds; `option` is where it was given.
    """
    at = _parse(text, now, option)
    if at <= now:
        raise UsageError(f"{option}: {text!r} has passed", hint=_HINT)
    if at - now > timedelta(seconds=WINDOW_SECONDS_MAX):
        raise UsageError(f"{option}: {text!r} is more than {WINDOW_SECONDS_MAX // 86_400} days away", hint=_HINT)
    return at


def _parse(text: str, now: datetime, option: str) -> datetime:
    if clock := _CLOCK.fullmatch(text):
        at = now.replace(hour=int(clock["hour"]), minute=int(clock["minute"]), second=0, microsecond=0)
        return at if at > now else at + timedelta(days=1)
    try:
        return now + parse_window(text)
    except UsageError:
        pass
    try:
        at = datetime.fromisoformat(text)
        return at if at.tzinfo is not None else at.replace(tzinfo=now.tzinfo)
    except (ValueError, OverflowError) as error:
        raise UsageError(f"{option}: {text!r} is no instant", hint=_HINT) from error
